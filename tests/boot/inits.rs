//! Guests whose init is not systemd: they boot, are found ready though none of them says so, reboot and power off in their own way. What
//! a newcomer would get wrong: ready is who has finished its scripts, so one of them takes its time here; and what powers one init off
//! reboots another.

use super::tar::Tar;
use crate::common::fixtures::OTHER_INITS_ARM64;
use crate::common::harness::cases;
use crate::common::oci::{Codec, Image, Layout};
use crate::common::pronto::{Pronto, scratch};
use crate::common::secs;

cases! { Together: system_v, openrc, busybox; }

/// A script that says when it has run to its end, in the last second of the way up.
const SLOW: &str = "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: slow\n# Required-Start:\n# Required-Stop:\n# Default-Start: 2 3 4 5\n\
                    # Default-Stop:\n### END INIT INFO\nsleep 2\necho up >/run/slow\n";

/// An image whose `/sbin/init` is this, with more files.
fn image(init: &str, more: impl FnOnce(Tar) -> Tar) -> String {
    let dir = scratch("init");
    let conf = dir.join("conf.tar");
    let tar = if init == "init" { Tar::new() } else { Tar::new().symlink("usr/sbin/init", init) };
    more(tar).write(&conf);
    let mut layout = Layout::new(&dir.join("oci"));
    layout.index("x", &[Image::new("arm64", &[&OTHER_INITS_ARM64.tar(), &conf], Codec::Plain, &["/sbin/init"])]);
    format!("oci:{}:x", dir.join("oci").display())
}

fn lives(image: &str, reboots: bool) {
    let pronto = Pronto::fresh();
    pronto.create("guest", image, &["--arch", "arm64", "--timeout", "120s"]);
    assert_eq!(pronto.exec("guest", &["cat", "/run/slow"]), "up", "it was waited for");
    assert_eq!(pronto.exec("guest", &["uname", "-m"]), "aarch64");
    if reboots {
        pronto.exec("guest", &["touch", "/kept"]);
        let before = pronto.domid("guest");
        pronto.cmd(["reboot", "-w", "guest"]).limit(secs(120)).run().ok().silent();
        assert_ne!(pronto.domid("guest"), before);
        assert_eq!(pronto.exec("guest", &["cat", "/run/slow", "/kept"]), "up", "it was waited for again");
    }
    let out = pronto.cmd(["shutdown", "-w", "guest"]).limit(secs(120)).run().ok();
    // Who does not go is killed after three minutes.
    assert!(out.took < secs(100), "it was asked, not killed: {out}");
    assert_eq!(pronto.state("guest"), "shut-off");
}

fn system_v() {
    let table = "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\nl2:2:wait:/etc/init.d/slow\nl0:0:wait:/etc/init.d/rc 0\n\
                 l6:6:wait:/etc/init.d/rc 6\nre:2:respawn:/bin/sleep 1000\n";
    let image = image("init", |tar| {
        tar.file("etc/inittab", 0o644, table.as_bytes()).file("etc/init.d/slow", 0o755, SLOW.as_bytes())
    });
    lives(&image, true);
}

fn openrc() {
    let service = "#!/sbin/openrc-run\nstart() {\n    sleep 2\n    echo up >/run/slow\n}\n";
    let image = image("openrc-init", |tar| {
        tar.file("etc/init.d/slow", 0o755, service.as_bytes()).symlink("etc/runlevels/default/slow", "/etc/init.d/slow")
    });
    // Its scripts take half a minute emulated: once is enough.
    lives(&image, false);
}

fn busybox() {
    let table = "::sysinit:/etc/init.d/slow\n::respawn:/bin/sleep 1000\n";
    let image = image("/bin/busybox", |tar| {
        tar.file("etc/inittab", 0o644, table.as_bytes()).file("etc/init.d/slow", 0o755, SLOW.as_bytes())
    });
    lives(&image, true);
}
