//! What the rings share: guests from Debian packages, a real registry, a picture of the host, the program under test with a
//! store of its own, and a terminal. What a newcomer would get wrong: nothing here is a fake. A test that cannot have the real
//! thing says so with [`skip!`], which is counted and shown at the end, and never passes in silence.

#![allow(dead_code, reason = "each ring uses its part of the house")]
#![allow(unused_macros, unused_imports, reason = "as above")]

pub mod disk;
pub mod elf;
pub mod fixtures;
pub mod harness;
pub mod http;
pub mod oci;
pub mod pronto;
pub mod pty;
pub mod registry;
pub mod run;
pub mod snapshot;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Ends the running test as one that cannot run here, and says why.
macro_rules! skip {
    ($($word:tt)*) => { std::panic::panic_any($crate::common::harness::Skip(format!($($word)*))) };
}
pub(crate) use skip;

/// Waits until `what` gives something, looking ten times a second. Panics with `text` when `limit` has passed.
pub fn eventually<T>(limit: Duration, text: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < end, "not within {} s: {text}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Seconds as a duration, scaled by `PRONTO_TEST_SLOW` (a factor for machines that are slower than the limits assume).
pub fn secs(n: u64) -> Duration {
    let factor = std::env::var("PRONTO_TEST_SLOW").ok().and_then(|v| v.parse::<u32>().ok()).unwrap_or(1);
    Duration::from_secs(n) * factor
}

/// Whether a program is on PATH (or in an sbin directory).
pub fn have(program: &str) -> bool {
    ::pronto::sys::process::find_program(program).is_some()
}

/// Writes a file whole. Panics when it cannot.
pub fn write(path: impl Into<PathBuf>, data: impl AsRef<[u8]>) {
    let path = path.into();
    ::pronto::sys::fs::write_volatile(&path, data.as_ref(), 0o644)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Reads a file as text. Panics when it cannot.
pub fn read(path: impl Into<PathBuf>) -> String {
    let path = path.into();
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}
