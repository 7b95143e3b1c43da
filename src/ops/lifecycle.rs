//! The verbs that move a domain from state to state. What a newcomer would get wrong: asking a guest to stop and waiting for
//! it are two things; the monitor keeps the deadline, so a guest that ignores the request is killed even when the verb that
//! asked is long gone.

use std::time::{Duration, Instant};

use super::control::Line;
use super::create::{self, Create, Created};
use super::monitor::Begin;
use super::{
    Ctx, Error, Interrupt, Kind, Result, accel, facts, hexagon, inspect, interpreter, isolation, registry, reserve,
    sweep,
};
use crate::domain::{Accel, DomainRef, Name, State};
use crate::monitor::{Event, How, Request};
use crate::store::domains::Domain;
use crate::sys::ns;

/// Which domains a verb is for.
#[derive(Debug, Clone)]
pub enum Which {
    /// `-a`.
    All,
    /// By name or domid.
    These(Vec<DomainRef>),
}

/// How long a guest may take to stop before it is killed.
fn patience(domain: &Domain, timeout: Option<Duration>) -> Duration {
    timeout.unwrap_or(Duration::from_secs(if domain.record.is_translated() { 180 } else { 90 }))
}

pub(super) fn begin(ctx: &Ctx, verb: &str) -> Result<()> {
    super::need_root(verb)?;
    ctx.store.open()?;
    sweep::sweep(ctx)
}

fn find(ctx: &Ctx, which: &DomainRef) -> Result<Domain> {
    ctx.store.resolve(which)?.ok_or_else(|| Error::no_domain(which))
}

/// A domain that runs: a shut-off one is as a missing one here, as in xl.
pub(super) fn find_active(ctx: &Ctx, which: &DomainRef) -> Result<Domain> {
    Some(find(ctx, which)?).filter(|d| d.state != State::ShutOff).ok_or_else(|| Error::no_domain(which))
}

fn chosen(ctx: &Ctx, which: &Which) -> Result<Vec<Domain>> {
    match which {
        Which::These(refs) => refs.iter().map(|r| find_active(ctx, r)).collect(),
        Which::All => {
            let mut all = ctx.store.all_domains(|_| ())?;
            all.retain(|d| d.state == State::Running);
            Ok(all)
        }
    }
}

fn must_hear(domain: &Domain, cannot: &str) -> Result<()> {
    let name = domain.name.as_str();
    if domain.state.can_ask() {
        return Ok(());
    }
    let hint = match domain.state {
        State::Paused => format!("let it go on first: pronto unpause {name}; or end it now: pronto destroy {name}"),
        _ => format!("wait for it, or end it now: pronto destroy {name}"),
    };
    Err(Error::state(name, domain.state, cannot, &hint))
}

/// Asks guests to power off; with `wait` returns when everything of them is gone (killed after the time-out).
pub fn shutdown(ctx: &Ctx, which: &Which, wait: bool, timeout: Option<Duration>) -> Result<()> {
    begin(ctx, "shutdown")?;
    let mut interrupt = Interrupt::collect()?;
    let domains = chosen(ctx, which)?;
    domains.iter().try_for_each(|d| must_hear(d, "it cannot be shut down"))?;
    let mut lines = Vec::new();
    for domain in domains {
        let id = domain.domid().unwrap_or_default();
        ctx.report.note(&format!("Shutting down domain {id}"));
        let mut line = Line::open(ctx, &domain)?;
        let limit = patience(&domain, timeout);
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        line.ask(&Request::Stop { how: How::Poweroff, millis })?;
        lines.push((id, line, limit));
    }
    if !wait || lines.is_empty() {
        return Ok(());
    }
    ctx.report.note(&format!("Waiting for {} domains", lines.len()));
    for (id, line, limit) in lines {
        // The monitor kills at the limit; what follows is its cleaning up.
        if !line.wait_gone(limit + Duration::from_secs(30), &mut interrupt)? {
            return Err(Error::general(format!("domain {id} did not go")).hint(format!("pronto destroy {id}")));
        }
        ctx.report.note(&format!("Domain {id} has been shut down, reason code 0"));
    }
    Ok(())
}

