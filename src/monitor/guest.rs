//! What the monitor drives, whatever backend is behind it. What a newcomer would get wrong: `start` may be called again
//! after the guest has asked for a reboot, with a new domid.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use crate::monitor::How;
use crate::sys::ns::Process;

/// A guest that has just been started.
#[derive(Debug)]
pub struct Started {
    /// The program that runs it; its end is the guest's end.
    pub process: Process,
    /// Our end of the guest's console.
    pub pty: OwnedFd,
    /// Where readiness is told (sd_notify(3)), where the program does so.
    pub notify: Option<UnixDatagram>,
    /// The domid of this run.
    pub domid: u32,
}

/// What comes after a guest's program has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Start it again.
    Again,
    /// It is over: `poweroff`, `reboot`, `destroyed` or `crashed`.
    Over(&'static str),
}

/// One domain's guest. Errors are for the user: what failed and why, in one line.
pub trait Guest {
    /// Starts it.
    fn start(&mut self) -> Result<Started, String>;
    /// The program said which process is the guest's init, by its PID in the program's own pid namespace.
    fn leader(&mut self, inner_pid: i32) -> Result<(), String>;
    /// Whether the guest seems to be up, where its init never says so: asked ten times a second from the moment that it runs.
    /// `None`: it will say so itself.
    fn looks_up(&mut self) -> Option<bool>;
    /// What else is to be watched: a socket over which the program tells what happens.
    fn control(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// There is something to be read on it; whether the guest is up now.
    fn heard(&mut self) -> Result<bool, String> {
        Ok(false)
    }
    /// What it wrote on its console; whether it is up now. Called for all that it writes.
    fn saw(&mut self, _console: &[u8]) -> bool {
        false
    }
    /// The guest said that it is up, or looks so.
    fn ready(&mut self) -> Result<(), String>;
    /// Asks the guest to stop; it may take its time.
    fn ask(&mut self, how: How) -> Result<(), String>;
    /// Kills everything of the guest, now.
    fn kill(&mut self);
    /// The program has ended with this status (as a shell shows it); what belonged to the run is cleaned up here.
    fn ended(&mut self, status: i32, asked: Option<How>) -> Outcome;
    /// The command that started it is done: the domain is the user's now.
    fn handed_over(&mut self) -> Result<(), String>;
    /// The domain is over for good; everything is released here. `orphan`: the command that started it never handed it over.
    fn finish(&mut self, how: &str, orphan: bool);
}
