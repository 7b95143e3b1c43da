//! `create`: from an image to a running domain. What a newcomer would get wrong: everything between the reservation of the
//! name and the hand-over is undone when a later step fails, and also when this process is killed: until then the domain is
//! marked as being built, and the monitor ends with its starter.

use std::time::{Duration, Instant};

use super::inspect::{self, Facts};
use super::monitor::{Starter, spawn};
use super::{Ctx, Error, Interrupt, Kind, Result, images, interpreter, provision, registry, sweep};
use crate::arch::{Profile, Profiles};
use crate::domain::{Artifact, Layer, Name, Spec, State};
use crate::monitor::Event;
use crate::store::domains::{Record, new_uuid, now};
use crate::sys::lock::Lock;
use crate::sys::mount::Overlay;
use crate::sys::root::Root;
use crate::sys::{fail, fs};

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
    /// Where Debian and Ubuntu packages come from (`--mirror`, `PRONTO_MIRROR`).
    pub mirror: Option<String>,
    /// Register the interpreter without the C flag (setuid programs lose their privilege).
    pub no_credentials: bool,
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
pub fn create(ctx: &Ctx, what: Create) -> Result<Created> {
    let mut interrupt = Interrupt::collect()?;
    let (wait, paused, keep, timeout) = (what.wait, what.paused, what.keep, what.timeout);
    let booting = boot(ctx, what, &mut interrupt)?;
    let limit = timeout.unwrap_or(Duration::from_secs(if booting.emulated { 600 } else { 120 }));
    booting.finish(ctx, wait && !paused, paused, keep, limit, &mut interrupt)
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
    /// The line to its monitor.
    pub starter: Starter,
}

/// Does everything up to the start of the guest's init.
pub fn boot(ctx: &Ctx, what: Create, interrupt: &mut Interrupt) -> Result<Booting> {
    let reserved = reserve(ctx, what, true, interrupt)?;
    reserved.start(ctx, interrupt)
}

/// A domain that exists on disk and is not the user's yet. Dropped, it is removed.
#[derive(Debug)]
pub struct Reserved {
    ctx: Ctx,
    /// Its name.
    pub name: Name,
    /// What persists of it.
    pub record: Record,
    lock: Option<Lock>,
    kept: bool,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.kept {
            let _ = self.ctx.store.remove_domain(&self.name, &self.record.uuid);
        }
    }
}

impl Reserved {
    /// It is the user's now, shut off.
    pub fn keep(mut self) -> Result<Name> {
        self.record.building = false;
        self.ctx.store.write_record(&self.name, &self.record)?;
        self.ctx.store.remove_run(&self.record.uuid)?;
        self.kept = true;
        Ok(self.name.clone())
    }

    /// The lock that says that it is alive.
    pub fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }

    fn start(mut self, ctx: &Ctx, interrupt: &mut Interrupt) -> Result<Booting> {
        let Some(lock) = self.lock.take() else { return Err(Error::general("the domain is not locked")) };
        let started = start(ctx, &self.name, &self.record, &lock, interrupt);
        // On success the monitor holds the lock and cleans up; on failure it has gone, and we do.
        self.kept = started.is_ok();
        if started.is_err() {
            if let Some(run) = ctx.store.read_run(&self.record.uuid) {
                run.cage.kill();
                run.cage.remove();
            }
        }
        started
    }
}

/// Starts a reserved or shut-off domain's monitor and waits until its guest's init runs.
pub fn start(ctx: &Ctx, name: &Name, record: &Record, lock: &Lock, interrupt: &mut Interrupt) -> Result<Booting> {
    let mut starter = spawn(&ctx.store, ctx.root.as_deref(), name, &record.uuid, lock)?;
    let event = starter.next(None, interrupt);
    match event {
        Ok(Some(Event::Started { domid })) => Ok(Booting {
            name: name.clone(),
            uuid: record.uuid.clone(),
            domid,
            emulated: record.emulated.is_some(),
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
            failed_units = super::exec::failed_units(ctx, &self.name);
        }
        if paused {
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
                    return Err(self.with_console(ctx, Error::new(Kind::Create, what)));
                }
                Some(_) => {}
                None => {
                    let seconds = limit.as_secs();
                    let what = format!("the guest of domain '{}' was not ready within {seconds} s", self.name);
                    let error = self.with_console(ctx, Error::new(Kind::Create, what));
                    let hint = "give it more time with --timeout, or keep it with --keep to look at it";
                    return Err(if keep { error } else { error.hint(hint) });
                }
            }
        }
    }

    fn with_console(&self, ctx: &Ctx, error: Error) -> Error {
        let log = ctx.store.domain(self.name.as_str()).join("console.log");
        let bytes = std::fs::read(log).unwrap_or_default();
        let tail = crate::monitor::log::last_lines(&bytes, 12);
        if tail.is_empty() {
            return error;
        }
        for line in String::from_utf8_lossy(tail).lines() {
            ctx.report.warn(&format!("console: {}", line.trim_end()));
        }
        error
    }
}

