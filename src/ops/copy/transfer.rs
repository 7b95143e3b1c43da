//! The copying itself, by open directories and single names. What a newcomer would get wrong: both sides may change under us,
//! and the guest's side by somebody hostile; so nothing is opened by a path of more than one component, no link in the last
//! place is followed, a file is looked at (O_PATH) before it is opened, and a copy gets its name when it is whole.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fstat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, Whence, fchown, fchownat, linkat, lseek, symlinkat, unlinkat};

use super::place::{self, Source, Target, text};
use crate::ops::{Error, Result};
use crate::sys::fs::sorted_names;
use crate::sys::root::{Root, file_type};

/// How deep a tree may be: each level holds two descriptors open.
const DEPTH: usize = 256;
/// So many bytes between two looks at the signals.
const PIECE: u64 = 8 << 20;
/// How many of the things that were left out are told one by one.
const TOLD: usize = 10;

/// What becomes of owners and modes.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Whose the copies are.
    pub owner: (Uid, Gid),
    /// Whether set-user-ID and set-group-ID may be kept, where the owner that they mean stays root. A guest's file must never
    /// become a set-user-ID program of the host's.
    pub set_id: bool,
}

/// One copy under way.
pub struct Transfer<'a> {
    rules: &'a Rules,
    /// Told of every piece; fails when the user wants an end.
    tick: &'a mut dyn FnMut(u64) -> Result<()>,
    /// Where we are in the source, for messages.
    at: PathBuf,
    /// The directory that the copy goes to: met in the source, it would be copied into itself for ever.
    into: Option<(u64, u64)>,
    left_out: Vec<String>,
    count: u64,
}

