//! `import`: an archive or a file tree becomes an image that has a name here. What a newcomer would get wrong: a tree is copied by packing
//! it into a pipe and unpacking what comes out, so that it passes all the checks that a stranger's archive passes, and its layer has the
//! digest that a tar of it would have. What the platform is, the programs in it say.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;

use super::{Ctx, Error, Interrupt, Result, facts, images, inspect, registry, stored};
use crate::arch::{Profile, Profiles};
use crate::domain::{Artifact, ImageConfig, Platform};
use crate::image::oci::Ask;
use crate::image::pack::{self, Form, Rules};
use crate::image::{self, ImageRef, platform, reference, unpack};
use crate::store::domains::now;
use crate::store::images::{self as records, Entry};
use crate::store::layers::{self, Claimed, Meta};
use crate::store::young;
use crate::sys::overlay::Overlay;
use crate::sys::tag;
use inspect::Facts;

/// What is imported, and as what.
#[derive(Debug, Clone)]
pub struct Import<'a> {
    /// A tarball, a directory, a URL, `oci:DIR`, `oci-archive:FILE`, `docker-archive:FILE`.
    pub source: &'a str,
    /// Its name here.
    pub name: &'a str,
    /// Its architecture, under any name; else its programs say.
    pub arch: Option<&'a str>,
    /// Replace what has the name.
    pub force: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The reference in full.
    pub reference: String,
    /// What it is for.
    pub platform: Platform,
    /// The digest of its manifest, or of its archive.
    pub digest: String,
}

/// Imports an image. Errors: the name is none, or taken; the source cannot be read; nothing tells its architecture. Nothing is left then.
pub fn import(ctx: &Ctx, what: &Import<'_>) -> Result<Imported> {
    super::need_root("import")?;
    let source = spelt(what.source);
    let what = &Import { source: &source, ..what.clone() };
    let cannot = |e| images::failed(what.source, e);
    let reference = reference::local(what.name)
        .map_err(|e| Error::new(super::Kind::Usage, "the new image cannot have this name").because(e))?;
    let profiles = registry::profiles()?;
    let wanted = what.arch.map(|arch| profiles.find(arch)).transpose()?;
    let mut interrupt = Interrupt::collect()?;
    super::sweep::thorough(ctx)?;
    let path = match reference::parse(what.source).map_err(cannot)? {
        ImageRef::Path(path) => Some(reference::canonical(&path).map_err(cannot)?),
        ImageRef::Label(_) | ImageRef::Registry(_) | ImageRef::Streams(_) | ImageRef::Raspios(_) => {
            return Err(no_place(what.source));
        }
        _ => None,
    };
    let mut made = match path.filter(|path| path.is_dir()) {
        Some(dir) => Made::of(from_directory(ctx, &dir)?),
        None => from_archive(ctx, what, wanted, &profiles)?,
    };
    interrupt.check()?;
    let named = name(ctx, what, reference, wanted, &profiles, &mut made.entry);
    made.forget(ctx, named.is_err())?;
    named
}

/// A file's name without a directory is a path here, as no registry is meant: `import x.tar NAME`.
fn spelt(source: &str) -> String {
    let other = matches!(reference::parse(source), Ok(ImageRef::Label(_) | ImageRef::Registry(_)) | Err(_));
    if other && Path::new(source).exists() { format!("./{source}") } else { source.to_owned() }
}

fn no_place(word: &str) -> Error {
    let what = format!("'{}' names an image of a registry or of the catalogue, and no file", word.escape_debug());
    Error::new(super::Kind::Usage, what).hint("pull fetches it under its own name; a path starts with './' or '/'")
}

/// Looks at what was unpacked and stores it under its name.
fn name(
    ctx: &Ctx,
    what: &Import<'_>,
    reference: String,
    wanted: Option<&Profile>,
    profiles: &Profiles,
    entry: &mut Entry,
) -> Result<Imported> {
    let artifact = stored::artifact(what.source.to_owned(), entry);
    let platform = platform_of(ctx, what, &artifact, wanted, profiles)?;
    entry.platform = Some(platform.clone());
    entry.stamp = None;
    entry.pulled = now();
    let taken = records::get(&ctx.store, &reference)?.into_iter().flat_map(|r| r.entries);
    if let Some(old) = taken.into_iter().find(|old| old.platform == entry.platform) {
        let same = (&old.digest, &old.layers) == (&entry.digest, &entry.layers);
        if !same && !what.force {
            let what = format!("there is another image '{reference}' for {platform}");
            return Err(Error::general(what).hint("take another name, or replace it with --force"));
        }
    }
    // Its file may be removed now: here no power cut may take it.
    young::settle(&ctx.store, &entry.layers)?;
    if !records::put(&ctx.store, &reference, entry.clone())? {
        return Err(Error::general(format!("'{reference}' was removed from the store at the same time")));
    }
    Ok(Imported { reference, platform, digest: entry.digest.clone() })
}

