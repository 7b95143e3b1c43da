//! What is in the store and leaves it: `images`, `inspect`, `rmi`, `prune`. What a newcomer would get wrong: a layer is free when neither an image
//! nor a domain names it, and that is looked at under the store's lock; trees are removed after it, since that takes long.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::{Ctx, Error, Result, stored_as};
use crate::image::oci::{DockerArchive, Layout};
use crate::image::{ImageRef, catalogue, platform, reference};
use crate::ops::Kind;
use crate::store::images::{self as records, Entry, Record};
use crate::store::{Store, blobs, layers};
use crate::sys::fs;

/// One image as `images` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The reference as it is stored.
    pub reference: String,
    /// `linux/arm64/v8`; empty for a tarball, which does not say.
    pub platform: String,
    /// The manifest's digest.
    pub digest: String,
    /// Unpacked size in bytes.
    pub size: u64,
    /// How many of these bytes lie in layers that another image has, too.
    pub shared: u64,
    /// When it was pulled, in seconds since 1970.
    pub pulled: u64,
}

/// One image as `inspect` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Document {
    /// What `images` shows of it.
    #[serde(flatten)]
    pub row: Row,
    /// Its layers, lowest first.
    pub layers: Vec<LayerRow>,
    /// The domains that use one of them.
    pub domains: Vec<String>,
    /// Its manifest as it came, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Value>,
    /// Its config as it came, where it has one: labels, environment, history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
}

/// One stored layer.
#[derive(Debug, Clone, Serialize)]
pub struct LayerRow {
    /// Its key: the diffID's hex digits, or of our own making.
    pub key: String,
    /// Bytes of its files.
    pub size: u64,
    /// How many entries its archive had.
    pub entries: u64,
}

/// What `prune` took away, or would take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Images, by reference and platform.
    pub images: Vec<String>,
    /// How many layers.
    pub layers: usize,
    /// Native programs of releases (`--accel`): the names of their directories.
    pub native: Vec<String>,
    /// How many bytes of files these had, and downloads that were not finished.
    pub bytes: u64,
}

/// What is in the store.
pub fn images(ctx: &Ctx) -> Result<Vec<Row>> {
    let all = entries(&ctx.store)?;
    let sizes = sizes(&ctx.store, &all)?;
    Ok(all.iter().map(|(reference, entry)| row(reference, entry, &all, &sizes)).collect())
}

/// Every entry with its reference.
pub(super) fn entries(store: &Store) -> Result<Vec<(String, Entry)>> {
    let all = records::all(store)?.into_iter();
    Ok(all.flat_map(|Record { reference, entries }| entries.into_iter().map(move |e| (reference.clone(), e))).collect())
}

fn sizes(store: &Store, all: &[(String, Entry)]) -> Result<BTreeMap<String, layers::Meta>> {
    let keys: BTreeSet<&String> = all.iter().flat_map(|(_, entry)| &entry.layers).collect();
    let mut out = BTreeMap::new();
    for key in keys {
        if let Some(meta) = layers::meta(store, key)? {
            out.insert(key.clone(), meta);
        }
    }
    Ok(out)
}

fn row(reference: &str, entry: &Entry, all: &[(String, Entry)], sizes: &BTreeMap<String, layers::Meta>) -> Row {
    // Another name for the same image is no other image.
    let others = || all.iter().filter(|(_, other)| other.digest != entry.digest);
    let shared = |key: &&String| others().any(|(_, other)| other.layers.contains(key));
    let size = |key: &String| sizes.get(key).map_or(0, |meta| meta.size);
    Row {
        reference: reference.to_owned(),
        platform: entry.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
        digest: entry.digest.clone(),
        size: entry.size,
        shared: entry.layers.iter().filter(shared).map(size).sum(),
        pulled: entry.pulled,
    }
}

