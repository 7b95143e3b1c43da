//! What goes and what stays, on real files.

use super::*;
use crate::ops::inspect::OsRelease;
use std::os::unix::fs::symlink;

fn put(dir: &Path, path: &str, text: &[u8]) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write_volatile(&path, text, 0o644).unwrap();
}

fn apt() -> Recipe {
    recipe::recipe(Some(&OsRelease::default()), &|path| path == "/usr/bin/apt-get", None, None).unwrap()
}

const PERSONAL: [&str; 4] =
    ["etc/hostname", "etc/ssh/ssh_host_rsa_key", "var/lib/apt/lists/x_InRelease", "var/lib/systemd/random-seed"];
const KEPT: [&str; 5] = [
    "etc/passwd",
    "etc/ssh/sshd_config",
    "var/lib/dpkg/status",
    "var/lib/systemd/deb-systemd-helper-enabled/x",
    "var/lib/apt/lists/partial/.",
];

#[test]
fn what_must_differ_is_taken_out_of_a_system() {
    let dir = tempfile::tempdir().unwrap();
    PERSONAL.iter().chain(&KEPT[..4]).for_each(|path| put(dir.path(), path, b"x"));
    std::fs::create_dir(dir.path().join("var/lib/apt/lists/partial")).unwrap();
    put(dir.path(), "etc/machine-id", b"0123");
    put(dir.path(), "etc/dpkg/dpkg.cfg.d/99mmdebstrap", b"force-unsafe-io");
    system(dir.path()).unwrap();
    assert!(PERSONAL.iter().all(|path| !dir.path().join(path).exists()));
    assert!(KEPT.iter().all(|path| dir.path().join(path).exists()));
    assert_eq!(std::fs::read(dir.path().join("etc/machine-id")).unwrap(), b"");
    assert!(!dir.path().join("etc/dpkg/dpkg.cfg.d/99mmdebstrap").exists());
    assert_eq!(measure(dir.path()).unwrap().0, 4);
}

#[test]
fn a_layer_keeps_nothing_of_how_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let gone = [
        ".pronto-provision/sources.list",
        "etc/resolv.conf",
        "etc/hosts",
        "var/cache/apt/pkgcache.bin",
        "var/cache/apt/archives/a.deb",
        "var/cache/apt/archives/partial/b.deb",
        "var/log/dpkg.log",
        "var/log/apt/term.log",
        "run/dbus/pid",
        "tmp/x/y",
        "var/tmp/z",
    ];
    let kept =
        ["usr/lib/systemd/systemd", "var/log/journal/.", "var/cache/apt/archives/partial/.", "var/cache/debconf/x"];
    PERSONAL.iter().chain(&gone).for_each(|path| put(dir.path(), path, b"x"));
    KEPT[..4].iter().chain([&kept[0], &kept[3]]).for_each(|path| put(dir.path(), path, b"x"));
    std::fs::create_dir_all(dir.path().join("var/log/journal")).unwrap();
    let recipe = apt();
    // usr/sbin is a link to usr/bin in the image: the layer holds only usr/bin.
    put(dir.path(), "usr/bin/policy-rc.d", recipe.files[0].text.as_bytes());
    put(dir.path(), "etc/machine-id", b"0123");
    let socket = std::os::unix::net::UnixListener::bind(dir.path().join("usr/socket")).unwrap();
    layer(dir.path(), &recipe).unwrap();
    for path in PERSONAL.iter().chain(&gone).chain(&["usr/bin/policy-rc.d", "usr/socket"]) {
        assert!(!dir.path().join(path).exists(), "{path}");
    }
    for path in KEPT[..4].iter().chain(&kept) {
        assert!(dir.path().join(path).exists(), "{path}");
    }
    assert_eq!(std::fs::read(dir.path().join("etc/machine-id")).unwrap(), b"");
    drop(socket);
}

#[test]
fn whiteouts_stay_and_devices_go() {
    if !nix::unistd::geteuid().is_root() {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: mknod needs root\n");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "usr/x", b"x");
    let node = |path: &str, dev| {
        let mode = nix::sys::stat::Mode::S_IRUSR;
        nix::sys::stat::mknod(&dir.path().join(path), SFlag::S_IFCHR, mode, dev).unwrap();
    };
    node("usr/whiteout", 0);
    node("usr/null", nix::sys::stat::makedev(1, 3));
    layer(dir.path(), &apt()).unwrap();
    assert!(dir.path().join("usr/whiteout").exists() && !dir.path().join("usr/null").exists());
}

#[test]
fn a_strangers_links_lead_nowhere() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(outside.path(), "x_InRelease", b"x");
    put(outside.path(), "machine-id", b"0123");
    std::fs::create_dir_all(dir.path().join("var/lib/apt")).unwrap();
    std::fs::create_dir_all(dir.path().join("etc")).unwrap();
    symlink(outside.path(), dir.path().join("var/lib/apt/lists")).unwrap();
    symlink(outside.path(), dir.path().join("run")).unwrap();
    symlink(outside.path(), dir.path().join("var/log")).unwrap();
    symlink(outside.path().join("machine-id"), dir.path().join("etc/machine-id")).unwrap();
    layer(dir.path(), &apt()).unwrap();
    assert_eq!(std::fs::read(outside.path().join("machine-id")).unwrap(), b"0123");
    assert!(outside.path().join("x_InRelease").exists());
    assert!(std::fs::symlink_metadata(dir.path().join("etc/machine-id")).is_err(), "a link is no identity");
}

#[test]
fn a_package_of_the_same_name_stays() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "usr/sbin/policy-rc.d", b"#!/bin/sh\nexec policy\n");
    layer(dir.path(), &apt()).unwrap();
    assert!(dir.path().join("usr/sbin/policy-rc.d").exists());
}
