//! `profile`: a command in a running domain, and which programs cost how much meanwhile. What a newcomer would get wrong: the kernel keeps
//! the account, of the guest's whole pid namespace; what the command started is picked out of it by parents. And only a process *in*
//! that namespace with a right over the host's accounting can begin one: a short-lived copy of this program (`__account`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Stdio;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

use super::accel::names::Names;
use super::exec::{self, Command};
use super::hexagon::verbs;
use super::{Ctx, Error, Interrupt, Result};
use crate::domain::DomainRef;
use crate::domain::accounts::{self, Process};
use crate::store::domains::Run;
use crate::sys::acct::{self, Account};
use crate::sys::lock::{self, Lock};
use crate::sys::ns;
use crate::sys::process::Tool;

/// Who runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// This machine itself.
    Native,
    /// The emulator.
    Emulated,
    /// The emulator, where `--accel build` would have this machine do it.
    Avoidable,
}

/// What one program has cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its name, at most 15 bytes.
    pub program: String,
    /// Who ran it.
    pub by: By,
    /// How often it was started.
    pub execs: u64,
    /// How many processes went on with it after a fork, without starting a program.
    pub forks: u64,
    /// CPU time, user's and system's, in seconds.
    pub cpu_seconds: f64,
    /// Its part of the command's.
    pub share: f64,
}

/// What a command has cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// The command's status, as a shell shows it.
    pub status: u8,
    /// Programs, the most expensive first.
    pub programs: Vec<Row>,
    /// How many processes of the command's have ended.
    pub processes: u64,
    /// CPU time of the command and all that it waited for, in seconds.
    pub cpu_seconds: f64,
    /// How much of it the kernel has put down to programs: it counts in ticks of 10 ms, rounded down.
    pub accounted_seconds: f64,
    /// How much of that was native.
    pub native_seconds: f64,
    /// How much of that would be native with `--accel build`.
    pub avoidable_seconds: f64,
    /// What else has ended in the guest meanwhile: services, other commands, what the command left behind.
    pub other_processes: u64,
    /// Its CPU time in seconds.
    pub other_seconds: f64,
    /// The kernel has written everything down.
    pub whole: bool,
}

/// Runs a command in a running domain and tells what it has cost. Errors: as [`exec::exec`]; this kernel keeps no accounts; another
/// profile of this domain is being made.
pub fn profile(ctx: &Ctx, domain: &DomainRef, command: Command) -> Result<Profile> {
    super::need_root("profile")?;
    let mut interrupt = Interrupt::collect()?;
    let domain = exec::enterable(ctx, domain, "no command can be run in it")?;
    let time = format!("pronto exec {} -- time -v COMMAND", domain.name);
    verbs::must_share(&domain, "this host's kernel keeps no account of it", &time)?;
    let run = domain.run.as_ref().ok_or_else(|| Error::general("the domain does not run"))?;
    // A second account would end the first.
    let path = ctx.store.run_dir(&domain.record.uuid).join("profile");
    let held = Lock::try_take(&path).map_err(|e| Error::general("cannot lock the account").because(e))?;
    let Some(_held) = held else {
        let what = format!("another profile of '{}' is being made", domain.name);
        return Err(Error::general(what).hint("wait for its end"));
    };
    let names = Names::of(&domain, command.emulated);
    let cannot = |e: std::io::Error| Error::general("cannot keep an account").because(e);
    let mut account = Account::new().map_err(cannot)?;
    begin(run, &account)?;
    let before = used();
    let (status, pid) = exec::watched(run, command, &mut interrupt)?;
    let cpu_seconds = used() - before;
    let (bytes, whole) = account.read().map_err(cannot)?;
    drop(account);
    let all = accounts::parse(&bytes).map_err(|why| Error::general("cannot read the kernel's account").because(why))?;
    Ok(Profile { status, cpu_seconds, whole, ..sum(&all, pid, &names) })
}

/// CPU time of what this process has started and waited for, in seconds.
fn used() -> f64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0.0, |usage| {
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
    })
}

/// Has the kernel keep the account of a guest.
fn begin(run: &Run, account: &Account) -> Result<()> {
    let failed = |why: String| {
        let error = Error::general("cannot keep an account of the guest's processes").because(why.clone());
        if why.contains("Function not implemented") {
            return error.hint("this kernel was built without CONFIG_BSD_PROCESS_ACCT");
        }
        error
    };
    let copy = ns::sealed_self().map_err(|e| failed(e.to_string()))?;
    let program = format!("/proc/self/fd/{}", copy.as_raw_fd());
    let place = account.place().as_raw_fd();
    let words = [run.leader.to_string(), run.leader_start.to_string(), place.to_string()];
    let mut tool = Tool::new(program).arg("__account").args(&words);
    let command = tool.command();
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    ns::keep_for_child(command, place);
    match tool.output() {
        Ok(_) => Ok(()),
        Err(crate::sys::process::ToolError::Failed { stderr, .. }) => Err(failed(stderr.trim().to_owned())),
        Err(other) => Err(failed(other.to_string())),
    }
}

