//! From a reference to layers in the store: index, choice of platform, manifest, config, layers. What a newcomer would get
//! wrong: layers go by their diffID (the archive inside), not by their blob's digest: one archive packed twice is one layer.

pub mod docker_archive;
pub mod files;
pub mod layout;
pub mod manifest;
pub mod registry;

use std::io::Read;

pub use docker_archive::DockerArchive;
pub use layout::Layout;
pub use registry::Registry;

use super::platform::{self, Wanted};
use super::{Digest, Error, Result, unpack};
use crate::domain::{Platform, Report};
use crate::store::images::{self, Entry};
use crate::store::layers::{self, Claimed, Meta};
use crate::store::{Store, blobs};
use manifest::{Config, Descriptor, Document, Manifest};

/// The most that an index, manifest or config may hold (distribution-spec asks registries for 4 MiB).
const MAX_DOCUMENT: u64 = 8 << 20;
/// How many entries without a platform are looked into.
const MAX_UNKNOWN: usize = 32;
/// How deep an index may hold another.
const MAX_DEPTH: u32 = 4;

/// Where documents and blobs come from.
pub trait Source: Sync {
    /// What to call it in messages: `registry docker.io`.
    fn place(&self) -> String;
    /// The document that the reference itself names.
    fn top(&self) -> Result<Vec<u8>>;
    /// A document by its digest, not yet checked.
    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>>;
    /// A blob's bytes, not yet checked. A failing read carries an [`Error`].
    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>>;
}

/// What a pull came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What is stored now.
    pub entry: Entry,
    /// Whether anything of it was fetched.
    pub fetched: bool,
}

/// The best platform that is stored of a reference, with all its layers.
pub fn stored(store: &Store, reference: &str, wanted: Wanted<'_>) -> crate::store::Result<Option<Entry>> {
    let Some(record) = images::get(store, reference)? else { return Ok(None) };
    let ranked = record.entries.into_iter().filter_map(|e| Some((platform::rank(e.platform.as_ref()?, wanted)?, e)));
    let Some((_, entry)) = ranked.min_by_key(|(rank, _)| *rank) else { return Ok(None) };
    for key in &entry.layers {
        if !layers::exists(store, key)? {
            return Ok(None);
        }
    }
    Ok(Some(entry))
}

/// Fetches what is missing of `reference` from `source`. Unless `ask`, what is stored meanwhile by another process is enough.
pub fn pull(
    store: &Store,
    source: &dyn Source,
    reference: &str,
    wanted: Wanted<'_>,
    ask: bool,
    report: &dyn Report,
) -> Result<Pulled> {
    let name = Digest::of(format!("{reference} {}", platform::wanted_text(wanted)).as_bytes());
    let there = || if ask { Ok(None) } else { stored(store, reference, wanted) };
    let waiting = || report.note(&format!("another pronto is fetching {reference}: waiting for it"));
    let claim = match layers::claim(store, &format!("image-{}", name.hex()), there, waiting)? {
        Claimed::There(entry) => return Ok(Pulled { entry, fetched: false }),
        Claimed::Mine(claim) => claim,
    };
    let step = report.begin(&format!("looking up {reference}"), None);
    let image = resolve(store, source, reference, wanted, report)?;
    step.done("");
    let pulled = fetch(store, source, reference, &image, report);
    drop(claim);
    pulled
}

/// One image, chosen, read and checked, its layers not yet fetched.
struct Image {
    digest: Digest,
    manifest: Manifest,
    manifest_text: Vec<u8>,
    config: Config,
    config_digest: Digest,
    config_text: Vec<u8>,
    platform: Platform,
}

fn fetch(store: &Store, source: &dyn Source, reference: &str, image: &Image, report: &dyn Report) -> Result<Pulled> {
    let old = images::get(store, reference)?
        .into_iter()
        .flat_map(|r| r.entries)
        .find(|e| e.digest == image.digest.to_string());
    let mut fetched = old.is_none();
    layers::sweep(store)?;
    // A layer may be removed by `rmi` of another image between its look-up and our record: then it is fetched again.
    for _ in 0..3 {
        let count = image.manifest.layers.len();
        for (number, (layer, diff_id)) in image.manifest.layers.iter().zip(&image.config.diff_ids).enumerate() {
            let title = format!("layer {}/{count}", number + 1);
            fetched |= fetch_layer(store, source, reference, layer, diff_id, &title, report)?;
        }
        blobs::put(store, image.digest.hex(), &image.manifest_text)?;
        blobs::put(store, image.config_digest.hex(), &image.config_text)?;
        let Some(entry) = entry(store, image)? else { continue };
        layers::settle(store, &entry.layers)?;
        if images::put(store, reference, entry.clone())? {
            return Ok(Pulled { entry, fetched });
        }
    }
    Err(Error::Malformed { what: reference.to_owned(), why: "its layers are removed again and again".into() })
}

