//! Signals as data: blocked and read from a descriptor in the one poll loop. What a newcomer would get wrong: blocked signals
//! are inherited over exec, so whoever starts a program must unblock them first ([`unblock_all`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Blocked signals, readable from a descriptor.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks these signals and collects them.
    pub fn collect(signals: &[Signal]) -> io::Result<Signals> {
        let set: SigSet = signals.iter().copied().collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        Ok(Signals(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next one that has come, if any.
    pub fn take(&mut self) -> Option<i32> {
        self.0.read_signal().ok().flatten().map(|info| info.ssi_signo as i32)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One of these signals that has come while it was blocked and that nobody has taken yet. It stays where it is, for whoever
/// collects it; so a long wait deep below a verb can end, and the verb itself finds out why.
pub fn pending(signals: &[Signal]) -> Option<i32> {
    // SAFETY: a zeroed sigset_t is a valid empty place for sigpending(2), which only writes into it.
    let come = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        if libc::sigpending(&raw mut set) != 0 {
            return None;
        }
        SigSet::from_sigset_t_unchecked(set)
    };
    signals.iter().find(|s| come.contains(**s)).map(|s| *s as i32)
}

/// What a client gives up at: INT, TERM, HUP.
pub const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Unblocks every signal and gives each its default again: for a child about to exec a program that is not ours.
pub fn reset() {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    for signal in Signal::iterator() {
        // SAFETY: setting SIG_DFL installs no handler; KILL and STOP refuse and stay as they are.
        unsafe {
            let _ = nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl);
        }
    }
}

/// Unblocks every signal.
pub fn unblock_all() {
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Ignores a signal.
pub fn ignore(signal: Signal) {
    // SAFETY: SIG_IGN installs no handler.
    unsafe {
        let _ = nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_stays_for_whoever_collects_it() {
        // Sent to this thread alone; and one that is ignored by default, should this test be wrong.
        let signals = [Signal::SIGWINCH];
        let mut collected = Signals::collect(&signals).unwrap();
        assert_eq!(pending(&signals), None);
        nix::sys::signal::raise(Signal::SIGWINCH).unwrap();
        assert_eq!(pending(&ENDING), None);
        assert_eq!(pending(&signals), Some(Signal::SIGWINCH as i32));
        assert_eq!(pending(&signals), Some(Signal::SIGWINCH as i32), "looking takes nothing");
        assert_eq!(collected.take(), Some(Signal::SIGWINCH as i32));
        assert_eq!(pending(&signals), None);
        unblock_all();
    }
}
