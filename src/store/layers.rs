//! Unpacked layers: one directory each, shared by every image that holds it, never changed once it has its name. What a
//! newcomer would get wrong: a layer counts only together with its record (`<key>.json`), and a record that names a boot
//! counts during that boot only: until the disk has written everything, a power cut would leave empty files. In another boot the
//! tree is compared with what was written down of it, once ([`super::young`]).
//!
//! ```text
//! layers/<key>/            the tree, or the disk and what lies over it; key = the diffID's hex digits, or of our own making for trees that have none
//! layers/<key>.json        its record: size, entries, what it hides
//! layers/<key>.sum         what its files were when it was made ([`super::sums`])
//! layers/.tmp-<claim>/     being unpacked by whoever holds the claim; anybody removes it when nobody does
//! <run>/claims/<name>      locks: one process fetches, the others wait and then find it there
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::loose::Loose;
use super::sums::Known;
use super::{Error, Result, Store, young};
use crate::sys::disk::Volume;
use crate::sys::fs;
use crate::sys::lock::Lock;
use crate::sys::signal;

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Bytes of all its files.
    pub size: u64,
    /// How many entries it has.
    pub entries: u64,
    /// It hides every layer below it (overlayfs does not obey that mark on a layer's root, so the stack must).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque_root: bool,
    /// The digest of the image that it was made on top of; it goes when that image goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The boot in which it was made; none once it is known to be safely on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// It holds what only the layers below it can say.
    #[serde(default, skip_serializing_if = "Loose::is_empty")]
    pub loose: Loose,
    /// It is no tree: its directory holds a disk ([`DISK`]), of which this part is the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Volume>,
}

/// In the directory of a layer that is a disk: the image of the disk, as it came.
pub const DISK: &str = "disk.raw";
/// There too: a tree that lies over the disk's root. It holds the files of its FAT partitions, and what would keep a guest from booting.
pub const OVER: &str = "over";

/// The right to make one thing that is not there yet.
#[derive(Debug)]
pub struct Claim {
    store: Store,
    lock_path: PathBuf,
    temporary: PathBuf,
    // Last: the temporary directory is removed while the lock is still held.
    _lock: Lock,
}

pub(super) fn claims(store: &Store) -> PathBuf {
    store.run().join("claims")
}

pub(super) fn record(store: &Store, key: &str) -> PathBuf {
    store.layers().join(format!("{key}.json"))
}

/// A key is a file name of our own: letters, digits, `-` and `_`. Errors: anything else (from a damaged record).
pub(super) fn check_key(key: &str) -> Result<()> {
    if !key.is_empty() && key.len() <= 200 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
        return Ok(());
    }
    Err(Error::Damaged { path: PathBuf::from("layers"), why: format!("'{}' is no layer", key.escape_debug()) })
}

/// The record of a layer that is whole; `None` when there is none, or it did not outlive a power cut.
pub fn meta(store: &Store, key: &str) -> Result<Option<Meta>> {
    check_key(key)?;
    let Some(meta) = recorded(store, key)? else { return Ok(None) };
    if meta.boot.is_none() || meta.boot == boot_id() { Ok(Some(meta)) } else { young::adopt(store, key) }
}

/// What a layer's record says, whatever boot it is of; `None` without a tree.
pub(super) fn recorded(store: &Store, key: &str) -> Result<Option<Meta>> {
    let path = record(store, key);
    let text = match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io(&path))?,
    };
    Ok(serde_json::from_slice(&text).ok().filter(|_| store.layer(key).is_dir()))
}

/// Whether a layer is there, whole.
pub fn exists(store: &Store, key: &str) -> Result<bool> {
    Ok(meta(store, key)?.is_some())
}

