//! A tree as the entries of an archive, in the order of their names. What a newcomer would get wrong: the tree may be a guest's, who
//! may change it meanwhile: everything is opened by a single name in an open directory, looked at before it is read (`O_PATH`), and no
//! link is ever followed. And what overlayfs means by a device 0:0 or by its own attributes is said in an image's words.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use nix::unistd::{Whence, lseek};

use super::tar::Writer;
use super::{Fault, Form, Packed, Rules};
use crate::image::unpack::sparse::Map;
use crate::image::unpack::tar::{Entry, Kind};
use crate::sys::fs::sorted_names;
use crate::sys::root::file_type;
use crate::sys::xattr;

/// How deep a tree may be: each level holds a descriptor open.
const DEPTH: usize = 500;
/// Bytes of a body that are handed on at once.
const PIECE: usize = 256 << 10;
/// A file of more pieces than this is written whole.
const MOST_PIECES: usize = 100_000;
/// How many of the things that were left out are named.
const TOLD: usize = 10;
/// The host's own labels of its files: they are given anew wherever the tree goes.
const HOSTS: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];

type Result<T> = std::result::Result<T, Fault>;

/// One tree on its way into an archive.
pub struct Walk<'a, W> {
    rules: &'a Rules<'a>,
    out: Writer<W>,
    /// Names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// The name of where we are, without a slash at its end.
    at: Vec<u8>,
    buffer: Vec<u8>,
    packed: Packed,
}