/// Everything that is known of a stored image, for each of its platforms or for `arch` alone. Errors: it is not stored.
pub fn inspect(ctx: &Ctx, image: &str, arch: Option<&str>) -> Result<Vec<Document>> {
    let chosen = chosen(image, arch)?;
    let names = names_of(&ctx.store, image)?;
    let all = entries(&ctx.store)?;
    let sizes = sizes(&ctx.store, &all)?;
    let used = layers::used_by_domains(&ctx.store)?;
    let mut out = Vec::new();
    for (reference, entry) in all.iter().filter(|(reference, entry)| names.contains(reference) && chosen(entry)) {
        let users = used.iter().filter(|(_, key)| entry.layers.contains(key)).map(|(name, _)| name.clone());
        let layer = |key: &String| {
            let meta = sizes.get(key);
            LayerRow { key: key.clone(), size: meta.map_or(0, |m| m.size), entries: meta.map_or(0, |m| m.entries) }
        };
        out.push(Document {
            row: row(reference, entry, &all, &sizes),
            layers: entry.layers.iter().map(layer).collect(),
            domains: users.collect::<BTreeSet<_>>().into_iter().collect(),
            manifest: document(ctx, Some(&entry.digest))?,
            config: document(ctx, entry.config_digest.as_ref())?,
        });
    }
    match out.is_empty() {
        true if ctx.store.domain(image).is_dir() => {
            Err(not_stored(image, arch).hint(format!("it is a domain: pronto info {image}")))
        }
        true => Err(not_stored(image, arch)),
        false => Ok(out),
    }
}

fn document(ctx: &Ctx, digest: Option<&String>) -> Result<Option<Value>> {
    let Some(hex) = digest.and_then(|d| d.strip_prefix("sha256:")) else { return Ok(None) };
    let text = blobs::get(&ctx.store, hex)?;
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}

/// Nothing is stored under this word.
pub(crate) fn not_stored(image: &str, arch: Option<&str>) -> Error {
    let platform = arch.map(|a| format!(" for {}", a.escape_debug())).unwrap_or_default();
    Error::general(format!("no image '{}'{platform} is stored", image.escape_debug()))
        .hint("'pronto images' lists what is stored, 'pronto pull IMAGE' fetches")
}

/// Which entries an architecture means; all, where none is given.
fn chosen(image: &str, arch: Option<&str>) -> Result<impl Fn(&Entry) -> bool + use<>> {
    let wanted = match (arch, reference::parse(image)) {
        (Some(arch), _) => Some(crate::ops::registry::platforms_named(arch)?),
        // These words may say one themselves.
        (None, Ok(ImageRef::Streams(name))) => super::said(name.platform.as_ref()).map(|one| vec![one]),
        (None, Ok(ImageRef::Raspios(name))) => super::said(name.platform.as_ref()).map(|one| vec![one]),
        (None, _) => None,
    };
    Ok(move |entry: &Entry| match (&wanted, &entry.platform) {
        (Some(wanted), Some(platform)) => platform::rank(platform, wanted).is_some(),
        (Some(_), None) => false,
        (None, _) => true,
    })
}

/// The references under which a word may be stored. A name that was given here comes before all others.
pub(in crate::ops) fn names_of(store: &Store, word: &str) -> Result<Vec<String>> {
    if let Ok(local) = reference::local(word) {
        if records::get(store, &local)?.is_some() {
            return Ok(vec![local]);
        }
    }
    let mut names = vec![word.to_owned()];
    match reference::parse(word) {
        Ok(ImageRef::Registry(reference)) => names.push(reference.whole()),
        Ok(ImageRef::Label(label)) => {
            names.extend(
                catalogue::lookup(label)
                    .into_iter()
                    .flat_map(|row| row.sources.iter().map(|source| stored_as(source, &[]))),
            );
        }
        Ok(ImageRef::Path(path)) => {
            let absolute = reference::canonical(&path).ok().or_else(|| std::path::absolute(&path).ok());
            names.extend(absolute.map(|p| p.display().to_string()));
        }
        Ok(ImageRef::Layout(text)) => names.extend(Layout::open(&text).ok().map(|l| l.reference())),
        Ok(ImageRef::OciArchive(text)) => names.extend(Layout::open_archive(&text).ok().map(|l| l.reference())),
        Ok(ImageRef::DockerArchive(text)) => names.extend(DockerArchive::open(&text).ok().map(|l| l.reference())),
        Ok(ImageRef::Streams(name)) => names.push(name.reference()),
        Ok(ImageRef::Raspios(name)) => names.push(name.reference()),
        Ok(ImageRef::Url(_)) | Err(_) => {}
    }
    names.dedup();
    Ok(names)
}

