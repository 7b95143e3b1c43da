//! All extended attributes of one file, of any kind. What a newcomer would get wrong: a link or a device cannot be opened to ask
//! for them; an `O_PATH` descriptor can be had of everything, and `/proc/self/fd/N` leads to just what it is of, a link itself
//! too, with no name looked up a second time. Sources: listxattr(2), getxattr(2), open(2) "O_PATH".

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An attribute: its name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// Every attribute of what `file` is of, sorted by name; a file system without any has none. One that goes meanwhile is left out.
/// Errors: as listxattr(2), getxattr(2).
pub fn all(file: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: the path ends with zero, and the kernel writes at most as many bytes as the buffer has.
    let list = |buffer: &mut [u8]| unsafe { libc::listxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let get = |name: &CStr, buffer: &mut [u8]| {
        // SAFETY: both strings end with zero, and the kernel writes at most as many bytes as the buffer has.
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    };
    collect(list, get)
}

/// The same of a file that is open for reading or writing, without its way through /proc. Errors: as flistxattr(2), fgetxattr(2).
pub fn all_open(file: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is open, and the kernel writes at most as many bytes as the buffer has.
    let list = |buffer: &mut [u8]| unsafe { libc::flistxattr(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    let get = |name: &CStr, buffer: &mut [u8]| {
        // SAFETY: the same, and the name ends with zero.
        unsafe { libc::fgetxattr(fd, name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    };
    collect(list, get)
}

/// The same of what is called `leaf` in the directory `parent`, a link not followed: no descriptor is opened. Errors: as llistxattr(2),
/// lgetxattr(2).
pub fn all_at(parent: BorrowedFd<'_>, leaf: &CStr) -> io::Result<Vec<Xattr>> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(leaf.to_bytes());
    let path = CString::new(path)?;
    // SAFETY: the path ends with zero, and the kernel writes at most as many bytes as the buffer has.
    let list = |buffer: &mut [u8]| unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    let get = |name: &CStr, buffer: &mut [u8]| {
        // SAFETY: both strings end with zero, and the kernel writes at most as many bytes as the buffer has.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    };
    collect(list, get)
}

fn collect(list: impl Fn(&mut [u8]) -> isize, get: impl Fn(&CStr, &mut [u8]) -> isize) -> io::Result<Vec<Xattr>> {
    let list = match grow(list) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP)) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names: Vec<&[u8]> = list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut out = Vec::with_capacity(names.len());
    for name in names {
        let named = CString::new(name)?;
        match grow(|buffer| get(&named, buffer)) {
            Ok(value) => out.push((name.to_vec(), value)),
            Err(e) if e.raw_os_error() == Some(libc::ENODATA) => {}
            Err(e) => {
                let what = format!("attribute {}: {e}", name.escape_ascii());
                return Err(io::Error::new(e.kind(), what));
            }
        }
    }
    Ok(out)
}

/// Calls with a small buffer, then with the greatest that the kernel ever fills (64 KiB, xattr(7)).
fn grow(call: impl Fn(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    for size in [256, 65536] {
        let mut buffer = vec![0; size];
        match usize::try_from(call(&mut buffer)) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.raw_os_error() != Some(libc::ERANGE) || size == 65536 {
                    return Err(error);
                }
            }
        }
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::unpack;
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::Mode;
    use std::os::fd::AsFd;

    #[test]
    fn a_link_has_its_own_and_long_values_are_whole() {
        if !nix::unistd::geteuid().is_root() {
            let _ = io::Write::write_all(&mut io::stderr(), b"skipped: trusted attributes need root\n");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("l")).unwrap();
        std::fs::File::create(dir.path().join("f")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        unpack::set_xattr_at(root.as_fd(), b"l", b"trusted.t", b"link").unwrap();
        let long = vec![7; 3000];
        unpack::set_xattr_at(root.as_fd(), b"f", b"user.b", &long).unwrap();
        unpack::set_xattr_at(root.as_fd(), b"f", b"user.a", b"").unwrap();
        let open = |name: &str| openat(&root, name, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()).unwrap();
        assert_eq!(all(open("l").as_fd()).unwrap(), [(b"trusted.t".to_vec(), b"link".to_vec())]);
        assert_eq!(all(open("f").as_fd()).unwrap(), [(b"user.a".to_vec(), Vec::new()), (b"user.b".to_vec(), long)]);
        assert!(all(root.as_fd()).unwrap().is_empty());
    }
}
