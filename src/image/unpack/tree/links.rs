//! Names that lead to what something else is: hard links and whiteouts. What a newcomer would get wrong: a hard link may lead to a file of
//! a lower layer, which this layer, unpacked alone, knows nothing of. Then a whiteout takes the name, and the layer's record says what
//! belongs there ([`Loose`]); whoever stacks the layers sees to it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, fstatat, mknodat};
use nix::unistd::linkat;

use super::{Loose, Name, OPAQUE, Result, Tree, clean, is_whiteout, kind_of, limits, look, raw, refused, split};

/// Hard links that wait for the layers below.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By their real paths; each with its number, since one may lead to an earlier one.
    links: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    next: u64,
    /// Bytes of their names, of those that were dropped as well.
    held: usize,
}

impl Tree {
    /// What has stayed as it was left for the layers below to say.
    pub(super) fn loose(&mut self) -> Loose {
        let unnamed = std::mem::take(&mut self.parents.unnamed);
        let still = |path: &Vec<u8>| raw::open_dir_nofollow(self.root.as_fd(), path).is_ok();
        let parents = unnamed.into_iter().filter(still).map(Name).collect();
        let mut links: Vec<_> = std::mem::take(&mut self.pending.links).into_iter().collect();
        links.sort_by_key(|(_, (number, _))| *number);
        // A later entry may have put something else in its place.
        let still = |path: &[u8]| {
            let (above, leaf) = split(path)?;
            let dir = raw::open_dir_nofollow(self.root.as_fd(), above).ok()?;
            look(dir.as_fd(), leaf).ok().filter(is_whiteout)
        };
        links.retain(|(path, _)| still(path).is_some());
        Loose { parents, links: links.into_iter().map(|(path, (_, target))| (Name(path), Name(target))).collect() }
    }

    /// Where `leaf` in the open directory `dir` lies, by real names.
    pub(super) fn real(&self, dir: BorrowedFd<'_>, leaf: &[u8]) -> io::Result<Vec<u8>> {
        let mut path = raw::path_below(self.root.as_fd(), dir)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(leaf);
        Ok(path)
    }

    pub(super) fn hard_link(&mut self, dir: BorrowedFd<'_>, leaf: &[u8], target: &[u8]) -> Result<()> {
        let shown = target.escape_ascii();
        let path = match clean(target) {
            Ok(path) if !path.is_empty() => path,
            _ => return refused(format!("its link to '{shown}' leads out of the tree")),
        };
        let missing = format!("it is a hard link to '{shown}', which this layer does not hold");
        let (above, name) = split(&path).unwrap_or((b"", &path));
        let from = match raw::open_dir(self.root.as_fd(), above) {
            Ok(from) => from,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) && self.below => return self.link_later(dir, leaf, path),
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {
                return refused(missing);
            }
            Err(e) => return Err(e.into()),
        };
        let there = match fstatat(&from, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(there) if !is_whiteout(&there) => there,
            Err(Errno::ENOENT) if self.below => return self.link_later(dir, leaf, path),
            // What this layer takes away has no names any more, but a link that waits for its target may have another one.
            Ok(_) if self.real(from.as_fd(), name).is_ok_and(|real| self.pending.links.contains_key(&real)) => {
                return self.link_later(dir, leaf, path);
            }
            Ok(_) | Err(Errno::ENOENT) => return refused(missing),
            Err(error) => return Err(error.into()),
        };
        if kind_of(&there) == SFlag::S_IFDIR {
            return refused(format!("it is a hard link to '{shown}', which is a directory"));
        }
        if let Ok(old) = fstatat(dir, leaf, AtFlags::AT_SYMLINK_NOFOLLOW) {
            if (old.st_dev, old.st_ino) == (there.st_dev, there.st_ino) {
                return Ok(()); // Removing "the old one" would remove the target itself.
            }
        }
        // Without AT_SYMLINK_FOLLOW the link itself gets another name, not what it leads to.
        self.make(dir, leaf, |dir| linkat(&from, name, dir, leaf, AtFlags::empty()))
    }

    /// A hard link to what a lower layer holds: what that is, is known when all layers of an image are there. Until then the name is taken
    /// by a whiteout, since the link, too, hides what a lower layer has there.
    fn link_later(&mut self, dir: BorrowedFd<'_>, leaf: &[u8], target: Vec<u8>) -> Result<()> {
        let real = self.real(dir, leaf)?;
        if real == target {
            return Ok(()); // The file's own name: nothing changes.
        }
        self.make(dir, leaf, |dir| mknodat(dir, leaf, SFlag::S_IFCHR, Mode::empty(), 0))?;
        self.pending.held += size_of::<(Vec<u8>, Vec<u8>)>() + real.len() + target.len();
        if self.pending.held > limits::LOOSE {
            return refused(
                "so many hard links to what the layer does not hold cannot be kept in memory: it is a bomb",
            );
        }
        self.pending.links.insert(real, (self.pending.next, target));
        self.pending.next += 1;
        Ok(())
    }

    pub(super) fn whiteout(&mut self, parent: &[u8], hidden: &[u8]) -> Result<()> {
        if hidden == b".wh..opq" {
            let dir = self.parent(parent)?;
            self.opaque_root |= parent.is_empty();
            // O_PATH descriptors take no attributes, so the directory is named from its own inside.
            return Ok(raw::set_xattr_at(dir.as_fd(), b".", OPAQUE, b"y")?);
        }
        if hidden.starts_with(b".wh.") {
            return Ok(()); // aufs' own files (`.wh..wh.plnk`, `.wh..wh.aufs`): they mean nothing here.
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return refused("it is a whiteout of nothing");
        }
        let dir = self.parent(parent)?;
        match mknodat(dir.as_fd(), hidden, SFlag::S_IFCHR, Mode::empty(), 0) {
            Err(Errno::EEXIST) => {
                // The layer itself holds that name, which hides a lower file already; a directory would be merged.
                if kind_of(&look(dir.as_fd(), hidden)?) == SFlag::S_IFDIR {
                    raw::set_xattr_at(dir.as_fd(), hidden, OPAQUE, b"y")?;
                }
                Ok(())
            }
            other => {
                other?;
                // It is a whiteout in its own right, whatever waited there before.
                if let Ok(real) = self.real(dir.as_fd(), hidden) {
                    self.pending.links.remove(&real);
                }
                Ok(())
            }
        }
    }
}
