//! Failure points: places where a test can make the next step fail, to prove that everything before it is undone. Only in
//! debug builds; in a release build the check is nothing. What a newcomer would get wrong: a new step that leaves something
//! behind needs a point of its own in [`POINTS`], and the boot ring then tries it without being told.

use std::io;

/// Every point, in the order in which `create` passes them.
pub const POINTS: [&str; 18] = [
    "resolve",
    "disk",
    "reserve",
    "inspect",
    "interpreter",
    "emulation",
    "record",
    "monitor-start",
    "cgroup",
    "namespace",
    "overlay",
    "console",
    "guest-start",
    "leader",
    "registry",
    "run-record",
    "ready",
    "handover",
];

/// Fails with EIO when `PRONTO_FAIL_AT` names this point.
pub fn point(name: &str) -> io::Result<()> {
    debug_assert!(POINTS.contains(&name), "'{name}' is missing in POINTS");
    if cfg!(debug_assertions) && std::env::var_os("PRONTO_FAIL_AT").is_some_and(|at| at == name) {
        return Err(io::Error::other(format!("failure injected at '{name}'")));
    }
    Ok(())
}

/// Spoils files below `dir`: those that `PRONTO_FAIL_SPOIL` names, with colons between, lose their second half; only in debug builds.
pub fn spoil(dir: &std::path::Path) -> io::Result<()> {
    let Some(names) = std::env::var("PRONTO_FAIL_SPOIL").ok().filter(|_| cfg!(debug_assertions)) else { return Ok(()) };
    for name in names.split(':') {
        let file = std::fs::OpenOptions::new().write(true).open(dir.join(name))?;
        file.set_len(file.metadata()?.len() / 2)?;
    }
    Ok(())
}

/// How long a silent server is waited for, by `PRONTO_FAIL_SILENCE` (milliseconds); only in debug builds.
pub fn silence() -> Option<std::time::Duration> {
    let said = std::env::var("PRONTO_FAIL_SILENCE").ok().filter(|_| cfg!(debug_assertions))?;
    said.parse().ok().map(std::time::Duration::from_millis)
}
