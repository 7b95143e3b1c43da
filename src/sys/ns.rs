//! New processes in new namespaces, and entering those of a guest. What a newcomer would get wrong: these fork without an
//! exec in between, so they may only be called while this process has one thread (another thread could hold a lock of the
//! allocator for ever in the child); every caller here is a freshly executed program of ours.
//! Source: clone(2), setns(2), pid_namespaces(7), prctl(2) PR_SET_PDEATHSIG.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A child of ours, by PID and by a descriptor that becomes readable when it ends.
#[derive(Debug)]
pub struct Process {
    /// Its PID in our pid namespace.
    pub pid: Pid,
    /// Its pidfd.
    pub fd: OwnedFd,
}

/// Forks into the new namespaces of `flags`; `child` runs there and its result is the exit status. The child is killed when
/// this process (this thread) dies. Errors: as clone(2).
pub fn spawn(flags: CloneFlags, child: impl FnOnce() -> i32) -> io::Result<Process> {
    // Until the child has set its death signal it waits here: when we die before, it reads the end of the pipe and leaves.
    let (alive, hold) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let mut pidfd: RawFd = -1;
    let raw_flags = flags.bits() as u64 | libc::CLONE_PIDFD as u64 | Signal::SIGCHLD as u64;
    // SAFETY: without CLONE_VM and with a null stack this is a fork; the kernel writes the pidfd to an integer that we own.
    // The caller has one thread (module doc), so the child's copy of the heap is consistent.
    let pid = unsafe { clone(raw_flags, &mut pidfd) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        drop(hold);
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        let mut byte = [0];
        let status = match nix::unistd::read(&alive, &mut byte) {
            Ok(1) => child(),
            _ => 255,
        };
        leave(status);
    }
    // SAFETY: the kernel has just given us this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    drop(alive);
    nix::unistd::write(&hold, b"g")?;
    Ok(Process { pid: Pid::from_raw(pid as i32), fd })
}

#[cfg(target_arch = "s390x")]
unsafe fn clone(flags: u64, pidfd: &mut RawFd) -> libc::c_long {
    // SAFETY: s390x takes the stack first (clone(2), "C library/kernel differences").
    unsafe { libc::syscall(libc::SYS_clone, 0, flags, pidfd as *mut RawFd, 0, 0) }
}

#[cfg(not(target_arch = "s390x"))]
unsafe fn clone(flags: u64, pidfd: &mut RawFd) -> libc::c_long {
    // SAFETY: as the caller's: a fork with a pidfd.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, pidfd as *mut RawFd, 0, 0) }
}

/// A fork with these clone(2) flags (no CLONE_VM, no CLONE_PIDFD). Returns 0 in the child.
///
/// # Safety
/// A caller with several threads must only make system calls in the child and never return from it: another thread may
/// have held the allocator's lock.
pub unsafe fn raw_clone(flags: u64) -> libc::c_long {
    let mut unused: RawFd = -1;
    // SAFETY: a null stack makes it a fork; without CLONE_PIDFD the kernel writes nothing to `unused`.
    unsafe { clone(flags, &mut unused) }
}

/// Ends this process at once, without running destructors or exit handlers that belong to the parent.
pub fn leave(status: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

impl Process {
    /// Sends a signal; one that has ended is fine.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        signal_pidfd(&self.fd, signal)
    }

    /// Waits for the end. Errors: as waitpid(2).
    pub fn wait(&self) -> io::Result<WaitStatus> {
        loop {
            match waitpid(self.pid, None) {
                Err(nix::errno::Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Its end, when it has ended.
    pub fn try_wait(&self) -> io::Result<Option<WaitStatus>> {
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => Ok(None),
            ended => Ok(Some(ended)),
        }
    }
}

/// The exit status that a shell would show: the code, or 128+N for signal N.
pub fn shell_status(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        _ => 255,
    }
}

/// A descriptor for a process; it never means another one, however often the PID is used again. Source: pidfd_open(2).
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes numbers.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// Signals the process of a pidfd; one that has ended is fine.
pub fn signal_pidfd(fd: &OwnedFd, signal: i32) -> io::Result<()> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) with a null siginfo takes numbers only.
    if unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, null, 0) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        e => Err(e),
    }
}

