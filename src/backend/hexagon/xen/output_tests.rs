//! Captures of a real xl, and what is no table. What a newcomer would get wrong: rows have blanks, headers have tabs, and some lines end in blanks.

use super::*;

const HEAD: &str = "Name                                        ID   Mem VCPUs\tState\tTime(s)\n";

fn state(text: &str) -> State {
    State::read(text).unwrap_or_else(|| panic!("{text}"))
}

fn domain(name: &str, domid: u32, memory: u64, vcpus: u32, columns: &str, seconds: f64) -> Domain {
    Domain { name: Some(name.into()), domid, memory, vcpus, state: state(columns), seconds, uuid: None }
}

#[test]
fn a_list() {
    let text = format!(
        "{HEAD}Domain-0                                     0   512     1     r-----      44.8\n\
         full1                                        1   100     1     -b----      13.7\n\
         bad name                                     8   128     1     r-----       0.4\n\
         a-name-that-is-longer-than-its-column-in-the-table    12 100000    64     ---sc-  123456.0\n\
         (null)                                       9     0     1     --p--d       0.0\n"
    );
    let rows = list(text.as_bytes()).unwrap();
    assert_eq!(rows[0], domain("Domain-0", 0, 512, 1, "r-----", 44.8));
    assert_eq!(rows[1], domain("full1", 1, 100, 1, "-b----", 13.7));
    assert_eq!(rows[2], domain("bad name", 8, 128, 1, "r-----", 0.4));
    let long = "a-name-that-is-longer-than-its-column-in-the-table";
    assert_eq!(rows[3], domain(long, 12, 100_000, 64, "---sc-", 123_456.0));
    assert_eq!((rows[4].name.as_deref(), rows[4].domid, rows[4].state.dying), (None, 9, true));
    assert!(list(HEAD.as_bytes()).unwrap().is_empty());
}

#[test]
fn a_list_with_uuids() {
    let text = "Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity \
                Label\nfull 1                                       1   128     2     -b----      13.1 \
                e1823450-8e56-4a72-966b-e468ebf4737e        -                -\n\
                gone                                         2   128     2     ---sc-      13.1 \
                e1823450-8e56-4a72-966b-e468ebf4737f        3                -\n";
    let rows = list_verbose(text.as_bytes()).unwrap();
    let uuid = Some("e1823450-8e56-4a72-966b-e468ebf4737e".to_owned());
    assert_eq!(rows[0], Domain { uuid, ..domain("full 1", 1, 128, 2, "-b----", 13.1) });
    assert_eq!(rows[1].state.shutdown, Some(Reason::Crash));
    assert!(list_verbose(format!("{HEAD}x  1 1 1 ------ 1.0\n").as_bytes()).is_err());
}

#[test]
fn names_may_hold_anything() {
    let row = |name: &[u8]| [HEAD.as_bytes(), name, b"   5   128     1     -b----       1.0\n"].concat();
    for name in ["a\nb", "1 2 3", " led", "a\tb", "x\u{a0}y", "5 128 1 -b---- z"] {
        let rows = list(&row(name.as_bytes())).unwrap();
        assert_eq!((rows.len(), rows[0].name.as_deref(), rows[0].domid), (1, Some(name), 5), "{name:?}");
    }
    assert_eq!(list(&row(b"\xff")).unwrap()[0].name.as_deref(), Some("\u{fffd}"));
}

#[test]
fn states_are_flags() {
    let all = State { running: true, blocked: true, paused: true, shutdown: Some(Reason::Watchdog), dying: true };
    assert_eq!(state("rbpswd"), all);
    assert_eq!(state("------"), State::default());
    assert_eq!(state("-bp---"), State { blocked: true, paused: true, ..State::default() });
    for (columns, reason) in [
        ("---s--", Reason::Poweroff),
        ("--psr-", Reason::Reboot),
        ("---ss-", Reason::Suspend),
        ("---sS-", Reason::SoftReset),
        ("---s?-", Reason::Other),
    ] {
        assert_eq!(state(columns).shutdown, Some(reason), "{columns}");
    }
    for bad in ["", "-----", "-------", "x-----", "----x-", "b-----", "-\u{e9}----"] {
        assert_eq!(State::read(bad), None, "{bad}");
    }
}

#[test]
fn cpus() {
    let text = "Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)\n\
                Domain-0                             0     0    0   r--      33.2  all / all\n\
                full / 1                             1     0    3   -b-       9.8  0,2-3 / all\n\
                full1                                1     1    -   --p       3.8  all / 1\n";
    let rows = vcpu_list(text.as_bytes()).unwrap();
    let cpu = |row: &Vcpu| (row.domid, row.vcpu, row.cpu, row.running, row.blocked);
    assert_eq!(cpu(&rows[0]), (0, 0, Some(0), true, false));
    assert_eq!(cpu(&rows[1]), (1, 0, Some(3), false, true));
    assert_eq!(cpu(&rows[2]), (1, 1, None, false, false));
    assert_eq!(
        (rows[1].name.as_deref(), rows[1].hard.as_str(), rows[2].soft.as_str()),
        (Some("full / 1"), "0,2-3", "1")
    );
    assert_eq!((rows[1].seconds, rows[2].seconds), (9.8, 3.8));
}

