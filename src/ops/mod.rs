//! The verbs: one file each. They take locks, ask the state first, undo what failed, and join the rooms below. What a newcomer
//! would get wrong: a verb never prints and never exits; it returns data, or an [`Error`] whose kind the front turns into an
//! exit code.

pub mod accel;
pub mod apart;
pub mod cache;
pub mod console;
pub mod control;
pub mod copy;
mod cpu;
pub mod create;
pub mod defaults;
mod delegation;
pub mod doctor;
pub mod enter;
pub mod exec;
pub mod export;
pub mod facts;
pub mod hexagon;
pub mod ids;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod interpreter;
pub mod isolation;
pub mod lifecycle;
pub mod list;
pub mod monitor;
pub mod oneshot;
pub mod profile;
pub mod provision;
pub mod registry;
pub mod reserve;
pub mod run;
pub mod stored;
pub mod sweep;
pub mod tree;

use std::fmt;
use std::sync::Arc;

use crate::domain::{DomainRef, Report, State};
use crate::store::Store;

/// What every verb needs.
#[derive(Clone)]
pub struct Ctx {
    /// The state on disk.
    pub store: Store,
    /// `--root`, when it was given: our own programs are started with it.
    pub root: Option<std::path::PathBuf>,
    /// Where progress and notes go.
    pub report: Arc<dyn Report>,
    /// How registries are reached.
    pub access: crate::image::oci::Access,
}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx").field("store", &self.store).finish_non_exhaustive()
    }
}

/// What sort of failure it was: the front picks exit code and wording by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The words were wrong (exit 2).
    Usage,
    /// No such domain: the front uses xl's wording (exit 1).
    NoDomain,
    /// A domain could not be made, or its name is in use (exit 3).
    Create,
    /// The command to run was not found in the guest (exit 127).
    CommandNotFound,
    /// The command to run could not be executed (exit 126).
    CommandNotExecutable,
    /// A signal ended this command (exit 128+N); what it had begun is undone.
    Interrupted(i32),
    /// Everything else (exit 1; 125 around one-off and exec).
    General,
}

/// One failure: what failed, why (the sources), and what to do.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    hint: Option<String>,
}

/// A failure to write `what`, and what helps where the disk is full.
pub(crate) fn cannot_write(what: &str, error: std::io::Error) -> Error {
    let full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
    let failure = Error::general(format!("cannot write {what}")).because(error);
    if full { failure.hint("free some space, or write it elsewhere") } else { failure }
}

/// Result of a verb.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What failed, in one line without a final period.
    pub fn new(kind: Kind, what: impl Into<String>) -> Error {
        Error { kind, what: what.into(), source: None, hint: None }
    }

    /// A general failure.
    pub fn general(what: impl Into<String>) -> Error {
        Error::new(Kind::General, what)
    }

    /// No such domain.
    pub fn no_domain(domain: &DomainRef) -> Error {
        Error::new(Kind::NoDomain, format!("{domain} is an invalid domain identifier (rc=-6)"))
    }

    /// The verb cannot be done in this state. `cannot` is a whole clause ("it cannot be shut down"), since no pattern gives
    /// good English for "shut down", "rename" and "attach to the console" alike.
    pub fn state(domain: &str, state: State, cannot: &str, hint: &str) -> Error {
        Error::general(format!("domain '{domain}' is {state}: {cannot}")).hint(hint)
    }

    /// Why it failed.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// What the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure as another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Error {
        self.kind = kind;
        self
    }

    /// What sort of failure it was.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What failed and why in one line, where something else is done instead.
    pub fn in_short(&self) -> String {
        let why = self.source.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("{}{why}", self.what).replace('\n', "; ")
    }

    /// What the user can do, if that is known.
    pub fn cure(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}

impl From<crate::store::Error> for Error {
    fn from(error: crate::store::Error) -> Error {
        let hint = match &error {
            crate::store::Error::NotPrivate(path) => Some(format!("chown root: {0} && chmod 0700 {0}", path.display())),
            crate::store::Error::Newer { .. } => Some("use the newer pronto, or another --root".to_owned()),
            crate::store::Error::Io { source, .. } if source.raw_os_error() == Some(libc::ENOSPC) => {
                Some("free some space, or put the store elsewhere with --root".to_owned())
            }
            _ => None,
        };
        let kind = match error {
            crate::store::Error::NameInUse(_) => Kind::Create,
            crate::store::Error::Interrupted(signal) => Kind::Interrupted(signal),
            _ => Kind::General,
        };
        Error {
            kind,
            what: error.to_string(),
            source: std::error::Error::source(&error).map(|s| s.to_string().into()),
            hint,
        }
    }
}

/// Tells a long verb that a signal wants it to end, so that it can undo what it began.
#[derive(Debug)]
pub struct Interrupt(crate::sys::signal::Signals);

impl Interrupt {
    /// Collects INT, TERM and HUP from now on.
    pub fn collect() -> Result<Interrupt> {
        let signals = crate::sys::signal::Signals::collect(&crate::sys::signal::ENDING);
        Ok(Interrupt(signals.map_err(|e| Error::general("cannot watch for signals").because(e))?))
    }

    /// Waits for a while. Errors: one has come.
    pub fn sleep(&mut self, time: std::time::Duration) -> Result<()> {
        let millis = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        let _ = crate::sys::sock::poll(&[(std::os::fd::AsFd::as_fd(&self.0), false)], millis);
        self.check()
    }

    /// Fails when one has come.
    pub fn check(&mut self) -> Result<()> {
        match self.0.take() {
            Some(signal) => Err(Error::new(Kind::Interrupted(signal), format!("interrupted by signal {signal}"))),
            None => Ok(()),
        }
    }
}

impl std::os::fd::AsFd for Interrupt {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The hidden verbs: programs of our own that other verbs start (`__monitor`, `__enter`). `None`: no such one.
pub fn internal(words: &[std::ffi::OsString]) -> Option<u8> {
    match words.first()?.to_str()? {
        "__account" => Some(profile::account(&words[1..])),
        "__apart" => Some(apart::main(&words[1..])),
        "__enter" => Some(enter::main(&words[1..])),
        "__keeper" => Some(delegation::keeper(&words[1..])),
        "__monitor" => Some(monitor::main(&words[1..])),
        _ => None,
    }
}

/// Says that this verb needs root, before anything is touched.
pub fn need_root(verb: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::general(format!("{verb} needs root")).hint(format!("run it as root: sudo pronto {verb} …")))
}