/// Makes a domain on disk: image, name, record, interpreter, emulation layer. `boot`: it must have an init.
pub fn reserve(ctx: &Ctx, what: Create, boot: bool, interrupt: &mut Interrupt) -> Result<Reserved> {
    super::need_root("create")?;
    ctx.store.open()?;
    sweep::sweep(ctx)?;
    fail::point("resolve").map_err(injected)?;
    let profiles = registry::profiles()?;
    let wanted = wanted(&profiles, &what.spec)?;
    if let Some(name) = &what.name {
        make_room(ctx, name, what.replace)?;
    }
    let platforms = wanted.map(platforms_of);
    let artifact = images::obtain(ctx, &what.spec.image, platforms.as_deref(), false, what.mirror.as_deref())?;
    interrupt.check()?;
    let mut reserved = take_name(ctx, &what, artifact)?;
    fail::point("inspect").map_err(injected)?;
    let facts = facts(ctx, &reserved.record.artifact, &profiles)?;
    inspect::check(&facts, wanted).map_err(|e| e.with_kind(Kind::Create))?;
    let facts = if boot && facts.init.is_none() {
        give_init(ctx, &mut reserved, facts, &profiles, &what, interrupt)?
    } else {
        facts
    };
    fail::point("interpreter").map_err(injected)?;
    prepare_interpreter(ctx, &mut reserved, &profiles, &facts, !what.no_credentials, boot)?;
    fail::point("record").map_err(injected)?;
    ctx.store.write_record(&reserved.name, &reserved.record)?;
    interrupt.check()?;
    Ok(reserved)
}

fn injected(e: std::io::Error) -> Error {
    Error::new(Kind::Create, e.to_string())
}

fn wanted<'a>(profiles: &'a Profiles, spec: &Spec) -> Result<Option<&'a Profile>> {
    let Some(arch) = &spec.arch else { return Ok(None) };
    profiles.find(arch).map(Some).map_err(|e| Error::new(Kind::Usage, e.to_string()))
}

/// The platforms that serve a profile, best first.
pub fn platforms_of(profile: &Profile) -> Vec<(String, Option<String>)> {
    let pairs = profile.platforms(None);
    pairs.into_iter().map(|(a, v)| (a.to_owned(), v.map(str::to_owned))).collect()
}

/// A name that is given must be free before anything is fetched for it.
fn make_room(ctx: &Ctx, name: &Name, replace: bool) -> Result<()> {
    let Some(old) = ctx.store.load(name.as_str())? else { return Ok(()) };
    match old.state {
        State::ShutOff if replace => super::lifecycle::delete(ctx, &name.as_str().into()),
        State::ShutOff => Err(Error::new(Kind::Create, format!("a domain named '{name}' exists already, shut off"))
            .hint(format!("pronto start {name}, or pronto delete {name}, or pronto create --replace …"))),
        state => Err(Error::new(Kind::Create, format!("a domain named '{name}' exists already and is {state}"))
            .hint(format!("choose another --name, or pronto destroy {name}"))),
    }
}

fn take_name(ctx: &Ctx, what: &Create, artifact: Artifact) -> Result<Reserved> {
    let record = Record {
        uuid: new_uuid(),
        spec: what.spec.clone(),
        artifact,
        arch: String::new(),
        emulated: None,
        building: true,
        created: now(),
        ended: None,
    };
    let base = what.name.clone().unwrap_or_else(|| Name::from_text(&what.spec.image));
    for n in 1..1000 {
        let name = if n == 1 { base.clone() } else { Name::from_text(&format!("{base}-{n}")) };
        match ctx.store.reserve(&name, &record) {
            Ok(lock) => {
                let reserved = Reserved { ctx: ctx.clone(), name, record, lock: Some(lock), kept: false };
                fail::point("reserve").map_err(injected)?;
                return Ok(reserved);
            }
            Err(crate::store::Error::NameInUse(_)) if what.name.is_none() => {}
            Err(e) => return Err(Error::from(e).with_kind(Kind::Create)),
        }
    }
    Err(Error::new(Kind::Create, format!("no free name for '{base}'")).hint("give one with --name"))
}

