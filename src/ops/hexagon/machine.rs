//! Which machine a guest gets: QEMU's program, its newest machine, the CPU, who executes. What a newcomer would get wrong: all of it is decided
//! by the command that makes or starts the domain, and written down; the monitor, which may start the guest again at any time, only
//! does as is written.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::arch::Profile;
use crate::backend::hexagon::qemu::abilities::Abilities;
use crate::backend::hexagon::qemu::{Channel, Kind, Setup, kvm};
use crate::backend::hexagon::{Base, Boot, Disk, Format, Link, Machine, Nic};
use crate::domain::full::{Executor, Hardware, Ports, Start};
use crate::domain::xlcfg::disk::{DiskFormat, DiskSpec};
use crate::domain::xlcfg::vif::VifSpec;
use crate::domain::{Name, Spec};
use crate::ops::{Ctx, Error, Kind as ErrorKind, Result};
use crate::store::domains::Record;
use crate::sys::process::find_program;

/// How long a trial of this host's KVM may take.
const TRIAL: Duration = Duration::from_secs(3);
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

/// Decides on everything but what the guest starts. `old` is what it had before: its machine and its places stay.
pub fn choose(ctx: &Ctx, spec: &Spec, profile: &Profile, start: Start, old: Option<&Hardware>) -> Result<Hardware> {
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
        start,
        base: None,
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
    match kvm::probe(program, &profile.name, host_arch(), TRIAL) {
        Ok(()) => Ok(Executor::Kvm),
        Err(why) if asked == Some(Executor::Kvm) => {
            let what = format!("KVM cannot run guests of {} here", profile.name);
            Err(Error::new(ErrorKind::Create, what).because(why).hint("--accel tcg has QEMU translate instead"))
        }
        Err(why) => {
            if profile.name == host_arch() {
                ctx.report.note(&format!("QEMU translates, since KVM cannot run this guest: {why}"));
            }
            Ok(emulation())
        }
    }
}

/// This machine's architecture, by its profile's name.
pub fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "armhf",
        other => other,
    }
}

/// A network interface's address of Xen's own, as xl makes one.
pub fn address() -> String {
    let random = crate::store::domains::new_uuid();
    let byte = |at: usize| random.get(at..at + 2).unwrap_or("00").to_owned();
    format!("00:16:3e:{:02x}:{}:{}", u8::from_str_radix(&byte(0), 16).unwrap_or(0) & 0x7f, byte(2), byte(4))
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
        boot: boot(&hardware.start, dir),
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

fn boot(start: &Start, dir: &Path) -> Boot {
    match start {
        // The domain may have been renamed: what is its own is told by its name alone.
        Start::Kernel { kernel, ramdisk, cmdline } => Boot::Kernel {
            kernel: dir.join(kernel),
            ramdisk: ramdisk.as_ref().map(|path| dir.join(path)),
            cmdline: cmdline.clone(),
        },
        Start::Firmware { code, variables } => {
            Boot::Firmware { code: code.clone(), variables: variables.as_ref().map(|_| dir.join("variables.fd")) }
        }
        Start::Itself => Boot::Itself,
    }
}

fn nics(spec: &Spec, hardware: &Hardware) -> std::result::Result<Vec<Nic>, String> {
    let mac = |n: usize| -> [u8; 6] {
        let mut bytes = [0; 6];
        let text = hardware.macs.get(n).map(String::as_str).unwrap_or_default();
        for (byte, word) in bytes.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(word, 16).unwrap_or(0);
        }
        bytes
    };
    if spec.network == crate::domain::Network::None {
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

/// How the host's end of an interface is called, as xl has it.
pub fn tap_name(domid: u32, n: usize) -> String {
    format!("vif{domid}.{n}")
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

/// The places of a machine with these devices, unless it has them already.
pub fn ports(machine: &Machine) -> Result<Ports> {
    Ports::of(machine).map_err(|e| Error::new(ErrorKind::Create, e.to_string()))
}
