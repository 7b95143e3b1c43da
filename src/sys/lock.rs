//! Locks between processes, and the sign that somebody is alive: a flock(2) is dropped by the kernel with its last holder,
//! however that one ended. What a newcomer would get wrong: the lock belongs to the open file *description*, so a child
//! that inherits the descriptor holds it too; that is how a creator hands a domain's lock to its monitor without a gap.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// An exclusive lock, held until the last copy of its descriptor is closed.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits for the lock on the file at `path`, which is made (`0600`) when it is missing. Errors: as open(2), flock(2).
    pub fn wait(path: &Path) -> io::Result<Lock> {
        loop {
            let file = open(path)?;
            flock(&file, libc::LOCK_EX)?;
            if still_there(&file, path) {
                return Ok(Lock(file));
            }
        }
    }

    /// The lock, or `None` when somebody else holds it.
    pub fn try_take(path: &Path) -> io::Result<Option<Lock>> {
        loop {
            let file = open(path)?;
            match flock(&file, libc::LOCK_EX | libc::LOCK_NB) {
                Err(e) if e.raw_os_error() == Some(libc::EWOULDBLOCK) => return Ok(None),
                Err(e) => return Err(e),
                Ok(()) if still_there(&file, path) => return Ok(Some(Lock(file))),
                Ok(()) => {}
            }
        }
    }

    /// Whether somebody holds the lock at `path` now; a missing file is held by nobody.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        match flock(&file, libc::LOCK_SH | libc::LOCK_NB) {
            Err(e) if e.raw_os_error() == Some(libc::EWOULDBLOCK) => Ok(true),
            Err(e) => Err(e),
            Ok(()) => Ok(false),
        }
    }

    /// Takes over a lock whose descriptor was inherited.
    pub fn from_inherited(fd: OwnedFd) -> Lock {
        Lock(File::from(fd))
    }

    /// The descriptor, to be inherited by a child.
    pub fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes ownership of the inherited descriptor `raw`. Errors: EBADF when it is not open.
pub fn inherited(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks about a number; it touches no memory.
    if unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open (checked above) and the caller says that it was handed to this process alone.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn flock(file: &File, operation: i32) -> io::Result<()> {
    loop {
        // SAFETY: flock(2) takes a descriptor, which `file` keeps open, and a number.
        if unsafe { libc::flock(file.as_raw_fd(), operation) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A lock file may be removed between our open and our flock: then what we locked is nobody's lock.
fn still_there(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(now)) => ours.dev() == now.dev() && ours.ino() == now.ino(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_gone_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!Lock::is_held(&path).unwrap());
        let held = Lock::try_take(&path).unwrap().unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        assert!(Lock::is_held(&path).unwrap());
        drop(held);
        assert!(!Lock::is_held(&path).unwrap());
        Lock::wait(&path).unwrap();
    }
}
