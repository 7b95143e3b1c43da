//! Making a domain on disk: image, name, record, interpreter, emulation layer. What a newcomer would get wrong: everything
//! that is made is undone when a later step fails ([`Reserved`] is dropped), and also when this process is killed: the record
//! says "building", and whoever finds it so without a holder of its lock removes it.

use std::ffi::OsString;

use super::create::Create;
use super::inspect::{self, Facts};
use super::isolation::{self, Isolation};
use super::{
    Ctx, Error, Interrupt, Kind, Result, accel, facts, hexagon, images, interpreter, provision, registry, sweep,
};
use crate::arch::{Profile, Profiles};
use crate::domain::{Accel, Artifact, Backend, InitKind, Name, Spec, State};
use crate::image::oci::Ask;
use crate::store::domains::{Record, new_uuid, now};
use crate::store::young;
use crate::sys::fail;
use crate::sys::lock::Lock;

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

    /// The lock that says that it is alive, for whoever runs it.
    pub fn take_lock(&mut self) -> Option<Lock> {
        self.lock.take()
    }

    /// Somebody else holds the lock now and cleans up.
    pub fn hand_over(mut self) {
        self.kept = true;
    }
}

/// What a domain is made for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// To boot: it must have an init.
    Boot,
    /// To run one command, these words of the user's; the image may hold no operating system at all.
    Run(&'a [OsString]),
}

/// Makes a domain on disk: image, name, record, interpreter, emulation layer.
pub fn reserve(ctx: &Ctx, what: &Create, purpose: Purpose<'_>, interrupt: &mut Interrupt) -> Result<Reserved> {
    super::need_root("create")?;
    if what.spec.image.is_empty() {
        let error = Error::new(Kind::Create, "a domain of disks alone, without an image, cannot be made yet");
        return Err(error.hint("name an image for its root: image=\"debian/bookworm\""));
    }
    ctx.store.open()?;
    sweep::thorough(ctx)?;
    fail::point("resolve").map_err(injected)?;
    let profiles = registry::profiles()?;
    let wanted = wanted(&profiles, &what.spec)?;
    if let Some(name) = &what.name {
        make_room(ctx, name, what.replace)?;
    }
    let platforms = wanted.map(|p| registry::platforms(p, what.spec.arch.as_deref().unwrap_or(&p.name)));
    let (credentials, asked) = (!what.spec.no_credentials, what.spec.binfmt);
    let ready = |debian: &str| interpreter::ready_for(ctx, &profiles, debian, credentials, asked);
    let (platforms, mirror) = (platforms.as_deref(), what.mirror.as_deref());
    let wish = images::Wish { platforms, ask: Ask::Present, mirror, include: &what.include, ready: &ready };
    let artifact = images::obtain_as(ctx, &what.spec.image, &wish)?.artifact;
    interrupt.check()?;
    let mut reserved = take_name(ctx, what, artifact)?;
    fail::point("inspect").map_err(injected)?;
    let mut facts = facts::of(ctx, &reserved.record.artifact, &profiles)?;
    match purpose {
        Purpose::Run(words) if facts.profile.is_none() => {
            facts::of_command(ctx, &reserved.record.artifact, &profiles, &mut facts, words)?;
        }
        _ => {}
    }
    inspect::check(&facts, wanted).map_err(|e| e.with_kind(Kind::Create))?;
    let isolation = isolation::decide(ctx, &what.spec, &reserved.record.artifact)?;
    match what.spec.backend {
        Backend::Qemu => machine(ctx, &mut reserved, facts, (what, &profiles, isolation), interrupt)?,
        _ => shared(ctx, &mut reserved, facts, (what, &profiles, isolation), purpose, interrupt)?,
    }
    fail::point("record").map_err(injected)?;
    if !what.spec.rm {
        // A domain that is kept must not lose its image to a power cut: another may have its name by then.
        young::settle(&ctx.store, &reserved.record.artifact.stored_keys())?;
    }
    ctx.store.write_record(&reserved.name, &reserved.record)?;
    interrupt.check()?;
    Ok(reserved)
}

/// What a domain needs that shares the host's kernel: an init, an interpreter.
fn shared(
    ctx: &Ctx,
    reserved: &mut Reserved,
    mut facts: Facts,
    (what, profiles, isolation): (&Create, &Profiles, Isolation),
    purpose: Purpose<'_>,
    interrupt: &mut Interrupt,
) -> Result<()> {
    reserved.record.userns = isolation.userns;
    let boot = matches!(purpose, Purpose::Boot);
    if boot && facts.init.is_none() {
        facts = give_init(ctx, reserved, &facts, profiles, (what, isolation), interrupt)?;
    }
    reserved.record.init = facts.init.as_ref().map(|i| i.kind).unwrap_or_default();
    fail::point("interpreter").map_err(injected)?;
    let asked = (what.mirror.as_deref(), what.accel_asked);
    prepare_interpreter(ctx, reserved, profiles, &facts, isolation, boot, asked)
}

