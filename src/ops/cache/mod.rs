//! `cache export` and `cache import`: images of the store as a directory that a CI keeps between jobs. What a newcomer would get wrong: the
//! store keeps layers unpacked, so what is written is packed anew and has other digests than the registry's; what the store knows of each
//! image (its own digest, its layers' keys, what was installed on top of it) is in one more blob, which the index names.
//!
//! ```text
//! DIR/index.json           of an OCI image layout: its annotation `pronto.cache` is the digest of the record
//! DIR/blobs/sha256/HEX     the record, layers, manifests and configs: each is named by what is in it, and checked
//! DIR/.lock                held by who writes
//! ```

mod export;
mod import;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use export::{Exported, export};
pub use import::{Imported, import};

use super::{Error, Result};
use crate::image::Digest;
use crate::store::images::Entry;
use crate::store::layers::Meta;

/// The index's annotation that names the record.
const RECORD: &str = "pronto.cache";
/// The version of the record that is written.
const VERSION: u32 = 1;
/// The most that index or record may hold, in bytes.
const MAX: u64 = 64 << 20;

/// What a cache holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// By reference and platform.
    images: Vec<Image>,
    /// By the store's keys.
    layers: BTreeMap<String, Layer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Image {
    reference: String,
    entry: Entry,
}

/// A layer, packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Layer {
    blob: Digest,
    size: u64,
    diff_id: Digest,
    meta: Meta,
}

impl Record {
    fn new() -> Record {
        Record { version: VERSION, images: Vec::new(), layers: BTreeMap::new() }
    }
}

fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.hex())
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::general(format!("{} is damaged: {why}", path.display()))
        .hint("remove the directory and let pronto cache export make it again")
}

/// Reads a file of the cache that is not large. Errors: it is not there, or too large.
fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| {
        if e.kind() == std::io::ErrorKind::NotFound {
            return damaged(path, "it is missing");
        }
        Error::general(format!("cannot read {}", path.display())).because(e)
    };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX {
        return Err(damaged(path, "it is too large"));
    }
    std::fs::read(path).map_err(failed)
}

/// Reads a blob that is a document, and checks it.
fn document(dir: &Path, digest: &Digest) -> Result<Vec<u8>> {
    let path = blob_path(dir, digest);
    let text = read(&path)?;
    let found = Digest::of(&text);
    if found == *digest { Ok(text) } else { Err(damaged(&path, format!("its digest is {found}"))) }
}

/// What a cache holds; `None` where there is no index. Errors: it is no cache of ours, of a newer version, or damaged.
fn open(dir: &Path) -> Result<Option<Record>> {
    let path = dir.join("index.json");
    if !path.exists() {
        return Ok(None);
    }
    let index: serde_json::Value = serde_json::from_slice(&read(&path)?).map_err(|e| damaged(&path, e))?;
    let Some(digest) = index["annotations"][RECORD].as_str() else {
        return Err(Error::general(format!("{} is no cache that pronto has written", dir.display()))
            .hint("an OCI image layout is taken by pronto import oci:DIR:TAG NAME"));
    };
    let digest: Digest = digest.parse().map_err(|why: String| damaged(&path, why))?;
    let text = document(dir, &digest)?;
    let path = blob_path(dir, &digest);
    let version: serde_json::Value = serde_json::from_slice(&text).map_err(|e| damaged(&path, e))?;
    match version["version"].as_u64() {
        Some(version) if version == u64::from(VERSION) => {}
        version => {
            let what = format!(
                "{} was written by another pronto (version {version:?}, this one knows {VERSION})",
                dir.display()
            );
            return Err(Error::general(what).hint("export it anew"));
        }
    }
    let record: Record = serde_json::from_slice(&text).map_err(|e| damaged(&path, e))?;
    let missing = |key: &&String| !record.layers.contains_key(*key);
    if let Some(key) = record.images.iter().flat_map(|i| &i.entry.layers).find(missing) {
        return Err(damaged(&path, format!("it lacks layer {}", key.escape_debug())));
    }
    Ok(Some(record))
}
