//! A picture of everything on the host that a guest could leave behind, taken before a test and compared after it. What a
//! newcomer would get wrong: pronto's entries in the kernel's binfmt registry are no leak (`create` registers for this boot, and
//! says so), but the host's other entries must be as they were; and guests of somebody else on this machine show up here too,
//! so run nothing else beside the ring.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What was seen, one line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at the host now.
    pub fn take() -> Snapshot {
        let mut seen = BTreeSet::new();
        mounts(&mut seen);
        processes(&mut seen);
        for root in cgroup_roots() {
            cgroups(&root, 0, &mut seen);
        }
        loops(&mut seen);
        children("nspawn", Path::new("/run/systemd/nspawn"), "", &mut seen);
        children("machine", Path::new("/run/systemd/machines"), "", &mut seen);
        children("temporary root", Path::new("/tmp"), "nspawn-root-", &mut seen);
        children("temporary root", Path::new("/tmp"), "pronto-root-", &mut seen);
        children("pronto's own store", Path::new("/run/pronto/domains"), "", &mut seen);
        children("pronto's own store", Path::new("/var/lib/pronto/domains"), "", &mut seen);
        handlers(&mut seen);
        Snapshot(seen)
    }

    /// Waits until the host looks as it did; what is different when `limit` has passed, in lines, otherwise. Beside other
    /// people's guests (`PRONTO_TEST_CROWDED`) nobody can tell whose a difference is: then it is shown, and is none.
    pub fn same_again(&self, limit: Duration) -> Option<String> {
        let diff = self.difference(limit)?;
        if std::env::var_os("PRONTO_TEST_CROWDED").is_none() {
            return Some(diff);
        }
        super::harness::say(&format!("different on this crowded host:\n{diff}"));
        None
    }

    /// What is different from the host as it was, once `limit` has passed.
    pub fn difference(&self, limit: Duration) -> Option<String> {
        let end = Instant::now() + limit;
        loop {
            let diff = self.diff(&Snapshot::take());
            if diff.is_empty() {
                return None;
            }
            if Instant::now() > end {
                return Some(diff);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What `now` has more (`+`) and, of what is the host's own, less (`-`): that somebody's guest ended is nobody's loss.
    fn diff(&self, now: &Snapshot) -> String {
        let more = now.0.difference(&self.0).map(|line| format!("    + {line}"));
        let own = |line: &&String| ["mount ", "loop ", "binfmt "].iter().any(|kind| line.starts_with(kind));
        let less = self.0.difference(&now.0).filter(own).map(|line| format!("    - {line}"));
        more.chain(less).collect::<Vec<_>>().join("\n")
    }
}

/// Mounts by what they are, without their numbers.
fn mounts(seen: &mut BTreeSet<String>) {
    for line in super::read("/proc/self/mountinfo").lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let kind = line.split_once(" - ").map_or("", |(_, kind)| kind);
        seen.insert(format!("mount {} of {} ({kind})", fields.get(4).unwrap_or(&"?"), fields.get(3).unwrap_or(&"?")));
    }
}

/// Processes that are a guest's (in another PID namespace than ours, or run by an interpreter), nspawn's or pronto's.
fn processes(seen: &mut BTreeSet<String>) {
    let host = fs::read_link("/proc/self/ns/pid").ok();
    let pronto = Path::new(env!("CARGO_BIN_EXE_pronto"));
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let dir = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let exe = fs::read_link(dir.join("exe")).unwrap_or_default();
        let file = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let foreign = fs::read_link(dir.join("ns/pid")).ok().is_some_and(|ns| Some(ns) != host);
        // The program under test, also when it was replaced meanwhile, and the sealed copy of it that enters guests.
        let link = exe.to_string_lossy();
        let ours = link.trim_end_matches(" (deleted)") == pronto.to_string_lossy() || link.starts_with("/memfd:pronto");
        if foreign || ours || file.starts_with("qemu-") || file.starts_with("systemd-nspawn") {
            let words = fs::read(dir.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&words).replace('\0', " ");
            seen.insert(format!("process {name}: {} [{}]", line.trim(), exe.display()));
        }
    }
}

/// Where cgroup hierarchies are mounted, of both versions.
pub fn cgroup_roots() -> Vec<PathBuf> {
    let info = super::read("/proc/self/mountinfo");
    let is_cgroup = |line: &&str| line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("cgroup"));
    info.lines().filter(is_cgroup).filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// Groups that are named as ours or as nspawn's, at any depth.
fn cgroups(dir: &Path, depth: usize, seen: &mut BTreeSet<String>) {
    if depth > 8 {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        // The group that holds all domains may stay; what is in it may not.
        let holder = name == "pronto" || name == "pronto.slice";
        if !holder
            && (name.contains("pronto") || name == "payload" || name == "supervisor" || name.starts_with("machine-"))
        {
            seen.insert(format!("cgroup {}", entry.path().display()));
        }
        cgroups(&entry.path(), depth + 1, seen);
    }
}

fn loops(seen: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        if let Ok(file) = fs::read_to_string(entry.path().join("loop/backing_file")) {
            seen.insert(format!("loop device {} on {}", entry.file_name().to_string_lossy(), file.trim()));
        }
    }
}

fn children(what: &str, dir: &Path, prefix: &str, seen: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let empty = fs::read_dir(entry.path()).is_ok_and(|mut d| d.next().is_none());
        // nspawn keeps /run/systemd/nspawn/{locks,propagate,unix-export} as empty directories for good.
        let furniture = what == "nspawn" && matches!(name.as_str(), "locks" | "propagate" | "unix-export" | "notify");
        if furniture && !empty {
            children("nspawn entry", &entry.path(), prefix, seen);
        } else if !furniture && name.starts_with(prefix) {
            seen.insert(format!("{what} {}", entry.path().display()));
        }
    }
}

/// The registry's entries that are not pronto's, with what is in them.
fn handlers(seen: &mut BTreeSet<String>) {
    for entry in fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "register" && !name.starts_with("pronto-") {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            seen.insert(format!("binfmt entry {name}: {}", text.replace('\n', "; ")));
        }
    }
}
