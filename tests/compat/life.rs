//! A guest's life by the real xl, as pronto's parsers see it. What a newcomer would get wrong: the state is compared flag by flag: an idle guest that
//! is paused shows `b` for another moment.

use ::pronto::backend::hexagon::xen::output::{self, Domain, Reason, State};
use ::pronto::backend::hexagon::xen::{details, failure};

use crate::host::Host;
use crate::machine::{Record, record, share};

fn life(host: Host, name: &str) -> Record {
    record(host, "life", name)
}

/// The rows of a list by name.
fn rows(record: Record) -> Vec<Domain> {
    let record = record.ok();
    output::list(&record.out).unwrap_or_else(|e| panic!("{e}\n{record}"))
}

fn row(record: Record, name: &str) -> Domain {
    let all = rows(record);
    all.iter().find(|d| d.name.as_deref() == Some(name)).unwrap_or_else(|| panic!("no {name} in {all:?}")).clone()
}

fn domid(host: Host) -> u32 {
    output::domid(&life(host, "life-domid").ok().out).unwrap()
}

pub fn made_paused(host: Host) {
    let made = life(host, "create-paused").ok();
    assert_eq!((made.text(), made.said()), (String::new(), "Parsing config from /run/g1.cfg\n".to_owned()));
    let row = row(life(host, "life-list-paused"), "g1");
    assert_eq!((row.domid, row.memory, row.vcpus), (domid(host), 96, 1));
    assert_eq!(row.state, State { paused: true, ..State::default() });
    assert!(row.domid > 0 && row.seconds < 0.5, "{row:?}");
    let twice = life(host, "life-twice");
    let failure = failure::check(Some(twice.code), &twice.err).unwrap_err();
    assert_eq!((failure.code, failure.kind), (Some(3), failure::Kind::NameInUse), "{twice}");
    assert_eq!(failure.cause, "Domain with name \"g1\" already exists.");
}

pub fn it_runs(host: Host) {
    let row = row(life(host, "life-list"), "g1");
    assert_eq!(row.domid, domid(host));
    assert!(!row.state.paused && row.state.shutdown.is_none() && !row.state.dying && row.seconds > 0.1, "{row:?}");
    assert_eq!(rows(life(host, "life-list")).len(), 2);
    let verbose = output::list_verbose(&life(host, "life-list-v").ok().out).unwrap();
    let details = details::list(&life(host, "life-list-l").ok().out).unwrap();
    assert_eq!((verbose.len(), details.len()), (1, 1));
    let one = &details[0];
    assert_eq!((one.domid, one.name.as_deref(), one.kind.as_str()), (Some(row.domid), Some("g1"), host.guest));
    assert_eq!((one.uuid.clone(), one.vcpus), (verbose[0].uuid.clone(), 1));
    assert_eq!((one.memory, one.max_memory), (96 << 10, 96 << 10));
    assert_eq!(one.cmdline.as_deref(), Some("console=hvc0 quiet"));
    assert_eq!(one.ends, [None, Some("restart".to_owned()), None, None]);
    let cpus = output::vcpu_list(&life(host, "life-vcpus").ok().out).unwrap();
    assert_eq!((cpus.len(), cpus[0].domid, cpus[0].vcpu, cpus[0].cpu), (1, row.domid, 0, Some(0)));
    let up = output::uptime(&life(host, "life-uptime").ok().out).unwrap();
    assert_eq!((up.len(), up[0].0.as_deref(), up[0].1), (1, Some("g1"), row.domid));
    assert!(up[0].2.as_secs() < 300, "{up:?}");
    assert_eq!(output::domname(&life(host, "life-domname").ok().out).unwrap(), "g1");
}

pub fn its_devices(host: Host) {
    let (blocks, nics) = (life(host, "life-blocks").ok(), life(host, "life-nics").ok());
    let blocks = output::block_list(&blocks.out).unwrap_or_else(|e| panic!("{e}\n{blocks}"));
    let nics = output::network_list(&nics.out).unwrap_or_else(|e| panic!("{e}\n{nics}"));
    assert_eq!((blocks.len(), nics.len()), (1, 1), "{blocks:?} {nics:?}");
    let domid = domid(host);
    assert_eq!(output::vdev(blocks[0].device).as_deref(), Some("xvda"));
    assert_eq!((blocks[0].backend, blocks[0].state), (0, 4), "connected");
    assert_eq!(blocks[0].path, format!("/local/domain/0/backend/vbd/{domid}/51712"));
    assert_eq!((nics[0].device, nics[0].backend, nics[0].state), (0, 0, 4), "connected");
    assert_eq!(nics[0].mac, "00:16:3e:00:00:01");
    assert_eq!(nics[0].path, format!("/local/domain/0/backend/vif/{domid}/0"));
}

pub fn it_pauses(host: Host) {
    for silent in ["life-unpause", "life-pause", "life-pause-again", "life-unpause-again", "life-unpause-twice"] {
        let record = life(host, silent).ok();
        assert!(record.out.is_empty() && record.err.is_empty(), "{record}");
        assert_eq!(failure::check(Some(record.code), &record.err), Ok(()));
    }
    let row = row(life(host, "life-list-pause"), "g1");
    assert!(row.state.paused && row.state.shutdown.is_none() && !row.state.running, "{row:?}");
    assert!(self::row(life(host, "life-list-pause-still"), "g1").state.paused, "pauses are counted");
    assert!(!self::row(life(host, "life-list-unpaused"), "g1").state.paused);
}

