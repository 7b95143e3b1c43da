//! `/proc/cpuinfo` as native programs of a guest see it: what the guest's interpreter shows the others. What a newcomer would get wrong: it cannot
//! be in the table of mounts that nspawn is given, since nspawn mounts a guest's `/proc` after those. So it is put there when the guest
//! has its `/proc` and before its init runs; and what mounts a `/proc` of its own in the guest sees the host's there.

use std::io;
use std::path::{Path, PathBuf};

use super::Wish;
use crate::binfmt;
use crate::domain::Native;
use crate::sys::fs;

/// Its place.
pub const PLACE: &str = "/proc/cpuinfo";
/// In a domain's directory: its text.
const FILE: &str = "cpuinfo";

/// Asks the guest's interpreter and writes down what it says, for one start. Returns why there is nothing, where so. Errors: as write(2).
pub(super) fn write(wish: &Wish<'_>) -> io::Result<Option<String>> {
    let file = wish.dir.join(FILE);
    match binfmt::cpuinfo(wish.profile, &wish.by.interpreter, wish.by.cpu.as_deref()) {
        Ok(Some(text)) => fs::write_atomic(&file, &text, 0o444).map(|()| None),
        other => {
            match std::fs::remove_file(&file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let why = other.err().unwrap_or_else(|| "its interpreter shows the same".into());
            Ok(Some(format!("{PLACE}: native programs see this machine's ({why})")))
        }
    }
}

/// The file to be shown at [`PLACE`]. `dir` is the domain's directory.
pub fn shown(native: &Native, dir: &Path) -> Option<PathBuf> {
    Some(dir.join(FILE)).filter(|file| native.from.is_dir() && file.exists())
}
