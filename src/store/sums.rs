//! What a layer's files were when it was unpacked: one line for each entry, from which `verify` tells what has changed since, and a new boot
//! whether all of it reached the disk. What a newcomer would get wrong: this finds damage (a disk, a power cut, a hand that slipped), not an
//! attacker: who can write below the store is root, and could write the record, too. So the hash is a fast one (XXH3), and what came from
//! outside has been checked by its SHA-256 before.
//!
//! ```text
//! <16 hex digits> <path, escaped>      of type, mode, owner, device, size, time, link, attributes and content; sorted by path
//! end2 <16 hex digits>                 of all that stands before: a record without it did not reach the disk
//! ```

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::content::{BLOCK, Content};
use super::loose::unescape;
use crate::sys::root::file_type;
use crate::sys::xattr;
use nix::unistd::{Whence, lseek};

/// Bytes per read.
const PIECE: usize = 256 << 10;
/// How deep a tree is followed: deeper than any path that can be named.
const DEPTH: usize = 2048;

/// One difference between a record and a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// It is not there.
    Missing(PathBuf),
    /// It was not there.
    Added(PathBuf),
    /// It is another, or holds something else.
    Changed(PathBuf),
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, path) = match self {
            Damage::Missing(path) => ("is missing", path),
            Damage::Added(path) => ("was not there", path),
            Damage::Changed(path) => ("has changed", path),
        };
        write!(f, "/{} {what}", path.display())
    }
}

/// Regular files of a tree that were hashed while they were written, so that nothing of them is read again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    by_inode: HashMap<u64, u64>,
}

impl Known {
    /// Notes a file that is complete, with its owner, mode, attributes and times. Errors: as fstat(2), flistxattr(2).
    pub fn add(&mut self, file: &OwnedFd, content: Content) -> io::Result<()> {
        let stat = nix::sys::stat::fstat(file)?;
        let mut hash = outside(&stat, &xattr::all_open(file.as_fd())?);
        if stat.st_size > 0 {
            hash.update(&content.finish().to_le_bytes());
        }
        // Of two files with one inode the first has been removed.
        self.by_inode.insert(stat.st_ino, hash.digest());
        Ok(())
    }
}

/// The record of the tree at `dir`, of which `known` tells what it can. Errors: it cannot be read.
pub fn record(dir: &Path, known: &Known) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for (path, hash) in hashes(dir, known)? {
        out.extend_from_slice(format!("{hash:016x} {}\n", path.as_os_str().as_bytes().escape_ascii()).as_bytes());
    }
    let end = xxh3_64(&out);
    out.extend_from_slice(format!("end2 {end:016x}\n").as_bytes());
    Ok(out)
}

/// What has changed in the tree at `dir` since `recorded` was made of it; `None` when that is no whole record. Errors: the tree cannot be
/// read (a disk that fails says so).
pub fn compare(dir: &Path, recorded: &[u8]) -> io::Result<Option<Vec<Damage>>> {
    let Some(then) = parse(recorded) else { return Ok(None) };
    let now = hashes(dir, &Known::default())?;
    let (mut then, mut now) = (then.into_iter().peekable(), now.into_iter().peekable());
    let mut out = Vec::new();
    loop {
        let order = match (then.peek(), now.peek()) {
            (None, None) => return Ok(Some(out)),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((was, _)), Some((is, _))) => was.cmp(is),
        };
        match order {
            std::cmp::Ordering::Less => out.extend(then.next().map(|(path, _)| Damage::Missing(path))),
            std::cmp::Ordering::Greater => out.extend(now.next().map(|(path, _)| Damage::Added(path))),
            std::cmp::Ordering::Equal => {
                if let (Some((path, was)), Some((_, is))) = (then.next(), now.next()) {
                    if was != is {
                        out.push(Damage::Changed(path));
                    }
                }
            }
        }
    }
}

/// The lines of a whole record.
fn parse(recorded: &[u8]) -> Option<Vec<(PathBuf, u64)>> {
    let text = std::str::from_utf8(recorded).ok()?;
    let at = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
    let end = u64::from_str_radix(text[at..].trim_end().strip_prefix("end2 ")?, 16).ok()?;
    if xxh3_64(&recorded[..at]) != end {
        return None;
    }
    let line = |line: &str| {
        let (hash, path) = line.split_once(' ')?;
        Some((PathBuf::from(OsString::from_vec(unescape(path)?)), u64::from_str_radix(hash, 16).ok()?))
    };
    text[..at].lines().map(line).collect()
}