/// What a domain needs that has a kernel of its own: that, a disk, a machine.
fn machine(
    ctx: &Ctx,
    reserved: &mut Reserved,
    facts: Facts,
    (what, profiles, isolation): (&Create, &Profiles, Isolation),
    interrupt: &mut Interrupt,
) -> Result<()> {
    let dir = ctx.store.domain(reserved.name.as_str());
    let hostname = what.spec.hostname.clone().unwrap_or(reserved.name.hostname());
    let work = hexagon::prepare::Work { what, profiles, isolation, hostname: &hostname, dir: &dir };
    hexagon::prepare::prepare(ctx, &mut reserved.record, facts, &work, interrupt)
}

fn injected(e: std::io::Error) -> Error {
    Error::new(Kind::Create, "cannot create the domain").because(e)
}

fn wanted<'a>(profiles: &'a Profiles, spec: &Spec) -> Result<Option<&'a Profile>> {
    let Some(arch) = &spec.arch else {
        // A board says what it is for, too.
        return spec.board.as_deref().map(|name| Ok(super::cpu::board(profiles, name)?.0)).transpose();
    };
    profiles.find(arch).map(Some).map_err(|e| Error::new(Kind::Usage, e.to_string()))
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
        hardware: None,
        saved: None,
        init: InitKind::default(),
        userns: false,
        building: true,
        created: now(),
        ended: None,
    };
    let base = what.name.clone().unwrap_or_else(|| Name::for_image(&what.spec.image));
    for n in 1..1000 {
        let name = if n == 1 { base.clone() } else { Name::from_text(&format!("{base}-{n}")) };
        match ctx.store.reserve(&name, &record) {
            Ok(lock) => {
                let reserved = Reserved { ctx: ctx.clone(), name, record, lock: Some(lock), kept: false };
                // From here on `rmi` sees that the layers are in use; before, it may have taken them away.
                if !images::still_there(ctx, &reserved.record.artifact)? {
                    let what = format!("image '{}' was removed meanwhile", reserved.record.artifact.label);
                    return Err(Error::new(Kind::Create, what).hint("try again: it will be fetched anew"));
                }
                fail::point("reserve").map_err(injected)?;
                return Ok(reserved);
            }
            Err(crate::store::Error::NameInUse(_)) if what.name.is_none() => {}
            Err(e) => return Err(Error::from(e).with_kind(Kind::Create)),
        }
    }
    Err(Error::new(Kind::Create, format!("no free name for '{base}'")).hint("give one with --name"))
}

/// An image without an init gets one by its own package manager, as a layer of its own.
fn give_init(
    ctx: &Ctx,
    reserved: &mut Reserved,
    facts: &Facts,
    profiles: &Profiles,
    (what, isolation): (&Create, Isolation),
    interrupt: &mut Interrupt,
) -> Result<Facts> {
    let artifact = &reserved.record.artifact;
    let uuid = &reserved.record.uuid;
    let wish = provision::Wish {
        mirror: what.mirror.as_deref(),
        credentials: !what.spec.no_credentials,
        uuid,
        isolation,
        kernel: false,
    };
    let Some(layer) = provision::provision(ctx, artifact, facts, profiles, &wish, interrupt)? else {
        return Err(cannot_boot(&artifact.label, facts));
    };
    reserved.record.artifact.layers.push(layer);
    let facts = facts::of(ctx, &reserved.record.artifact, profiles)?;
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
    isolation: Isolation,
    boot: bool,
    (mirror, asked): (Option<&str>, accel::Asked),
) -> Result<()> {
    let Some(profile) = facts.profile.as_deref().and_then(|p| profiles.find(p).ok()) else {
        return Err(Error::new(
            Kind::Create,
            format!("'{}' holds programs of no architecture that pronto knows", reserved.record.artifact.label),
        ));
    };
    reserved.record.arch.clone_from(&profile.name);
    let by = interpreter::ensure(ctx, profiles, profile, facts, &reserved.record.spec, isolation.private)?;
    let Some(mut by) = by else {
        if reserved.record.spec.accel != Accel::Off && asked.mode {
            ctx.report.warn("--accel is for emulated guests, and this host runs this image itself");
        }
        return Ok(());
    };
    fail::point("emulation").map_err(injected)?;
    if boot {
        let dir = ctx.store.domain(reserved.name.as_str()).join("emulation");
        by.layer = interpreter::write_layer(&dir, facts, &by)?;
        interpreter::announce(ctx, profile, facts, &reserved.record.spec, &by);
    }
    let dir = ctx.store.domain(reserved.name.as_str());
    let Record { spec, artifact, .. } = &reserved.record;
    by.native =
        accel::prepare(ctx, &accel::Wish { spec, asked, mirror, artifact, facts, profile, by: &by, dir: &dir })?;
    reserved.record.emulated = Some(by);
    Ok(())
}