/// What an image holds. Stored layers never change, so what was found in them is kept in the cache; a directory of the
/// user's is looked at every time.
pub fn facts(ctx: &Ctx, artifact: &Artifact, profiles: &Profiles) -> Result<Facts> {
    let Some(path) = facts_path(ctx, artifact) else { return look(ctx, artifact, profiles) };
    let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Facts>(&bytes).ok());
    if let Some(facts) = known.filter(|f| f.profile.as_deref().is_none_or(|p| profiles.find(p).is_ok())) {
        return Ok(facts);
    }
    let facts = look(ctx, artifact, profiles)?;
    // A cache that cannot be written costs time, nothing else.
    if let (Some(dir), Ok(text)) = (path.parent(), serde_json::to_vec(&facts)) {
        let _ = fs::private_dir(dir).and_then(|()| fs::write_volatile(&path, &text, 0o600));
    }
    Ok(facts)
}

fn facts_path(ctx: &Ctx, artifact: &Artifact) -> Option<std::path::PathBuf> {
    let mut key = format!("facts of {}", env!("CARGO_PKG_VERSION"));
    for layer in &artifact.layers {
        let Layer::Stored(stored) = layer else { return None };
        key += stored;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    Some(ctx.store.facts().join(hex + ".json"))
}

/// Looks at the image's files, through a mount that nobody else sees.
fn look(ctx: &Ctx, artifact: &Artifact, profiles: &Profiles) -> Result<Facts> {
    let failed = |e: std::io::Error| Error::new(Kind::Create, format!("cannot read '{}'", artifact.label)).because(e);
    let lowers = super::tree::lowers(&ctx.store, artifact);
    let tree = Overlay { lowers, upper: None }.detached().map_err(failed)?;
    let root = Root::from_fd(tree, std::path::Path::new(&artifact.label));
    inspect::tree(&root, profiles).map_err(|e| e.with_kind(Kind::Create))
}

/// An image without an init gets one by its own package manager, as a layer of its own.
fn give_init(
    ctx: &Ctx,
    reserved: &mut Reserved,
    facts: Facts,
    profiles: &Profiles,
    what: &Create,
    interrupt: &mut Interrupt,
) -> Result<Facts> {
    let artifact = &reserved.record.artifact;
    let wish = provision::Wish { mirror: what.mirror.as_deref(), credentials: !what.no_credentials };
    let Some(layer) = provision::provision(ctx, artifact, &facts, profiles, &wish, interrupt)? else {
        return Err(cannot_boot(&artifact.label, &facts));
    };
    reserved.record.artifact.layers.push(layer);
    let facts = self::facts(ctx, &reserved.record.artifact, profiles)?;
    if facts.init.is_none() {
        return Err(cannot_boot(&reserved.record.artifact.label, &facts));
    }
    Ok(facts)
}

fn cannot_boot(label: &str, facts: &Facts) -> Error {
    let what = if facts.has_os {
        format!("'{label}' has no init, so it cannot boot")
    } else {
        format!("'{label}' holds no operating system, so it cannot boot")
    };
    Error::new(Kind::Create, what).hint(format!("run one command in it: pronto run {label} -- COMMAND"))
}

fn prepare_interpreter(
    ctx: &Ctx,
    reserved: &mut Reserved,
    profiles: &Profiles,
    facts: &Facts,
    credentials: bool,
    boot: bool,
) -> Result<()> {
    let Some(profile) = facts.profile.as_deref().and_then(|p| profiles.find(p).ok()) else {
        return Err(Error::new(
            Kind::Create,
            format!("'{}' holds programs of no architecture that pronto knows", reserved.record.artifact.label),
        ));
    };
    reserved.record.arch.clone_from(&profile.name);
    let Some(mut by) = interpreter::ensure(ctx, profile, facts, credentials)? else { return Ok(()) };
    fail::point("emulation").map_err(injected)?;
    if boot {
        let dir = ctx.store.domain(reserved.name.as_str()).join("emulation");
        by.layer = interpreter::write_layer(&dir, facts)?;
        interpreter::announce(ctx, profile, facts, &by);
    }
    reserved.record.emulated = Some(by);
    Ok(())
}
