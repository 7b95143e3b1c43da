//! The part of the cgroup tree that commands without a monitor may write to (`run`, and what installs packages). What a newcomer
//! would get wrong: where systemd is PID 1 the tree is its own, and a directory beside its units would be a second writer's: systemd
//! turns controllers on and off above it, and stops nothing in it when the host goes down. So it lends us a unit.
//!
//! A scope for each command, as domains have it, would cost what asking systemd costs (tens of milliseconds) each time, where
//! starting the command takes ten. So there is one unit for all of them: a service of type `oneshot` that has long done its
//! nothing and `RemainAfterExit`s, with `Delegate=yes`. The first command of a boot has it made, all others find its directory,
//! which systemd keeps as long as the unit is active. Stopping the unit ends every command in it, and shutting down stops it.
//! Source: <https://systemd.io/CGROUP_DELEGATION/>, systemd.resource-control(5).

use std::path::Path;

use super::{Error, Result};
use crate::sys::cgroup::Hierarchies;
use crate::sys::host;
use crate::sys::process::Tool;

/// The unit.
const UNIT: &str = "pronto-run.service";
/// Where units of guests lie.
const SLICE: &str = "machine.slice";

/// The hierarchies as they are for us: the v2 tree begins at what systemd has lent us, where it is PID 1. Errors: it does not lend.
pub fn hierarchies() -> Result<Hierarchies> {
    let mut here = Hierarchies::here();
    if let (true, Some(v2)) = (host::systemd_is_init(), &here.v2) {
        here.v2 = Some(v2.join(SLICE).join(UNIT));
        if let Some(lent) = here.v2.as_deref().filter(|lent| !lent.is_dir()) {
            borrow(lent)?;
        }
    }
    Ok(here)
}

fn borrow(lent: &Path) -> Result<()> {
    let asked = Tool::new("systemd-run")
        .args(["--quiet", "--collect", "--service-type=oneshot", "--remain-after-exit"])
        .args([format!("--unit={UNIT}"), format!("--slice={SLICE}")])
        .arg("--description=Commands in throw-away domains of pronto")
        // One command that uses up its memory, or many processes in one, are not the others' business.
        .args(["--property=Delegate=yes", "--property=OOMPolicy=continue", "--property=TasksMax=infinity"])
        .args(["--", "true"])
        .output();
    // Somebody else may have asked at the same time, and got it: that refusal of the name is none.
    for _ in 0..1000 {
        if lent.is_dir() {
            return Ok(());
        }
        if asked.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let failed = Error::general("systemd lends no part of the cgroup tree for the command");
    Err(match asked {
        Err(why) => failed.because(why),
        Ok(_) => failed.because(format!("{} is not there although {UNIT} was started", lent.display())),
    })
}
