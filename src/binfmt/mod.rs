//! binfmt_misc: which interpreter the kernel hands a foreign program to. What a newcomer would get wrong: several entries may
//! match one file, and the one registered *last* wins; so ours is put over the distribution's, which stays as it is, and only
//! entries of our own names are ever removed.
//!
//! ```text
//! entry         a line of binfmt.d(5) and the text of /proc/sys/fs/binfmt_misc/NAME: pure
//! data          the lines in binfmt/, compiled in
//! kernel        one registry (a mounted binfmt_misc): list, register, remove, who wins
//! interpreter   the qemu-user binaries of this host: found, checked, their versions
//! native        what the host runs itself, found out by trying
//! cpuinfo       what an interpreter shows of its CPU
//! little        the programs that are tried and asked with: pure
//! private       a registry that one guest alone sees
//! bake          options put into a copy of an interpreter: pure
//! copies        the cache of such copies
//! demands       which QEMU is too old for which guest: pure
//! register      for this boot and durable, undone when it fails
//! boot          what is registered for this boot, told to systemd-binfmt
//! status        the rows that people see
//! ```

mod bake;
mod boot;
mod copies;
mod cpuinfo;
mod data;
mod demands;
mod dispatch;
mod entry;
mod interpreter;
mod kernel;
mod little;
mod native;
mod private;
mod register;
mod status;

pub use copies::{SIGNALS, can_copy, copy, knows_signals};
pub use cpuinfo::cpuinfo;
pub use data::{for_profile, shipped};
pub use demands::{Level, Problem, demands};
pub use entry::{Entry, Flags, Kind, LineError};
pub use interpreter::{Interpreter, Version, best, candidates};
pub use kernel::{Registered, Registry, ident};
pub use native::{host_profile, machine, runs_itself};
pub use private::{interpreter_of, private};
pub use register::{Emulator, Host, Made, Snapshot};
pub use status::{Pinned, Row};

use std::io;
use std::path::PathBuf;

use crate::sys::process::ToolError;

/// What can go wrong with registering.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No program can run this architecture.
    #[error("no interpreter for {arch} programs is installed (looked for {looked_for})")]
    Missing {
        /// The profile's name.
        arch: String,
        /// Names of programs.
        looked_for: String,
        /// The package that holds them.
        package: String,
    },
    /// There are some, and each is unfit.
    #[error("no interpreter for {arch} programs can be used: {why}")]
    Unfit {
        /// The profile's name.
        arch: String,
        /// Each with its reason.
        why: String,
        /// The package that holds a good one.
        package: String,
    },
    /// The kernel has no binfmt_misc, or it cannot be mounted.
    #[error("binfmt_misc cannot be mounted at {}", path.display())]
    NoRegistry {
        /// Where.
        path: PathBuf,
        /// As mount(2).
        source: io::Error,
    },
    /// A file of the registry or of binfmt.d could not be read or written.
    #[error("{what}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// As the system call.
        source: io::Error,
    },
    /// The kernel took our entry and still runs something else.
    #[error("{entry} was registered, but the kernel would run {arch} programs by {winner}")]
    NotInForce {
        /// Our entry.
        entry: String,
        /// The profile's name.
        arch: String,
        /// What wins instead.
        winner: String,
    },
    /// The host runs these programs itself.
    #[error("this host runs {0} programs itself: no interpreter is registered for them")]
    Native(String),
    /// Whether the host runs them could not be found out.
    #[error("cannot find out whether this host runs {arch} programs itself")]
    Probe {
        /// The profile's name.
        arch: String,
        /// Why.
        source: io::Error,
    },
    /// A program failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A line of binfmt.d cannot be read.
    #[error(transparent)]
    Line(#[from] LineError),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// The package to install, where that is the cure.
    pub fn package(&self) -> Option<&str> {
        match self {
            Error::Missing { package, .. } | Error::Unfit { package, .. } => Some(package),
            _ => None,
        }
    }
}

/// Result of this room.
pub type Result<T> = std::result::Result<T, Error>;
