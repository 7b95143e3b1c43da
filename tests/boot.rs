//! The boot ring: the real binary boots real guests, native and emulated, from trees, tarballs and a real registry. It needs
//! root and an amd64 host; where something is missing each test says so. What a newcomer would get wrong: `cargo test --test
//! boot -- NAME` runs the tests whose name holds NAME; docs/testing.md tells the rest.

use std::sync::OnceLock;

mod common;

#[path = "boot/accel.rs"]
mod accel;
#[path = "boot/accel_builds.rs"]
mod accel_builds;
#[path = "boot/accel_traps.rs"]
mod accel_traps;
#[path = "boot/bad.rs"]
mod bad;
#[path = "boot/console.rs"]
mod console;
#[path = "boot/cpu.rs"]
mod cpu;
#[path = "boot/crash.rs"]
mod crash;
#[path = "boot/crowd.rs"]
mod crowd;
#[path = "boot/disks.rs"]
mod disks;
#[path = "boot/emulation.rs"]
mod emulation;
#[path = "boot/exec.rs"]
mod exec;
#[path = "boot/fence.rs"]
mod fence;
#[path = "boot/guest.rs"]
mod guest;
#[path = "boot/house.rs"]
mod house;
#[path = "boot/images.rs"]
mod images;
#[path = "boot/inits.rs"]
mod inits;
#[path = "boot/limits.rs"]
mod limits;
#[path = "boot/machines.rs"]
mod machines;
#[path = "boot/mounts.rs"]
mod mounts;
#[path = "boot/oneoff.rs"]
mod oneoff;
#[path = "boot/port.rs"]
mod port;
#[path = "boot/systems.rs"]
mod systems;
#[path = "boot/tar.rs"]
mod tar;
#[path = "boot/traps.rs"]
mod traps;
#[path = "boot/userns.rs"]
mod userns;
#[path = "boot/verbs.rs"]
mod verbs;

use common::harness::{self, Ring};
use common::{fixtures, have, pronto};

fn main() -> std::process::ExitCode {
    ordinary_mounts().expect("mounts like an ordinary host's");
    let ring = Ring { refuse, prepare: fixtures::prepare, unshare: pronto::unshare, end };
    harness::main(
        ring,
        &[
            // The longest first, so that the other one of two does not wait for it at the end.
            images::CASES,
            inits::CASES,
            house::CASES,
            disks::CASES,
            systems::CASES,
            port::CASES,
            emulation::CASES,
            accel::CASES,
            accel_builds::CASES,
            accel_traps::CASES,
            cpu::CASES,
            machines::CASES,
            traps::CASES,
            oneoff::CASES,
            exec::CASES,
            console::CASES,
            verbs::CASES,
            limits::CASES,
            bad::CASES,
            fence::CASES,
            userns::CASES,
            mounts::CASES,
            crowd::CASES,
            crash::CASES,
        ],
    )
}

/// Gives the ring a mount namespace in which every mount is shared, as systemd makes an ordinary host's: only there does what a
/// guest mounts have a way out. And, as there, the registry of interpreters is mounted from the start. Must come before there are threads. Errors: as unshare(2), mount(2); EPERM for who is not root.
fn ordinary_mounts() -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>)?;
    }
    let (registry, kind) = ("/proc/sys/fs/binfmt_misc", Some("binfmt_misc"));
    if !std::path::Path::new(registry).join("register").exists() {
        mount(kind, registry, kind, MsFlags::empty(), None::<&str>)?;
    }
    Ok(())
}

/// Why no guest can run here.
fn refuse() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("booting guests needs root".into());
    }
    if std::env::consts::ARCH != "x86_64" {
        return Some(format!("the ring's guests are made for an amd64 host, and this is {}", std::env::consts::ARCH));
    }
    BEFORE.get_or_init(pronto::handlers);
    let needed = ["systemd-nspawn", "mmdebstrap", "qemu-aarch64", "setsid", "stty", "tar"];
    let missing: Vec<&str> = needed.into_iter().filter(|p| !have(p)).collect();
    (!missing.is_empty()).then(|| format!("not installed: {} (contrib/install-deps.sh run test)", missing.join(", ")))
}

/// Leaves the host as it was: no store, no interpreter that this run brought.
fn end() {
    pronto::end(BEFORE.get().map_or(&[], Vec::as_slice));
}

/// pronto's entries in the kernel's registry before this run.
static BEFORE: OnceLock<Vec<String>> = OnceLock::new();
