//! Filling a cache. What a newcomer would get wrong: a layer is known by its key in the store, so one that is there already is not packed
//! again; and index.json is written last, so that a reader sees the old cache or the new one, whatever becomes of the writer.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use serde_json::{Value, json};

use super::{Image, Layer, RECORD, Record, blob_path, damaged, open};
use crate::domain::Step;
use crate::image::pack::layout::{Description, Documents, INDEX};
use crate::image::pack::{self, Blob, Codec, Form, Rules, ticking};
use crate::image::{self, Digest};
use crate::ops::images::kept::{names_of, not_stored};
use crate::ops::{Ctx, Error, Interrupt, Result, cannot_write};
use crate::store::images as records;
use crate::store::{blobs, layers};
use crate::sys::fs;
use crate::sys::lock::Lock;
use crate::sys::unfinished::{self, Unfinished};

/// How layers are packed. Out and in again, a Debian of 244 MB takes as long as unpacked (2.9 s on two cores, most of it unpacking), and
/// has a third of the size, which is what a CI carries to and fro: 74 MB instead of 233; level 3 saves another 10 MB and costs more.
const CODEC: Codec = Codec::Zstd(1);

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Images in the cache now.
    pub images: usize,
    /// Layers that were written.
    pub written: usize,
    /// Layers that were there.
    pub kept: usize,
    /// Files that were removed.
    pub removed: usize,
}

/// Writes images (all when none is named) with what was installed on top of them. What else the cache holds stays, unless `prune`.
/// Errors: no such image; the cache is damaged; as write(2). The cache is as it was then.
pub fn export(ctx: &Ctx, dir: &Path, words: &[String], prune: bool) -> Result<Exported> {
    crate::ops::need_root("cache export")?;
    let mut interrupt = Interrupt::collect()?;
    let cannot = |e: io::Error| cannot(dir, e);
    if !dir.join("index.json").exists()
        && std::fs::read_dir(dir)
            .is_ok_and(|mut d| d.any(|e| e.is_ok_and(|e| e.file_name() != ".lock" && e.file_name() != "blobs")))
    {
        return Err(Error::general(format!("{} holds something else than a cache", dir.display()))
            .hint("name an empty directory"));
    }
    DirBuilder::new().recursive(true).create(dir.join("blobs/sha256")).map_err(cannot)?;
    let lock = Lock::wait(&dir.join(".lock")).map_err(cannot)?;
    let old = open(dir)?.unwrap_or_else(Record::new);
    let mut record = Record::new();
    record.images = chosen(ctx, words)?;
    let mut keys: BTreeSet<String> = record.images.iter().flat_map(|i| i.entry.layers.clone()).collect();
    keys.extend(on_top(ctx, &record.images)?);
    let (mut written, mut kept) = (0, 0);
    for key in &keys {
        interrupt.check()?;
        let layer = match old.layers.get(key).filter(|layer| is_there(dir, layer)) {
            Some(layer) => {
                kept += 1;
                layer.clone()
            }
            None => {
                written += 1;
                write_layer(ctx, dir, key)?
            }
        };
        record.layers.insert(key.clone(), layer);
    }
    if !prune {
        keep(&mut record, old);
    }
    let used = publish(ctx, dir, &mut record)?;
    let removed = if prune { remove_unused(dir, &used)? } else { 0 };
    drop(lock);
    Ok(Exported { images: record.images.len(), written, kept, removed })
}

fn cannot(dir: &Path, error: io::Error) -> Error {
    cannot_write(&format!("the cache {}", dir.display()), error)
}

fn chosen(ctx: &Ctx, words: &[String]) -> Result<Vec<Image>> {
    let mut all = records::all(&ctx.store)?;
    if !words.is_empty() {
        let mut names = BTreeSet::new();
        for word in words {
            let of_word = names_of(&ctx.store, word)?;
            if !all.iter().any(|record| of_word.contains(&record.reference)) {
                return Err(not_stored(word, None));
            }
            names.extend(of_word);
        }
        all.retain(|record| names.contains(&record.reference));
    }
    let images = all.into_iter().flat_map(|record| {
        let reference = record.reference;
        record.entries.into_iter().map(move |entry| Image { reference: reference.clone(), entry })
    });
    Ok(images.collect())
}

