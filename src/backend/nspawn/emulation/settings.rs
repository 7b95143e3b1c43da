//! Which settings of systemd.exec(5) fail under which qemu-user, by systemd's version: the table that decides what the emulation
//! layer resets. Data. What a newcomer would get wrong: it is measured, never guessed (contrib/resets.sh tries every setting in a
//! running guest), and a setting that works with this emulator is never reset, since it protects the guest.
//!
//! Why they fail: qemu-user is multi-threaded, so clone(2) with CLONE_NEWNS and its kin fails in it with EINVAL, where unshare(2)
//! works; unshare(CLONE_NEWUSER) fails for the same reason. systemd sets up credentials in such a clone (262 no longer), and from 254
//! on a whole sandbox needs what QEMU 10 does not have. A network or IPC namespace is handed from one process of a unit to the next as a
//! descriptor in a socket's control message, of which qemu loses the descriptor ("Failed to set up network namespacing").

use super::Version;

/// A setting that can fail.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// The value that means "none".
    pub none: &'static str,
    /// The systemd that introduced it.
    since: u32,
    /// Why it fails.
    fails: Group,
}

/// Settings that fail together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A namespace by clone(2), a user namespace, or a namespace handed on: no QEMU does it.
    Namespace,
    /// Credentials, which older systemds set up by clone(2).
    Credentials,
    /// The mount namespace of a service.
    Sandbox,
}

/// The first systemd whose sandbox fails (its executor sets it up in another way).
const SANDBOX_SINCE: u32 = 254;
/// The first QEMU that was seen to do that way. 10.0.13 does not; what lies between was not at hand.
const SANDBOX_CURED: Version = (11, 1, 0);

/// The first systemd whose credentials were seen to work. 257's do not; what lies between was not at hand.
const CREDENTIALS_CURED: u32 = 262;

impl Group {
    /// Whether the group's settings fail in a guest with this systemd under this QEMU.
    fn fails(self, systemd: u32, qemu: Version) -> bool {
        match self {
            Group::Namespace => true,
            Group::Credentials => systemd < CREDENTIALS_CURED,
            Group::Sandbox => systemd >= SANDBOX_SINCE && qemu < SANDBOX_CURED,
        }
    }
}

/// The table. Left out, since a service without it would be another service: NetworkNamespacePath=, IPCNamespacePath=, RootImage=
/// (see `ops::inspect::units`); and since it works everywhere: ProtectHostname=, ProtectClock=, RootDirectory=, DynamicUser= but for
/// what it implies of the sandbox.
const SETTINGS: [Setting; 32] = {
    use Group::{Credentials, Namespace, Sandbox};
    const fn row(key: &'static str, none: &'static str, since: u32, fails: Group) -> Setting {
        Setting { key, none, since, fails }
    }
    [
        row("PrivateUsers", "no", 232, Namespace),
        row("PrivateNetwork", "no", 187, Namespace),
        row("PrivateIPC", "no", 248, Namespace),
        row("PrivatePIDs", "no", 257, Namespace),
        row("LoadCredential", "", 247, Credentials),
        row("SetCredential", "", 247, Credentials),
        row("LoadCredentialEncrypted", "", 250, Credentials),
        row("SetCredentialEncrypted", "", 250, Credentials),
        row("ImportCredential", "", 254, Credentials),
        row("ReadWritePaths", "", 231, Sandbox),
        row("ReadOnlyPaths", "", 231, Sandbox),
        row("InaccessiblePaths", "", 231, Sandbox),
        row("ExecPaths", "", 248, Sandbox),
        row("NoExecPaths", "", 248, Sandbox),
        row("TemporaryFileSystem", "", 238, Sandbox),
        row("BindPaths", "", 233, Sandbox),
        row("BindReadOnlyPaths", "", 233, Sandbox),
        row("MountFlags", "", 209, Sandbox),
        row("MountAPIVFS", "no", 233, Sandbox),
        row("PrivateTmp", "no", 187, Sandbox),
        row("PrivateDevices", "no", 209, Sandbox),
        row("PrivateMounts", "no", 239, Sandbox),
        row("ProtectSystem", "no", 214, Sandbox),
        row("ProtectHome", "no", 214, Sandbox),
        row("ProtectKernelTunables", "no", 232, Sandbox),
        row("ProtectKernelModules", "no", 232, Sandbox),
        row("ProtectKernelLogs", "no", 244, Sandbox),
        row("ProtectControlGroups", "no", 232, Sandbox),
        row("ProtectProc", "default", 247, Sandbox),
        row("ProcSubset", "all", 247, Sandbox),
        row("LogNamespace", "", 245, Sandbox),
        row("BindLogSockets", "no", 257, Sandbox),
    ]
};

/// The settings that fail in a guest with this systemd under this QEMU, and that this systemd knows: an unknown key would be a
/// warning for every unit.
pub fn failing(systemd: u32, qemu: Version) -> impl Iterator<Item = Setting> {
    SETTINGS.into_iter().filter(move |s| s.since <= systemd && s.fails.fails(systemd, qemu))
}

/// Whether services have no sandbox at all.
pub fn sandbox_fails(systemd: u32, qemu: Version) -> bool {
    Group::Sandbox.fails(systemd, qemu)
}
