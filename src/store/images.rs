//! What each reference stands for, per platform: one file per reference, replaced whole. What a newcomer would get wrong: a
//! reference never stands for another platform by accident; whoever asks says which platforms it takes, in order. And a record lasts no
//! longer than its layers: it is not waited for when they were not ([`super::young`]), so a power cut may leave one that is empty.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Error, Result, Store, layers};
use crate::domain::{ImageConfig, Platform};
use crate::sys::lock::Lock;
use crate::sys::{fs, tag};

/// All that is stored of one reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The reference in full: `docker.io/library/debian:bookworm`, an absolute path, a URL, `bootstrap:bookworm`.
    pub reference: String,
    /// One for each platform that was fetched.
    pub entries: Vec<Entry>,
}

/// One platform of one reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which; none for a tarball, which does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The manifest's digest, or the tarball's.
    pub digest: String,
    /// The config's digest, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<String>,
    /// Keys of the layers, lowest first.
    pub layers: Vec<String>,
    /// How the image wants its command run.
    #[serde(default)]
    pub config: ImageConfig,
    /// When it was fetched, in seconds since 1970.
    pub pulled: u64,
    /// Unpacked size of all layers in bytes.
    pub size: u64,
    /// What tells whether the source is still the same (a file's identity and times, an ETag).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<String>,
}

fn path(store: &Store, reference: &str) -> PathBuf {
    store.images().join(format!("{}.json", tag::of(reference.as_bytes(), 64)))
}

/// `None` for what a power cut leaves of a record that was not waited for.
fn parse(path: &std::path::Path, text: &[u8]) -> Result<Option<Record>> {
    if text.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    serde_json::from_slice(text).map(Some).map_err(|e| Error::Damaged { path: path.to_owned(), why: e.to_string() })
}

/// What is stored of a reference.
pub fn get(store: &Store, reference: &str) -> Result<Option<Record>> {
    let path = path(store, reference);
    match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(&path)(e)),
        Ok(text) => parse(&path, &text),
    }
}

/// Everything that is stored, by reference.
pub fn all(store: &Store) -> Result<Vec<Record>> {
    let dir = store.images();
    let mut out = Vec::new();
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(out),
        other => other.map_err(Error::io(&dir))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io(&dir))?.path();
        if path.extension().is_none_or(|e| e != "json")
            || path.file_name().is_some_and(|n| n.as_encoded_bytes()[0] == b'.')
        {
            continue;
        }
        match std::fs::read(&path) {
            // Removed meanwhile: readers take no lock.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(&path)(e)),
            Ok(text) => out.extend(parse(&path, &text)?),
        }
    }
    out.sort_by(|a, b| a.reference.cmp(&b.reference));
    Ok(out)
}

/// Stores an entry in the place of the one for the same platform. `false`: one of its layers has been removed meanwhile (by
/// `rmi` of another image) and must be fetched again. Takes the store's lock.
pub fn put(store: &Store, reference: &str, entry: Entry) -> Result<bool> {
    let _lock = lock(store)?;
    if !layers::all_exist(store, &entry.layers)? {
        return Ok(false);
    }
    let mut record = get(store, reference)?.unwrap_or(Record { reference: reference.to_owned(), entries: Vec::new() });
    record.entries.retain(|old| old.platform != entry.platform);
    record.entries.push(entry);
    write(store, &record)?;
    Ok(true)
}

/// Gives a reference these entries in the place of all that it had; `false` when one of their layers has been removed meanwhile. Takes the
/// store's lock.
pub fn replace(store: &Store, reference: &str, entries: Vec<Entry>) -> Result<bool> {
    let _lock = lock(store)?;
    if !layers::all_exist(store, entries.iter().flat_map(|entry| &entry.layers))? {
        return Ok(false);
    }
    write(store, &Record { reference: reference.to_owned(), entries })?;
    Ok(true)
}

fn write(store: &Store, record: &Record) -> Result<()> {
    let path = path(store, &record.reference);
    let text =
        serde_json::to_vec_pretty(record).map_err(|e| Error::Damaged { path: path.clone(), why: e.to_string() })?;
    let young = |key: &String| Ok(layers::recorded(store, key)?.is_none_or(|meta| meta.boot.is_some()));
    let mut layers = record.entries.iter().flat_map(|entry| &entry.layers).map(young);
    let written = match layers.find(|young| !matches!(young, Ok(false))).transpose()? {
        Some(_) => fs::write_volatile(&path, &text, 0o600),
        None => fs::write_atomic(&path, &text, 0o600),
    };
    written.map_err(Error::io(&path))
}

/// The store's lock: for milliseconds.
pub fn lock(store: &Store) -> Result<Lock> {
    let path = store.lock();
    Lock::wait(&path).map_err(Error::io(&path))
}

/// Removes the entries of a reference that `which` says, and the record with the last of them. The caller holds the lock.
pub fn remove(store: &Store, reference: &str, which: impl Fn(&Entry) -> bool) -> Result<()> {
    let Some(mut record) = get(store, reference)? else { return Ok(()) };
    record.entries.retain(|entry| !which(entry));
    if !record.entries.is_empty() {
        return write(store, &record);
    }
    let path = path(store, reference);
    std::fs::remove_file(&path).map_err(Error::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(architecture: &str) -> Entry {
        let platform = Platform { architecture: architecture.into(), os: "linux".into(), variant: None };
        Entry {
            platform: Some(platform),
            digest: "sha256:00".into(),
            config_digest: None,
            layers: Vec::new(),
            config: ImageConfig::default(),
            pulled: 1,
            size: 2,
            stamp: None,
        }
    }

    #[test]
    fn one_entry_per_platform() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(&dir.path().join("s")));
        store.open().unwrap();
        assert!(put(&store, "r", entry("arm64")).unwrap());
        assert!(put(&store, "r", entry("amd64")).unwrap());
        assert!(put(&store, "r", Entry { size: 9, ..entry("arm64") }).unwrap());
        let record = get(&store, "r").unwrap().unwrap();
        assert_eq!(record.entries, [entry("amd64"), Entry { size: 9, ..entry("arm64") }]);
        assert!(!put(&store, "q", Entry { layers: vec!["gone".into()], ..entry("arm64") }).unwrap());
        assert_eq!(all(&store).unwrap(), [record]);
        remove(&store, "r", |e| e.size == 9).unwrap();
        assert_eq!(get(&store, "r").unwrap().unwrap().entries.len(), 1);
        fs::write_volatile(&path(&store, "r"), b"", 0o600).unwrap();
        assert!(get(&store, "r").unwrap().is_none() && all(&store).unwrap().is_empty(), "as a power cut leaves it");
        assert!(put(&store, "r", entry("arm64")).unwrap());
        remove(&store, "r", |_| true).unwrap();
        assert!(get(&store, "r").unwrap().is_none() && all(&store).unwrap().is_empty());
    }
}
