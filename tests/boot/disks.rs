//! Disk images that boot: a Raspberry Pi's card, a cloud's tar, QEMU's format. What a newcomer would get wrong: the images are made of
//! the ring's own systems by the tools that real ones are made with, traps included; and a loop device that is left does not show
//! in any list of mounts, so the kernel is asked for it.

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::disk::{Disk, MIB, ext4, fat, loops, taken};
use crate::common::fixtures::{BOOKWORM_ARM64, light};
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, scratch};
use crate::common::run::Run;
use crate::common::{eventually, have, secs, skip, write};

cases! {
    Together: a_raspberry_pis_card_boots, a_clouds_tar_boots, qcow2_boots_and_runs, a_killed_monitor_leaves_no_device;
}

fn need(programs: &[&str]) {
    let missing: Vec<&&str> = programs.iter().filter(|p| !have(p)).collect();
    if !missing.is_empty() {
        skip!("not installed: {missing:?} (contrib/install-deps.sh test)");
    }
}

/// What Raspberry Pi OS's image is: MBR; FAT at 8 MiB; ext4 with an fstab that names partitions, a preloaded library that is not
/// there, a service that asks for a user on the console, and one that makes the root larger.
fn card(dir: &Path) -> PathBuf {
    let (boot, root) = (dir.join("boot"), dir.join("root"));
    fat(
        &boot,
        64 * MIB,
        "BOOTFS",
        &[("cmdline.txt", b"console=serial0,115200 root=PARTUUID=1234abcd-02\n"), ("config.txt", b"arm_64bit=1\n")],
    );
    let files = [
        (
            "fstab",
            "proc /proc proc defaults 0 0\nPARTUUID=1234abcd-01 /boot/firmware vfat defaults 0 2\n\
                   PARTUUID=1234abcd-02 / ext4 defaults,noatime 0 1\ntmpfs /scratch tmpfs size=1M 0 0\n",
        ),
        ("preload", "/usr/lib/aarch64-linux-gnu/libarmmem-${PLATFORM}.so\n"),
        (
            "userconfig",
            "[Unit]\nDescription=User configuration dialog\nBefore=systemd-user-sessions.service\n[Service]\nType=oneshot\n\
                        ExecStart=/bin/sh -c 'read answer </dev/console'\n[Install]\nWantedBy=multi-user.target\n",
        ),
        ("resize", "[Unit]\nDescription=Resize\n[Service]\nType=oneshot\nExecStart=/sbin/resize2fs /dev/mmcblk0p2\n"),
    ];
    for (name, text) in files {
        write(dir.join(name), text);
    }
    let at = |name: &str| dir.join(name).display().to_string();
    let changes = format!(
        "rm /etc/fstab\nmkdir /boot/firmware\nmkdir /scratch\nwrite {} /etc/fstab\nwrite {} /etc/ld.so.preload\n\
         write {} /usr/lib/systemd/system/userconfig.service\nwrite {} /usr/lib/systemd/system/resize2fs_once.service\n\
         symlink /etc/systemd/system/multi-user.target.wants/userconfig.service /usr/lib/systemd/system/userconfig.service\n\
         symlink /etc/systemd/system/multi-user.target.wants/resize2fs_once.service /usr/lib/systemd/system/resize2fs_once.service\n",
        at("fstab"),
        at("preload"),
        at("userconfig"),
        at("resize")
    );
    ext4(&root, 1536 * MIB, &BOOKWORM_ARM64.tree(), &changes);
    let table = "label: dos\nlabel-id: 0x1234abcd\nstart=8MiB, size=64MiB, type=c\nstart=72MiB, type=83\n";
    let disk = Disk::new(&dir.join("2026-raspios-lite.img"), (72 + 1536) * MIB, table);
    disk.put(&boot, 8 * MIB).put(&root, 72 * MIB);
    disk.path
}

