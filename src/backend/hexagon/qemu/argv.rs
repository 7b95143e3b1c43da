//! QEMU's words for a machine: a pure function, golden-tested. What a newcomer would get wrong: without `-action` QEMU starts a guest
//! that reboots anew by itself and ends with one that powers off; here both only stop the guest and are told over the control
//! socket, so that what was asked for with `on_reboot` and `on_crash` is decided in one place, and a domain has a new domid after a
//! reboot. Sources: qemu(1), qapi/run-state.json.

use std::ffi::OsString;

use serde_json::json;

use super::parts::{self, Unfit};
use super::{Accel, Channel, Kind, Setup};
use crate::arch::Profile;
use crate::backend::Launch;
use crate::backend::hexagon::{Boot, Disk, Machine};

/// How much translated code QEMU keeps, in MiB: a booted Debian fills a third of it, and its default grows with the host's memory.
const TRANSLATED: u32 = 512;
/// How many drives a PC's controller has.
const IDE: u8 = 6;
/// How many a SCSI controller is given.
const SCSI: u8 = 16;

impl Kind {
    /// The machine that a profile names. Errors: it is not driven.
    pub fn of(profile: &Profile) -> Result<Kind, Unfit> {
        match profile.qemu_system.machine.as_str() {
            "q35" => Ok(Kind::Q35),
            "virt" => Ok(Kind::Virt),
            other => Err(Unfit::Machine { arch: profile.name.clone(), machine: other.to_owned() }),
        }
    }

    /// What the names of its versions begin with: `pc-q35-7.2`, `virt-7.2`.
    pub fn family(self) -> &'static str {
        match self {
            Kind::Q35 => "pc-q35-",
            Kind::Virt => "virt-",
        }
    }
}

/// The program, its words and its whole environment. Errors: what cannot be made of this description.
pub fn launch(machine: &Machine, profile: &Profile, setup: &Setup) -> Result<Launch, Unfit> {
    let env = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];
    let env = env.map(|(name, value)| (name.into(), value.into())).to_vec();
    Ok(Launch { words: words(machine, profile, setup)?, env })
}

fn words(machine: &Machine, profile: &Profile, setup: &Setup) -> Result<Vec<OsString>, Unfit> {
    let mut words = Words(vec![setup.program.clone().into()]);
    base(&mut words, machine, setup);
    computer(&mut words, machine, profile, setup)?;
    boot(&mut words, &machine.boot, setup.kind)?;
    streams(&mut words, setup)?;
    fixed_devices(&mut words, setup.kind);
    for port in setup.ports.devices() {
        words.add("-device", &parts::word(&port, "driver"));
    }
    disks(&mut words, machine, setup)?;
    nics(&mut words, machine, setup)?;
    Ok(words.0)
}

struct Words(Vec<OsString>);

impl Words {
    fn add(&mut self, option: &str, value: &str) {
        self.0.extend([option.into(), value.into()]);
    }

    fn flag(&mut self, option: &str) {
        self.0.push(option.into());
    }
}

fn base(words: &mut Words, machine: &Machine, setup: &Setup) {
    words.flag("-nodefaults");
    words.flag("-no-user-config");
    words.add("-display", "none");
    words.add("-name", &format!("guest={}", machine.name.replace(',', ",,")));
    words.add("-uuid", &machine.uuid);
    if setup.sandbox {
        words.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    }
    // The guest stands still, QEMU lives on and says why. `query-status` then tells "shutdown", or "guest-panicked".
    words.add("-action", "reboot=shutdown,shutdown=pause,panic=pause");
    // Every guest waits for `cont`: what happens before its control socket has been greeted is told to nobody, not even its end.
    words.flag("-S");
    if setup.incoming {
        words.add("-incoming", "defer");
    }
}

