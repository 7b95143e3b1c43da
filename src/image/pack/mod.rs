//! The other direction of [`super::unpack`]: a tree becomes an archive, an archive a layer, layers an image on the disk. What a newcomer
//! would get wrong: unpacking what was packed must give the same tree, entry by entry, and packing it again the same bytes; names are
//! sorted, and nothing of the moment goes in.

pub mod layout;
pub mod stream;
pub mod tar;
mod walk;

use std::io::{self, Write};
use std::os::fd::BorrowedFd;

pub use stream::{Codec, Encoder, Hashing};

use super::{Digest, Error, Result};

/// What a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A whole file tree, for an archive of just that.
    Rootfs,
    /// A whole file tree that becomes an image's only layer: no name in it may say what names say in a layer.
    Single,
    /// A layer as overlayfs reads it: what it hides is said in an image's words (image-spec, layer.md).
    Layer,
}

/// How a tree is packed.
pub struct Rules<'a> {
    /// What it is.
    pub form: Form,
    /// Whether it may change meanwhile; else that is an error.
    pub living: bool,
    /// Told of every piece; an error from it ends the work.
    pub tick: &'a (dyn Fn(u64) -> io::Result<()> + Sync),
}

impl std::fmt::Debug for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("form", &self.form).field("living", &self.living).finish_non_exhaustive()
    }
}

/// What became of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Packed {
    /// How many entries there are.
    pub entries: u64,
    /// Bytes of all files, holes too.
    pub bytes: u64,
    /// What could not be packed, a line each.
    pub left_out: Vec<String>,
}

/// Why packing stopped.
#[derive(Debug)]
pub enum Fault {
    /// The tree could not be read: the name in it, and the system's answer.
    Tree(Vec<u8>, io::Error),
    /// Something in it cannot be in an archive: its name, and a sentence.
    Refused(Vec<u8>, String),
    /// The output could not be written, or whoever waits for it wants an end.
    Out(io::Error),
}

impl Fault {
    /// The failure in full: `what` is the tree, `place` where it was written to.
    pub fn of(self, what: &str, place: &str) -> Error {
        let named =
            |name: &[u8]| if name.is_empty() { String::new() } else { format!(" '{}' of", name.escape_ascii()) };
        match self {
            Fault::Tree(name, source) => Error::Io { what: format!("cannot read{} {what}", named(&name)), source },
            Fault::Refused(name, why) => {
                Error::Malformed { what: what.to_owned(), why: format!("'{}': {why}", name.escape_ascii()) }
            }
            Fault::Out(error) => match error.downcast::<Error>() {
                Ok(inner) => inner,
                Err(source) => Error::Io { what: format!("cannot write {place}"), source },
            },
        }
    }
}

/// Writes the tree below an open directory as an archive.
pub fn tree<W: Write>(root: BorrowedFd<'_>, rules: &Rules<'_>, out: W) -> std::result::Result<(W, Packed), Fault> {
    walk::Walk::new(rules, out).run(root)
}

/// What a layer's archive became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The digest of the bytes that were written.
    pub digest: Digest,
    /// How many.
    pub size: u64,
    /// The digest of the archive inside.
    pub diff_id: Digest,
    /// How it is compressed.
    pub codec: Codec,
}

/// Writes a tree as a layer's blob.
pub fn blob<W: Write>(
    root: BorrowedFd<'_>,
    rules: &Rules<'_>,
    codec: Codec,
    out: W,
) -> std::result::Result<(W, Blob, Packed), Fault> {
    let packed = Encoder::new(codec, Hashing::new(out)).map_err(Fault::Out)?;
    // The archive's small writes (headers, padding) are gathered first.
    let inner = io::BufWriter::with_capacity(256 << 10, Hashing::new(packed));
    let (inner, summary) = tree(root, rules, inner)?;
    let inner = inner.into_inner().map_err(|e| Fault::Out(e.into_error()))?;
    let (packed, diff_id, _) = inner.finish();
    let (out, digest, size) = packed.finish().map_err(Fault::Out)?.finish();
    Ok((out, Blob { digest, size, diff_id, codec }, summary))
}

/// A tick that tells a step of the bytes and ends the work when a signal that was blocked has come.
pub fn ticking(step: &dyn crate::domain::Step) -> impl Fn(u64) -> io::Result<()> + Sync + '_ {
    move |bytes| {
        if bytes > 0 {
            step.advance(bytes);
        }
        super::net::check_signal().map_err(io::Error::other)
    }
}

/// Packs a tree into a pipe and hands its reading end to `work`, on two threads: what comes out can be unpacked at once. The reader's failure
/// is told rather than the packer's, which only sees that nobody reads any more.
pub fn through<T>(
    root: BorrowedFd<'_>,
    rules: &Rules<'_>,
    what: &str,
    work: impl FnOnce(&mut (dyn io::Read + Send)) -> Result<T>,
) -> Result<(T, Packed)> {
    let failed = Error::io("cannot make a pipe");
    let (mut reader, writer) = crate::sys::process::pipe().map_err(failed)?;
    std::thread::scope(|scope| {
        let packer = scope.spawn(move || {
            let out = io::BufWriter::with_capacity(256 << 10, writer);
            let (out, packed) = tree(root, rules, out)?;
            out.into_inner().map_err(|e| Fault::Out(e.into_error()))?;
            Ok(packed)
        });
        let worked = work(&mut reader);
        drop(reader);
        let packed = packer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (worked, packed) {
            // Half a tree arrived, which looks like a truncated archive to who reads it.
            (_, Err(fault @ (Fault::Tree(..) | Fault::Refused(..)))) => Err(fault.of(what, what)),
            (Err(error), _) => Err(error),
            (Ok(_), Err(fault)) => Err(fault.of(what, what)),
            (Ok(done), Ok(packed)) => Ok((done, packed)),
        }
    })
}

#[cfg(test)]
mod tests;
