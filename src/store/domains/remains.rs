//! What is left of domains by processes that were killed while they made or removed one. What a newcomer would get wrong: nothing of it is
//! told by its age or its looks alone: the lock says whether its owner lives, and the store's own lock is held where two steps of an
//! owner belong together.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use super::{NEW, REMOVED};
use crate::store::{Error, Result, Store};
use crate::sys::fs;
use crate::sys::lock::Lock;

/// A removal takes no longer than this over a run directory.
const SETTLED: Duration = Duration::from_secs(60);

impl Store {
    /// Removes the directories of domains that killed processes were making or removing. Errors: as readdir(3), unlink(2).
    pub fn remove_unfinished(&self) -> Result<()> {
        for (uuid, dir) in self.unfinished()? {
            // Nobody is between making a directory and taking its lock while this is held, nor between removing the two.
            let held = self.hold()?;
            if !dir.exists() {
                // Somebody else has finished it since we looked, and a lock made now would bring its run back.
                continue;
            }
            let Some(_lock) = self.try_lock_run(&uuid)? else { continue };
            drop(held);
            fs::remove_tree(&dir).map_err(Error::io(&dir))?;
            self.remove_run(&uuid)?;
        }
        Ok(())
    }

    /// Removes the run directories of domains that are gone: what a process leaves that is killed at the very end of a removal.
    /// Nothing is removed while a domain cannot be read, since it may be its, and nothing that changed a moment ago, since its owner
    /// may be at it: no lock is made here, which could come between the owner's last steps. Errors: as readdir(3), unlink(2).
    pub fn remove_ownerless_runs(&self) -> Result<()> {
        // Nobody makes a domain while this is held.
        let held = self.hold()?;
        let mut damaged = false;
        let mut owned: BTreeSet<String> =
            self.all_domains(|_| damaged = true)?.into_iter().map(|domain| domain.record.uuid).collect();
        owned.extend(self.unfinished()?.into_iter().map(|(uuid, _)| uuid));
        let runs = std::fs::read_dir(self.runs()).into_iter().flatten().flatten();
        let names = runs.filter_map(|entry| entry.file_name().into_string().ok());
        for uuid in names.filter(|uuid| !damaged && !owned.contains(uuid)) {
            let (run, lock) = (self.run_dir(&uuid), self.run_dir(&uuid).join("lock"));
            let age = std::fs::metadata(&run).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
            if age.is_some_and(|age| age >= SETTLED) && !Lock::is_held(&lock).unwrap_or(true) {
                fs::remove_tree(&run).map_err(Error::io(&run))?;
            }
        }
        drop(held);
        Ok(())
    }

    /// What has no name, not yet or no more, with its uuid.
    fn unfinished(&self) -> Result<Vec<(String, PathBuf)>> {
        let dir = self.domains();
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::io(&dir))?,
        };
        let uuid = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            let name = name.to_str()?.strip_prefix('.')?;
            let uuid = name.strip_suffix(NEW).or_else(|| name.strip_suffix(REMOVED))?;
            Some((uuid.to_owned(), entry.path()))
        };
        Ok(entries.flatten().filter_map(uuid).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::RECORD;
    use super::super::tests::record;
    use super::*;
    use crate::domain::Name;

    #[test]
    fn what_a_killed_process_was_making_or_removing_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(&dir.path().join("s")));
        store.open().unwrap();
        let (name, record) = (Name::new("web").unwrap(), record());
        let kept = store.reserve(&name, &record).unwrap();
        for half in [".a.new", ".b.removed", ".c.removed"] {
            fs::private_dir(&store.domains().join(half)).unwrap();
        }
        fs::private_dir(&store.run_dir("c")).unwrap();
        let busy = Lock::wait(&store.run_dir("c").join("lock")).unwrap();
        fs::private_dir(&store.run_dir("a")).unwrap();
        store.remove_unfinished().unwrap();
        let left = |dir: &Path| {
            let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(left(&store.domains()), [".c.removed".to_owned(), "web".to_owned()].into());
        assert!(!store.run_dir("a").exists() && store.run_dir(&record.uuid).exists());
        drop(busy);
        store.remove_unfinished().unwrap();
        assert_eq!(left(&store.domains()), ["web".to_owned()].into());
        drop(kept);
    }

    #[test]
    fn a_run_without_a_domain_goes_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(&dir.path().join("s")));
        store.open().unwrap();
        let (kept, gone) = (record(), record());
        let [name, other] = ["kept", "gone"].map(|n| Name::new(n).unwrap());
        drop(store.reserve(&name, &kept).unwrap());
        let lock = store.reserve(&other, &gone).unwrap();
        std::fs::remove_dir_all(store.domain("gone")).unwrap();
        let age = || {
            let hour = std::time::SystemTime::now() - Duration::from_secs(3600);
            let dir = std::fs::File::open(store.run_dir(&gone.uuid)).unwrap();
            dir.set_times(std::fs::FileTimes::new().set_modified(hour)).unwrap();
        };
        age();
        store.remove_ownerless_runs().unwrap();
        assert!(store.run_dir(&gone.uuid).exists(), "whoever holds its lock removes it");
        drop(lock);
        crate::sys::fs::write_volatile(&store.run_dir(&gone.uuid).join("run.json"), b"{}", 0o600).unwrap();
        store.remove_ownerless_runs().unwrap();
        assert!(store.run_dir(&gone.uuid).exists(), "its owner may be at it");
        age();
        crate::sys::fs::write_volatile(&store.domain("kept").join(RECORD), b"damaged", 0o600).unwrap();
        store.remove_ownerless_runs().unwrap();
        assert!(store.run_dir(&gone.uuid).exists(), "it may be the damaged one's");
        store.write_record(&name, &kept).unwrap();
        store.remove_ownerless_runs().unwrap();
        assert!(!store.run_dir(&gone.uuid).exists() && store.run_dir(&kept.uuid).exists());
    }
}
