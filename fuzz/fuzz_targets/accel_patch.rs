//! Programs changed for a guest: no more is changed than what was counted, and the names of symbols stay.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::accel::patch::{Part, Rules, Toolchain, patch};
use pronto::elf::Layout;

const PREFIXES: &[(&str, &str)] = &[
    ("/usr/lib/x86_64-linux-gnu/", "/run/accel/lib////////////"),
    ("/etc/ld.so.cache", "/run/accel/cache"),
    ("/a", "/b"),
];
const STRINGS: &[(&str, &str)] = &[("x86_64-pc-linux-gnu", "aarch64-unknown-linux-gnu")];

fuzz_target!(|data: &[u8]| {
    let none = Rules::default();
    let paths = Rules { prefixes: PREFIXES, ..none };
    // Those that add a segment change its header beside what they count.
    for rules in [Rules { strings: STRINGS, ..paths }, Rules { machine: Some("aarch64"), ..paths }] {
        if let Ok(done) = patch(data, &rules) {
            assert!(done.bytes.len() > data.len());
        }
    }
    for part in [Part::Driver, Part::Compiler, Part::Linker] {
        let toolchain = Some(Toolchain { part, triplet: "a-b", major: 1 });
        if let Ok(done) = patch(data, &Rules { toolchain, ..none }) {
            assert_eq!(done.bytes.len(), data.len());
            assert!(done.changes.toolchain > 0 || done.bytes == data);
        }
    }
    if let Ok(done) = patch(data, &Rules { deaf: true, ..none }) {
        assert_eq!(done.bytes.iter().zip(data).filter(|(a, b)| a != b).count(), "library".len());
    }
    if let Ok(done) = patch(data, &Rules { interpreter: Some("/ld.so"), ..none }) {
        assert_eq!(done.bytes.len(), data.len());
    }
    let Ok(done) = patch(data, &paths) else { return };
    assert_eq!(done.bytes.len(), data.len());
    let changed = done.bytes.iter().zip(data).filter(|(a, b)| a != b).count();
    let most: usize = done.changes.prefixes.iter().zip(PREFIXES).map(|(n, (from, _))| n * from.len()).sum();
    assert!(changed <= most, "{changed} bytes for {most}");
    let layout = Layout::of(data).expect("it was read");
    let strings = layout.dynamic_strings().unwrap_or_default();
    for symbol in layout.symbols().unwrap_or_default() {
        let Some(name) = layout.dynamic_string(symbol.name) else { continue };
        let at = strings.start + symbol.name as usize;
        assert_eq!(&done.bytes[at..at + name.len()], name);
    }
});
