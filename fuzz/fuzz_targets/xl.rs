//! What xl prints: its tables, its JSON, its words on stderr; and a text as a string of an xl.cfg.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::backend::hexagon::xen::failure::{self, Notice};
use pronto::backend::hexagon::xen::{details, output};

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|b| *b == b'\n').count();
    if let Ok(rows) = output::list(bytes) {
        assert!(rows.len() < lines, "a row without a line");
        for row in rows {
            assert!(row.seconds >= 0.0 && row.uuid.is_none());
            assert!(row.name.is_none_or(|name| !name.is_empty() && !name.ends_with(' ')));
        }
    }
    if let Ok(rows) = output::list_verbose(bytes) {
        assert!(rows.len() < lines && rows.iter().all(|row| row.uuid.as_ref().is_some_and(|u| u.len() == 36)));
    }
    for row in output::vcpu_list(bytes).into_iter().flatten() {
        assert!(!row.hard.is_empty() && !row.soft.is_empty());
    }
    let _ = output::uptime(bytes);
    let _ = output::vm_list(bytes);
    for block in output::block_list(bytes).into_iter().flatten() {
        assert!(output::vdev(block.device).is_none_or(|name| name.starts_with("xvd")));
    }
    let _ = output::network_list(bytes);
    let _ = output::domid(bytes);
    let _ = output::domname(bytes);
    if let Ok(info) = output::Info::read(bytes) {
        let _ = (info.architectures(), info.has_hvm(), info.number("free_memory"));
    }
    let _ = details::list(bytes);
    let _ = details::dry_run(bytes);
    if let Err(failure) = failure::check(Some(1), bytes) {
        assert!(!failure.cause.trim().is_empty(), "a failure without a word");
    }
    for line in String::from_utf8_lossy(bytes).lines() {
        let _ = Notice::read(line);
    }
});