/// Layers that were made on top of these images (an init that was installed).
fn on_top(ctx: &Ctx, images: &[Image]) -> Result<Vec<String>> {
    let digests: BTreeSet<&str> = images.iter().map(|image| image.entry.digest.as_str()).collect();
    let mut found = Vec::new();
    for key in layers::keys(&ctx.store)? {
        let parent = layers::meta(&ctx.store, &key)?.and_then(|meta| meta.parent);
        if parent.is_some_and(|parent| digests.contains(parent.as_str())) {
            found.push(key);
        }
    }
    Ok(found)
}

fn is_there(dir: &Path, layer: &Layer) -> bool {
    std::fs::metadata(blob_path(dir, &layer.blob)).is_ok_and(|meta| meta.is_file() && meta.len() == layer.size)
}

fn write_layer(ctx: &Ctx, dir: &Path, key: &str) -> Result<Layer> {
    let what = format!("layer {key}");
    let gone = || Error::general(format!("{what} was removed from the store at the same time"));
    let meta = layers::meta(&ctx.store, key)?.ok_or_else(gone)?;
    let tree =
        File::open(ctx.store.layer(key)).map_err(|e| Error::general(format!("cannot open {what}")).because(e))?;
    let name = dir.join("blobs/sha256/layer");
    unfinished::sweep(&name);
    let (unfinished, file) = Unfinished::file(&name, 0o644).map_err(|e| cannot(dir, e))?;
    let step = ctx.report.begin(&format!("packing layer {key:.12}"), Some(meta.size));
    let (file, layer) = pack_layer(ctx, dir, key, meta, &tree, file, step.as_ref())?;
    unfinished.publish(&file, &blob_path(dir, &layer.blob), true).map_err(|e| cannot(dir, e))?;
    step.done("");
    Ok(layer)
}

/// Packs a layer into a file and sees to it that it is on the disk.
fn pack_layer(
    ctx: &Ctx,
    dir: &Path,
    key: &str,
    meta: layers::Meta,
    tree: &File,
    file: File,
    step: &dyn Step,
) -> Result<(File, Layer)> {
    let what = format!("layer {key}");
    let gone = || Error::general(format!("{what} was removed from the store at the same time"));
    let tick = ticking(step);
    let rules = Rules { form: Form::Layer, living: false, tick: &tick };
    let (file, blob, packed) =
        pack::blob(tree.as_fd(), &rules, CODEC, file).map_err(|fault| failed(dir, &what, fault))?;
    file.sync_all().map_err(|e| cannot(dir, e))?;
    packed.left_out.iter().for_each(|line| ctx.report.warn(&format!("{what}: {line}")));
    // One that was removed while it was read looks like one that holds less.
    if !layers::exists(&ctx.store, key)? {
        return Err(gone());
    }
    let meta = layers::Meta { boot: None, ..meta };
    Ok((file, Layer { blob: blob.digest, size: blob.size, diff_id: blob.diff_id, meta }))
}

fn failed(dir: &Path, what: &str, fault: pack::Fault) -> Error {
    match fault.of(what, "the cache") {
        image::Error::Io { what, source } if what.starts_with("cannot write") => cannot(dir, source),
        image::Error::Store(interrupted) => interrupted.into(),
        other => Error::general(format!("cannot export {what}")).because(other),
    }
}

