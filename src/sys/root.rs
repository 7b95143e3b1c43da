//! A directory tree that is looked at as if it were `/`: every symbolic link, absolute ones too, is resolved *inside* it.
//! What a newcomer would get wrong: joining a path to a rootfs with `Path::join` and opening that follows an absolute
//! link into the host. Everything that reads a guest's files goes through here. Source: openat2(2), RESOLVE_IN_ROOT.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

/// A tree held by a directory descriptor; it stays valid when the path it came from is renamed or unmounted.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    origin: PathBuf,
}

impl Root {
    /// Opens the directory at `path` (a host path). Errors: as open(2), ENOTDIR for anything else than a directory.
    pub fn open(path: &Path) -> io::Result<Root> {
        let fd = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Root { fd, origin: path.to_owned() })
    }

    /// Takes a descriptor of a directory (a detached mount, for example); `origin` names it in messages.
    pub fn from_fd(fd: OwnedFd, origin: &Path) -> Root {
        Root { fd, origin: origin.to_owned() }
    }

    /// The name to show in messages.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The directory's descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Gives the descriptor away.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Opens `path` inside the tree with `flags` (O_CLOEXEC is added). Errors: as openat2(2); ELOOP for magic links.
    pub fn open_at(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        // A concurrent rename makes the kernel give up with EAGAIN: openat2(2) says to try again.
        for _ in 0..16 {
            match openat2(&self.fd, path, how) {
                Err(nix::errno::Errno::EAGAIN) => {}
                other => return Ok(other?),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// What `path` is, symbolic links followed inside the tree.
    pub fn stat(&self, path: &Path) -> io::Result<FileStat> {
        Ok(fstat(self.open_at(path, OFlag::O_PATH)?)?)
    }

    /// Whether `path` leads to something; a dangling link does not.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.stat(path.as_ref()).is_ok()
    }

    /// Whether there is anything under this name, a link to nowhere included.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.exists(&path) || self.read_link(path).is_ok()
    }

    /// Whether `path` leads to a directory.
    pub fn is_dir(&self, path: impl AsRef<Path>) -> bool {
        self.stat(path.as_ref()).is_ok_and(|s| file_type(&s) == SFlag::S_IFDIR)
    }

    /// Opens a regular file to read. Errors: as openat2(2); EINVAL when it is a device, FIFO, socket or directory
    /// (a guest's file must never make us wait or touch hardware).
    pub fn open_file(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let fd = self.open_at(path.as_ref(), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        if file_type(&fstat(&fd)?) != SFlag::S_IFREG {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(File::from(fd))
    }

    /// Reads at most `max` bytes of a regular file.
    pub fn read(&self, path: impl AsRef<Path>, max: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        self.open_file(path)?.take(max).read_to_end(&mut out)?;
        Ok(out)
    }

    /// Reads at most 1 MiB of a regular file as text; bytes that are not UTF-8 become U+FFFD.
    pub fn read_text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(path, 1 << 20)?).into_owned())
    }

    /// What the last component of `path` points to, when it is a symbolic link; its parents are resolved inside.
    pub fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        let fd = self.open_at(path.as_ref(), OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        let target = nix::fcntl::readlinkat(&fd, "")?;
        Ok(PathBuf::from(target))
    }

    /// The names in a directory, `.` and `..` left out, sorted by bytes.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
        self.read_dir_up_to(path, usize::MAX)
    }

    /// As [`Root::read_dir`], for directories that a guest may have filled. Errors: E2BIG when there are more than `max`.
    pub fn read_dir_up_to(&self, path: impl AsRef<Path>, max: usize) -> io::Result<Vec<OsString>> {
        let fd = self.open_at(path.as_ref(), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut dir = nix::dir::Dir::from_fd(fd)?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                if names.len() == max {
                    return Err(io::Error::from_raw_os_error(libc::E2BIG));
                }
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        Ok(names)
    }

    /// A host path that leads to this tree as long as this process holds it: `/proc/self/fd/N`.
    pub fn proc_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

/// The file type bits of a stat result.
pub fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        crate::sys::fs::write_atomic(&dir.path().join("etc/hostname"), b"inside\n", 0o644).unwrap();
        symlink("/etc/hostname", dir.path().join("abs")).unwrap();
        symlink("../../../../etc/hostname", dir.path().join("up")).unwrap();
        symlink("/nowhere", dir.path().join("dangling")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for path in ["abs", "up", "/etc/hostname", "etc/../etc/hostname"] {
            assert_eq!(root.read_text(path).unwrap(), "inside\n", "{path}");
        }
        assert!(!root.exists("dangling"));
        assert_eq!(root.read_link("abs").unwrap(), Path::new("/etc/hostname"));
        assert!(root.open_file("etc").is_err(), "a directory is no file");
        assert_eq!(root.read_dir("/").unwrap(), ["abs", "dangling", "etc", "up"]);
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::S_IRWXU).unwrap();
        assert!(Root::open(dir.path()).unwrap().open_file("fifo").is_err());
    }
}
