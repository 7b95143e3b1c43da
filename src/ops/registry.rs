//! `binfmt` and `arch`, and what create needs of them: what runs the programs of each architecture. What a newcomer would get
//! wrong: whether an interpreter is good enough depends on the *guest* (its systemd, its glibc), so it is asked per image and
//! before anything is registered.

use std::path::Path;

use super::inspect::Facts;
use super::{Ctx, Error, Result, need_root};
use crate::arch::{self, Profile, Profiles, UnknownArch};
use crate::binfmt::{self, Emulator, Host, Interpreter, Level, Made, Row};
use crate::sys::host;

/// Where an administrator puts profiles of their own: `NAME.toml` each.
pub const OVERRIDES: &str = "/etc/pronto/arch.d";

/// All architectures: those that come with the program, and the administrator's over them. Errors: a file that cannot be used.
pub fn profiles() -> Result<Profiles> {
    profiles_in(Path::new(OVERRIDES))
}

fn profiles_in(dir: &Path) -> Result<Profiles> {
    let failed = |what: String| move |e: std::io::Error| Error::general(what).because(e);
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Profiles::embedded()),
        other => other.map_err(failed(format!("cannot read {}", dir.display())))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(format!("cannot read {}", dir.display())))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        // Editors leave `.arm64.toml.swp` and `arm64.toml~`.
        if name.ends_with(".toml") && !name.starts_with('.') {
            let text = std::fs::read_to_string(&path).map_err(failed(format!("cannot read {}", path.display())))?;
            files.push((name, text));
        }
    }
    files.sort();
    Profiles::with_overrides(&files).map_err(|e| {
        let source = std::error::Error::source(&e).map(ToString::to_string);
        let error = Error::general(e.to_string()).hint(format!("mend or remove it in {}", dir.display()));
        if let (arch::Error::Syntax { .. }, Some(source)) = (&e, source) { error.because(source) } else { error }
    })
}

/// The registry of this host, for the verbs of this store.
fn host_of(ctx: &Ctx) -> Result<Host> {
    let copies = Some(ctx.store.cache().join("registered"));
    Ok(Host { profiles: profiles()?, copies, ..Host::system(ctx.store.run()) })
}

fn chosen<'a>(profiles: &'a Profiles, names: &[String]) -> Result<Vec<&'a Profile>> {
    let mut chosen: Vec<&Profile> = Vec::new();
    for name in names {
        let profile = profiles.find(name)?;
        if !chosen.contains(&profile) {
            chosen.push(profile);
        }
    }
    Ok(chosen)
}

/// A row for each architecture of `names`, or for all. Needs no root.
pub fn status(ctx: &Ctx, names: &[String]) -> Result<Vec<Row>> {
    let host = host_of(ctx)?;
    let mut rows = Vec::new();
    for profile in if names.is_empty() { host.profiles.iter().collect() } else { chosen(&host.profiles, names)? } {
        rows.push(host.status(profile)?);
    }
    Ok(rows)
}

/// Registers architectures for good; without names, all that the host does not run itself and has an interpreter for. When one
/// of them fails, those before it are undone.
pub fn register(ctx: &Ctx, names: &[String], credentials: bool) -> Result<Vec<Made>> {
    need_root("binfmt register")?;
    let host = host_of(ctx)?;
    let wanted = if names.is_empty() { registrable(&host) } else { chosen(&host.profiles, names)? };
    let mut made: Vec<Made> = Vec::new();
    let mut before = Vec::new();
    for profile in wanted {
        let done = host.snapshot(profile).and_then(|snapshot| {
            before.push(snapshot);
            host.register(profile, credentials)
        });
        match done {
            // armhf and armel share one entry.
            Ok(done) if made.iter().any(|m| m.entry == done.entry) => {}
            Ok(done) => made.push(done),
            Err(error) => {
                before.iter().rev().for_each(|snapshot| host.go_back(snapshot));
                return Err(error.into());
            }
        }
    }
    Ok(made)
}

fn registrable(host: &Host) -> Vec<&Profile> {
    let fit = |p: &&Profile| {
        !binfmt::runs_itself(p).unwrap_or(true) && binfmt::best(p, &host.profiles, host.cache.as_deref()).is_ok()
    };
    host.profiles.iter().filter(fit).collect()
}

