//! The state on disk: every path once, locks, atomic files, domains, layers, images. What a newcomer would get wrong: the
//! store's lock is held for milliseconds, never across a download or a boot; what takes long is done in a place of its own
//! and renamed in.
//!
//! ```text
//! /var/lib/pronto/            (--root, PRONTO_ROOT)
//!   version                   refused when newer
//!   blobs/sha256/…            OCI blobs
//!   layers/<key>/             one unpacked layer, overlay-ready, read-only, shared
//!   images/                   references → manifest digest per platform
//!   domains/<name>/           domain.json, upper/, work/, emulation/, console.log
//!   domid                     the next domid of this boot
//! /run/pronto/                sockets, locks; gone at reboot          (with --root DIR: DIR/run)
//! /var/cache/pronto/          partial downloads (resumable)           (with --root DIR: DIR/cache)
//! ```

pub mod blobs;
pub mod content;
pub mod domains;
pub mod domid;
pub mod images;
pub mod layers;
pub mod loose;
pub mod mending;
pub mod paths;
pub mod sums;
pub mod young;

pub use domains::{Domain, Record};
pub use paths::Store;

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with the state on disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// As the system call.
        source: io::Error,
    },
    /// Somebody else could enter the store.
    #[error("{} is open to other users: it must belong to root with mode 0700, since images hold setuid files", .0.display())]
    NotPrivate(PathBuf),
    /// Written by a newer pronto.
    #[error("{} was written by a newer pronto (version {found}, this one knows {known})", path.display())]
    Newer {
        /// The store.
        path: PathBuf,
        /// What its version file says.
        found: u32,
        /// What this program writes.
        known: u32,
    },
    /// A file of ours does not hold what it should.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A domain of this name exists.
    #[error("a domain named '{0}' exists already")]
    NameInUse(String),
    /// Another process works on this domain.
    #[error("domain '{0}' is busy: another command is working on it")]
    Busy(String),
    /// A signal came while another process was waited for; it is still to be collected.
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
}

impl Error {
    /// Wraps an I/O error with its path.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    }
}

/// Result of this room.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod testing {
    /// An empty store, and the directory that it goes with.
    pub fn store() -> (tempfile::TempDir, super::Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = super::Store::at(Some(&dir.path().join("s")));
        store.open().unwrap();
        (dir, store)
    }
}
