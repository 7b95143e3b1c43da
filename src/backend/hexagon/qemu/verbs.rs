//! The verbs in QEMU's words: states, stopping and going on, power, CPUs, memory. What a newcomer would get wrong: `system_powerdown`
//! returns at once and says nothing of whether the guest listens; its end is an event (`SHUTDOWN`), and then QEMU still runs.
//! Sources: qapi/run-state.json, qapi/machine.json, qapi/misc.json, qapi/dump.json.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{Error, Peer};
use super::qmp::{Event, Qmp};

/// What a guest does, in QEMU's words (`RunState`), as far as they differ for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Its CPUs run.
    Running,
    /// They were stopped by us, or not yet started.
    Paused,
    /// It powered off, or wants to start anew; which of them the event said.
    Shutdown,
    /// Its kernel panicked.
    Panicked,
    /// A disk could not be written (most often: the host's is full); `cont` tries again.
    IoError,
    /// Its state is being written, or was.
    Saving,
    /// It waits for its state.
    Restoring,
    /// Anything else (`watchdog`, `internal-error` …).
    Other(String),
}

impl Status {
    /// From QEMU's word.
    pub fn of(word: &str) -> Status {
        match word {
            "running" => Status::Running,
            "paused" | "prelaunch" | "suspended" => Status::Paused,
            "shutdown" => Status::Shutdown,
            "guest-panicked" => Status::Panicked,
            "io-error" => Status::IoError,
            "finish-migrate" | "postmigrate" | "save-vm" => Status::Saving,
            "inmigrate" | "restore-vm" => Status::Restoring,
            other => Status::Other(other.to_owned()),
        }
    }
}

/// Why a guest's run came to an end, or to a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It powered off.
    PowerOff,
    /// It wants to start anew.
    Reboot,
    /// Its kernel panicked.
    Panic,
    /// QEMU was told to quit, over its socket or by a signal.
    Host,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::PowerOff => "powered off",
            End::Reboot => "rebooted",
            End::Panic => "its kernel panicked",
            End::Host => "was ended from the host",
        })
    }
}

impl End {
    /// What an event says of the guest's end; `None` for all others. Source: qapi/run-state.json, `ShutdownCause`.
    pub fn of(event: &Event) -> Option<End> {
        match (event.name.as_str(), event.data["reason"].as_str()) {
            ("GUEST_PANICKED", _) => Some(End::Panic),
            ("SHUTDOWN", Some("guest-reset" | "subsystem-reset" | "host-qmp-system-reset")) => Some(End::Reboot),
            ("SHUTDOWN", Some("guest-panic")) => Some(End::Panic),
            ("SHUTDOWN", Some("host-qmp-quit" | "host-signal" | "host-ui" | "host-error")) => Some(End::Host),
            ("SHUTDOWN", _) => Some(End::PowerOff),
            _ => None,
        }
    }
}

/// How the last line of a kernel that panicked begins, on its console: the only sign of it where the kernel has no driver for pvpanic
/// (Debian's for arm64). Source: Linux, kernel/panic.c.
pub const PANIC: &[u8] = b"---[ end Kernel panic - not syncing";

/// A virtual CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub index: u32,
    /// The host's thread that executes it, in QEMU's own pid namespace.
    pub thread: i32,
}

impl Qmp {
    /// What the guest does.
    pub fn status(&mut self) -> Result<Status, Error> {
        let answer = self.call("query-status", Value::Null)?;
        answer["status"].as_str().map(Status::of).ok_or_else(|| garbled("query-status", &answer))
    }

