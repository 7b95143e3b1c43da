//! Disks, network interfaces and ports in QEMU's own words, as JSON: the same value is an option of the command line at the start and
//! the arguments of `blockdev-add`, `device_add` and `netdev_add` later. What a newcomer would get wrong: what can be taken out of a
//! running guest must sit behind a port of its own, and *which* port must follow from its name alone. A guest that was saved
//! after its second disk was taken out would otherwise be restored with its third one in another place.
//! Sources: qemu(1), QEMU's docs/pcie.txt, qapi/block-core.json, qapi/net.json.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Kind, Ports};
use crate::backend::hexagon::{Base, Disk, Format, Link, Machine, Nic};

/// A description that cannot be turned into a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The architecture's machine is none of those that are driven.
    #[error(
        "guests of {arch} cannot be run: QEMU's machine '{machine}' has nothing that disks and networks could be plugged into"
    )]
    Machine {
        /// The architecture.
        arch: String,
        /// The machine its profile names.
        machine: String,
    },
    /// The name of a disk is not understood.
    #[error("'{0}' is no name for a disk: use xvda to xvdz, vda, sda or hda")]
    Vdev(String),
    /// Two disks have one place.
    #[error("the disks '{0}' and '{1}' have the same place: give one of them another letter")]
    Twice(String, String),
    /// More than there is room for.
    #[error("{what}: at most {most} are possible")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many are possible.
        most: u8,
    },
    /// A path that is not UTF-8, which QEMU's JSON cannot hold.
    #[error("QEMU cannot be given the path '{}': it is not UTF-8", .0.display())]
    Path(PathBuf),
    /// A disk without a file that is no CD.
    #[error("the disk '{0}' has no file: only a CD drive can be empty")]
    Empty(String),
    /// An interface on a bridge for which no tap device was opened.
    #[error("network interface {0} is on a bridge, but no tap device was opened for it")]
    NoTap(usize),
    /// More CPUs than the machine can have.
    #[error("{vcpus} CPUs are too many: {machine} has at most {most}")]
    Cpus {
        /// How many were asked for.
        vcpus: u32,
        /// The machine.
        machine: String,
        /// How many it can have.
        most: u32,
    },
}

impl Ports {
    /// Ports for disks: four slots of eight functions.
    pub const MOST_DISKS: u8 = 32;
    /// Ports for network interfaces: two slots.
    pub const MOST_NICS: u8 = 16;

    /// What a machine gets: room for its own and some to come. Forty empty ones cost an
    /// emulated kernel ten seconds of CPU time at boot, six are within what varies.
    /// Errors: more than fit.
    pub fn of(machine: &Machine) -> Result<Ports, Unfit> {
        let mut disks = 4u8;
        for disk in machine.disks.iter().filter(|d| !d.cdrom) {
            let number = number(&disk.vdev)?;
            if number >= u32::from(Ports::MOST_DISKS) {
                return Err(Unfit::TooMany { what: "disks", most: Ports::MOST_DISKS });
            }
            disks = disks.max(number as u8 + 1);
        }
        let nics = u8::try_from(machine.nics.len()).ok().filter(|n| *n <= Ports::MOST_NICS);
        let nics = nics.ok_or(Unfit::TooMany { what: "network interfaces", most: Ports::MOST_NICS })?;
        Ok(Ports { disks: (disks + 3) & !3, nics: (nics.max(2) + 1) & !1 })
    }

    /// The ports themselves, in the order in which a guest finds them.
    pub fn devices(self) -> Vec<Value> {
        let disks = (0..self.disks).map(|n| port("disk", n, 0x8 + n / 8, 1 + n));
        let nics = (0..self.nics).map(|n| port("nic", n, 0x10 + n / 8, 101 + n));
        disks.chain(nics).collect()
    }
}

fn port(what: &str, number: u8, slot: u8, chassis: u8) -> Value {
    // Without I/O ports: a PC has room for those of a dozen bridges only, and virtio needs none.
    json!({"driver": "pcie-root-port", "id": format!("port-{what}{number}"), "bus": "pcie.0",
        "addr": format!("0x{slot:x}.0x{:x}", number % 8), "multifunction": true, "chassis": chassis, "io-reserve": 0})
}

/// The number of a disk by its name: `xvda`, `sda` and `hda` are 0; so is `d0` (xl's own way, xl-disk-configuration(5)), and a
/// partition counts as its disk. Errors: another name.
pub fn number(vdev: &str) -> Result<u32, Unfit> {
    let unknown = || Unfit::Vdev(vdev.to_owned());
    if let Some(digits) = vdev.strip_prefix('d').filter(|d| d.starts_with(|c: char| c.is_ascii_digit())) {
        return digits.split('p').next().and_then(|d| d.parse().ok()).ok_or_else(unknown);
    }
    let letters = ["xvd", "vd", "sd", "hd"].iter().find_map(|p| vdev.strip_prefix(p)).ok_or_else(unknown)?;
    let letters = letters.trim_end_matches(|c: char| c.is_ascii_digit());
    if letters.is_empty() || letters.len() > 2 || !letters.bytes().all(|b| b.is_ascii_lowercase()) {
        return Err(unknown());
    }
    Ok(letters.bytes().fold(0, |sum, b| sum * 26 + u32::from(b - b'a') + 1) - 1)
}

/// The name of a disk's content among QEMU's block nodes.
pub fn node_name(disk: &Disk) -> String {
    format!("disk-{}", disk.vdev)
}

