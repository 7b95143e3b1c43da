//! A domain's control groups: one per domain, in the v2 tree where there is one, in v1 hierarchies for what v2 lacks there.
//! What a newcomer would get wrong: on a hybrid host the v2 tree has no controllers, yet freezing, killing and CPU times
//! work in it (they belong to cgroup v2's core); only limits need a controller.
//!
//! ```text
//! <base>/            pronto/<machine> in the v2 tree, or the transient scope that systemd delegated to us
//!   monitor/         the monitor itself
//!   guest/           nspawn, which makes payload/ and supervisor/ below; frozen, killed and limited as a whole
//! <v1 controller>/pronto/<machine>/      only for controllers that v2 does not have here
//! ```
//!
//! Source: kernel cgroup-v2.rst, cgroup-v1/*.rst.

mod cage;
mod files;
mod hierarchies;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use cage::{Borrowed, Cage, Limits};
pub use files::move_self;
pub use hierarchies::{Hierarchies, join_like, own_v2};

/// Why a domain's cgroup could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory or file of a hierarchy.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// As the system call.
        source: io::Error,
    },
    /// A limit was asked for that nothing here can enforce.
    #[error("this host has no '{0}' cgroup controller that pronto can use, so the limit could not be enforced")]
    NoController(&'static str),
}
