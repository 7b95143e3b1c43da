//! What a guest mounts stays in it, whatever it mounts on. What a newcomer would get wrong: this needs a host whose mounts are shared
//! (the ring makes its own so); and a mount that got out outlives the guest, so the host is compared afterwards, too.

use crate::common::fixtures::{BARE_AMD64, BOOKWORM_AMD64, BOOKWORM_ARM64, Interpreter, Recipe};
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, scratch};
use crate::common::{read, secs};

cases! { Alone: a_commands_mounts_stay_inside, a_guests_mounts_stay_inside; }

/// Mounts on everything that comes from the host, says on what it could, and takes nothing back.
const MOUNT: &str = r#"
mkdir -p /shared/below
for dir in /shared/below /shared /sys /sys/fs /sys/fs/cgroup /proc/sys /proc/sys/kernel /dev /dev/pts /run /run/host /run/host/incoming /; do
    [ ! -d $dir ] || mount -t tmpfs of-the-guest $dir 2>/dev/null && echo mounted $dir
done
for file in /dev/null /dev/zero /dev/tty /dev/net/tun /dev/console /etc/resolv.conf /proc/kmsg /proc/kcore /proc/sysrq-trigger; do
    [ ! -e $file ] || mount --bind /etc/hostname $file 2>/dev/null && echo mounted $file
done
"#;

fn host() -> Vec<String> {
    read("/proc/self/mountinfo").lines().map(str::to_owned).collect()
}

/// Everything that is mounted here now and was not before.
fn out(before: &[String]) -> Vec<String> {
    host().into_iter().filter(|line| !before.contains(line)).collect()
}

fn really_mounted(said: &str, what: &str) {
    let mounted = said.lines().filter(|l| l.starts_with("mounted ")).count();
    assert!(mounted >= 8, "{what}: too little could be mounted to prove anything:\n{said}");
    for place in ["/shared/below", "/dev/null"] {
        assert!(said.lines().any(|l| l == format!("mounted {place}")), "{what}: not on {place}:\n{said}");
    }
}

fn a_commands_mounts_stay_inside() {
    assert!(host().iter().any(|l| l.contains(" / / ") && l.contains(" shared:")), "the ring's mounts are shared");
    let (pronto, dir) = (Pronto::fresh(), scratch("mounts"));
    let volume = format!("{}:/shared", dir.display());
    let before = host();
    for options in [&[][..], &["--no-userns"], &["--network", "none"], &["--network", "none", "--no-userns"]] {
        let run = pronto.cmd(["run", "-v", &volume]).args(options).arg(BARE_AMD64.tree());
        let said = run.args(["--", "sh", "-c", MOUNT]).limit(secs(60)).run().ok().text();
        really_mounted(&said, &options.join(" "));
        assert_eq!(out(&before), Vec::<String>::new(), "with {options:?}");
    }
}

fn boots(recipe: Recipe, options: &[&str]) {
    let (pronto, dir) = (Pronto::fresh(), scratch("mounts"));
    let volume = format!("{}:/shared", dir.display());
    let before = host();
    pronto.create("guest", recipe.tree(), &[&["--arch", recipe.arch, "-v", &volume], options].concat());
    let said = pronto.cmd(["exec", "guest", "--", "sh", "-c", MOUNT]).limit(secs(60)).run().ok().text();
    really_mounted(&said, &format!("{} {options:?}", recipe.arch));
    assert_eq!(out(&before), Vec::<String>::new(), "with {options:?} while it runs");
    pronto.run(["destroy", "guest"]).ok();
    assert_eq!(out(&before), Vec::<String>::new(), "with {options:?} after its end");
}

fn a_guests_mounts_stay_inside() {
    boots(BOOKWORM_AMD64, &[]);
    boots(BOOKWORM_AMD64, &["--no-userns"]);
    let _interpreter = Interpreter::needed();
    boots(BOOKWORM_ARM64, &[]);
}
