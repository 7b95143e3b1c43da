//! The states of a domain and what may be done in each.
//!
//! ```text
//! (absent) --create--> building --> running <--unpause-- paused
//!                         |            |  '--pause---------^
//!                         | fails      | shutdown / power-off inside / destroy / crash
//!                         v            v
//!                      (absent)     shut off --start--> running      delete --> (absent)
//! ```
//!
//! What a newcomer would get wrong: a state is never stored; it is what the kernel says now (who holds the domain's lock,
//! what its cgroup is), so that `list` is true at any time.

use std::fmt;

use serde::Serialize;

/// Where a domain is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Being made: only its creator may touch it.
    Building,
    /// Its init runs.
    Running,
    /// It stands still: its cgroup is frozen, or its CPUs are stopped.
    Paused,
    /// It was asked to stop, or is being cleaned up.
    Stopping,
    /// It ended badly, and is not cleaned up yet or was to be kept.
    Crashed,
    /// It has a disk and does not run.
    ShutOff,
}

impl State {
    /// Whether there is something running that a user can reach by domid.
    pub fn is_active(self) -> bool {
        !matches!(self, State::ShutOff | State::Building)
    }
    /// `start`.
    pub fn can_start(self) -> bool {
        self == State::ShutOff
    }
    /// `shutdown`, `reboot`: the guest must be able to hear it.
    pub fn can_ask(self) -> bool {
        self == State::Running
    }
    /// `exec`, `cp` into the running guest, `console` with input.
    pub fn can_enter(self) -> bool {
        matches!(self, State::Running | State::Stopping)
    }
    /// `pause`; pausing twice is fine, as in xl.
    pub fn can_pause(self) -> bool {
        matches!(self, State::Running | State::Paused)
    }
    /// `unpause`; one that runs is fine, as in xl.
    pub fn can_unpause(self) -> bool {
        matches!(self, State::Running | State::Paused)
    }
    /// `destroy` works on everything that runs, paused or wedged.
    pub fn can_destroy(self) -> bool {
        self.is_active()
    }
    /// `delete`.
    pub fn can_delete(self) -> bool {
        self == State::ShutOff
    }
    /// `rename`.
    pub fn can_rename(self) -> bool {
        matches!(self, State::Running | State::Paused | State::ShutOff)
    }
    /// xl's six columns `rbpsXd` (running, blocked, paused, shutdown, why, dying).
    pub fn columns(self) -> &'static str {
        match self {
            State::Building => "------",
            State::Running => "-b----",
            State::Paused => "--p---",
            State::Stopping | State::ShutOff => "---s--",
            State::Crashed => "---sc-",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Building => "being created",
            State::Running => "running",
            State::Paused => "paused",
            State::Stopping => "stopping",
            State::Crashed => "crashed",
            State::ShutOff => "shut off",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::State::{self, *};

    #[test]
    fn who_may_do_what() {
        // state, start, ask, enter, pause, unpause, destroy, delete, rename
        let table: [(State, [bool; 8]); 6] = [
            (Building, [false, false, false, false, false, false, false, false]),
            (Running, [false, true, true, true, true, true, false, true]),
            (Paused, [false, false, false, true, true, true, false, true]),
            (Stopping, [false, false, true, false, false, true, false, false]),
            (Crashed, [false, false, false, false, false, true, false, false]),
            (ShutOff, [true, false, false, false, false, false, true, true]),
        ];
        for (s, want) in table {
            let got = [
                s.can_start(),
                s.can_ask(),
                s.can_enter(),
                s.can_pause(),
                s.can_unpause(),
                s.can_destroy(),
                s.can_delete(),
                s.can_rename(),
            ];
            assert_eq!(got, want, "{s:?}");
        }
    }
}
