//! Making systems that boot: a whole one from a package mirror ([`bootstrap`]), or an image without an init that gets one by
//! its own package manager, as a layer of its own that every later domain of that image uses at once. What a newcomer would
//! get wrong: this runs programs of the guest's architecture, so what interprets them must be registered first.

pub mod bootstrap;
pub(super) mod clean;
mod install;
mod native;
pub mod recipe;

use std::fmt::Write;
use std::path::Path;

use super::inspect::{Facts, OsRelease};
use super::isolation::Isolation;
use super::{Ctx, Error, Interrupt, Kind, Result, interpreter, tree};
use crate::arch::{Profile, Profiles};
use crate::domain::{Artifact, Layer, Spec, kernel};
use crate::image::Digest;
use crate::store::layers::{self, Claimed, Meta};
use crate::store::young;
use crate::sys::overlay::Overlay;
use crate::sys::root::Root;
use recipe::Recipe;

/// What is wished for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Where packages come from instead of the image's own sources.
    pub mirror: Option<&'a str>,
    /// Register the interpreter with the C flag.
    pub credentials: bool,
    /// The domain for which it is done: reserved, and locked by this process.
    pub uuid: &'a str,
    /// How the work is kept from the host: as the domain will be.
    pub isolation: Isolation,
    /// A kernel and a guest agent, too, for a machine of its own.
    pub kernel: bool,
}

/// Gives an image without an init systemd and dbus (and, where that is wished, a kernel), by its own package manager, as a stored layer keyed by its parents.
/// `None`: there is nothing in it that could be given one. Errors: [`Kind::Create`] when it has no package manager that is
/// known, or that one fails; nothing is left half-made.
pub fn provision(
    ctx: &Ctx,
    artifact: &Artifact,
    facts: &Facts,
    profiles: &Profiles,
    wish: &Wish<'_>,
    interrupt: &mut Interrupt,
) -> Result<Option<Layer>> {
    let label = &artifact.label;
    let Some(profile) = facts.profile.as_deref().and_then(|p| profiles.find(p).ok()).filter(|_| facts.has_os) else {
        return Ok(None);
    };
    wish.mirror.map(bootstrap::check_mirror).transpose()?;
    let lowers = tree::lowers(&ctx.store, artifact)?;
    let (recipe, key) = plan(ctx, artifact, facts, profile, wish)?;
    let there = || layers::meta(&ctx.store, &key);
    let waiting = || {
        ctx.report.note(&format!("another pronto is installing {} in {label}: waiting for it", recipe.goods));
    };
    let claim = match layers::claim(&ctx.store, &key, there, waiting)? {
        Claimed::There(_) => return Ok(Some(Layer::Stored(key))),
        Claimed::Mine(claim) => claim,
    };
    interrupt.check()?;
    if wish.mirror.is_some() && !recipe.mirrored {
        ctx.report.note(&format!("--mirror is for apt: {} uses the image's own sources", recipe.program));
    }
    let spec = Spec { no_credentials: !wish.credentials, ..Spec::default() };
    let by = interpreter::ensure(ctx, profiles, profile, facts, &spec, wish.isolation.private)?;
    layers::sweep(&ctx.store)?;
    let upper = claim.directory()?;
    // overlayfs's own directory has a claim, too, so that nobody sweeps it away. Nobody waits for it but a sweep.
    let Claimed::Mine(beside) = layers::claim(&ctx.store, &format!("{key}-work"), || Ok(None::<()>), || ())? else {
        return Err(Error::general("a claim was given twice"));
    };
    let work = beside.directory()?;
    let private = by.map(|by| by.private).unwrap_or_default();
    let userns = wish.isolation.userns;
    let job =
        install::Job { uuid: wish.uuid, label, lowers, upper: upper.clone(), work, recipe: &recipe, userns, private };
    install::install(ctx, job, interrupt)?;
    drop(beside);
    let (size, entries) = finish(&upper, &recipe)
        .map_err(|e| Error::new(Kind::Create, format!("cannot clean the new layer of '{label}'")).because(e))?;
    claim.publish(&key, Meta { size, entries, parent: artifact.digest.clone(), ..Meta::default() }, None)?;
    young::settle(&ctx.store, std::slice::from_ref(&key))?;
    Ok(Some(Layer::Stored(key)))
}

fn finish(upper: &Path, recipe: &Recipe) -> std::io::Result<(u64, u64)> {
    clean::layer(upper, recipe)?;
    clean::measure(upper)
}

