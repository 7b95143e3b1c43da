//! Mounts that nobody else sees: detached trees (fsmount, open_tree) held by a descriptor, and the calls that put them into
//! the monitor's own mount namespace. What a newcomer would get wrong: a detached mount vanishes with its last descriptor,
//! so a process that is killed leaves nothing behind; a mount made by mount(2) in the host's namespace would stay.
//! Source: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2), kernel overlayfs.rst.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;

/// A stack of trees to be shown as one.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    /// Read-only trees, the **topmost first** (overlayfs's order).
    pub lowers: Vec<PathBuf>,
    /// Where changes go, and overlayfs's own work directory on the same file system; read-only when none.
    pub upper: Option<(PathBuf, PathBuf)>,
}

impl Overlay {
    /// Mounts the stack without a mount point. Errors: ENOENT for a missing layer, EINVAL for what overlayfs cannot use
    /// (an upper on another overlay, more than 500 layers), ENODEV without overlayfs.
    pub fn detached(&self) -> io::Result<OwnedFd> {
        self.detached_with(&[])
    }

    /// As [`Overlay::detached`], for an upper that becomes a layer itself and is dropped when anything goes wrong: a file in
    /// it is whole without the layers below, whatever this host's defaults are (`metacopy`, `redirect_dir`), and nothing
    /// that is done in it waits for the disk (`volatile`, Linux 5.10; without it where it is not known).
    pub fn detached_for_layer(&self) -> io::Result<OwnedFd> {
        let whole: [(&CStr, &str); 2] = [(c"metacopy", "off"), (c"redirect_dir", "off")];
        // A flag's value is empty.
        let fast = [&whole[..], &[(c"volatile", "")]].concat();
        match self.detached_with(&fast) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => self.detached_with(&whole),
            other => other,
        }
    }

    fn detached_with(&self, more: &[(&'static CStr, &'static str)]) -> io::Result<OwnedFd> {
        let opened = self.open_all()?;
        if opened.lowers.len() == 1 && opened.upper.is_none() {
            // overlayfs wants two trees at least: one tree alone is shown by a read-only clone of its mount.
            let tree = clone_tree(&self.lowers[0], false)?;
            set_read_only(tree.as_fd())?;
            return Ok(tree);
        }
        match opened.by_fsconfig(more) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => self.by_mount(more),
            other => other,
        }
    }

    /// The way of kernels before 6.8: mount(2) in a mount namespace of a thread's own, and a detached clone taken out of it.
    /// The layers are opened in there: overlayfs refuses a tree whose mount belongs to another namespace.
    fn by_mount(&self, more: &[(&'static CStr, &'static str)]) -> io::Result<OwnedFd> {
        let (stack, more) = (self.clone(), more.to_owned());
        let in_thread = move || -> io::Result<OwnedFd> {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS)?;
            make_slave()?;
            let options = stack.open_all()?.options(&more)?;
            let point = Path::new("/run");
            mount(Some("pronto"), point, Some("overlay"), MsFlags::empty(), Some(options.0.as_str()))?;
            clone_tree(point, false)
        };
        std::thread::spawn(in_thread).join().map_err(|_| io::Error::other("the mounting thread died"))?
    }

    fn open_all(&self) -> io::Result<Opened> {
        let open = |path: &PathBuf| -> io::Result<OwnedFd> {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            nix::fcntl::open(path, flags, Mode::empty())
                .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("{}: {}", path.display(), e.desc())))
        };
        let lowers = self.lowers.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let upper = match &self.upper {
            Some((upper, work)) => Some((open(upper)?, open(work)?)),
            None => None,
        };
        Ok(Opened { lowers, upper })
    }
}

/// The stack by descriptors: a path like `/proc/self/fd/7` is short (fsconfig takes 255 bytes, mount(2) one page) and free of
/// the `:` and `,` that overlayfs's option parser would split at.
struct Opened {
    lowers: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
}

