//! Manifests and configs as they came, by their digest. What a newcomer would get wrong: layers' blobs are not kept; they are
//! unpacked as they arrive. And nobody waits until a blob is on the disk: a power cut may leave one that is not what its name says, which
//! whoever reads it must see.

use std::path::PathBuf;

use super::{Error, Result, Store};
use crate::sys::fs;

fn path(store: &Store, hex: &str) -> Result<PathBuf> {
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(store.blobs().join(hex));
    }
    Err(Error::Damaged { path: store.blobs(), why: format!("'{}' is no blob", hex.escape_debug()) })
}

/// Keeps a blob under the hex digits of its sha256; the caller has checked it.
pub fn put(store: &Store, hex: &str, data: &[u8]) -> Result<()> {
    let path = path(store, hex)?;
    if std::fs::read(&path).is_ok_and(|there| there == data) {
        return Ok(());
    }
    fs::write_volatile(&path, data, 0o600).map_err(Error::io(&path))
}

/// A blob, unchecked; `None` when it is not kept.
pub fn get(store: &Store, hex: &str) -> Result<Option<Vec<u8>>> {
    let path = path(store, hex)?;
    match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(Error::io(&path)),
    }
}

/// The hex digits of all that are kept.
pub fn all(store: &Store) -> Result<Vec<String>> {
    let dir = store.blobs();
    let entries = std::fs::read_dir(&dir).map_err(Error::io(&dir))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| path(store, name).is_ok()).collect())
}

/// Removes a blob; one that is not there is fine.
pub fn remove(store: &Store, hex: &str) -> Result<()> {
    let path = path(store, hex)?;
    fs::remove_file(&path).map_err(Error::io(&path))
}
