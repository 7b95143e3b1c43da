//! What only a guest with a kernel of its own can be told, and what it was given when it was made. What a newcomer would get wrong: disks and
//! network interfaces are kept as the texts that xl takes (xl-disk-configuration(5), xl-network-configuration(5)), since a Xen host's `xl` is
//! to see every word of them; they were read once before, so they are right.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Whose kernel a guest runs on, and on what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The host's (systemd-nspawn).
    #[default]
    Nspawn,
    /// Its own, on QEMU.
    Qemu,
    /// Its own, on Xen.
    Xen,
}

impl Backend {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Nspawn => "nspawn",
            Backend::Qemu => "qemu",
            Backend::Xen => "xen",
        }
    }
}

/// Who executes a guest's instructions under QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Executor {
    /// The host's CPU.
    Kvm,
    /// QEMU's translator, with a thread for each virtual CPU.
    Tcg,
    /// QEMU's translator on one thread: slower with several CPUs, for where several threads run a guest wrongly.
    TcgSingle,
}

/// A port of this host's that leads into a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// On which address; all of them when none.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The guest's.
    pub guest: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

/// What was asked for, besides what every domain can be told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Full {
    /// Who shall execute it; none: the host's CPU where it can.
    pub executor: Option<Executor>,
    /// Its kernel, a file of the host's; none: the image's own.
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk, a file of the host's.
    pub ramdisk: Option<PathBuf>,
    /// The kernel's words, instead of ours.
    pub cmdline: Option<String>,
    /// The most virtual CPUs that it may get.
    pub max_vcpus: Option<u32>,
    /// How much room its root has beyond what the image takes, in bytes.
    pub room: Option<u64>,
    /// Disks besides its root, in xl's words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<String>,
    /// Network interfaces in xl's words; none: one behind this host's address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vifs: Vec<String>,
    /// Ports of this host's that lead into it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<Publish>,
}

/// How many places a machine has that something can be plugged into while it runs. It is part of what a saved guest is restored with, so
/// it is counted once, when the domain is made, and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ports {
    /// For disks, by the number of the disk's name (`xvda` is 0).
    pub disks: u8,
    /// For network interfaces, by number.
    pub nics: u8,
}

/// What a machine starts. What is the domain's own is a name in its directory, as long as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// A kernel that is handed over.
    Kernel {
        /// The kernel's image.
        kernel: PathBuf,
        /// The initial RAM disk.
        ramdisk: Option<PathBuf>,
        /// The kernel's words.
        cmdline: String,
    },
    /// UEFI, which finds what the disks hold.
    Firmware {
        /// The firmware's code, read-only.
        code: PathBuf,
        /// Its variables, the domain's own, where it has some.
        variables: Option<PathBuf>,
    },
    /// What the machine does by itself (a PC's BIOS, a Xen bootloader).
    Itself,
}

impl Boot {
    /// The same with whole paths; `dir` is the domain's directory, which may have been renamed.
    #[must_use]
    pub fn within(&self, dir: &Path) -> Boot {
        let own = |path: &PathBuf| dir.join(path);
        match self {
            Boot::Kernel { kernel, ramdisk, cmdline } => {
                Boot::Kernel { kernel: own(kernel), ramdisk: ramdisk.as_ref().map(own), cmdline: cmdline.clone() }
            }
            Boot::Firmware { code, variables } => {
                Boot::Firmware { code: own(code), variables: variables.as_ref().map(own) }
            }
            Boot::Itself => Boot::Itself,
        }
    }
}

/// The machine that a guest was given. Only what a restart, or a restore, must find again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// QEMU's program.
    pub program: PathBuf,
    /// QEMU's version, `7.2.22`.
    pub version: String,
    /// The machine with its version, as QEMU names it: `virt-7.2`.
    pub machine: String,
    /// QEMU's name of the CPU model.
    pub cpu: String,
    /// Who executes.
    pub executor: Executor,
    /// Whether QEMU can forbid itself system calls.
    pub sandbox: bool,
    /// What can be plugged in.
    pub ports: Ports,
    /// What it starts.
    pub boot: Boot,
    /// What lies under its root disk, where that is a copy-on-write one; its own changes are in its directory.
    pub base: Option<PathBuf>,
    /// The addresses of its network interfaces, in order.
    pub macs: Vec<[u8; 6]>,
}