/// Whether all of these layers are there, whole.
pub fn all_exist<'k>(store: &Store, keys: impl IntoIterator<Item = &'k String>) -> Result<bool> {
    for key in keys {
        if !exists(store, key)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What asking for the right to make something came to.
#[derive(Debug)]
pub enum Claimed<T> {
    /// It is there.
    There(T),
    /// It is to be made, by whoever holds this.
    Mine(Claim),
}

/// Asks for the right to make `name`, which `there` looks for; waits while another process makes it, after telling `waiting`.
/// A process must hold at most one layer's claim when it waits for another (or two that need the same layers in another order
/// would wait for each other). Errors: [`Error::Interrupted`] when a signal ends the wait; the other's work is not touched.
pub fn claim<T>(
    store: &Store,
    name: &str,
    mut there: impl FnMut() -> Result<Option<T>>,
    waiting: impl FnOnce(),
) -> Result<Claimed<T>> {
    check_key(name)?;
    if let Some(found) = there()? {
        return Ok(Claimed::There(found));
    }
    let dir = claims(store);
    fs::private_dir(&dir).map_err(Error::io(&dir))?;
    let lock_path = dir.join(name);
    let lock = match Lock::try_take(&lock_path).map_err(Error::io(&lock_path))? {
        Some(lock) => lock,
        None => {
            waiting();
            wait(&lock_path)?
        }
    };
    let temporary = store.layers().join(format!(".tmp-{name}"));
    let claim = Claim { store: store.clone(), lock_path, temporary, _lock: lock };
    // Its last holder may have made it, or may have died in the middle.
    Ok(there()?.map_or(Claimed::Mine(claim), Claimed::There))
}

/// As [`claim`] for something that is to be removed: `None` when a living process works on it.
pub fn try_claim(store: &Store, name: &str) -> Result<Option<Claim>> {
    check_key(name)?;
    let dir = claims(store);
    fs::private_dir(&dir).map_err(Error::io(&dir))?;
    let lock_path = dir.join(name);
    let lock = Lock::try_take(&lock_path).map_err(Error::io(&lock_path))?;
    let temporary = store.layers().join(format!(".tmp-{name}"));
    Ok(lock.map(|lock| Claim { store: store.clone(), lock_path, temporary, _lock: lock }))
}

/// Waits for a lock that its holder may keep for as long as a download takes. A verb that undoes what it began has blocked INT,
/// TERM and HUP and reads them where it can; waiting in fcntl(2) would not be such a place, so the lock is asked for again and
/// again. (Where they are not blocked, they end this process by themselves.)
pub(super) fn wait(path: &Path) -> Result<Lock> {
    const AGAIN: std::time::Duration = std::time::Duration::from_millis(20);
    loop {
        if let Some(lock) = Lock::try_take(path).map_err(Error::io(path))? {
            return Ok(lock);
        }
        if let Some(signal) = signal::pending(&signal::ENDING) {
            return Err(Error::Interrupted(signal));
        }
        std::thread::sleep(AGAIN);
    }
}

impl Claim {
    /// An empty private directory to unpack into; what a dead holder left there is removed.
    pub fn directory(&self) -> Result<PathBuf> {
        let path = &self.temporary;
        fs::remove_tree(path).map_err(Error::io(path))?;
        // The tree's root, until an entry of the archive says otherwise.
        std::fs::create_dir(path).map_err(Error::io(path))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).map_err(Error::io(path))?;
        Ok(path.clone())
    }

    /// Gives what was unpacked its name. It counts now, and in another boot if it is then still what `known` (and what is read of it now)
    /// says; without that, until the next boot, or for good after [`young::settle`]. A layer of that name that is there already stays,
    /// and what was unpacked is dropped: the key says that they are the same.
    pub fn publish(&self, key: &str, mut meta: Meta, known: Option<&Known>) -> Result<()> {
        if exists(&self.store, key)? {
            return Ok(());
        }
        meta.boot = boot_id();
        let path = self.store.layer(key);
        // Left by a power cut, or its record would count.
        fs::remove_tree(&path).map_err(Error::io(&path))?;
        fs::remove_file(&sums_path(&self.store, key)).map_err(Error::io(&path))?;
        std::fs::rename(&self.temporary, &path).map_err(Error::io(&path))?;
        if let Some(known) = known {
            young::keep_sums(&self.store, key, known);
        }
        write_record(&self.store, key, &meta)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_tree(&self.temporary);
        let _ = std::fs::remove_file(&self.lock_path);
    }
}

pub(super) fn write_record(store: &Store, key: &str, meta: &Meta) -> Result<()> {
    let path = record(store, key);
    let text = serde_json::to_vec(meta).map_err(|e| Error::Damaged { path: path.clone(), why: e.to_string() })?;
    fs::write_volatile(&path, &text, 0o600).map_err(Error::io(&path))
}

pub(super) fn sums_path(store: &Store, key: &str) -> PathBuf {
    store.layers().join(format!("{key}.sum"))
}

/// What was written down of a layer ([`super::sums`]), where something was.
pub fn sums_of(store: &Store, key: &str) -> Option<Vec<u8>> {
    check_key(key).ok()?;
    std::fs::read(sums_path(store, key)).ok()
}

/// Removes what dead processes left half-made, and their claims. What a living one works on is claimed, and stays.
pub fn sweep(store: &Store) -> Result<()> {
    crate::sys::unfinished::sweep_all(&store.layers());
    let names = |dir: &Path, prefix: &str| -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::io(dir))?,
        };
        let mut out = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io(dir))?.file_name();
            out.extend(name.to_str().and_then(|n| n.strip_prefix(prefix)).map(str::to_owned));
        }
        Ok(out)
    };
    let dir = claims(store);
    let temporary = names(&store.layers(), ".tmp-")?;
    if !temporary.is_empty() {
        fs::private_dir(&dir).map_err(Error::io(&dir))?;
    }
    for name in temporary.into_iter().chain(names(&dir, "")?).filter(|name| check_key(name).is_ok()) {
        let (lock_path, temporary) = (dir.join(&name), store.layers().join(format!(".tmp-{name}")));
        if let Some(lock) = Lock::try_take(&lock_path).map_err(Error::io(&lock_path))? {
            // Dropping the claim removes both.
            drop(Claim { store: store.clone(), lock_path, temporary, _lock: lock });
        }
    }
    Ok(())
}