/// Runs `__account LEADER START PLACE`.
pub fn account(words: &[OsString]) -> u8 {
    let number = |n: usize| words.get(n).and_then(|w| w.to_str()).and_then(|w| w.parse::<u64>().ok());
    let done = (|| {
        let (Some(leader), Some(start), Some(place)) = (number(0), number(1), number(2)) else {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput));
        };
        let leader = i32::try_from(leader).unwrap_or_default();
        let process = ns::pidfd(leader)?;
        if ns::start_time(leader) != Some(start) {
            return Err(std::io::Error::other("the guest has ended"));
        }
        let place = lock::inherited(i32::try_from(place).unwrap_or_default())?;
        acct::begin(process.as_fd(), place.as_fd())
    })();
    match done {
        Ok(()) => 0,
        Err(error) => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), error.to_string().as_bytes());
            1
        }
    }
}

/// Adds up an account by programs.
fn sum(all: &[Process], root: i32, names: &Names) -> Profile {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let mut rows: BTreeMap<(String, By), (u64, u64, u64)> = BTreeMap::new();
    let (mut processes, mut other_processes, mut other) = (0, 0, 0);
    // What only began this account is none of the guest's.
    let own = |process: &Process| process.parent == 0 && process.pid != root && process.forked;
    for (process, is_one) in all.iter().zip(accounts::descendants(all, root)).filter(|(process, _)| !own(process)) {
        if !is_one {
            (other_processes, other) = (other_processes + 1, other + process.micros);
            continue;
        }
        processes += 1;
        let row = rows.entry((process.name.clone(), names.by(process))).or_default();
        *row = (row.0 + u64::from(!process.forked), row.1 + u64::from(process.forked), row.2 + process.micros);
    }
    let whole: u64 = rows.values().map(|row| row.2).sum();
    let part = |wanted: By| seconds(rows.iter().filter(|((_, by), _)| *by == wanted).map(|(_, row)| row.2).sum());
    let (native_seconds, avoidable_seconds) = (part(By::Native), part(By::Avoidable));
    let mut programs: Vec<Row> = rows
        .into_iter()
        .map(|((program, by), (execs, forks, micros))| {
            let share = if whole == 0 { 0.0 } else { micros as f64 / whole as f64 };
            Row { program, by, execs, forks, cpu_seconds: seconds(micros), share }
        })
        .collect();
    programs.sort_by(|a, b| {
        let by_cost = b.cpu_seconds.total_cmp(&a.cpu_seconds);
        by_cost.then(b.execs.cmp(&a.execs)).then_with(|| a.program.cmp(&b.program))
    });
    Profile {
        status: 0,
        programs,
        processes,
        cpu_seconds: 0.0,
        accounted_seconds: seconds(whole),
        native_seconds,
        avoidable_seconds,
        other_processes,
        other_seconds: seconds(other),
        whole: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_added_up() {
        let process = |name: &str, pid, parent, forked, micros| Process {
            name: name.into(),
            pid,
            parent,
            forked,
            micros,
            kib: 200 << 10,
        };
        let all = [
            process("pronto", 3, 0, true, 0),
            process("cc1", 12, 11, false, 900_000),
            process("cron", 30, 1, false, 50_000),
            process("sh", 13, 10, true, 10_000),
            process("gcc", 11, 10, false, 0),
            process("cc1", 14, 10, false, 90_000),
            process("sh", 10, 0, false, 0),
        ];
        let told = sum(&all, 10, &Names::default());
        let rows: Vec<_> = told.programs.iter().map(|row| (row.program.as_str(), row.execs, row.forks)).collect();
        assert_eq!(rows, [("cc1", 2, 0), ("sh", 1, 1), ("gcc", 1, 0)]);
        assert!((told.programs[0].share - 0.99).abs() < 1e-9 && (told.accounted_seconds - 1.0).abs() < 1e-9);
        assert_eq!((told.processes, told.other_processes), (5, 1), "what began the account is nobody's");
        assert!((told.other_seconds - 0.05).abs() < 1e-9);
        assert_eq!(told.programs[0].by, By::Emulated);
        assert_eq!(sum(&[], 10, &Names::default()).programs, []);
    }
}
