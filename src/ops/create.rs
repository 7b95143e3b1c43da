//! `create`: from an image to a running domain. What a newcomer would get wrong: until the hand-over the domain is marked as
//! being built and its monitor ends with its starter, so a create that fails, or is killed, leaves nothing. What exists on
//! disk before that is made by [`super::reserve`].

use std::time::{Duration, Instant};

use super::doctor::watches;
use super::monitor::{Begin, Starter, spawn};
use super::reserve::{Purpose, Reserved, reserve};
use super::{Ctx, Error, Interrupt, Kind, Result};
use crate::domain::{Name, Spec};
use crate::monitor::{Event, log};
use crate::store::domains::Record;
use crate::sys::lock::Lock;

/// What was asked of `create`.
#[derive(Debug, Clone)]
pub struct Create {
    /// The domain's name; made from the image when none was given.
    pub name: Option<Name>,
    /// What it shall be.
    pub spec: Spec,
    /// Replace a shut-off domain of this name.
    pub replace: bool,
    /// Wait until the guest is ready.
    pub wait: bool,
    /// How long to wait; 120 s native and 600 s emulated when it is none.
    pub timeout: Option<Duration>,
    /// Keep a domain that was not ready in time.
    pub keep: bool,
    /// Leave it paused.
    pub paused: bool,
    /// What was said for this domain of how much of it shall be native; else that is what holds for all.
    pub accel_asked: super::accel::Asked,
    /// Where Debian and Ubuntu packages come from (`--mirror`, `PRONTO_MIRROR`).
    pub mirror: Option<String>,
    /// Packages that a system made from packages holds besides (`--include`), sorted, each once.
    pub include: Vec<String>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Created {
    /// The domain.
    pub name: Name,
    /// Its domid.
    pub domid: u32,
    /// Units that failed in the guest (empty when it was not waited for).
    pub failed_units: Vec<String>,
}

/// Makes and starts a domain. Errors: [`super::Kind::Create`] in general; nothing is left behind.
#[expect(clippy::needless_pass_by_value, reason = "the front hands its request over")]
pub fn create(ctx: &Ctx, what: Create) -> Result<Created> {
    let mut interrupt = Interrupt::collect()?;
    let booting = boot(ctx, &what, &mut interrupt)?;
    let limit = what.timeout.unwrap_or(Duration::from_secs(if booting.emulated { 600 } else { 120 }));
    booting.finish(ctx, what.wait && !what.paused, what.paused, what.keep, limit, &mut interrupt)
}

/// A domain whose guest has just been started and that still ends with us.
#[derive(Debug)]
pub struct Booting {
    /// Its name.
    pub name: Name,
    /// Its identity.
    pub uuid: String,
    /// Its domid.
    pub domid: u32,
    /// Whether its programs are emulated.
    pub emulated: bool,
    /// Whether it has a machine, and a kernel, of its own.
    pub machine: bool,
    /// The line to its monitor.
    pub starter: Starter,
}

/// Does everything up to the start of the guest's init.
pub fn boot(ctx: &Ctx, what: &Create, interrupt: &mut Interrupt) -> Result<Booting> {
    warn_of_watches(ctx);
    let reserved = reserve(ctx, what, Purpose::Boot, interrupt)?;
    let begin = if what.paused { Begin::Paused } else { Begin::Run };
    start_reserved(ctx, reserved, &begin, interrupt)
}

/// A guest that finds no inotify instance left dies with words that say nothing of that.
fn warn_of_watches(ctx: &Ctx) {
    let running = std::fs::read_dir(ctx.store.runs()).map_or(0, |d| d.count() as u64);
    if watches::guests_that_fit().is_some_and(|fit| running >= fit) {
        ctx.report.warn(&format!("{running} guests may use up this host's inotify instances: {}", watches::CURE));
    }
}

/// Starts a reserved domain: on success the monitor holds the lock and cleans up; on failure it has gone, and we do.
fn start_reserved(ctx: &Ctx, mut reserved: Reserved, begin: &Begin, interrupt: &mut Interrupt) -> Result<Booting> {
    let Some(lock) = reserved.take_lock() else { return Err(Error::general("the domain is not locked")) };
    let started = start(ctx, &reserved.name, &reserved.record, &lock, begin, interrupt);
    match &started {
        Ok(_) => reserved.hand_over(),
        Err(_) => {
            if let Some(run) = ctx.store.read_run(&reserved.record.uuid) {
                run.cage.kill();
                run.cage.remove();
            }
        }
    }
    started
}

/// Starts a reserved or shut-off domain's monitor and waits until its guest's init runs; `begin` is for
/// guests with a kernel of their own.
pub fn start(
    ctx: &Ctx,
    name: &Name,
    record: &Record,
    lock: &Lock,
    begin: &Begin,
    interrupt: &mut Interrupt,
) -> Result<Booting> {
    let mut starter = spawn(&ctx.store, ctx.root.as_deref(), name, &record.uuid, lock, begin)?;
    let event = starter.next(None, interrupt);
    match event {
        Ok(Some(Event::Started { domid })) => Ok(Booting {
            name: name.clone(),
            uuid: record.uuid.clone(),
            domid,
            emulated: record.is_translated(),
            machine: record.hardware.is_some(),
            starter,
        }),
        Ok(Some(Event::Failed { why })) => {
            starter.wait_gone(Duration::from_secs(30));
            Err(Error::new(Kind::Create, format!("cannot start domain '{name}'")).because(why))
        }
        Ok(_) => {
            starter.abandon();
            Err(Error::new(Kind::Create, format!("cannot start domain '{name}'")))
        }
        Err(e) => {
            starter.abandon();
            Err(e)
        }
    }
}

impl Booting {
    /// Waits for readiness if asked, and hands the domain over.
    pub fn finish(
        mut self,
        ctx: &Ctx,
        wait: bool,
        paused: bool,
        keep: bool,
        limit: Duration,
        interrupt: &mut Interrupt,
    ) -> Result<Created> {
        let mut failed_units = Vec::new();
        if wait {
            if let Err(e) = self.wait_ready(ctx, limit, keep, interrupt) {
                if !(keep && e.kind() == Kind::Create) {
                    self.starter.abandon();
                    return Err(e);
                }
                self.starter.release()?;
                return Err(e.hint(format!("it was kept: pronto console {0}, pronto destroy {0}", self.name)));
            }
            failed_units = super::exec::failed_units(ctx, &self.name, limit);
            super::accel::look(ctx, &self.name, interrupt);
        }
        if paused && !self.machine {
            let frozen = ctx.store.read_run(&self.uuid).map(|r| r.cage.freeze(true));
            if let Some(Err(e)) = frozen {
                self.starter.abandon();
                return Err(Error::new(Kind::Create, "cannot leave the domain paused").because(e));
            }
        }
        if let Err(e) = self.starter.release() {
            self.starter.abandon();
            return Err(e);
        }
        Ok(Created { name: self.name, domid: self.domid, failed_units })
    }