/// How long ago a layer's record was written; `None` where there is none.
pub fn age(store: &Store, key: &str) -> Option<std::time::Duration> {
    std::fs::metadata(record(store, key)).ok()?.modified().ok()?.elapsed().ok()
}

/// Whether anybody holds a claim now: something is being fetched or made.
pub fn any_claim(store: &Store) -> Result<bool> {
    let dir = claims(store);
    let entries = match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(Error::io(&dir))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io(&dir))?.path();
        if Lock::is_held(&path).map_err(Error::io(&path))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The keys of all layers that are there, whole or not.
pub fn keys(store: &Store) -> Result<BTreeSet<String>> {
    let layers = store.layers();
    let mut out = BTreeSet::new();
    for entry in std::fs::read_dir(&layers).map_err(Error::io(&layers))? {
        let name = entry.map_err(Error::io(&layers))?.file_name();
        let Some(name) = name.to_str() else { continue };
        let key = name.strip_suffix(".json").unwrap_or(name);
        if check_key(key).is_ok() {
            out.insert(key.to_owned());
        }
    }
    Ok(out)
}

/// Takes a layer away and returns what is left to be removed, which needs no lock. The caller holds the store's lock and knows
/// that nothing uses the layer. The record goes first: a layer without one does not count.
pub fn set_aside(store: &Store, key: &str) -> Result<PathBuf> {
    check_key(key)?;
    for path in [record(store, key), sums_path(store, key)] {
        fs::remove_file(&path).map_err(Error::io(&path))?;
    }
    let tree = store.layer(key);
    // Unless somebody claims that name, a sweep removes it if we do not live to.
    let aside = store.layers().join(format!(".tmp-gone-{}-{key}", std::process::id()));
    match std::fs::rename(&tree, &aside) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&tree)(e)),
        _ => Ok(aside),
    }
}

/// The layers that a domain's record names, with the domain's name. Read as plain JSON: `artifact.layers[].stored`.
pub fn used_by_domains(store: &Store) -> Result<Vec<(String, String)>> {
    let domains = store.domains();
    let mut used = Vec::new();
    let entries = match std::fs::read_dir(&domains) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(used),
        other => other.map_err(Error::io(&domains))?,
    };
    for entry in entries {
        let dir = entry.map_err(Error::io(&domains))?.path();
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        used.extend(layers_named_in(&dir.join("domain.json"))?.into_iter().map(|key| (name.clone(), key)));
    }
    Ok(used)
}

fn layers_named_in(path: &Path) -> Result<Vec<String>> {
    let text = match std::fs::read(path) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(Error::io(path))?,
    };
    let damaged = |why: String| Error::Damaged { path: path.to_owned(), why };
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    let layers = json["artifact"]["layers"].as_array().cloned().unwrap_or_default();
    Ok(layers.iter().filter_map(|layer| layer["stored"].as_str()).map(str::to_owned).collect())
}

