//! Verbs that reach QEMU itself, over the control socket that is for them. What a newcomer would get wrong: who has stopped a guest knows it before
//! the monitor has heard of it and written it down; so the verb waits for that, for the next one reads what is written.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{VERBS, because};
use crate::backend::hexagon::qemu::qmp::{PATIENCE, Qmp};
use crate::domain::DomainRef;
use crate::ops::{Ctx, Error, Result, lifecycle};
use crate::store::domains::{Domain, Run};
use crate::sys::sock;
use crate::sys::unfinished::{self, Unfinished};

/// How long the monitor may take to hear what QEMU has done.
const HEARING: Duration = Duration::from_secs(5);
/// How long the disk may take for a guest's memory.
const DUMPING: Duration = Duration::from_secs(3600);

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

/// Errors: the domain has a kernel of its own, so what runs it on this host is not the guest: QEMU's files and namespaces are none of the
/// guest's. `cannot` as in [`Error::state`].
pub fn must_share(domain: &Domain, cannot: &str, hint: &str) -> Result<()> {
    if domain.record.hardware.is_none() {
        return Ok(());
    }
    Err(Error::general(format!("domain '{}' has a kernel of its own: {cannot}", domain.name)).hint(hint))
}

/// A talk with a domain's QEMU. Errors: it hangs, or has just ended.
pub fn talk(ctx: &Ctx, domain: &Domain) -> Result<Qmp> {
    let what = || format!("cannot reach the QEMU of domain '{}'", domain.name);
    let stream = sock::connect(&ctx.store.run_dir(&domain.record.uuid), VERBS).map_err(because(what))?;
    Qmp::greeted(stream, PATIENCE).map_err(because(what))
}

/// Stops a guest's CPUs, or lets them go on.
pub fn freeze(ctx: &Ctx, domain: &Domain, frozen: bool) -> Result<()> {
    let verb = if frozen { "pause" } else { "unpause" };
    let mut qmp = talk(ctx, domain)?;
    let done = if frozen { qmp.stop() } else { qmp.cont() };
    done.map_err(because(|| format!("cannot {verb} domain '{}'", domain.name)))?;
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

/// A running domain with a kernel of its own, for a verb; `cannot` is said of one that has none.
pub fn active(ctx: &Ctx, verb: &str, which: &DomainRef, cannot: &str) -> Result<Domain> {
    lifecycle::begin(ctx, verb)?;
    let domain = lifecycle::find_active(ctx, which)?;
    must_be_ours(&domain, cannot)?;
    Ok(domain)
}

/// A line of QEMU's own monitor, and what it says.
pub fn monitor_command(ctx: &Ctx, which: &DomainRef, line: &str) -> Result<String> {
    let domain = &active(ctx, "qemu-monitor-command", which, "it has no QEMU to talk to")?;
    talk(ctx, domain)?.monitor(line).map_err(because(|| format!("QEMU does not do that for '{}'", domain.name)))
}

/// What can be pulled in a machine (xl's `trigger`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// An interrupt that cannot be masked.
    Nmi,
    /// The reset button: the guest is not asked.
    Reset,
    /// The power button.
    Power,
}

/// Pulls it. Errors: as QEMU says; not every machine has everything.
pub fn trigger(ctx: &Ctx, which: &DomainRef, what: Trigger) -> Result<()> {
    let domain = &active(ctx, "trigger", which, "it has no buttons")?;
    let mut qmp = talk(ctx, domain)?;
    let done = match what {
        Trigger::Nmi => qmp.call("inject-nmi", serde_json::Value::Null).map(drop),
        Trigger::Reset => qmp.reset(),
        Trigger::Power => qmp.powerdown(),
    };
    done.map_err(because(|| format!("cannot do that to '{}'", domain.name)))
}

/// Writes a guest's memory as an ELF core, while it stands still. Errors: the file; as QEMU says. No half of a file is left.
pub fn dump_core(ctx: &Ctx, which: &DomainRef, path: &Path) -> Result<()> {
    let domain = &active(ctx, "dump-core", which, "its processes are this host's: gcore writes the core of one")?;
    let what = || format!("cannot write the memory of '{}' to {}", domain.name, path.display());
    unfinished::sweep(path);
    let (unfinished, file) = Unfinished::file(path, 0o600).map_err(because(what))?;
    let step = ctx.report.begin(&format!("writing the memory of {}", domain.name), None);
    talk(ctx, domain)?.dump(file.as_fd(), DUMPING).map_err(because(what))?;
    unfinished.publish(&file, path, true).map_err(because(what))?;
    step.done(&format!("wrote the memory of {}", domain.name));
    Ok(())
}

/// Asks a guest to keep so many bytes of memory and give back the rest; it may get them again. Errors: more than its machine has.
pub fn set_memory(ctx: &Ctx, which: &DomainRef, bytes: u64) -> Result<()> {
    let domain = &active(ctx, "mem-set", which, "memory= is said when it is made")?;
    let spec = &domain.record.spec;
    let most = spec.maxmem.unwrap_or(0).max(spec.memory.unwrap_or(super::MEMORY));
    if bytes > most {
        let what = format!("'{}' has {} MiB at most", domain.name, most >> 20);
        return Err(Error::general(what).hint("say maxmem= when the domain is made"));
    }
    let what = || format!("cannot change the memory of '{}'", domain.name);
    talk(ctx, domain)?.balloon(bytes).map_err(because(what))?;
    super::devices::change(ctx, domain, |record| {
        record.spec.maxmem = Some(most);
        record.spec.memory = Some(bytes);
    })
}
