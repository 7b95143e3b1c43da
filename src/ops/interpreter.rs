//! What runs a domain's programs: this CPU, or an interpreter that binfmt_misc starts; and the emulation layer that a foreign
//! guest needs. What a newcomer would get wrong: it is the ELF files that decide, never the image's label.

use std::path::Path;

use super::inspect::{Facts, Need};
use super::registry::{self, Found};
use super::{Ctx, Error, Kind, Result, isolation};
use crate::arch::{Profile, Profiles};
use crate::backend::nspawn::emulation;
use crate::domain::Registry;
use crate::store::domains::Emulated;
use crate::sys::{fs, host};

/// What runs a tree with these facts: `None` means this CPU itself. Unless it is to be `private` to the guest, the interpreter
/// is registered for this boot.
pub fn ensure(
    ctx: &Ctx,
    profile: &Profile,
    facts: &Facts,
    credentials: bool,
    private: bool,
) -> Result<Option<Emulated>> {
    let found = registry::emulator(ctx, profile, facts, credentials, private);
    Ok(found.map_err(|e| e.with_kind(Kind::Create))?.map(|found| {
        let (interpreter, (major, minor, patch), private) = match found {
            Found::Host(by) => (by.interpreter, by.version, Vec::new()),
            Found::Private(by, lines) => (by.path, by.version, lines),
        };
        let init = facts.init.as_ref().map(|i| i.path.clone()).unwrap_or_default();
        Emulated { interpreter, version: format!("{major}.{minor}.{patch}"), layer: false, private, init }
    }))
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
    let by = ensure(ctx, profile, &Facts::default(), credentials, private)?;
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
    Ok(true)
}

/// Says in one line how a foreign guest is run and what that may cost it, and which of its services cannot work so.
pub fn announce(ctx: &Ctx, profile: &Profile, facts: &Facts, by: &Emulated) {
    let machine = nix::sys::utsname::uname().map(|u| u.machine().to_string_lossy().into_owned()).unwrap_or_default();
    let program = by.interpreter.file_name().unwrap_or_default().to_string_lossy();
    let mut line = format!("emulated: {} on {machine} by {program} {}", profile.name, by.version);
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