/// Gives a stored image (all its platforms unless `arch` is given) one more name, `localhost/NAME[:TAG]`, in the place of what had that name.
/// Returns it in full. Errors: it is not stored; NAME is none ([`reference::local`]).
pub fn tag(ctx: &Ctx, image: &str, name: &str, arch: Option<&str>) -> Result<String> {
    let chosen = chosen(image, arch)?;
    let whole = reference::local(name).map_err(|e| Error::new(Kind::Usage, e.to_string()))?;
    let names = names_of(&ctx.store, image)?;
    // Whether there is a newer one is a question that nobody answers under this name.
    let entries: Vec<Entry> = entries(&ctx.store)?
        .into_iter()
        .filter(|(reference, entry)| names.contains(reference) && chosen(entry))
        .map(|(_, entry)| Entry { stamp: None, ..entry })
        .collect();
    if entries.is_empty() {
        return Err(not_stored(image, arch));
    }
    match records::replace(&ctx.store, &whole, entries)? {
        true => Ok(whole),
        false => Err(Error::general(format!("'{}' was removed at the same time", image.escape_debug()))),
    }
}

/// Removes an image (all its platforms unless `arch` is given) and the layers that nothing else uses. Errors: there is no such
/// image; a domain uses it (nothing is removed then).
pub fn rmi(ctx: &Ctx, image: &str, arch: Option<&str>) -> Result<()> {
    let chosen = chosen(image, arch)?;
    crate::ops::sweep::thorough(ctx)?;
    let names = names_of(&ctx.store, image)?;
    let lock = records::lock(&ctx.store)?;
    let is_going = |reference: &str, entry: &Entry| names.iter().any(|n| n == reference) && chosen(entry);
    let (going, staying): (Vec<_>, Vec<_>) =
        entries(&ctx.store)?.into_iter().partition(|(reference, entry)| is_going(reference, entry));
    if going.is_empty() {
        return Err(not_stored(image, arch));
    }
    let mut free = unused(&going, &staying, |entry| entry.layers.clone());
    let digests = unused(&going, &staying, digests_of);
    let used = layers::used_by_domains(&ctx.store)?;
    let users: BTreeSet<&str> =
        used.iter().filter(|(_, key)| free.contains(key)).map(|(name, _)| name.as_str()).collect();
    if !users.is_empty() {
        let users: Vec<&str> = users.into_iter().collect();
        return Err(Error::general(format!("image '{}' is in use by {}", image.escape_debug(), users.join(", ")))
            .hint("delete these domains first, or keep the image"));
    }
    // What was made on top of the image (an init that was installed) goes with it, unless a domain runs on it.
    for key in layers::keys(&ctx.store)? {
        let parent = layers::meta(&ctx.store, &key)?.and_then(|meta| meta.parent);
        if parent.is_some_and(|p| digests.contains(&p)) && !used.iter().any(|(_, k)| *k == key) {
            free.insert(key);
        }
    }
    for name in &names {
        records::remove(&ctx.store, name, &chosen)?;
    }
    remove(ctx, &free, &digests, lock)
}

fn digests_of(entry: &Entry) -> Vec<String> {
    std::iter::once(&entry.digest).chain(&entry.config_digest).cloned().collect()
}

/// What only those that go have.
fn unused(
    going: &[(String, Entry)],
    staying: &[(String, Entry)],
    of: impl Fn(&Entry) -> Vec<String>,
) -> BTreeSet<String> {
    let kept: BTreeSet<String> = staying.iter().flat_map(|(_, entry)| of(entry)).collect();
    going.iter().flat_map(|(_, entry)| of(entry)).filter(|one| !kept.contains(one)).collect()
}