    /// Stops its CPUs.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.call("stop", Value::Null).map(drop)
    }

    /// Lets them go on.
    pub fn cont(&mut self) -> Result<(), Error> {
        self.call("cont", Value::Null).map(drop)
    }

    /// Presses the power button.
    pub fn powerdown(&mut self) -> Result<(), Error> {
        self.call("system_powerdown", Value::Null).map(drop)
    }

    /// Presses the reset button: the guest is not asked. It is an end as any other (`SHUTDOWN`, `host-qmp-system-reset`).
    pub fn reset(&mut self) -> Result<(), Error> {
        self.call("system_reset", Value::Null).map(drop)
    }

    /// Ends QEMU and waits until its socket is closed. That it is gone already is what was wanted. Errors: it is silent.
    pub fn quit(&mut self, patience: Duration) -> Result<(), Error> {
        match self.call_within("quit", Value::Null, patience) {
            Ok(_) => {}
            Err(Error::Gone { .. }) => return Ok(()),
            Err(other) => return Err(other),
        }
        match self.await_event(patience, |_| None::<()>) {
            Err(Error::Gone { .. }) => Ok(()),
            Err(other) => Err(other),
            Ok(_) => Err(Error::Silent { peer: Peer::Qemu, command: "quit".to_owned(), waited: patience }),
        }
    }

    /// Waits for the guest's end (power-off, reboot, panic); `None` when it does not come in time.
    pub fn await_end(&mut self, patience: Duration) -> Result<Option<End>, Error> {
        self.await_event(patience, End::of)
    }

    /// Its CPUs.
    pub fn cpus(&mut self) -> Result<Vec<Cpu>, Error> {
        let answer = self.call("query-cpus-fast", Value::Null)?;
        let list = answer.as_array().ok_or_else(|| garbled("query-cpus-fast", &answer))?;
        let cpu = |c: &Value| {
            let index = u32::try_from(c["cpu-index"].as_u64()?).ok()?;
            Some(Cpu { index, thread: i32::try_from(c["thread-id"].as_i64()?).ok()? })
        };
        list.iter().map(|c| cpu(c).ok_or_else(|| garbled("query-cpus-fast", c))).collect()
    }

    /// A line of QEMU's own monitor and what it prints. Nothing is an error there: it prints that as well.
    pub fn monitor(&mut self, line: &str) -> Result<String, Error> {
        let answer = self.call("human-monitor-command", json!({"command-line": line}))?;
        answer.as_str().map(str::to_owned).ok_or_else(|| garbled("human-monitor-command", &answer))
    }

    /// Asks the guest to keep `bytes` of memory and give back the rest.
    pub fn balloon(&mut self, bytes: u64) -> Result<(), Error> {
        self.call("balloon", json!({"value": bytes})).map(drop)
    }

    /// How much memory the guest has now, in bytes.
    pub fn memory(&mut self) -> Result<u64, Error> {
        let answer = self.call("query-balloon", Value::Null)?;
        answer["actual"].as_u64().ok_or_else(|| garbled("query-balloon", &answer))
    }

    /// Writes the guest's memory as an ELF core to an open file, within `patience`.
    pub fn dump(&mut self, file: BorrowedFd<'_>, patience: Duration) -> Result<(), Error> {
        self.lend("dump", file)?;
        let to = json!({"paging": false, "protocol": "fd:dump"});
        self.call_within("dump-guest-memory", to, patience).map(drop)
    }

    /// Gives QEMU an open file under a name, for a command to come.
    pub fn lend(&mut self, name: &str, fd: BorrowedFd<'_>) -> Result<(), Error> {
        self.call_with("getfd", json!({"fdname": name}), fd).map(drop)
    }

    /// Takes back what no command has used. One that is not there is no error.
    pub fn take_back(&mut self, name: &str) {
        let _ = self.call("closefd", json!({"fdname": name}));
    }
}

pub(super) fn garbled(command: &str, answer: &Value) -> Error {
    let answer: String = answer.to_string().chars().take(200).collect();
    Error::Garbled { peer: Peer::Qemu, why: format!("{answer} to '{command}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: Value) -> Event {
        Event { name: name.to_owned(), data, micros: 0 }
    }

    #[test]
    fn ends_are_told_apart() {
        for (name, data, end) in [
            ("SHUTDOWN", json!({"guest": true, "reason": "guest-shutdown"}), Some(End::PowerOff)),
            ("SHUTDOWN", json!({"guest": true, "reason": "guest-reset"}), Some(End::Reboot)),
            ("SHUTDOWN", json!({"guest": false, "reason": "host-signal"}), Some(End::Host)),
            ("SHUTDOWN", json!({"guest": true, "reason": "guest-panic"}), Some(End::Panic)),
            ("GUEST_PANICKED", json!({"action": "pause"}), Some(End::Panic)),
            ("STOP", Value::Null, None),
            ("RESET", json!({"guest": true, "reason": "guest-reset"}), None),
        ] {
            assert_eq!(End::of(&event(name, data)), end, "{name}");
        }
    }
}
