//! User namespaces: a range of the host's ids that a guest sees as its own 0 to 65535, so that its root is nobody outside.
//!
//! What a newcomer would get wrong: a namespace is made by a process that then does nothing but hold it while its maps are
//! written from outside, since only the host's root may map ids that are not its own. The descriptor keeps the namespace
//! alive afterwards. And file access by the host's root on a guest's behalf ([`ActAs`]) keeps all capabilities but takes the
//! guest root's file system ids: uid 0 has no number inside an id-mapped tree, so what it makes there fails with EOVERFLOW.
//! Source: user_namespaces(7), mount_setattr(2) MOUNT_ATTR_IDMAP, setfsuid(2), capabilities(7).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::{caps, ns};

/// The ids of one guest: `first` on the host is 0 in the guest. Uids and gids alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The host's id of the guest's root.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

impl Range {
    /// The line of `/proc/PID/uid_map` that makes it: inside, outside, length.
    fn map(self) -> String {
        format!("0 {} {}", self.first, self.count)
    }

    /// Whether both ranges hold an id.
    pub fn overlaps(self, other: Range) -> bool {
        u64::from(self.first) < u64::from(other.first) + u64::from(other.count)
            && u64::from(other.first) < u64::from(self.first) + u64::from(self.count)
    }
}

/// Writes the maps of a process that has just got a user namespace of its own. Errors: as write(2) to `/proc/PID/uid_map`:
/// EPERM without CAP_SETUID, or when they are written already.
pub fn map(pid: i32, range: Range) -> io::Result<()> {
    let text = range.map();
    for file in ["uid_map", "gid_map"] {
        write_once(&format!("/proc/{pid}/{file}"), text.as_bytes())?;
    }
    Ok(())
}

/// One write(2), as the kernel wants it; nothing is created or truncated.
fn write_once(path: &str, text: &[u8]) -> io::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(text)
}

/// A user namespace with this map, and nobody in it. Errors: ENOSPC when the host allows no more of them
/// (`user.max_user_namespaces`), EPERM or EINVAL where there are none.
pub fn make(range: Range) -> io::Result<OwnedFd> {
    let holder = Holder::start()?;
    map(holder.pid, range)?;
    let file = std::fs::File::open(format!("/proc/{}/ns/user", holder.pid))?;
    Ok(file.into())
}

/// A process in a new user namespace that only waits; killed and reaped when dropped.
struct Holder {
    pid: i32,
}

impl Holder {
    /// May be called with several threads: the child makes system calls only.
    fn start() -> io::Result<Holder> {
        let parent = std::process::id() as i32;
        // SAFETY: without CLONE_VM and with a null stack this is a fork; the child allocates nothing and never returns.
        let pid = unsafe { ns::raw_clone(libc::CLONE_NEWUSER as u64 | libc::SIGCHLD as u64) };
        if pid == 0 {
            // SAFETY: plain system calls with numbers. A parent that died before the death signal was set is noticed.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
                if libc::getppid() != parent {
                    libc::_exit(0);
                }
                loop {
                    libc::pause();
                }
            }
        }
        if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(Holder { pid: pid as i32 }) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        while matches!(nix::sys::wait::waitpid(pid, None), Err(nix::errno::Errno::EINTR)) {}
    }
}

/// This thread with a guest root's file system ids and all of its own capabilities; the old ids come back when it is dropped.
#[derive(Debug)]
pub struct ActAs {
    before: (u32, u32),
}

impl ActAs {
    /// Acts as the root of a guest. Errors: EPERM for a caller that is not root.
    pub fn root_of(range: Range) -> io::Result<ActAs> {
        let before = set_fsids(range.first, range.first)?;
        let acting = ActAs { before };
        // Leaving uid 0 has taken the capabilities that have to do with files out of the effective set (setfsuid(2)).
        caps::raise_permitted()?;
        Ok(acting)
    }
}

impl Drop for ActAs {
    fn drop(&mut self) {
        let _ = set_fsids(self.before.0, self.before.1);
        // Coming back to uid 0 raises what is permitted by itself.
    }
}

/// Runs `work` as a guest's root, if it has ids of its own. Errors: as [`ActAs::root_of`] and `work`.
pub fn acting_as<T>(range: Option<Range>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let _acting = range.map(ActAs::root_of).transpose()?;
    work()
}

/// Sets both ids of this thread and returns the old ones. setfsuid(2) reports no error: what is in force is asked for.
fn set_fsids(uid: u32, gid: u32) -> io::Result<(u32, u32)> {
    const NONE: u32 = u32::MAX;
    // SAFETY: these take and return numbers; -1 changes nothing and tells what is set. They act on this thread alone.
    let (old, now) = unsafe {
        let old = (libc::setfsuid(uid) as u32, libc::setfsgid(gid) as u32);
        (old, (libc::setfsuid(NONE) as u32, libc::setfsgid(NONE) as u32))
    };
    if now == (uid, gid) { Ok(old) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// Shows the mount behind `tree` (a detached one) with the ids of `namespace`: what belongs to 0 on disk belongs to the
/// guest's root. Errors: EINVAL when the file system cannot do that, EPERM when the mount is mapped or attached already,
/// ENOSYS before Linux 5.12.
pub fn idmap(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    super::mount::set_attributes(tree, &idmap_attributes(namespace), false)
}

/// A detached copy of what is at `path` on the host, with all that is mounted there, shown under the ids of `namespace`
/// where its file system can do that; and whether it can. Errors: as open_tree(2).
pub fn mapped_clone(path: &std::path::Path, namespace: &OwnedFd) -> io::Result<(OwnedFd, bool)> {
    let attributes = idmap_attributes(namespace.as_fd());
    for recursive in [true, false] {
        let tree = super::mount::clone_tree(path, true)?;
        match super::mount::set_attributes(tree.as_fd(), &attributes, recursive) {
            Ok(()) => return Ok((tree, true)),
            // What is mounted below cannot be mapped, but perhaps what is wanted can; nothing is changed by a failed call.
            Err(_) if recursive => {}
            Err(_) => return Ok((tree, false)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

fn idmap_attributes(namespace: BorrowedFd<'_>) -> libc::mount_attr {
    use std::os::fd::AsRawFd;
    libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    }
}

/// What a fork inside `namespace` may do with `work`, whose result is handed back as a descriptor: the child joins the user
/// namespace, gets a mount namespace of its own, and sends what `work` opened. The caller must have one thread (see [`ns`]).
/// Errors: what failed in the child.
pub fn open_inside(namespace: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    use std::os::unix::net::UnixStream;
    let (ours, theirs) = UnixStream::pair()?;
    let child = ns::spawn(nix::sched::CloneFlags::empty(), || {
        let opened = (|| {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWUSER)?;
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
            work()
        })();
        let done = match opened {
            Ok(fd) => super::sock::send_fd(&theirs, fd.as_fd()).map_or(libc::EIO, |()| 0),
            Err(e) => e.raw_os_error().unwrap_or(libc::EIO),
        };
        done.min(254)
    })?;
    drop(theirs);
    let received = super::sock::receive_fd(&ours);
    match child.wait()? {
        nix::sys::wait::WaitStatus::Exited(_, 0) => received,
        nix::sys::wait::WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
        other => Err(io::Error::other(format!("the helper in the user namespace ended: {other:?}"))),
    }
}

/// The namespace of a process, held open.
pub fn of_process(pid: i32) -> io::Result<OwnedFd> {
    Ok(std::fs::File::open(format!("/proc/{pid}/ns/user"))?.into())
}
