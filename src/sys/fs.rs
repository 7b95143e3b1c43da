//! Files on the host: whole or not at all, private, and removed for good. What a newcomer would get wrong: `std::fs::write`
//! lets a reader see half a file and loses it in a power cut, so it is denied by a lint; write through here.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::unfinished::Unfinished;

/// Writes `data` beside `path`, syncs it and renames it into place, so that a reader sees the old file or the new one.
/// Errors: as open(2), write(2), fsync(2), rename(2); nothing is left beside it then. Who is killed meanwhile may leave
/// a hidden one, for [`unfinished::sweep_all`](super::unfinished::sweep_all).
pub fn write_atomic(path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    replace(path, data, mode, true)
}

/// As [`write_atomic`] but without the sync: for files that need not outlive a power cut (everything under /run).
pub fn write_volatile(path: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    replace(path, data, mode, false)
}

fn replace(path: &Path, data: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    let (unfinished, mut file) = Unfinished::file(path, mode)?;
    file.write_all(data)?;
    if sync {
        file.sync_all()?;
    }
    unfinished.publish(&file, path, true)?;
    match path.parent() {
        Some(parent) if sync => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// A name beside `path` that no other process uses: `.NAME.PID.COUNT.tmp`.
pub fn beside(path: &Path) -> io::Result<PathBuf> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(hidden))
}

/// Makes `path` and what is missing above it, all `0700`. Errors: as mkdir(2); an existing directory is fine.
pub fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes an empty directory of ours `0700`: one that somebody has just made for us holds nothing that others could have
/// seen. Anything else is left as it is.
pub fn close_if_empty(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o077 != 0 => {
            if std::fs::read_dir(path)?.next().is_none() {
                std::fs::set_permissions(path, PermissionsExt::from_mode(0o700))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether `path` is a directory of root's that nobody else can enter: what the store's directories must be.
pub fn is_private(path: &Path) -> io::Result<bool> {
    let meta = std::fs::symlink_metadata(path)?;
    Ok(meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o077 == 0)
}

/// Sets when a directory was last changed, in seconds and nanoseconds since 1970. Errors: as open(2), utimensat(2).
pub fn set_changed(dir: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    use nix::sys::{stat::futimens, time::TimeSpec};
    let opened = File::open(dir)?;
    let when = TimeSpec::new(seconds, nanoseconds);
    Ok(futimens(&opened, &when, &when)?)
}

/// The names in an open directory (also one that is open as a path alone), sorted by their bytes. Errors: as openat(2), getdents(2).
pub fn sorted_names(dir: impl AsFd) -> io::Result<Vec<OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = nix::dir::Dir::from_fd(openat(dir, ".", flags, Mode::empty())?)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a file; one that is not there is fine. Errors: as unlink(2).
pub fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Removes a tree, however deep; one that is not there is fine. Errors: as [`super::remove::remove_at`].
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let removed = File::open(above)
        .and_then(|above| super::remove::remove_at(std::os::fd::AsFd::as_fd(&above), name.as_encoded_bytes()));
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Room left for root on the file system of `path`, in bytes. Source: statvfs(3), `f_bfree`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok(stat.blocks_free() as u64 * stat.fragment_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_write_replaces_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomic(&dir.path().join("missing/f"), b"x", 0o600).is_err());
    }

    #[test]
    fn remove_tree_forgives_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        remove_tree(&dir.path().join("nothing")).unwrap();
        private_dir(&dir.path().join("a/b/c")).unwrap();
        std::fs::set_permissions(dir.path().join("a"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        close_if_empty(&dir.path().join("a")).unwrap();
        assert!(!is_private(&dir.path().join("a")).unwrap(), "it holds something");
        std::fs::set_permissions(dir.path().join("a/b/c"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        close_if_empty(&dir.path().join("a/b/c")).unwrap();
        assert!(is_private(&dir.path().join("a/b/c")).unwrap());
        remove_tree(&dir.path().join("a")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
