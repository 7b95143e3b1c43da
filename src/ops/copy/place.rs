//! Where a copy comes from and where it goes. What a newcomer would get wrong: the last component matters. Of a source it is
//! not followed when it is a link (the link is copied), unless a slash stands behind it; of a destination it is followed, also
//! when it dangles, but always inside the tree.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};

use crate::ops::{Error, Result};
use crate::sys::root::{Root, file_type};

/// As in the kernel (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// What is copied.
#[derive(Debug)]
pub struct Source {
    /// It, as O_PATH.
    pub fd: OwnedFd,
    /// What it is.
    pub stat: FileStat,
    /// Its name; none for `DIR/.` and `/`, of which the contents are copied.
    pub name: Option<OsString>,
}

/// Where the copy goes.
#[derive(Debug)]
pub enum Target {
    /// Into this directory, under its own contents.
    Contents(OwnedFd),
    /// To this name in this directory.
    Named(OwnedFd, OsString),
}

/// A path as its writer meant it: without what stands at its end to say something.
struct Meant<'a> {
    path: &'a Path,
    /// `DIR/.`, or the root.
    contents: bool,
    /// A slash at its end: it must be a directory.
    directory: bool,
}

fn meant(path: &Path) -> Meant<'_> {
    let mut bytes = path.as_os_str().as_bytes();
    let (mut contents, mut directory) = (false, false);
    loop {
        if bytes.len() > 1 && bytes.ends_with(b"/") {
            bytes = &bytes[..bytes.len() - 1];
            directory = true;
        } else if bytes.ends_with(b"/.") {
            bytes = &bytes[..bytes.len() - 1];
            contents = true;
        } else {
            break;
        }
    }
    contents |= bytes == b"/";
    Meant { path: Path::new(OsStr::from_bytes(bytes)), contents, directory: directory || contents }
}

/// Opens what is to be copied. Errors: there is nothing, or it is no directory and was named as one.
pub fn source(root: &Root, path: &Path) -> Result<Source> {
    let meant = meant(path);
    let cannot = |e: io::Error| Error::general(format!("cannot copy {}: {}", path.display(), text(&e)));
    let flags = if meant.directory { OFlag::O_DIRECTORY } else { OFlag::O_NOFOLLOW };
    let fd = root.open_at(meant.path, OFlag::O_PATH | flags).map_err(cannot)?;
    let stat = fstat(&fd).map_err(|e| cannot(e.into()))?;
    let name = meant.path.file_name().filter(|_| !meant.contents).map(OsStr::to_owned);
    if name.is_none() && !meant.contents {
        let hint = format!("for what is in it: {}/.", path.display());
        return Err(Error::general(format!("{} has no name to copy it by", path.display())).hint(hint));
    }
    Ok(Source { fd, stat, name })
}

/// Finds the place for a copy of `from`. Errors: no directory to put it in, or something of another kind is there.
pub fn target(root: &Root, path: &Path, from: &Source) -> Result<Target> {
    let is_dir = file_type(&from.stat) == SFlag::S_IFDIR;
    let meant = meant(path);
    let failed = |what: &str| Error::general(format!("cannot copy to {}: {what}", path.display()));
    match root.open_at(meant.path, OFlag::O_PATH) {
        Ok(there) => {
            let stat = fstat(&there).map_err(|e| failed(&text(&e.into())))?;
            match (file_type(&stat) == SFlag::S_IFDIR, &from.name) {
                (true, Some(name)) => Ok(Target::Named(there, name.clone())),
                (true, None) => Ok(Target::Contents(there)),
                (false, _) if is_dir => Err(failed("it is no directory, and a directory is copied")),
                (false, _) if meant.directory => Err(failed("it is no directory")),
                (false, _) => named(root, meant.path).map_err(|e| failed(&text(&e))),
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if meant.directory && !is_dir {
                return Err(failed("no such directory"));
            }
            named(root, meant.path).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => failed("the directory to put it in does not exist"),
                _ => failed(&text(&e)),
            })
        }
        Err(e) => Err(failed(&text(&e))),
    }
}

/// The parent and the last name of `path`, where links in the place of the last name have been followed to their end.
fn named(root: &Root, path: &Path) -> io::Result<Target> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let name = path.file_name().ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))?.to_owned();
        let above = path.parent().unwrap_or(Path::new("/")).to_owned();
        let parent = root.open_at(if above.as_os_str().is_empty() { Path::new("/") } else { &above }, dir_flags())?;
        match readlinkat(&parent, name.as_os_str()) {
            // Joined as text and resolved by the kernel, inside the tree, at the next turn.
            Ok(link) => path = above.join(PathBuf::from(OsString::from_vec(link.into_vec()))),
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(Target::Named(parent, name)),
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn dir_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY
}

/// What is called `name` in an open directory, a link not followed; none when there is nothing.
pub fn look(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<FileStat>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// An error in the words of strerror(3), without the number.
pub fn text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}
