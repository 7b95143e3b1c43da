//! What runs a domain's programs: this CPU, or an interpreter that binfmt_misc starts; and the emulation layer that a foreign
//! guest needs. What a newcomer would get wrong: it is the ELF files that decide, never the image's label.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::inspect::{Facts, Need};
use super::registry::{self, Found};
use super::{Ctx, Error, Kind, Result, cpu, isolation};
use crate::arch::{Profile, Profiles};
use crate::backend::nspawn::emulation;
use crate::binfmt;
use crate::domain::{Accel, Registry, Spec};
use crate::store::Store;
use crate::store::domains::Emulated;
use crate::sys::{fs, host, mount};

/// What runs a tree with these facts: `None` means this CPU itself. Unless it is to be `private` to the guest, the interpreter
/// is registered for this boot. Errors: there is none that fits, or none of the CPU that was asked for.
pub fn ensure(
    ctx: &Ctx,
    profiles: &Profiles,
    profile: &Profile,
    facts: &Facts,
    spec: &Spec,
    private: bool,
) -> Result<Option<Emulated>> {
    let native = spec.accel != Accel::Off;
    let found = registry::emulator(ctx, profile, facts, !spec.no_credentials, private, native);
    let Some(found) = found.map_err(|e| e.with_kind(Kind::Create))? else {
        return native_has_one_cpu(spec).map(|()| None);
    };
    let (interpreter, (major, minor, patch), private, on_host) = match found {
        Found::Host(by) => (by.interpreter, by.version, Vec::new(), by.native),
        Found::Private(by, lines) => (by.path, by.version, lines, false),
    };
    let cpu = cpu::model(profiles, profile, facts, spec)?;
    let asked = spec.cpu.is_some() || spec.board.is_some();
    if let Some(cpu) = cpu.as_deref().filter(|_| asked) {
        cpu::is_known(&interpreter, cpu)?;
    }
    let copies = copies(ctx, &interpreter, &private, cpu.as_deref(), asked, native);
    let init = facts.init.as_ref().map(|i| i.path.clone()).unwrap_or_default();
    let version = format!("{major}.{minor}.{patch}");
    let dispatches = on_host || native && copies.iter().any(|(of, _)| *of == interpreter);
    Ok(Some(Emulated { interpreter, version, layer: false, private, cpu, copies, dispatches, native: None, init }))
}

/// A guest that runs on this CPU sees this CPU.
fn native_has_one_cpu(spec: &Spec) -> Result<()> {
    let option = if spec.cpu.is_some() { "--cpu" } else { "--board" };
    if spec.cpu.is_none() && spec.board.is_none() {
        return Ok(());
    }
    Err(Error::new(Kind::Create, format!("{option} is for emulated guests, and this host runs this image itself"))
        .hint("take another --arch, or leave it out"))
}

/// The copies that stand in for the interpreters of a guest's own registry, so that each of its processes gets their options. Where
/// there can be none, the guest's init gets variables instead, which is said when a CPU was asked for.
fn copies(
    ctx: &Ctx,
    main: &Path,
    lines: &[String],
    cpu: Option<&str>,
    asked: bool,
    native: bool,
) -> Vec<(PathBuf, PathBuf)> {
    let told = |why: &str| {
        if asked {
            ctx.report.warn(&format!(
                "{why}: the CPU model reaches only processes that keep their environment (not sudo's, not env -i's)"
            ));
        }
    };
    if lines.is_empty() {
        told("the interpreter is registered on the host");
    }
    let mut all = Vec::new();
    for interpreter in lines.iter().filter_map(|line| binfmt::interpreter_of(line)) {
        match copy(&ctx.store, &interpreter, cpu.filter(|_| interpreter == main), native) {
            Ok(copy) => all.push((interpreter, copy)),
            Err(why) => told(&format!("{} {why}", interpreter.display())),
        }
    }
    all
}