/// Moves this process into the namespaces `flags` of the process behind `pidfd` (setns(2) with a pidfd, Linux 5.8).
/// The pid namespace takes effect for children.
pub fn enter(pidfd: BorrowedFd<'_>, flags: CloneFlags) -> io::Result<()> {
    Ok(nix::sched::setns(pidfd, flags)?)
}

/// This program as a sealed copy in memory: a guest that gets at `/proc/PID/exe` of a process of ours on its way into the
/// guest reaches this copy, never the file on the host.
pub fn sealed_self() -> io::Result<OwnedFd> {
    sealed(c"pronto", |copy| {
        let program = std::fs::File::open("/proc/self/exe")?;
        let mut left = program.metadata()?.len();
        while left > 0 {
            let chunk = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
            match nix::sys::sendfile::sendfile(&*copy, &program, None, chunk)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                n => left -= n as u64,
            }
        }
        Ok(())
    })
}

/// A file in memory that nobody can change once `fill` is done with it. Source: memfd_create(2), F_ADD_SEALS.
pub fn sealed(name: &std::ffi::CStr, fill: impl FnOnce(&mut std::fs::File) -> io::Result<()>) -> io::Result<OwnedFd> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let copy = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(copy);
    fill(&mut file)?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// The PIDs of a process in its pid namespaces, outermost first, out of the text of `/proc/PID/status` (`NSpid:`).
pub fn parse_nspid(status: &str) -> Vec<i32> {
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_whitespace().filter_map(|w| w.parse().ok()).collect()
}

/// When a process started, in clock ticks since boot, out of `/proc/PID/stat`: with the PID it names a process for good.
pub fn parse_start_time(stat: &str) -> Option<u64> {
    // The second field is the program's name in parentheses and may hold anything, parentheses too (proc(5)).
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The start time of a living process; `None` when there is none.
pub fn start_time(pid: i32) -> Option<u64> {
    parse_start_time(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Prepares a program to be started away from us: a session of its own, and the descriptors `keep` inherited.
pub fn detach(command: &mut std::process::Command, keep: [RawFd; 2]) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure runs between fork and exec and makes system calls only.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            for fd in keep {
                if libc::fcntl(fd, libc::F_SETFD, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// Lets a program that is about to be started inherit one descriptor.
pub fn keep_for_child(command: &mut std::process::Command, keep: RawFd) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure runs between fork and exec and makes system calls only.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(keep, libc::F_SETFD, 0) < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}

/// Lets a program that is about to be started find two descriptors at 3 and 4. They must be 5 or higher.
#[cfg(test)]
pub(super) fn gate_for_child(command: &mut std::process::Command, program: RawFd, pipe: RawFd) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure runs between fork and exec and makes system calls only.
    unsafe {
        command.pre_exec(move || {
            let high = |fd| libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100);
            let (program, pipe) = (high(program), high(pipe));
            if libc::dup2(program, 3) < 0 || libc::dup2(pipe, 4) < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}

/// Marks every descriptor from `first` on to be closed by the next exec. Source: close_range(2), CLOSE_RANGE_CLOEXEC
/// (Linux 5.11); before that, one by one.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    // SAFETY: sets a flag on descriptors by number.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } == 0 {
        return Ok(());
    }
    let highest = nix::unistd::sysconf(nix::unistd::SysconfVar::OPEN_MAX)?.unwrap_or(1024) as i32;
    for fd in first as i32..highest {
        // SAFETY: as above; numbers that are not open are refused.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        assert_eq!(parse_nspid("Name:\tx\nNSpid:\t900\t7\t1\n"), [900, 7, 1]);
        assert!(start_time(std::process::id() as i32).is_some());
        let tail: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        assert_eq!(parse_start_time(&format!("1 (a) b) {}", tail.join(" "))), Some(22));
    }

    #[test]
    fn the_copy_of_this_program_cannot_be_written() {
        use std::io::Write;
        let copy = sealed_self().unwrap();
        let mut file = std::fs::File::from(copy);
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
    }
}
