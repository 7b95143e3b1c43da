//! Guests with a kernel of their own. One description, [`Machine`], and two drivers that turn it into something to run by pure functions:
//! `qemu` (argv) and `xen` (xl.cfg). What a newcomer would get wrong: nothing in here is open or running; paths are as the started
//! program sees them.

pub mod qemu;
pub mod xen;

use std::path::PathBuf;

pub use crate::domain::full::{Boot, Publish};

/// All that a driver must know of one run of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The domain's name.
    pub name: String,
    /// Its identity, in the form of RFC 9562 (`6ba7b810-9dad-…`).
    pub uuid: String,
    /// The profile's name of its architecture: `arm64`.
    pub arch: String,
    /// Memory at start, in bytes.
    pub memory: u64,
    /// The most memory that it may get, in bytes (xl's `maxmem`).
    pub max_memory: Option<u64>,
    /// Virtual CPUs at start.
    pub vcpus: u32,
    /// The most virtual CPUs (xl's `maxvcpus`).
    pub max_vcpus: Option<u32>,
    /// What it starts.
    pub boot: Boot,
    /// Its disks, in order.
    pub disks: Vec<Disk>,
    /// Its network interfaces, in order.
    pub nics: Vec<Nic>,
}

/// How a disk's content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// As it is.
    Raw,
    /// QEMU's copy-on-write format.
    Qcow2,
}

/// What a copy-on-write disk shows where it was not written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The file, which is only read.
    pub source: PathBuf,
    /// How it is kept. It has no base itself.
    pub format: Format,
}

/// A disk or a CD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The file or block device; none: an empty drive.
    pub source: Option<PathBuf>,
    /// Whether the source is a block device, not a file.
    pub block: bool,
    /// How it is kept.
    pub format: Format,
    /// What lies below a qcow2. The file's own word for it is never followed: it may name anything on this host.
    pub base: Option<Base>,
    /// The name that xl would give it: `xvda`, `vdb`, `hdc`.
    pub vdev: String,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Whether it is a CD.
    pub cdrom: bool,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its address.
    pub mac: [u8; 6],
    /// What it is connected to.
    pub link: Link,
}

impl Nic {
    /// Its address as people write it, `00:16:3e:01:02:ab`.
    pub fn address(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// What a network interface is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// A network behind this host's address, made by QEMU; ports of the host's lead into it.
    User {
        /// Ports of the host's, and where each leads.
        publish: Vec<Publish>,
    },
    /// A bridge of the host's.
    Bridge {
        /// The bridge.
        bridge: String,
        /// The name of the interface on the host's side, where it matters.
        name: Option<String>,
    },
}