/// Takes layers and blobs away; what takes long is done when the lock is given back.
pub(crate) fn remove(
    ctx: &Ctx,
    free: &BTreeSet<String>,
    digests: &BTreeSet<String>,
    lock: crate::sys::lock::Lock,
) -> Result<()> {
    let mut aside = Vec::new();
    for key in free {
        aside.push(layers::set_aside(&ctx.store, key)?);
    }
    for hex in digests.iter().filter_map(|digest| digest.strip_prefix("sha256:")) {
        blobs::remove(&ctx.store, hex)?;
    }
    drop(lock);
    for tree in aside {
        fs::remove_tree(&tree).map_err(crate::store::Error::io(&tree))?;
    }
    Ok(())
}

/// An init of this age may still get its first user.
const YOUNG: std::time::Duration = std::time::Duration::from_secs(60);

/// Removes what neither an image nor a domain uses: layers of images that have been replaced, their documents, an init that was
/// installed in them, downloads that were not finished, native programs that an older version made. With `all`, images and native
/// programs that no domain uses, too. With `dry` nothing is removed, only told.
pub fn prune(ctx: &Ctx, all: bool, dry: bool) -> Result<Pruned> {
    crate::ops::sweep::thorough(ctx)?;
    layers::sweep(&ctx.store)?;
    let (native, freed) = crate::ops::accel::kept::prune(ctx, all, dry)?;
    let lock = records::lock(&ctx.store)?;
    let used: BTreeSet<String> = layers::used_by_domains(&ctx.store)?.into_iter().map(|(_, key)| key).collect();
    let is_used = |entry: &Entry| entry.layers.iter().any(|key| used.contains(key));
    let (going, staying): (Vec<_>, Vec<_>) =
        entries(&ctx.store)?.into_iter().partition(|(_, entry)| all && !is_used(entry));
    let kept: BTreeSet<&String> = staying.iter().flat_map(|(_, entry)| &entry.layers).chain(&used).collect();
    let digests: BTreeSet<String> = staying.iter().flat_map(|(_, entry)| digests_of(entry)).collect();
    let busy = layers::any_claim(&ctx.store)?;
    let mut pruned = Pruned { native, bytes: freed, ..Pruned::default() };
    let mut free = BTreeSet::new();
    for key in layers::keys(&ctx.store)? {
        let meta = layers::meta(&ctx.store, &key)?;
        let needed = kept.contains(&key)
            || meta.as_ref().and_then(|m| m.parent.as_ref()).is_some_and(|p| digests.contains(p))
            // Somebody is fetching, and names it when all of its layers are there.
            // A domain that is being made names the init that it was just given a little later.
            || key.starts_with("init-") && layers::age(&ctx.store, &key).is_some_and(|age| age < YOUNG)
            || busy && meta.as_ref().is_some_and(|m| m.boot.is_some());
        if !needed {
            pruned.bytes += meta.map_or(0, |m| m.size);
            free.insert(key);
        }
    }
    pruned.layers = free.len();
    let shown = |(reference, entry): &(String, Entry)| match &entry.platform {
        Some(platform) => format!("{reference} ({platform})"),
        None => reference.clone(),
    };
    pruned.images = going.iter().map(shown).collect();
    let downloads = if busy { Vec::new() } else { partial(&ctx.store)? };
    pruned.bytes += downloads.iter().map(|(_, size)| size).sum::<u64>();
    if dry {
        return Ok(pruned);
    }
    for (reference, entry) in &going {
        records::remove(&ctx.store, reference, |other| other == entry)?;
    }
    let stale: BTreeSet<String> = if busy {
        unused(&going, &staying, digests_of)
    } else {
        blobs::all(&ctx.store)?
            .into_iter()
            .map(|hex| format!("sha256:{hex}"))
            .filter(|d| !digests.contains(d))
            .collect()
    };
    for (path, _) in downloads {
        std::fs::remove_file(&path).map_err(crate::store::Error::io(&path))?;
    }
    remove(ctx, &free, &stale, lock)?;
    Ok(pruned)
}

/// Downloads that nobody works on, with their sizes.
fn partial(store: &Store) -> Result<Vec<(std::path::PathBuf, u64)>> {
    let dir = store.partial();
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(crate::store::Error::io(&dir))?,
    };
    let files = entries.flatten().filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    Ok(files.filter(|(_, meta)| meta.is_file()).map(|(path, meta)| (path, meta.len())).collect())
}
