//! What gets its name when it is whole: a file that has none until then, so that nothing is left of it however its writer ends; and what
//! must have one (a directory, or a file where the file system has no files without a name), hidden beside its place. What a newcomer
//! would get wrong: a process id does not tell whether the writer of a hidden one lives, for it may be of another container
//! or another host; a lock on it does, for the kernel drops that with its holder. It is flock(2)'s, the one that a directory can
//! have too. Source: open(2), "O_TMPFILE"; linkat(2); flock(2).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::unistd::linkat;

use super::fs;

/// Something that is being made; dropped before it is published, it is removed.
#[derive(Debug)]
pub struct Unfinished {
    /// Where it is until then; a file without a name has none.
    half: Option<PathBuf>,
    /// Says that we live. Where the file system has no locks, nobody sweeps.
    _lock: Option<Flock<File>>,
}

impl Unfinished {
    /// A new, empty file for reading and writing in the directory that `path` is in. Errors: as open(2).
    pub fn file(path: &Path, mode: u32) -> io::Result<(Unfinished, File)> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(mode);
        if let Ok(file) = options.clone().custom_flags(libc::O_TMPFILE).open(dir) {
            // Only through proc does it get its name.
            if Path::new(&through(&file)).exists() {
                // Between its two names, when it replaces something, it is as any other hidden one.
                let lock = lock(&file);
                return Ok((Unfinished { half: None, _lock: lock }, file));
            }
        }
        Unfinished::hidden(path, |half| options.clone().create_new(true).open(half))
    }

    /// A new, empty directory beside `path`. Errors: as mkdir(2).
    pub fn directory(path: &Path, mode: u32) -> io::Result<(Unfinished, PathBuf)> {
        let made = Unfinished::hidden(path, |half| {
            DirBuilder::new().mode(mode).create(half)?;
            File::open(half)
        });
        let (unfinished, _) = made?;
        let half = unfinished.half.clone().unwrap_or_default();
        Ok((unfinished, half))
    }

    /// Makes something with a hidden name and locks it. Who sweeps may come between the two: then it is made again.
    fn hidden(path: &Path, make: impl Fn(&Path) -> io::Result<File>) -> io::Result<(Unfinished, File)> {
        loop {
            let half = fs::beside(path)?;
            let file = match make(&half) {
                // An older process of this id left it.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            };
            let lock = lock(&file);
            if std::fs::symlink_metadata(&half).is_ok() {
                return Ok((Unfinished { half: Some(half), _lock: lock }, file));
            }
        }
    }

    /// Gives a file its name, in the directory that it was made in. Errors: EEXIST when something has that name, unless `replace`; as
    /// linkat(2), rename(2).
    pub fn publish(mut self, file: &File, path: &Path, replace: bool) -> io::Result<()> {
        if self.half.is_none() && self.link(file, path, replace)? {
            return Ok(());
        }
        self.rename(path, replace)
    }

    /// Names a file that has no name; false when the name is a hidden one. Errors: as [`Unfinished::publish`].
    fn link(&mut self, file: &File, path: &Path, replace: bool) -> io::Result<bool> {
        let link = |to: &Path| linkat(AT_FDCWD, through(file).as_str(), AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW);
        match link(path) {
            Ok(()) => return Ok(true),
            Err(nix::Error::EEXIST) if !replace => return Err(nix::Error::EEXIST.into()),
            // A link replaces nothing, a rename does.
            Err(nix::Error::EEXIST) => {
                let half = fs::beside(path)?;
                if link(&half).is_ok() {
                    self.half = Some(half);
                    return Ok(false);
                }
            }
            Err(_) => {}
        }
        self.copy(file, path)?;
        Ok(false)
    }

    /// Where a file system makes files without a name and then gives them none.
    fn copy(&mut self, file: &File, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(file.metadata()?.mode() & 0o7777);
        let (hidden, mut to) = Unfinished::hidden(path, |half| options.open(half))?;
        *self = hidden;
        let mut from = file;
        from.seek(SeekFrom::Start(0))?;
        io::copy(&mut from, &mut to)?;
        to.sync_all()
    }

    /// Gives what is hidden its name. Errors: as [`Unfinished::publish`].
    pub fn rename(&mut self, path: &Path, replace: bool) -> io::Result<()> {
        let Some(half) = &self.half else { return Err(io::ErrorKind::NotFound.into()) };
        if !replace && std::fs::symlink_metadata(path).is_ok() {
            return Err(nix::Error::EEXIST.into());
        }
        std::fs::rename(half, path)?;
        self.half = None;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(half) = &self.half {
            let _ = fs::remove_tree(half);
        }
    }
}

fn through(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn lock(file: &File) -> Option<Flock<File>> {
    Flock::lock(file.try_clone().ok()?, FlockArg::LockExclusiveNonblock).ok()
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |a: std::fs::Metadata, b: std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().is_ok_and(|a| std::fs::symlink_metadata(path).is_ok_and(|b| same(a, b)))
}

/// Removes what dead processes left hidden beside `path`. What is not ours, or whose lock is held or cannot be had, stays. Never fails:
/// what it cannot see or remove is no hindrance to who comes next.
pub fn sweep(path: &Path) {
    let (Some(name), Some(dir)) = (path.file_name(), path.parent()) else { return };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    remove_hidden(dir, |of| of == name.as_bytes());
}

/// As [`sweep`], for everything in a directory that is ours alone.
pub fn sweep_all(dir: &Path) {
    remove_hidden(dir, |_| true);
}

fn remove_hidden(dir: &Path, wanted: impl Fn(&[u8]) -> bool) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if hidden_of(entry.file_name().as_bytes()).is_some_and(&wanted) {
            remove_if_left(&entry.path());
        }
    }
}