fn by_number(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Opened {
    /// The way of kernel 6.8 and newer: one `lowerdir+` per layer, no limit but overlayfs's own.
    fn by_fsconfig(&self, more: &[(&CStr, &str)]) -> io::Result<OwnedFd> {
        let context = fsopen(c"overlay")?;
        fsconfig_string(&context, c"source", "pronto")?;
        for lower in &self.lowers {
            fsconfig_string(&context, c"lowerdir+", &by_number(lower))?;
        }
        if let Some((upper, work)) = &self.upper {
            fsconfig_string(&context, c"upperdir", &by_number(upper))?;
            fsconfig_string(&context, c"workdir", &by_number(work))?;
        }
        for (key, value) in more {
            if value.is_empty() { fsconfig_flag(&context, key)? } else { fsconfig_string(&context, key, value)? }
        }
        fsconfig_create(&context)?;
        fsmount(&context)
    }

    /// The option string for mount(2); the descriptors that it names must stay open until it is used.
    fn options(self, more: &[(&CStr, &str)]) -> io::Result<(String, Opened)> {
        let lowers: Vec<String> = self.lowers.iter().map(by_number).collect();
        let mut options = format!("lowerdir={}", lowers.join(":"));
        if let Some((upper, work)) = &self.upper {
            options += &format!(",upperdir={},workdir={}", by_number(upper), by_number(work));
        }
        for (key, value) in more {
            let equals = if value.is_empty() { "" } else { "=" };
            options += &format!(",{}{equals}{value}", key.to_string_lossy());
        }
        if options.len() >= 4096 {
            let why = format!("{} layers are more than this kernel's mount(2) can name at once", lowers.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok((options, self))
    }
}

/// Makes every mount of this mount namespace a slave: the host's mounts and unmounts arrive, ours never leave.
pub fn make_slave() -> io::Result<()> {
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?)
}

/// Mounts a fresh tmpfs; `options` as in tmpfs(5).
pub fn tmpfs(target: &Path, options: &str) -> io::Result<()> {
    Ok(mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))?)
}

/// Mounts the proc file system of this process's pid namespace.
pub fn proc(target: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("proc"), target, Some("proc"), flags, None::<&str>)?)
}

/// A detached copy of the mount at `path`, with everything mounted below it when `recursive`.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_tree_at(None, path, recursive)
}

/// As [`clone_tree`], of a path below a descriptor (an empty path means the descriptor itself).
pub fn clone_tree_at(dir: Option<BorrowedFd<'_>>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut flags = libc::OPEN_TREE_CLONE as libc::c_uint | libc::OPEN_TREE_CLOEXEC as libc::c_uint;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    if path.as_bytes().is_empty() {
        flags |= libc::AT_EMPTY_PATH as libc::c_uint;
    }
    let at = dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd());
    // SAFETY: open_tree(2) reads a C string that lives across the call and returns a new descriptor or -1.
    into_fd(unsafe { libc::syscall(libc::SYS_open_tree, at, path.as_ptr(), flags) })
}

/// Puts a detached mount at `target`. Errors: as move_mount(2).
pub fn attach(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    let flags = MOVE_MOUNT_F_EMPTY_PATH;
    // SAFETY: move_mount(2) reads two C strings that live across the call.
    let done = unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), c"".as_ptr(), libc::AT_FDCWD, target.as_ptr(), flags)
    };
    check(done)
}

/// Makes a detached mount (this one, not what is below) read-only.
pub fn set_read_only(tree: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: mount_setattr(2) reads the structure of the size that we say.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(done)
}

/// Bind mounts `source` on `target` in this mount namespace.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    attach(clone_tree(source, true)?.as_fd(), target)
}

const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4; // linux/mount.h
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: fsopen(2) reads a C string; flag 1 is FSOPEN_CLOEXEC.
    into_fd(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })
}

fn fsconfig_string(context: &OwnedFd, key: &CStr, value: &str) -> io::Result<()> {
    let value = CString::new(value).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: fsconfig(2) reads two C strings that live across the call.
    let done = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0)
    };
    check(done)
}

fn fsconfig_flag(context: &OwnedFd, key: &CStr) -> io::Result<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: fsconfig(2) reads a C string that lives across the call; a flag has no value.
    let done =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_FLAG, key.as_ptr(), null, 0) };
    check(done)
}