fn computer(words: &mut Words, machine: &Machine, profile: &Profile, setup: &Setup) -> Result<(), Unfit> {
    let kvm = setup.accel == Accel::Kvm;
    let mut kind = format!("{},usb=off,dump-guest-core=off", setup.machine);
    match (setup.kind, profile.name.as_str()) {
        // Nothing that only a graphical or a Windows guest would look at.
        (Kind::Q35, _) => kind += ",vmport=off,smm=off",
        // GICv2 serves eight CPUs; which one "max" means differs from version to version.
        (Kind::Virt, "arm64") => kind += if kvm { ",gic-version=host" } else { ",gic-version=3" },
        // A 32-bit kernel without large addresses (Debian's armmp) does not reach the bus where it lies otherwise.
        (Kind::Virt, "armhf") => kind += ",highmem=off",
        (Kind::Virt, _) => {}
    }
    words.add("-machine", &kind);
    words.add(
        "-accel",
        &match setup.accel {
            Accel::Kvm => "kvm".to_owned(),
            Accel::Tcg => format!("tcg,thread=multi,tb-size={TRANSLATED}"),
            Accel::TcgSingle => format!("tcg,thread=single,tb-size={TRANSLATED}"),
        },
    );
    words.add("-cpu", &setup.cpu);
    words.add("-smp", &smp(machine, profile, setup)?);
    // A guest that may get more begins with all of it and gives back what it may not have yet (virtio-balloon).
    let memory = machine.max_memory.map_or(machine.memory, |most| most.max(machine.memory));
    words.add("-m", &format!("size={}k", memory.div_ceil(1 << 20) << 10));
    words.add("-rtc", "base=utc");
    Ok(())
}

fn smp(machine: &Machine, profile: &Profile, setup: &Setup) -> Result<String, Unfit> {
    let most = match (setup.kind, profile.name.as_str()) {
        (Kind::Q35, _) => 255,
        (Kind::Virt, "armhf") => 8,
        (Kind::Virt, "riscv64") => 8,
        (Kind::Virt, _) => 123,
    };
    let wanted = machine.max_vcpus.map_or(machine.vcpus, |max| max.max(machine.vcpus));
    // CPUs can be added to a running PC only.
    let max = if setup.kind == Kind::Q35 { wanted } else { machine.vcpus };
    if max > most {
        return Err(Unfit::Cpus { vcpus: max, machine: setup.machine.clone(), most });
    }
    Ok(if max == machine.vcpus { format!("cpus={max}") } else { format!("cpus={},maxcpus={max}", machine.vcpus) })
}

fn boot(words: &mut Words, boot: &Boot, kind: Kind) -> Result<(), Unfit> {
    match boot {
        Boot::Kernel { kernel, ramdisk, cmdline } => {
            words.0.extend(["-kernel".into(), kernel.into()]);
            if let Some(ramdisk) = ramdisk {
                words.0.extend(["-initrd".into(), ramdisk.into()]);
            }
            words.add("-append", cmdline);
        }
        Boot::Firmware { code, variables: None } if kind == Kind::Virt => {
            // As a whole, since a flash chip would have to be filled to its last byte.
            words.0.extend(["-bios".into(), code.into()]);
        }
        Boot::Firmware { code, variables } => {
            let flash = |node: &str, path, read_only| {
                let file = json!({"driver": "file", "filename": parts::utf8(path)?});
                Ok(json!({"driver": "raw", "node-name": node, "read-only": read_only, "file": file}).to_string())
            };
            words.add("-blockdev", &flash("flash-code", code, true)?);
            words.add("-machine", "pflash0=flash-code");
            if let Some(variables) = variables {
                words.add("-blockdev", &flash("flash-variables", variables, false)?);
                words.add("-machine", "pflash1=flash-variables");
            }
        }
        Boot::Itself => {}
    }
    // What no disk can start shall end there, and not go on to a network.
    words.add("-boot", "strict=on,menu=off");
    Ok(())
}

fn socket(id: &str, channel: &Channel) -> Result<String, Unfit> {
    let how = match channel {
        Channel::Connected(fd) => format!("fd={fd},server=off"),
        Channel::Listening(fd) => format!("fd={fd},server=on,wait=off"),
        Channel::Path(path) => format!("path={},server=on,wait=off", parts::utf8(path)?.replace(',', ",,")),
    };
    Ok(format!("socket,id={id},{how}"))
}

