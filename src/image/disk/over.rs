//! The tree that lies over a disk's root: files of its FAT partitions at their places, and what neutralises the traps. What a
//! newcomer would get wrong: a directory of this tree hides the owner, mode and time of the image's directory that it is merged
//! with, so it gets the same ones; and where the image has a link in the place of a directory, nothing is laid over it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, fstat};

use super::bytes::Bytes;
use super::fat::{Fat, Node};
use super::traps::{NO_CLOUD_INIT, UNIT_DIRECTORIES, UNITS};
use crate::sys::fs;
use crate::sys::root::{Root, file_type};

/// How deep directories of a FAT are followed, and how many files are taken from one: no boot partition comes near.
const MAX_DEPTH: u32 = 32;
const MAX_FILES: u64 = 100_000;

/// A tree in the making.
#[derive(Debug)]
pub struct Over<'a> {
    root: &'a Root,
    dir: PathBuf,
    times: Vec<(PathBuf, i64, i64)>,
    /// Bytes of its files.
    pub bytes: u64,
    /// How many entries it has.
    pub entries: u64,
}

/// Why a FAT could not be copied.
#[derive(Debug)]
pub enum Fault {
    /// It is damaged; a sentence.
    Damaged(String),
    /// The host's files.
    Host(io::Error),
}

impl From<String> for Fault {
    fn from(why: String) -> Fault {
        Fault::Damaged(why)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Host(error)
    }
}

