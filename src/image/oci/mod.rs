//! From a reference to layers in the store: index, choice of platform, manifest, config, layers. What a newcomer would get
//! wrong: layers go by their diffID (the archive inside), not by their blob's digest: one archive packed twice is one layer.

pub mod access;
mod blob;
pub mod challenge;
pub mod docker_archive;
pub mod files;
pub mod hosts;
pub mod layout;
pub mod login;
pub mod manifest;
pub mod registry;
mod resolve;
pub mod seam;
mod session;

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub use access::Access;
pub use docker_archive::DockerArchive;
pub use layout::Layout;
pub use registry::Registry;
pub use resolve::platforms;

use super::platform::{self, Wanted};
use super::{Digest, Error, Result, unpack};
use crate::domain::Report;
use crate::store::images::{self, Entry};
use crate::store::layers::{self, Claimed, Meta};
use crate::store::{Store, blobs};
use manifest::Descriptor;
use resolve::Image;

/// The most that an index, manifest or config may hold (distribution-spec asks registries for 4 MiB).
const MAX_DOCUMENT: u64 = 8 << 20;
/// How many entries without a platform are looked into.
const MAX_UNKNOWN: usize = 32;
/// How deep an index may hold another.
const MAX_DEPTH: u32 = 4;
/// How many layers are fetched side by side.
const SIDE_BY_SIDE: usize = 3;

/// Where documents and blobs come from.
pub trait Source: Sync {
    /// What to call it in messages: `registry docker.io`.
    fn place(&self) -> String;
    /// The document that the reference itself names.
    fn top(&self) -> Result<Vec<u8>>;
    /// The digest of that document, where the source can tell it without sending it.
    fn probe(&self) -> Result<Option<Digest>> {
        Ok(None)
    }
    /// A document by its digest, not yet checked.
    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>>;
    /// A blob's bytes, not yet checked. A failing read carries an [`Error`].
    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>>;
    /// Forgets what an earlier try has left of a blob, since it was wrong; whether there was anything.
    fn forget(&self, _blob: &Descriptor) -> bool {
        false
    }
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
    Ok(layers::all_exist(store, &entry.layers)?.then_some(entry))
}

/// How much is asked although the image is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Nothing: what is stored is enough, also what another process has stored meanwhile.
    Present,
    /// Whether there is a newer one.
    Newer,
    /// Everything but layers that are there.
    Anew,
}

/// Fetches what is missing of `reference` from `source`.
pub fn pull(
    store: &Store,
    source: &dyn Source,
    reference: &str,
    wanted: Wanted<'_>,
    ask: Ask,
    report: &dyn Report,
) -> Result<Pulled> {
    let name = Digest::of(format!("{reference} {}", platform::wanted_text(wanted)).as_bytes());
    let there = || if ask == Ask::Present { stored(store, reference, wanted) } else { Ok(None) };
    let waiting = || report.note(&format!("another pronto is fetching {reference}: waiting for it"));
    let claim = match layers::claim(store, &format!("image-{}", name.hex()), there, waiting)? {
        Claimed::There(entry) => return Ok(Pulled { entry, fetched: false }),
        Claimed::Mine(claim) => claim,
    };
    let step = report.begin(&format!("looking up {reference}"), None);
    if ask == Ask::Newer {
        if let Some(entry) = newest(store, source, reference, wanted)? {
            step.done("");
            return Ok(Pulled { entry, fetched: false });
        }
    }
    let image = resolve::resolve(store, source, reference, wanted, report)?;
    step.done("");
    let stamp = stamp(&image.top, wanted);
    let pulled = fetch(store, source, reference, &image, &stamp, report);
    drop(claim);
    pulled
}

/// Fetches what is missing of an image that is stored, by its digest: whatever its tag leads to now. Errors: the source does not have that
/// image any more.
pub fn refetch(store: &Store, source: &dyn Source, reference: &str, entry: &Entry, report: &dyn Report) -> Result<()> {
    let malformed = |why: String| Error::Malformed { what: reference.to_owned(), why };
    let digest: Digest = entry.digest.parse().map_err(malformed)?;
    let image = resolve::known(store, source, reference, &digest, report)?;
    fetch_layers(store, source, reference, &image, report)?;
    if entry.layers.iter().any(|key| seam::is_seam(key)) {
        stack(store, reference, &image, report)?;
    }
    blobs::put(store, image.digest.hex(), &image.manifest_text)?;
    Ok(blobs::put(store, image.config_digest.hex(), &image.config_text)?)
}

/// What is stored, when the source says by a digest alone that it has nothing else.
fn newest(store: &Store, source: &dyn Source, reference: &str, wanted: Wanted<'_>) -> Result<Option<Entry>> {
    let Some(entry) = stored(store, reference, wanted)? else { return Ok(None) };
    let top = source.probe()?;
    Ok(top.is_some_and(|top| entry.stamp.as_deref() == Some(&stamp(&top, wanted))).then_some(entry))
}

/// What an entry was chosen from, and for: the same index and the same wish lead to the same image.
fn stamp(top: &Digest, wanted: Wanted<'_>) -> String {
    format!("{top} {}", platform::wanted_text(wanted))
}

