//! The machines' disks: a Debian host with a kernel of its own, and the guests' trees. Each is built once from this machine's own
//! mirror, kept in the cache under the hash of its recipe, and never written to again: a running machine writes to a throw-away
//! layer of QEMU's. What a newcomer would get wrong: nothing here is mounted or booted; mke2fs fills a file system by itself, and
//! kernel and initrd are taken out of the tree and handed to QEMU.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::fixtures::{self, BARE_AMD64, BOOKWORM_AMD64, BOOKWORM_ARM64, mirror, mmdebstrap, once};
use crate::common::run::Run;
use crate::common::{secs, skip, write};

/// A host by its release and what is special about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// The release; also the name of the host's tests.
    pub suite: &'static str,
    /// Packages beside [`PACKAGES`].
    pub packages: &'static str,
    /// What `uname -r` begins with.
    pub kernel: &'static str,
    /// systemd's major version.
    pub systemd: u32,
    /// Gets this machine's qemu-aarch64, since its own is too old for any guest.
    pub brings_qemu: bool,
}

/// Debian 13, all of it its own.
pub const TRIXIE: Host =
    Host { suite: "trixie", packages: ",qemu-user", kernel: "6.12.", systemd: 257, brings_qemu: false };
/// Debian 12: the oldest kernel and systemd that pronto is meant for, with a newer interpreter.
pub const BOOKWORM: Host = Host { suite: "bookworm", packages: "", kernel: "6.1.", systemd: 252, brings_qemu: true };

/// What pronto needs of a host, and what the checks use. The cloud kernel is the same source with fewer drivers: a tenth of the
/// size, which is what building and booting here take.
const PACKAGES: &str = "linux-image-cloud-amd64,initramfs-tools,zstd,systemd,systemd-sysv,udev,dbus,systemd-container,util-linux,\
                        procps,iproute2,mount,kmod,jq";

/// The initrd holds what finds the root file system, and nothing else.
const INITRAMFS: &str = r#"cd "$1" && mkdir -p etc/initramfs-tools/conf.d etc/initramfs-tools/hooks
echo MODULES=list >etc/initramfs-tools/conf.d/ring
cat >etc/initramfs-tools/hooks/ring <<'END'
#!/bin/sh
[ "$1" != prereqs ] || exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk ext4 crc32c_generic
END
chmod +x etc/initramfs-tools/hooks/ring"#;

/// Done in the finished tree: the disks by their labels, and the unit that runs the checks and powers off. Whatever becomes of the
/// checks, the machine goes off.
const SETUP: &str = r#"mkdir -p "$1/mnt/in" "$1/mnt/trees"
echo host >"$1/etc/hostname"
printf '/dev/vda / ext4 defaults 0 0\nLABEL=in /mnt/in ext4 ro 0 0\nLABEL=trees /mnt/trees ext4 ro 0 0\n' >"$1/etc/fstab"
cat >"$1/etc/systemd/system/checks.service" <<'END'
[Unit]
Description=The ring's checks
Wants=dbus.socket
After=multi-user.target
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=exec
ExecStart=/bin/bash /mnt/in/run.sh
StandardOutput=journal+console
StandardError=journal+console
END
mkdir -p "$1/etc/systemd/system/multi-user.target.wants"
ln -s ../checks.service "$1/etc/systemd/system/multi-user.target.wants/checks.service"
ln -sf /dev/null "$1/etc/systemd/system/apt-daily.timer"
ln -sf /dev/null "$1/etc/systemd/system/apt-daily-upgrade.timer"
ln -sf /dev/null "$1/etc/systemd/system/serial-getty@ttyS0.service""#;

impl Host {
    /// The directory with `root.img`, `vmlinuz` and `initrd`, built now if need be.
    pub fn built(self) -> PathBuf {
        let text = format!("1\n{} {PACKAGES}{}\n{INITRAMFS}\n{SETUP}\n", self.suite, self.packages);
        once(&format!("host {}", self.suite), &text, |half| self.build(half))
    }

    fn build(self, half: &Path) {
        let tree = half.join("tree");
        let mut run = mmdebstrap().args(["--quiet", "--format=directory", "--variant=minbase"]);
        run = run.arg("--architectures=amd64").arg(format!("--include={PACKAGES}{}", self.packages));
        run = run.arg(format!("--essential-hook={INITRAMFS}")).arg(format!("--customize-hook={SETUP}"));
        let source = format!("deb {} {} main", mirror(), self.suite);
        let out = run.arg(self.suite).arg(&tree).arg(source).limit(secs(20 * 60)).run();
        write(half.join("log"), out.stderr.clone());
        if out.err().contains("does not have a Release file") || out.err().contains("404  Not Found") {
            skip!("the mirror does not carry {}", self.suite);
        }
        out.ok();
        for (prefix, name) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd")] {
            let boot = std::fs::read_dir(tree.join("boot")).expect("the tree's /boot").flatten();
            let mut found = boot.filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
            let file = found.next().unwrap_or_else(|| panic!("no {prefix}* in the tree's /boot"));
            std::fs::rename(file.path(), half.join(name)).expect("a file is moved");
        }
        file_system(&tree, &half.join("root.img"), "root", 6 << 10);
        std::fs::remove_dir_all(&tree).expect("the tree is removed");
    }
}

/// The guests' trees as one file system: `arm64` and `amd64` (Debian 12 with an init), `light`.
pub fn trees() -> PathBuf {
    let recipes = [("arm64", BOOKWORM_ARM64), ("amd64", BOOKWORM_AMD64), ("light", BARE_AMD64)];
    let keys: Vec<String> = recipes.iter().map(|(name, recipe)| format!("{name} {}", recipe.key())).collect();
    let dir =
        once("the guests' trees for hosts", &format!("1\n{}\n{}", keys.join("\n"), fixtures::LIGHT_INIT), |half| {
            let all = half.join("all");
            for (name, recipe) in recipes {
                let tree = all.join(name);
                std::fs::create_dir_all(&tree).expect("a directory");
                let unpack = Run::new("tar").args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"]);
                unpack.arg(recipe.tar()).arg("-C").arg(&tree).limit(secs(300)).run().ok();
            }
            fixtures::make_light(&all.join("light"));
            file_system(&all, &half.join("trees.img"), "trees", 64);
            std::fs::remove_dir_all(&all).expect("the trees are removed");
        });
    dir.join("trees.img")
}

/// An ext4 file system of everything in `tree`, with `room` MiB to spare.
pub fn file_system(tree: &Path, image: &Path, label: &str, room: u64) {
    let used = Run::new("du").args(["-sm", "--apparent-size"]).arg(tree).limit(secs(120)).run().ok();
    let used: u64 = used.text().split_whitespace().next().and_then(|n| n.parse().ok()).expect("du's number");
    // Small files take a whole block each; the image is sparse, so being generous costs nothing.
    let size = format!("{}M", used * 3 / 2 + room);
    let make = Run::new("mke2fs").args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-m", "0", "-L", label, "-d"]);
    make.arg(tree).arg(image).arg(size).limit(secs(300)).run().ok();
}

/// Whether everything here can be built at all; why not, otherwise.
pub fn missing() -> Option<String> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        let needed = ["qemu-system-x86_64", "mmdebstrap", "qemu-aarch64", "mke2fs", "tar", "du"];
        let missing: Vec<&str> = needed.into_iter().filter(|p| !crate::common::have(p)).collect();
        (!missing.is_empty())
            .then(|| format!("not installed: {} (contrib/install-deps.sh run test)", missing.join(", ")))
    };
    MISSING.get_or_init(look).clone()
}
