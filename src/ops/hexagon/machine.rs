//! Which machine a guest gets: QEMU's program, its newest machine, the CPU, who executes. What a newcomer would get wrong: all of it is decided
//! by the command that makes or starts the domain, and written down; the monitor, which may start the guest again at any time, only
//! does as is written.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::arch::Profile;
use crate::backend::hexagon::qemu::abilities::Abilities;
use crate::backend::hexagon::qemu::{Channel, Kind, Setup, kvm};
use crate::backend::hexagon::{Base, Boot, Disk, Format, Link, Machine, Nic};
use crate::domain::full::{Executor, Hardware};
use crate::domain::xlcfg::disk::{DiskFormat, DiskSpec};
use crate::domain::xlcfg::vif::VifSpec;
use crate::domain::{Name, Network, Spec};
use crate::ops::{Ctx, Error, Kind as ErrorKind, Result, registry};
use crate::store::domains::{Record, new_uuid};
use crate::sys::process::find_program;
use crate::sys::tap;

/// How many CPUs a guest has for which nothing is said, if the host has as many.
const CPUS: u32 = 2;

/// The program that can run guests of an architecture. Errors: it is not installed, or no such machine is driven.
pub fn program(profile: &Profile) -> Result<(PathBuf, Kind)> {
    let kind = Kind::of(profile).map_err(|e| Error::new(ErrorKind::Create, e.to_string()))?;
    let name = &profile.qemu_system.program;
    let program = find_program(name).ok_or_else(|| {
        let what = format!("{name} is not installed, which runs guests of {} with a kernel of their own", profile.name);
        Error::new(ErrorKind::Create, what).hint(format!("apt-get install {}", profile.qemu_system.package))
    })?;
    Ok((program, kind))
}

/// Decides on everything but what the guest starts and on which disk (`base` lies under it). `old` is what it had before: its machine and its
/// places stay.
pub fn choose(
    ctx: &Ctx,
    spec: &Spec,
    profile: &Profile,
    (boot, base): (Boot, Option<PathBuf>),
    old: Option<&Hardware>,
) -> Result<Hardware> {
    let failed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Create, e.to_string());
    let (program, kind) = program(profile)?;
    let abilities = Abilities::of(&program).map_err(|e| failed(&e))?;
    let machine = match old {
        Some(old) => old.machine.clone(),
        None => abilities.newest(&program, kind).map_err(|e| failed(&e))?,
    };
    abilities.insist(&program, &machine).map_err(|e| failed(&e))?;
    let executor = executor(ctx, spec.full.executor, profile, &program, || abilities.emulation(kind))?;
    let version = abilities.version;
    let mut hardware = Hardware {
        version: format!("{}.{}.{}", version.0, version.1, version.2),
        machine,
        cpu: spec.cpu.clone().unwrap_or_else(|| abilities.cpu(profile, executor)),
        executor,
        sandbox: abilities.sandbox,
        program,
        ports: old.map(|old| old.ports).unwrap_or_default(),
        boot,
        base,
        macs: old.map(|old| old.macs.clone()).unwrap_or_default(),
    };
    while hardware.macs.len() < spec.full.vifs.len().max(1) {
        hardware.macs.push(address());
    }
    Ok(hardware)
}

fn executor(
    ctx: &Ctx,
    asked: Option<Executor>,
    profile: &Profile,
    program: &Path,
    emulation: impl Fn() -> Executor,
) -> Result<Executor> {
    if asked == Some(Executor::Tcg) {
        return Ok(emulation());
    }
    let profiles = registry::profiles()?;
    let host = profiles.by_uname(std::env::consts::ARCH).map(|host| host.name.as_str()).unwrap_or_default();
    match kvm::probe(program, &profile.name, host, kvm::PATIENCE) {
        Ok(()) => Ok(Executor::Kvm),
        Err(why) if asked == Some(Executor::Kvm) => {
            let what = format!("KVM cannot run guests of {} here", profile.name);
            Err(Error::new(ErrorKind::Create, what).because(why).hint("--accel tcg has QEMU translate instead"))
        }
        Err(why) => {
            if profile.name == host {
                ctx.report.note(&format!("QEMU translates, since KVM cannot run this guest: {why}"));
            }
            Ok(emulation())
        }
    }
}

/// A network interface's address of Xen's own, as xl makes one.
pub fn address() -> [u8; 6] {
    let random = new_uuid();
    let byte = |at: usize| random.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or_default();
    [0x00, 0x16, 0x3e, byte(0) & 0x7f, byte(2), byte(4)]
}

/// How many CPUs a guest has at its start.
pub fn vcpus(spec: &Spec) -> u32 {
    let host = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    spec.vcpus.unwrap_or(CPUS.min(host))
}

