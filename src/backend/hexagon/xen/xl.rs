//! xl's verbs, typed: words are built by pure functions ([`Verb::words`]), and what comes back is parsed. What a newcomer would get wrong: domains
//! are named by domid, never by name, which could begin with a dash or be another's by now; domain 0 is never acted on, though xl would (it
//! shuts the host down); and no verb waits for the guest, since xl waits for ever: the monitor, which holds `create -F`, is told.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::details::{self, Details};
use super::failure::{self, Failure};
use super::output::{self, Block, Domain, Info, Interface, Vcpu};
use crate::sys::deadline;
use crate::sys::process::{Tool, ToolError};

/// Why a verb did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// xl could not be started, or did not end in time.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// xl says no.
    #[error("xl {verb}: {failure}")]
    Failed {
        /// Its verb.
        verb: &'static str,
        /// What it says.
        failure: Failure,
    },
    /// It printed something else than it should.
    #[error(transparent)]
    Read(#[from] output::Error),
    /// The domain is Xen's own.
    #[error("domain 0 is this host itself: '{0}' is refused")]
    Zero(&'static str),
    /// Somebody else pauses it as fast as it is unpaused.
    #[error("domain {0} is still paused after {MANY} times of 'xl unpause': something else pauses it")]
    StillPaused(u32),
}

/// A verb of xl's and what it is done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// `list -v`: all domains, with their UUIDs.
    List,
    /// `list -l`: what all domains were made of.
    Details,
    /// `info`.
    Info,
    /// `vcpu-list`, of one domain or of all.
    Vcpus(Option<u32>),
    /// `uptime`, of one domain or of all.
    Uptime(Option<u32>),
    /// `block-list`.
    Blocks(u32),
    /// `network-list`.
    Interfaces(u32),
    /// `domid`: the number of the domain of this name.
    Domid(String),
    /// `create -F`: stays until the domain ends; see [`failure::Notice`] for what it says.
    Create {
        /// The xl.cfg.
        file: PathBuf,
        /// Whether it is left paused.
        paused: bool,
    },
    /// `-N create`: what xl understands of a file.
    DryRun(PathBuf),
    /// `pause`.
    Pause(u32),
    /// `unpause`.
    Unpause(u32),
    /// `shutdown`: asks the guest.
    Shutdown(u32),
    /// `reboot`: asks the guest.
    Reboot(u32),
    /// `destroy`.
    Destroy(u32),
    /// `save`: ends the domain, whose memory is in the file then.
    Save {
        /// Which domain.
        domid: u32,
        /// To where.
        file: PathBuf,
    },
    /// `restore -F`: as create.
    Restore {
        /// The xl.cfg of this run; the one in the saved file when none.
        config: Option<PathBuf>,
        /// What `save` wrote.
        file: PathBuf,
        /// Whether it is left paused.
        paused: bool,
    },
    /// `console`, which needs a terminal on stdin: without one it passes no input on.
    Console(u32),
}

/// What only looks, or answers at once.
const SOON: Duration = Duration::from_secs(30);
/// Nobody pauses a domain that often.
const MANY: u32 = 16;
/// Taking a large guest's memory away takes a while.
const LATER: Duration = Duration::from_secs(180);

impl Verb {
    /// xl's word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::List | Verb::Details => "list",
            Verb::Info => "info",
            Verb::Vcpus(_) => "vcpu-list",
            Verb::Uptime(_) => "uptime",
            Verb::Blocks(_) => "block-list",
            Verb::Interfaces(_) => "network-list",
            Verb::Domid(_) => "domid",
            Verb::Create { .. } | Verb::DryRun(_) => "create",
            Verb::Pause(_) => "pause",
            Verb::Unpause(_) => "unpause",
            Verb::Shutdown(_) => "shutdown",
            Verb::Reboot(_) => "reboot",
            Verb::Destroy(_) => "destroy",
            Verb::Save { .. } => "save",
            Verb::Restore { .. } => "restore",
            Verb::Console(_) => "console",
        }
    }

    /// The words after `xl`. Pure. Errors: something that would be done to domain 0.
    pub fn words(&self) -> Result<Vec<OsString>, Error> {
        let mut words = Words::new(self.name());
        match self {
            Verb::List => words.add("-v"),
            Verb::Details => words.add("-l"),
            Verb::Info => {}
            Verb::Vcpus(domid) | Verb::Uptime(domid) => domid.iter().for_each(|domid| words.add(domid.to_string())),
            Verb::Blocks(domid) | Verb::Interfaces(domid) => words.add(domid.to_string()),
            Verb::Domid(name) => {
                // Whatever it begins with.
                words.add("--");
                words.add(name);
            }
            Verb::Create { file, paused } => {
                words.add("-F");
                words.flag("-p", *paused);
                // By -f: a path with a `=` in it would be taken for a key and its value.
                words.add("-f");
                words.add(file);
            }
            Verb::DryRun(file) => {
                words.0.insert(0, "-N".into());
                words.add("-f");
                words.add(file);
            }
            Verb::Save { domid, file } => {
                words.add(guest(self, *domid)?);
                words.add(file);
            }
            Verb::Restore { config, file, paused } => {
                words.add("-F");
                words.flag("-p", *paused);
                config.iter().for_each(|config| words.add(config));
                words.add(file);
            }
            Verb::Pause(domid) | Verb::Unpause(domid) | Verb::Shutdown(domid) | Verb::Reboot(domid) => {
                words.add(guest(self, *domid)?);
            }
            Verb::Destroy(domid) | Verb::Console(domid) => words.add(guest(self, *domid)?),
        }
        Ok(words.0)
    }

    /// How long it may take; none: as long as the guest lives, or as its memory is large.
    pub fn limit(&self) -> Option<Duration> {
        match self {
            Verb::Create { .. } | Verb::Restore { .. } | Verb::Save { .. } | Verb::Console(_) => None,
            Verb::Destroy(_) => Some(LATER),
            _ => Some(SOON),
        }
    }
}

