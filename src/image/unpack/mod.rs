//! One layer or tarball from its source to a directory. Three threads work on it: one reads, hashes and decompresses, one
//! hashes what comes out, one parses it and writes files. What a newcomer would get wrong: digests are known only at the end,
//! so the directory is worth nothing until this returns; it is made beside and renamed by the caller. And when an archive
//! looks broken, the rest is still read: a wrong digest explains more than a strange header.

pub mod disk;
mod header;
mod limits;
mod parents;
mod raw;
pub mod sparse;
mod stream;
pub mod tar;
pub mod tree;
mod zip;

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub use raw::MAX_SIZE;
pub use stream::{Packing, packing};

use super::{Digest, Error, Result};
use crate::domain::Step;
use crate::store::content::Content;
use crate::store::loose::Loose;
use crate::store::sums::Known;
use crate::sys::unpack::begin_writeback;

/// Files from this size on are handed to the disk as soon as they are complete.
const BIG: u64 = 4 << 20;

/// What is to be unpacked, and what was promised of it.
pub struct Job<'a> {
    /// What it is, for messages: `layer 0123456789ab of docker.io/library/debian:bookworm`.
    pub what: &'a str,
    /// Its bytes. A failing read may carry an [`Error`] inside the `io::Error`.
    pub source: &'a mut (dyn Read + Send),
    /// Its size in bytes.
    pub size: Option<u64>,
    /// The digest of its bytes.
    pub digest: Option<&'a Digest>,
    /// The digest of the archive inside.
    pub diff_id: Option<&'a Digest>,
    /// Whether it is a layer that has others below it: then its hard links may lead to what they hold ([`Unpacked::loose`]).
    pub below: bool,
    /// Told of each byte that was read.
    pub step: &'a dyn Step,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("what", &self.what).field("size", &self.size).finish_non_exhaustive()
    }
}

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The digest of the source's bytes.
    pub digest: Digest,
    /// The digest of the archive inside, when it was asked for.
    pub diff_id: Option<Digest>,
    /// Bytes of all files.
    pub size: u64,
    /// How many entries there were.
    pub entries: u64,
    /// It hides every layer below it.
    pub opaque_root: bool,
    /// How many extended attributes could not be kept, and the first of them.
    pub lost_attributes: (u64, String),
    /// The hashes of its files.
    pub known: Known,
    /// What only the layers below it can say.
    pub loose: Loose,
}

/// Unpacks into the empty directory `dest`. Errors: what the source said; a wrong size or digest; a malformed archive or an
/// entry that may not be (named); the host's files (full disk).
pub fn unpack(job: Job<'_>, dest: &Path) -> Result<Unpacked> {
    let root = open(dest)?;
    let (strict, below) = (job.digest.is_none() && job.diff_id.is_none(), job.below);
    run(job, false, &AtomicBool::new(false), |pieces| {
        let mut archive = tar::Reader::new(pieces);
        let first = archive.next(strict)?;
        write(archive, first, root, strict, below)
    })
}

/// As [`unpack`], of a source that may be an archive of files or a disk image; says too whether it was one, which is then the
/// one file [`disk::NAME`] in `dest`. `local` is the source itself, when it is a file that can be read at any place.
pub fn unpack_either(job: Job<'_>, dest: &Path, local: Option<&File>) -> Result<(Unpacked, bool)> {
    let root = open(dest)?;
    let strict = job.digest.is_none() && job.diff_id.is_none();
    let is_disk = AtomicBool::new(false);
    let unpacked = run(job, true, &is_disk, |pieces| {
        if let Some(kind) = disk::kind(pieces.fill_buf().unwrap_or_default()) {
            is_disk.store(true, Ordering::Relaxed);
            return disk::write(kind, pieces, dest, local);
        }
        let mut archive = tar::Reader::new(pieces);
        let first = archive.next(strict)?;
        if let Some(entry) = first.as_ref().filter(|entry| disk::is_member(entry, archive.peek())) {
            is_disk.store(true, Ordering::Relaxed);
            let written = disk::write_member(&mut archive, entry, dest)?;
            if let Some(next) = archive.next(strict)? {
                let name = next.name.escape_ascii();
                return Err(Failure::Archive(format!("beside a disk image it holds '{name}': unpack it yourself")));
            }
            archive.drain()?;
            return Ok(written);
        }
        write(archive, first, root, strict, false)
    })?;
    Ok((unpacked, is_disk.into_inner()))
}

/// What the writing side has made.
struct Written {
    known: Known,
    bytes: u64,
    entries: u64,
    summary: tree::Summary,
}

fn open(dest: &Path) -> Result<std::os::fd::OwnedFd> {
    let root = File::open(dest).map_err(Error::io(format!("cannot open {}", dest.display())))?;
    Ok(root.into())
}

