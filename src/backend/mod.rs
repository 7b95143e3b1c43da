//! What turns a plan into a running thing. What a newcomer would get wrong: a backend's argv and config text come from pure
//! functions (golden tests sit there); starting the program is the monitor's work.

pub mod direct;
pub mod hexagon;
pub mod nspawn;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::domain::Network;

/// One bind mount, its source already put at a path that the started program sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Where the source is staged.
    pub staged: PathBuf,
    /// Absolute path in the guest.
    pub target: PathBuf,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// Everything that a backend must know to start one run of a domain.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The machine's unique name on this host.
    pub machine: String,
    /// The guest's hostname.
    pub hostname: String,
    /// The domain's identity, 32 hex digits: container_uuid, and the machine-id of a guest that has none.
    pub machine_id: String,
    /// The directory that holds the guest's root, as the started program sees it.
    pub root: PathBuf,
    /// How it is connected.
    pub network: Network,
    /// What to show in the guest.
    pub shared: Vec<Shared>,
    /// Variables for the guest's init.
    pub env: Vec<(OsString, OsString)>,
    /// Address of the socket that readiness is told to (`@name` is abstract).
    pub notify: String,
    /// Whether the guest gets a cgroup v2 tree (every systemd since 247 can; 257 and newer need it).
    pub unified_cgroup: bool,
    /// The ids of the guest's user namespace: the first one of 65536 on the host. The root is shown under them already.
    pub ids: Option<u32>,
    /// A program that runs first and becomes the guest's init later, and that init; nspawn looks for the init when none.
    pub gate: Option<Gate>,
    /// Whether our own seccomp filter is installed already, so that nspawn need not build its own.
    pub fenced: bool,
}

/// What stands before a guest's init (see `sys::gate`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Where the waiting program is, as the guest's first process sees it.
    pub program: PathBuf,
    /// The init that it becomes.
    pub init: PathBuf,
    /// How many descriptors nspawn has inherited for it, from 3 on.
    pub descriptors: u32,
}

/// A program to start: words (the program first) and variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// argv.
    pub words: Vec<OsString>,
    /// The complete environment.
    pub env: Vec<(OsString, OsString)>,
}

/// A way to run domains. `name` is stored, so it must never change.
pub trait Backend: Send {
    /// Its stable name.
    fn name(&self) -> &'static str;
    /// The program that runs this plan. Pure.
    fn launch(&self, plan: &Plan) -> Launch;
}