fn guest(verb: &Verb, domid: u32) -> Result<String, Error> {
    if domid == 0 { Err(Error::Zero(verb.name())) } else { Ok(domid.to_string()) }
}

struct Words(Vec<OsString>);

impl Words {
    fn new(verb: &str) -> Words {
        Words(vec![verb.into()])
    }

    fn add(&mut self, word: impl Into<OsString>) {
        self.0.push(word.into());
    }

    fn flag(&mut self, word: &str, set: bool) {
        if set {
            self.add(word);
        }
    }
}

/// The `xl` of this host.
#[derive(Debug, Clone)]
pub struct Xl {
    program: PathBuf,
}

impl Xl {
    /// By its path.
    pub fn new(program: impl Into<PathBuf>) -> Xl {
        Xl { program: program.into() }
    }

    /// The program that does a verb, to be started by whoever waits for it (create, restore, console). Errors: domain 0.
    pub fn tool(&self, verb: &Verb) -> Result<Tool, Error> {
        Ok(Tool::new(&self.program).args(verb.words()?))
    }

    /// All domains. Errors: [`Error`].
    pub fn list(&self) -> Result<Vec<Domain>, Error> {
        Ok(output::list_verbose(&self.run(&Verb::List)?)?)
    }

    /// What all domains were made of. Errors: [`Error`].
    pub fn details(&self) -> Result<Vec<Details>, Error> {
        Ok(details::list(&self.run(&Verb::Details)?)?)
    }

    /// What xl understands of a file. Errors: [`Error`]; xl's own words name the line.
    pub fn dry_run(&self, file: &Path) -> Result<Details, Error> {
        Ok(details::dry_run(&self.run(&Verb::DryRun(file.to_owned()))?)?)
    }

    /// The host. Errors: [`Error`].
    pub fn info(&self) -> Result<Info, Error> {
        Ok(Info::read(&self.run(&Verb::Info)?)?)
    }

    /// Its CPUs; of all domains when none. Errors: [`Error`].
    pub fn vcpus(&self, domid: Option<u32>) -> Result<Vec<Vcpu>, Error> {
        Ok(output::vcpu_list(&self.run(&Verb::Vcpus(domid))?)?)
    }

    /// How long a domain has run. Errors: [`Error`].
    pub fn uptime(&self, domid: u32) -> Result<Duration, Error> {
        let out = self.run(&Verb::Uptime(Some(domid)))?;
        let row = output::uptime(&out)?.into_iter().find(|(_, id, _)| *id == domid);
        row.map(|(_, _, time)| time).ok_or_else(|| Error::Read(output::Error::new("uptime", "")))
    }

    /// Its disks. Errors: [`Error`].
    pub fn blocks(&self, domid: u32) -> Result<Vec<Block>, Error> {
        Ok(output::block_list(&self.run(&Verb::Blocks(domid))?)?)
    }

    /// Its network interfaces. Errors: [`Error`].
    pub fn interfaces(&self, domid: u32) -> Result<Vec<Interface>, Error> {
        Ok(output::network_list(&self.run(&Verb::Interfaces(domid))?)?)
    }