/// Without a terminal the console's output comes, from the beginning, until the program is told to end.
pub fn its_console(host: Host) {
    let record = life(host, "life-console").ok();
    let text = record.text();
    for line in ["GUEST-BEGINS", "GUEST-DISK SIXTEEN-BYTES-OK", "GUEST-NIC 00:16:3e:00:00:01", "GUEST-READY"] {
        assert!(text.contains(line), "no {line:?} in {record}");
    }
}

pub fn it_is_renamed(host: Host) {
    life(host, "life-rename").ok();
    let renamed = row(life(host, "life-renamed"), "g2");
    assert_eq!(renamed.domid, domid(host));
    life(host, "life-rename-back").ok();
}

pub fn it_shuts_down(host: Host) {
    let record = life(host, "life-shutdown").ok();
    assert!(record.out.is_empty(), "{record}");
    let domid = domid(host);
    let want = format!(
        "Shutting down domain {domid}\nWaiting for 1 domains\nDomain {domid} has been shut down, reason code 0\n"
    );
    assert_eq!(record.said(), want);
    assert_eq!(failure::check(Some(0), &record.err), Ok(()));
    assert_eq!(rows(life(host, "life-list-after")).len(), 1, "only domain 0");
    let missing = life(host, "life-missing");
    assert_eq!(failure::check(Some(missing.code), &missing.err).unwrap_err().kind, failure::Kind::Missing);
}

pub fn it_crashes(host: Host) {
    let crash = |name| record(host, "crash", name);
    crash("crash-create").ok();
    let row = row(crash("crash-list"), "c1");
    assert_eq!(row.state.shutdown, Some(Reason::Crash), "{row:?}");
    assert!(!row.state.dying && !row.state.paused, "{row:?}");
    crash("crash-destroy").ok();
    assert_eq!(crash("crash-gone").code, 1);
}

pub fn odd_names(host: Host) {
    let names = |name| record(host, "names", name);
    const TWO: &str = "two words 5 1 -b---- 1.0";
    const LONG: &str = "a-name-that-is-longer-than-the-column-it-stands-in-by-far";
    names("names-create").ok();
    names("names-create-long").ok();
    let list = rows(names("names-list"));
    let id = |name: &str| list.iter().find(|d| d.name.as_deref() == Some(name)).map(|d| d.domid).expect("a row");
    let want = [0, id(TWO), id(LONG)];
    assert_eq!(list.iter().map(|d| d.domid).collect::<Vec<_>>(), want);
    let all = [Some("Domain-0"), Some(TWO), Some(LONG)];
    let verbose = output::list_verbose(&names("names-list-v").ok().out).unwrap();
    let cpus = output::vcpu_list(&names("names-vcpus").ok().out).unwrap();
    let up = output::uptime(&names("names-uptime").ok().out).unwrap();
    let vms = output::vm_list(&names("names-vm-list").ok().out).unwrap();
    let details = details::list(&names("names-list-l").ok().out).unwrap();
    let same = |table: &str, rows: Vec<(Option<String>, u32)>| {
        let got: Vec<(Option<&str>, u32)> = rows.iter().map(|(name, id)| (name.as_deref(), *id)).collect();
        assert_eq!(got, all.into_iter().zip(want).collect::<Vec<_>>(), "{table}");
    };
    same("list -v", verbose.iter().map(|d| (d.name.clone(), d.domid)).collect());
    same("vcpu-list", cpus.iter().map(|c| (c.name.clone(), c.domid)).collect());
    same("uptime", up.iter().map(|u| (u.0.clone(), u.1)).collect());
    same("vm-list", vms.iter().map(|v| (v.2.clone(), v.1)).collect());
    same("list -l", details.iter().map(|d| (d.name.clone(), d.domid.expect("a domid"))).collect());
    let uuids = |at: usize| (verbose[at].uuid.clone(), details[at].uuid.clone(), Some(vms[at].0.clone()));
    for at in [1, 2] {
        let (a, b, c) = uuids(at);
        assert!(a.is_some() && a == b && b == c);
    }
    names("names-destroy").ok();
    names("names-destroy-long").ok();
    assert_eq!(rows(names("names-after")).len(), 1);
}

/// Its memory goes on where it stopped.
pub fn it_is_saved(host: Host) {
    let saving = |name| record(host, "saving", name);
    saving("save-create").ok();
    let saved = saving("save").ok();
    assert_eq!(failure::check(Some(0), &saved.err), Ok(()), "{saved}");
    assert_eq!(saving("save-list").code, 1, "a saved domain is gone");
    let restored = saving("restore").ok();
    assert_eq!(failure::check(Some(0), &restored.err), Ok(()), "{restored}");
    let row = row(saving("restore-list"), "s1");
    assert!(row.state.shutdown.is_none() && !row.state.paused, "{row:?}");
    let counts = |name: &str| -> Vec<u32> {
        let text = crate::common::read(share(host, "saving").join("records").join(name));
        text.lines().filter_map(|l| l.trim().strip_prefix("COUNT ")?.parse().ok()).collect()
    };
    let (before, after) = (counts("save-before"), counts("save-after"));
    assert!(after.len() > before.len(), "{before:?} {after:?}");
    let want: Vec<u32> = (1..=u32::try_from(after.len()).unwrap()).collect();
    assert_eq!(after, want, "the counter goes on where it stopped");
    saving("save-destroy").ok();
}
