//! What has arrived of a download, in a file of the store's cache: `partial/HEX.part` with `HEX.json`. What a newcomer would get
//! wrong: the spool is a comfort. When it cannot be written (a full disk), the download goes on without it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::{Store, layers};
use crate::sys::{fs, tag};

/// What is known of a file that was begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// What is fetched: an URL, a digest, or both.
    identity: String,
    /// A strong ETag or a date, for If-Range (RFC 9110, 13.1.5).
    validator: Option<String>,
    /// The boot in which it was written: after a power cut a file may be long and empty.
    boot: Option<String>,
}

/// After so long nobody comes back for what was given up.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// Removes what has not been written to for long. What somebody is writing is young.
fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|when| when.elapsed().ok());
        if age.is_some_and(|age| age > OLD) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The file. Whoever opens it holds the claim for what is fetched, so nobody else writes to it.
#[derive(Debug)]
pub struct Spool {
    data: PathBuf,
    state_path: PathBuf,
    state: State,
    /// Missing when it could not be written.
    file: Option<File>,
    have: u64,
    /// Its content is checked against a digest when all of it has come.
    addressed: bool,
}

impl Spool {
    /// Opens what `key` left behind, if it was of `identity` and can be gone on with, else an empty one. One key has one spool,
    /// so what is fetched under it next takes the place of what was given up. `addressed`: the whole is checked against a digest
    /// that `identity` names, so it may be gone on with although no validator was given, and after a power cut.
    pub fn open(store: &Store, key: &str, identity: &str, addressed: bool) -> Spool {
        let (dir, name) = (store.partial(), tag::of(key.as_bytes(), 64));
        let data = dir.join(format!("{name}.part"));
        let state_path = dir.join(format!("{name}.json"));
        let text = std::fs::read(&state_path).unwrap_or_default();
        let state: State = serde_json::from_slice(&text).unwrap_or_default();
        let sound = addressed || (state.validator.is_some() && state.boot.is_some() && state.boot == layers::boot_id());
        let mut spool = Spool { data, state_path, state, file: None, have: 0, addressed };
        sweep(&dir);
        let open = || {
            fs::private_dir(&dir)?;
            File::options().read(true).append(true).create(true).mode(0o600).open(&spool.data)
        };
        match open() {
            Ok(file) => {
                spool.have = file.metadata().map_or(0, |meta| meta.len());
                spool.file = Some(file);
            }
            Err(error) => tracing::info!("a download cannot be kept in {}: {error}", spool.data.display()),
        }
        if spool.state.identity != identity || !sound {
            spool.state = State { identity: identity.to_owned(), ..State::default() };
            spool.have = 0;
        }
        spool
    }

    /// None, for what is not worth keeping.
    pub fn absent() -> Spool {
        let (data, state_path) = (PathBuf::new(), PathBuf::new());
        Spool { data, state_path, state: State::default(), file: None, have: 0, addressed: false }
    }

    /// None at all: for a disk that has no room for it. What a key left behind goes.
    pub fn none(store: &Store, key: &str) -> Spool {
        let mut spool = Spool::open(store, key, "", false);
        spool.file = None;
        spool.unlink();
        spool.have = 0;
        spool
    }

    /// Bytes that are there from an earlier time.
    pub fn have(&self) -> u64 {
        self.have
    }

    /// What the content was called then.
    pub fn validator(&self) -> Option<&str> {
        self.state.validator.as_deref()
    }

    /// Whether a later try could go on from it.
    pub fn can_go_on(&self) -> bool {
        self.file.is_some() && (self.addressed || self.state.validator.is_some())
    }

    /// Empties it: the first byte comes.
    pub fn restart(&mut self, validator: Option<String>) {
        self.state.validator = validator;
        self.state.boot = layers::boot_id();
        self.have = 0;
        let Some(file) = &self.file else { return };
        let empty = || {
            file.set_len(0)?;
            fs::write_volatile(&self.state_path, &serde_json::to_vec(&self.state)?, 0o600)
        };
        if let Err(error) = empty() {
            self.give_up(&error);
        }
    }

    /// More bytes.
    pub fn append(&mut self, bytes: &[u8]) {
        let Some(mut file) = self.file.as_ref() else { return };
        match file.write_all(bytes) {
            Ok(()) => self.have += bytes.len() as u64,
            Err(error) => self.give_up(&error),
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::info!("a download is no longer kept in {}: {error}", self.data.display());
        self.file = None;
        self.unlink();
    }

    /// Whether these bytes stand at `at`. Without a file that cannot be known, and is denied.
    pub fn holds(&self, at: u64, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let mut there = vec![0; bytes.len()];
        self.file.as_ref().is_some_and(|file| file.read_exact_at(&mut there, at).is_ok()) && there == bytes
    }

    /// Reads from byte `at` on, as pread(2). Errors: there is nothing, though there was.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let file = self.file.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        match file.read_at(buffer, at) {
            Ok(0) if !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            other => other,
        }
    }

    /// Removes it: the download is done, or cannot be gone on with.
    pub fn remove(self) {
        self.unlink();
    }

    fn unlink(&self) {
        let _ = std::fs::remove_file(&self.data);
        let _ = std::fs::remove_file(&self.state_path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(&dir.path().join("s")));
        store.open().unwrap();
        (dir, store)
    }

    fn fill(store: &Store, validator: Option<&str>) {
        let mut spool = Spool::open(store, "k", "url", true);
        spool.restart(validator.map(str::to_owned));
        spool.append(b"12345");
        spool.append(b"678");
    }

    #[test]
    fn what_may_be_gone_on_with() {
        let (_dir, store) = store();
        fill(&store, Some("\"1\""));
        let have = |identity: &str, addressed: bool| Spool::open(&store, "k", identity, addressed).have();
        assert_eq!((have("url", false), have("url", true), have("other", true)), (8, 8, 0));
        assert_eq!(Spool::open(&store, "another", "url", true).have(), 0);
        fill(&store, None);
        assert_eq!((have("url", false), have("url", true)), (0, 8), "nothing vouches for it");
        let spool = Spool::open(&store, "k", "url", true);
        assert!(
            spool.holds(2, b"345678") && !spool.holds(2, b"3456789") && !spool.holds(0, b"2") && spool.holds(9, b"")
        );
        spool.remove();
        Spool::open(&store, "another", "url", true).remove();
        assert_eq!(std::fs::read_dir(store.partial()).unwrap().count(), 0);
    }

    /// After a power cut a file may be as long as it should, and empty.
    #[test]
    fn another_boot_needs_a_digest() {
        let (_dir, store) = store();
        fill(&store, Some("\"1\""));
        let path = store.partial().join(format!("{}.json", tag::of(b"k", 64)));
        let mut state: State = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        state.boot = Some("another".into());
        fs::write_volatile(&path, &serde_json::to_vec(&state).unwrap(), 0o600).unwrap();
        assert_eq!(Spool::open(&store, "k", "url", false).have(), 0);
        assert_eq!(Spool::open(&store, "k", "url", true).have(), 8);
    }

    #[test]
    fn what_is_old_goes() {
        let (_dir, store) = store();
        fill(&store, None);
        let path = store.partial().join("left.part");
        let file = File::create(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * OLD).unwrap();
        assert_eq!(Spool::open(&store, "k", "url", true).have(), 8);
        assert!(!path.exists());
    }
}