/// The name that `.NAME.PID.COUNT.tmp`, as [`fs::beside`] makes it, stands beside.
fn hidden_of(hidden: &[u8]) -> Option<&[u8]> {
    let rest = hidden.strip_prefix(b".")?.strip_suffix(b".tmp")?;
    let mut parts = rest.rsplitn(3, |b| *b == b'.');
    let numbers = [parts.next()?, parts.next()?];
    let number = |word: &[u8]| !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    parts.next().filter(|name| !name.is_empty() && numbers.into_iter().all(number))
}

fn remove_if_left(path: &Path) {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return };
    if !(meta.is_file() || meta.is_dir()) || meta.uid() != nix::unistd::geteuid().as_raw() {
        return;
    }
    let mut options = OpenOptions::new();
    // Over NFS an exclusive lock needs a file that is open for writing.
    options.read(true).write(meta.is_file()).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let Ok(file) = options.open(path) else { return };
    if let Ok(held) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        if is_at(&held, path) {
            let _ = fs::remove_tree(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn written(path: &Path, text: &str) -> (Unfinished, File) {
        let (unfinished, mut file) = Unfinished::file(path, 0o640).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        (unfinished, file)
    }

    #[test]
    fn a_file_has_no_name_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let (unfinished, file) = written(&path, "one");
        assert_eq!((names(dir.path()), unfinished.half.as_ref()), (vec![], None), "this file system has O_TMPFILE");
        drop((unfinished, file));
        assert_eq!(names(dir.path()), Vec::<String>::new());
        let (unfinished, file) = written(&path, "two");
        unfinished.publish(&file, &path, false).unwrap();
        let (unfinished, file) = written(&path, "three");
        assert_eq!(unfinished.publish(&file, &path, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path), "two");
        let (unfinished, file) = written(&path, "four");
        unfinished.publish(&file, &path, true).unwrap();
        assert_eq!((read(&path), names(dir.path())), ("four".into(), vec!["a".into()]));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7737, 0o600, "what was asked for, less the umask");
        assert!(Unfinished::file(&dir.path().join("no/a"), 0o600).is_err());
    }

    #[test]
    fn a_hidden_one_does_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let hidden = || {
            let options = |half: &Path| OpenOptions::new().read(true).write(true).create_new(true).open(half);
            Unfinished::hidden(&path, options).unwrap()
        };
        drop(hidden());
        assert_eq!(names(dir.path()), Vec::<String>::new());
        let (unfinished, file) = hidden();
        unfinished.publish(&file, &path, false).unwrap();
        let (unfinished, file) = hidden();
        assert!(unfinished.publish(&file, &path, false).is_err());
        let (unfinished, file) = hidden();
        unfinished.publish(&file, &path, true).unwrap();
        assert_eq!(names(dir.path()), ["a"]);
        let (mut unfinished, half) = Unfinished::directory(&dir.path().join("d"), 0o755).unwrap();
        fs::write_volatile(&half.join("f"), b"x", 0o644).unwrap();
        unfinished.rename(&dir.path().join("d"), false).unwrap();
        let (unfinished, half) = Unfinished::directory(&dir.path().join("d"), 0o755).unwrap();
        fs::write_volatile(&half.join("f"), b"x", 0o644).unwrap();
        drop(unfinished);
        assert_eq!(names(dir.path()), ["a", "d"]);
    }

    #[test]
    fn what_cannot_be_named_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let (mut unfinished, file) = written(&path, "all of it");
        unfinished.copy(&file, &path).unwrap();
        unfinished.publish(&file, &path, false).unwrap();
        let mut text = String::new();
        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), names(dir.path())), ("all of it", vec!["a".into()]));
    }

    #[test]
    fn only_what_the_dead_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let at = |name: &str| dir.path().join(name);
        for left in [".a.123.0.tmp", ".a.1.2.3.tmp", ".b.1.2.tmp", ".a.x.2.tmp", ".a.1.2.tmp.x", "a.1.2.tmp"] {
            fs::write_volatile(&at(left), b"x", 0o600).unwrap();
        }
        std::fs::create_dir_all(at(".a.7.8.tmp/d")).unwrap();
        std::os::unix::fs::symlink(at("a.1.2.tmp"), at(".a.5.5.tmp")).unwrap();
        nix::unistd::mkfifo(&at(".a.6.6.tmp"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (living, half) = Unfinished::directory(&path, 0o755).unwrap();
        sweep(&path);
        let mut stay =
            vec![".a.1.2.3.tmp", ".a.1.2.tmp.x", ".a.5.5.tmp", ".a.6.6.tmp", ".a.x.2.tmp", ".b.1.2.tmp", "a.1.2.tmp"];
        let hidden = half.file_name().unwrap().to_str().unwrap().to_owned();
        stay.push(&hidden);
        stay.sort_unstable();
        assert_eq!(names(dir.path()), stay);
        sweep_all(dir.path());
        stay.retain(|name| ![".a.1.2.3.tmp", ".b.1.2.tmp"].contains(name));
        assert_eq!(names(dir.path()), stay, "whatever it stands beside");
        drop(living);
        sweep(Path::new("/"));
        sweep(&dir.path().join("no/a"));
    }
}