#[test]
fn uptimes() {
    let text = "Name                                ID Uptime\n\
                Domain-0                             0  0:00:49\n\
                my guest                            12 1 day,  2:03:04\n\
                2 days,                              3 45 days, 23:59:59\n";
    let rows = uptime(text.as_bytes()).unwrap();
    let row = |at: usize| (rows[at].0.as_deref().unwrap(), rows[at].1, rows[at].2.as_secs());
    assert_eq!(row(0), ("Domain-0", 0, 49));
    assert_eq!(row(1), ("my guest", 12, 86400 + 2 * 3600 + 3 * 60 + 4));
    assert_eq!(row(2), ("2 days,", 3, 45 * 86400 + 86399));
    let huge = format!("Name ID Uptime\nx 1 {0} days, {0}:{0}:{0}\n", u64::MAX);
    assert!(uptime(huge.as_bytes()).is_err());
}

#[test]
fn ids_and_names() {
    let text = "UUID                                  ID    name\n\
                00000000-0000-0000-0000-000000000000  0    Domain-0                      \n\
                e1823450-8e56-4a72-966b-e468ebf4737e  17    my guest                     \n";
    let rows = vm_list(text.as_bytes()).unwrap();
    assert_eq!(rows[0], ("00000000-0000-0000-0000-000000000000".into(), 0, Some("Domain-0".into())));
    assert_eq!((rows[1].1, rows[1].2.as_deref()), (17, Some("my guest")));
    assert_eq!(domid(b"17\n"), Ok(17));
    assert!(domid(b"").is_err() && domid(b"x\n").is_err());
    assert_eq!(domname(b"my guest\n").unwrap(), "my guest");
    assert!(domname(b"\n").is_err());
}

#[test]
fn devices() {
    let text = "Vdev  BE  handle state evt-ch ring-ref BE-path                       \n\
                51712 0   1      4     15     8        /local/domain/0/backend/vbd/1/51712\n";
    let want = Block { device: 51712, backend: 0, state: 4, path: "/local/domain/0/backend/vbd/1/51712".into() };
    assert_eq!(block_list(text.as_bytes()).unwrap(), [want]);
    let text = "Idx BE Mac Addr.         handle state evt-ch   tx-/rx-ring-ref BE-path                       \n\
                0   0  00:16:3e:00:00:01     0     4     -1   522/523         /local/domain/0/backend/vif/1/0\n";
    let mac = "00:16:3e:00:00:01".into();
    let want = Interface { device: 0, backend: 0, mac, state: 4, path: "/local/domain/0/backend/vif/1/0".into() };
    assert_eq!(network_list(text.as_bytes()).unwrap(), [want]);
    for (device, name) in [(51712, "xvda"), (51713, "xvda1"), (51728, "xvdb"), (51952, "xvdp"), (268_439_552, "xvdq")] {
        assert_eq!(vdev(device).as_deref(), Some(name));
    }
    assert_eq!(vdev(0x1000_0000 + (26 << 8)).as_deref(), Some("xvdaa"));
    assert_eq!(vdev(768), None);
}

#[test]
fn a_host() {
    let text = "host                   : dom0\nvirt_caps              : pv hvm hap gnttab-v1 gnttab-v2\n\
                free_memory            : 750\nxen_major              : 4\n\
                xen_caps               : xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 \n\
                xen_changeset          : \ncc_compile_date        : Wed Nov  4 16:52:28 UTC 2026\n";
    let info = Info::read(text.as_bytes()).unwrap();
    assert_eq!((info.get("host"), info.number("free_memory")), (Some("dom0"), Some(750)));
    assert_eq!(info.get("cc_compile_date"), Some("Wed Nov  4 16:52:28 UTC 2026"));
    assert_eq!((info.architectures(), info.has_hvm()), (vec!["amd64", "i386"], true));
    assert_eq!(info.get("xen_changeset"), Some(""));
    let arm = b"xen_major : 4\nvirt_caps : vpmu\nxen_caps               : xen-3.0-aarch64 xen-3.0-armv7l \n";
    let arm = Info::read(arm).unwrap();
    assert_eq!((arm.architectures(), arm.has_hvm()), (vec!["arm64", "armhf"], false));
    assert!(Info::read(b"").is_err());
}

#[test]
fn what_is_no_table() {
    let bad: [&[u8]; 6] =
        [b"", b"\n", b"xl: no\n", b"Name ID\nx\n", b"Name ID\nx 1 2 3 r----- nan\n", b"Name ID\nx -1 2 3 r----- 1.0\n"];
    for text in bad {
        assert!(list(text).is_err(), "{:?}", String::from_utf8_lossy(text));
    }
    let long = [b"Name ID\n".to_vec(), b"x\n".repeat(100_000)].concat();
    assert!(list(&long).is_err());
    let error = list(b"what is this?\n").unwrap_err();
    assert_eq!(error.to_string(), "cannot read what 'xl list' printed: \"what is this?\"");
}