/// What the image is for: what the user says, if its programs do not say otherwise; what they say; what its label says.
fn platform_of(
    ctx: &Ctx,
    what: &Import<'_>,
    artifact: &Artifact,
    wanted: Option<&Profile>,
    profiles: &Profiles,
) -> Result<Platform> {
    let facts = facts::of(ctx, artifact, profiles)?;
    inspect::check(&facts, wanted)?;
    let (profile, asked) = match (wanted, what.arch, told_by(&facts, profiles)) {
        (Some(wanted), Some(asked), _) => (wanted, asked.to_owned()),
        (_, _, Some(found)) => found,
        _ => {
            return artifact.platform.clone().ok_or_else(|| {
                let what = format!("nothing in '{}' tells which architecture it is for", what.source.escape_debug());
                Error::general(what).hint("say it with --arch")
            });
        }
    };
    let platforms = registry::platforms(profile, &asked);
    if let Some(label) = artifact.platform.as_ref().filter(|label| platform::rank(label, &platforms).is_some()) {
        return Ok(label.clone());
    }
    platform_named(&platforms).ok_or_else(|| Error::general("an architecture has no name in OCI"))
}

/// The architecture that an image's programs are for, and how it is called with its variant.
fn told_by<'a>(facts: &Facts, profiles: &'a Profiles) -> Option<(&'a Profile, String)> {
    let found = facts.profile.as_deref().and_then(|name| profiles.find(name).ok())?;
    let variant = facts.model(profiles).map(|m| m.variant.clone()).filter(|v| !v.is_empty());
    Some((found, variant.map_or_else(|| found.name.clone(), |v| format!("{}/{v}", found.oci.architecture))))
}

/// The platform of an image that does not say it, by its programs; `None` when they do not, either.
pub(super) fn platform_of_files(ctx: &Ctx, artifact: &Artifact, profiles: &Profiles) -> Result<Option<Platform>> {
    let facts = facts::of(ctx, artifact, profiles)?;
    let found = told_by(&facts, profiles);
    Ok(found.and_then(|(profile, name)| platform_named(&registry::platforms(profile, &name))))
}

/// The first of these platforms as a label: in its normal form, for `amd64/v1` and `arm64/v8` go without saying.
pub(super) fn platform_named(platforms: platform::Wanted<'_>) -> Option<Platform> {
    let (architecture, variant) = platforms.first()?;
    let (architecture, variant) = platform::normal(architecture, variant.as_deref());
    Some(Platform { architecture, os: "linux".into(), variant })
}

/// An image in the store that has no name yet, and the record that was made on the way.
struct Made {
    entry: Entry,
    /// The source's own reference, when nothing was stored under it before.
    on_the_way: Option<String>,
    /// Whether its layers have come with it, and nothing else names them.
    new: Vec<String>,
}

impl Made {
    fn of((entry, new): (Entry, bool)) -> Made {
        let layers = if new { entry.layers.clone() } else { Vec::new() };
        Made { entry, on_the_way: None, new: layers }
    }

    /// Removes what was needed on the way only, and with `all` the image too.
    fn forget(self, ctx: &Ctx, all: bool) -> Result<()> {
        if let Some(reference) = &self.on_the_way {
            let lock = records::lock(&ctx.store)?;
            records::remove(&ctx.store, reference, |entry| entry.digest == self.entry.digest)?;
            drop(lock);
        }
        if all { drop_layers(ctx, &self.new) } else { Ok(()) }
    }
}

/// Removes layers that no image and no domain names.
pub(super) fn drop_layers(ctx: &Ctx, keys: &[String]) -> Result<()> {
    let lock = records::lock(&ctx.store)?;
    let named = records::all(&ctx.store)?.into_iter().flat_map(|r| r.entries).flat_map(|e| e.layers);
    let mut used: Vec<String> = named.collect();
    used.extend(layers::used_by_domains(&ctx.store)?.into_iter().map(|(_, key)| key));
    let free = keys.iter().filter(|key| !used.contains(key)).cloned().collect();
    images::kept::remove(ctx, &free, &BTreeSet::new(), lock)
}

