//! Machines of all kinds, written by pronto as xl.cfg and read by xl (`xl -N create`). What a newcomer would get wrong: that xl takes a file proves
//! little, as it passes over keys that it does not know; so what it understood is compared with what was meant, value by value.

use ::pronto::backend::hexagon::xen::config::{self, Kind};
use ::pronto::backend::hexagon::xen::details;
use ::pronto::backend::hexagon::{Boot, Disk, Format, Link, Machine, Nic};

use crate::host::Host;
use crate::machine::record;

/// The kind of guest that a host of this CPU runs.
pub fn kind(host: Host) -> Kind {
    if host.guest == "pv" { Kind::Pv } else { Kind::Pvh }
}

/// A small guest of the hosts' own kernel.
pub fn small(host: Host, name: &str) -> Machine {
    let cmdline = "console=hvc0 quiet".to_owned();
    Machine {
        name: name.into(),
        uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8".into(),
        arch: host.arch.into(),
        memory: 96 << 20,
        max_memory: None,
        vcpus: 1,
        max_vcpus: None,
        boot: Boot::Kernel { kernel: "/guest/vmlinuz".into(), ramdisk: Some("/guest/initrd".into()), cmdline },
        disks: Vec::new(),
        nics: Vec::new(),
    }
}

/// A disk by its path and name.
pub fn disk(path: &str, vdev: &str) -> Disk {
    Disk {
        source: Some(path.into()),
        block: false,
        format: Format::Raw,
        base: None,
        vdev: vdev.into(),
        read_only: false,
        cdrom: false,
    }
}

/// An interface on a bridge.
pub fn nic(last: u8, bridge: &str, name: Option<&str>) -> Nic {
    let link = Link::Bridge { bridge: bridge.into(), name: name.map(str::to_owned) };
    Nic { mac: [0, 0x16, 0x3e, 0, 0, last], link }
}

/// All machines by name, each with its kind.
fn all(host: Host) -> Vec<(&'static str, Machine, Kind)> {
    let words =
        |cmdline: &str| Boot::Kernel { kernel: "/guest/a \"kernel\"".into(), ramdisk: None, cmdline: cmdline.into() };
    let mut more = small(host, "more");
    (more.memory, more.max_memory) = ((64 << 20) + 1, Some(128 << 20));
    (more.vcpus, more.max_vcpus) = (2, Some(3));
    let mut disks = small(host, "disks.of+all-kinds");
    disks.disks = vec![
        disk("/d/one", "xvda"),
        Disk { read_only: true, format: Format::Qcow2, ..disk("/d/t w,o=vdev=xvdz:,", "xvdb1") },
        Disk { cdrom: true, ..disk("/d/'cd' \"\\.iso", "hdc") },
        disk("/d/grüße", "sda"),
        disk("/d/last", "xvdaa"),
    ];
    let mut drive = small(host, "drive");
    drive.disks = vec![Disk { source: None, cdrom: true, ..disk("", "hdd") }];
    let mut nics = small(host, "nics");
    nics.nics = vec![nic(1, "xenbr0", None), nic(0xfe, "br-0.1", Some("nics.1"))];
    let mut quoted = small(host, "quoted");
    quoted.boot = words(r#" root=/dev/xvda a="b c" 'd' \ \\ \n \x41 #no ; e=[1, 2] += é "#);
    let mut empty = small(host, "empty");
    empty.boot = words("");
    let mut itself = small(host, "itself");
    (itself.boot, itself.disks) = (Boot::Itself, vec![disk("/d/one", "xvda")]);
    let mut firmware = small(host, "firmware");
    firmware.boot = Boot::Firmware { code: "/f/XEN_EFI.fd".into(), variables: None };
    let own = [more, disks, drive, nics, quoted, empty, itself];
    let mut machines: Vec<(&'static str, Machine, Kind)> =
        ["more", "disks", "drive", "nics", "quoted", "empty", "itself"]
            .into_iter()
            .zip(own)
            .map(|(name, machine)| (name, machine, kind(host)))
            .collect();
    machines.push(("pvh", small(host, "pvh"), Kind::Pvh));
    machines.push(("firmware", firmware, Kind::Pvh));
    machines
}

/// The files by name.
pub fn texts(host: Host) -> Vec<(String, String)> {
    let text =
        |machine: &Machine, kind| config::text(machine, kind).unwrap_or_else(|e| panic!("{}: {e}", machine.name));
    all(host).iter().map(|(name, machine, kind)| (format!("{name}.cfg"), text(machine, *kind))).collect()
}

pub fn xl_understands_what_is_meant(host: Host) {
    for (name, machine, kind) in all(host) {
        let record = record(host, "configurations", &format!("config-{name}")).ok();
        // One line, which names the file: xl warns of what it does not like.
        assert_eq!(record.said().lines().count(), 1, "{record}");
        let got = details::dry_run(&record.out).unwrap_or_else(|e| panic!("{e}\n{record}"));
        let want = meant(&machine, kind);
        assert_eq!(got, want, "{name}\n{record}");
    }
}

/// What xl should understand of a machine.
fn meant(machine: &Machine, kind: Kind) -> details::Details {
    let kib = |bytes: u64| bytes.div_ceil(1 << 20) << 10;
    let path = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    let mut want = details::Details {
        domid: None,
        name: Some(machine.name.clone()),
        uuid: Some(machine.uuid.clone()),
        kind: kind.word().into(),
        memory: kib(machine.memory),
        max_memory: kib(machine.max_memory.unwrap_or(machine.memory)),
        max_vcpus: machine.max_vcpus.unwrap_or(machine.vcpus).into(),
        vcpus: machine.vcpus.into(),
        ends: [(); 4].map(|()| Some("preserve".to_owned())),
        ..details::Details::default()
    };
    match &machine.boot {
        Boot::Kernel { kernel, ramdisk, cmdline } => {
            (want.kernel, want.ramdisk) = (Some(path(kernel)), ramdisk.as_ref().map(path));
            want.cmdline = Some(cmdline.clone());
        }
        Boot::Firmware { code, .. } => want.kernel = Some(path(code)),
        Boot::Itself => want.bootloader = Some("pygrub".into()),
    }
    want.disks = machine.disks.iter().map(meant_disk).collect();
    want.nics = machine.nics.iter().map(meant_nic).collect();
    want
}

fn meant_disk(disk: &Disk) -> details::Disk {
    let format = match (&disk.source, disk.format) {
        (None, _) => "empty",
        (_, Format::Raw) => "raw",
        (_, Format::Qcow2) => "qcow2",
    };
    details::Disk {
        path: disk.source.as_ref().map(|p| p.to_string_lossy().into_owned()),
        vdev: disk.vdev.clone(),
        format: Some(format.into()),
        writable: !disk.read_only && !disk.cdrom,
        cdrom: disk.cdrom,
    }
}

fn meant_nic(nic: &Nic) -> details::Nic {
    let Link::Bridge { bridge, name } = &nic.link else { panic!("no bridge") };
    let mac = nic.mac.map(|b| format!("{b:02x}")).join(":");
    details::Nic { mac, bridge: Some(bridge.clone()), name: name.clone() }
}
