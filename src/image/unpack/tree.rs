//! Making the entries of an archive in a directory that overlayfs will read as one layer. What a newcomer would get wrong: every
//! name is hostile. Parents are opened inside the tree (`sys::unpack`), so a link that the archive brought can lead to
//! another place of the tree but never out; what is made is made by its last name in an open parent and never followed.
//!
//! Whiteouts (image-spec, layer.md) become what overlayfs reads: `.wh.NAME` a character device 0:0, `.wh..wh..opq` the
//! attribute `trusted.overlay.opaque`. They speak of lower layers only: what this layer holds itself stays.

mod links;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, makedev, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

use super::limits;
use super::parents::Parents;
use super::tar::{Entry, Kind};
use crate::store::loose::{Loose, Name};
use crate::sys::remove::remove_at;
use crate::sys::unpack as raw;

const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Why an entry could not be made.
#[derive(Debug)]
pub enum Fault {
    /// The archive may not do that; a sentence about the entry.
    Refused(String),
    /// The host's file system said no.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.raw_os_error() {
            Some(libc::ENAMETOOLONG) => {
                Fault::Refused("its name, or what it links to, is too long for this file system".into())
            }
            _ => Fault::Io(error),
        }
    }
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Fault {
        io::Error::from(error).into()
    }
}

pub(super) fn refused<T>(why: impl Into<String>) -> Result<T> {
    Err(Fault::Refused(why.into()))
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

/// A tree being filled.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    parents: Parents,
    /// Directories whose mode, owner, attributes and times are set at the end: a read-only or setgid directory, or one with
    /// an old time, would not survive being filled.
    directories: Vec<(Vec<u8>, Metadata)>,
    /// Bytes of memory that those take.
    held: usize,
    /// Attributes that this file system cannot hold, and the first of them.
    lost: (u64, String),
    opaque_root: bool,
    /// Whether other layers lie below this one.
    below: bool,
    pending: links::Pending,
}

#[derive(Debug)]
struct Metadata {
    mode: Mode,
    uid: u32,
    gid: u32,
    mtime: TimeSpec,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metadata {
    fn of(entry: &Entry) -> Metadata {
        Metadata {
            mode: Mode::from_bits_truncate(entry.mode),
            uid: entry.uid,
            gid: entry.gid,
            mtime: TimeSpec::new(entry.mtime.0, entry.mtime.1),
            xattrs: entry.xattrs.clone(),
        }
    }
}

/// What became of a whole archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// It hides everything below it.
    pub opaque_root: bool,
    /// How many extended attributes this file system could not hold, and the first of them.
    pub lost: (u64, String),
    /// What only the layers below can say.
    pub loose: Loose,
}

/// A file that was made and is to be filled.
#[derive(Debug)]
pub struct NewFile(pub OwnedFd);

impl Tree {
    /// Fills the empty directory `root`. `below`: whether other layers lie below this one, so that its hard links may lead to what they hold.
    pub fn new(root: OwnedFd, below: bool) -> Tree {
        Tree {
            root,
            parents: Parents::default(),
            directories: Vec::new(),
            held: 0,
            lost: (0, String::new()),
            opaque_root: false,
            below,
            pending: links::Pending::default(),
        }
    }

