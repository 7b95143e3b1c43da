//! What xl refuses, and how pronto reads that. What a newcomer would get wrong: two of these end with exit code 0.

use ::pronto::backend::hexagon::xen::failure::{self, Failure, Kind};
use ::pronto::backend::hexagon::xen::output;

use crate::host::Host;
use crate::machine::record;

fn refused(host: Host, name: &str) -> Failure {
    let record = record(host, "refusals", name);
    failure::check(Some(record.code), &record.err).err().unwrap_or_else(|| panic!("not refused: {record}"))
}

pub fn missing_domains(host: Host) {
    let verbs = "list pause unpause shutdown reboot destroy console vcpu-list uptime network-list block-list domid";
    for verb in verbs.split(' ') {
        let failure = refused(host, &format!("no-{verb}"));
        let code = if verb == "block-list" { 0 } else { 1 };
        assert_eq!((failure.kind, failure.code), (Kind::Missing, Some(code)), "{verb}: {failure}");
        assert!(failure.cause.contains("nosuch"), "{failure}");
    }
    for name in ["no-number", "no-domname", "word-domname"] {
        assert_eq!(refused(host, name).kind, Kind::Missing, "{name}");
    }
    // Their header comes all the same, and is an empty table.
    let table = |name| record(host, "refusals", name).out;
    assert_eq!(output::vcpu_list(&table("no-vcpu-list")), Ok(Vec::new()));
    assert_eq!(output::block_list(&table("no-block-list")), Ok(Vec::new()));
    assert_eq!(output::network_list(&table("no-network-list")), Ok(Vec::new()));
}

pub fn wrong_words(host: Host) {
    assert_eq!((refused(host, "no-words").kind, refused(host, "no-words").code), (Kind::Usage, Some(2)));
    assert_eq!((refused(host, "no-option").kind, refused(host, "no-option").code), (Kind::Usage, Some(2)));
    assert_eq!((refused(host, "no-verb").kind, refused(host, "no-verb").code), (Kind::NoVerb, Some(1)));
}

pub fn bad_configurations(host: Host) {
    let table = [
        ("no-file", 3, Kind::Other, "Failed to read config file: /nonexistent: No such file or directory"),
        ("bad-syntax", 1, Kind::Other, "config parsing error near"),
        ("bad-no-kernel", 1, Kind::Other, "Neither kernel nor bootloader specified"),
        ("bad-kernel", 3, Kind::Other, "failed to open file '/nonexistent'"),
        ("bad-memory", 3, Kind::NoMemory, ""),
    ];
    for (name, code, kind, cause) in table {
        let failure = refused(host, name);
        assert_eq!((failure.code, failure.kind), (Some(code), kind), "{name}: {failure}");
        assert!(failure.cause.contains(cause), "{name}: {failure}");
    }
}

pub fn domain_0(host: Host) {
    assert_eq!(refused(host, "zero-destroy").code, Some(1));
    // xl itself says that this worked.
    assert_eq!(refused(host, "zero-pause").code, Some(0));
}

pub fn nothing_is_left(host: Host) {
    let record = record(host, "refusals", "refusals-after").ok();
    let rows = output::list(&record.out).unwrap();
    assert_eq!(rows.iter().map(|d| d.domid).collect::<Vec<_>>(), [0], "{record}");
}