fn fetch(
    store: &Store,
    source: &dyn Source,
    reference: &str,
    image: &Image,
    stamp: &str,
    report: &dyn Report,
) -> Result<Pulled> {
    let old = images::get(store, reference)?
        .into_iter()
        .flat_map(|r| r.entries)
        .find(|e| e.digest == image.digest.to_string());
    let mut fetched = old.is_none();
    layers::sweep(store)?;
    // A layer may be removed by `rmi` of another image between its look-up and our record: then it is fetched again.
    for _ in 0..3 {
        fetched |= fetch_layers(store, source, reference, image, report)?;
        blobs::put(store, image.digest.hex(), &image.manifest_text)?;
        blobs::put(store, image.config_digest.hex(), &image.config_text)?;
        let Some(entry) = entry(store, reference, image, stamp, report)? else { continue };
        if images::put(store, reference, entry.clone())? {
            return Ok(Pulled { entry, fetched });
        }
    }
    Err(Error::Malformed { what: reference.to_owned(), why: "its layers are removed again and again".into() })
}

/// Fetches the layers that are not there, some at once; true when one was fetched here. A thread holds one claim and never waits for
/// another while it does, so two processes that need the same layers in another order do not wait for each other.
fn fetch_layers(
    store: &Store,
    source: &dyn Source,
    reference: &str,
    image: &Image,
    report: &dyn Report,
) -> Result<bool> {
    let mut wanted: Vec<(usize, &Descriptor, &Digest)> = Vec::new();
    for (number, (layer, diff_id)) in image.manifest.layers.iter().zip(&image.config.diff_ids).enumerate() {
        if !wanted.iter().any(|(_, _, other)| *other == diff_id) && !layers::exists(store, diff_id.hex())? {
            wanted.push((number, layer, diff_id));
        }
    }
    let (next, fetched, stop) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    let work = || {
        while let Some((number, layer, diff_id)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let title = format!("layer {}/{}", number + 1, image.manifest.layers.len());
            let below = *number > 0;
            match fetch_layer(store, source, reference, layer, diff_id, below, &title, &stop, report) {
                Ok(here) => fetched.fetch_or(here, Ordering::Relaxed),
                Err(error) => {
                    let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    // The others stop for its sake: what they say is no news.
                    failed.get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                    return;
                }
            };
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..wanted.len().min(SIDE_BY_SIDE) {
            scope.spawn(work);
        }
        work();
    });
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(fetched.into_inner()),
    }
}

/// A reader that ends with an error when another layer has failed.
struct Stoppable<'a> {
    inner: Box<dyn Read + Send + 'a>,
    stop: &'a AtomicBool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer failed"));
        }
        self.inner.read(buffer)
    }
}

/// The layers that make up an image, lowest first, with what joins them, and their size; `None` when one is gone again.
fn stack(store: &Store, reference: &str, image: &Image, report: &dyn Report) -> Result<Option<(Vec<String>, u64)>> {
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
    Ok(Some((seam::sew(store, reference, &stack, report)?, size)))
}

/// What to store; `None` when a layer is gone again.
fn entry(store: &Store, reference: &str, image: &Image, stamp: &str, report: &dyn Report) -> Result<Option<Entry>> {
    let Some((layers, size)) = stack(store, reference, image, report)? else { return Ok(None) };
    Ok(Some(Entry {
        platform: Some(image.platform.clone()),
        digest: image.digest.to_string(),
        config_digest: Some(image.config_digest.to_string()),
        layers,
        config: image.config.run.clone(),
        pulled: super::now(),
        size,
        stamp: Some(stamp.to_owned()),
    }))
}

/// Fetches one layer unless it is there; true when it was fetched here.
#[expect(clippy::too_many_arguments, reason = "each is a different thing, and only one place calls it")]
fn fetch_layer(
    store: &Store,
    source: &dyn Source,
    reference: &str,
    layer: &Descriptor,
    diff_id: &Digest,
    below: bool,
    title: &str,
    stop: &AtomicBool,
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
    let unpack = || {
        let mut blob = Stoppable { inner: source.blob(layer)?, stop };
        let job = unpack::Job {
            what: &what,
            source: &mut blob,
            size: Some(layer.size),
            digest: Some(&digest),
            diff_id: Some(diff_id),
            below,
            step: step.as_ref(),
        };
        unpack::unpack(job, &claim.directory()?)
    };
    let unpacked = match unpack() {
        // What an earlier try has left may have been damaged since: then it was not the source's fault.
        Err(error) if error.is_damage() && source.forget(layer) => {
            report.note(&format!("{error}: fetching it anew"));
            unpack()?
        }
        other => other?,
    };
    super::note_lost(&what, &unpacked, report);
    let meta = Meta {
        size: unpacked.size,
        entries: unpacked.entries,
        opaque_root: unpacked.opaque_root,
        parent: None,
        boot: None,
        disk: None,
        loose: unpacked.loose,
    };
    claim.publish(key, meta, Some(&unpacked.known))?;
    step.done("");
    Ok(true)
}