/// Removes what is ours, for architectures of `names` or for all. All are tried; the first failure is told.
pub fn unregister(ctx: &Ctx, names: &[String]) -> Result<Vec<Made>> {
    need_root("binfmt unregister")?;
    let host = host_of(ctx)?;
    let wanted = if names.is_empty() { host.profiles.iter().collect() } else { chosen(&host.profiles, names)? };
    let mut gone: Vec<Made> = Vec::new();
    let mut failed = None;
    for profile in wanted {
        match host.unregister(profile) {
            Ok(done) if gone.iter().any(|g| g.entry == done.entry) => {}
            Ok(done) => gone.push(done),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(gone), |error| Err(error.into()))
}

/// What runs a guest's programs, and where the kernel learns of it.
#[derive(Debug, Clone)]
pub enum Found {
    /// The host's registry has it in force.
    Host(Emulator),
    /// The guest shall have these lines (binfmt.d(5)) in a registry of its own.
    Private(Interpreter, Vec<String>),
}

/// Finds what a guest of `profile` needs: nothing where the host runs it itself. The interpreter is checked against the guest
/// first. With `private` nothing on the host is changed; otherwise it is in force for this boot when this returns, and it is
/// said in one line if that was new. With `native` it is one that looks for native programs, where there can be one.
pub fn emulator(
    ctx: &Ctx,
    profile: &Profile,
    facts: &Facts,
    credentials: bool,
    private: bool,
    native: bool,
) -> Result<Option<Found>> {
    if binfmt::runs_itself(profile)? {
        return Ok(None);
    }
    let host = host_of(ctx)?;
    let best = binfmt::best(profile, &host.profiles, host.cache.as_deref())?;
    let kernel = host::kernel_version();
    for problem in binfmt::demands(best.version, best.pie, kernel, facts.systemd, facts.glibc) {
        if problem.level == Level::Fatal {
            return Err(Error::general(problem.text).hint(problem.cure));
        }
        ctx.report.warn(&format!("{}: {}", problem.text, problem.cure));
    }
    if private {
        let lines = private_lines(&host, profile, &best, credentials)?;
        return Ok(Some(Found::Private(best, lines)));
    }
    let emulator = host.ensure(profile, credentials, native)?;
    if emulator.registered_now {
        let (major, minor, patch) = emulator.version;
        ctx.report.note(&format!(
            "registered {} for this boot: {} programs run by {} ({major}.{minor}.{patch})",
            emulator.entry,
            profile.name,
            emulator.interpreter.display()
        ));
    }
    Ok(Some(Found::Host(emulator)))
}

/// The entries for a registry of a guest's own: its architecture, and those that a real machine of it runs too.
fn private_lines(host: &Host, profile: &Profile, by: &Interpreter, credentials: bool) -> Result<Vec<String>> {
    let line = |entry: binfmt::Entry| {
        let line = entry.line().map_err(binfmt::Error::from)?;
        String::from_utf8(line).map_err(|e| Error::general("an interpreter's path is not UTF-8").because(e))
    };
    let mut lines = vec![line(binfmt::for_profile(profile, &by.path, credentials))?];
    for also in profile.also.iter().filter_map(|name| host.profiles.find(name).ok()) {
        // It is an extra: a host that runs it itself, or has no interpreter for it, is fine.
        if !binfmt::runs_itself(also).unwrap_or(true) {
            if let Ok(found) = binfmt::best(also, &host.profiles, host.cache.as_deref()) {
                lines.push(line(binfmt::for_profile(also, &found.path, credentials))?);
            }
        }
    }
    Ok(lines)
}

/// The OCI platforms that serve an architecture as the user wrote it (`arm64`, `linux/arm/v6`, `armhf`), best first.
pub fn platforms_named(arch: &str) -> Result<Vec<(String, Option<String>)>> {
    let profiles = profiles()?;
    Ok(platforms(profiles.find(arch)?, arch))
}

/// As [`platforms_named`], of a profile that is known already.
pub fn platforms(profile: &Profile, asked: &str) -> Vec<(String, Option<String>)> {
    let pairs = profile.platforms(Some(asked));
    pairs.into_iter().map(|(a, v)| (a.to_owned(), v.map(str::to_owned))).collect()
}

impl From<UnknownArch> for Error {
    fn from(error: UnknownArch) -> Error {
        Error::general(error.to_string())
    }
}

impl From<binfmt::Error> for Error {
    fn from(error: binfmt::Error) -> Error {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let ours = Error::general(error.to_string());
        let ours = match source {
            Some(source) => ours.because(source),
            None => ours,
        };
        match error.cure() {
            Some(cure) => ours.hint(cure),
            None => ours,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::write_atomic;

    #[test]
    fn overrides_are_read_by_name_and_mistakes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(profiles_in(&dir.path().join("missing")).unwrap(), Profiles::embedded());
        let text = include_str!("../../arch-profiles/arm64.toml").replace("\"neoverse-n1\"", "\"cortex-a53\"");
        write_atomic(&dir.path().join("arm64.toml"), text.as_bytes(), 0o644).unwrap();
        write_atomic(&dir.path().join("README"), b"not toml", 0o644).unwrap();
        write_atomic(&dir.path().join(".x.toml"), b"not toml", 0o644).unwrap();
        assert_eq!(profiles_in(dir.path()).unwrap().find("arm64").unwrap().qemu_user.cpu, "cortex-a53");
        write_atomic(&dir.path().join("bad.toml"), b"not toml", 0o644).unwrap();
        let error = profiles_in(dir.path()).unwrap_err();
        assert_eq!(error.to_string(), "architecture profile bad.toml cannot be read");
        assert!(std::error::Error::source(&error).is_some() && error.cure().is_some());
    }

    #[test]
    fn names_are_resolved_once_each() {
        let profiles = Profiles::embedded();
        let names = ["aarch64", "arm64", "x86_64"].map(str::to_owned);
        let chosen = chosen(&profiles, &names).unwrap();
        assert_eq!(chosen.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["arm64", "amd64"]);
        assert!(super::chosen(&profiles, &["z80".to_owned()]).is_err());
    }
}