    /// The number of the domain of this name; None: there is none. Errors: [`Error`].
    pub fn domid(&self, name: &str) -> Result<Option<u32>, Error> {
        match self.run(&Verb::Domid(name.to_owned())) {
            Err(Error::Failed { failure, .. }) if failure.kind == failure::Kind::Missing => Ok(None),
            other => Ok(Some(output::domid(&other?)?)),
        }
    }

    /// One domain's row; None: it is gone. Errors: [`Error`].
    pub fn row(&self, domid: u32) -> Result<Option<Domain>, Error> {
        Ok(self.list()?.into_iter().find(|d| d.domid == domid))
    }

    /// Pauses a domain, unless it is paused: Xen counts pauses, and wants as many of `unpause`. Errors: [`Error`].
    pub fn pause(&self, domid: u32) -> Result<(), Error> {
        if self.is_paused(domid)? { Ok(()) } else { self.act(&Verb::Pause(domid)) }
    }

    /// Lets a domain go, however often it was paused. Errors: [`Error`].
    pub fn unpause(&self, domid: u32) -> Result<(), Error> {
        for _ in 0..MANY {
            if !self.is_paused(domid)? {
                return Ok(());
            }
            self.act(&Verb::Unpause(domid))?;
        }
        if self.is_paused(domid)? { Err(Error::StillPaused(domid)) } else { Ok(()) }
    }

    fn is_paused(&self, domid: u32) -> Result<bool, Error> {
        match self.row(domid)? {
            Some(row) => Ok(row.state.paused),
            None => {
                let cause = format!("{domid} is an invalid domain identifier");
                let failure = Failure { code: None, kind: failure::Kind::Missing, cause };
                Err(Error::Failed { verb: "list", failure })
            }
        }
    }

    /// Does a verb that prints nothing: shutdown, reboot, destroy, save. Errors: [`Error`].
    pub fn act(&self, verb: &Verb) -> Result<(), Error> {
        self.run(verb).map(|_| ())
    }

    fn run(&self, verb: &Verb) -> Result<Vec<u8>, Error> {
        // A day: saving the largest guest to the slowest disk ends before.
        let limit = verb.limit().unwrap_or(Duration::from_secs(86400));
        let out = deadline::answer(self.tool(verb)?, limit)?;
        failure::check(out.status.code(), &out.stderr)
            .map_err(|failure| Error::Failed { verb: verb.name(), failure })?;
        Ok(out.stdout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_words() {
        let file = || PathBuf::from("/d/a=b.cfg");
        let table = [
            (Verb::List, "list -v"),
            (Verb::Details, "list -l"),
            (Verb::Info, "info"),
            (Verb::Vcpus(None), "vcpu-list"),
            (Verb::Vcpus(Some(0)), "vcpu-list 0"),
            (Verb::Uptime(Some(3)), "uptime 3"),
            (Verb::Blocks(3), "block-list 3"),
            (Verb::Interfaces(3), "network-list 3"),
            (Verb::Domid("-x".into()), "domid -- -x"),
            (Verb::Create { file: file(), paused: false }, "create -F -f /d/a=b.cfg"),
            (Verb::Create { file: file(), paused: true }, "create -F -p -f /d/a=b.cfg"),
            (Verb::DryRun(file()), "-N create -f /d/a=b.cfg"),
            (Verb::Pause(3), "pause 3"),
            (Verb::Unpause(3), "unpause 3"),
            (Verb::Shutdown(3), "shutdown 3"),
            (Verb::Reboot(3), "reboot 3"),
            (Verb::Destroy(3), "destroy 3"),
            (Verb::Save { domid: 3, file: "/s".into() }, "save 3 /s"),
            (Verb::Restore { config: None, file: "/s".into(), paused: true }, "restore -F -p /s"),
            (Verb::Restore { config: Some(file()), file: "/s".into(), paused: false }, "restore -F /d/a=b.cfg /s"),
            (Verb::Console(3), "console 3"),
        ];
        for (verb, want) in table {
            assert_eq!(verb.words().unwrap().join(std::ffi::OsStr::new(" ")), want, "{verb:?}");
        }
    }

    #[test]
    fn nothing_is_done_to_domain_0() {
        let save = Verb::Save { domid: 0, file: "/s".into() };
        let all = [Verb::Pause(0), Verb::Unpause(0), Verb::Shutdown(0), Verb::Reboot(0), Verb::Destroy(0), save];
        for verb in all {
            let said = verb.words().unwrap_err().to_string();
            assert_eq!(said, format!("domain 0 is this host itself: '{}' is refused", verb.name()));
        }
        assert!(matches!(Xl::new("/nonexistent").act(&Verb::Destroy(0)), Err(Error::Zero("destroy"))));
    }
}
