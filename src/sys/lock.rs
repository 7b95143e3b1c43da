//! Locks between processes, and the sign that somebody is alive: the kernel drops a lock with its last holder, however that
//! one ended. What a newcomer would get wrong: these are open-file-description locks (fcntl(2), F_OFD_SETLK), so a child
//! that inherits the descriptor holds the lock too; that is how a creator hands a domain's lock to its monitor without a
//! gap. And asking whether a lock is held must not take it, or the asker would turn away a rightful taker (flock(2) would).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A lock, held until the last copy of its descriptor is closed; exclusive unless it says otherwise.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits for the lock on the file at `path`, which is made (`0600`) when it is missing. Errors: as open(2), fcntl(2).
    pub fn wait(path: &Path) -> io::Result<Lock> {
        Lock::get(path, &whole_file(libc::F_WRLCK))
    }

    /// As [`Lock::wait`], for the lock that many may hold at once, but nobody beside the one who holds the exclusive one.
    pub fn share(path: &Path) -> io::Result<Lock> {
        Lock::get(path, &whole_file(libc::F_RDLCK))
    }

    fn get(path: &Path, want: &libc::flock) -> io::Result<Lock> {
        loop {
            let file = open(path)?;
            set(&file, libc::F_OFD_SETLKW, want)?;
            if still_there(&file, path) {
                return Ok(Lock(file));
            }
        }
    }

    /// The lock, or `None` when somebody else holds it.
    pub fn try_take(path: &Path) -> io::Result<Option<Lock>> {
        loop {
            let file = open(path)?;
            match set(&file, libc::F_OFD_SETLK, &whole_file(libc::F_WRLCK)) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => return Ok(None),
                Err(e) => return Err(e),
                Ok(()) if still_there(&file, path) => return Ok(Some(Lock(file))),
                Ok(()) => {}
            }
        }
    }

    /// Whether somebody holds the lock at `path` now; a missing file is held by nobody.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let mut want = whole_file(libc::F_WRLCK);
        // SAFETY: F_OFD_GETLK reads and writes the flock structure that we own; the descriptor is open.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut want) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(i32::from(want.l_type) != i32::from(libc::F_UNLCK as i16))
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

fn whole_file(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

fn set(file: &File, command: i32, want: &libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: F_OFD_SETLK[W] reads the flock structure; the descriptor is open.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, want) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A lock file may be removed between our open and our lock: then what we locked is nobody's lock.
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

    #[test]
    fn many_may_share_it_and_nobody_else_has_it_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (one, other) = (Lock::share(&path).unwrap(), Lock::share(&path).unwrap());
        drop(one);
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(other);
        assert!(Lock::try_take(&path).unwrap().is_some());
    }
}
