//! The directories in which an archive's entries are made, found or made inside the tree. What a newcomer would get wrong: a name may
//! lead through links of the same archive, to directories that are not there yet; and it may have two thousand parts, so this goes on in
//! a loop, never into itself, and opens each part from the one before.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, fstatat, mkdirat};

use super::limits;
use super::tree::{Result, refused, squeeze};
use crate::sys::unpack as raw;

/// How many parents are kept open at most.
const CACHE: usize = 256;
/// Bytes that are reckoned for keeping a name, beside its own.
const PER_NAME: usize = 64;
/// How many links in a row a parent may go through, as in the kernel (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// Parents that were opened.
#[derive(Debug, Default)]
pub(super) struct Parents {
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// How many had to be made.
    pub made: u64,
    /// Where they are, by real names, and how many bytes these take: no entry has named them.
    pub unnamed: BTreeSet<Vec<u8>>,
    held: usize,
}

/// What came of a walk.
enum Walk {
    There(OwnedFd),
    /// A link stands in the way: the path that it makes of the whole.
    Link(Vec<u8>),
}

impl Parents {
    /// The directory `path` (cleaned) of the tree at `root`, made where it is missing (0755, root's).
    pub fn get(&mut self, root: BorrowedFd<'_>, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some(dir) = self.open.get(path) {
            return Ok(Rc::clone(dir));
        }
        let dir = Rc::new(self.open_or_make(root, path)?);
        if self.open.len() >= CACHE {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), Rc::clone(&dir));
        Ok(dir)
    }

    /// Paths may lead elsewhere from now on.
    pub fn forget(&mut self) {
        self.open.clear();
    }

    /// Remembers a directory that was made. One that lies too deep to be named, or is one too many, keeps this mode in every stack.
    fn note(&mut self, root: BorrowedFd<'_>, made: &OwnedFd) {
        if self.held > limits::LOOSE {
            return;
        }
        if let Ok(real) = raw::path_below(root, made.as_fd()) {
            self.held += real.len() + PER_NAME;
            self.unnamed.insert(real);
        }
    }

    fn open_or_make(&mut self, root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
        let mut path = path.to_vec();
        for _ in 0..=MAX_LINKS {
            match raw::open_dir(root, &path) {
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOTDIR) => return refused("its parent is not a directory"),
                Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return refused("its parent is a loop of links"),
                other => return Ok(other?),
            }
            match self.walk(root, &path)? {
                Walk::There(dir) => return Ok(dir),
                Walk::Link(whole) => path = whole,
            }
        }
        refused("its parent is a loop of links")
    }

    /// Goes down `path`, and makes what is missing.
    fn walk(&mut self, root: BorrowedFd<'_>, path: &[u8]) -> Result<Walk> {
        let mut dir = raw::open_dir(root, b"")?;
        let mut end = 0;
        for part in path.split(|&b| b == b'/') {
            let (above, rest) = (&path[..end.max(1) - 1], &path[end + part.len()..]);
            end += part.len() + 1;
            let next = match fstatat(&dir, part, AtFlags::AT_SYMLINK_NOFOLLOW) {
                // Links, and the way up, are for the kernel to follow, inside the tree.
                Ok(there) if part == b".." || there.st_mode & libc::S_IFMT == libc::S_IFLNK => {
                    raw::open_dir(root, &path[..end - 1])
                }
                Ok(_) => raw::open_dir(dir.as_fd(), part),
                Err(error) => Err(error.into()),
            };
            dir = match next {
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                    if rest.split(|&b| b == b'/').any(|part| part == b"..") {
                        return refused("its parent leads through '..' of a directory that is not there");
                    }
                    match mkdirat(&dir, part, Mode::from_bits_truncate(0o755)) {
                        Ok(()) => {}
                        // A link to what is not there (yet): its target is made, inside the tree.
                        Err(Errno::EEXIST) => return Ok(Walk::Link(through(&dir, part, above, rest)?)),
                        Err(error) => return Err(error.into()),
                    }
                    self.made += 1;
                    // The umask may have taken bits away.
                    fchmodat(&dir, part, Mode::from_bits_truncate(0o755), FchmodatFlags::FollowSymlink)?;
                    let made = raw::open_dir(dir.as_fd(), part)?;
                    self.note(root, &made);
                    made
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOTDIR) => return refused("its parent is not a directory"),
                Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return refused("its parent is a loop of links"),
                other => other?,
            };
        }
        Ok(Walk::There(dir))
    }
}

/// The path `above/link/rest` with the link's target in its place.
fn through(dir: &OwnedFd, link: &[u8], above: &[u8], rest: &[u8]) -> Result<Vec<u8>> {
    let target = match readlinkat(dir, link) {
        Ok(target) => std::os::unix::ffi::OsStringExt::into_vec(target),
        Err(Errno::EINVAL) => return refused("its parent is not a directory"),
        Err(error) => return Err(error.into()),
    };
    let whole = if target.starts_with(b"/") { target } else { [above, b"/", &target].concat() };
    Ok(squeeze(&[&whole, rest].concat()))
}
