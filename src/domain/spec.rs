//! What was asked for a domain: from flags, or from `key=value` words with xl's names. It is stored with the domain, so that
//! `start` and a reboot do the same again. What a newcomer would get wrong: paths and variables are bytes, not UTF-8.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Accel, Backend, Full};

/// What a domain shall be. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Spec {
    /// The guest's hostname; the domain's name when it is none.
    pub hostname: Option<String>,
    /// The image as the user wrote it.
    pub image: String,
    /// Whose kernel it runs on.
    #[serde(skip_serializing_if = "is_default")]
    pub backend: Backend,
    /// What only a guest with a kernel of its own can be told.
    #[serde(skip_serializing_if = "is_default")]
    pub full: Full,
    /// The architecture's profile name (`arm64`) that was asked for, if any.
    pub arch: Option<String>,
    /// Memory limit in bytes.
    pub memory: Option<u64>,
    /// Upper bound of the memory limit in bytes (xl's `maxmem`).
    pub maxmem: Option<u64>,
    /// How many CPUs' worth of time the domain may use.
    pub vcpus: Option<u32>,
    /// Which CPUs it may use, in cpuset's list form (`0-1,3`).
    pub cpus: Option<String>,
    /// How it is connected.
    pub network: Network,
    /// Whether the guest runs in a user namespace with ids of its own; `None`: where this host can.
    pub userns: Option<bool>,
    /// Where a foreign guest's interpreter is registered; `None`: in the guest's own namespace where this kernel can.
    pub binfmt: Option<Registry>,
    /// The CPU model that an emulated guest sees, by QEMU's name.
    pub cpu: Option<String>,
    /// The board whose CPU it sees (`rpi4`), when no model is given.
    pub board: Option<String>,
    /// Which of its programs are native ones of this machine.
    pub accel: Accel,
    /// Programs and packages that stay emulated all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accel_exclude: Vec<String>,
    /// Register its interpreter without the C flag: setuid programs lose their privilege.
    pub no_credentials: bool,
    /// Host directories and files to show in the guest.
    pub binds: Vec<Bind>,
    /// Variables for the guest's init or command.
    pub env: Vec<(OsString, OsString)>,
    /// What to do when the guest powers off.
    pub on_poweroff: Action,
    /// What to do when the guest reboots.
    pub on_reboot: Option<Action>,
    /// What to do when the guest's init dies or the monitor ends badly.
    pub on_crash: Action,
    /// Discard the domain when it ends.
    pub rm: bool,
}

/// What was not asked for need not be written down.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How a domain is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// It shares the host's network.
    #[default]
    Host,
    /// It has a loopback interface only.
    None,
}

/// Whose registry of interpreters (binfmt_misc) a foreign guest's programs are found through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    /// The guest's own, which nobody else sees and which ends with it (Linux 6.7).
    Private,
    /// The host's.
    Host,
}

/// What happens after a domain has ended by itself (xl.cfg's `on_*`); all but the first two are for guests with a kernel of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is shut off (with `--rm`: removed).
    #[default]
    Destroy,
    /// It is started again.
    Restart,
    /// It stays as it is, ended, until it is destroyed.
    Preserve,
    /// What was in its memory is kept in a file; then it is shut off.
    CoredumpDestroy,
    /// What was in its memory is kept in a file; then it is started again.
    CoredumpRestart,
}

/// One `-v SRC:DST[:ro]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: PathBuf,
    /// Absolute path in the guest.
    pub target: PathBuf,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

impl Spec {
    /// Whether nothing that the guest writes can outlive it: a domain that is discarded and shares no directory to write to.
    pub fn forgets(&self) -> bool {
        self.rm && self.binds.iter().all(|bind| bind.read_only)
    }

    /// What a reboot inside the guest does: restart unless said otherwise, as xl.
    pub fn on_reboot(&self) -> Action {
        self.on_reboot.unwrap_or(Action::Restart)
    }
}