/// Files that QEMU has open already, by the sets that they are in (`-add-fd`, `add-fd`).
pub type Sets<'a> = &'a [(&'a Path, u32)];

/// How QEMU calls a file. Errors: a path that is not UTF-8.
fn file_name(path: &Path, sets: Sets<'_>) -> Result<String, Unfit> {
    match sets.iter().find(|(known, _)| *known == path) {
        Some((_, set)) => Ok(format!("/dev/fdset/{set}")),
        None => utf8(path).map(str::to_owned),
    }
}

/// What a disk's content is (`blockdev-add`); none for an empty drive. Errors: a path that is not UTF-8.
pub fn node(disk: &Disk, throw_away: bool, sets: Sets<'_>) -> Result<Option<Value>, Unfit> {
    let Some(source) = &disk.source else {
        return if disk.cdrom { Ok(None) } else { Err(Unfit::Empty(disk.vdev.clone())) };
    };
    let read_only = disk.read_only || disk.cdrom;
    let driver = if disk.block { "host_device" } else { "file" };
    let mut file = json!({"driver": driver, "filename": file_name(source, sets)?});
    let mut node = json!({"driver": name(disk.format), "node-name": node_name(disk), "read-only": read_only});
    if !read_only {
        file["discard"] = "unmap".into();
        node["discard"] = "unmap".into();
    }
    node["cache"] = json!({"direct": false, "no-flush": throw_away && !read_only});
    node["file"] = file;
    if disk.format == Format::Qcow2 {
        // Said in any case: without it QEMU opens whatever the file's header names.
        node["backing"] = disk.base.as_ref().map_or(Ok(Value::Null), |base| below(base, sets))?;
    }
    Ok(Some(node))
}

fn below(base: &Base, sets: Sets<'_>) -> Result<Value, Unfit> {
    let mut node = json!({"driver": name(base.format), "read-only": true,
        "file": {"driver": "file", "filename": file_name(&base.source, sets)?}});
    if base.format == Format::Qcow2 {
        node["backing"] = Value::Null;
    }
    Ok(node)
}

fn name(format: Format) -> &'static str {
    match format {
        Format::Raw => "raw",
        Format::Qcow2 => "qcow2",
    }
}

pub(super) fn utf8(path: &Path) -> Result<&str, Unfit> {
    path.to_str().ok_or_else(|| Unfit::Path(path.to_owned()))
}

/// A disk's device (`device_add`), behind the port of its name (without an address QEMU would put a second one behind the same port). `boot` is its place among what firmware may start, from 1.
pub fn disk_device(disk: &Disk, boot: Option<usize>) -> Result<Value, Unfit> {
    let mut device = json!({"driver": "virtio-blk-pci", "id": disk.vdev, "bus": format!("port-disk{}", number(&disk.vdev)?),
        "addr": "0x0", "drive": node_name(disk), "serial": disk.vdev});
    if let Some(boot) = boot {
        device["bootindex"] = boot.into();
    }
    Ok(device)
}

/// A CD drive; the `n`-th one. On a PC it is what installers expect; elsewhere there is no such bus, and it hangs on a SCSI
/// controller called `cds`.
pub fn cd_device(kind: Kind, disk: &Disk, n: usize, boot: Option<usize>) -> Value {
    let mut device = match kind {
        Kind::Q35 => json!({"driver": "ide-cd", "id": disk.vdev, "bus": format!("ide.{n}")}),
        Kind::Virt => json!({"driver": "scsi-cd", "id": disk.vdev, "bus": "cds.0", "scsi-id": n}),
    };
    if disk.source.is_some() {
        device["drive"] = node_name(disk).into();
    }
    if let Some(boot) = boot {
        device["bootindex"] = boot.into();
    }
    device
}

/// What a network interface is connected to (`netdev_add`). `tap` is the open device's number, or the name that it was given by
/// `getfd`. Errors: a bridge without a tap device.
pub fn netdev(nic: &Nic, n: usize, tap: Option<&str>) -> Result<Value, Unfit> {
    let id = format!("net{n}");
    match &nic.link {
        Link::User { publish } => {
            let forward = |p: &crate::backend::hexagon::Publish| {
                let protocol = if p.udp { "udp" } else { "tcp" };
                let address = p.address.map(|a| if a.is_ipv6() { format!("[{a}]") } else { a.to_string() });
                json!({"str": format!("{protocol}:{}:{}-:{}", address.unwrap_or_default(), p.host, p.guest)})
            };
            let mut netdev = json!({"type": "user", "id": id});
            if !publish.is_empty() {
                netdev["hostfwd"] = publish.iter().map(forward).collect();
            }
            Ok(netdev)
        }
        Link::Bridge { .. } => match tap {
            Some(fd) => Ok(json!({"type": "tap", "id": id, "fd": fd})),
            None => Err(Unfit::NoTap(n)),
        },
    }
}

/// A network interface's device. It starts no system from the network, so it needs no boot ROM, which not every host has.
pub fn nic_device(nic: &Nic, n: usize) -> Value {
    json!({"driver": "virtio-net-pci", "id": format!("nic{n}"), "bus": format!("port-nic{n}"), "addr": "0x0",
        "netdev": format!("net{n}"), "mac": nic.address(), "romfile": ""})
}

/// A flat value as one word of the older kind, `driver,key=value,…` with commas doubled: QEMU before 7.0 cannot unplug what it was
/// given as JSON. `first` is the key whose value stands alone in front.
pub fn word(value: &Value, first: &str) -> String {
    let empty = Map::new();
    let map = value.as_object().unwrap_or(&empty);
    let mut word = map.get(first).map(plain).unwrap_or_default();
    for (key, value) in map.iter().filter(|(key, _)| *key != first) {
        match value {
            Value::Array(list) => {
                list.iter().for_each(|item| write!(word, ",{key}={}", plain(&item["str"])).expect("a string"));
            }
            value => write!(word, ",{key}={}", plain(value)).expect("a string"),
        }
    }
    word
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace(',', ",,"),
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        other => other.to_string(),
    }
}
