//! The part of the cgroup tree that commands without a monitor may write to (`run`, and what installs packages). What a newcomer
//! would get wrong: where systemd is PID 1 the tree is its own, and a directory beside its units would be a second writer's: systemd
//! turns controllers on and off above it, and stops nothing in it when the host goes down. So it lends us a unit.
//!
//! A scope for each command, as domains have it, would cost what asking systemd costs (tens of milliseconds) each time, where
//! starting the command takes ten. So there is one unit for all of them, which the first command has made and the others find. As
//! systemd removes the cgroup of a unit in which nobody runs, somebody does: the keeper (`__keeper`), who ends, and the unit with
//! it, when there has been no command for a while. A command holds a lock, shared, until it has a cgroup of its own there; the
//! keeper goes under the same lock, so that no command begins in a unit that is being stopped.
//! Source: <https://systemd.io/CGROUP_DELEGATION/>, systemd.resource-control(5).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Error, Result};
use crate::sys::cgroup::{self, Hierarchies};
use crate::sys::host;
use crate::sys::lock::Lock;
use crate::sys::process::Tool;

/// The unit.
const UNIT: &str = "pronto-run.service";
/// Where units of guests lie.
const SLICE: &str = "machine.slice";
/// Where the keeper is, below the unit: nobody may be in the unit's own cgroup once controllers are on below it (cgroup-v2.rst, "No
/// Internal Process Constraint").
const KEEPER: &str = "keeper";
/// Where it is once it has given its place up, until its process has ended.
const LEAVING: &str = "leaving";
/// The lock. One per host, as the unit is, whatever the store.
const LOCK: &str = "/run/pronto/run.lock";
/// How long systemd may take to start the unit, or to be through with the one before.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long there is no command before the keeper ends.
const IDLE: Duration = Duration::from_secs(15);

/// The hierarchies as they are for us; what is made in them is safe as long as this is held.
#[derive(Debug)]
pub struct Lent {
    /// The v2 tree begins at what systemd has lent us, where it is PID 1.
    pub hierarchies: Hierarchies,
    _lock: Option<Lock>,
}

/// Borrows what is not lent yet. Errors: systemd does not lend.
pub fn borrow() -> Result<Lent> {
    let mut here = Hierarchies::here();
    let (true, Some(v2)) = (host::systemd_is_init(), &here.v2) else {
        return Ok(Lent { hierarchies: here, _lock: None });
    };
    let lent = v2.join(SLICE).join(UNIT);
    let lock = Path::new(LOCK);
    let lock = crate::sys::fs::private_dir(lock.parent().unwrap_or(lock)).and_then(|()| Lock::share(lock));
    let lock = lock.map_err(|e| Error::general(format!("cannot lock {LOCK}")).because(e))?;
    wait_for(&lent)?;
    here.v2 = Some(lent);
    Ok(Lent { hierarchies: here, _lock: Some(lock) })
}

/// Waits until the unit is there and kept, and has it made when it is not. Errors: systemd refuses, or takes too long.
fn wait_for(lent: &Path) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut refused: Option<String> = None;
    let mut asked = false;
    while !is_kept(lent) {
        if Instant::now() > end {
            let failed = Error::general("systemd lends no part of the cgroup tree for the command");
            let why = refused.unwrap_or_else(|| format!("{UNIT} was started, but is not in {}", lent.display()));
            return Err(failed.because(why));
        }
        if !asked {
            // A refusal may be one of the name alone: somebody else has just asked, or the unit before is still being stopped.
            refused = ask(lent).err();
            asked = refused.is_none();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Has systemd make the unit. Errors: its refusal, in its words.
fn ask(lent: &Path) -> std::result::Result<(), String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let asked = Tool::new("systemd-run")
        .args(["--quiet", "--collect", "--service-type=exec"])
        .args([format!("--unit={UNIT}"), format!("--slice={SLICE}")])
        .arg("--description=Commands in throw-away domains of pronto")
        // One command that uses up its memory, or many processes in one, are not the others' business.
        .args(["--property=Delegate=yes", "--property=OOMPolicy=continue", "--property=TasksMax=infinity"])
        .arg("--")
        .args([own.as_path(), Path::new("__keeper"), lent])
        .output();
    asked.map(drop).map_err(|e| e.to_string())
}

/// Whether the keeper is in its place.
fn is_kept(lent: &Path) -> bool {
    fs::read(lent.join(KEEPER).join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty())
}

/// `pronto __keeper DIR`: keeps the unit whose cgroup is DIR until there has been no command for a while. Returns the exit status.
pub fn keeper(words: &[OsString]) -> u8 {
    let [lent] = words else { return 1 };
    match keep(Path::new(lent)) {
        Ok(()) => 0,
        Err(why) => {
            let _ = io::Write::write_all(&mut io::stderr(), format!("E: {why}\n").as_bytes());
            1
        }
    }
}

/// Returns when the unit may end. Errors: as writing `cgroup.procs`, fcntl(2), rmdir(2).
fn keep(lent: &Path) -> io::Result<()> {
    cgroup::move_self(&lent.join(KEEPER)).map_err(io::Error::other)?;
    let mut since = Instant::now();
    loop {
        std::thread::sleep(IDLE / 5);
        if in_use(lent) {
            since = Instant::now();
        }
        if since.elapsed() < IDLE {
            continue;
        }
        let Some(_lock) = Lock::try_take(Path::new(LOCK))? else { continue };
        if !in_use(lent) {
            // Nobody is kept here any more, for all who come next: they wait for the unit to be gone, and have it made anew.
            cgroup::move_self(&lent.join(LEAVING)).map_err(io::Error::other)?;
            return fs::remove_dir(lent.join(KEEPER));
        }
    }
}

/// Whether a command has a cgroup there.
fn in_use(lent: &Path) -> bool {
    let entries = fs::read_dir(lent).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).any(|e| e.file_name() != KEEPER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::write_volatile;

    #[test]
    fn only_a_keeper_keeps_and_every_other_directory_is_a_use() {
        let dir = tempfile::tempdir().unwrap();
        let lent = dir.path();
        assert!(!is_kept(lent));
        fs::create_dir(lent.join(KEEPER)).unwrap();
        let pids = lent.join(KEEPER).join("cgroup.procs");
        write_volatile(&pids, b"", 0o644).unwrap();
        write_volatile(&lent.join("cgroup.events"), b"", 0o644).unwrap();
        assert!(!is_kept(lent) && !in_use(lent));
        write_volatile(&pids, b"17\n", 0o644).unwrap();
        assert!(is_kept(lent));
        fs::create_dir(lent.join("pronto")).unwrap();
        assert!(in_use(lent));
    }
}
