//! The files and directories of a hierarchy. What a newcomer would get wrong: an rmdir fails while a dead process is still
//! being reaped, so whoever removes tries again.

use std::fs;
use std::io;
use std::path::Path;

use super::Error;

pub(super) fn make_dir(dir: &Path) -> Result<(), Error> {
    let mut last = Ok(());
    // The parent may be removed by the end of another domain between the two mkdirs of create_dir_all.
    for _ in 0..10 {
        last = fs::create_dir_all(dir);
        if last.is_ok() {
            return Ok(());
        }
    }
    last.map_err(|source| Error::Io { path: dir.to_owned(), source })
}

/// Moves this process into the cgroup `dir`, which is made. Errors: as mkdir(2), and as writing `cgroup.procs` (cgroup-v2.rst).
pub fn move_self(dir: &Path) -> Result<(), Error> {
    make_dir(dir)?;
    write(&dir.join("cgroup.procs"), "0")
}

pub(super) fn write(file: &Path, value: &str) -> Result<(), Error> {
    let open = fs::OpenOptions::new().write(true).open(file);
    open.and_then(|mut f| io::Write::write_all(&mut f, value.as_bytes()))
        .map_err(|source| Error::Io { path: file.to_owned(), source })
}

pub(super) fn first_line(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

pub(super) fn words(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

pub(super) fn field(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

pub(super) fn each_below(dir: &Path, visit: &mut impl FnMut(&Path)) {
    visit(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            each_below(&entry.path(), visit);
        }
    }
}

pub(super) fn remove_below(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_below(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}