/// Keeps what the cache held of other images.
fn keep(record: &mut Record, old: Record) {
    let same = |a: &Image, b: &Image| a.reference == b.reference && a.entry.platform == b.entry.platform;
    let others: Vec<Image> = old.images.into_iter().filter(|o| !record.images.iter().any(|i| same(i, o))).collect();
    record.images.extend(others);
    let digests: BTreeSet<String> = record.images.iter().map(|image| image.entry.digest.clone()).collect();
    let named: BTreeSet<String> = record.images.iter().flat_map(|image| image.entry.layers.clone()).collect();
    for (key, layer) in old.layers {
        if named.contains(&key) || layer.meta.parent.as_ref().is_some_and(|parent| digests.contains(parent)) {
            record.layers.entry(key).or_insert(layer);
        }
    }
}

/// Writes documents, the record and at last the index; returns what the cache consists of now.
fn publish(ctx: &Ctx, dir: &Path, record: &mut Record) -> Result<BTreeSet<String>> {
    record.images.sort_by_cached_key(|i| (i.reference.clone(), i.entry.platform.as_ref().map(ToString::to_string)));
    let mut used: BTreeSet<String> = record.layers.values().map(|layer| layer.blob.hex().to_owned()).collect();
    let mut put = |text: &[u8]| -> Result<Digest> {
        let digest = Digest::of(text);
        let path = blob_path(dir, &digest);
        if !path.exists() {
            fs::write_atomic(&path, text, 0o644).map_err(|e| cannot(dir, e))?;
        }
        used.insert(digest.hex().to_owned());
        Ok(digest)
    };
    let mut manifests = Vec::new();
    for Image { reference, entry } in &record.images {
        let mut config = None;
        for digest in entry.config_digest.iter().chain([&entry.digest]) {
            let Ok(digest) = digest.parse::<Digest>() else { continue };
            // The store's, or what the cache has of an image that the store has no more; a tarball has none.
            let text = match blobs::get(&ctx.store, digest.hex())? {
                None => std::fs::read(blob_path(dir, &digest)).ok().filter(|text| Digest::of(text) == digest),
                text => text,
            };
            let Some(text) = text else { continue };
            put(&text)?;
            config = config.or_else(|| serde_json::from_slice::<Value>(&text).ok());
        }
        let about = Description {
            platform: entry.platform.clone(),
            config: entry.config.clone(),
            original: config.filter(|_| entry.config_digest.is_some()),
            tag: Some(reference.clone()),
        };
        let packed: Option<Vec<Blob>> = entry.layers.iter().map(|key| record.layers.get(key).map(blob)).collect();
        let packed =
            packed.ok_or_else(|| damaged(&dir.join("index.json"), format!("a layer of {reference} is missing")))?;
        let mut documents = Documents::of(&packed, &about);
        put(&documents.config)?;
        put(&documents.manifest)?;
        documents.entry["annotations"]["pronto.digest"] = json!(entry.digest);
        manifests.push(documents.entry);
    }
    let text = serde_json::to_vec_pretty(&record).map_err(|e| cannot(dir, io::Error::other(e)))?;
    let digest = put(&text)?;
    let annotations = json!({ RECORD: digest.to_string() });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": annotations });
    for (name, text) in
        [("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#.to_owned()), ("index.json", index.to_string())]
    {
        let path = dir.join(name);
        if std::fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
            fs::write_atomic(&path, text.as_bytes(), 0o644).map_err(|e| cannot(dir, e))?;
        }
    }
    Ok(used)
}

fn blob(layer: &Layer) -> Blob {
    Blob { digest: layer.blob.clone(), size: layer.size, diff_id: layer.diff_id.clone(), codec: CODEC }
}

/// Removes blobs that belong to nothing, and what a killed export left.
fn remove_unused(dir: &Path, used: &BTreeSet<String>) -> Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(dir.join("blobs/sha256")).map_err(|e| cannot(dir, e))? {
        let entry = entry.map_err(|e| cannot(dir, e))?;
        if !used.contains(&*entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path()).map_err(|e| cannot(dir, e))?;
            removed += 1;
        }
    }
    Ok(removed)
}
