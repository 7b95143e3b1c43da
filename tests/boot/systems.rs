//! The main job: a Debian of any age and CPU boots to `running`, with no failed unit, none masked, and the image untouched.
//! What a newcomer would get wrong: "boots" means that systemd in the guest says `running`, not that a login prompt shows.

use std::path::Path;

use super::guest::{field, is_healthy};
use crate::common::fixtures::{self, Recipe};
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, scratch};
use crate::common::run::Run;
use crate::common::{read, secs, skip, write};

cases! {
    Together: arm64_bullseye, arm64_bookworm, arm64_trixie, armhf_bookworm, s390x_bookworm, a_path_with_odd_characters, units_that_come_later_start,
              degraded_is_ready, a_silent_systemd_is_not_waited_for;
    Alone: amd64_bookworm, registered_for_good_and_removed, an_older_entry_is_left_alone;
}

fn handlers() -> Vec<String> {
    let dir = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    let mut names: Vec<String> = dir.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Files of an image whose data or inode changed since `stamp` was written.
fn changed(tree: &Path, stamp: &Path) -> String {
    Run::new("find").arg(tree).arg("-cnewer").arg(stamp).run().ok().text()
}

fn foreign(recipe: Recipe, machine: &str, entry: &str) {
    let (pronto, tree) = (Pronto::fresh(), recipe.tree());
    let stamp = scratch("stamp").join("stamp");
    write(&stamp, "");
    std::thread::sleep(std::time::Duration::from_millis(50));
    let out = pronto.create("guest", &tree, &["--arch", recipe.arch]);
    assert!(out.err().contains(&format!("emulated: {}", recipe.arch)), "one line says that it is emulated: {out}");
    is_healthy(&pronto, "guest", &tree);
    assert_eq!(pronto.exec("guest", &["uname", "-m"]), machine);
    assert_eq!(pronto.exec("guest", &["hostname"]), "guest");
    // The guest's root may look at its own registry.
    let look = format!("mount -t binfmt_misc none /mnt && cat /mnt/{entry}; umount /mnt");
    let entry = pronto.exec("guest", &["sh", "-c", &look]);
    assert!(entry.starts_with("enabled\n") && entry.contains("flags: POCF"), "{entry}");
    let mask = entry.lines().find_map(|l| l.strip_prefix("mask ")).expect("a mask");
    assert_eq!(&mask[14..22], "00000000", "bytes 7 to 10 are not looked at, so that AppImages match");
    let out = pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
    assert!(out.took < secs(20), "it hears that it shall stop: {out}");
    assert_eq!(pronto.state("guest"), "shut-off");
    assert_eq!(changed(&tree, &stamp), "", "the image is never written to");
}

fn arm64_bullseye() {
    foreign(fixtures::BULLSEYE_ARM64, "aarch64", "pronto-arm64");
}

fn arm64_bookworm() {
    foreign(fixtures::BOOKWORM_ARM64, "aarch64", "pronto-arm64");
}

fn arm64_trixie() {
    foreign(fixtures::TRIXIE_ARM64, "aarch64", "pronto-arm64");
}

/// 32 bits, with the CPU that its programs were built for.
fn armhf_bookworm() {
    foreign(fixtures::BOOKWORM_ARMHF, "armv7l", "pronto-arm");
}

/// The other byte order.
fn s390x_bookworm() {
    foreign(fixtures::BOOKWORM_S390X, "s390x", "pronto-s390x");
}

/// The host's own CPU: the same commands, no emulation layer, nothing registered.
fn amd64_bookworm() {
    let (pronto, tree) = (Pronto::fresh(), fixtures::BOOKWORM_AMD64.tree());
    let before = handlers();
    let out = pronto.create("guest", &tree, &[]);
    assert!(!out.err().contains("emulated"), "{out}");
    is_healthy(&pronto, "guest", &tree);
    assert_eq!(pronto.exec("guest", &["uname", "-m"]), "x86_64");
    assert_eq!(pronto.exec("guest", &["find", "/etc", "/usr", "-xdev", "-name", "*pronto*"]), "", "no emulation layer");
    assert_eq!(handlers(), before, "nothing was registered");
    let text = pronto.exec("guest", &["hostnamectl"]);
    assert_eq!(field(&text, "Virtualization"), "systemd-nspawn");
    pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
}

/// overlayfs takes `:` and `,` for separators, and so does a mount's option string.
fn a_path_with_odd_characters() {
    let pronto = Pronto::fresh();
    let place = scratch("odd").join("a b:c,d=e\\f");
    std::fs::create_dir(&place).unwrap();
    let link = place.join("tree");
    std::os::unix::fs::symlink(fixtures::BOOKWORM_AMD64.tree(), &link).unwrap();
    // A link is one way; a bind mount in a namespace of the command's own makes the odd path the real one.
    let real = place.join("real, tree:ro");
    std::fs::create_dir(&real).unwrap();
    let script = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;
    let tree = fixtures::BOOKWORM_AMD64.tree();
    let line = [crate::common::pronto::BINARY.as_ref(), "--root".as_ref(), pronto.root().as_os_str()];
    let unshared =
        || Run::new("unshare").args(["-m", "sh", "-c", script, "sh"]).arg(&tree).arg(&real).args(line).limit(secs(120));
    unshared().arg("run").arg(&real).args(["--", "cat", "/etc/debian_version"]).run().ok();
    unshared().arg(&real).args(["systemctl", "is-system-running"]).run().ok().prints("running");
    pronto.create("linked", &link, &[]);
    pronto.run(["destroy", "linked"]).ok().silent();
}

/// The emulation layer wins over a drop-in of the guest's, and over units that are installed when it runs already.
fn units_that_come_later_start() {
    let (pronto, tree) = (Pronto::fresh(), fixtures::TRIXIE_ARM64.tree());
    pronto.create("guest", &tree, &["--arch", "arm64"]);
    let script = r#"
        mkdir -p /etc/systemd/system/late.service.d
        printf '[Service]\nType=oneshot\nExecStart=/bin/true\nPrivateTmp=yes\nProtectSystem=strict\n' >/etc/systemd/system/late.service
        printf '[Service]\nPrivateDevices=yes\nProtectHome=yes\nPrivateNetwork=yes\n' >/etc/systemd/system/late.service.d/override.conf
        systemctl daemon-reload && systemctl start late.service && systemctl show -P Result late.service"#;
    assert_eq!(pronto.exec("guest", &["sh", "-c", script]), "success");
    pronto.run(["destroy", "guest"]).ok().silent();
}

/// Ready with a failed unit is ready: exit status 0, and a line for each failed unit.
fn degraded_is_ready() {
    let (pronto, tree) = (Pronto::fresh(), fixtures::BOOKWORM_AMD64.tree());
    pronto.create("guest", &tree, &[]);
    let script = r#"printf '[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n' \
        >/etc/systemd/system/doomed.service && systemctl enable doomed.service"#;
    pronto.exec("guest", &["sh", "-c", script]);
    pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
    pronto.run(["start", "guest"]).ok().says("doomed.service");
    pronto.run(["exec", "guest", "--", "systemctl", "is-system-running"]).exits(1).prints("degraded");
    pronto.run(["destroy", "guest"]).ok();
}

/// Ready, and then nobody answers at systemd's own socket: systemctl would wait a minute and a half for that.
fn a_silent_systemd_is_not_waited_for() {
    let (pronto, tree) = (Pronto::fresh(), fixtures::BOOKWORM_AMD64.tree());
    pronto.create("guest", &tree, &[]);
    let script = r#"cat >/etc/deaf.pl <<'END'
use IO::Socket::UNIX;
my $place = "/run/systemd/private";
rename $place, "$place.was" or die;
my $deaf = IO::Socket::UNIX->new(Local => $place, Listen => 64) or die;
exit if fork;
sleep;
END
        printf '[Service]
Type=forking
ExecStart=/usr/bin/perl /etc/deaf.pl
[Install]
WantedBy=multi-user.target
' \
        >/etc/systemd/system/deaf.service && systemctl enable deaf.service
        # It asks systemd while the guest boots, and would hold that up.
        systemctl mask systemd-update-utmp-runlevel.service"#;
    pronto.exec("guest", &["sh", "-c", script]);
    pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
    let out = pronto.cmd(["start", "guest"]).limit(secs(80)).run().ok();
    assert!(out.took < secs(40), "{out}");
    out.says("the systemd of 'guest' does not say which of its units have failed");
    assert_eq!(pronto.exec("guest", &["sh", "-c", "ls /run/systemd/private.was"]), "/run/systemd/private.was");
    // What asked has gone.
    pronto.run(["exec", "guest", "--", "sh", "-c", "cat /proc/[0-9]*/comm | grep systemctl"]).exits(1);
    pronto.run(["destroy", "guest"]).ok();
}

/// `binfmt register` makes an entry durable, as the last file by name; `unregister` takes away entry and file, and only ours.
fn registered_for_good_and_removed() {
    let file = Path::new("/etc/binfmt.d/zz-pronto-s390x.conf");
    let entry = Path::new("/proc/sys/fs/binfmt_misc/pronto-s390x");
    if file.exists() || entry.exists() {
        skip!("pronto-s390x is registered on this host already, and a test must not take it away");
    }
    let pronto = Pronto::fresh();
    let before = handlers();
    pronto.run(["binfmt", "register", "s390x"]).ok();
    let (line, text) = (read(file), read(entry));
    pronto.run(["binfmt", "register", "s390x"]).ok();
    assert_eq!(read(entry), text, "twice is once");
    let status = pronto.run(["binfmt", "status", "s390x"]).ok();
    pronto.run(["binfmt", "unregister", "s390x"]).ok();
    assert!(!file.exists() && !entry.exists(), "both are gone");
    assert_eq!(handlers(), before);
    assert!(line.lines().any(|l| l.starts_with(":pronto-s390x:M:") && l.ends_with(":POCF")), "{line}");
    assert!(text.contains("flags: POCF") && text.contains("qemu-s390x"), "{text}");
    assert!(status.text().contains("qemu-s390x"), "{status}");
}

/// An entry of the distribution's for the same CPU stays as it is; ours, the newer one, wins.
fn an_older_entry_is_left_alone() {
    if Path::new("/proc/sys/fs/binfmt_misc/pronto-riscv64").exists() {
        skip!("pronto-riscv64 is registered on this host already, and a test must not take it away");
    }
    let tree = scratch("riscv64");
    let mut program = crate::common::elf::program(crate::common::elf::Cpu::Arm64, b"", 0);
    // A RISC-V header with another CPU's code behind it: which interpreter is registered is all that is asked.
    program[18..20].copy_from_slice(&243u16.to_le_bytes());
    ::pronto::sys::fs::write_volatile(&tree.join("hello"), &program, 0o755).unwrap();
    let older = ":ring-older:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xf3\\x00::/bin/false:";
    let script = format!("printf '%s' '{older}' >/proc/sys/fs/binfmt_misc/register");
    Run::new("sh").args(["-c", &script]).run().ok();
    let path = "/proc/sys/fs/binfmt_misc/ring-older";
    let before = read(path);
    let pronto = Pronto::fresh();
    let _ = pronto.cmd(["run", "--arch", "riscv64", "--binfmt", "host"]).arg(&tree).arg("/hello").run();
    let (after, ours) = (read(path), Path::new("/proc/sys/fs/binfmt_misc/pronto-riscv64").exists());
    Run::new("sh").args(["-c", &format!("echo -1 >{path}")]).run().ok();
    assert_eq!(after, before);
    assert!(ours, "ours is registered beside it");
    pronto.run(["binfmt", "unregister", "riscv64"]).ok();
    assert!(!Path::new("/proc/sys/fs/binfmt_misc/pronto-riscv64").exists());
}
