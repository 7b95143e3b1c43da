//! The emulation layer: what a foreign guest's systemd must be told so that no unit fails under qemu-user. A small tree of
//! `usr/lib/…` files that is stacked above the image and below the domain's own changes; the image is not touched.
//!
//! What a newcomer would get wrong: drop-ins apply in the order of their *names* over all directories, so ours is called
//! `zzz-pronto.conf` to come after an `override.conf`; and it is a top-level `service.d` one, so that units installed or
//! edited later are covered too (systemd.unit(5)). An unknown key is a warning for every service, so only keys that this
//! guest's systemd knows are written.
//!
//! Why: qemu-user is multi-threaded, so clone(2) with CLONE_NEWNS fails in it with EINVAL, where unshare(2) works. systemd
//! sets up credentials in such a clone since 250, and a service's whole sandbox since 254. A network or IPC namespace is
//! handed from one process of a unit to the next as a descriptor in a socket's control message, of which qemu loses the
//! descriptor: "Failed to set up network namespacing: Input/output error", seen with every systemd from 247 on.

/// Where the drop-in lies in the guest.
pub const DROP_IN: &str = "usr/lib/systemd/system/service.d/zzz-pronto.conf";

/// One setting to reset: its key, the value that means "none", and the systemd that introduced it.
type Reset = (&'static str, &'static str, u32);

/// Namespaces that are handed on as descriptors.
const HANDED_ON: [Reset; 2] = [("PrivateNetwork", "no", 187), ("PrivateIPC", "no", 248)];

/// Credentials need a mount namespace by clone(2) since systemd 250.
const CREDENTIALS: [Reset; 5] = [
    ("LoadCredential", "", 247),
    ("SetCredential", "", 247),
    ("LoadCredentialEncrypted", "", 250),
    ("SetCredentialEncrypted", "", 250),
    ("ImportCredential", "", 254),
];

/// Everything that makes systemd give a service a mount, user or pid namespace of its own.
const SANDBOX: [Reset; 23] = [
    ("ReadWritePaths", "", 231),
    ("ReadOnlyPaths", "", 231),
    ("InaccessiblePaths", "", 231),
    ("ExecPaths", "", 248),
    ("NoExecPaths", "", 248),
    ("TemporaryFileSystem", "", 238),
    ("BindPaths", "", 233),
    ("BindReadOnlyPaths", "", 233),
    ("MountFlags", "", 209),
    ("PrivateTmp", "no", 187),
    ("PrivateDevices", "no", 209),
    ("PrivateMounts", "no", 239),
    ("PrivateUsers", "no", 232),
    ("PrivatePIDs", "no", 257),
    ("ProtectSystem", "no", 214),
    ("ProtectHome", "no", 214),
    ("ProtectKernelTunables", "no", 232),
    ("ProtectKernelModules", "no", 232),
    ("ProtectKernelLogs", "no", 244),
    ("ProtectControlGroups", "no", 232),
    ("ProtectHostname", "no", 242),
    ("ProtectProc", "default", 247),
    ("ProcSubset", "all", 247),
];

/// The first systemd that sets up credentials by clone(2) with a mount namespace.
const CREDENTIALS_SINCE: u32 = 250;
/// The first systemd whose sandbox fails as well (its executor clones instead of unsharing).
const SANDBOX_SINCE: u32 = 254;

/// The text of the drop-in for a guest with this systemd.
pub fn drop_in(systemd: u32) -> String {
    let mut resets: Vec<Reset> = HANDED_ON.to_vec();
    if systemd >= CREDENTIALS_SINCE {
        resets.extend(CREDENTIALS);
    }
    if systemd >= SANDBOX_SINCE {
        resets.extend(SANDBOX);
    }
    let mut text = String::from(
        "# Written by pronto: this guest's CPU is emulated, and the emulator cannot give a service namespaces of its own.\n\
         # Not part of the image; native domains do not have it.\n[Service]\n",
    );
    for (key, value, since) in resets {
        if since <= systemd {
            text += &format!("{key}={value}\n");
        }
    }
    text
}

/// Whether services of this guest run without their sandbox, which the user should know.
pub fn sandbox_off(systemd: u32) -> bool {
    systemd >= SANDBOX_SINCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_systemd_needs_and_knows() {
        let settings = |systemd| drop_in(systemd).split_once("[Service]\n").unwrap().1.trim().replace('\n', " ");
        assert_eq!(settings(247), "PrivateNetwork=no", "bullseye sandboxes well but for the network");
        let bookworm = settings(252);
        assert!(bookworm.contains(" LoadCredential= ") && bookworm.starts_with("PrivateNetwork=no PrivateIPC=no "));
        assert!(!bookworm.contains("ImportCredential") && !bookworm.contains("PrivateTmp"));
        let trixie = drop_in(257);
        for line in ["ImportCredential=", "PrivateTmp=no", "ProtectProc=default", "PrivatePIDs=no"] {
            assert!(trixie.lines().any(|l| l == line), "{line}");
        }
        assert!(!drop_in(255).contains("PrivatePIDs"), "255 does not know it and would warn for every service");
    }
}