/// What is to be done, and the name of what comes of it. Errors: the image cannot be given an init.
fn plan(ctx: &Ctx, artifact: &Artifact, facts: &Facts, profile: &Profile, wish: &Wish<'_>) -> Result<(Recipe, String)> {
    let failed = |e: std::io::Error| Error::new(Kind::Create, format!("cannot read '{}'", artifact.label)).because(e);
    let lowers = tree::lowers(&ctx.store, artifact)?;
    let tree = Overlay { lowers, ..Overlay::default() }.detached().map_err(failed)?;
    let root = Root::from_fd(tree, Path::new(&artifact.label));
    let os = facts.os_release.as_ref();
    let kernel = if wish.kernel { Some(kernel(artifact, os, profile)?) } else { None };
    let recipe = recipe::recipe(os, &|path| root.exists(path), wish.mirror, kernel).map_err(|refusal| {
        let lacks = if wish.kernel { "kernel" } else { "init" };
        Error::new(Kind::Create, format!("'{}' has no {lacks}, and cannot be given one", artifact.label))
            .because(refusal)
            .hint(format!("run one command in it: pronto run {} -- COMMAND", artifact.label))
    })?;
    let key = key(artifact, &recipe).map_err(failed)?;
    Ok((recipe, key))
}

/// The packages of a kernel for an image. Errors: which ones is not known.
fn kernel(artifact: &Artifact, os: Option<&OsRelease>, profile: &Profile) -> Result<&'static [&'static str]> {
    let (id, like) = os.map(|os| (os.id.as_str(), os.id_like.as_str())).unwrap_or_default();
    kernel::packages(id, like, &profile.name).ok_or_else(|| {
        let what =
            format!("'{}' has no kernel, and how it would get one for {} is not known", artifact.label, profile.name);
        Error::new(Kind::Create, what).hint("name one: kernel=FILE ramdisk=FILE")
    })
}

/// A layer belongs to the layers below it and to what was done, which includes the mirror.
fn key(artifact: &Artifact, recipe: &Recipe) -> std::io::Result<String> {
    let mut text = format!("init {} {:?} {}", recipe::VERSION, recipe.files, recipe.script());
    for layer in &artifact.layers {
        let _ = match layer {
            Layer::Stored(key) => write!(text, "\nstored {key}"),
            Layer::Directory(path) => write!(text, "\ndirectory {path:?} {}", stamp(path)?),
        };
    }
    Ok(format!("init-{}", Digest::of(text.as_bytes()).hex()))
}

/// A user's directory has no digest: what changes when packages or the system in it do is taken instead.
fn stamp(directory: &Path) -> std::io::Result<String> {
    const TELLING: [&str; 7] = [
        ".",
        "etc/os-release",
        "usr/lib/os-release",
        "var/lib/dpkg/status",
        "var/lib/rpm",
        "usr/lib/sysimage/rpm",
        "var/lib/pacman/local",
    ];
    let root = Root::open(directory)?;
    let mut stamp = String::new();
    for path in TELLING {
        if let Ok(s) = root.stat(Path::new(path)) {
            let _ = write!(stamp, "{path} {} {} {} {}.{};", s.st_dev, s.st_ino, s.st_size, s.st_ctime, s.st_ctime_nsec);
        }
    }
    Ok(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::inspect::OsRelease;

    fn artifact(layers: Vec<Layer>) -> Artifact {
        Artifact { label: "x".into(), layers, digest: None, platform: None, config: Default::default() }
    }

    fn apt(mirror: Option<&str>) -> Recipe {
        let os = OsRelease { version_codename: "bookworm".into(), ..OsRelease::default() };
        recipe::recipe(Some(&os), &|path| path == "/usr/bin/apt-get", mirror, None).unwrap()
    }

    #[test]
    fn a_layer_belongs_to_its_parents_and_its_recipe() {
        let stored = |keys: &[&str]| artifact(keys.iter().map(|&k| Layer::Stored(k.into())).collect());
        let of = |artifact: &Artifact, recipe: &Recipe| key(artifact, recipe).unwrap();
        let first = of(&stored(&["a", "b"]), &apt(None));
        assert_eq!(first, of(&stored(&["a", "b"]), &apt(None)));
        assert!(first.starts_with("init-") && first.len() == 69, "{first}");
        let others = [
            of(&stored(&["b", "a"]), &apt(None)),
            of(&stored(&["a"]), &apt(None)),
            of(&stored(&["a", "b"]), &apt(Some("http://m.example"))),
            of(&stored(&["a", "b"]), &apt(Some("http://n.example"))),
        ];
        assert!(!others.contains(&first));
        assert_ne!(others[2], others[3]);
    }

    #[test]
    fn a_directory_that_changes_gets_another_layer() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("var/lib/dpkg")).unwrap();
        let status = dir.path().join("var/lib/dpkg/status");
        crate::sys::fs::write_volatile(&status, b"one", 0o644).unwrap();
        let artifact = artifact(vec![Layer::Directory(dir.path().to_owned())]);
        let first = key(&artifact, &apt(None)).unwrap();
        assert_eq!(first, key(&artifact, &apt(None)).unwrap());
        crate::sys::fs::write_volatile(&status, b"two", 0o644).unwrap();
        assert_ne!(first, key(&artifact, &apt(None)).unwrap());
    }
}