/// What to store; `None` when a layer is gone again.
fn entry(store: &Store, image: &Image) -> Result<Option<Entry>> {
    let mut stack: Vec<String> = Vec::new();
    let mut size = 0;
    for diff_id in &image.config.diff_ids {
        let key = diff_id.hex().to_owned();
        let Some(meta) = layers::meta(store, &key)? else { return Ok(None) };
        if meta.opaque_root {
            stack.clear();
        }
        // overlayfs takes no directory twice; the upper one of two equal layers decides alone.
        stack.retain(|other| *other != key);
        stack.push(key);
        size += meta.size;
    }
    Ok(Some(Entry {
        platform: Some(image.platform.clone()),
        digest: image.digest.to_string(),
        config_digest: Some(image.config_digest.to_string()),
        layers: stack,
        config: image.config.run.clone(),
        pulled: super::now(),
        size,
        stamp: None,
    }))
}

/// Fetches one layer unless it is there; true when it was fetched here.
fn fetch_layer(
    store: &Store,
    source: &dyn Source,
    reference: &str,
    layer: &Descriptor,
    diff_id: &Digest,
    title: &str,
    report: &dyn Report,
) -> Result<bool> {
    let key = diff_id.hex();
    let waiting = || report.note(&format!("another pronto is fetching layer {}: waiting for it", diff_id.short()));
    let claim = match layers::claim(store, key, || layers::meta(store, key), waiting)? {
        Claimed::There(_) => return Ok(false),
        Claimed::Mine(claim) => claim,
    };
    let malformed = |why| Error::Malformed { what: reference.to_owned(), why };
    let digest = layer.digest().map_err(malformed)?;
    let what = format!("layer {} of {reference}", digest.short());
    let step = report.begin(&format!("{title} {}", digest.short()), Some(layer.size));
    let mut blob = source.blob(layer)?;
    let job = unpack::Job {
        what: &what,
        source: &mut *blob,
        size: Some(layer.size),
        digest: Some(&digest),
        diff_id: Some(diff_id),
        step: step.as_ref(),
    };
    let unpacked = unpack::unpack(job, &claim.directory()?)?;
    super::note_lost(&what, &unpacked, report);
    let meta = Meta {
        size: unpacked.size,
        entries: unpacked.entries,
        opaque_root: unpacked.opaque_root,
        parent: None,
        boot: None,
    };
    claim.publish(key, meta)?;
    step.done("");
    Ok(true)
}

/// Finds the image for the wanted platform and reads its manifest and config.
fn resolve(
    store: &Store,
    source: &dyn Source,
    reference: &str,
    wanted: Wanted<'_>,
    report: &dyn Report,
) -> Result<Image> {
    let text = source.top()?;
    let digest = Digest::of(&text);
    // A path may hold an @, too.
    let pinned = reference.rsplit_once('@').filter(|(_, pinned)| pinned.parse::<Digest>().is_ok());
    if let Some((_, pinned)) = pinned {
        if pinned != digest.to_string() {
            let (wanted, found) = (pinned.to_owned(), digest.to_string());
            return Err(Error::WrongDigest { what: format!("manifest of {reference}"), wanted, found });
        }
    }
    let mut search = Search { store, source, reference, wanted, available: Vec::new(), looked: 0 };
    let found = match search.parse(&text)? {
        Document::Image(manifest) => search.single(digest, text, manifest)?,
        Document::Index(entries) => search.choose(&entries, MAX_DEPTH)?,
    };
    let image = found.ok_or_else(|| Error::NoPlatform {
        what: reference.to_owned(),
        wanted: platform::wanted_text(wanted),
        available: platform::list(&search.available),
    })?;
    if image.manifest.layers.len() != image.config.diff_ids.len() || image.manifest.layers.is_empty() {
        let (layers, diffs) = (image.manifest.layers.len(), image.config.diff_ids.len());
        let why = format!("it is no image of a file system ({layers} layers, {diffs} of them described)");
        return Err(Error::Malformed { what: reference.to_owned(), why });
    }
    let said = |p: &Platform| platform::normal(&p.architecture, None).0;
    if said(&image.platform) != said(&image.config.platform) {
        let (index, config) = (&image.platform, image.config.platform.to_string());
        report.warn(&format!(
            "{reference}: its index says {index}, its config {}; its files decide",
            config.escape_debug()
        ));
    }
    Ok(image)
}