/// Names this boot (random(4), `boot_id`); without it nothing young counts, which is safe.
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::testing::store;
    use super::*;

    fn mine(store: &Store, key: &str) -> Claim {
        match claim(store, key, || meta(store, key), || panic!("nobody else has it")).unwrap() {
            Claimed::Mine(claim) => claim,
            Claimed::There(meta) => panic!("{meta:?}"),
        }
    }

    fn plain(size: u64) -> Meta {
        Meta { size, entries: 1, ..Meta::default() }
    }

    #[test]
    fn a_layer_is_made_once_and_settled() {
        let (_dir, store) = store();
        let claim = mine(&store, "k");
        let tree = claim.directory().unwrap();
        std::fs::create_dir(tree.join("etc")).unwrap();
        assert!(!exists(&store, "k").unwrap());
        claim.publish("k", plain(7), None).unwrap();
        drop(claim);
        assert!(store.layer("k").join("etc").is_dir());
        assert_eq!(meta(&store, "k").unwrap().unwrap().boot, boot_id());
        young::settle(&store, &["k".into()]).unwrap();
        assert_eq!(meta(&store, "k").unwrap().unwrap(), plain(7));
        assert!(matches!(super::claim(&store, "k", || meta(&store, "k"), || ()).unwrap(), Claimed::There(_)));
        assert_eq!(std::fs::read_dir(claims(&store)).unwrap().count(), 0, "no lock is left behind");
        assert_eq!(keys(&store).unwrap(), BTreeSet::from(["k".to_owned()]));
        fs::remove_tree(&set_aside(&store, "k").unwrap()).unwrap();
        assert_eq!(std::fs::read_dir(store.layers()).unwrap().count(), 0);
        assert!(keys(&store).unwrap().is_empty());
    }

    #[test]
    fn a_layer_of_another_boot_that_was_not_settled_does_not_count() {
        let (_dir, store) = store();
        std::fs::create_dir(store.layer("k")).unwrap();
        write_record(&store, "k", &Meta { boot: Some("another".into()), ..plain(1) }).unwrap();
        assert!(!exists(&store, "k").unwrap());
        let claim = mine(&store, "k");
        claim.directory().unwrap();
        claim.publish("k", plain(2), None).unwrap();
        assert_eq!(meta(&store, "k").unwrap().unwrap().size, 2);
    }

    #[test]
    fn the_second_waits_and_finds_it() {
        let (_dir, store) = store();
        let first = mine(&store, "k");
        let (told, hear) = std::sync::mpsc::channel();
        let other = store.clone();
        let second = std::thread::spawn(move || {
            let claimed = claim(&other, "k", || meta(&other, "k"), || told.send(()).unwrap()).unwrap();
            matches!(claimed, Claimed::There(_))
        });
        hear.recv().unwrap();
        first.directory().unwrap();
        first.publish("k", plain(1), None).unwrap();
        drop(first);
        assert!(second.join().unwrap(), "it was there when the wait was over");
    }

    #[test]
    fn what_the_dead_left_is_swept_and_the_living_is_not() {
        let (_dir, store) = store();
        std::fs::create_dir_all(store.layers().join(".tmp-dead/usr")).unwrap();
        fs::private_dir(&claims(&store)).unwrap();
        std::fs::File::create(claims(&store).join("image-dead")).unwrap();
        let half = store.layers().join(".k.sum.77.0.tmp");
        fs::write_volatile(&half, b"half a record", 0o600).unwrap();
        let claim = mine(&store, "alive");
        let alive = claim.directory().unwrap();
        sweep(&store).unwrap();
        assert!(alive.is_dir() && !store.layers().join(".tmp-dead").exists() && !half.exists());
        assert_eq!(std::fs::read_dir(claims(&store)).unwrap().count(), 1, "the living one's alone");
        drop(claim);
        assert!(!alive.exists());
    }

    #[test]
    fn domains_keep_their_layers() {
        let (_dir, store) = store();
        std::fs::create_dir(store.domain("d")).unwrap();
        std::fs::create_dir(store.domain("half-made")).unwrap();
        let json = br#"{"artifact":{"layers":[{"stored":"k1"},{"directory":"/x"},{"stored":"k2"}]}}"#;
        fs::write_volatile(&store.domain("d").join("domain.json"), json, 0o600).unwrap();
        assert_eq!(used_by_domains(&store).unwrap(), [("d".into(), "k1".into()), ("d".into(), "k2".into())]);
    }

    #[test]
    fn keys_cannot_climb() {
        let (_dir, store) = store();
        for bad in ["", "..", "a/b", ".tmp-x", "a.json"] {
            assert!(meta(&store, bad).is_err(), "{bad}");
        }
    }
}
