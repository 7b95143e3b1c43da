//! Taking a cache into the store. What a newcomer would get wrong: every byte is checked against the digest that names it, but the names are
//! the cache's own word: whoever can write the directory decides what the images in it are, as with the store itself.

use std::fs::File;
use std::path::Path;

use super::{Layer, Record, blob_path, damaged, document, open};
use crate::image::{self, Digest, unpack};
use crate::ops::{Ctx, Error, Interrupt, Result, import::drop_layers};
use crate::store::blobs;
use crate::store::images as records;
use crate::store::layers::{self, Claimed};

/// What was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// Images of the cache.
    pub images: usize,
    /// Layers that were unpacked.
    pub unpacked: usize,
    /// Layers that were there.
    pub kept: usize,
}

/// Takes all images of a cache. One that the store has newer stays. Errors: there is no cache, or a file of it is damaged (named);
/// nothing of it is in the store then.
pub fn import(ctx: &Ctx, dir: &Path) -> Result<Imported> {
    crate::ops::need_root("cache import")?;
    let mut interrupt = Interrupt::collect()?;
    crate::ops::sweep::thorough(ctx)?;
    let record = open(dir)?.ok_or_else(|| {
        Error::general(format!("there is no cache in {}", dir.display())).hint("pronto cache export makes one")
    })?;
    let mut new = Vec::new();
    let taken = take(ctx, dir, &record, &mut new, &mut interrupt);
    if taken.is_err() {
        drop_layers(ctx, &new)?;
    }
    taken
}

fn take(ctx: &Ctx, dir: &Path, record: &Record, new: &mut Vec<String>, interrupt: &mut Interrupt) -> Result<Imported> {
    let documents = documents(dir, record)?;
    for (key, layer) in &record.layers {
        interrupt.check()?;
        if take_layer(ctx, dir, key, layer)? {
            new.push(key.clone());
        }
    }
    for (digest, text) in &documents {
        blobs::put(&ctx.store, digest.hex(), text)?;
    }
    for image in &record.images {
        let stored = records::get(&ctx.store, &image.reference)?.into_iter().flat_map(|r| r.entries);
        let there = stored.into_iter().find(|e| e.platform == image.entry.platform);
        if there.is_some_and(|there| there == image.entry || there.pulled > image.entry.pulled) {
            continue;
        }
        if !records::put(&ctx.store, &image.reference, image.entry.clone())? {
            return Err(Error::general(format!("layers of '{}' were removed at the same time", image.reference)));
        }
    }
    let unpacked = new.len();
    Ok(Imported { images: record.images.len(), unpacked, kept: record.layers.len() - unpacked })
}

/// Manifests and configs as they came, where the cache has them (a tarball has none).
fn documents(dir: &Path, record: &Record) -> Result<Vec<(Digest, Vec<u8>)>> {
    let mut out = Vec::new();
    for image in &record.images {
        // With a config there is a manifest.
        let Some(config) = &image.entry.config_digest else { continue };
        for digest in [config, &image.entry.digest] {
            let digest: Digest = digest.parse().map_err(|why: String| damaged(&dir.join("index.json"), why))?;
            if blob_path(dir, &digest).exists() {
                let text = document(dir, &digest)?;
                out.push((digest, text));
            }
        }
    }
    Ok(out)
}

/// Unpacks a layer that is not there; true when it was done here.
fn take_layer(ctx: &Ctx, dir: &Path, key: &str, layer: &Layer) -> Result<bool> {
    let waiting = || ctx.report.note(&format!("another pronto is making layer {key:.12}: waiting for it"));
    let claim = match layers::claim(&ctx.store, key, || layers::meta(&ctx.store, key), waiting)? {
        Claimed::There(_) => return Ok(false),
        Claimed::Mine(claim) => claim,
    };
    let path = blob_path(dir, &layer.blob);
    let mut file = File::open(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => damaged(&path, "it is missing"),
        _ => Error::general(format!("cannot open {}", path.display())).because(e),
    })?;
    let step = ctx.report.begin(&format!("unpacking layer {key:.12}"), Some(layer.size));
    let shown = path.display().to_string();
    let job = unpack::Job {
        what: &shown,
        source: &mut file,
        size: Some(layer.size),
        digest: Some(&layer.blob),
        diff_id: Some(&layer.diff_id),
        below: false,
        step: step.as_ref(),
    };
    let unpacked = unpack::unpack(job, &claim.directory()?).map_err(|error| match error {
        image::Error::Store(interrupted) => interrupted.into(),
        image::Error::Io { .. } if error.is_disk_full() => Error::general("cannot import the cache")
            .because(error)
            .hint("free some space, or put the store elsewhere with --root"),
        image::Error::Io { .. } => Error::general("cannot import the cache").because(error),
        other => damaged(&path, other),
    })?;
    if unpacked.lost_attributes.0 > 0 {
        let first = &unpacked.lost_attributes.1;
        ctx.report.warn(&format!("layer {key:.12}: some extended attributes ('{first}') cannot be kept here"));
    }
    if unpacked.opaque_root != layer.meta.opaque_root {
        return Err(damaged(&path, "it hides something else than its record says"));
    }
    claim.publish(key, layer.meta.clone(), Some(&unpacked.known))?;
    step.done("");
    Ok(true)
}
