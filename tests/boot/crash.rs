//! Everything that can go wrong in the middle: a create that fails at each of its steps, SIGKILL of each of our processes.
//! What a newcomer would get wrong: the runner compares the host before and after each of these, so a test here only has to
//! bring the accident about and see that `list` is true.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::images::{bare, small};
use crate::common::fixtures::{BOOKWORM_AMD64, BOOKWORM_ARM64, light};
use crate::common::harness::cases;
use crate::common::pronto::{BINARY, Pronto, scratch};
use crate::common::run::Run;
use crate::common::snapshot::Snapshot;
use crate::common::{eventually, secs, skip};

cases! {
    Alone: create_fails_at_every_step, start_fails_at_every_step, the_command_is_killed, the_monitor_is_killed, nspawn_is_killed,
           init_is_killed, a_paused_domains_monitor_is_killed, an_emulated_ones_monitor_is_killed;
}

fn fail_points() -> Vec<String> {
    let out = Run::new(BINARY).arg("__fail-points").run();
    if !cfg!(debug_assertions) {
        skip!("failure points are in debug builds only");
    }
    let points: Vec<String> = out.ok().text().lines().map(str::to_owned).collect();
    assert!(points.len() >= 8, "a create has more steps than {points:?}");
    points
}

/// What is half-made in a store: domains, runs, and temporary names anywhere above the layers' own files.
fn half_made(pronto: &Pronto) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (dir, depth) in
        [("domains", 0), ("run/domains", 0), ("layers", 1), ("images", 1), ("blobs/sha256", 1), ("cache", 2)]
    {
        for entry in std::fs::read_dir(pronto.root().join(dir)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let temporary =
                name.ends_with(".tmp") || name.starts_with('.') || name.contains("half") || name.contains("partial-");
            if depth == 0 || (depth == 1 && temporary) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Every named step fails once, on a way to make a domain that goes through it; nothing is left, and the next create works.
fn create_fails_at_every_step() {
    let points = fail_points();
    let tar = scratch("tar").join("tree.tar");
    std::os::unix::fs::symlink(BOOKWORM_AMD64.tar(), &tar).unwrap();
    let disk = scratch("disk").join("guest.img");
    crate::common::disk::ext4(&disk, 800 * crate::common::disk::MIB, &light(), "");
    let ways: [(&str, PathBuf); 6] = [
        ("amd64", light()),
        ("amd64", disk),
        ("arm64", BOOKWORM_ARM64.tree()),
        ("amd64", PathBuf::from(small())),
        ("amd64", tar),
        ("amd64", PathBuf::from(bare())),
    ];
    let mut tried = BTreeSet::new();
    for (arch, image) in &ways {
        for point in points.iter().filter(|p| !tried.contains(*p)).cloned().collect::<Vec<_>>() {
            let (pronto, before) = (Pronto::fresh(), Snapshot::take());
            let create =
                pronto.cmd(["create", "--name", "guest", "--arch", arch]).arg(image).env("PRONTO_FAIL_AT", &point);
            let out = create.limit(secs(300)).run();
            if out.code() == 0 {
                pronto.run(["destroy", "guest"]).ok();
                // Whoever does not go through a step goes through none of the others that are still untried: next way.
                continue;
            }
            assert!(out.err().contains(&point), "it failed because of '{point}': {out}");
            assert!([1, 3].contains(&out.code()), "{out}");
            assert!(pronto.rows().is_empty(), "'{point}' leaves no domain");
            assert_eq!(half_made(&pronto), Vec::<PathBuf>::new(), "'{point}' leaves nothing half-made");
            assert_eq!(before.same_again(secs(10)), None, "'{point}' leaves nothing on the host");
            tried.insert(point);
        }
    }
    let missed: Vec<&String> = points.iter().filter(|p| !tried.contains(*p)).collect();
    assert!(missed.is_empty(), "no way to make a domain goes through {missed:?}");
}

/// A shut-off domain survives a start that fails.
fn start_fails_at_every_step() {
    let pronto = Pronto::fresh();
    pronto.cmd(["new", "--name", "guest"]).arg(light()).run().ok();
    for point in fail_points() {
        let before = Snapshot::take();
        let out = pronto.cmd(["start", "guest"]).env("PRONTO_FAIL_AT", &point).run();
        if out.code() == 0 {
            pronto.run(["destroy", "guest"]).ok();
        } else {
            assert!(out.err().contains(&point), "{out}");
            assert_eq!(before.same_again(secs(10)), None, "'{point}' leaves nothing on the host");
        }
        assert_eq!(pronto.state("guest"), "shut-off", "after '{point}'");
    }
    pronto.run(["start", "guest"]).ok();
    pronto.run(["destroy", "guest"]).ok();
}

/// The command is killed at any time of a create: what `list` shows afterwards is true, and nothing is half-made.
fn the_command_is_killed() {
    for (tree, arch, moments) in [
        (light(), "amd64", &[5, 20, 50, 100, 200, 400][..]),
        (BOOKWORM_AMD64.tree(), "amd64", &[300, 800, 1500]),
        (BOOKWORM_ARM64.tree(), "arm64", &[30, 150, 400, 1000, 2500]),
    ] {
        for &moment in moments {
            let (pronto, before) = (Pronto::fresh(), Snapshot::take());
            let running = pronto.cmd(["create", "--name", "guest", "--arch", arch]).arg(&tree).start();
            std::thread::sleep(Duration::from_millis(moment));
            running.signal(Signal::SIGKILL);
            let _ = running.wait(secs(20));
            // Whoever looks next finishes the work; the domain either runs or is not there.
            eventually(secs(10), "a true list", || (pronto.run(["list", "--all"]).code() == 0).then_some(()));
            let state = eventually(secs(20), "a state that lasts", || lasting(&pronto));
            match state.as_str() {
                "running" => pronto.run(["destroy", "guest"]).ok(),
                "shut-off" | "absent" => pronto.run(["list"]).ok(),
                other => panic!("killed after {moment} ms it is {other}"),
            };
            if pronto.state("guest") == "shut-off" {
                pronto.run(["delete", "guest"]).ok();
            }
            assert_eq!(half_made(&pronto), Vec::<PathBuf>::new(), "killed after {moment} ms");
            assert_eq!(before.same_again(secs(10)), None, "killed after {moment} ms it left something");
        }
    }
}

/// The guest's state, unless it is on its way to another: a monitor whose creator has died before it let go ends its guest, which
/// is seen running, then stopping, for a moment.
fn lasting(pronto: &Pronto) -> Option<String> {
    let state = Some(pronto.state("guest")).filter(|s| s != "building" && s != "stopping")?;
    std::thread::sleep(Duration::from_millis(700));
    (pronto.state("guest") == state).then_some(state)
}

/// Kills a process of a running domain; everything of the domain must go by itself, and `list` must know.
fn kill_and_look(pronto: &Pronto, victim: i32, before: &Snapshot) {
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    eventually(secs(10), "no domain runs any more", || {
        (!pronto.run(["list"]).ok().text().contains("guest")).then_some(())
    });
    assert_eq!(before.same_again(secs(10)), None, "SIGKILL left something");
    assert_eq!(pronto.state("guest"), "shut-off", "its disk is still there");
    pronto.run(["exec", "guest", "--", "true"]).exits(125).says("start");
    pronto.run(["start", "guest"]).ok();
    pronto.run(["destroy", "guest"]).ok();
    pronto.run(["delete", "guest"]).ok();
}

fn running(arch: &str, tree: &Path) -> (Pronto, Snapshot) {
    let (pronto, before) = (Pronto::fresh(), Snapshot::take());
    pronto.create("guest", tree, &["--arch", arch]);
    (pronto, before)
}

fn monitor(pronto: &Pronto) -> i32 {
    let monitors = pronto.monitors();
    let parents: BTreeSet<i32> = monitors.iter().filter_map(|&p| crate::common::pronto::parent(p)).collect();
    // The topmost of our processes: the one whose parent is none of ours.
    let top =
        monitors.iter().copied().find(|&p| crate::common::pronto::parent(p).is_none_or(|pp| !monitors.contains(&pp)));
    top.unwrap_or_else(|| panic!("no monitor among {monitors:?} (parents {parents:?})"))
}

fn the_monitor_is_killed() {
    let (pronto, before) = running("amd64", &BOOKWORM_AMD64.tree());
    kill_and_look(&pronto, monitor(&pronto), &before);
}

fn an_emulated_ones_monitor_is_killed() {
    let (pronto, before) = running("arm64", &BOOKWORM_ARM64.tree());
    kill_and_look(&pronto, monitor(&pronto), &before);
}

fn a_paused_domains_monitor_is_killed() {
    let (pronto, before) = running("amd64", &light());
    pronto.run(["pause", "guest"]).ok();
    kill_and_look(&pronto, monitor(&pronto), &before);
}

fn nspawn_is_killed() {
    let (pronto, before) = running("amd64", &light());
    let nspawn = pronto.nspawn_of("guest").expect("an nspawn above the guest's init");
    kill_and_look(&pronto, nspawn, &before);
}

fn init_is_killed() {
    let (pronto, before) = running("amd64", &light());
    kill_and_look(&pronto, pronto.leader("guest"), &before);
}
