//! The qemu-user binaries of this host: found by their names, checked as ELF files, asked for their version. What a newcomer
//! would get wrong: names prove nothing. `qemu-arm64` may be a script, a dynamic program (useless in a guest's root) or one for
//! another CPU; with F and C the file becomes root for every setuid program, so nobody but root may be able to change it.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::arch::{Profile, Profiles};
use crate::sys::process::Tool;
use crate::{elf, sys};

/// QEMU's version.
pub type Version = (u32, u32, u32);

/// A program that can run an architecture's programs here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interpreter {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself.
    pub version: Version,
    /// Whether it is position independent.
    pub pie: bool,
}

/// What was found out about a file, for as long as it stays the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    identity: [i64; 6],
    version: Version,
    pie: bool,
}

/// The best interpreter for `profile`: the one of the highest version; of equals, the first on PATH. Errors: there is none, or
/// each is unfit, with the reasons. `cache` remembers versions, which costs a start of the program otherwise.
pub fn best(profile: &Profile, profiles: &Profiles, cache: Option<&Path>) -> Result<Interpreter> {
    let mut best: Option<Interpreter> = None;
    let mut reasons = Vec::new();
    for (path, fitness) in candidates(profile, profiles, cache) {
        match fitness {
            Ok(found) if best.as_ref().is_none_or(|b| found.version > b.version) => best = Some(found),
            Ok(_) => {}
            Err(why) => reasons.push(format!("{} {why}", super::entry::shown(&path))),
        }
    }
    let (arch, package) = (profile.name.clone(), profile.qemu_user.package.clone());
    best.ok_or_else(|| match reasons.is_empty() {
        true => Error::Missing { arch, looked_for: profile.qemu_user.programs.join(", "), package },
        false => Error::Unfit { arch, why: reasons.join("; "), package },
    })
}

/// All files of the profile's names on PATH and in the usual places, each fit or with the reason why not. One file under
/// several names counts once.
pub fn candidates(
    profile: &Profile,
    profiles: &Profiles,
    cache: Option<&Path>,
) -> Vec<(PathBuf, std::result::Result<Interpreter, String>)> {
    let mut seen = Vec::new();
    let mut known = cache.map(load).unwrap_or_default();
    let before = known.clone();
    let mut found = Vec::new();
    for path in paths(profile) {
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if !meta.is_file() || seen.contains(&(meta.dev(), meta.ino())) {
            continue;
        }
        seen.push((meta.dev(), meta.ino()));
        found.push((path.clone(), examine(&path, &meta, profiles, &mut known)));
    }
    if let Some(cache) = cache.filter(|_| known != before) {
        store(cache, &known);
    }
    found
}

fn paths(profile: &Profile) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from);
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|d| d.is_absolute()).collect();
    dirs.extend(usual);
    dirs.iter().flat_map(|dir| profile.qemu_user.programs.iter().map(move |name| dir.join(name))).collect()
}

/// Checks one file. Errors: what makes it unfit, to be read after its path.
fn examine(
    path: &Path,
    meta: &Metadata,
    profiles: &Profiles,
    known: &mut BTreeMap<PathBuf, Known>,
) -> std::result::Result<Interpreter, String> {
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        return Err("can be changed by others than root".to_owned());
    }
    if meta.mode() & 0o111 == 0 {
        return Err("is not executable".to_owned());
    }
    let identity = identity(meta);
    if let Some(old) = known.get(path).filter(|old| old.identity == identity) {
        return Ok(Interpreter { path: path.to_owned(), version: old.version, pie: old.pie });
    }
    let header = header(path)?;
    check(&header, profiles)?;
    let output = Tool::new(path).arg("--version").output().map_err(|e| format!("does not run: {e}"))?;
    let version = parse_version(&String::from_utf8_lossy(&output)).ok_or("does not say its version as QEMU does")?;
    known.insert(path.to_owned(), Known { identity, version, pie: header.is_pie() });
    Ok(Interpreter { path: path.to_owned(), version, pie: header.is_pie() })
}

fn header(path: &Path) -> std::result::Result<elf::Header, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    file.take(elf::PREFIX).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    elf::parse(&bytes).map_err(|e| format!("is {e}"))
}