/// From a compressed image of a card to a system without a failed unit, which sees its boot partition, may change it, and is what
/// `cp` and one-off commands see. The store holds what the image holds and not its size; nothing is left on the host.
fn a_raspberry_pis_card_boots() {
    need(&["sfdisk", "mkfs.vfat", "mcopy", "debugfs"]);
    let (pronto, dir) = (Pronto::fresh(), scratch("card"));
    let image = card(&dir);
    let used = taken(&image);
    Run::new("xz").args(["-0", "-T2", "--block-size=64MiB"]).arg(&image).limit(secs(300)).run().ok();
    let image = image.with_extension("img.xz");
    let out = pronto.create("card", &image, &["--arch", "arm64"]).says("fstab").says("userconfig.service");
    assert_eq!(pronto.exec("card", &["systemctl", "is-system-running"]), "running", "{out}");
    assert_eq!(pronto.exec("card", &["systemctl", "--failed", "--no-legend", "--plain"]), "");
    let firmware = pronto.exec("card", &["cat", "/boot/firmware/config.txt", "/boot/firmware/cmdline.txt"]);
    assert!(firmware.starts_with("arm_64bit=1\nconsole=serial0"), "{firmware}");
    assert_eq!(pronto.exec("card", &["findmnt", "-no", "FSTYPE", "/scratch"]), "tmpfs", "what needs no device stays");
    let preload = pronto.cmd(["exec", "card", "--", "sh", "-c", "uname -m; cat /etc/ld.so.preload"]).run().ok();
    assert_eq!((preload.text().trim(), preload.err().trim()), ("aarch64", ""), "no program complains");
    pronto.exec("card", &["sh", "-c", "echo dtparam=audio=on >>/boot/firmware/config.txt; echo new >/etc/new"]);
    pronto.run(["shutdown", "-w", "card"]).ok();
    let there = dir.join("config.txt");
    pronto.cmd(["cp", "card:/boot/firmware/config.txt"]).arg(&there).run().ok();
    assert_eq!(crate::common::read(&there), "arm_64bit=1\ndtparam=audio=on\n", "a stopped one is read, too");
    pronto.run(["delete", "card"]).ok();
    let run = pronto.cmd(["run", "--arch", "arm64"]).arg(&image).args([
        "--",
        "sh",
        "-c",
        "uname -m; cat /boot/firmware/config.txt; ls /etc/new",
    ]);
    let out = run.run();
    assert!(out.text().starts_with("aarch64\narm_64bit=1\n") && !out.text().contains("audio"), "{out}");
    assert_eq!(out.code(), 2, "changes were the domain's own: {out}");
    let stored: Vec<PathBuf> = std::fs::read_dir(pronto.root().join("layers"))
        .unwrap()
        .flatten()
        .map(|e| e.path().join("disk.raw"))
        .filter(|p| p.exists())
        .collect();
    assert_eq!(stored.len(), 1);
    assert_eq!(std::fs::metadata(&stored[0]).unwrap().len(), (72 + 1536) * MIB);
    assert!(taken(&stored[0]) <= used + 8 * MIB, "{} of {used} bytes", taken(&stored[0]));
    eventually(secs(5), "no loop device is left", || loops(pronto.root()).is_empty().then_some(()));
    pronto.cmd(["rmi"]).arg(&image).run().ok();
    assert!(!stored[0].exists());
}

