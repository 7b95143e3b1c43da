//! The boot ring: the real binary boots real guests, native and emulated, from trees, tarballs and a real registry. It needs
//! root and an amd64 host; where something is missing each test says so. What a newcomer would get wrong: `cargo test --test
//! boot -- NAME` runs the tests whose name holds NAME; docs/testing.md tells the rest.

mod common;

#[path = "boot/house.rs"]
mod house;

use common::harness::{self, Ring};
use common::{fixtures, have, pronto};

fn main() -> std::process::ExitCode {
    let ring = Ring { refuse, prepare: fixtures::prepare, unshare: pronto::unshare, end };
    harness::main(ring, &[house::CASES])
}

/// Why no guest can run here.
fn refuse() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("booting guests needs root".into());
    }
    if std::env::consts::ARCH != "x86_64" {
        return Some(format!("the ring's guests are made for an amd64 host, and this is {}", std::env::consts::ARCH));
    }
    let needed = ["systemd-nspawn", "mmdebstrap", "qemu-aarch64", "setsid", "stty", "tar"];
    let missing: Vec<&str> = needed.into_iter().filter(|p| !have(p)).collect();
    (!missing.is_empty()).then(|| format!("not installed: {} (contrib/install-deps.sh run test)", missing.join(", ")))
}

/// Leaves the host as it was: no store, no interpreter that this run brought.
fn end() {
    let _ = std::fs::remove_dir_all(pronto::work());
}
