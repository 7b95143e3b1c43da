//! One registry: a mounted binfmt_misc. What a newcomer would get wrong: the *order* of the directory is the order of the
//! search. The kernel puts a new entry before all others, in its list as in the directory, and reading the directory gives the
//! newest first; enabling or disabling an entry moves nothing (tried on 6.18 in a private registry; `list_add` in
//! fs/binfmt_misc.c, and new dentries go to the front in fs/dcache.c). So the first match is the winner, and never sort.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Entry, Error, Result};
use crate::arch::Profile;
use crate::sys::{host, lock::Lock};

/// A registry by the directory it is mounted on.
#[derive(Debug, Clone)]
pub struct Registry {
    dir: PathBuf,
}

/// One entry as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The entry.
    pub entry: Entry,
    /// Whether it is enabled.
    pub enabled: bool,
    /// When it was registered (or last written to by a shell's `echo 0 >`, which truncates and so touches it).
    pub since: Option<SystemTime>,
}

impl Registry {
    /// The host's.
    pub fn system() -> Registry {
        Registry::at(Path::new("/proc/sys/fs/binfmt_misc"))
    }

    /// One that is mounted elsewhere.
    pub fn at(dir: &Path) -> Registry {
        Registry { dir: dir.to_owned() }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether binfmt_misc is mounted there.
    pub fn is_mounted(&self) -> bool {
        host::is_binfmt_misc(&self.dir)
    }

    /// Mounts it if it is not; says whether it did. Errors: the kernel has none, or as mount(2).
    pub fn mount(&self) -> Result<bool> {
        if self.is_mounted() {
            return Ok(false);
        }
        if !self.dir.is_dir() {
            // The directory comes with the module. A kernel that has it built in needs none, so a failure means nothing.
            let _ = crate::sys::process::Tool::new("modprobe").arg("binfmt_misc").output();
        }
        let failed = |source| Error::NoRegistry { path: self.dir.clone(), source };
        host::mount_binfmt_misc(&self.dir).map_err(failed)?;
        Ok(true)
    }

    /// Undoes [`Registry::mount`].
    pub fn unmount(&self) -> Result<()> {
        host::unmount(&self.dir).map_err(Error::io(format!("cannot unmount {}", self.dir.display())))
    }

    /// Whether the kernel looks at entries at all (`status`).
    pub fn is_enabled(&self) -> bool {
        std::fs::read_to_string(self.dir.join("status")).is_ok_and(|s| s.trim() == "enabled")
    }

    /// All entries, the one that is asked first first. An entry that vanishes while we read, or that a newer kernel shows in a
    /// form unknown here, is left out.
    pub fn entries(&self) -> Result<Vec<Registered>> {
        let reading = || Error::io(format!("cannot read {}", self.dir.display()));
        let mut all = Vec::new();
        for file in std::fs::read_dir(&self.dir).map_err(reading())? {
            let file = file.map_err(reading())?;
            let name = file.file_name().to_string_lossy().into_owned();
            if name != "register" && name != "status" {
                all.extend(self.read(&name));
            }
        }
        Ok(all)
    }

    /// One entry by its name, if it is there.
    pub fn read(&self, name: &str) -> Option<Registered> {
        let path = self.dir.join(name);
        let bytes = std::fs::read(&path).ok()?;
        let (entry, enabled) = Entry::parse_kernel(name, &String::from_utf8_lossy(&bytes)).ok()?;
        let since = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
        Some(Registered { entry, enabled, since })
    }

    /// The entry that a file beginning with `bytes` is handed to.
    pub fn winner(&self, bytes: &[u8]) -> Result<Option<Registered>> {
        if !self.is_enabled() {
            return Ok(None);
        }
        Ok(self.entries()?.into_iter().find(|r| r.enabled && r.entry.matches(bytes)))
    }

    /// Registers an entry; it wins over all others. Errors: EEXIST for a name in use, ENOENT for a missing interpreter.
    pub fn add(&self, entry: &Entry) -> Result<()> {
        let what = format!("cannot register {} for {}", entry.name, super::entry::shown(&entry.interpreter));
        self.write("register", &entry.line()?).map_err(Error::io(what))
    }

    /// Removes an entry; one that is not there is fine.
    pub fn remove(&self, name: &str) -> Result<()> {
        match self.write(name, b"-1") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io(format!("cannot remove binfmt entry {name}"))),
        }
    }

    /// Puts `entry` in force, over one of its own name too. Call it under [`Registry::lock`].
    pub fn replace(&self, entry: &Entry) -> Result<()> {
        self.bridged(entry, || {
            self.remove(&entry.name)?;
            self.add(entry)
        })
    }

    /// Runs `change`, which exchanges the entry of `entry`'s name, without a moment in which programs find none: a twin under
    /// another name holds the place in between.
    pub(super) fn bridged(&self, entry: &Entry, change: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.dir.join(&entry.name).exists() {
            return change();
        }
        let twin = Entry { name: format!("{}.new", entry.name), ..entry.clone() };
        self.remove(&twin.name)?;
        self.add(&twin)?;
        let changed = change();
        let removed = self.remove(&twin.name);
        changed.and(removed)
    }

    /// Only one process changes our entries at a time, whatever store it works for: the lock is on the registry's own
    /// `register` file, which only root can open.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.dir.join("register");
        Lock::wait(&path).map_err(Error::io(format!("cannot lock {}", path.display())))
    }

    /// One write(2), which is one command to the kernel; never truncating, which would change the entry's time.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(self.dir.join(name))?;
        file.write_all(bytes)
    }
}

/// How the programs of an architecture begin: the first 20 bytes of a fixed-address one.
pub fn ident(profile: &Profile) -> Vec<u8> {
    let half = |n: u16| match profile.elf.data {
        crate::arch::Data::Little => n.to_le_bytes(),
        crate::arch::Data::Big => n.to_be_bytes(),
    };
    let mut bytes = vec![0x7f, b'E', b'L', b'F', profile.elf.ei_class(), profile.elf.ei_data(), 1];
    bytes.extend([0; 9]);
    bytes.extend(half(2));
    bytes.extend(half(profile.elf.machine));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_registry() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path());
        assert!(!registry.is_mounted() && !registry.is_enabled());
        assert!(registry.entries().unwrap().is_empty());
        assert!(registry.winner(b"\x7fELF").unwrap().is_none());
        assert!(registry.read("nothing").is_none());
        registry.remove("nothing").unwrap();
        assert!(Registry::at(&dir.path().join("missing")).entries().is_err());
    }
}
