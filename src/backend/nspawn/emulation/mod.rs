//! The emulation layer: what a foreign guest's systemd must be told so that no unit fails under qemu-user. A small tree of
//! `usr/lib/…` files that is stacked above the image and below the domain's own changes; the image is not touched. Pure.
//!
//! What a newcomer would get wrong: drop-ins apply in the order of their *names* over all directories, so ours are called
//! `zzz-pronto.conf` to come after an `override.conf`; and they are top-level ones (`service.d`), so that units installed or
//! edited later are covered too (systemd.unit(5)). Sockets, mounts and swaps start programs as services do, and so does every
//! user's own manager.

mod settings;

use settings::Setting;

/// QEMU's version, as the room binfmt has it; rooms of one floor do not know each other.
pub type Version = (u32, u32, u32);

/// The directories of the layer that images have, too, the deepest first: theirs show through, but for their times, which systemd and
/// others go by (ConditionNeedsUpdate= of systemd.unit(5)).
pub const DIRECTORIES: [&str; 5] =
    ["usr/lib/systemd/system", "usr/lib/systemd/user", "usr/lib/systemd", "usr/lib", "usr"];

/// The managers of a guest, by their directories of units.
const MANAGERS: [&str; 2] = ["usr/lib/systemd/system", "usr/lib/systemd/user"];

/// The kinds of units that start programs, and the sections that hold their settings (systemd.exec(5)).
const KINDS: [(&str, &str); 4] =
    [("service.d", "Service"), ("socket.d", "Socket"), ("mount.d", "Mount"), ("swap.d", "Swap")];

/// The files of the layer for a guest with this systemd under this QEMU: paths below the guest's root, and their text. Drop-ins
/// for a kind of units are read since systemd 244.
pub fn layer(systemd: u32, qemu: Version) -> Vec<(String, String)> {
    let resets: String =
        settings::failing(systemd, qemu).map(|Setting { key, none, .. }| format!("{key}={none}\n")).collect();
    let files = KINDS.iter().flat_map(|(dir, section)| {
        let text = format!(
            "# Written by pronto: this guest's CPU is emulated, and the emulator cannot do what is reset here.\n\
             # Not part of the image; native domains do not have it.\n[{section}]\n{resets}"
        );
        MANAGERS.map(|manager| (format!("{manager}/{dir}/zzz-pronto.conf"), text.clone()))
    });
    files.collect()
}

/// What a guest's user should be told of what its services lack: nothing while they have a sandbox.
pub fn warning(systemd: u32, qemu: Version) -> Option<&'static str> {
    settings::sandbox_fails(systemd, qemu)
        .then_some("its services run without a sandbox, and those with DynamicUser= fail (qemu-user 11.1 does better)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Version = (10, 0, 13);
    const NEW: Version = (11, 1, 3);

    /// The keys that are reset, which are the same in every file.
    fn keys(systemd: u32, qemu: Version) -> Vec<String> {
        let files = layer(systemd, qemu);
        let resets = |text: &str| text.split_once("]\n").unwrap().1.to_owned();
        let first = resets(&files[0].1);
        assert!(files.iter().all(|(_, text)| resets(text) == first));
        first.lines().map(|l| l.split_once('=').unwrap().0.to_owned()).collect()
    }

    const ALWAYS: [&str; 4] = ["PrivateUsers", "PrivateNetwork", "LoadCredential", "SetCredential"];

    #[test]
    fn what_is_reset_by_release() {
        for qemu in [OLD, NEW] {
            assert_eq!(keys(247, qemu), ALWAYS, "bullseye");
            let encrypted = ["LoadCredentialEncrypted", "SetCredentialEncrypted"];
            let bookworm = [&ALWAYS[..2], &["PrivateIPC"], &ALWAYS[2..], &encrypted].concat();
            assert_eq!(keys(252, qemu), bookworm, "bookworm");
        }
        let trixie = keys(257, NEW);
        assert_eq!(trixie[..4], ["PrivateUsers", "PrivateNetwork", "PrivateIPC", "PrivatePIDs"]);
        assert_eq!(trixie.len(), 9, "the sandbox works with this QEMU: {trixie:?}");
        assert_eq!(trixie[8], "ImportCredential");
        let older = keys(257, OLD);
        assert_eq!(older.len(), 32, "with this one it does not");
        assert!(
            !keys(255, OLD).contains(&"PrivatePIDs".to_owned()),
            "255 does not know it and would warn for every unit"
        );
        assert_eq!(keys(262, NEW), trixie[..4], "credentials work again");
    }

    #[test]
    fn every_kind_of_unit_that_starts_programs() {
        let files = layer(257, NEW);
        assert_eq!(files.len(), 8);
        assert_eq!(files[0].0, "usr/lib/systemd/system/service.d/zzz-pronto.conf");
        assert!(files.iter().any(
            |(path, text)| path == "usr/lib/systemd/user/socket.d/zzz-pronto.conf" && text.contains("\n[Socket]\n")
        ));
    }

    #[test]
    fn what_the_user_is_told() {
        assert_eq!(warning(257, NEW), None);
        assert_eq!(warning(252, OLD), None);
        assert!(warning(257, OLD).unwrap().contains("DynamicUser="));
    }
}
