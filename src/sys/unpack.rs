//! What filling a tree from an archive needs of the kernel: opens that cannot leave the tree, and extended attributes. What a
//! newcomer would get wrong: with `RESOLVE_IN_ROOT` a symbolic link that an archive has brought (`lib -> /etc`) leads to
//! `/etc` *inside* the tree; the last component is never followed by the calls that make or change something.
//! Sources: openat2(2), setxattr(2), sync_file_range(2).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Opens the directory `path` of the tree at `root` (empty: the root itself), links resolved inside the tree, as O_PATH:
/// good as the base of other calls. Errors: as openat2(2).
pub fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    open_inside(root, path, OFlag::O_PATH | OFlag::O_DIRECTORY)
}

/// Opens the directory `path` to be changed; when its last component is a link: ELOOP or ENOTDIR.
pub fn open_dir_nofollow(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    open_inside(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)
}

fn open_inside(root: BorrowedFd<'_>, path: &[u8], flags: OFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    let path = if path.is_empty() { b"." } else { path };
    // A rename anywhere on the system while `..` is resolved makes the kernel give up: openat2(2) says to try again.
    for _ in 0..64 {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN) => {}
            other => return Ok(other?),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// Where the open directory `dir` lies below the open directory `root`, by real names: no link is in it, and the root's own is empty. Errors:
/// as readlink(2); it lies elsewhere; its path is longer than the 4 KiB that the kernel can say.
pub fn path_below(root: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let real = |fd: BorrowedFd<'_>| -> io::Result<Vec<u8>> {
        Ok(nix::fcntl::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str())?.into_vec())
    };
    let (above, whole) = (real(root)?, real(dir)?);
    match whole.strip_prefix(above.as_slice()) {
        Some([]) => Ok(Vec::new()),
        Some([b'/', rest @ ..]) => Ok(rest.to_vec()),
        _ => Err(io::Error::from_raw_os_error(libc::EXDEV)),
    }
}

/// Sets an extended attribute of an open file. Errors: as fsetxattr(2); EINVAL for a name with a zero byte.
pub fn set_xattr(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the descriptor is open, the name ends with zero, and value is valid for its length; nothing is kept.
    let rc = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets an extended attribute of what is called `leaf` in the directory `parent`, never following a link there: for files
/// that cannot be opened (links, devices, FIFOs). Errors: as lsetxattr(2); `leaf` may not hold a slash.
pub fn set_xattr_at(parent: BorrowedFd<'_>, leaf: &[u8], name: &[u8], value: &[u8]) -> io::Result<()> {
    if leaf.contains(&b'/') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(leaf);
    let (path, name) = (CString::new(path)?, CString::new(name)?);
    // SAFETY: both strings end with zero and value is valid for its length; nothing is kept.
    let rc = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an extended attribute of an open file; `None` when it has no such attribute. Errors: as fgetxattr(2).
pub fn get_xattr(file: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let name = CString::new(name)?;
    let mut value = vec![0_u8; 65536];
    // SAFETY: the descriptor is open, the name ends with zero, and the kernel writes at most `value.len()` bytes.
    let rc = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    if rc < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENODATA) { Ok(None) } else { Err(error) };
    }
    value.truncate(rc as usize);
    Ok(Some(value))
}

/// Writes everything on the file system of `file` to the disk. Errors: as syncfs(2).
pub fn sync_file_system(file: impl AsFd) -> io::Result<()> {
    Ok(nix::unistd::syncfs(file)?)
}

/// Asks the kernel to begin writing `file` out, without waiting: then a later sync has little left to do.
pub fn begin_writeback(file: BorrowedFd<'_>) {
    // SAFETY: sync_file_range(2) takes a descriptor and numbers; a failure means only that the writing starts later.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_inside_and_leaves_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        symlink("/usr/lib", dir.path().join("lib")).unwrap();
        symlink("../../../../..", dir.path().join("up")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let ino = |fd: OwnedFd| nix::sys::stat::fstat(&fd).unwrap().st_ino;
        let inside = ino(open_dir(root.as_fd(), b"usr/lib").unwrap());
        assert_eq!(ino(open_dir(root.as_fd(), b"lib").unwrap()), inside);
        assert_eq!(ino(open_dir(root.as_fd(), b"up/up/usr/lib").unwrap()), inside);
        assert!(open_dir(root.as_fd(), b"etc").is_err(), "the host has one, the tree has none");
        assert!(open_dir_nofollow(root.as_fd(), b"lib").is_err());
        assert!(open_dir_nofollow(root.as_fd(), b"").is_ok());
        let below = |path: &[u8]| path_below(root.as_fd(), open_dir(root.as_fd(), path).unwrap().as_fd());
        assert_eq!((below(b"").unwrap(), below(b"up/lib").unwrap()), (b"".to_vec(), b"usr/lib".to_vec()));
        let lib = open_dir(root.as_fd(), b"lib").unwrap();
        assert!(path_below(lib.as_fd(), root.as_fd()).is_err(), "it is above");
    }

    #[test]
    fn attributes_of_links_stay_on_links() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/nowhere", dir.path().join("l")).unwrap();
        let root = File::open(dir.path()).unwrap();
        assert!(set_xattr_at(root.as_fd(), b"a/b", b"user.x", b"1").is_err());
        assert_eq!(get_xattr(root.as_fd(), b"user.none").unwrap(), None);
        if nix::unistd::geteuid().is_root() {
            set_xattr_at(root.as_fd(), b"l", b"trusted.t", b"1").unwrap();
            set_xattr(root.as_fd(), b"trusted.t", b"2").unwrap();
            assert_eq!(get_xattr(root.as_fd(), b"trusted.t").unwrap().unwrap(), b"2");
        }
    }
}
