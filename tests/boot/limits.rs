//! memory= and vcpus=, and the columns of `list`, against the cgroup's own files. What a newcomer would get wrong: where no
//! controller is there a limit must be refused; a domain that only says it is limited is the fault that this looks for.

use std::path::Path;

use crate::common::fixtures::BOOKWORM_AMD64;
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, shared, shared_native};
use crate::common::{read, secs};

cases! {
    Together: the_header_is_xls, the_columns_are_true, the_formats_agree, uptime_and_ids, memory_is_enforced_or_refused, cpus_are_enforced_or_refused, inspection_needs_no_guest;
}

fn the_header_is_xls() {
    shared_native();
    let out = shared().run(["list"]).ok();
    let header = out.text().lines().next().unwrap_or_default().to_owned();
    assert_eq!(header, "Name                                        ID   Mem VCPUs\tState\tTime(s)");
    let row = out.text().lines().find(|l| l.starts_with("shared-native ")).expect("its row").to_owned();
    let fields: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(fields.len(), 6, "{row}");
    let want = format!(
        "{:<40} {:>5} {:>5} {:>5}     {} {:>9}",
        fields[0], fields[1], fields[2], fields[3], fields[4], fields[5]
    );
    assert_eq!(row, want, "xl's widths, blanks only");
}

fn the_columns_are_true() {
    let (pronto, name) = (shared(), shared_native());
    let group = pronto.cgroup(name, "").expect("a cgroup in the v2 hierarchy");
    let used = || {
        let text = read(group.join("cpu.stat"));
        text.lines()
            .find_map(|l| l.strip_prefix("usage_usec "))
            .and_then(|n| n.parse::<f64>().ok())
            .expect("usage_usec")
            / 1e6
    };
    pronto.exec(name, &["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]);
    let before = used();
    let row = pronto.row(name).unwrap();
    let after = used();
    let seconds = row["cpu_seconds"].as_f64().unwrap();
    assert!(seconds >= before - 0.11 && seconds <= after + 0.11, "Time(s) {seconds} is cpu.stat's {before} to {after}");
    assert!(seconds > 0.05, "it did some work: {seconds}");
    let cpus = pronto.exec(name, &["nproc"]).parse::<u64>().unwrap();
    assert_eq!(row["vcpus"].as_u64(), Some(cpus), "VCPUs is what it may use");
    let memory = row["memory_mib"].as_u64().unwrap();
    assert!((5..2000).contains(&memory), "a Debian with systemd uses {memory} MiB");
    assert_eq!(
        Some(pronto.leader(name)),
        group_init(&group, pronto.leader(name)),
        "the leader is in the domain's cgroup"
    );
}

/// `leader`, if it is in `group` or below.
fn group_init(group: &Path, leader: i32) -> Option<i32> {
    let mut queue = vec![group.to_owned()];
    while let Some(dir) = queue.pop() {
        if std::fs::read_to_string(dir.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
            .any(|l| l == leader.to_string())
        {
            return Some(leader);
        }
        queue.extend(std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir()));
    }
    None
}

fn the_formats_agree() {
    let (pronto, name) = (shared(), shared_native());
    let row = pronto.row(name).unwrap();
    let table = pronto.run(["list", name]).ok().text();
    let fields: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(fields[0], row["name"].as_str().unwrap());
    assert_eq!(fields[1], row["domid"].to_string());
    assert_eq!(fields[3], row["vcpus"].to_string());
    assert_eq!((row["arch"].as_str(), row["emulated"].as_bool()), (Some("amd64"), Some(false)));
    let domid = row["domid"].to_string();
    pronto.run(["list", &domid]).ok();
    let verbose = pronto.run(["list", "-v", name]).ok();
    assert!(verbose.text().contains(row["uuid"].as_str().unwrap()), "{verbose}");
}

fn uptime_and_ids() {
    let (pronto, name) = (shared(), shared_native());
    let out = pronto.run(["uptime", name]).ok();
    let row = out.text().lines().nth(1).unwrap_or_default().to_owned();
    assert!(row.starts_with(name) && row.contains(&pronto.domid(name).to_string()), "{out}");
    let domid = pronto.domid(name).to_string();
    pronto.run(["domname", &domid]).ok().prints(name);
}

fn memory_is_enforced_or_refused() {
    let (pronto, tree) = (Pronto::fresh(), BOOKWORM_AMD64.tree());
    let out = pronto.cmd(["create", "--name", "guest"]).arg(&tree).arg("memory=256").run();
    if out.code() != 0 {
        assert!(out.err().contains("memory") && out.err().contains("cgroup"), "refused, with the reason: {out}");
        assert!(pronto.rows().is_empty());
        return;
    }
    let v1 = pronto.cgroup("guest", "memory").map(|g| g.join("memory.limit_in_bytes"));
    let file = v1
        .filter(|f| f.exists())
        .or_else(|| pronto.cgroup("guest", "").map(|g| g.join("memory.max")))
        .expect("a group");
    assert_eq!(read(&file).trim(), (256u64 << 20).to_string(), "{}", file.display());
    assert_eq!(pronto.row("guest").unwrap()["memory_mib"], 256, "Mem is the limit");
    let out = pronto.cmd(["exec", "guest", "--", "perl", "-e", "$x = 'x' x (400 << 20); print length $x"]).run();
    assert_ne!(out.code(), 0, "400 MiB do not fit into 256: {out}");
    assert_eq!(pronto.state("guest"), "running", "the guest survives its own greed");
    pronto.run(["destroy", "guest"]).ok();
}

fn cpus_are_enforced_or_refused() {
    let (pronto, tree) = (Pronto::fresh(), BOOKWORM_AMD64.tree());
    for word in ["vcpus=1", "cpus=\"0\""] {
        let out = pronto.cmd(["create", "--name", "guest", "--replace"]).arg(&tree).arg(word).run();
        if out.code() != 0 {
            assert!(out.err().contains(word.split('=').next().unwrap()), "refused, with the reason: {out}");
            continue;
        }
        assert_eq!(pronto.row("guest").unwrap()["vcpus"], 1);
        if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) > 1 {
            // Two busy loops for a second of wall time may use little more than one of CPU time.
            let script = "(timeout 2 sh -c 'while :; do :; done' & timeout 2 sh -c 'while :; do :; done' & wait); times | tail -1";
            let out = pronto.cmd(["exec", "guest", "--", "bash", "-c", script]).limit(secs(30)).run().ok();
            let seconds: f64 = out.text().split_whitespace().map(minutes).sum();
            assert!(seconds < 3.0, "two loops of 2 s on one CPU took {seconds} s of CPU time: {out}");
        }
        pronto.run(["destroy", "guest"]).ok();
    }
}

/// `0m1.980s` in seconds.
fn minutes(text: &str) -> f64 {
    let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap_or(("0", "0"));
    minutes.parse::<f64>().unwrap_or(0.0) * 60.0 + seconds.parse::<f64>().unwrap_or(0.0)
}

fn inspection_needs_no_guest() {
    let pronto = Pronto::fresh();
    assert_eq!(pronto.run(["list", "--format", "json"]).ok().text().trim(), "[]");
    assert_eq!(pronto.run(["list"]).ok().text().lines().count(), 1, "the header alone");
    pronto.run(["info"]).ok();
    pronto.run(["doctor"]);
    let out = pronto.run(["binfmt", "status"]).ok();
    assert!(out.text().contains("arm64"), "{out}");
    let out = pronto.run(["arch", "show", "aarch64"]).ok();
    assert!(out.text().contains("arm64"), "{out}");
    pronto.run(["arch", "show", "arm46"]).exits(1).says("arm64");
}
