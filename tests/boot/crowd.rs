//! Many at once: locks are held for milliseconds, never across a download or a boot. What a newcomer would get wrong: "at once"
//! means processes started together, not a loop that waits for each.

use std::collections::BTreeSet;

use super::images::small;
use crate::common::fixtures::{BOOKWORM_AMD64, light};
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, registry};
use crate::common::{eventually, secs};

cases! {
    Together: one_download_for_two, one_name_for_two, list_while_all_changes;
    Alone: twenty_at_once;
}

/// Twenty guests of the host's root take more inotify instances than most kernels allow one user: `pronto doctor` says so, and
/// here it is done, for as long as the test runs.
struct Watches(String);

impl Watches {
    const PATH: &str = "/proc/sys/fs/inotify/max_user_instances";

    fn enough() -> Watches {
        let before = std::fs::read_to_string(Watches::PATH).unwrap();
        Watches::set("1024");
        Watches(before)
    }

    fn set(value: &str) {
        std::io::Write::write_all(&mut std::fs::File::create(Watches::PATH).unwrap(), value.as_bytes()).unwrap();
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        Watches::set(&self.0);
    }
}

fn twenty_at_once() {
    let _enough = Watches::enough();
    let (pronto, tree) = (Pronto::fresh(), BOOKWORM_AMD64.tree());
    let names: Vec<String> = (1..=20).map(|n| format!("d{n}")).collect();
    let creates: Vec<_> =
        names.iter().map(|n| pronto.cmd(["create", "--no-wait", "--name", n]).arg(&tree).start()).collect();
    for create in creates {
        create.wait(secs(120)).ok().silent();
    }
    let rows = pronto.rows();
    assert_eq!(
        rows.iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(),
        names.iter().cloned().collect()
    );
    let domids: BTreeSet<u64> =
        rows.iter().map(|r| r["domid"].as_u64().unwrap_or_else(|| panic!("no domid: {r}"))).collect();
    assert_eq!(domids.len(), 20, "{domids:?}");
    let destroys: Vec<_> = names.iter().map(|n| pronto.cmd(["destroy", n]).start()).collect();
    for destroy in destroys {
        destroy.wait(secs(120)).ok().silent();
    }
    assert!(pronto.rows().iter().all(|r| r["state"] == "shut-off" && r["domid"].is_null()));
    let deletes: Vec<_> = names.iter().map(|n| pronto.cmd(["delete", n]).start()).collect();
    for delete in deletes {
        delete.wait(secs(120)).ok().silent();
    }
    assert!(pronto.rows().is_empty());
    // Domids are never given twice within a boot.
    pronto.create("after", &tree, &["--no-wait"]);
    assert!(!domids.contains(&u64::from(pronto.domid("after"))));
    pronto.run(["destroy", "after"]).ok();
}

fn one_download_for_two() {
    let (pronto, image) = (Pronto::fresh(), small());
    let before = registry().blob_gets("ring/small");
    let creates: Vec<_> =
        ["a", "b"].iter().map(|n| pronto.cmd(["create", "--no-wait", "--name", n, &image]).start()).collect();
    for create in creates {
        create.wait(secs(120)).ok().silent();
    }
    assert_eq!(
        registry().blob_gets("ring/small") - before,
        3,
        "one config, two layers, once each:\n{}",
        registry().log()
    );
    for name in ["a", "b"] {
        pronto.until_state(name, "running", secs(30));
        pronto.run(["destroy", name]).ok();
    }
    pronto.create("c", &image, &["--no-wait"]);
    assert_eq!(registry().blob_gets("ring/small") - before, 3, "a present image is not fetched again");
    pronto.run(["destroy", "c"]).ok();
}

fn one_name_for_two() {
    let (pronto, tree) = (Pronto::fresh(), light());
    let creates: Vec<_> =
        (0..6).map(|_| pronto.cmd(["create", "--no-wait", "--name", "same"]).arg(&tree).start()).collect();
    let mut codes: Vec<i32> = creates.into_iter().map(|c| c.wait(secs(120)).code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 3, 3, 3, 3, 3]);
    pronto.until_state("same", "running", secs(30));
    pronto.run(["destroy", "same"]).ok();
}

/// `list` never fails and never shows nonsense, whatever goes on meanwhile.
fn list_while_all_changes() {
    let (pronto, tree) = (Pronto::fresh(), light());
    std::thread::scope(|scope| {
        let changes: Vec<_> = (0..2)
            .map(|n| {
                let (pronto, tree) = (&pronto, &tree);
                scope.spawn(move || {
                    for round in 0..4 {
                        let name = format!("n{n}r{round}");
                        pronto.create(&name, tree, &["--no-wait", "--rm"]);
                        pronto.run(["pause", &name]).ok();
                        pronto.run(["destroy", &name]).ok();
                    }
                })
            })
            .collect();
        while !changes.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            for row in pronto.rows() {
                let (state, domid) = (row["state"].as_str().unwrap(), &row["domid"]);
                assert!(["building", "running", "paused", "stopping"].contains(&state), "{row}");
                assert!(state == "building" || domid.is_number(), "{row}");
            }
            pronto.run(["list", "--all"]).ok();
        }
    });
    eventually(secs(10), "an empty list", || pronto.rows().is_empty().then_some(()));
}