/// Asks guests to reboot; with `wait` returns when they are ready again.
pub fn reboot(ctx: &Ctx, which: &Which, wait: bool, timeout: Option<Duration>) -> Result<()> {
    begin(ctx, "reboot")?;
    let mut interrupt = Interrupt::collect()?;
    let domains = chosen(ctx, which)?;
    domains.iter().try_for_each(|d| must_hear(d, "it cannot be rebooted"))?;
    let mut lines = Vec::new();
    for domain in domains {
        ctx.report.note(&format!("Rebooting domain {}", domain.domid().unwrap_or_default()));
        let mut line = Line::open(ctx, &domain)?;
        if wait {
            line.ask(&Request::Watch)?;
        }
        let limit = patience(&domain, timeout);
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        line.ask(&Request::Stop { how: How::Reboot, millis })?;
        lines.push((domain, line, limit));
    }
    for (domain, mut line, limit) in lines.into_iter().filter(|_| wait) {
        let boot = Duration::from_secs(if domain.record.is_translated() { 600 } else { 120 });
        let deadline = Instant::now() + limit + boot;
        loop {
            match line.next(deadline, &mut interrupt)? {
                Some(Event::Ready) => break,
                Some(Event::Ended { how }) => {
                    return Err(Error::general(format!(
                        "domain '{}' ended ({how}) and did not come back",
                        domain.name
                    )));
                }
                Some(_) => {}
                None => return Err(Error::general(format!("domain '{}' did not come back in time", domain.name))),
            }
        }
    }
    Ok(())
}

/// Ends a running domain now, paused or wedged. A shut-off one is an error, as for a missing one.
pub fn destroy(ctx: &Ctx, domain: &DomainRef) -> Result<()> {
    begin(ctx, "destroy")?;
    let mut interrupt = Interrupt::collect()?;
    let domain = find_active(ctx, domain)?;
    let pidfd = domain.run.as_ref().and_then(|r| ns::pidfd(r.monitor).ok());
    let asked = Line::open(ctx, &domain).and_then(|mut line| {
        line.ask(&Request::Stop { how: How::Kill, millis: 0 })?;
        line.wait_gone(Duration::from_secs(20), &mut interrupt)
    });
    match asked {
        Ok(true) => return Ok(()),
        Err(e) if matches!(e.kind(), Kind::Interrupted(_)) => return Err(e),
        _ => {}
    }
    // The monitor is wedged, has no socket, or died between our looking and asking.
    if let Some(run) = &domain.run {
        run.cage.kill();
    }
    if let Some(pidfd) = &pidfd {
        // A `run` has no monitor: its command cleans up by itself when what it waits for is gone.
        let _ = crate::sys::sock::poll(&[(std::os::fd::AsFd::as_fd(pidfd), false)], 5000);
        let _ = ns::signal_pidfd(pidfd, libc::SIGKILL);
        let _ = crate::sys::sock::poll(&[(std::os::fd::AsFd::as_fd(pidfd), false)], 5000);
    }
    sweep::sweep(&Ctx { report: std::sync::Arc::new(crate::domain::Quiet), ..ctx.clone() })?;
    match ctx.store.load(domain.name.as_str())? {
        Some(left) if left.state.is_active() && left.record.uuid == domain.record.uuid => {
            Err(Error::general(format!("cannot destroy domain '{}': it is still {}", domain.name, left.state)))
        }
        _ => Ok(()),
    }
}

/// Freezes a domain.
pub fn pause(ctx: &Ctx, domain: &DomainRef) -> Result<()> {
    freeze(ctx, domain, true, "pause")
}

/// Thaws a domain.
pub fn unpause(ctx: &Ctx, domain: &DomainRef) -> Result<()> {
    freeze(ctx, domain, false, "unpause")
}

fn freeze(ctx: &Ctx, domain: &DomainRef, frozen: bool, verb: &str) -> Result<()> {
    begin(ctx, verb)?;
    let domain = find_active(ctx, domain)?;
    if !(if frozen { domain.state.can_pause() } else { domain.state.can_unpause() }) {
        let cannot = format!("it cannot be {verb}d");
        return Err(Error::state(domain.name.as_str(), domain.state, &cannot, "wait for it"));
    }
    let Some(run) = &domain.run else { return Err(Error::no_domain(&domain.name.as_str().into())) };
    if hexagon::verbs::is_ours(&domain) {
        return hexagon::verbs::freeze(ctx, &domain, frozen);
    }
    run.cage.freeze(frozen).map_err(|e| Error::general(format!("cannot {verb} domain '{}'", domain.name)).because(e))
}

/// Makes a domain without starting it (xm's `new`).
#[expect(clippy::needless_pass_by_value, reason = "the front hands its request over")]
pub fn new(ctx: &Ctx, what: Create) -> Result<Name> {
    let mut interrupt = Interrupt::collect()?;
    reserve::reserve(ctx, &what, reserve::Purpose::Boot, &mut interrupt)?.keep()
}

/// How a shut-off domain is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Wait until it is ready.
    pub wait: bool,
    /// For so long; `None`: 120 s, 600 s for an emulated guest.
    pub timeout: Option<Duration>,
    /// Leave it paused.
    pub paused: bool,
    /// From now on, which of its programs are native.
    pub accel: Option<Accel>,
}

