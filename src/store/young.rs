//! Layers of which nobody knows yet whether they are on the disk. What a newcomer would get wrong: a power cut is no worse than a full check
//! later. So a pull does not wait for the disk (that was a fifth of its time): a new layer counts in the boot that made it, and in another
//! boot once its tree has been compared with what was written down of it (`<key>.sum`), which is done once. One that is not what it
//! was is fetched again. Where nothing was written down (trees that programs made), [`settle`] waits for the disk at once.

use super::layers::{Meta, boot_id, claims, meta, record, recorded, sums_path, wait, write_record};
use super::sums::{self, Known};
use super::{Error, Result, Store};
use crate::sys::fs;

/// Decides over a layer that was made in another boot: from now on it counts like any other, or it is not there. Errors: as claims.
pub(super) fn adopt(store: &Store, key: &str) -> Result<Option<Meta>> {
    let dir = claims(store);
    fs::private_dir(&dir).map_err(Error::io(&dir))?;
    // One compares, the others wait for its word: to refuse a layer twice would refuse the one that takes its place.
    let path = dir.join(format!("adopt-{key}"));
    let lock = wait(&path)?;
    let meta = match recorded(store, key)? {
        Some(meta) if meta.boot.is_none() || meta.boot == boot_id() => Some(meta),
        Some(meta) if is_whole(store, key) => {
            let meta = Meta { boot: None, ..meta };
            sync(store)?;
            write_record(store, key, &meta)?;
            Some(meta)
        }
        // Its tree stays until another is put in its place.
        Some(_) => {
            let record = record(store, key);
            fs::remove_file(&record).map_err(Error::io(&record))?;
            None
        }
        None => None,
    };
    fs::remove_file(&path).map_err(Error::io(&path))?;
    drop(lock);
    Ok(meta)
}

/// Whether a tree is what was written down of it.
fn is_whole(store: &Store, key: &str) -> bool {
    let Ok(was) = std::fs::read(sums_path(store, key)) else { return false };
    let compared = sums::compare(&store.layer(key), &was);
    match &compared {
        Ok(Some(damage)) if damage.is_empty() => return true,
        Ok(Some(damage)) => tracing::warn!(layer = key, "not whole since the last boot: {}, …", damage[0]),
        Ok(None) => tracing::warn!(layer = key, "what it should hold did not outlive the last boot"),
        Err(error) => tracing::warn!(layer = key, "it cannot be read: {error}"),
    }
    false
}

/// Has everything written to the disk, then lets these layers count for good. One sync serves them all. Errors: as syncfs(2).
pub fn settle(store: &Store, keys: &[String]) -> Result<()> {
    let mut young = Vec::new();
    for key in keys {
        if let Some(meta) = meta(store, key)?.filter(|meta| meta.boot.is_some()) {
            young.push((key, meta));
        }
    }
    if young.is_empty() {
        return Ok(());
    }
    // What `verify` compares with is written down while the disk is waited for.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (key, _) in young.iter().filter(|(key, _)| !sums_path(store, key).exists()) {
                keep_sums(store, key, &Known::default());
            }
        });
        sync(store)
    })?;
    young.into_iter().try_for_each(|(key, meta)| write_record(store, key, &Meta { boot: None, ..meta }))
}

fn sync(store: &Store) -> Result<()> {
    let layers = store.layers();
    let dir = std::fs::File::open(&layers).map_err(Error::io(&layers))?;
    crate::sys::unpack::sync_file_system(&dir).map_err(Error::io(&layers))
}

