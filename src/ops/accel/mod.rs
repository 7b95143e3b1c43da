//! Native programs for a foreign guest: what is mounted in it, and where that comes from. What a newcomer would get wrong: nothing lies over
//! the guest's files. The interpreter looks in [`PLACE`] for the native equivalent of the very program that is started
//! (`binfmt/dispatch.rs`), so the guest's files, packages and exports know nothing of this.

pub mod cpuinfo;
mod fetch;
pub(super) mod kept;
pub mod names;
mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exec::{self, Command, Io};
use super::inspect::Facts;
use super::{Ctx, Error, Interrupt, Kind, Result, facts};
use crate::accel::catalogue::{self, Catalogue, Program};
use crate::accel::dpkg;
use crate::accel::make::{self, Release};
use crate::arch::Profile;
use crate::binfmt;
use crate::domain::accel::PLACE;
use crate::domain::{Accel, Artifact, Name, Native, Spec};
use crate::elf::identity;
use crate::store::domains::Emulated;
use crate::sys::fs;
use crate::sys::root::Root;

/// In a domain's directory: what is native in it, by identity.
pub const CHOSEN: &str = "native";

/// What a guest is shown, read-only: each host directory with its place in the guest. `dir` is the domain's directory. Nothing, when the cache
/// has been emptied since: then all of the guest is emulated until it is started anew.
pub fn mounts(native: &Native, dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    if !native.from.is_dir() {
        return Vec::new();
    }
    vec![(native.from.clone(), PLACE.into()), (dir.join(CHOSEN), Path::new(PLACE).join("x"))]
}

/// What was said for one guest alone. What holds for all of them need not fit this one, which is no error then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// `--accel`.
    pub mode: bool,
    /// `--accel-exclude`.
    pub exclude: bool,
}

/// What is asked for, of which guest.
#[derive(Debug)]
pub struct Wish<'a> {
    /// What the user wants.
    pub spec: &'a Spec,
    /// What of it was said for this guest, now.
    pub asked: Asked,
    /// Where packages come from, if not from the host's own mirror.
    pub mirror: Option<&'a str>,
    /// The guest's tree.
    pub artifact: &'a Artifact,
    /// What is known of it.
    pub facts: &'a Facts,
    /// Its architecture.
    pub profile: &'a Profile,
    /// How it is emulated.
    pub by: &'a Emulated,
    /// The domain's directory.
    pub dir: &'a Path,
}

/// Finds or makes the native programs of a guest and lays out those that it gets. `None`: none was asked for, or there can be none, which
/// has been told with the reason. Errors: a wrong word of the user's; a signal; as mkdir(2).
pub fn prepare(ctx: &Ctx, wish: &Wish<'_>) -> Result<Option<Native>> {
    let spec = wish.spec;
    if spec.accel == Accel::Off {
        return Ok(None);
    }
    let nothing = |why: &str| {
        let line = format!("--accel {}: nothing is native, since {why}", spec.accel);
        if wish.asked.mode {
            ctx.report.warn(&line);
        } else {
            ctx.report.note(&line);
        }
        Ok(None)
    };
    let release = match release(wish) {
        Ok(release) => release,
        Err(why) => return nothing(&why),
    };
    let (from, mut all) = match fetch::obtain(ctx, &release, wish.mirror, wish.by) {
        Err(error) if !matches!(error.kind(), Kind::Interrupted(_)) => {
            return nothing(&format!("there are no programs: {}", error.in_short()));
        }
        other => other?,
    };
    if let Some(word) = all.unknown(&spec.accel_exclude).first().filter(|_| wish.asked.exclude) {
        let what = format!("--accel-exclude names '{}', which is no program or package of these", word.escape_debug());
        let hint = "these are names of programs and of packages: make, coreutils, gcc-12";
        return Err(Error::new(Kind::Usage, what).hint(hint));
    }
    let twins = twins(&facts::open_tree(ctx, wish.artifact)?, &all.programs, release.is_debian);
    if twins.iter().any(|program| program.kind == catalogue::Kind::Compiler) {
        // Of which revision the image's own is, nobody has looked at.
        all.skew.get_or_insert_with(|| "code with -fstack-protector: the image's compiler is another build".into());
    }
    all.programs.extend(twins);
    if all.chosen(Accel::Build, &[]).is_empty() {
        let why = all.failed.first().map(|failed| format!("{}: {}", failed.what, failed.why)).unwrap_or_default();
        return nothing(&format!("no program stood its trial ({why})"));
    }
    let native = choose(&all, from, wish)
        .map_err(|e| Error::new(Kind::Create, "cannot lay out the native programs").because(e))?;
    ctx.report.note(&format!("native: {}", told(&native)));
    Ok(Some(native))
}