fn fsconfig_create(context: &OwnedFd) -> io::Result<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: FSCONFIG_CMD_CREATE takes null pointers.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) })
}

fn fsmount(context: &OwnedFd) -> io::Result<OwnedFd> {
    // SAFETY: fsmount(2) takes a descriptor and numbers; 1 is FSMOUNT_CLOEXEC.
    into_fd(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 0) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(done: libc::c_long) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn into_fd(raw: libc::c_long) -> io::Result<OwnedFd> {
    check(raw)?;
    // SAFETY: the kernel has just returned this descriptor to us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::Root;

    fn layer(dir: &Path, name: &str, file: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::create_dir(&path).unwrap();
        crate::sys::fs::write_atomic(&path.join(file), name.as_bytes(), 0o644).unwrap();
        path
    }

    fn if_root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            // A mount needs root: said, not hidden.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: mounting needs root\n");
        }
        root
    }

    #[test]
    fn a_stack_needs_no_mount_point_and_takes_any_path() {
        if !if_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a b:c,d\\e");
        std::fs::create_dir(&odd).unwrap();
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lowers: Vec<PathBuf> = (0..100).map(|n| layer(&odd, &format!("l{n}"), &format!("f{n}"))).collect();
        for (upper, work) in [("u", "w"), ("u2", "w2")] {
            std::fs::create_dir(odd.join(upper)).unwrap();
            std::fs::create_dir(odd.join(work)).unwrap();
        }
        let mut overlay = Overlay { lowers, upper: Some((odd.join("u"), odd.join("w"))) };
        let first = overlay.detached().unwrap();
        overlay.upper = Some((odd.join("u2"), odd.join("w2")));
        let old_way = overlay.by_mount(&[]).unwrap();
        for tree in [first, old_way] {
            let root = Root::from_fd(tree, Path::new("test"));
            assert_eq!(root.read_text("f0").unwrap(), "l0");
            assert_eq!(root.read_text("f99").unwrap(), "l99");
            crate::sys::fs::write_volatile(&root.proc_path().join("new"), b"x", 0o600).unwrap();
        }
        assert!(odd.join("u/new").exists() && odd.join("u2/new").exists());
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }

    #[test]
    fn a_layer_in_the_making_is_whole_by_itself() {
        if !if_root() {
            return;
        }
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let lowers = vec![layer(dir.path(), "l", "f")];
        for n in 0..2 {
            let pair = (dir.path().join(format!("u{n}")), dir.path().join(format!("w{n}")));
            [&pair.0, &pair.1].into_iter().for_each(|p| std::fs::create_dir(p).unwrap());
            let overlay = Overlay { lowers: lowers.clone(), upper: Some(pair.clone()) };
            let options = [(c"metacopy", "off"), (c"redirect_dir", "off"), (c"volatile", "")];
            let tree = if n == 0 { overlay.detached_for_layer() } else { overlay.by_mount(&options) };
            let root = Root::from_fd(tree.unwrap(), Path::new("test"));
            std::fs::set_permissions(root.proc_path().join("f"), PermissionsExt::from_mode(0o600)).unwrap();
            assert_eq!(std::fs::read(pair.0.join("f")).unwrap(), b"l", "not only its mode was copied");
            assert!(pair.1.join("work/incompat/volatile").is_dir(), "nothing waits for the disk");
        }
    }

    #[test]
    fn a_missing_layer_is_named() {
        let overlay = Overlay { lowers: vec!["/nonexistent/layer".into()], upper: None };
        assert!(overlay.detached().unwrap_err().to_string().contains("/nonexistent/layer"));
    }

    #[test]
    fn one_tree_alone_is_read_only() {
        if !if_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let lower = layer(dir.path(), "only", "f");
        let root = Root::from_fd(Overlay { lowers: vec![lower], upper: None }.detached().unwrap(), Path::new("t"));
        assert_eq!(root.read_text("f").unwrap(), "only");
        assert!(crate::sys::fs::write_volatile(&root.proc_path().join("g"), b"", 0o600).is_err());
    }
}
