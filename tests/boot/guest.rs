//! Questions that several tests ask of a guest or of the host about a guest. What a newcomer would get wrong: a list of masked
//! units is compared with what systemctl on the host reads in the untouched image, never with a list written down here.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::pronto::{Pronto, pids};
use crate::common::run::{Run, Running};
use crate::common::{eventually, secs};

/// A number that no other test uses, for `sleep`: how a test finds its own process on the host.
pub fn marker() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("86400.{}{:03}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// PIDs on the host of processes that have `word` among their words (the tests' own commands, and pronto itself, left out).
pub fn processes_with(word: &str) -> Vec<i32> {
    pids()
        .filter(|pid| {
            let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = bytes.split(|&b| b == 0).collect();
            let sleeps = words.iter().any(|w| w.ends_with(b"sleep"));
            let ours = words.first().is_some_and(|w| w.ends_with(b"pronto"));
            sleeps && !ours && words.contains(&word.as_bytes())
        })
        .collect()
}

/// Waits until `sleep WORD`, which `running` is to start, runs in some guest.
#[track_caller]
pub fn until_sleeping(running: &mut Running, word: &str) {
    eventually(secs(60), &format!("'sleep {word}' runs in the guest"), || {
        assert!(!running.is_over(), "it ended early: {}{}", running.stdout(), running.stderr());
        (!processes_with(word).is_empty()).then_some(())
    });
}

/// Waits two seconds at most until no `sleep WORD` runs.
#[track_caller]
pub fn until_awake(word: &str) {
    eventually(secs(2), &format!("'sleep {word}' has ended"), || processes_with(word).is_empty().then_some(()));
}

/// A running guest has no failed unit, and masks what its image masks.
#[track_caller]
pub fn is_healthy(pronto: &Pronto, name: &str, tree: &Path) {
    let (guest, image) = masked(pronto, name, tree);
    assert_eq!(guest, image, "masked units: the guest's, then the image's own");
}

/// As [`is_healthy`] for a guest with fewer packages than `tree`: it masks nothing that the release's own packages do not.
#[track_caller]
pub fn is_healthy_within(pronto: &Pronto, name: &str, tree: &Path) {
    let (guest, release) = masked(pronto, name, tree);
    assert!(guest.is_subset(&release), "masked units: {guest:?}, in the release's own tree {release:?}");
}

/// The units that are masked in a guest without a failed one, and in a tree.
#[track_caller]
fn masked(pronto: &Pronto, name: &str, tree: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    assert_eq!(pronto.exec(name, &["systemctl", "is-system-running"]), "running");
    assert_eq!(pronto.exec(name, &["systemctl", "--failed", "--no-legend", "--plain"]), "");
    let flags = ["list-unit-files", "--state=masked", "--no-legend", "--plain", "--no-pager"];
    let names = |text: &str| {
        text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let image = names(&Run::new("systemctl").arg(format!("--root={}", tree.display())).args(flags).run().ok().text());
    let guest = names(&pronto.exec(name, &[&["systemctl"], &flags[..]].concat()));
    (guest, image)
}

/// One field of `hostnamectl`'s output.
pub fn field(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|l| l.trim().strip_prefix(name)?.strip_prefix(':').map(str::trim));
    line.unwrap_or_else(|| panic!("no '{name}' in:\n{text}")).to_owned()
}