/// As `create` takes it. What it stores under the source's own name is dropped again, if that was not there before.
fn from_archive(ctx: &Ctx, what: &Import<'_>, wanted: Option<&Profile>, profiles: &Profiles) -> Result<Made> {
    let before: Vec<String> = records::all(&ctx.store)?.into_iter().map(|r| r.reference).collect();
    let had = layers::keys(&ctx.store)?;
    let platforms = match wanted {
        Some(profile) => registry::platforms(profile, what.arch.unwrap_or(&profile.name)),
        // This machine's, else whatever it has: here nothing is to be run, and an archive is most often of one.
        None => {
            let all = profiles.iter().flat_map(|profile| registry::platforms(profile, &profile.name));
            platform::host().into_iter().chain(all).collect()
        }
    };
    let wish = images::Wish {
        platforms: Some(&platforms),
        ask: Ask::Present,
        mirror: None,
        include: &[],
        ready: &|_| Ok(Vec::new()),
    };
    let artifact = images::obtain_as(ctx, what.source, &wish)?.artifact;
    let gone =
        || Error::general(format!("'{}' was removed from the store at the same time", what.source.escape_debug()));
    let entry = stored::entry_of(ctx, &artifact)?.ok_or_else(gone)?;
    let of_it = |record: &records::Record| record.entries.iter().any(|e| e.digest == entry.digest);
    let own = images::kept::names_of(&ctx.store, what.source)?;
    let on_the_way = records::all(&ctx.store)?
        .into_iter()
        .find(|r| own.contains(&r.reference) && of_it(r) && !before.contains(&r.reference))
        .map(|record| record.reference);
    let new = entry.layers.iter().filter(|key| !had.contains(*key)).cloned().collect();
    Ok(Made { entry, on_the_way, new })
}

/// Copies a tree into a layer; says too whether it was not there. What is mounted below it is left out.
fn from_directory(ctx: &Ctx, dir: &Path) -> Result<(Entry, bool)> {
    let shown = format!("tree {}", dir.display().to_string().escape_debug());
    let cannot = |e| images::failed(&dir.display().to_string(), e);
    if ctx.store.root().canonicalize().is_ok_and(|root| root.starts_with(dir)) {
        let what = format!("cannot import {}: it holds this store", dir.display());
        return Err(Error::general(what).hint("name another store with --root"));
    }
    let lowers = vec![dir.to_owned().into()];
    let tree = Overlay { lowers, ..Overlay::default() }.detached();
    let tree = tree.map_err(|e| Error::general(format!("cannot open {shown}")).because(e))?;
    let key = format!("import-{}-{}", std::process::id(), tag::of(dir.as_os_str().as_encoded_bytes(), 32));
    let Claimed::Mine(claim) = layers::claim(&ctx.store, &key, || Ok(None::<()>), || ())? else {
        return Err(Error::general("a claim was given twice"));
    };
    let dest = claim.directory()?;
    let step = ctx.report.begin(&format!("copying {}", dir.display()), None);
    let tick = |_| image::net::check_signal().map_err(std::io::Error::other);
    let rules = Rules { form: Form::Single, living: true, tick: &tick };
    let (unpacked, packed) = pack::through(tree.as_fd(), &rules, &shown, |reader| {
        let job = unpack::Job {
            what: &shown,
            source: reader,
            size: None,
            digest: None,
            diff_id: None,
            below: false,
            step: step.as_ref(),
        };
        unpack::unpack(job, &dest)
    })
    .map_err(cannot)?;
    for line in &packed.left_out {
        ctx.report.warn(line);
    }
    if unpacked.lost_attributes.0 > 0 {
        ctx.report
            .warn(&format!("{shown}: some extended attributes ('{}') cannot be kept here", unpacked.lost_attributes.1));
    }
    let key = unpacked.digest.hex().to_owned();
    let new = !layers::exists(&ctx.store, &key)?;
    let meta = Meta { size: unpacked.size, entries: unpacked.entries, ..Meta::default() };
    claim.publish(&key, meta, Some(&unpacked.known))?;
    step.done("");
    let entry = Entry {
        platform: None,
        digest: unpacked.digest.to_string(),
        config_digest: None,
        layers: vec![key],
        config: ImageConfig::default(),
        pulled: now(),
        size: unpacked.size,
        stamp: None,
    };
    Ok((entry, new))
}