fn streams(words: &mut Words, setup: &Setup) -> Result<(), Unfit> {
    words.add("-chardev", &socket("qmp", &setup.qmp)?);
    words.add("-mon", "chardev=qmp,mode=control");
    if let Some(verbs) = &setup.verbs {
        words.add("-chardev", &socket("verbs", verbs)?);
        words.add("-mon", "chardev=verbs,mode=control");
    }
    words.add("-chardev", &socket("console", &setup.console)?);
    words.add("-serial", "chardev:console");
    if let Some(agent) = &setup.agent {
        words.add("-chardev", &socket("agent", agent)?);
        words.add("-device", "virtio-serial-pci,id=channels,bus=pcie.0,addr=0x2");
        words.add("-device", "virtserialport,bus=channels.0,chardev=agent,id=agent0,name=org.qemu.guest_agent.0");
    }
    Ok(())
}

/// What every guest has, at fixed places, so that a saved one finds them again.
fn fixed_devices(words: &mut Words, kind: Kind) {
    words.add("-object", "rng-builtin,id=random");
    words.add("-device", "virtio-rng-pci,rng=random,bus=pcie.0,addr=0x3");
    words.add("-device", "virtio-balloon-pci,id=balloon,bus=pcie.0,addr=0x4");
    // By this a kernel says that it panics, if it has a driver for it (pvpanic): on a PC it is no PCI device.
    words.add("-device", if kind == Kind::Q35 { "pvpanic" } else { "pvpanic-pci,bus=pcie.0,addr=0x5" });
}

fn disks(words: &mut Words, machine: &Machine, setup: &Setup) -> Result<(), Unfit> {
    let (cds, fixed): (Vec<(usize, &Disk)>, Vec<_>) = machine.disks.iter().enumerate().partition(|(_, d)| d.cdrom);
    let most = if setup.kind == Kind::Q35 { IDE } else { SCSI };
    if cds.len() > usize::from(most) {
        return Err(Unfit::TooMany { what: "CD drives", most });
    }
    let mut sets = Vec::new();
    for (set, (path, fd)) in (1..).zip(&setup.files) {
        words.add("-add-fd", &format!("set={set},fd={fd}"));
        sets.push((path.as_path(), set));
    }
    let mut taken: Vec<(bool, u32, &str)> = Vec::new();
    for disk in &machine.disks {
        if let Some(node) = parts::node(disk, setup.throw_away, &sets)? {
            words.add("-blockdev", &node.to_string());
        }
        let number = parts::number(&disk.vdev)?;
        if let Some((_, _, other)) = taken.iter().find(|(cd, n, _)| *cd == disk.cdrom && *n == number) {
            return Err(Unfit::Twice((*other).to_owned(), disk.vdev.clone()));
        }
        taken.push((disk.cdrom, number, &disk.vdev));
        if !disk.cdrom && number >= u32::from(setup.ports.disks) {
            return Err(Unfit::TooMany { what: "disks", most: setup.ports.disks });
        }
    }
    for (at, disk) in fixed {
        words.add("-device", &parts::word(&parts::disk_device(disk, Some(at + 1))?, "driver"));
    }
    if setup.kind == Kind::Virt && !cds.is_empty() {
        words.add("-device", "virtio-scsi-pci,id=cds,bus=pcie.0,addr=0x6");
    }
    for (n, (at, disk)) in cds.into_iter().enumerate() {
        words.add("-device", &parts::word(&parts::cd_device(setup.kind, disk, n, Some(at + 1)), "driver"));
    }
    Ok(())
}

fn nics(words: &mut Words, machine: &Machine, setup: &Setup) -> Result<(), Unfit> {
    if machine.nics.len() > usize::from(setup.ports.nics) {
        return Err(Unfit::TooMany { what: "network interfaces", most: setup.ports.nics });
    }
    for (n, nic) in machine.nics.iter().enumerate() {
        let tap = setup.taps.get(n).copied().flatten().map(|fd| fd.to_string());
        words.add("-netdev", &parts::word(&parts::netdev(nic, n, tap.as_deref())?, "type"));
        words.add("-device", &parts::word(&parts::nic_device(nic, n), "driver"));
    }
    Ok(())
}