/// Whether a program with this header can be an interpreter here: of an architecture the host runs by itself, and static,
/// since a guest's root holds no loader for it.
fn check(header: &elf::Header, profiles: &Profiles) -> std::result::Result<(), String> {
    let (class, data, machine, flags) = header.ident();
    let held = profiles.by_elf(class, data, machine, flags);
    let own = std::fs::File::open("/proc/self/exe").ok().and_then(|file| {
        let mut bytes = Vec::new();
        file.take(elf::PREFIX).read_to_end(&mut bytes).ok()?;
        elf::parse(&bytes).ok()
    });
    let as_ours =
        own.is_some_and(|own| (own.class, own.data, own.machine) == (header.class, header.data, header.machine));
    if !as_ours && (held.is_none() || held != super::host_profile(profiles)) {
        let held = held.map_or_else(|| header.to_string(), |p| p.name.clone());
        return Err(format!("is a program for {held}, not for this host ({})", sys::host::machine()));
    }
    if !header.is_program() {
        return Err("is no program".to_owned());
    }
    match &header.interpreter {
        Some(loader) => Err(format!("is not static (it needs {})", loader.escape_debug())),
        None => Ok(()),
    }
}

/// The version in the first line of `qemu-user --version`: `qemu-aarch64 version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)`.
fn parse_version(text: &str) -> Option<Version> {
    let rest = text.lines().next()?.split_once(" version ")?.1;
    let version = sys::host::version(rest);
    (version != (0, 0, 0)).then_some(version)
}

/// Device, inode, size, times: another file, or a changed one, differs in one of them.
pub(super) fn identity(meta: &Metadata) -> [i64; 6] {
    let changed = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
    let modified = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    [meta.dev() as i64, meta.ino() as i64, meta.size() as i64, modified, changed, i64::from(meta.mode())]
}

/// A cache that cannot be read or written is only slow.
fn load(cache: &Path) -> BTreeMap<PathBuf, Known> {
    std::fs::read(cache).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn store(cache: &Path, known: &BTreeMap<PathBuf, Known>) {
    if let Ok(bytes) = serde_json::to_vec(known) {
        let _ = sys::fs::write_volatile(cache, &bytes, 0o600);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_qemu_says_them() {
        for (text, want) in [
            ("qemu-aarch64 version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\nCopyright", Some((11, 1, 3))),
            ("qemu-arm version 7.2.15\n", Some((7, 2, 15))),
            ("qemu-x86_64 version 10.0.50 (v10.0.0-1234-gdeadbeef)", Some((10, 0, 50))),
            ("bash, version x", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), want, "{text}");
        }
    }

    #[test]
    fn a_file_is_judged_by_what_it_is() {
        let profiles = Profiles::embedded();
        let own = header(Path::new("/proc/self/exe")).unwrap();
        let fixed = elf::Header { interpreter: None, ..own.clone() };
        check(&fixed, &profiles).unwrap();
        let dynamic = elf::Header { interpreter: Some("/lib/ld.so".to_owned()), ..own.clone() };
        assert_eq!(check(&dynamic, &profiles).unwrap_err(), "is not static (it needs /lib/ld.so)");
        let alien = if own.machine == 22 { 243 } else { 22 };
        let foreign = elf::Header { machine: alien, interpreter: None, ..own };
        assert!(check(&foreign, &profiles).unwrap_err().contains("not for this host"));
        assert_eq!(header(Path::new("/etc/passwd")).unwrap_err(), "is not an ELF file");
    }

    #[test]
    fn what_is_remembered_is_dropped_when_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("interpreters.json");
        let program = dir.path().join("qemu-x");
        sys::fs::write_atomic(&program, b"#!/bin/sh\n", 0o755).unwrap();
        let profiles = Profiles::embedded();
        let meta = std::fs::metadata(&program).unwrap();
        let mut known = BTreeMap::new();
        if meta.uid() == 0 {
            assert_eq!(examine(&program, &meta, &profiles, &mut known).unwrap_err(), "is not an ELF file");
            known.insert(program.clone(), Known { identity: identity(&meta), version: (9, 0, 0), pie: true });
            store(&cache, &known);
            let mut known = load(&cache);
            assert_eq!(examine(&program, &meta, &profiles, &mut known).unwrap().version, (9, 0, 0));
            sys::fs::write_atomic(&program, b"#!/bin/sh\n\n", 0o755).unwrap();
            let meta = std::fs::metadata(&program).unwrap();
            assert!(examine(&program, &meta, &profiles, &mut known).is_err());
        }
        sys::fs::write_atomic(&program, b"", 0o777).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let meta = std::fs::metadata(&program).unwrap();
        assert!(examine(&program, &meta, &profiles, &mut known).unwrap_err().contains("others than root"));
        assert!(load(&dir.path().join("missing")).is_empty());
    }
}
