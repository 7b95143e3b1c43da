//! A disk with a file system of a tree's files, for guests with a kernel of their own: mke2fs reads the tree, nothing is mounted. What a
//! newcomer would get wrong: the tree may be a stack that is mounted nowhere (`sys::overlay`, a descriptor), which mke2fs is handed as
//! `/proc/self/fd/N`; the disk, too, is an open file, which gets its name from the caller when it is whole. And the free space costs nothing:
//! the file is sparse, and stays so. Source: mke2fs(8), ext4(5).

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Whence, lseek};

use crate::sys::fs::sorted_names;
use crate::sys::process::{Tool, ToolError};

/// What is not in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The file system's UUID, which also decides the order of names in its directories: the same tree and UUID give the same disk, but for
    /// the time at which it was made.
    pub uuid: String,
    /// Its label, at most 16 bytes.
    pub label: String,
}

/// What a tree takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measure {
    /// Blocks of 4 KiB of files, directories and long links. Holes take none.
    pub blocks: u64,
    /// Files, directories and everything else, each once.
    pub inodes: u64,
}

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree could not be read.
    #[error("cannot read the tree for its disk")]
    Tree(#[source] io::Error),
    /// The disk could not be written.
    #[error("cannot write the disk")]
    Disk(#[source] io::Error),
    /// mke2fs failed; it says why (most often: no room on the host's disk).
    #[error("cannot make a file system of the tree (package e2fsprogs)")]
    Tool(#[from] ToolError),
    /// The label is too long.
    #[error("'{0}' is too long for the label of a disk: at most 16 bytes")]
    Label(String),
}

const BLOCK: u64 = 4096;
/// Bytes of an inode on the disk.
const INODE: u64 = 256;
/// How much of the disk there is for each inode, as mke2fs has it.
const RATIO: u64 = 16384;

/// Fills the empty file `disk` with a file system of what is in `tree`, with `room` bytes free for what is to come. Returns its size in
/// bytes. Needs root where the tree has files of others, or trusted attributes. Errors: see [`Error`]; what was written then is
/// the caller's to throw away.
pub fn make(disk: &File, tree: BorrowedFd<'_>, identity: &Identity, room: u64) -> Result<u64, Error> {
    if identity.label.len() > 16 {
        return Err(Error::Label(identity.label.clone()));
    }
    let measure = measure(tree).map_err(Error::Tree)?;
    let (size, inodes) = size(measure, room);
    disk.set_len(size).map_err(Error::Disk)?;
    let tree = tree.try_clone_to_owned().map_err(Error::Tree)?;
    let top = fstat(&tree).map_err(|e| Error::Tree(e.into()))?;
    let extended = format!(
        "hash_seed={},root_owner={}:{},lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1",
        identity.uuid, top.st_uid, top.st_gid
    );
    let again = || disk.as_fd().try_clone_to_owned().map_err(Error::Disk);
    let named = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let (from, to) = (named(&tree), again()?);
    Tool::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-O", FEATURES])
        .args(["-U", &identity.uuid, "-L", &identity.label, "-E", &extended, "-N", &inodes.to_string()])
        .args(["-d", &from, &named(&to)])
        // This host's own wishes for its disks are not the guest's: without a file the defaults that are built in count.
        .env("MKE2FS_CONFIG", "/nonexistent")
        .inherit(tree)
        .inherit(to)
        .output()?;
    if top.st_mode & 0o7777 != 0o755 {
        let (mode, to) = (format!("set_inode_field <2> mode 0{:o}", top.st_mode), again()?);
        let path = named(&to);
        Tool::new("debugfs").args(["-w", "-R", &mode, &path]).inherit(to).output()?;
    }
    Ok(size)
}

/// What every kernel since Linux 3.18 mounts, whatever the host's mke2fs prefers: newer ones add what an older guest's fsck refuses.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,\
                        huge_file,dir_nlink,extra_isize,metadata_csum";

/// The disk's size and how many inodes it has.
fn size(measure: Measure, room: u64) -> (u64, u64) {
    let content = measure.blocks * BLOCK + room;
    // As many as mke2fs would give a disk of this size, and in any case those that are needed and a quarter more.
    let inodes = (content / RATIO).max(measure.inodes + measure.inodes / 4 + 1024);
    // The journal takes 128 MiB at most; bitmaps, group descriptors, extents and attributes the fortieth part.
    let journal = (content / 32).clamp(16 << 20, 128 << 20);
    let size = content + content / 40 + content / 100 + inodes * INODE + journal + (16 << 20);
    (size.next_multiple_of(1 << 20), inodes)
}

/// Walks a tree; links are not followed, and nothing in it is opened but directories and files with holes. Errors: as openat(2); a tree
/// as deep as this process may have files open is EMFILE.
pub fn measure(tree: BorrowedFd<'_>) -> io::Result<Measure> {
    let mut walk = Walk::default();
    walk.directory(&open(tree, c".")?)?;
    Ok(walk.measure)
}

#[derive(Default)]
struct Walk {
    measure: Measure,
    /// Files with several names that were counted already, by device and inode.
    linked: HashSet<(u64, u64)>,
}

impl Walk {
    fn directory(&mut self, directory: &OwnedFd) -> io::Result<()> {
        self.measure.inodes += 1;
        let names = sorted_names(directory)?;
        let room: u64 = names.iter().map(|name| 12 + name.len() as u64).sum();
        // An indexed directory is three quarters full.
        self.measure.blocks += 1 + room / (BLOCK * 3 / 4) * 4 / 3;
        for name in names {
            self.entry(directory, &CString::new(name.into_vec())?)?;
        }
        Ok(())
    }

    fn entry(&mut self, parent: &OwnedFd, name: &CStr) -> io::Result<()> {
        let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFDIR {
            return self.directory(&open(parent.as_fd(), name)?);
        }
        if stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        self.measure.inodes += 1;
        self.measure.blocks += match kind {
            SFlag::S_IFREG => data(parent, name, &stat)?,
            // A short one lies in the inode.
            SFlag::S_IFLNK => u64::from(stat.st_size >= 60),
            _ => 0,
        };
        Ok(())
    }
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// The blocks of a file that hold data.
fn data(parent: &OwnedFd, name: &CStr, stat: &FileStat) -> io::Result<u64> {
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    // A compressing file system's blocks tell nothing: then the holes are asked for.
    if u64::try_from(stat.st_blocks).unwrap_or_default() * 512 >= size {
        return Ok(size.div_ceil(BLOCK));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(parent, name, flags, Mode::empty())?;
    let (mut blocks, mut at) = (0, 0);
    loop {
        let from = match lseek(&file, at, Whence::SeekData) {
            Ok(from) => from,
            Err(nix::errno::Errno::ENXIO) => return Ok(blocks),
            Err(e) => return Err(e.into()),
        };
        at = lseek(&file, from, Whence::SeekHole)?;
        blocks += (at as u64).div_ceil(BLOCK) - from as u64 / BLOCK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_room_for_its_tree_and_more() {
        let (size, inodes) = super::size(Measure { blocks: 250_000, inodes: 40_000 }, 0);
        assert!(size > 250_000 * BLOCK + 40_000 * INODE && size < 1_200_000_000, "{size}");
        assert!(inodes >= 50_000);
        let (size, _) = super::size(Measure::default(), 8 << 30);
        assert!(size > 8 << 30 && size < 9 << 30 && size % (1 << 20) == 0, "{size}");
    }

    #[test]
    fn holes_and_second_names_are_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let file = File::create(path("hole")).unwrap();
        file.set_len(1 << 30).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"x", 1 << 29).unwrap();
        file.sync_all().unwrap();
        crate::sys::fs::write_volatile(&path("a"), &[1; 5000], 0o644).unwrap();
        std::fs::hard_link(path("a"), path("b")).unwrap();
        std::fs::create_dir(path("d")).unwrap();
        std::os::unix::fs::symlink("a".repeat(100), path("long")).unwrap();
        std::os::unix::fs::symlink("a", path("short")).unwrap();
        let measure = measure(File::open(dir.path()).unwrap().as_fd()).unwrap();
        assert_eq!(measure.inodes, 6);
        // Two directories, a and b, the long link, and the block of the byte in the hole (file systems round it up differently).
        assert!((6..30).contains(&measure.blocks), "{measure:?}");
    }

    #[test]
    fn a_label_that_is_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let tree = File::open(dir.path()).unwrap();
        let identity = Identity { uuid: String::new(), label: "seventeen letters".into() };
        let error = make(&tree, tree.as_fd(), &identity, 0).unwrap_err().to_string();
        assert_eq!(error, "'seventeen letters' is too long for the label of a disk: at most 16 bytes");
    }
}
