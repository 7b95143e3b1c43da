//! Where everything is: no other file of the project spells a path of the store. What a newcomer would get wrong: [`Store`] is
//! only a set of paths; nothing is made on disk before [`Store::open`].

use std::path::{Path, PathBuf};

use super::{Error, Result};
use crate::sys::{fs, tag};

/// The version of the layout on disk that this program writes.
pub const VERSION: u32 = 1;

/// The places of one store.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    run: PathBuf,
    cache: PathBuf,
    settings: PathBuf,
}

impl Store {
    /// The store at `root` with everything below it, or the machine's own. No file is touched.
    pub fn at(root: Option<&Path>) -> Store {
        match root {
            Some(root) => Store {
                root: root.to_owned(),
                run: root.join("run"),
                cache: root.join("cache"),
                settings: root.to_owned(),
            },
            None => Store {
                root: PathBuf::from("/var/lib/pronto"),
                run: PathBuf::from("/run/pronto"),
                cache: PathBuf::from("/var/cache/pronto"),
                settings: PathBuf::from("/etc/pronto"),
            },
        }
    }

    /// Makes what is missing and checks what is there. Errors: not private, newer, or as mkdir(2).
    pub fn open(&self) -> Result<()> {
        let dirs = [
            &self.root,
            &self.run,
            &self.cache,
            &self.blobs(),
            &self.layers(),
            &self.images(),
            &self.domains(),
            &self.runs(),
        ];
        fs::close_if_empty(&self.root).map_err(Error::io(&self.root))?;
        for dir in dirs {
            fs::private_dir(dir).map_err(Error::io(dir))?;
            if !fs::is_private(dir).map_err(Error::io(dir))? {
                return Err(Error::NotPrivate(dir.clone()));
            }
        }
        self.check_version()
    }

    fn check_version(&self) -> Result<()> {
        let path = self.root.join("version");
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return fs::write_atomic(&path, format!("{VERSION}\n").as_bytes(), 0o600).map_err(Error::io(&path));
            }
            other => other.map_err(Error::io(&path))?,
        };
        match text.trim().parse() {
            Ok(VERSION) => Ok(()),
            Ok(found) => Err(Error::Newer { path: self.root.clone(), found, known: VERSION }),
            Err(_) => Err(Error::Damaged { path, why: format!("'{}' is no version", text.trim().escape_default()) }),
        }
    }

    /// The root of what persists.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// What tells the machines of two stores apart: eight hex digits of the store's path.
    pub fn tag(&self) -> String {
        use std::os::unix::ffi::OsStrExt;
        tag::of(self.root.as_os_str().as_bytes(), 8)
    }
    /// The root of what a reboot clears.
    pub fn run(&self) -> &Path {
        &self.run
    }
    /// The root of what may be deleted at any time.
    pub fn cache(&self) -> &Path {
        &self.cache
    }
    /// What holds where nobody says otherwise.
    pub fn defaults(&self) -> PathBuf {
        self.settings.join("pronto.toml")
    }
    /// Which servers names of images lead to; written by people.
    pub fn sources(&self) -> PathBuf {
        self.settings.join("sources.toml")
    }
    /// Blobs by digest.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }
    /// Unpacked layers.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }
    /// One unpacked layer.
    pub fn layer(&self, key: &str) -> PathBuf {
        self.layers().join(key)
    }
    /// Image references.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    /// Domains' own directories.
    pub fn domains(&self) -> PathBuf {
        self.root.join("domains")
    }
    /// One domain's directory.
    pub fn domain(&self, name: &str) -> PathBuf {
        self.domains().join(name)
    }
    /// The domid counter.
    pub fn domid(&self) -> PathBuf {
        self.root.join("domid")
    }
    /// The store's lock: held for milliseconds.
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }
    /// Domains that run or are being made: `<run>/domains/<uuid>/`.
    pub fn runs(&self) -> PathBuf {
        self.run.join("domains")
    }
    /// What belongs to one run of a domain: its lock, sockets and run record.
    pub fn run_dir(&self, uuid: &str) -> PathBuf {
        self.runs().join(uuid)
    }
    /// What was found in images whose layers are stored.
    pub fn facts(&self) -> PathBuf {
        self.cache.join("facts")
    }
    /// Downloads in progress.
    pub fn partial(&self) -> PathBuf {
        self.cache.join("partial")
    }
    /// Copies of servers' indexes of images.
    pub fn indexes(&self) -> PathBuf {
        self.cache.join("indexes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn stores_have_tags_of_their_own() {
        let tag = |path: &str| Store::at(Some(Path::new(path))).tag();
        assert_eq!(tag("/a").len(), 8);
        assert_ne!(tag("/a"), tag("/b"));
    }

    #[test]
    fn a_store_is_private_and_knows_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(&dir.path().join("s")));
        store.open().unwrap();
        store.open().unwrap();
        std::fs::set_permissions(store.layers(), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(matches!(store.open(), Err(Error::NotPrivate(_))));
        std::fs::set_permissions(store.layers(), PermissionsExt::from_mode(0o700)).unwrap();
        fs::write_atomic(&store.root().join("version"), b"99\n", 0o600).unwrap();
        assert!(matches!(store.open(), Err(Error::Newer { found: 99, .. })));
        fs::write_atomic(&store.root().join("version"), b"x\n", 0o600).unwrap();
        assert!(matches!(store.open(), Err(Error::Damaged { .. })));
    }
}
