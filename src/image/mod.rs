//! Where images come from: what a word means ([`mod@reference`]), the catalogue of labels, the choice of a platform, registries and
//! layouts ([`oci`]), tarballs, and the unpacking of all of them into the store's layers. What a newcomer would get wrong: a
//! layer is unpacked alone, so that it can be shared; whiteouts are converted to what overlayfs reads, and the stacking is
//! done by whoever runs the image.

pub mod catalogue;
pub mod checksums;
pub mod digest;
pub mod disk;
pub mod fetch;
pub mod net;
pub mod oci;
pub mod pack;
pub mod platform;
pub mod raspios;
pub mod reference;
pub mod sources;
pub mod streams;
pub mod tarball;
pub mod template;
pub mod unpack;

#[cfg(test)]
#[path = "../../tests/common/images.rs"]
mod testing;

pub use digest::Digest;
pub use reference::ImageRef;

use std::io;

/// What can go wrong between a word and a tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The word names no image.
    #[error("'{}' is no image: {why}", word.escape_debug())]
    BadReference {
        /// The word.
        word: String,
        /// What is wrong with it.
        why: String,
    },
    /// The source answered that it has no such thing.
    #[error("{what} was not found at {place}{}", detail(.why))]
    NotFound {
        /// The image, manifest or blob.
        what: String,
        /// The registry, layout or server.
        place: String,
        /// What the source said, if it said anything.
        why: String,
    },
    /// The source could not be asked at all: another source may help.
    #[error("{place} cannot be reached: {}", why.escape_debug())]
    Unreachable {
        /// The registry or server.
        place: String,
        /// The innermost cause.
        why: String,
    },
    /// The source answered, and refused.
    #[error("{place} refuses {what}: {}", why.escape_debug())]
    Refused {
        /// The image, manifest or blob.
        what: String,
        /// The registry or server.
        place: String,
        /// What the source said.
        why: String,
    },
    /// The image exists, for other platforms only.
    #[error("{what} has no platform {wanted}; it has {}", if .available.is_empty() { "none" } else { .available.as_str() })]
    NoPlatform {
        /// The image.
        what: String,
        /// What was wanted, as text.
        wanted: String,
        /// What there is, as text.
        available: String,
    },
    /// What arrived is not what the digest promised.
    #[error("{what} is damaged: its digest is {found}, but {wanted} was promised")]
    WrongDigest {
        /// The manifest, config, blob or layer.
        what: String,
        /// The promise.
        wanted: String,
        /// What came.
        found: String,
    },
    /// Fewer or more bytes came than the manifest promised.
    #[error("{what} is truncated or too long: {found} of {wanted} bytes came")]
    WrongSize {
        /// The blob.
        what: String,
        /// The promise in bytes.
        wanted: u64,
        /// What came, in bytes.
        found: u64,
    },
    /// A document or archive that cannot be understood, or may not be.
    #[error("{what} cannot be used: {why}")]
    Malformed {
        /// The manifest, config, layer or archive.
        what: String,
        /// What is wrong, with the entry's name where there is one (escaped).
        why: String,
    },
    /// The host's files.
    #[error("{what}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// As the system call.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

fn detail(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {}", why.escape_debug()) }
}

impl Error {
    /// Wraps an I/O error with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    /// Whether another source of the same image is worth a try: this one is out of reach, gone, or refuses.
    pub fn is_out_of_reach(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::NotFound { .. } | Error::Refused { .. })
    }

    /// Whether what came is not what was promised, or cannot be understood.
    pub fn is_damage(&self) -> bool {
        matches!(self, Error::WrongDigest { .. } | Error::WrongSize { .. } | Error::Malformed { .. })
    }

    /// Whether the disk is full, wherever in the chain that was noticed.
    pub fn is_disk_full(&self) -> bool {
        let source = match self {
            Error::Io { source, .. } | Error::Store(crate::store::Error::Io { source, .. }) => source,
            _ => return false,
        };
        matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
    }
}

/// Result of this room.
pub type Result<T> = std::result::Result<T, Error>;

/// Seconds since 1970.
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Says once that attributes were lost.
fn note_lost(what: &str, unpacked: &unpack::Unpacked, report: &dyn crate::domain::Report) {
    let (count, first) = &unpacked.lost_attributes;
    if *count > 0 {
        report.warn(&format!(
            "{what}: {count} extended attributes (such as '{first}') cannot be kept on this file system"
        ));
    }
}