/// Every entry and its hash, sorted by path.
fn hashes(dir: &Path, known: &Known) -> io::Result<Vec<(PathBuf, u64)>> {
    let root: OwnedFd = nix::fcntl::open(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut walk = Walk { known, out: Vec::new(), buffer: vec![0; PIECE], links: HashMap::new() };
    walk.directory(root, PathBuf::new(), 0)?;
    let mut out = walk.out;
    out.sort_unstable();
    Ok(out)
}

struct Walk<'a> {
    known: &'a Known,
    out: Vec<(PathBuf, u64)>,
    buffer: Vec<u8>,
    /// The content of files with several names, by inode: read once.
    links: HashMap<u64, u64>,
}

impl Walk<'_> {
    fn directory(&mut self, dir: OwnedFd, path: PathBuf, depth: usize) -> io::Result<()> {
        if depth > DEPTH {
            return Err(io::Error::other(format!("{} is nested too deep", path.display())));
        }
        let hash = outside(&nix::sys::stat::fstat(&dir)?, &xattr::all_open(dir.as_fd())?).digest();
        let mut dir = nix::dir::Dir::from_fd(dir)?;
        for (name, inode, kind) in names(&mut dir)? {
            let below = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            // What was a regular file when it was noted is one still, or its inode has another type now.
            if let Some(&hash) = self.known.by_inode.get(&inode).filter(|_| kind == Some(Type::File)) {
                self.out.push((below, hash));
                continue;
            }
            let stat = fstatat(&dir, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if file_type(&stat) == SFlag::S_IFDIR {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                self.directory(openat(&dir, name.as_c_str(), flags, Mode::empty())?, below, depth + 1)?;
            } else {
                let hash = self.entry(dir.as_fd(), &name, &stat)?;
                self.out.push((below, hash));
            }
        }
        self.out.push((path, hash));
        Ok(())
    }

    fn entry(&mut self, dir: impl AsFd + Copy, name: &CStr, stat: &FileStat) -> io::Result<u64> {
        let mut hash = outside(stat, &xattr::all_at(dir.as_fd(), name)?);
        match file_type(stat) {
            SFlag::S_IFLNK => hash.update(readlinkat(dir, name)?.as_bytes()),
            SFlag::S_IFREG if stat.st_size > 0 => hash.update(&self.content(dir, name, stat)?.to_le_bytes()),
            _ => {}
        }
        Ok(hash.digest())
    }

    fn content(&mut self, dir: impl AsFd, name: &CStr, stat: &FileStat) -> io::Result<u64> {
        if let Some(&known) = self.links.get(&stat.st_ino) {
            return Ok(known);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NOATIME | OFlag::O_CLOEXEC;
        let file = std::fs::File::from(openat(dir, name, flags, Mode::empty())?);
        let mut content = Content::default();
        let size = stat.st_size as u64;
        let sparse = (stat.st_blocks as u64) * 512 < size;
        let mut at = 0;
        while at < size {
            if sparse {
                // Holes are jumped over: they count as the zeros that they read as.
                match lseek(&file, at as i64, Whence::SeekData) {
                    Ok(data) => at = data as u64 / BLOCK as u64 * BLOCK as u64,
                    Err(Errno::ENXIO) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            let n = file.read_at(&mut self.buffer, at)?;
            if n == 0 {
                break;
            }
            content.write_at(at, &self.buffer[..n]);
            at += n as u64;
        }
        let hash = content.finish();
        if stat.st_nlink > 1 {
            self.links.insert(stat.st_ino, hash);
        }
        Ok(hash)
    }
}

/// A hash of all that an entry is but for what it holds, to be gone on with.
fn outside(stat: &FileStat, xattrs: &[xattr::Xattr]) -> Xxh3 {
    let mut hash = Xxh3::new();
    let size = if file_type(stat) == SFlag::S_IFREG { stat.st_size } else { 0 };
    for number in [
        u64::from(stat.st_mode),
        u64::from(stat.st_uid),
        u64::from(stat.st_gid),
        stat.st_rdev,
        size as u64,
        stat.st_mtime as u64,
        stat.st_mtime_nsec as u64,
    ] {
        hash.update(&number.to_le_bytes());
    }
    for (key, value) in xattrs {
        hash.update(&(key.len() as u64).to_le_bytes());
        hash.update(key);
        hash.update(&(value.len() as u64).to_le_bytes());
        hash.update(value);
    }
    hash
}

/// What is in a directory, with inodes and types where the file system tells them.
fn names(dir: &mut nix::dir::Dir) -> io::Result<Vec<(CString, u64, Option<Type>)>> {
    let mut out = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            out.push((entry.file_name().to_owned(), entry.ino(), entry.file_type()));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn put(path: &Path, data: &[u8]) {
        std::fs::File::create(path).unwrap().write_all(data).unwrap();
    }

    /// Sets a file's time back to what it was, as a disk that fails does not change it.
    fn quietly(path: &Path, change: impl FnOnce(&Path)) {
        let before = std::fs::metadata(path).unwrap().modified().unwrap();
        change(path);
        std::fs::File::open(path).unwrap().set_modified(before).unwrap();
    }

    #[test]
    fn every_change_is_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        std::fs::create_dir_all(tree.join("etc/d")).unwrap();
        put(&tree.join("etc/a"), b"one");
        put(&tree.join("etc/b"), b"two");
        put(&tree.join(std::ffi::OsStr::from_bytes(b"etc/\xff\n\\")), b"odd");
        symlink("a", tree.join("etc/l")).unwrap();
        std::fs::hard_link(tree.join("etc/a"), tree.join("h")).unwrap();
        let then = record(tree, &Known::default()).unwrap();
        assert_eq!(then, record(tree, &Known::default()).unwrap());
        assert_eq!(compare(tree, &then).unwrap(), Some(vec![]));

        quietly(&tree.join("etc/b"), |path| put(path, b"twO"));
        assert_eq!(compare(tree, &then).unwrap(), Some(vec![Damage::Changed("etc/b".into())]));
        quietly(&tree.join("etc/b"), |path| put(path, b"two"));
        assert_eq!(compare(tree, &then).unwrap(), Some(vec![]), "it is the same again");
        quietly(&tree.join("etc/a"), |path| put(path, b"onE"));
        let both = vec![Damage::Changed("etc/a".into()), Damage::Changed("h".into())];
        assert_eq!(compare(tree, &then).unwrap(), Some(both), "a file of two names");
        quietly(&tree.join("etc/a"), |path| put(path, b"one"));
        std::fs::set_permissions(tree.join("etc/a"), PermissionsExt::from_mode(0o4755)).unwrap();
        let found = compare(tree, &then).unwrap().unwrap();
        assert_eq!(found[0].to_string(), "/etc/a has changed");

        let then = record(tree, &Known::default()).unwrap();
        quietly(&tree.join("etc"), |path| {
            std::fs::remove_file(path.join("l")).unwrap();
            put(&path.join("new"), b"");
        });
        let wanted = vec![Damage::Missing("etc/l".into()), Damage::Added("etc/new".into())];
        assert_eq!(compare(tree, &then).unwrap(), Some(wanted));
    }

    #[test]
    fn holes_are_what_they_read_as() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut data = vec![0; 3 << 20];
        data[1 << 20] = 7;
        put(&path, &data);
        let full = record(dir.path(), &Known::default()).unwrap();
        quietly(&path, |path| {
            let file = std::fs::File::create(path).unwrap();
            file.write_all_at(&[7], 1 << 20).unwrap();
            file.set_len(3 << 20).unwrap();
        });
        assert_eq!(compare(dir.path(), &full).unwrap(), Some(vec![]));
        quietly(&path, |path| {
            std::fs::File::options().write(true).open(path).unwrap().write_all_at(&[1], 2 << 20).unwrap();
        });
        assert_eq!(compare(dir.path(), &full).unwrap().unwrap().len(), 1);
    }

    #[test]
    fn a_record_that_is_not_whole_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        put(&dir.path().join("f"), b"x");
        let whole = record(dir.path(), &Known::default()).unwrap();
        for part in [&whole[..whole.len() - 5], &whole[20..], b"", b"end2 0\n", b"rubbish"] {
            assert_eq!(compare(dir.path(), part).unwrap(), None);
        }
        let zeros = vec![0; whole.len()];
        assert_eq!(compare(dir.path(), &zeros).unwrap(), None, "as a power cut leaves it");
    }
}