/// Both threads: `write` gets what comes out of the source, and says when that is a disk. `parallel`: memory may be spent for time.
fn run(
    job: Job<'_>,
    parallel: bool,
    is_disk: &AtomicBool,
    write: impl FnOnce(&mut stream::Pieces) -> std::result::Result<Written, Failure>,
) -> Result<Unpacked> {
    let (feed, mut pieces, hashing) = stream::channel(job.diff_id.is_some());
    // Set when the rest of the source is of no interest: a full disk, or a broken archive of which nothing was promised.
    let give_up = AtomicBool::new(false);
    let Job { what, source, size, digest, diff_id, step, .. } = job;
    let (read, written) = std::thread::scope(|scope| {
        let hasher = hashing.map(|hashing| scope.spawn(|| hashing.run()));
        let reader = scope.spawn(|| read(stream::Meter::new(source, size, step), feed, parallel, is_disk, &give_up));
        let written = write(&mut pieces);
        if matches!(&written, Err(Failure::Host(..) | Failure::Room(..))) || (written.is_err() && digest.is_none()) {
            give_up.store(true, Ordering::Relaxed);
        }
        // Hanging up is what wakes a reader that waits for room.
        drop(pieces);
        let read = joined(reader);
        let real = hasher.map(joined);
        (read, written.map(|written| (written, real)))
    });
    if let Err(failure @ (Failure::Host(..) | Failure::Room(..))) = written {
        return Err(failure.explain(what));
    }
    let found = read.check(what, size, digest)?;
    let (written, real) = written.map_err(|failure| failure.explain(what))?;
    if let (Some(wanted), Some(real)) = (diff_id, &real) {
        if wanted != real {
            let what = format!("the archive inside {what}");
            return Err(Error::WrongDigest { what, wanted: wanted.to_string(), found: real.to_string() });
        }
    }
    Ok(Unpacked {
        digest: found,
        diff_id: real,
        size: written.bytes,
        entries: written.entries,
        opaque_root: written.summary.opaque_root,
        lost_attributes: written.summary.lost,
        known: written.known,
        loose: written.summary.loose,
    })
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What came of the reading side.
struct Source {
    digest: Digest,
    count: u64,
    error: Option<io::Error>,
    packing: Option<io::Error>,
}

fn read(
    mut meter: stream::Meter<'_>,
    feed: stream::Feed,
    parallel: bool,
    is_disk: &AtomicBool,
    give_up: &AtomicBool,
) -> Source {
    let packed = meter.count();
    let sent = stream::unpacked(&mut meter, parallel).and_then(|input| {
        feed.send_all(input, |out| {
            // A disk may be nothing but holes; it has limits of its own.
            let may = if is_disk.load(Ordering::Relaxed) { Ok(()) } else { limits::expansion(packed.get(), out) };
            may.map_err(|why| io::Error::new(io::ErrorKind::FileTooLarge, why))
        })
    });
    drop(feed);
    let packing = sent.err();
    if !give_up.load(Ordering::Relaxed) && meter.error.is_none() {
        meter.drain();
    }
    let (count, error) = (packed.get(), meter.error.take());
    Source { digest: meter.finish(), count, error, packing }
}

impl Source {
    fn check(self, what: &str, size: Option<u64>, digest: Option<&Digest>) -> Result<Digest> {
        if let Some(error) = self.error {
            return Err(carried(error, what));
        }
        if let Some(wanted) = size.filter(|&wanted| wanted != self.count) {
            return Err(Error::WrongSize { what: what.to_owned(), wanted, found: self.count });
        }
        if let Some(wanted) = digest.filter(|&wanted| *wanted != self.digest) {
            let found = self.digest.to_string();
            return Err(Error::WrongDigest { what: what.to_owned(), wanted: wanted.to_string(), found });
        }
        match self.packing {
            Some(why) => Err(Error::Malformed { what: what.to_owned(), why: broken(&why) }),
            None => Ok(self.digest),
        }
    }
}

fn broken(why: &io::Error) -> String {
    let text = why.to_string();
    // liblzma's words, and zstd's ("Frame requires too much memory for decoding"); neither has a kind of its own.
    if text.contains("memory") {
        let allowed = crate::domain::size::human(limits::DECODER);
        return format!(
            "unpacking it needs more memory than is allowed ({allowed}): pack it again with a smaller window"
        );
    }
    match why.kind() {
        io::ErrorKind::Unsupported | io::ErrorKind::FileTooLarge => text,
        io::ErrorKind::UnexpectedEof => "its compressed data is truncated".to_owned(),
        _ => format!("its compressed data is damaged ({})", text.escape_debug()),
    }
}

/// The [`Error`] that a reader put into its `io::Error`, or one about reading.
pub(super) fn carried(error: io::Error, what: &str) -> Error {
    match error.downcast::<Error>() {
        Ok(inner) => inner,
        Err(error) => Error::Io { what: format!("cannot read {what}"), source: error },
    }
}

struct Counts {
    bytes: u64,
    entries: u64,
    budget: limits::Budget,
}

impl Counts {
    fn new(place: std::os::fd::OwnedFd) -> Counts {
        Counts { bytes: 0, entries: 0, budget: limits::Budget::new(place) }
    }

    /// Another entry, for which `made` directories had to be made.
    fn add(&mut self, entry: &tar::Entry, made: u64) -> std::result::Result<(), Failure> {
        self.entries += 1;
        self.budget.take(1 + made, entry.size).map_err(|excess| match excess {
            limits::Excess::Archive(why) => Failure::Archive(why),
            limits::Excess::Room(why) => Failure::Room(entry.name.clone(), why),
            limits::Excess::Io(error) => Failure::Host(entry.name.clone(), error),
        })
    }
}

/// Why the writing side stopped.
enum Failure {
    Archive(String),
    /// The entry's name and the system's answer.
    Host(Vec<u8>, io::Error),
    /// The entry's name, and what it needs of a disk that will be full.
    Room(Vec<u8>, String),
}

impl Failure {
    fn explain(self, what: &str) -> Error {
        match self {
            Failure::Archive(why) => Error::Malformed { what: what.to_owned(), why },
            Failure::Host(entry, source) => {
                Error::Io { what: format!("cannot unpack '{}' of {what}", entry.escape_ascii()), source }
            }
            Failure::Room(entry, why) => Error::Io {
                what: format!("cannot unpack '{}' of {what} ({why})", entry.escape_ascii()),
                source: io::Error::from_raw_os_error(libc::ENOSPC),
            },
        }
    }
}

impl From<tar::Fault> for Failure {
    fn from(fault: tar::Fault) -> Failure {
        Failure::Archive(fault.to_string())
    }
}

/// Writes an archive's files, of which `first` has been read already.
fn write(
    mut archive: tar::Reader<&mut stream::Pieces>,
    first: Option<tar::Entry>,
    root: std::os::fd::OwnedFd,
    strict: bool,
    below: bool,
) -> std::result::Result<Written, Failure> {
    let place = root.try_clone().map_err(|e| Failure::Host(b"directories".to_vec(), e))?;
    let mut counts = Counts::new(place);
    let mut tree = tree::Tree::new(root, below);
    let mut known = Known::default();
    let mut next = first;
    while let Some(entry) = next {
        counts.add(&entry, tree.take_made())?;
        let fault = |fault| match fault {
            tree::Fault::Refused(why) => Failure::Archive(format!("entry '{}': {why}", entry.name.escape_ascii())),
            tree::Fault::Io(error) => Failure::Host(entry.name.clone(), error),
        };
        if let Some(file) = tree.add(&entry).map_err(fault)? {
            let file = File::from(file.0);
            let content = fill(&mut archive, &file, &entry)?;
            let file = tree::NewFile(file.into());
            tree.seal(&file, &entry).map_err(fault)?;
            known.add(&file.0, content).map_err(|error| Failure::Host(entry.name.clone(), error))?;
            counts.bytes = counts.bytes.saturating_add(entry.sparse.as_ref().map_or(entry.size, |map| map.size));
            if entry.size >= BIG {
                begin_writeback(std::os::fd::AsFd::as_fd(&file.0));
            }
        }
        next = archive.next(strict)?;
    }
    archive.drain()?;
    let summary = tree.finish().map_err(|fault| match fault {
        tree::Fault::Refused(why) => Failure::Archive(why),
        tree::Fault::Io(error) => Failure::Host(b"directories".to_vec(), error),
    })?;
    Ok(Written { known, bytes: counts.bytes, entries: counts.entries, summary })
}

fn fill(
    archive: &mut tar::Reader<&mut stream::Pieces>,
    file: &std::fs::File,
    entry: &tar::Entry,
) -> std::result::Result<Content, Failure> {
    let mut content = Content::default();
    let body = |error| match error {
        tar::BodyError::Read(_) => Failure::Archive(format!("entry '{}' is truncated", entry.name.escape_ascii())),
        tar::BodyError::Write(error) => Failure::Host(entry.name.clone(), error),
    };
    let mut out = file;
    let Some(map) = &entry.sparse else {
        let mut at = 0;
        let whole = archive.body(|piece| {
            content.write_at(at, piece);
            at += piece.len() as u64;
            out.write_all(piece)
        });
        return whole.map(|()| content).map_err(body);
    };
    let mut pieces = map.pieces.iter().copied();
    let (mut at, mut room) = (0, 0);
    let sparse = archive.body(|mut piece| {
        while !piece.is_empty() {
            if room == 0 {
                // The map was checked to be as long as the body.
                let Some((offset, length)) = pieces.next() else { return Err(io::ErrorKind::InvalidData.into()) };
                out.seek(SeekFrom::Start(offset))?;
                (at, room) = (offset, length);
            }
            let take = piece.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            out.write_all(&piece[..take])?;
            content.write_at(at, &piece[..take]);
            at += take as u64;
            piece = &piece[take..];
            room -= take as u64;
        }
        Ok(())
    });
    sparse.map_err(body)?;
    file.set_len(map.size).map_err(|error| Failure::Host(entry.name.clone(), error))?;
    Ok(content)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
