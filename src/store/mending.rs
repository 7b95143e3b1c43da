//! A damaged layer out of the way, while it is fetched again. What a newcomer would get wrong: whoever fetches may be killed, and the
//! layer may be had nowhere any more; so the old one is kept, with its records, until the new one counts, and the next command puts it
//! back where the fetcher has died. It lies where no sweep looks for what is half-made.
//!
//! ```text
//! layers/.mending-<key>/   tree, json, sum: the layer, its record and its sums, as far as they had been taken away
//! <run>/claims/mending-<key>   held by who fetches it again
//! ```

use std::path::{Path, PathBuf};

use super::layers::{Claim, Claimed, check_key, claim, claims, exists, record, sums_path};
use super::{Error, Result, Store, images};
use crate::sys::fs;
use crate::sys::lock::Lock;

const PREFIX: &str = ".mending-";

/// A layer that was set aside.
#[derive(Debug)]
pub struct Aside {
    store: Store,
    key: String,
    _claim: Claim,
}

fn place(store: &Store, key: &str) -> PathBuf {
    store.layers().join(format!("{PREFIX}{key}"))
}

fn claim_name(key: &str) -> String {
    format!("mending-{key}")
}

/// A layer's parts: where they are, and where they are meanwhile. The record comes last: with it the layer counts.
fn parts(store: &Store, key: &str) -> [(PathBuf, PathBuf); 3] {
    let place = place(store, key);
    [
        (store.layer(key), place.join("tree")),
        (sums_path(store, key), place.join("sum")),
        (record(store, key), place.join("json")),
    ]
}

/// Takes a layer out of the way, so that it can be fetched; waits for another who does it. The caller knows that nothing runs on it, and
/// that the key is one of the store's. Errors: as rename(2); the layer is back then, or will be with the next command.
pub fn set_aside(store: &Store, key: &str) -> Result<Aside> {
    let Claimed::Mine(claim) = claim(store, &claim_name(key), || Ok(None::<()>), || ())? else {
        return Err(Error::Damaged { path: store.layer(key), why: "a claim was given twice".into() });
    };
    let aside = Aside { store: store.clone(), key: key.to_owned(), _claim: claim };
    let place = place(store, key);
    if place.exists() {
        settle(store, key)?;
    }
    let _lock = images::lock(store)?;
    fs::private_dir(&place).map_err(Error::io(&place))?;
    for (from, to) in parts(store, key).iter().rev() {
        shift(from, to)?;
    }
    Ok(aside)
}

impl Aside {
    /// Removes what was set aside if the layer is there again, else puts it back as it was. Errors: as rename(2).
    pub fn finish(self) -> Result<()> {
        settle(&self.store, &self.key)
    }
}

fn settle(store: &Store, key: &str) -> Result<()> {
    let place = place(store, key);
    if !exists(store, key)? {
        for (at, meanwhile) in parts(store, key).iter().filter(|(_, meanwhile)| meanwhile.exists()) {
            // Of who was killed between a new tree and its record.
            fs::remove_tree(at).map_err(Error::io(at))?;
            shift(meanwhile, at)?;
        }
    }
    fs::remove_tree(&place).map_err(Error::io(&place))
}

fn shift(from: &Path, to: &Path) -> Result<()> {
    match std::fs::rename(from, to) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(from)(e)),
        _ => Ok(()),
    }
}

/// Finishes for those who died. What is being fetched or repaired by a living one stays. Errors: as [`Aside::finish`].
pub fn sweep(store: &Store) -> Result<()> {
    let layers = store.layers();
    let entries = match std::fs::read_dir(&layers) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::io(&layers))?,
    };
    for entry in entries {
        let name = entry.map_err(Error::io(&layers))?.file_name();
        let key = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let Some(key) = key.filter(|key| check_key(key).is_ok()) else { continue };
        let dir = claims(store);
        fs::private_dir(&dir).map_err(Error::io(&dir))?;
        let (path, fetching) = (dir.join(claim_name(key)), dir.join(key));
        // Who fetches the layer has been told that it is not there: to put it back now would be in the way.
        if Lock::is_held(&fetching).map_err(Error::io(&fetching))? {
            continue;
        }
        if let Some(lock) = Lock::try_take(&path).map_err(Error::io(&path))? {
            settle(store, key)?;
            fs::remove_file(&path).map_err(Error::io(&path))?;
            drop(lock);
        }
    }
    Ok(())
}

/// As [`layers`](super::layers) has them.
#[cfg(test)]
mod tests {
    use super::super::layers::{self, Meta, meta, write_record};
    use super::super::testing::store;
    use super::*;

    fn layer(store: &Store, text: &str) {
        std::fs::create_dir(store.layer("k")).unwrap();
        fs::write_volatile(&store.layer("k").join("file"), text.as_bytes(), 0o600).unwrap();
        fs::write_volatile(&sums_path(store, "k"), text.as_bytes(), 0o600).unwrap();
        let meta = Meta { size: 3, entries: 1, ..Meta::default() };
        write_record(store, "k", &meta).unwrap();
    }

    fn is(store: &Store, text: &str) {
        assert!(meta(store, "k").unwrap().is_some());
        assert_eq!(std::fs::read_to_string(store.layer("k").join("file")).unwrap(), text);
        assert_eq!(layers::sums_of(store, "k").unwrap(), text.as_bytes());
        assert_eq!(std::fs::read_dir(store.layers()).unwrap().count(), 3, "nothing is left over");
        assert_eq!(std::fs::read_dir(claims(store)).unwrap().count(), 0);
    }

    #[test]
    fn the_old_one_is_kept_until_there_is_a_new_one() {
        let (_dir, store) = store();
        layer(&store, "old");
        let aside = set_aside(&store, "k").unwrap();
        assert!(!exists(&store, "k").unwrap() && !store.layer("k").exists());
        // Neither what sweeps the half-made nor what finishes for the dead takes it from the living.
        layers::sweep(&store).unwrap();
        sweep(&store).unwrap();
        assert!(place(&store, "k").join("tree/file").exists());
        aside.finish().unwrap();
        is(&store, "old");
        let aside = set_aside(&store, "k").unwrap();
        layer(&store, "new");
        aside.finish().unwrap();
        is(&store, "new");
    }

    /// Killed before each of the three renames and after the last, and with a new tree that has no record yet.
    #[test]
    fn the_next_finishes_for_the_dead() {
        for taken in 0..=4 {
            let (_dir, store) = store();
            layer(&store, "old");
            std::fs::create_dir(place(&store, "k")).unwrap();
            parts(&store, "k").iter().rev().take(taken).for_each(|(from, to)| std::fs::rename(from, to).unwrap());
            if taken == 4 {
                layer(&store, "new");
                std::fs::remove_file(record(&store, "k")).unwrap();
            }
            let fetching = Lock::wait(&{
                std::fs::create_dir_all(claims(&store)).unwrap();
                claims(&store).join("k")
            });
            sweep(&store).unwrap();
            assert!(place(&store, "k").exists(), "somebody fetches it");
            drop(fetching);
            layers::sweep(&store).unwrap();
            sweep(&store).unwrap();
            is(&store, "old");
        }
    }
}