/// Debian's cloud images: a tar with one `disk.raw`, a GPT whose root says for what it is, and an EFI partition. The light guest
/// boots from it, sparse as tar writes it and not.
fn a_clouds_tar_boots() {
    need(&["sfdisk", "mkfs.vfat", "mcopy"]);
    let dir = scratch("cloud");
    let (root, esp) = (dir.join("root"), dir.join("esp"));
    ext4(&root, 800 * MIB, &light(), "mkdir /boot/efi\n");
    fat(&esp, 32 * MIB, "ESP", &[("startup.nsh", b"shell\n")]);
    let table = "label: gpt\nstart=1MiB, size=32MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n\
                 start=33MiB, size=800MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root\n";
    let disk = Disk::new(&dir.join("disk.raw"), 840 * MIB, table);
    disk.put(&esp, MIB).put(&root, 33 * MIB);
    for (name, flags) in [("plain", "cJf"), ("sparse", "cSzf")] {
        let (pronto, tar) = (Pronto::fresh(), dir.join(format!("debian-12-generic-{name}.tar")));
        Run::new("tar")
            .arg(flags)
            .arg(&tar)
            .env("XZ_OPT", "-0")
            .arg("-C")
            .arg(&dir)
            .arg("disk.raw")
            .limit(secs(300))
            .run()
            .ok();
        pronto.create("cloud", &tar, &[]);
        assert_eq!(pronto.exec("cloud", &["cat", "/boot/efi/startup.nsh"]), "shell", "{name}");
        assert_eq!(loops(pronto.root()).len(), 1, "one device for the one image");
        pronto.create("second", &tar, &[]);
        assert_eq!(loops(pronto.root()).len(), 1, "guests of one image share it");
        pronto.run(["destroy", "cloud"]).ok();
        assert_eq!(pronto.exec("second", &["cat", "/boot/efi/startup.nsh"]), "shell", "the other one still has it");
        pronto.run(["destroy", "second"]).ok();
        eventually(secs(5), "no loop device is left", || loops(pronto.root()).is_empty().then_some(()));
    }
}

/// QEMU's format, with a bare file system in it, compressed; and one command in it without an init.
fn qcow2_boots_and_runs() {
    need(&["qemu-img"]);
    let (pronto, dir) = (Pronto::fresh(), scratch("qcow2"));
    let (root, image) = (dir.join("root"), dir.join("guest.qcow2"));
    ext4(&root, 800 * MIB, &light(), "");
    Run::new("qemu-img").args(["convert", "-O", "qcow2", "-c"]).arg(&root).arg(&image).limit(secs(300)).run().ok();
    pronto.create("guest", &image, &[]);
    let text = pronto.exec("guest", &["stat", "-c", "%u %a", "/etc/shadow"]);
    assert_eq!(text, "0 640", "owners and modes are the image's, whatever ids the guest has");
    pronto.run(["destroy", "guest"]).ok();
    let run = pronto.cmd(["run"]).arg(&image).args(["--", "sh", "-c", "uname -m; touch /x && echo written"]).run();
    run.ok().prints("x86_64\nwritten");
    let told = pronto.cmd(["run", "--arch", "arm64"]).arg(&image).args(["--", "true"]).run();
    assert!(told.code() != 0 && told.err().contains("amd64"), "its programs say what it is: {told}");
    eventually(secs(5), "no loop device is left", || loops(pronto.root()).is_empty().then_some(()));
}

/// Nobody is there to unmount anything.
fn a_killed_monitor_leaves_no_device() {
    let (pronto, dir) = (Pronto::fresh(), scratch("killed"));
    let image = dir.join("guest.img");
    ext4(&image, 800 * MIB, &light(), "");
    let before = crate::common::read("/proc/self/mountinfo");
    pronto.create("guest", &image, &[]);
    assert_eq!(loops(pronto.root()).len(), 1);
    let monitors = pronto.monitors();
    assert!(!monitors.is_empty());
    for pid in monitors {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    pronto.until_state("guest", "shut-off", secs(20));
    eventually(secs(10), "no loop device is left", || loops(pronto.root()).is_empty().then_some(()));
    assert!(!crate::common::read("/proc/self/mountinfo").contains(&*pronto.root().to_string_lossy()), "{before}");
    pronto.run(["start", "guest"]).ok();
    assert_eq!(pronto.exec("guest", &["uname", "-m"]), "x86_64");
    pronto.run(["destroy", "guest"]).ok();
}