impl<'a> Transfer<'a> {
    /// A copy by these rules.
    pub fn new(rules: &'a Rules, tick: &'a mut dyn FnMut(u64) -> Result<()>) -> Transfer<'a> {
        Transfer { rules, tick, at: PathBuf::new(), into: None, left_out: Vec::new(), count: 0 }
    }

    /// What was left out, a line each.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Copies a path of one tree to a path of the other.
    pub fn run(&mut self, from: (&Root, &Path), to: (&Root, &Path)) -> Result<()> {
        let source = place::source(from.0, from.1)?;
        let target = place::target(to.0, to.1, &source)?;
        self.at = from.1.to_owned();
        match target {
            Target::Contents(dir) => {
                let dir = self.directory(&dir)?;
                self.fill(&source.fd, &dir, 0)
            }
            // The root of a tree, or DIR/., to a name that does not exist.
            Target::Named(parent, name) => self.one(&source, &parent, &name, 0),
        }
    }

    fn one(&mut self, source: &Source, parent: &OwnedFd, name: &OsStr, depth: usize) -> Result<()> {
        match file_type(&source.stat) {
            SFlag::S_IFREG => self.file(source, parent, name),
            SFlag::S_IFDIR => self.tree(source, parent, name, depth),
            SFlag::S_IFLNK => self.link(source, parent, name),
            kind if depth == 0 => {
                Err(Error::general(format!("cannot copy {}: it is {}", self.at.display(), called(kind))))
            }
            kind => {
                if self.left_out.len() < TOLD {
                    self.left_out.push(format!("left out: {} ({})", self.at.display(), called(kind)));
                } else if self.left_out.len() == TOLD {
                    self.left_out.push("left out: more of this sort".into());
                }
                Ok(())
            }
        }
    }

    fn tree(&mut self, source: &Source, parent: &OwnedFd, name: &OsStr, depth: usize) -> Result<()> {
        if self.into.is_some_and(|id| id == identity(&source.stat)) {
            return Err(self.cannot("it would be copied into itself"));
        }
        let new = match mkdirat(parent, name, Mode::S_IRWXU) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(e) => return Err(self.failed(e)),
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = openat(parent, name, flags, Mode::empty()).map_err(|e| match e {
            Errno::ENOTDIR | Errno::ELOOP => self.cannot("something that is no directory has its name there"),
            e => self.failed(e),
        })?;
        let dir = self.directory(&dir)?;
        self.fill(&source.fd, &dir, depth)?;
        if new {
            // At the end: a read-only directory could not be filled, and filling changes its time.
            self.dress(&dir, &source.stat).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// Opens a directory to be written to, and remembers the first.
    fn directory(&mut self, dir: &OwnedFd) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = openat(dir, ".", flags, Mode::empty()).map_err(|e| self.failed(e))?;
        if self.into.is_none() {
            self.into = Some(identity(&fstat(&dir).map_err(|e| self.failed(e))?));
        }
        Ok(dir)
    }

    fn fill(&mut self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<()> {
        if depth >= DEPTH {
            return Err(self.cannot(&format!("it is nested more than {DEPTH} directories deep")));
        }
        for name in sorted_names(from).map_err(|e| self.failed(e))? {
            (self.tick)(0)?;
            self.at.push(&name);
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match openat(from, name.as_os_str(), flags, Mode::empty()) {
                // Removed since the directory was read.
                Err(Errno::ENOENT) => {}
                Err(e) => return Err(self.failed(e)),
                Ok(fd) => {
                    let stat = fstat(&fd).map_err(|e| self.failed(e))?;
                    self.one(&Source { fd, stat, name: None }, to, &name, depth + 1)?;
                }
            }
            self.at.pop();
        }
        Ok(())
    }

    fn file(&mut self, source: &Source, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        self.check_place(parent, name)?;
        // By its number: what was looked at is what is read, and no device is ever opened.
        let path = format!("/proc/self/fd/{}", source.fd.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path.as_str(), flags, Mode::empty()).map_err(|e| self.failed(e))?;
        let size = u64::try_from(source.stat.st_size).unwrap_or(0);
        let (made, mut temporary) = self.make_file(parent).map_err(|e| self.failed(e))?;
        let mut stopped = None;
        let done: io::Result<()> = (|| {
            pour(File::from(fd), &made, size, &mut |bytes| match (self.tick)(bytes) {
                Ok(()) => Ok(()),
                Err(error) => {
                    stopped = Some(error);
                    Err(io::Error::other("stopped"))
                }
            })?;
            self.dress(&made, &source.stat)?;
            if temporary.is_none() {
                temporary = self.give_name(&made, parent, name)?;
            }
            match &temporary {
                Some(temporary) => Ok(renameat(parent, temporary.as_os_str(), parent, name)?),
                None => Ok(()),
            }
        })();
        if let (Err(_), Some(temporary)) = (&done, &temporary) {
            let _ = unlinkat(parent, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
        match (done, stopped) {
            (_, Some(error)) => Err(error),
            (Err(e), None) => Err(self.failed(e)),
            (Ok(()), None) => Ok(()),
        }
    }

    /// A new file in a directory, without a name where the file system can (killed now, we leave nothing), else beside.
    fn make_file(&mut self, parent: &OwnedFd) -> io::Result<(OwnedFd, Option<OsString>)> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        if let Ok(fd) = openat(parent, ".", flags | OFlag::O_TMPFILE, mode) {
            return Ok((fd, None));
        }
        let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        self.beside(|name| openat(parent, name, flags, mode)).map(|(fd, name)| (fd, Some(name)))
    }

    /// Names a file that has none: at its place when that is free, else beside (the name is returned).
    fn give_name(&mut self, file: &OwnedFd, parent: &OwnedFd, name: &OsStr) -> io::Result<Option<OsString>> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |name: &OsStr| linkat(nix::fcntl::AT_FDCWD, path.as_str(), parent, name, AtFlags::AT_SYMLINK_FOLLOW);
        match link(name) {
            Ok(()) => Ok(None),
            Err(Errno::EEXIST) => self.beside(link).map(|((), name)| Some(name)),
            Err(e) => Err(e.into()),
        }
    }

    fn link(&mut self, source: &Source, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        self.check_place(parent, name)?;
        let done = (|| {
            let to = readlinkat(&source.fd, "")?;
            let ((), temporary) = self.beside(|name| symlinkat(to.as_os_str(), parent, name))?;
            let times = (TimeSpec::UTIME_OMIT, mtime(&source.stat));
            let (uid, gid) = self.rules.owner;
            let at = temporary.as_os_str();
            let named = fchownat(parent, at, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .and_then(|()| utimensat(parent, at, &times.0, &times.1, UtimensatFlags::NoFollowSymlink))
                .and_then(|()| renameat(parent, at, parent, name));
            if named.is_err() {
                let _ = unlinkat(parent, at, UnlinkatFlags::NoRemoveDir);
            }
            Ok(named?)
        })();
        done.map_err(|e: io::Error| self.failed(e))
    }

    /// Makes something under a name that nothing has.
    fn beside<T>(&mut self, make: impl Fn(&OsStr) -> nix::Result<T>) -> io::Result<(T, OsString)> {
        loop {
            self.count += 1;
            let name = OsString::from(format!(".pronto-cp.{}.{}", std::process::id(), self.count));
            match make(&name) {
                Ok(made) => return Ok((made, name)),
                Err(Errno::EEXIST) if self.count < u64::MAX => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// What may be replaced: nothing, a file, a link. Replacing `/dev/null` by a file would be a disaster.
    fn check_place(&self, parent: &OwnedFd, name: &OsStr) -> Result<()> {
        let there = place::look(parent, name).map_err(|e| self.failed(e))?;
        match there.as_ref().map(file_type) {
            None | Some(SFlag::S_IFREG | SFlag::S_IFLNK) => Ok(()),
            Some(kind) => Err(self.cannot(&format!("{} has its name there", called(kind)))),
        }
    }

    /// Owner, mode and time of a copy, in that order: a change of the owner clears bits of the mode.
    fn dress(&self, copy: &OwnedFd, from: &FileStat) -> io::Result<()> {
        let now = fstat(copy)?;
        let (uid, gid) = self.rules.owner;
        if (now.st_uid, now.st_gid) != (uid.as_raw(), gid.as_raw()) {
            fchown(copy, Some(uid), Some(gid))?;
        }
        fchmod(copy, Mode::from_bits_truncate(self.mode(from)))?;
        Ok(futimens(copy, &TimeSpec::UTIME_OMIT, &mtime(from))?)
    }

    fn mode(&self, from: &FileStat) -> u32 {
        let mut mode = from.st_mode & 0o7777;
        if !self.rules.set_id || from.st_uid != 0 {
            mode &= !libc::S_ISUID;
        }
        if !self.rules.set_id || from.st_gid != 0 {
            mode &= !libc::S_ISGID;
        }
        mode
    }

    fn cannot(&self, why: &str) -> Error {
        Error::general(format!("cannot copy {}: {}", self.at.display(), why))
    }

    fn failed(&self, error: impl Into<io::Error>) -> Error {
        self.cannot(&text(&error.into()))
    }
}

/// Copies the pieces that hold data; the holes between them stay holes. A file that says it is empty is read to its end: in
/// /proc they all say so. One that turns out shorter than it was is copied as long as it is.
fn pour(mut from: File, to: &OwnedFd, size: u64, tick: &mut dyn FnMut(u64) -> io::Result<()>) -> io::Result<()> {
    let mut to = File::from(to.try_clone()?);
    let mut at = 0;
    while at < size {
        let (data, hole) = match lseek(&from, offset(at)?, Whence::SeekData) {
            Ok(data) => (data as u64, lseek(&from, data, Whence::SeekHole).map_or(size, |hole| hole as u64)),
            Err(Errno::ENXIO) => break,
            Err(_) => (at, size),
        };
        at = hole.min(size);
        from.seek(SeekFrom::Start(data))?;
        to.seek(SeekFrom::Start(data))?;
        let mut left = at.saturating_sub(data);
        while left > 0 {
            let copied = io::copy(&mut Read::by_ref(&mut from).take(left.min(PIECE)), &mut to)?;
            if copied == 0 {
                let end = to.stream_position()?;
                return to.set_len(end);
            }
            left -= copied;
            tick(copied)?;
        }
    }
    if size > 0 {
        return to.set_len(size);
    }
    loop {
        match io::copy(&mut Read::by_ref(&mut from).take(PIECE), &mut to)? {
            0 => return Ok(()),
            copied => tick(copied)?,
        }
    }
}

fn offset(at: u64) -> io::Result<i64> {
    i64::try_from(at).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))
}

fn mtime(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
}

fn identity(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn called(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFCHR | SFlag::S_IFBLK => "a device",
        _ => "nothing that can be copied",
    }
}
