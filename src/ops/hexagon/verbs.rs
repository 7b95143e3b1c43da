//! Verbs that reach QEMU itself, over the control socket that is for them. What a newcomer would get wrong: who has stopped a guest knows it before
//! the monitor has heard of it and written it down; so the verb waits for that, for the next one reads what is written.

use std::time::{Duration, Instant};

use super::VERBS;
use crate::backend::hexagon::qemu::qmp::{PATIENCE, Qmp};
use crate::domain::DomainRef;
use crate::ops::{Ctx, Error, Result, sweep};
use crate::store::domains::{Domain, Run};
use crate::sys::sock;

/// How long the monitor may take to hear what QEMU has done.
const HEARING: Duration = Duration::from_secs(5);

/// Whether a domain runs on QEMU.
pub fn is_ours(domain: &Domain) -> bool {
    domain.run.as_ref().is_some_and(|run| run.backend == "qemu")
}

/// Errors: the domain shares the host's kernel, so there is nothing that could do this; `cannot` as in [`Error::state`].
pub fn must_be_ours(domain: &Domain, cannot: &str) -> Result<()> {
    if is_ours(domain) {
        return Ok(());
    }
    let what = format!("domain '{}' shares this host's kernel: {cannot}", domain.name);
    Err(Error::general(what).hint("pronto create --backend hexagon makes domains with a kernel of their own"))
}

/// A talk with a domain's QEMU. Errors: it hangs, or has just ended.
pub fn talk(ctx: &Ctx, domain: &Domain) -> Result<Qmp> {
    let cannot = || Error::general(format!("cannot reach the QEMU of domain '{}'", domain.name));
    let stream = sock::connect(&ctx.store.run_dir(&domain.record.uuid), VERBS).map_err(|e| cannot().because(e))?;
    Qmp::greeted(stream, PATIENCE).map_err(|e| cannot().because(e.to_string()))
}

/// Stops a guest's CPUs, or lets them go on.
pub fn freeze(ctx: &Ctx, domain: &Domain, frozen: bool) -> Result<()> {
    let verb = if frozen { "pause" } else { "unpause" };
    let mut qmp = talk(ctx, domain)?;
    let done = if frozen { qmp.stop() } else { qmp.cont() };
    done.map_err(|e| Error::general(format!("cannot {verb} domain '{}'", domain.name)).because(e.to_string()))?;
    written(ctx, domain, |run| run.paused == frozen);
    Ok(())
}

/// Waits until the monitor has written something down.
fn written(ctx: &Ctx, domain: &Domain, is: impl Fn(&Run) -> bool) {
    let end = Instant::now() + HEARING;
    while Instant::now() < end && ctx.store.read_run(&domain.record.uuid).is_some_and(|run| !is(&run)) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A running domain with a kernel of its own; `cannot` is said of one that has none.
pub fn active(ctx: &Ctx, which: &DomainRef, cannot: &str) -> Result<Domain> {
    crate::ops::need_root("this")?;
    ctx.store.open()?;
    sweep::sweep(ctx)?;
    let domain = ctx.store.resolve(which)?.filter(|d| d.state.is_active());
    let domain = domain.ok_or_else(|| Error::no_domain(which))?;
    must_be_ours(&domain, cannot)?;
    Ok(domain)
}

/// A line of QEMU's own monitor, and what it says.
pub fn monitor_command(ctx: &Ctx, which: &DomainRef, line: &str) -> Result<String> {
    let domain = &active(ctx, which, "it has no QEMU to talk to")?;
    let failed = |e: &dyn std::fmt::Display| {
        Error::general(format!("QEMU does not do that for '{}'", domain.name)).because(e.to_string())
    };
    talk(ctx, domain)?.monitor(line).map_err(|e| failed(&e))
}
