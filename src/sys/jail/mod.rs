//! Starts one command in namespaces of its own, fenced as systemd-nspawn fences, without nspawn and without an init system.
//!
//! ```text
//! caller ──clone3──▶ process 1: waits for its ids, enters the root, furnishes it, takes the fences on
//!   │                   ├──fork──▶ process 2: waits, becomes the user, executes the command
//!   │                   └─exec─▶ stub: reaps, passes signals on, reports the command's end
//!   └─ reads the report: nothing and end of file means that the command runs
//! ```
//!
//! What a newcomer would get wrong: between clone3 and execve nothing may allocate or lock (another thread of the caller
//! may have held the allocator's lock at that instant), so everything is prepared in [`Spec`] as C strings. The jail dies
//! with the *thread* that called [`spawn`] (PR_SET_PDEATHSIG): call it from one that lives as long as the jail shall.
//! Source: namespaces(7), clone(2), pid_namespaces(7), prctl(2), mount_namespaces(7).

mod inside;
mod mounts;
mod stub;

pub use inside::fresh_keyring;

use std::ffi::CString;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair};

use super::caps::Mask;
use super::seccomp::Filter;
use super::userns::{self, Range};

/// Everything about a jail, ready for use without another allocation.
#[derive(Debug)]
pub struct Spec {
    /// A detached, writable mount (fsmount(2), open_tree(2)): the jail's `/`.
    pub root: OwnedFd,
    /// The jail's host name.
    pub hostname: CString,
    /// A network namespace of its own, with nothing but a loopback device.
    pub private_network: bool,
    /// What is bound in, in this order.
    pub binds: Vec<Bind>,
    /// The paths to try to execute, in this order.
    pub programs: Vec<CString>,
    /// The command's words, its name first.
    pub words: Vec<CString>,
    /// `NAME=value`.
    pub env: Vec<CString>,
    /// Process 1's environment: where programs look for `container=`.
    pub init_env: Vec<CString>,
    /// Who the command is.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// Where it starts, and before it the directories that lead there; made where they are missing.
    pub workdir: Vec<CString>,
    /// Give it a terminal of the jail's own instead of the caller's descriptors 0 to 2.
    pub terminal: bool,
    /// The most it may do.
    pub caps: Mask,
    /// The system calls it may make.
    pub filter: Filter,
    /// Ids of its own in a user namespace of its own; the root is shown under them.
    pub ids: Option<Range>,
    /// The lines for a registry of interpreters of its own (binfmt.d(5)); needs `ids`.
    pub private: Vec<CString>,
    /// Detached mounts of files that stand in for the interpreters of those lines, each with the path of what it stands for.
    pub copies: Vec<(CString, OwnedFd)>,
    /// A detached copy of the host's sysfs, for a jail with ids on a network that is not its own: it may mount none itself.
    pub sysfs: Option<OwnedFd>,
    /// A cgroup v2 directory to be born in.
    pub cgroup: Option<OwnedFd>,
}

/// One thing bound into a jail.
#[derive(Debug)]
pub struct Bind {
    /// A detached mount, from `open_tree(OPEN_TREE_CLONE)`.
    pub source: OwnedFd,
    /// Absolute, in the jail.
    pub target: CString,
    /// The directories that lead to it.
    pub parents: Vec<CString>,
    /// Whether the source is a directory.
    pub is_dir: bool,
    /// Nothing in it can be changed from inside.
    pub read_only: bool,
}

/// Why a jail was not started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stub is not written for this architecture.
    #[error("jails are not supported on {}", std::env::consts::ARCH)]
    Unsupported,
    /// A piece of it could not be made; `what` is a path in the jail or a few words.
    #[error("cannot set up {what}: {source}")]
    Setup {
        /// What.
        what: String,
        /// As the system call.
        source: io::Error,
    },
    /// The command could not be executed.
    #[error("{source}")]
    Exec {
        /// As execve(2): ENOENT when it is not there, EACCES when it may not be executed, ENOEXEC when nobody can run it.
        source: io::Error,
    },
    /// The caller's own side failed.
    #[error("{0}")]
    Caller(#[from] io::Error),
}

/// A jail that runs. Dropped before [`Jail::wait`] has returned, it is killed and reaped.
#[derive(Debug)]
pub struct Jail {
    pid: i32,
    pidfd: OwnedFd,
    status: OwnedFd,
    terminal: Option<OwnedFd>,
    /// The jail's own registry of interpreters, which is there as long as somebody holds it.
    registry: Option<OwnedFd>,
    reaped: bool,
}

impl Jail {
    /// Process 1's number, in the caller's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Process 1's pidfd: readable when everything is gone.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Readable when the command has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }

    /// The terminal's master, when one was asked for; it can be taken once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Sends a signal to the command; SIGKILL ends the whole jail at once. Errors: as pidfd_send_signal(2), ESRCH when it has
    /// ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the descriptor is a pidfd; no siginfo is handed over.
        let done = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), signal, std::ptr::null::<()>(), 0)
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits until the command has ended and everything else in the jail is gone; returns the command's wait status, as
    /// wait(2) gives it. A jail that was killed from outside reads as killed by SIGKILL.
    pub fn wait(mut self) -> io::Result<std::process::ExitStatus> {
        let mut status = [0; 4];
        let said = read_all(self.status.as_fd(), &mut status)?;
        self.reap()?;
        let raw = if said == status.len() { i32::from_ne_bytes(status) } else { libc::SIGKILL };
        Ok(std::os::unix::process::ExitStatusExt::from_raw(raw))
    }

    fn reap(&mut self) -> io::Result<()> {
        if self.reaped {
            return Ok(());
        }
        loop {
            // SAFETY: an all-zero siginfo_t is valid, and the kernel fills it.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            let id = self.pidfd.as_raw_fd() as libc::id_t;
            // SAFETY: `info` outlives the call; the descriptor is a pidfd of our child.
            if unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::__WALL) } == 0 {
                self.reaped = true;
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // A caller that ignores SIGCHLD has its children reaped for it.
                Some(libc::ECHILD) => {
                    self.reaped = true;
                    return Ok(());
                }
                _ => return Err(error),
            }
        }
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.signal(libc::SIGKILL);
            let _ = self.reap();
        }
    }
}

