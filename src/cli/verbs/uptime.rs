//! `uptime`: how long domains have been running, in xl's two shapes. What a newcomer would get wrong: the short shape shows the
//! host's local time, and no host row stands first, for there is no Domain-0 here.

use clap::Args;
use serde_json::json;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::cli::output::{self, FormatOption};
use crate::domain::DomainRef;
use crate::ops::{self, list::Row};
use crate::sys::clock;

/// Print how long domains have been running
#[derive(Debug, Args)]
pub struct Uptime {
    /// One line as uptime(1) writes it
    #[arg(short, long)]
    short: bool,
    #[command(flatten)]
    format: FormatOption,
    /// Only these, by name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domains: Vec<DomainRef>,
}

impl Verb for Uptime {
    const NAME: &'static str = "uptime";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let rows = ops::list::list(&ctx, false, &self.domains)?;
        let now = clock::now();
        let up: Vec<(&Row, u32, u64)> =
            rows.iter().filter_map(|row| Some((row, row.domid?, now.saturating_sub(row.started?)))).collect();
        if self.format.is_json() {
            let all: Vec<_> = up
                .iter()
                .map(|(row, id, seconds)| json!({"name": row.name, "domid": id, "seconds": seconds}))
                .collect();
            output::json(&all)?;
        } else if self.short {
            let time = clock::local(now).map(|t| format!("{:02}:{:02}:{:02}", t.hour, t.minute, t.second));
            let time = time.unwrap_or_default();
            output::lines(
                up.iter().map(|(row, id, s)| format!(" {time} up {}, {} ({id})", span(*s, false), row.name)),
            )?;
        } else {
            let header = format!("{:<33} {:>4} Uptime", "Name", "ID");
            let lines = up.iter().map(|(row, id, s)| format!("{:<33} {id:>4} {}", row.name, span(*s, true)));
            output::lines(std::iter::once(header).chain(lines))?;
        }
        Ok(0)
    }
}

/// `2 days,  3:04:05`; without seconds in the short shape. Source: Xen, tools/xl/xl_info.c, `uptime_to_string`.
fn span(seconds: u64, with_seconds: bool) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    let days = match days {
        0 => String::new(),
        1 => "1 day, ".to_owned(),
        many => format!("{many} days, "),
    };
    let end = if with_seconds { format!(":{:02}", seconds % 60) } else { String::new() };
    format!("{days}{hours:>2}:{minutes:02}{end}")
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_are_xls() {
        for (seconds, long, short) in [
            (29, " 0:00:29", " 0:00"),
            (3661, " 1:01:01", " 1:01"),
            (86400, "1 day,  0:00:00", "1 day,  0:00"),
            (2 * 86400 + 13 * 3600, "2 days, 13:00:00", "2 days, 13:00"),
        ] {
            assert_eq!((span(seconds, true).as_str(), span(seconds, false).as_str()), (long, short));
        }
    }
}
