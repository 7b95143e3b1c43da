//! Process accounting of one pid namespace. What a newcomer would get wrong: nothing has to be turned off. The kernel stops accounting when
//! the mount that the account was opened through goes, and ours is attached nowhere and held by a descriptor: so it goes with the
//! process that wanted the account, however that ends.
//! Source: acct(2); kernel/acct.c (`acct_on`, `acct_pin_kill`), fs/namespace.c (`cleanup_mnt`); pid_namespaces(7).

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;

use super::mount::{fsconfig_create, fsconfig_string, fsmount, fsopen};
use super::{caps, mount, ns};

/// The account's name in its mount.
const NAME: &std::ffi::CStr = c"account";
/// The most that is written down: four million processes.
const MOST: u64 = 256 << 20;

/// A place for an account, in memory; nobody else sees it. Dropped, it is gone, and nothing is written down any more.
#[derive(Debug)]
pub struct Account {
    // First: the mount must lose its last user, and the file is one.
    file: File,
    place: OwnedFd,
}

impl Account {
    /// A new one, empty. Errors: as fsmount(2).
    pub fn new() -> io::Result<Account> {
        let context = fsopen(c"tmpfs")?;
        fsconfig_string(&context, c"size", &MOST.to_string())?;
        fsconfig_string(&context, c"mode", "0700")?;
        fsconfig_create(&context)?;
        let place = fsmount(&context, 0)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&place, NAME, flags, Mode::from_bits_truncate(0o600))?.into();
        Ok(Account { file, place })
    }

    /// The place, to be handed to the process that calls [`begin`].
    pub fn place(&self) -> BorrowedFd<'_> {
        self.place.as_fd()
    }

    /// What was written down so far, and whether that is all of it: the kernel stops when the place is nearly full.
    pub fn read(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let mut bytes = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut bytes)?;
        let whole = (bytes.len() as u64) < MOST / 100 * 95;
        Ok((bytes, whole))
    }
}

/// Has all that ends in the pid namespace of `process` written down at `place`, from now on. A child does it, which must be in that
/// namespace: it has no right but this one, and an empty root, since whoever is root in there may look at it. The caller must have one
/// thread, and is not of much use afterwards. Errors: EPERM without CAP_SYS_PACCT, ENOSYS when the kernel keeps no accounts.
pub fn begin(process: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    mount::make_slave()?;
    mount::enter(mount::detached(c"tmpfs")?.as_fd())?;
    ns::enter(process, CloneFlags::CLONE_NEWPID)?;
    let child = ns::spawn(CloneFlags::empty(), || match write_down(place) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO).min(254),
    })?;
    match child.wait()? {
        nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
        nix::sys::wait::WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
        other => Err(io::Error::other(format!("the process in the guest ended: {other:?}"))),
    }
}

fn write_down(place: BorrowedFd<'_>) -> io::Result<()> {
    caps::drop_to(caps::Mask::ACCOUNTING)?;
    // Through this very mount, whose end ends the account.
    // SAFETY: fchdir(2) takes a descriptor, acct(2) reads a C string that lives across the call.
    let done = unsafe { libc::fchdir(place.as_raw_fd()) == 0 && libc::acct(NAME.as_ptr()) == 0 };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