/// A domain's description for a driver. `dir` is its directory. Errors: a device that cannot be had here.
pub fn describe(record: &Record, name: &Name, dir: &Path) -> std::result::Result<Machine, String> {
    let (spec, hardware) = (&record.spec, record.hardware.as_ref().ok_or("it was given no machine")?);
    let base = hardware.base.clone().map(|source| Base { source, format: Format::Raw });
    let root = Disk {
        source: Some(dir.join(super::DISK)),
        block: false,
        format: if base.is_some() { Format::Qcow2 } else { Format::Raw },
        base,
        vdev: "xvda".into(),
        read_only: false,
        cdrom: false,
    };
    let mut disks = vec![root];
    for text in &spec.full.disks {
        disks.push(disk(&DiskSpec::parse(&[text.as_str()])?)?);
    }
    Ok(Machine {
        name: name.to_string(),
        uuid: record.uuid.clone(),
        arch: record.arch.clone(),
        memory: spec.memory.unwrap_or(super::MEMORY),
        max_memory: spec.maxmem,
        vcpus: vcpus(spec),
        max_vcpus: spec.full.max_vcpus,
        boot: hardware.boot.within(dir),
        disks,
        nics: nics(spec, hardware)?,
    })
}

/// A disk by xl's words.
pub fn disk(spec: &DiskSpec) -> std::result::Result<Disk, String> {
    let path = spec.target.as_ref().map(|target| Path::new("/dev").join(target));
    let block = path.as_ref().is_some_and(|path| {
        use std::os::unix::fs::FileTypeExt;
        std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device())
    });
    let format = match spec.format {
        DiskFormat::Raw | DiskFormat::Empty => Format::Raw,
        DiskFormat::Qcow2 => Format::Qcow2,
        other => return Err(format!("a disk of the format {} cannot be had on QEMU: raw or qcow2", other.name())),
    };
    Ok(Disk {
        source: path,
        block,
        format,
        base: None,
        vdev: spec.vdev.clone(),
        read_only: spec.read_only,
        cdrom: spec.cdrom,
    })
}

fn nics(spec: &Spec, hardware: &Hardware) -> std::result::Result<Vec<Nic>, String> {
    let mac = |n: usize| hardware.macs.get(n).copied().unwrap_or_default();
    if spec.network == Network::None {
        return Ok(Vec::new());
    }
    if spec.full.vifs.is_empty() {
        return Ok(vec![Nic { mac: mac(0), link: Link::User { publish: spec.full.publish.clone() } }]);
    }
    let mut nics = Vec::new();
    for (n, text) in spec.full.vifs.iter().enumerate() {
        let vif = VifSpec::parse(text)?;
        let mac = vif.mac.unwrap_or_else(|| mac(n));
        let link = match vif.bridge.clone() {
            Some(bridge) => Link::Bridge { bridge, name: vif.vifname.clone() },
            // Ports lead to the first one.
            None => Link::User { publish: if n == 0 { spec.full.publish.clone() } else { Vec::new() } },
        };
        nics.push(Nic { mac, link });
    }
    Ok(nics)
}

/// The host's end of the `n`-th interface, where that is on a bridge; it goes with its last user. It is called as xl would call it, unless it was
/// given a name. Errors: in one line.
pub fn tap(domid: u32, n: usize, nic: &Nic) -> std::result::Result<Option<OwnedFd>, String> {
    let Link::Bridge { bridge, name } = &nic.link else { return Ok(None) };
    let name = name.clone().unwrap_or_else(|| format!("vif{domid}.{n}"));
    tap::on_bridge(&name, bridge).map(Some).map_err(|e| format!("cannot make the network interface {name}: {e}"))
}

/// Opens the files of disks, which QEMU inherits: it has no right to open any by itself. Errors: as open(2), with the path.
pub fn open(disks: &[Disk]) -> std::result::Result<Vec<(PathBuf, OwnedFd)>, String> {
    let mut files = Vec::new();
    for disk in disks {
        let Some(path) = &disk.source else { continue };
        let base = disk.base.as_ref().map(|base| (base.source.clone(), true));
        for (path, read_only) in std::iter::once((path.clone(), disk.read_only || disk.cdrom)).chain(base) {
            let opened = File::options().read(true).write(!read_only).open(&path);
            files.push((path.clone(), opened.map_err(|e| format!("{}: {e}", path.display()))?.into()));
        }
    }
    Ok(files)
}

/// What is decided about each run, but for its sockets.
pub fn setup(record: &Record, hardware: &Hardware, profile: &Profile) -> std::result::Result<Setup, String> {
    Ok(Setup {
        program: hardware.program.clone(),
        kind: Kind::of(profile).map_err(|e| e.to_string())?,
        machine: hardware.machine.clone(),
        accel: hardware.executor,
        cpu: hardware.cpu.clone(),
        sandbox: hardware.sandbox,
        ports: hardware.ports,
        incoming: false,
        throw_away: record.spec.rm,
        qmp: Channel::Connected(-1),
        verbs: None,
        console: Channel::Connected(-1),
        agent: None,
        files: Vec::new(),
        taps: Vec::new(),
    })
}
