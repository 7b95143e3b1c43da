//! Domids: small numbers that are never used twice within a boot of the host. What a newcomer would get wrong: the counter is
//! kept with the boot's id and not in /run, which may be a disk that outlives a boot.

use serde::{Deserialize, Serialize};

use super::{Error, Result, Store};
use crate::sys::fs;

/// Xen gives out the ids below (`DOMID_FIRST_RESERVED` is 0x7ff0); on a dom0 ours start above.
const ABOVE_XEN: u32 = 32768;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counter {
    boot: String,
    next: u32,
}

impl Counter {
    /// The next id of this boot.
    fn take(self, boot: &str, first: u32) -> (u32, Counter) {
        let id = if self.boot == boot { self.next.max(first) } else { first };
        (id, Counter { boot: boot.to_owned(), next: id + 1 })
    }
}

impl Store {
    /// A domid that no domain of this boot has had. The store's lock must be held ([`Store::hold`]).
    pub fn next_domid(&self) -> Result<u32> {
        let path = self.domid();
        let counter = match std::fs::read(&path) {
            // A damaged counter is like none: a domid used twice is a nuisance, a store that cannot start anything is worse.
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(_) => Counter::default(),
        };
        let boot = boot_id();
        let first = if std::path::Path::new("/proc/xen/privcmd").exists() { ABOVE_XEN } else { 1 };
        let (id, counter) = counter.take(&boot, first);
        let text = serde_json::to_vec(&counter).unwrap_or_default();
        fs::write_volatile(&path, &text, 0o600).map_err(Error::io(&path))?;
        Ok(id)
    }
}

/// What tells one boot of the host from another (random(4), proc(5)).
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_per_boot() {
        let (one, counter) = Counter::default().take("a", 1);
        let (two, counter) = counter.take("a", 1);
        let (again, counter) = counter.take("b", 1);
        let (xen, _) = counter.take("b", ABOVE_XEN);
        assert_eq!((one, two, again, xen), (1, 2, 1, ABOVE_XEN));
    }

    #[test]
    fn is_kept_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(dir.path()));
        store.open().unwrap_or_else(|_| fs::private_dir(dir.path()).unwrap());
        let first = store.next_domid().unwrap();
        assert_eq!(store.next_domid().unwrap(), first + 1);
    }
}