/// Writes down what a layer holds. Without it the layer is as good in this boot, and `verify` says that it cannot tell.
pub(super) fn keep_sums(store: &Store, key: &str, known: &Known) {
    let path = sums_path(store, key);
    // Every test of an image is one of what is noted while it is unpacked.
    #[cfg(debug_assertions)]
    if let (Ok(noted), Ok(read)) =
        (sums::record(&store.layer(key), known), sums::record(&store.layer(key), &Known::default()))
    {
        let (noted, read) = (String::from_utf8_lossy(&noted), String::from_utf8_lossy(&read));
        let wrong = noted.lines().zip(read.lines()).find(|(noted, read)| noted != read);
        assert!(noted == read, "layer {key}: noted and read: {wrong:?}");
    }
    let made = sums::record(&store.layer(key), known).and_then(|text| fs::write_volatile(&path, &text, 0o600));
    if let Err(error) = made {
        tracing::info!(layer = key, "what it holds cannot be written down: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::layers::{Claimed, claim, exists, keys};
    use super::super::testing::store;
    use super::*;

    fn plain() -> Meta {
        Meta { size: 4, entries: 2, ..Meta::default() }
    }

    /// A layer with one file, made in this boot.
    fn made(store: &Store, key: &str, known: Option<&Known>) {
        let Claimed::Mine(claim) = claim(store, key, || meta(store, key), || ()).unwrap() else {
            panic!("{key} is there")
        };
        let tree = claim.directory().unwrap();
        fs::write_volatile(&tree.join("file"), b"data", 0o600).unwrap();
        claim.publish(key, plain(), known).unwrap();
    }

    /// As after a reboot.
    fn another_boot(store: &Store, key: &str) {
        let meta = Meta { boot: Some("another".into()), ..recorded(store, key).unwrap().unwrap() };
        write_record(store, key, &meta).unwrap();
    }

    #[test]
    fn another_boot_takes_what_is_whole() {
        let (_dir, store) = store();
        made(&store, "k", Some(&Known::default()));
        assert_eq!(meta(&store, "k").unwrap().unwrap().boot, boot_id());
        another_boot(&store, "k");
        assert_eq!(meta(&store, "k").unwrap(), Some(plain()), "it counts for good");
        assert_eq!(std::fs::read_dir(claims(&store)).unwrap().count(), 0, "no lock is left behind");
        assert!(sums_path(&store, "k").exists());
    }

    /// Leaves so many zeros of a file, and its time.
    fn cut(path: &std::path::Path, zeros: u64) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let then = file.metadata().unwrap().modified().unwrap();
        file.set_len(0).unwrap();
        file.set_len(zeros).unwrap();
        file.set_modified(then).unwrap();
    }

    #[test]
    fn another_boot_refuses_what_a_power_cut_left() {
        let (_dir, store) = store();
        for key in ["empty", "zeros", "missing", "sums-empty", "sums-missing"] {
            made(&store, key, Some(&Known::default()));
            another_boot(&store, key);
            let (file, sums) = (store.layer(key).join("file"), sums_path(&store, key));
            match key {
                "empty" => cut(&file, 0),
                "zeros" => cut(&file, 4),
                "missing" => std::fs::remove_file(file).unwrap(),
                "sums-empty" => cut(&sums, 0),
                _ => std::fs::remove_file(sums).unwrap(),
            }
            assert!(!exists(&store, key).unwrap(), "{key}");
            assert!(!exists(&store, key).unwrap(), "{key}: still");
            // It is made again, in the place of what is left.
            made(&store, key, Some(&Known::default()));
            another_boot(&store, key);
            assert!(exists(&store, key).unwrap(), "{key}");
        }
        assert_eq!(keys(&store).unwrap().len(), 5);
    }

    #[test]
    fn many_ask_at_once_and_hear_the_same() {
        let (_dir, store) = store();
        made(&store, "k", Some(&Known::default()));
        another_boot(&store, "k");
        let found: Vec<_> = std::thread::scope(|scope| {
            let ask = || exists(&store, "k").unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(found, [true; 8]);
    }

    #[test]
    fn nothing_written_down_lasts_only_when_settled() {
        let (_dir, store) = store();
        for key in ["waited", "not"] {
            made(&store, key, None);
        }
        settle(&store, &["waited".into()]).unwrap();
        assert_eq!(meta(&store, "waited").unwrap(), Some(plain()));
        assert!(sums_path(&store, "waited").exists());
        another_boot(&store, "not");
        assert!(!exists(&store, "not").unwrap());
    }
}
