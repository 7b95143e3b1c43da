//! What an image brings for the machine that it was made for, and that keeps a guest from coming up: entries of fstab for disks that
//! a guest does not have (systemd goes into emergency mode for them), a library that is loaded into every program, and services
//! that ask, wait or resize. Pure: text in, text out. What a newcomer would get wrong: the image stays as it is. What is written
//! here goes into a tree over it, and a guest's own later changes lie over that.
//! Sources: fstab(5), ld.so(8), systemd.unit(5), pi-gen and raspberrypi-sys-mods, cloud-init "How to disable cloud-init".

/// Services that are masked where an image has them.
pub const UNITS: [&str; 11] = [
    // Asks for the first user's name on the console, before any login.
    "userconfig.service",
    // Make the root as large as the card, once.
    "resize2fs_once.service",
    "rpi-resizerootfs.service",
    "systemd-growfs-root.service",
    "armbian-resize-filesystem.service",
    "dietpi-fs_partition_resize.service",
    // Make and use a swap file, which a guest may not.
    "dphys-swapfile.service",
    "rpi-swapfile.service",
    // Look for the board's firmware.
    "rpi-eeprom-update.service",
    "rpi-reconfigure-raspi-firmware.service",
    "armbian-hardware-optimize.service",
];

/// Units may be here, the first being the administrator's.
pub const UNIT_DIRECTORIES: [&str; 3] = ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// When this file is there, cloud-init leaves the boot alone: there is no service to ask for data, and it waits minutes for one.
pub const NO_CLOUD_INIT: &str = "etc/cloud/cloud-init.disabled";

/// An entry of fstab for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `PARTUUID=…`, `/dev/…`.
    pub device: String,
    /// Where it goes.
    pub point: String,
}

/// fstab without what a guest has no device for, and those entries; `None` when there is nothing to change.
pub fn fstab(text: &str) -> Option<(String, Vec<Mount>)> {
    let mut mounts = Vec::new();
    let mut out = String::new();
    for line in text.lines() {
        if let Some(mount) = device(line) {
            out += "# not in a guest (commented out by pronto): ";
            mounts.push(mount);
        }
        out += line;
        out.push('\n');
    }
    (!mounts.is_empty()).then_some((out, mounts))
}

fn device(line: &str) -> Option<Mount> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return None;
    }
    let mut fields = line.split_whitespace();
    let (device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
    let named = ["UUID=", "PARTUUID=", "LABEL=", "PARTLABEL=", "ID=", "/dev/"].iter().any(|p| device.starts_with(p));
    (named || kind == "swap").then(|| Mount { device: device.to_owned(), point: point.to_owned() })
}

/// ld.so.preload without the Raspberry Pi's fast memcpy, which makes every program complain when it is not there for the CPU that is
/// emulated, and stops some that it is there for; `None` when it is not in it.
pub fn preload(text: &str) -> Option<String> {
    let unwanted = |word: &str| word.contains("libarmmem") || word.contains("libcofi_rpi");
    let kept: Vec<String> = text
        .lines()
        .map(|line| {
            line.split([' ', '\t', ':']).filter(|w| !w.is_empty() && !unwanted(w)).collect::<Vec<_>>().join(" ")
        })
        .filter(|line| !line.is_empty())
        .collect();
    let changes = text.split([' ', '\t', ':', '\n']).any(unwanted);
    changes.then(|| kept.iter().map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_commented_out_and_the_rest_stays() {
        let text = "proc /proc proc defaults 0 0\n# PARTUUID=x / ext4\nPARTUUID=1234-01  /boot/firmware  vfat  defaults  0  2\n\
                    PARTUUID=1234-02 / ext4 defaults,noatime 0 1\ntmpfs /tmp tmpfs size=1G 0 0\n/swapfile none swap sw 0 0\n\
                    \t/dev/sda1 /data ext4\nserver:/x /y nfs defaults";
        let (new, mounts) = fstab(text).unwrap();
        let places: Vec<_> = mounts.iter().map(|m| m.point.as_str()).collect();
        assert_eq!(places, ["/boot/firmware", "/", "none", "/data"]);
        let left: Vec<_> = new.lines().filter(|l| !l.starts_with('#')).collect();
        assert_eq!(left, ["proc /proc proc defaults 0 0", "tmpfs /tmp tmpfs size=1G 0 0", "server:/x /y nfs defaults"]);
        assert_eq!(new.lines().count(), text.lines().count(), "nothing is lost");
        assert!(new.contains("commented out by pronto): PARTUUID=1234-02 / ext4"));
        assert_eq!(fstab("# nothing\nproc /proc proc\n\n/dev/x"), None);
    }

    #[test]
    fn only_the_one_library_goes() {
        assert_eq!(preload("/usr/lib/arm-linux-gnueabihf/libarmmem-${PLATFORM}.so\n").unwrap(), "");
        assert_eq!(preload("/a.so /usr/lib/libarmmem.so:/b.so\n/c.so").unwrap(), "/a.so /b.so\n/c.so\n");
        assert_eq!(preload("/usr/lib/libeatmydata.so\n"), None);
        assert_eq!(preload(""), None);
    }
}