/// The first process of a jail, as a program.
#[cfg(test)]
pub(super) fn first_process() -> Option<Vec<u8>> {
    stub::elf()
}

/// Whether the first process exists for this host's architecture.
pub fn is_supported() -> bool {
    stub::elf().is_some()
}

/// Starts a jail and returns when its command has been executed. Errors: see [`Error`]; nothing is left then.
pub fn spawn(spec: &Spec) -> Result<Jail, Error> {
    let stub = stub::elf().ok_or(Error::Unsupported)?;
    let (report, report_inside) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(io::Error::from)?;
    let (status, status_inside) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let (mapped, maps) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let prepared = inside::Prepared::new(
        spec,
        &stub,
        [report.as_raw_fd(), maps.as_raw_fd()],
        report_inside.as_raw_fd(),
        &status_inside,
        &mapped,
    );
    let (pid, pidfd) = clone(spec, &prepared)?;
    let mut jail = Jail { pid, pidfd, status, terminal: None, registry: None, reaped: false };
    drop((report_inside, status_inside, mapped));
    if let Some(range) = spec.ids {
        userns::map(pid, range)?;
        nix::unistd::write(&maps, b"m").map_err(io::Error::from)?;
    }
    drop(maps);
    loop {
        match receive(&report)? {
            Report::Running => return Ok(jail),
            Report::Terminal(master) => jail.terminal = Some(master),
            Report::Registry(held) => jail.registry = Some(held),
            Report::Failed { exec: true, errno, .. } => {
                return Err(Error::Exec { source: io::Error::from_raw_os_error(errno) });
            }
            Report::Failed { what, errno, .. } => {
                return Err(Error::Setup { what, source: io::Error::from_raw_os_error(errno) });
            }
        }
    }
}

/// libc's constant of this name does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks process 1, with every signal blocked until it has none of the caller's handlers left.
fn clone(spec: &Spec, prepared: &inside::Prepared<'_>) -> io::Result<(i32, OwnedFd)> {
    let mut flags =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_PIDFD;
    if spec.private_network {
        flags |= libc::CLONE_NEWNET;
    }
    if spec.ids.is_some() {
        flags |= libc::CLONE_NEWUSER;
    }
    let mut pidfd: i32 = -1;
    // SAFETY: all zeros is a valid clone_args: no stack of its own (the child goes on on a copy of this one), no tid words.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = &spec.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    let before = nix::sys::signal::SigSet::all()
        .thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)
        .map_err(io::Error::from)?;
    // SAFETY: like fork(2). The child runs `inside::first` only, which never returns and neither allocates nor locks.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    if pid == 0 {
        inside::first(prepared);
    }
    let error = io::Error::last_os_error();
    before.thread_set_mask().map_err(io::Error::from)?;
    if pid < 0 {
        return Err(error);
    }
    // SAFETY: with CLONE_PIDFD the kernel has put a new descriptor there.
    Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// What the jail says while it comes up.
enum Report {
    /// Both of its processes have executed what they should: every copy of the socket is closed.
    Running,
    Terminal(OwnedFd),
    Registry(OwnedFd),
    Failed {
        exec: bool,
        errno: i32,
        what: String,
    },
}

/// The messages' first byte.
const SAYS_TERMINAL: u8 = b'T';
const SAYS_REGISTRY: u8 = b'R';
const SAYS_SETUP: u8 = b'S';
const SAYS_EXEC: u8 = b'X';

fn receive(report: &OwnedFd) -> io::Result<Report> {
    let mut buffer = [0; 1024];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let (len, sent) = loop {
        match recvmsg::<()>(report.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
            Ok(message) => {
                let sent = message.cmsgs()?.find_map(|c| match c {
                    ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                    _ => None,
                });
                // SAFETY: SCM_RIGHTS has just made this descriptor for us.
                break (message.bytes, sent.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
    };
    let said = &buffer[..len];
    match (said.first(), sent) {
        (None, _) => Ok(Report::Running),
        (Some(&SAYS_TERMINAL), Some(fd)) => Ok(Report::Terminal(fd)),
        (Some(&SAYS_REGISTRY), Some(fd)) => Ok(Report::Registry(fd)),
        (Some(&kind), _) if len >= 5 => Ok(Report::Failed {
            exec: kind == SAYS_EXEC,
            errno: i32::from_ne_bytes([said[1], said[2], said[3], said[4]]),
            what: String::from_utf8_lossy(&said[5..]).escape_debug().to_string(),
        }),
        _ => Err(io::Error::from_raw_os_error(libc::EPROTO)),
    }
}

/// Reads until the buffer is full or the other side is gone; returns how much came.
fn read_all(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut file = std::fs::File::from(fd.try_clone_to_owned()?);
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}