/// A copy of one interpreter. What runs beside the guest's own architecture (armhf on arm64) keeps QEMU's choice of a CPU.
fn copy(store: &Store, interpreter: &Path, cpu: Option<&str>, native: bool) -> std::result::Result<PathBuf, String> {
    binfmt::copy(interpreter, cpu, native, &store.cache().join("interpreters"))
}

/// Detached mounts of a guest's copies, each with the path of what it stands for; one that is gone (a cache may be emptied at any
/// time) is made anew. Errors: in words.
pub fn open_copies(store: &Store, by: &Emulated) -> std::result::Result<Vec<(PathBuf, OwnedFd)>, String> {
    let open = |(of, known): &(PathBuf, PathBuf)| {
        let cpu = by.cpu.as_deref().filter(|_| *of == by.interpreter);
        let path = if known.exists() { known.clone() } else { copy(store, of, cpu, by.native.is_some())? };
        let tree = mount::clone_tree(&path, false).map_err(|e| format!("the copy of {}: {e}", of.display()))?;
        Ok((of.clone(), tree))
    };
    by.copies.iter().map(open).collect()
}

/// Before packages of a foreign architecture (Debian's name) are unpacked and configured here: what runs their scripts. The
/// lines are for a registry of interpreters of the work's own; without any, the host's has what is needed.
pub fn ready_for(
    ctx: &Ctx,
    profiles: &Profiles,
    debian: &str,
    credentials: bool,
    asked: Option<Registry>,
) -> Result<Vec<String>> {
    let profile = profiles.find(debian).map_err(|e| Error::new(Kind::Create, e.to_string()))?;
    let private = asked != Some(Registry::Host) && isolation::can_be_private().is_ok() && isolation::user_namespaces();
    let spec = Spec { no_credentials: !credentials, ..Spec::default() };
    let by = ensure(ctx, profiles, profile, &Facts::default(), &spec, private)?;
    Ok(by.map(|by| by.private).unwrap_or_default())
}

/// Writes the emulation layer of a guest with these facts below `dir`. Returns whether there is anything in it.
pub fn write_layer(dir: &Path, facts: &Facts, by: &Emulated) -> Result<bool> {
    let Some(systemd) = facts.systemd else { return Ok(false) };
    let failed = |e: std::io::Error| Error::new(Kind::Create, "cannot write the emulation layer").because(e);
    for (path, text) in emulation::layer(systemd, host::version(&by.version)) {
        let path = dir.join(path);
        let parent = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(parent).map_err(failed)?;
        // The layer's directories are merged with the image's: theirs are root's with 0755 (hier(7)).
        for at in parent.ancestors().take_while(|at| at.starts_with(dir)) {
            std::fs::set_permissions(at, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(failed)?;
        }
        fs::write_volatile(&path, text.as_bytes(), 0o644).map_err(failed)?;
    }
    for (path, seconds, nanoseconds) in &facts.changed {
        fs::set_changed(&dir.join(path), *seconds, *nanoseconds).map_err(failed)?;
    }
    Ok(true)
}

/// Says in one line how a foreign guest is run and what that may cost it, and which of its services cannot work so.
pub fn announce(ctx: &Ctx, profile: &Profile, facts: &Facts, spec: &Spec, by: &Emulated) {
    let machine = nix::sys::utsname::uname().map(|u| u.machine().to_string_lossy().into_owned()).unwrap_or_default();
    let program = by.interpreter.file_name().unwrap_or_default().to_string_lossy();
    let mut line = format!("emulated: {} on {machine} by {program} {}", profile.name, by.version);
    if let Some(cpu) = by.cpu.as_deref().filter(|_| spec.cpu.is_some() || spec.board.is_some()) {
        line += " as ";
        line += cpu;
    }
    if let Some(warning) = facts.systemd.and_then(|s| emulation::warning(s, host::version(&by.version))) {
        line += "; ";
        line += warning;
    }
    ctx.report.note(&line);
    for Need { unit, what } in &facts.needs {
        ctx.report.warn(&format!(
            "{unit} needs namespaces of its own ({what}), which the emulator cannot give: \
             --backend hexagon runs this guest with a kernel of its own"
        ));
    }
}
