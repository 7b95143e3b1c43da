//! `list`: the domains, in xl's columns. What a newcomer would get wrong: scripts read these columns with awk, from the right,
//! and use the exit code to learn whether a domain runs.

use clap::Args;

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::output::{self, FormatOption};
use crate::cli::{details, guest};
use crate::domain::DomainRef;
use crate::ops::{self, Kind};

/// List domains
///
/// State is six flags: r it used a CPU just now, b it waits, p paused, s stopping or shut off, then why (c crashed), d dying.
/// Mem is the limit in MiB, or the use if there is no limit. A shut-off domain has no ID.
#[derive(Debug, Args)]
pub struct List {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// All details, as JSON in xl's shape
    #[arg(short, long)]
    long: bool,
    /// Also the UUID, the reason of a shutdown, and the security label, as in xl
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    format: FormatOption,
    /// Only these, by name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domains: Vec<DomainRef>,
}

impl Verb for List {
    const NAME: &'static str = "list";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let rows = ops::list::list(&ctx, self.all, &self.domains).map_err(|error| as_xl(error, &self.domains))?;
        if self.long {
            // xl ends its JSON with an empty line.
            output::json(&rows.iter().map(details::of_row).collect::<Vec<_>>())?;
            output::own("\n")?;
        } else if self.format.is_json() {
            output::json(&rows)?;
        } else {
            output::lines(std::iter::once(header(self.verbose)).chain(rows.iter().map(|row| line(row, self.verbose))))?;
        }
        Ok(0)
    }
}

/// xl says of a missing domid something else than of a missing name, in `list` only.
fn as_xl(error: ops::Error, asked: &[DomainRef]) -> Failure {
    let text = error.to_string();
    let missing = asked.iter().find(|d| error.kind() == Kind::NoDomain && text == ops::Error::no_domain(d).to_string());
    match missing {
        Some(DomainRef::Id(id)) => Failure::said(format!("Error: Domain '{id}' does not exist."), 1),
        _ => error.into(),
    }
}

fn header(verbose: bool) -> String {
    let more = if verbose { "   UUID                            Reason-Code\tSecurity Label" } else { "" };
    format!("{:<40} {:>5} {:>5} {:>5}\tState\tTime(s){more}", "Name", "ID", "Mem", "VCPUs")
}

fn line(row: &ops::list::Row, verbose: bool) -> String {
    let domid = row.domid.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let mut line = format!(
        "{:<40} {domid:>5} {:>5} {:>5}     {}  {:>8.1}",
        row.name, row.memory_mib, row.vcpus, row.columns, row.cpu_seconds
    );
    if verbose {
        line.push_str(&format!(" {:<36} {:>8} {:>16}", row.uuid, reason(&row.columns), "-"));
    }
    line
}

/// xl's reason code, from the columns: hexadecimal (sched.h, `SHUTDOWN_*`), or `-` for what runs.
fn reason(columns: &str) -> &'static str {
    match columns.as_bytes() {
        [_, _, _, b's', why, ..] => match why {
            b'r' => "1",
            b's' => "2",
            b'c' => "3",
            b'w' => "4",
            b'S' => "5",
            _ => "0",
        },
        _ => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::State;

    pub fn row(name: &str, domid: Option<u32>, state: State) -> ops::list::Row {
        ops::list::Row {
            name: name.to_owned(),
            domid,
            uuid: "e1823450-8e56-4a72-966b-e468ebf4737e".to_owned(),
            state,
            columns: state.columns().to_owned(),
            memory_mib: 128,
            vcpus: 2,
            cpu_seconds: 13.06,
            arch: "arm64".to_owned(),
            emulated: true,
            native: None,
            image: "debian/bookworm".to_owned(),
            backend: "nspawn".to_owned(),
            created: 0,
            started: domid.map(|_| 1),
            leader: None,
        }
    }

    #[test]
    fn the_columns_are_xls() {
        assert_eq!(header(false), "Name                                        ID   Mem VCPUs\tState\tTime(s)");
        assert_eq!(
            header(true),
            "Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label"
        );
        assert_eq!(
            line(&row("full1", Some(1), State::Running), false),
            "full1                                        1   128     2     -b----      13.1"
        );
        assert_eq!(
            line(&row("full1", Some(1), State::Running), true),
            "full1                                        1   128     2     -b----      13.1 e1823450-8e56-4a72-966b-e468ebf4737e        -                -"
        );
        let off = line(&row("off", None, State::ShutOff), false);
        assert_eq!(off, "off                                          -   128     2     ---s--      13.1");
        let crashed = line(&row("crash1", Some(4), State::Crashed), true);
        assert!(crashed.ends_with("        3                -"), "{crashed}");
    }

    #[test]
    fn a_missing_domid_is_said_in_other_words() {
        let say = |word: &str| {
            let asked = [DomainRef::from("ok"), DomainRef::from(word)];
            as_xl(ops::Error::no_domain(&asked[1]), &asked).lines()
        };
        assert_eq!(say("99"), ["Error: Domain '99' does not exist."]);
        assert_eq!(say("nosuch"), ["nosuch is an invalid domain identifier (rc=-6)"]);
    }
}