struct Search<'a> {
    store: &'a Store,
    source: &'a dyn Source,
    reference: &'a str,
    wanted: Wanted<'a>,
    /// Every platform that was seen.
    available: Vec<Platform>,
    looked: usize,
}

impl Search<'_> {
    fn malformed(&self, why: String) -> Error {
        Error::Malformed { what: format!("the manifest of {}", self.reference), why }
    }

    fn parse(&self, text: &[u8]) -> Result<Document> {
        Document::parse(text).map_err(|why| self.malformed(why))
    }

    /// A document of an index, its digest checked.
    fn document(&self, descriptor: &Descriptor) -> Result<(Digest, Vec<u8>)> {
        let digest = descriptor.digest().map_err(|why| self.malformed(why))?;
        let text = self.source.manifest(&digest)?;
        checked(&format!("manifest {} of {}", digest.short(), self.reference), &digest, &text)?;
        Ok((digest, text))
    }

    /// The best of an index: by its own words first, then by looking into those entries that say nothing.
    fn choose(&mut self, entries: &[Descriptor], depth: u32) -> Result<Option<Image>> {
        let images: Vec<&Descriptor> = entries.iter().filter(|e| !e.is_attestation()).collect();
        let said: Vec<(&Descriptor, Platform)> = images.iter().filter_map(|e| Some((*e, e.platform()?))).collect();
        self.available.extend(said.iter().map(|(_, p)| p.clone()));
        if let Some(at) = platform::best(said.iter().map(|(_, p)| p), self.wanted) {
            let (descriptor, platform) = &said[at];
            let (digest, text) = self.document(descriptor)?;
            return match self.parse(&text)? {
                Document::Image(manifest) => self.image(digest, text, manifest, Some(platform.clone())).map(Some),
                Document::Index(inner) => self.nested(&inner, depth),
            };
        }
        for descriptor in images.into_iter().filter(|e| e.platform().is_none()) {
            self.looked += 1;
            if self.looked > MAX_UNKNOWN {
                break;
            }
            let (digest, text) = self.document(descriptor)?;
            let found = match self.parse(&text)? {
                Document::Image(manifest) => self.single(digest, text, manifest)?,
                Document::Index(inner) => self.nested(&inner, depth)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn nested(&mut self, entries: &[Descriptor], depth: u32) -> Result<Option<Image>> {
        match depth.checked_sub(1) {
            Some(depth) => self.choose(entries, depth),
            None => Err(self.malformed("it holds an index in an index too many times".into())),
        }
    }

    /// An image of which only its config says what it is for.
    fn single(&mut self, digest: Digest, text: Vec<u8>, manifest: Manifest) -> Result<Option<Image>> {
        let image = self.image(digest, text, manifest, None)?;
        self.available.push(image.platform.clone());
        Ok(platform::rank(&image.platform, self.wanted).map(|_| image))
    }

    /// The config, from the store where an earlier pull has left it, whole.
    fn config(&self, manifest: &Manifest, digest: &Digest, what: &str) -> Result<Vec<u8>> {
        if let Some(text) = blobs::get(self.store, digest.hex())?.filter(|t| checked(what, digest, t).is_ok()) {
            return Ok(text);
        }
        let mut text = Vec::new();
        let blob = self.source.blob(&manifest.config)?;
        blob.take(MAX_DOCUMENT).read_to_end(&mut text).map_err(|e| unpack::carried(e, what))?;
        checked(what, digest, &text)?;
        Ok(text)
    }

    fn image(&self, digest: Digest, text: Vec<u8>, manifest: Manifest, said: Option<Platform>) -> Result<Image> {
        let what = format!("the config of {}", self.reference);
        let config_digest = manifest.config.digest().map_err(|why| self.malformed(why))?;
        if manifest.config.size > MAX_DOCUMENT {
            return Err(Error::Malformed { what, why: "it is too large".into() });
        }
        let config_text = self.config(&manifest, &config_digest, &what)?;
        let config = Config::parse(&config_text).map_err(|why| Error::Malformed { what, why })?;
        let platform = said.unwrap_or_else(|| config.platform.clone());
        Ok(Image { digest, manifest, manifest_text: text, config, config_digest, config_text, platform })
    }
}

fn checked(what: &str, digest: &Digest, data: &[u8]) -> Result<()> {
    let found = Digest::of(data);
    if found == *digest {
        return Ok(());
    }
    Err(Error::WrongDigest { what: what.to_owned(), wanted: digest.to_string(), found: found.to_string() })
}