impl<'a, W: Write> Walk<'a, W> {
    /// A walk by these rules.
    pub fn new(rules: &'a Rules<'a>, out: W) -> Walk<'a, W> {
        let (links, buffer) = (HashMap::new(), vec![0; PIECE]);
        Walk { rules, out: Writer::new(out), links, at: Vec::new(), buffer, packed: Packed::default() }
    }

    /// Writes the tree below an open directory, itself as `./`, and the end mark.
    pub fn run(mut self, root: BorrowedFd<'_>) -> Result<(W, Packed)> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = openat(root, ".", flags, Mode::empty()).map_err(|e| self.host(e))?;
        let stat = fstat(&root).map_err(|e| self.host(e))?;
        self.directory(&root, &stat, 0)?;
        let out = self.out.finish().map_err(Fault::Out)?;
        Ok((out, self.packed))
    }

    fn one(&mut self, fd: &OwnedFd, stat: &FileStat, depth: usize) -> Result<()> {
        let kind = match file_type(stat) {
            SFlag::S_IFDIR => return self.directory(fd, stat, depth),
            SFlag::S_IFSOCK => return self.leave_out("a socket"),
            SFlag::S_IFCHR if stat.st_rdev == 0 => return self.whiteout(),
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFLNK => Kind::Symlink,
            SFlag::S_IFIFO => Kind::Fifo,
            SFlag::S_IFCHR => Kind::Char,
            SFlag::S_IFBLK => Kind::Block,
            _ => return self.leave_out("of a kind that no archive knows"),
        };
        self.check_name()?;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let entry = Entry { link: first.clone(), ..self.entry(Kind::HardLink, stat) };
                return self.header(&entry);
            }
        }
        let mut entry = Entry { xattrs: self.xattrs(fd)?.0, ..self.entry(kind, stat) };
        match kind {
            Kind::File => self.file(fd, stat, entry)?,
            Kind::Symlink => {
                entry.link = readlinkat(fd, "").map_err(|e| self.host(e))?.into_vec();
                self.header(&entry)?;
            }
            _ => self.header(&entry)?,
        }
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), self.at.clone());
        }
        Ok(())
    }

    fn directory(&mut self, fd: &OwnedFd, stat: &FileStat, depth: usize) -> Result<()> {
        if depth > DEPTH {
            return Err(self.refused(&format!("it is nested more than {DEPTH} directories deep")));
        }
        self.check_name()?;
        let (xattrs, opaque) = self.xattrs(fd)?;
        let mut entry = Entry { xattrs, ..self.entry(Kind::Directory, stat) };
        if self.at.is_empty() {
            entry.name = b".".to_vec();
        }
        entry.name.push(b'/');
        self.header(&entry)?;
        if opaque && self.rules.form == Form::Layer {
            self.marker(b".wh..wh..opq")?;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = openat(fd, ".", flags, Mode::empty()).map_err(|e| self.host(e))?;
        for name in sorted_names(&dir).map_err(|e| self.host(e))? {
            let length = self.at.len();
            if length > 0 {
                self.at.push(b'/');
            }
            self.at.extend_from_slice(name.as_bytes());
            self.child(&dir, &name, depth)?;
            self.at.truncate(length);
        }
        Ok(())
    }

    fn child(&mut self, dir: &OwnedFd, name: &OsStr, depth: usize) -> Result<()> {
        (self.rules.tick)(0).map_err(Fault::Out)?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(dir, name, flags, Mode::empty()) {
            // Removed since the directory was read (ESTALE: from below an overlay).
            Err(Errno::ENOENT | Errno::ESTALE) if self.rules.living => Ok(()),
            Err(e) => Err(self.host(e)),
            Ok(fd) => {
                let stat = fstat(&fd).map_err(|e| self.host(e))?;
                self.one(&fd, &stat, depth + 1)
            }
        }
    }

    fn file(&mut self, fd: &OwnedFd, stat: &FileStat, mut entry: Entry) -> Result<()> {
        // By its number: what was looked at is what is read, and no device is ever opened.
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let mut file = match nix::fcntl::open(path.as_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ESTALE) if self.rules.living => return Ok(()),
            other => File::from(other.map_err(|e| self.host(e))?),
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let holes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        let map = if holes { data(&file, size).map_err(|e| self.host(e))? } else { None };
        let pieces = map.as_ref().map_or_else(|| vec![(0, size)], |map| map.pieces.clone());
        entry.size = pieces.iter().map(|(_, length)| length).sum();
        entry.sparse = map;
        self.packed.bytes += size;
        self.header(&entry)?;
        for (offset, length) in pieces {
            self.piece(&mut file, offset, length)?;
        }
        Ok(())
    }

    /// Writes `length` bytes from `offset` on. A file that has become shorter is filled with zeros where that may happen.
    fn piece(&mut self, file: &mut File, offset: u64, mut length: u64) -> Result<()> {
        file.seek(SeekFrom::Start(offset)).map_err(|e| self.host(e))?;
        let mut ended = false;
        while length > 0 {
            let most = usize::try_from(length).unwrap_or(usize::MAX).min(PIECE);
            let mut read = 0;
            if !ended {
                read = match file.read(&mut self.buffer[..most]) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    other => other.map_err(|e| host(&self.at, e))?,
                };
                ended = read == 0;
            }
            if ended && !self.rules.living {
                return Err(self.refused("it became shorter while it was read"));
            }
            if ended {
                self.buffer[..most].fill(0);
                read = most;
            }
            self.out.body(&self.buffer[..read]).map_err(Fault::Out)?;
            (self.rules.tick)(read as u64).map_err(Fault::Out)?;
            length -= read as u64;
        }
        Ok(())
    }

    /// What hides a file of a lower layer. In a tree that is whole there is nothing to hide.
    fn whiteout(&mut self) -> Result<()> {
        if self.rules.form != Form::Layer {
            return self.leave_out("a device 0:0, which hides a file in a layer and means nothing else");
        }
        let start = self.at.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
        let hidden = [b".wh.", &self.at[start..]].concat();
        let (parent, own) = (self.at[..start].strip_suffix(b"/").unwrap_or_default().to_vec(), self.at.clone());
        self.at = parent;
        let done = self.marker(&hidden);
        self.at = own;
        done
    }

    /// An empty file of a name that says something, in the current directory.
    fn marker(&mut self, name: &[u8]) -> Result<()> {
        let mut path = self.at.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        self.header(&Entry { name: path, ..empty() })
    }

    fn header(&mut self, entry: &Entry) -> Result<()> {
        self.packed.entries += 1;
        let name = entry.name.as_slice();
        self.out.entry(entry).map_err(|e| match e.kind() {
            io::ErrorKind::InvalidInput => Fault::Refused(name.to_vec(), e.to_string()),
            _ => Fault::Out(e),
        })
    }

    fn entry(&self, kind: Kind, stat: &FileStat) -> Entry {
        let device = matches!(kind, Kind::Char | Kind::Block);
        let number = |n: u64| u32::try_from(n).unwrap_or(0);
        Entry {
            name: self.at.clone(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            device: if device { (number(major(stat.st_rdev)), number(minor(stat.st_rdev))) } else { (0, 0) },
            ..empty()
        }
    }

    /// The attributes that belong to the file, and whether overlayfs hides what lies below this directory.
    fn xattrs(&self, fd: &OwnedFd) -> Result<(Vec<xattr::Xattr>, bool)> {
        let mut all = xattr::all(fd.as_fd()).map_err(|e| self.host(e))?;
        let whole =
            |(name, _): &&xattr::Xattr| name == b"trusted.overlay.redirect" || name == b"trusted.overlay.metacopy";
        if self.rules.form == Form::Layer && all.iter().any(|one| whole(&one)) {
            return Err(self.refused("it is no whole file or directory without the layers below"));
        }
        let opaque = all.iter().any(|(name, value)| name == b"trusted.overlay.opaque" && value == b"y");
        all.retain(|(name, _)| !name.starts_with(b"trusted.overlay.") && !HOSTS.contains(&name.as_slice()));
        Ok((all, opaque))
    }

    /// In a layer such a name says that something is hidden.
    fn check_name(&self) -> Result<()> {
        let last = self.at.rsplit(|&b| b == b'/').next().unwrap_or_default();
        if self.rules.form != Form::Rootfs && last.starts_with(b".wh.") {
            return Err(self.refused("in an image a name that begins with '.wh.' hides a file: rename it"));
        }
        Ok(())
    }

    fn leave_out(&mut self, what: &str) -> Result<()> {
        if self.packed.left_out.len() < TOLD {
            self.packed.left_out.push(format!("left out: {} ({what})", self.at.escape_ascii()));
        } else if self.packed.left_out.len() == TOLD {
            self.packed.left_out.push("left out: more of this sort".into());
        }
        Ok(())
    }

    fn refused(&self, why: &str) -> Fault {
        Fault::Refused(self.at.clone(), why.to_owned())
    }

    fn host(&self, error: impl Into<io::Error>) -> Fault {
        host(&self.at, error.into())
    }
}

fn host(at: &[u8], error: io::Error) -> Fault {
    Fault::Tree(at.to_vec(), error)
}

fn empty() -> Entry {
    Entry {
        name: Vec::new(),
        link: Vec::new(),
        kind: Kind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        size: 0,
        sparse: None,
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

/// Where the data of a file with holes lies; none where it has no hole that is worth it, or its file system does not say.
fn data(file: &File, size: u64) -> io::Result<Option<Map>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let from = i64::try_from(at).map_err(io::Error::other)?;
        let start = match lseek(file, from, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let end = (lseek(file, start, Whence::SeekHole)? as u64).min(size);
        let start = start as u64;
        // It became longer meanwhile: what is behind its end is no part of what we began with.
        if start >= size {
            break;
        }
        pieces.push((start, end - start));
        at = end;
        if pieces.len() > MOST_PIECES {
            return Ok(None);
        }
    }
    Ok((pieces != [(0, size)]).then_some(Map { size, pieces }))
}