    /// Waits until the guest says that it is up. Errors: it ended, or time is up (with the console's last lines).
    pub fn wait_ready(&mut self, ctx: &Ctx, limit: Duration, keep: bool, interrupt: &mut Interrupt) -> Result<()> {
        let step = ctx.report.begin(&format!("booting {}", self.name), None);
        // Held open: a domain that ends is removed before we hear of it, and its last words with it.
        let console = std::fs::File::open(ctx.store.domain(self.name.as_str()).join("console.log")).ok();
        let begun = Instant::now();
        loop {
            match self.starter.next(Some(begun + limit), interrupt)? {
                Some(Event::Ready) => {
                    step.done(&format!("{} is ready ({:.1} s)", self.name, begun.elapsed().as_secs_f64()));
                    return Ok(());
                }
                Some(Event::Started { domid }) => self.domid = domid,
                Some(Event::Failed { why }) => {
                    return Err(Error::new(Kind::Create, format!("cannot start domain '{}'", self.name)).because(why));
                }
                Some(Event::Ended { how }) => {
                    let what = format!("the guest of domain '{}' ended ({how}) before it was ready", self.name);
                    return Err(with_console(ctx, console, Error::new(Kind::Create, what)));
                }
                Some(_) => {}
                None => {
                    let seconds = limit.as_secs();
                    let what = format!("the guest of domain '{}' was not ready within {seconds} s", self.name);
                    let error = with_console(ctx, console, Error::new(Kind::Create, what));
                    let hint = "give it more time with --timeout, or keep it with --keep to look at it";
                    return Err(if keep { error } else { error.hint(hint) });
                }
            }
        }
    }
}

/// Shows the last lines of a guest that did not come up.
fn with_console(ctx: &Ctx, console: Option<std::fs::File>, error: Error) -> Error {
    let mut bytes = Vec::new();
    if let Some(mut console) = console {
        let _ = std::io::Read::read_to_end(&mut console, &mut bytes);
    }
    let text = log::plain(log::last_lines(&bytes, 12));
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        ctx.report.warn(&format!("console: {}", line.trim_end()));
    }
    error
}