impl<'a> Over<'a> {
    /// An empty tree at `dir`, which is made, over the image's `root`.
    pub fn begin(root: &'a Root, dir: PathBuf) -> io::Result<Over<'a>> {
        std::fs::create_dir(&dir)?;
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755))?;
        Ok(Over { root, dir, times: Vec::new(), bytes: 0, entries: 0 })
    }

    /// What the image has at a path, the last link not followed.
    fn look(&self, path: &Path) -> io::Result<Option<FileStat>> {
        match self.root.open_at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Ok(fd) => Ok(Some(fstat(&fd)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether the image has a directory there.
    pub fn has_directory(&self, path: &str) -> bool {
        self.root.is_dir(path)
    }

    /// The directory `path` (relative) of this tree, made like the image's. `None`: the image has something else there.
    pub fn directory(&mut self, path: &Path) -> io::Result<Option<PathBuf>> {
        let mut so_far = PathBuf::new();
        for name in path.components() {
            so_far.push(name);
            let made = self.dir.join(&so_far);
            if made.is_dir() {
                continue;
            }
            let like = self.look(&so_far)?;
            if like.as_ref().is_some_and(|stat| file_type(stat) != SFlag::S_IFDIR) {
                return Ok(None);
            }
            std::fs::create_dir(&made)?;
            self.entries += 1;
            let (mode, owner) = like.as_ref().map_or((0o755, (0, 0)), |s| (s.st_mode & 0o7777, (s.st_uid, s.st_gid)));
            chown(&made, Some(owner.0), Some(owner.1))?;
            std::fs::set_permissions(&made, PermissionsExt::from_mode(mode))?;
            self.times.extend(like.map(|s| (made, s.st_mtime, s.st_mtime_nsec)));
        }
        Ok(Some(self.dir.join(path)))
    }

    /// Stands in for a file of the image's. Nothing where that cannot be.
    pub fn replace(&mut self, path: &str, text: &[u8]) -> io::Result<()> {
        let path = Path::new(path);
        let Some(dir) = self.directory(path.parent().unwrap_or(Path::new("")))? else { return Ok(()) };
        let like = self.look(path)?.filter(|stat| file_type(stat) == SFlag::S_IFREG);
        let (mode, owner) = like.map_or((0o644, (0, 0)), |s| (s.st_mode & 0o7777, (s.st_uid, s.st_gid)));
        let made = dir.join(path.file_name().unwrap_or_default());
        fs::write_volatile(&made, text, 0o600)?;
        chown(&made, Some(owner.0), Some(owner.1))?;
        std::fs::set_permissions(&made, PermissionsExt::from_mode(mode))?;
        self.entries += 1;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Masks the services that would not let a guest come up, and stops cloud-init. Returns the names of what was there.
    pub fn mask(&mut self) -> io::Result<Vec<&'static str>> {
        let mut masked = Vec::new();
        for unit in UNITS {
            let script = format!("etc/init.d/{}", unit.trim_end_matches(".service"));
            let there = UNIT_DIRECTORIES.iter().any(|dir| self.root.has(format!("{dir}/{unit}")));
            if !there && !self.root.has(script) {
                continue;
            }
            if let Some(dir) = self.directory(Path::new(UNIT_DIRECTORIES[0]))? {
                symlink("/dev/null", dir.join(unit))?;
                self.entries += 1;
                masked.push(unit);
            }
        }
        if self.root.is_dir("etc/cloud") && !self.root.has(NO_CLOUD_INIT) {
            self.replace(NO_CLOUD_INIT, b"Written by pronto: a guest has no service that gives it data.\n")?;
            masked.push("cloud-init");
        }
        Ok(masked)
    }

    /// Copies all files of a FAT to the directory `point`. False: the image has no room for it there.
    pub fn copy<B: Bytes>(&mut self, fat: &Fat<'_, B>, size: u64, point: &Path) -> Result<bool, Fault> {
        let Some(dir) = self.directory(point)? else { return Ok(false) };
        // More than the partition holds would be several files in the same place.
        let mut left = Left { bytes: size, files: MAX_FILES };
        self.copy_nodes(fat, &fat.root()?, &dir, &mut left, 0)?;
        Ok(true)
    }

    fn copy_nodes<B: Bytes>(
        &mut self,
        fat: &Fat<'_, B>,
        nodes: &[Node],
        dir: &Path,
        left: &mut Left,
        depth: u32,
    ) -> Result<(), Fault> {
        for node in nodes {
            let path = dir.join(&node.name);
            left.files = left.files.checked_sub(1).ok_or_else(|| "it has too many files".to_owned())?;
            if depth > MAX_DEPTH {
                return Err(Fault::Damaged("its directories have no end".into()));
            }
            let named = |e: io::Error| match e.kind() {
                io::ErrorKind::AlreadyExists => {
                    Fault::Damaged(format!("'{}' is in it twice", node.name.escape_debug()))
                }
                _ => Fault::Host(e),
            };
            if node.is_dir {
                std::fs::create_dir(&path).map_err(named)?;
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
                self.copy_nodes(fat, &fat.list(node)?, &path, left, depth + 1)?;
                self.times.push((path, node.changed, 0));
            } else {
                let file = File::options().write(true).create_new(true).mode(0o700).open(&path).map_err(named)?;
                fill(fat, node, &file, left)?;
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
                self.bytes += node.size;
                fs::set_changed(&path, node.changed, 0)?;
            }
            self.entries += 1;
        }
        Ok(())
    }

    /// Gives directories their times, the deepest first.
    pub fn finish(&mut self) -> io::Result<()> {
        self.times.sort_by_key(|(path, ..)| std::cmp::Reverse(path.components().count()));
        self.times.iter().try_for_each(|(path, seconds, nanoseconds)| fs::set_changed(path, *seconds, *nanoseconds))
    }
}

struct Left {
    bytes: u64,
    files: u64,
}

fn fill<B: Bytes>(fat: &Fat<'_, B>, node: &Node, mut file: &File, left: &mut Left) -> Result<(), Fault> {
    fat.read(node, |piece| {
        let rest = left.bytes.checked_sub(piece.len() as u64);
        left.bytes = rest.ok_or_else(|| "its files are larger than it is".to_owned())?;
        Ok::<(), Fault>(file.write_all(piece)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn directories_are_like_the_images_and_links_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (image, over) = (dir.path().join("image"), dir.path().join("over"));
        for path in ["etc/systemd/system", "usr/lib/systemd/system", "usr/etc"] {
            std::fs::create_dir_all(image.join(path)).unwrap();
        }
        symlink("usr/etc", image.join("alias")).unwrap();
        for path in ["etc/fstab", "usr/lib/systemd/system/userconfig.service"] {
            fs::write_volatile(&image.join(path), b"x", 0o640).unwrap();
        }
        std::fs::set_permissions(image.join("etc"), PermissionsExt::from_mode(0o711)).unwrap();
        fs::set_changed(&image.join("etc"), 1_000_000_000, 5).unwrap();
        let root = Root::open(&image).unwrap();
        let mut tree = Over::begin(&root, over.clone()).unwrap();
        tree.replace("etc/fstab", b"new").unwrap();
        tree.replace("alias/x", b"new").unwrap();
        assert_eq!(tree.mask().unwrap(), ["userconfig.service"]);
        tree.finish().unwrap();
        let etc = std::fs::metadata(over.join("etc")).unwrap();
        assert_eq!((etc.mode() & 0o7777, etc.mtime(), etc.mtime_nsec()), (0o711, 1_000_000_000, 5));
        assert_eq!(std::fs::metadata(over.join("etc/fstab")).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(
            std::fs::read_link(over.join("etc/systemd/system/userconfig.service")).unwrap(),
            Path::new("/dev/null")
        );
        assert!(!over.join("alias").exists());
        assert_eq!(std::fs::read(image.join("etc/fstab")).unwrap(), b"x", "the image is as it was");
    }
}