/// Lays out in the domain's directory what it gets, in the place of what it had.
fn choose(all: &Catalogue, from: PathBuf, wish: &Wish<'_>) -> std::io::Result<Native> {
    let chosen = all.chosen(wish.spec.accel, &wish.spec.accel_exclude);
    let dir = wish.dir.join(CHOSEN);
    fs::remove_tree(&dir)?;
    std::fs::create_dir(&dir)?;
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    catalogue::lay_out(&dir, &chosen, all.differences())?;
    let left_out = all.left_out.iter().map(|left| format!("{}: {}", left.what, left.why));
    let unknown = all.unknown(&wish.spec.accel_exclude);
    let excluded = wish.spec.accel_exclude.iter().filter(|word| !unknown.contains(&word.as_str()));
    let excluded = excluded.map(|word| format!("{word}: it was excluded"));
    let cpuinfo = cpuinfo::write(wish)?;
    Ok(Native {
        from,
        programs: chosen.iter().map(|program| &program.path).collect::<BTreeSet<_>>().len(),
        compiler: all.compiler.clone().filter(|_| chosen.iter().any(|p| p.kind == catalogue::Kind::Compiler)),
        left_out: left_out.chain(excluded).chain(cpuinfo).chain(all.skew.clone()).collect(),
        failed: all.failed.iter().map(|left| format!("{} ({})", left.what, left.why)).collect(),
    })
}

/// Looks whether a program of the guest's is really run by this machine now, and warns if not: something between the programs, which were
/// tried when they were fetched, and this guest is wrong. Costs a start of a native program, some milliseconds.
pub fn look(ctx: &Ctx, name: &Name, interrupt: &mut Interrupt) {
    const PROGRAM: &str = "readlink";
    let Ok(Some(domain)) = ctx.store.load(name.as_str()) else { return };
    let native = domain.record.emulated.as_ref().is_some_and(|by| by.native.is_some());
    let links = std::fs::read_dir(ctx.store.domain(name.as_str()).join(CHOSEN)).into_iter().flatten().flatten();
    let (true, Some(run)) = (native && links.into_iter().any(|dir| dir.path().join(PROGRAM).is_symlink()), &domain.run)
    else {
        return;
    };
    let words = [PROGRAM, "/proc/self/exe"].map(OsString::from).to_vec();
    let command = Command { words, tty: Some(false), limit: Some(Duration::from_secs(10)), ..Command::default() };
    let why = match exec::attend(run, command, Io::Captured, interrupt) {
        Ok((0, said)) if said.starts_with(PLACE.as_bytes()) => return,
        Ok((0, _)) => format!("its own {PROGRAM} is emulated, being of another build than the known ones"),
        Ok((status, _)) => format!("a native {PROGRAM} ends with status {status}"),
        Err(error) => error.in_short(),
    };
    ctx.report.warn(&format!("'{name}' may run fewer native programs than it should: {why}"));
}

/// One line about it.
pub fn told(native: &Native) -> String {
    let compiler = native.compiler.as_deref().map(|name| format!(" and {name}")).unwrap_or_default();
    let failed = match native.failed.as_slice() {
        [] => String::new(),
        [some @ .., _] if some.len() > 2 => {
            format!("; not {} and {} more (see info)", some[..2].join(", "), some.len() - 1)
        }
        some => format!("; not {}", some.join(", ")),
    };
    format!("{} programs{compiler}{failed}; all others are emulated", native.programs)
}

/// The guest's release. Errors: why there are no native programs for it, as the end of a sentence.
fn release(wish: &Wish<'_>) -> std::result::Result<Release, String> {
    if !wish.by.dispatches {
        return Err(format!("{} is no static program for x86-64", wish.by.interpreter.display()));
    }
    let Some(os) = wish.facts.os_release.as_ref() else { return Err("its image does not say what it is".into()) };
    if os.id != "debian" && !os.id_like.split(' ').any(|id| id == "debian") {
        return Err(format!("it is no Debian: {}", os.pretty_name.escape_debug()));
    }
    if os.version_codename.is_empty() || !os.version_codename.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err("its image does not say which release it is".into());
    }
    if !matches!(wish.profile.debian.as_str(), "arm64" | "armhf" | "riscv64") {
        return Err(format!("no compiler for {} is known here", wish.profile.debian));
    }
    // Raspberry Pi OS's CPU is another one than Debian's armhf.
    let machine = binfmt::machine(wish.profile, &wish.by.interpreter, wish.by.cpu.as_deref())?;
    Ok(Release {
        suite: os.version_codename.clone(),
        arch: wish.profile.debian.clone(),
        triplet: wish.profile.triplet.clone(),
        machine,
        is_debian: os.id == "debian",
    })
}

/// Programs of the guest that are another build of the same version as their native twins. A derivative's compiler is none, for it may
/// be built to make other code (Raspberry Pi OS's for ARMv6).
fn twins(root: &Root, known: &[Program], is_debian: bool) -> Vec<Program> {
    let mut versions: Option<BTreeMap<String, String>> = None;
    let mut out = Vec::new();
    for program in known.iter().filter(|program| is_debian || program.kind == catalogue::Kind::Tool) {
        // Links lead where they lead in there.
        let head = root.open_file(Path::new("/").join(&program.path)).and_then(make::head);
        let Some(found) = head.ok().and_then(|head| identity::text(&head)) else { continue };
        if known.iter().any(|other| other.identity == found) || out.iter().any(|o: &Program| o.identity == found) {
            continue;
        }
        let versions =
            versions.get_or_insert_with(|| dpkg::versions(&root.read_text("/var/lib/dpkg/status").unwrap_or_default()));
        if versions.get(&program.package).is_some_and(|v| dpkg::upstream(v) == dpkg::upstream(&program.version)) {
            out.push(Program { identity: found, ..program.clone() });
        }
    }
    out
}
