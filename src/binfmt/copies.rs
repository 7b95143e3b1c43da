//! Copies of interpreters with options baked in, one for each set of options, kept in a cache. What a newcomer would get wrong: a
//! guest in a user namespace cannot open a file below the store (its root is nobody there), so a copy is mounted over the interpreter
//! that it was made of, in the mount namespace of the process that registers it, and there alone.

use std::fs::{File, FileTimes};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::bake::bake;
use crate::sys::{fs, tag};

/// How many copies are kept; one is 15 to 20 MB.
const KEPT: usize = 16;

/// How a guest's real-time signals become the host's: `guest host count`, for QEMU's option `-t` and its variable QEMU_RTSIG_MAP
/// (QEMU 10). 34 to 60 stay as they are, or a guest's systemd would never hear that it shall power off, nor find what handles RTMIN+25.
/// 32 and 33 belong to the C library (pthread_cancel(3), setuid(2) in threads), on the host too, so they go elsewhere; QEMU keeps two for
/// itself. That is as many as there are without a map.
pub const SIGNALS: &str = "32 61 2,34 34 27";

/// A copy of `interpreter` with this CPU model and the host's real-time signals, below `dir`; with `native` one that runs native
/// programs where there are some. Errors: why there can be none, in words
/// that follow the interpreter's name; what runs already keeps its own.
pub fn copy(interpreter: &Path, cpu: Option<&str>, native: bool, dir: &Path) -> Result<PathBuf, String> {
    let path = dir.join(name(interpreter, cpu, native)?);
    if let Ok(known) = File::open(&path) {
        // The ones that were not used for longest go first.
        let _ = known.set_times(FileTimes::new().set_modified(SystemTime::now()));
        return Ok(path);
    }
    write(interpreter, cpu, native, &path)?;
    sweep(dir);
    Ok(path)
}

/// As [`copy`], without a CPU model and with native programs, for the host's registry: it stays as long as its interpreter does, and is not
/// touched again, since a change would look as if another file had taken its place.
pub(super) fn lasting(interpreter: &Path, dir: &Path) -> Result<PathBuf, String> {
    let path = dir.join(lasting_name(interpreter)?);
    if path.exists() {
        return Ok(path);
    }
    // Those of earlier versions are of no use.
    for old in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.file_name().is_some_and(|name| old.join(name).exists()) {
            let _ = std::fs::remove_dir_all(old);
        }
    }
    write(interpreter, None, true, &path)?;
    Ok(path)
}

/// Where the copy lies that [`lasting`] makes, below its directory. Errors: there is no such interpreter.
pub(super) fn lasting_name(interpreter: &Path) -> Result<PathBuf, String> {
    name(interpreter, None, true)
}

fn said(e: &std::io::Error) -> String {
    format!("cannot be copied: {e}")
}

/// A directory for each interpreter as it is now and set of options, and in it the name that people look for.
fn name(interpreter: &Path, cpu: Option<&str>, native: bool) -> Result<PathBuf, String> {
    let meta = std::fs::metadata(interpreter).map_err(|e| said(&e))?;
    // What is baked in is a part of it, so that another version of ours makes its own.
    let code = if native { tag::of(&super::dispatch::CODE, 8) } else { String::new() };
    let text = format!("5 {} {:?} {cpu:?} {code}", interpreter.display(), super::interpreter::identity(&meta));
    let name = interpreter.file_name().ok_or("has no name")?;
    Ok(Path::new(&tag::of(text.as_bytes(), 24)).join(name))
}

fn write(interpreter: &Path, cpu: Option<&str>, native: bool, path: &Path) -> Result<(), String> {
    let program = std::fs::read(interpreter).map_err(|e| said(&e))?;
    let mut options: Vec<(&str, &str)> = cpu.map(|model| ("-cpu", model)).into_iter().collect();
    if knows_signals(&program) {
        options.push(("-t", SIGNALS));
    }
    let baked = bake(&program, &options, native).map_err(|e| e.to_string())?;
    let parent = path.parent().ok_or("has no place")?;
    let dir = parent.parent().ok_or("has no place")?;
    fs::private_dir(dir).and_then(|()| fs::private_dir(parent)).map_err(|e| said(&e))?;
    fs::write_atomic(path, &baked, 0o755).map_err(|e| said(&e))
}

/// Whether there can be a copy of an interpreter. Errors: as [`copy`].
pub fn can_copy(interpreter: &Path) -> Result<(), String> {
    let mut prefix = Vec::new();
    let read = File::open(interpreter).and_then(|file| file.take(crate::elf::PREFIX).read_to_end(&mut prefix));
    read.map_err(|e| format!("cannot be read: {e}"))?;
    super::bake::fits(&prefix).map_err(|e| e.to_string())
}

/// Whether an interpreter can be told to keep real-time signals: its program is asked, not its version.
pub fn knows_signals(program: &[u8]) -> bool {
    const VARIABLE: &[u8] = b"QEMU_RTSIG_MAP";
    program.windows(VARIABLE.len()).any(|w| w == VARIABLE)
}

/// Removes the copies that were not used for longest.
fn sweep(dir: &Path) {
    let used = |dir: &Path| {
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
        files.filter_map(|f| f.metadata().ok()?.modified().ok()).max()
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let mut all: Vec<(Option<SystemTime>, PathBuf)> = entries.map(|path| (used(&path), path)).collect();
    all.sort();
    let spare = all.len().saturating_sub(KEPT);
    for (_, old) in all.drain(..spare) {
        let _ = std::fs::remove_dir_all(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_made_once_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("qemu-test");
        let cache = dir.path().join("cache");
        fs::write_volatile(&source, b"#!/bin/sh\n", 0o755).unwrap();
        assert!(copy(&source, None, false, &cache).unwrap_err().contains("x86-64"));
        assert!(can_copy(&source).unwrap_err().contains("x86-64"));
        assert!(!cache.exists(), "nothing is left of what cannot be");
        fs::write_volatile(&source, &super::super::bake::tests::teller(), 0o755).unwrap();
        assert_eq!(can_copy(&source), Ok(()));
        let first = copy(&source, Some("a"), false, &cache).unwrap();
        assert_eq!(copy(&source, Some("a"), false, &cache).unwrap(), first);
        let other = copy(&source, Some("b"), false, &cache).unwrap();
        assert_ne!(other, first);
        assert!(other.ends_with("qemu-test"), "its name is what people look for");
        for n in 0..KEPT {
            copy(&source, Some(&format!("model{n}")), true, &cache).unwrap();
        }
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), KEPT);
        assert!(!first.exists());
    }
}