    /// Makes an entry. A regular file is returned to be filled and then given to [`Tree::seal`].
    pub fn add(&mut self, entry: &Entry) -> Result<Option<NewFile>> {
        check_xattrs(entry)?;
        let path = clean(&entry.name)?;
        let Some((parent, leaf)) = split(&path) else { return self.root_entry(entry) };
        if let Some(hidden) = leaf.strip_prefix(b".wh.") {
            self.whiteout(parent, hidden)?;
            return Ok(None);
        }
        let dir = self.parent(parent)?;
        let dir = dir.as_fd();
        match entry.kind {
            Kind::File => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let open = |dir: BorrowedFd<'_>| openat(dir, leaf, flags, Mode::S_IRUSR | Mode::S_IWUSR);
                return Ok(Some(NewFile(self.make(dir, leaf, open)?)));
            }
            Kind::Directory => return self.directory(dir, leaf, &path, entry).map(|()| None),
            Kind::HardLink => return self.hard_link(dir, leaf, &entry.link).map(|()| None),
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return refused("it is a link to nothing");
                }
                self.make(dir, leaf, |dir| symlinkat(entry.link.as_slice(), dir, leaf))?;
            }
            Kind::Fifo => self.make(dir, leaf, |dir| mknodat(dir, leaf, SFlag::S_IFIFO, Mode::S_IRUSR, 0))?,
            Kind::Char | Kind::Block => {
                if entry.device == (0, 0) {
                    return refused("a device 0:0 would hide a file of a lower layer; only a '.wh.' name may say so");
                }
                let kind = if entry.kind == Kind::Char { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
                let number = makedev(entry.device.0.into(), entry.device.1.into());
                self.make(dir, leaf, |dir| mknodat(dir, leaf, kind, Mode::S_IRUSR, number))?;
            }
        }
        self.dress_at(dir, leaf, entry)?;
        Ok(None)
    }

    /// Gives a filled file its owner, mode, attributes and times, in this order: a new owner clears setuid and
    /// capabilities.
    pub fn seal(&mut self, file: &NewFile, entry: &Entry) -> Result<()> {
        if (entry.uid, entry.gid) != (0, 0) {
            fchown(&file.0, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
        }
        fchmod(&file.0, Mode::from_bits_truncate(entry.mode))?;
        for (name, value) in &entry.xattrs {
            self.note_xattr(name, raw::set_xattr(file.0.as_fd(), name, value))?;
        }
        let time = TimeSpec::new(entry.mtime.0, entry.mtime.1);
        Ok(futimens(&file.0, &time, &time)?)
    }

    /// Finishes the directories.
    pub fn finish(mut self) -> Result<Summary> {
        for (path, meta) in std::mem::take(&mut self.directories) {
            let dir = match raw::open_dir_nofollow(self.root.as_fd(), &path) {
                Ok(dir) => dir,
                // A later entry has put something else in its place.
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => continue,
                Err(e) => return Err(e.into()),
            };
            fchown(&dir, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
            fchmod(&dir, meta.mode)?;
            for (name, value) in &meta.xattrs {
                self.note_xattr(name, raw::set_xattr(dir.as_fd(), name, value))?;
            }
            futimens(&dir, &meta.mtime, &meta.mtime)?;
        }
        let loose = self.loose();
        Ok(Summary { opaque_root: self.opaque_root, lost: self.lost, loose })
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<Option<NewFile>> {
        if entry.kind != Kind::Directory {
            return refused("the root of the tree can only be a directory");
        }
        self.finish_later(b"", entry).map(|()| None)
    }

    /// Runs `make`; when the name is taken, removes what has it and runs `make` again.
    fn make<T>(
        &mut self,
        dir: BorrowedFd<'_>,
        leaf: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> nix::Result<T>,
    ) -> Result<T> {
        match make(dir) {
            Err(Errno::EEXIST) => {
                self.remove(dir, leaf)?;
                Ok(make(dir)?)
            }
            other => Ok(other?),
        }
    }

    fn directory(&mut self, dir: BorrowedFd<'_>, leaf: &[u8], path: &[u8], entry: &Entry) -> Result<()> {
        if !self.parents.unnamed.is_empty() {
            // Now it is named.
            if let Ok(real) = self.real(dir, leaf) {
                self.parents.unnamed.remove(&real);
            }
        }
        match mkdirat(dir, leaf, Mode::S_IRWXU) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let there = look(dir, leaf)?;
                match kind_of(&there) {
                    SFlag::S_IFDIR => {}
                    // A link to a directory stays what it is: `lib -> usr/lib` and then `lib/`, as two packages bring it.
                    SFlag::S_IFLNK if self.leads_to_directory(path)? => return Ok(()),
                    _ => {
                        self.remove(dir, leaf)?;
                        mkdirat(dir, leaf, Mode::S_IRWXU)?;
                        if is_whiteout(&there) {
                            // The lower one was taken away before this one came: its content must not shine through.
                            raw::set_xattr_at(dir, leaf, OPAQUE, b"y")?;
                        }
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.finish_later(path, entry)
    }

    fn finish_later(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let attributes: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.held += size_of::<(Vec<u8>, Metadata)>() + path.len() + attributes;
        if self.held > limits::HELD {
            return refused("the names and attributes of so many directories cannot be kept in memory: it is a bomb");
        }
        self.directories.push((path.to_vec(), Metadata::of(entry)));
        Ok(())
    }

    fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        self.parents.get(self.root.as_fd(), path)
    }

    /// How many directories were made that no entry named, since this was asked.
    pub(super) fn take_made(&mut self) -> u64 {
        std::mem::take(&mut self.parents.made)
    }

    fn leads_to_directory(&self, path: &[u8]) -> Result<bool> {
        match raw::open_dir(self.root.as_fd(), path) {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Owner, mode, attributes and times of what cannot be opened.
    fn dress_at(&mut self, dir: BorrowedFd<'_>, leaf: &[u8], entry: &Entry) -> Result<()> {
        if (entry.uid, entry.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            fchownat(dir, leaf, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        if entry.kind != Kind::Symlink {
            // It was made just now under this name, in a directory that only root can enter, and is no link.
            fchmodat(dir, leaf, Mode::from_bits_truncate(entry.mode), FchmodatFlags::FollowSymlink)?;
        }
        for (name, value) in &entry.xattrs {
            self.note_xattr(name, raw::set_xattr_at(dir, leaf, name, value))?;
        }
        let time = TimeSpec::new(entry.mtime.0, entry.mtime.1);
        Ok(utimensat(dir, leaf, &time, &time, UtimensatFlags::NoFollowSymlink)?)
    }

    /// A file system that has no such attributes is no reason to refuse an image; it is said once.
    fn note_xattr(&mut self, name: &[u8], result: io::Result<()>) -> Result<()> {
        match result {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM)) => {
                if self.lost.0 == 0 {
                    self.lost.1 = name.escape_ascii().to_string();
                }
                self.lost.0 += 1;
                Ok(())
            }
            Err(e)
                if e.kind() == io::ErrorKind::InvalidInput
                    || matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ERANGE | libc::E2BIG)) =>
            {
                refused(format!("its attribute '{}' is none that Linux takes", name.escape_ascii()))
            }
            other => Ok(other?),
        }
    }

    /// Removes whatever has a name in an open directory.
    fn remove(&mut self, dir: BorrowedFd<'_>, leaf: &[u8]) -> Result<()> {
        let kind = kind_of(&look(dir, leaf)?);
        if matches!(kind, SFlag::S_IFDIR | SFlag::S_IFLNK) {
            // Paths that led through it lead elsewhere from now on.
            self.parents.forget();
        }
        Ok(remove_at(dir, leaf)?)
    }
}

fn look(dir: BorrowedFd<'_>, leaf: &[u8]) -> Result<FileStat> {
    Ok(fstatat(dir, leaf, AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

fn kind_of(stat: &FileStat) -> SFlag {
    crate::sys::root::file_type(stat)
}

fn is_whiteout(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

fn check_xattrs(entry: &Entry) -> Result<()> {
    match entry.xattrs.iter().find(|(name, _)| name.starts_with(b"trusted.overlay.")) {
        Some((name, _)) => refused(format!("its attribute '{}' belongs to overlayfs alone", name.escape_ascii())),
        None => Ok(()),
    }
}

/// A name without what means nothing in it: leading, doubled and trailing slashes, and `.`. Errors: `..`, a zero byte.
fn clean(name: &[u8]) -> Result<Vec<u8>> {
    if name.contains(&0) {
        return refused("its name holds a zero byte");
    }
    if name.split(|&b| b == b'/').any(|part| part == b"..") {
        return refused("its name climbs out with '..'");
    }
    Ok(squeeze(name))
}

pub(super) fn squeeze(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for part in name.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(part);
    }
    out
}

/// What stands before and after the last slash; `None` for the root.
pub(super) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(path.iter().rposition(|&b| b == b'/').map_or((&path[..0], path), |at| (&path[..at], &path[at + 1..])))
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