/// Starts a shut-off domain.
pub fn start(ctx: &Ctx, domain: &DomainRef, how: Start) -> Result<Created> {
    begin(ctx, "start")?;
    let mut interrupt = Interrupt::collect()?;
    let mut domain = find(ctx, domain)?;
    if !domain.state.can_start() {
        let name = domain.name.as_str();
        let hint = format!("see it with: pronto list {name}");
        return Err(Error::state(name, domain.state, "it cannot be started", &hint));
    }
    let lock = ctx.store.lock_run(&domain.name, &domain.record)?;
    if let Some(accel) = how.accel {
        domain.record.spec.accel = accel;
    }
    let begin = if how.paused { Begin::Paused } else { Begin::Run };
    let ready = prepare_again(ctx, &mut domain);
    let booting = ready.and_then(|()| create::start(ctx, &domain.name, &domain.record, &lock, &begin, &mut interrupt));
    let booting = booting.inspect_err(|_| drop(ctx.store.remove_run(&domain.record.uuid)))?;
    drop(lock);
    let limit = how.timeout.unwrap_or(Duration::from_secs(if booting.emulated { 600 } else { 120 }));
    booting.finish(ctx, how.wait && !how.paused, how.paused, false, limit, &mut interrupt)
}

/// The host may have been rebooted, or its interpreter upgraded, since the domain last ran.
fn prepare_again(ctx: &Ctx, domain: &mut Domain) -> Result<()> {
    let profiles = registry::profiles()?;
    if domain.record.hardware.is_some() {
        hexagon::prepare::again(ctx, &mut domain.record, &profiles)?;
        return Ok(ctx.store.write_record(&domain.name, &domain.record)?);
    }
    let facts = facts::of(ctx, &domain.record.artifact, &profiles)?;
    inspect::check(&facts, profiles.find(&domain.record.arch).ok())?;
    let Some(profile) = facts.profile.as_deref().and_then(|p| profiles.find(p).ok()) else { return Ok(()) };
    domain.record.init = facts.init.as_ref().map(|i| i.kind).unwrap_or_default();
    let isolation = isolation::decide(ctx, &domain.record.spec, &domain.record.artifact)?;
    domain.record.userns = isolation.userns;
    let spec = &domain.record.spec;
    let mut by = interpreter::ensure(ctx, &profiles, profile, &facts, spec, isolation.private)?;
    if let Some(by) = &mut by {
        // What it resets depends on the interpreter's version, too.
        let dir = &ctx.store.domain(domain.name.as_str());
        by.layer = interpreter::write_layer(&dir.join("emulation"), &facts, by)?;
        let artifact = &domain.record.artifact;
        let wish = accel::Wish {
            spec,
            asked: accel::Asked::default(),
            mirror: None,
            artifact,
            facts: &facts,
            profile,
            by,
            dir,
        };
        by.native = accel::prepare(ctx, &wish)?;
    }
    domain.record.emulated = by;
    Ok(ctx.store.write_record(&domain.name, &domain.record)?)
}

/// Removes a shut-off domain, its name and its disk.
pub fn delete(ctx: &Ctx, domain: &DomainRef) -> Result<()> {
    begin(ctx, "delete")?;
    let domain = find(ctx, domain)?;
    let name = domain.name.as_str();
    if !domain.state.can_delete() {
        let hint = format!("end it first: pronto destroy {name}");
        return Err(Error::state(name, domain.state, "it cannot be deleted", &hint));
    }
    let lock = ctx.store.lock_run(&domain.name, &domain.record)?;
    ctx.store.remove_domain(&domain.name, &domain.record.uuid)?;
    drop(lock);
    Ok(())
}

/// Gives a domain another name.
pub fn rename(ctx: &Ctx, domain: &DomainRef, to: &Name) -> Result<()> {
    begin(ctx, "rename")?;
    let domain = find(ctx, domain)?;
    if !domain.state.can_rename() {
        return Err(Error::state(domain.name.as_str(), domain.state, "it cannot be renamed", "wait for it"));
    }
    let _held = ctx.store.hold()?;
    let (from, to_path) = (ctx.store.domain(domain.name.as_str()), ctx.store.domain(to.as_str()));
    if std::fs::symlink_metadata(&to_path).is_ok() {
        return Err(crate::store::Error::NameInUse(to.to_string()).into());
    }
    std::fs::rename(&from, &to_path)
        .map_err(|e| Error::general(format!("cannot rename domain '{}'", domain.name)).because(e))
}
