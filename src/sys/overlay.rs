//! overlayfs: several read-only trees and one for changes, shown as one; mounted without a mount point. What a newcomer
//! would get wrong: the stack is not id-mapped itself (overlayfs cannot be), its *layers* are; and what overlayfs writes to
//! the upper layer it writes as whoever mounted it, so that one must have an id that the mapping knows ([`ActAs`]).
//! Source: kernel overlayfs.rst, fsconfig(2), mount_setattr(2).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;

use super::mount::{
    attach, clone_tree, fsconfig_create, fsconfig_flag, fsconfig_string, fsmount, fsopen, make_slave, set_read_only,
    tmpfs,
};
use super::userns::{self, ActAs, Range};

/// Ids under which a stack is shown: those of one guest.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The guest's ids.
    pub range: Range,
    /// A user namespace that has them.
    pub namespace: Arc<OwnedFd>,
}

impl Mapping {
    /// Makes a namespace for a range. Errors: see [`userns::make`].
    pub fn of(range: Range) -> io::Result<Mapping> {
        Ok(Mapping { range, namespace: Arc::new(userns::make(range)?) })
    }
}

/// A stack of trees to be shown as one.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    /// Read-only trees, the **topmost first** (overlayfs's order).
    pub lowers: Vec<PathBuf>,
    /// Where changes go, and overlayfs's own work directory beside it; read-only when none.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// Show what belongs to 0 on disk as the guest root's. Device nodes in it then cannot be opened.
    pub ids: Option<Mapping>,
}

type Options<'a> = &'a [(&'static CStr, &'static str)];

impl Overlay {
    /// Mounts the stack without a mount point. Errors: ENOENT for a missing layer, EINVAL for what overlayfs cannot use
    /// (an upper on another overlay, more than 500 layers), ENODEV without overlayfs; a tree whose file system cannot map
    /// ids is named.
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

    fn detached_with(&self, more: Options<'_>) -> io::Result<OwnedFd> {
        let opened = self.open_all()?;
        if opened.lowers.len() == 1 && opened.upper.is_none() {
            // overlayfs wants two trees at least: one tree alone is shown by a read-only clone of its mount.
            let tree = clone_tree(&self.lowers[0], false)?;
            if let Some(mapping) = &self.ids {
                userns::idmap(tree.as_fd(), mapping.namespace.as_fd())?;
            }
            set_read_only(tree.as_fd())?;
            return Ok(tree);
        }
        match opened.by_fsconfig(more) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => self.in_own_namespace(more),
            other => other,
        }
    }

    /// The way of older kernels: in a mount namespace of a thread's own, and a detached clone taken out of it. The layers are
    /// opened in there: overlayfs refuses a tree whose mount belongs to another namespace (before 6.15 also one that is
    /// attached nowhere, as an id-mapped clone is).
    fn in_own_namespace(&self, more: Options<'_>) -> io::Result<OwnedFd> {
        let (stack, more) = (self.clone(), more.to_owned());
        let in_thread = move || -> io::Result<OwnedFd> {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS)?;
            make_slave()?;
            let opened = stack.open_all()?;
            if stack.ids.is_some() {
                opened.attach_all()?;
                match opened.by_fsconfig(&more) {
                    Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {}
                    other => return other,
                }
            }
            opened.by_mount(&more)
        };
        std::thread::spawn(in_thread).join().map_err(|_| io::Error::other("the mounting thread died"))?
    }

    fn open_all(&self) -> io::Result<Opened> {
        let lowers = self.lowers.iter().map(|path| self.open(path)).collect::<io::Result<Vec<_>>>()?;
        let Some((upper, work)) = &self.upper else { return Ok(Opened { lowers, ..Opened::default() }) };
        let (range, beside) = match &self.ids {
            None => {
                return Ok(Opened { lowers, upper: Some((self.open(upper)?, self.open(work)?)), ..Opened::default() });
            }
            Some(mapping) => (mapping.range, upper.parent().unwrap_or(Path::new("/"))),
        };
        // Both must lie on one and the same mount, mapped once: the clone of the directory that holds them.
        let above = self.open(beside)?;
        let within = |path: &Path| -> io::Result<OwnedFd> {
            let name = path.strip_prefix(beside).map_err(|_| io::Error::from_raw_os_error(libc::EXDEV))?;
            Ok(nix::fcntl::openat(&above, name, directory(), Mode::empty())?)
        };
        let upper = Some((within(upper)?, within(work)?));
        Ok(Opened { lowers, upper, above: Some(above), writes_as: Some(range), nodev: true })
    }

    /// A directory of the host's by a descriptor, or a mapped clone of its mount.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let named =
            |e: io::Error, what: &str| io::Error::new(e.kind(), format!("{}: {what}{}", path.display(), plain(&e)));
        let opened = nix::fcntl::open(path, directory(), Mode::empty()).map_err(|e| named(e.into(), ""))?;
        let Some(mapping) = &self.ids else { return Ok(opened) };
        let tree = clone_tree(path, false).map_err(|e| named(e, ""))?;
        userns::idmap(tree.as_fd(), mapping.namespace.as_fd())
            .map_err(|e| named(e, "its file system cannot show files under other ids: "))?;
        Ok(tree)
    }
}

/// Whether the tree at `path` can be shown under other ids; tried on a mount that nobody sees.
pub fn can_map(path: &Path, mapping: &Mapping) -> io::Result<()> {
    Overlay { ids: Some(mapping.clone()), ..Overlay::default() }.open(path).map(drop)
}

fn plain(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |n| nix::errno::Errno::from_raw(n).desc().to_owned())
}

fn directory() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

/// The stack by descriptors: a path like `/proc/self/fd/7` is short (fsconfig takes 255 bytes, mount(2) one page) and free of
/// the `:` and `,` that overlayfs's option parser would split at.
#[derive(Default)]
struct Opened {
    lowers: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
    /// The clone that `upper` lies on, when ids are mapped.
    above: Option<OwnedFd>,
    /// Whose root makes files in the upper layer.
    writes_as: Option<Range>,
    nodev: bool,
}

fn by_number(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Opened {
    /// Puts clones at places of this (private) mount namespace: kernels before 6.15 stack nothing that is not attached.
    fn attach_all(&self) -> io::Result<()> {
        let base = Path::new("/run");
        tmpfs(base, "mode=0700")?;
        for (n, tree) in self.lowers.iter().chain(&self.above).enumerate() {
            let point = base.join(n.to_string());
            std::fs::create_dir(&point)?;
            attach(tree.as_fd(), &point)?;
        }
        Ok(())
    }

    /// The way of kernel 6.8 and newer: one `lowerdir+` per layer, no limit but overlayfs's own.
    fn by_fsconfig(&self, more: Options<'_>) -> io::Result<OwnedFd> {
        const MOUNT_ATTR_NODEV: u64 = 4;
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
        let acting = self.writes_as.map(ActAs::root_of).transpose()?;
        fsconfig_create(&context)?;
        drop(acting);
        fsmount(&context, if self.nodev { MOUNT_ATTR_NODEV } else { 0 })
    }

    /// mount(2) at a place of this (private) mount namespace, and a detached clone of it.
    fn by_mount(&self, more: Options<'_>) -> io::Result<OwnedFd> {
        let point = Path::new("/tmp");
        let options = self.options(more)?;
        let flags = if self.nodev { MsFlags::MS_NODEV } else { MsFlags::empty() };
        let acting = self.writes_as.map(ActAs::root_of).transpose()?;
        mount(Some("pronto"), point, Some("overlay"), flags, Some(options.as_str()))?;
        drop(acting);
        clone_tree(point, false)
    }

    /// The option string for mount(2); the descriptors that it names must stay open until it is used.
    fn options(&self, more: Options<'_>) -> io::Result<String> {
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
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::root::Root;
    use std::os::unix::fs::MetadataExt;

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
        let mut overlay = Overlay { lowers, upper: Some((odd.join("u"), odd.join("w"))), ids: None };
        let first = overlay.detached().unwrap();
        overlay.upper = Some((odd.join("u2"), odd.join("w2")));
        let old_way = overlay.in_own_namespace(&[]).unwrap();
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
            let overlay = Overlay { lowers: lowers.clone(), upper: Some(pair.clone()), ids: None };
            let options = [(c"metacopy", "off"), (c"redirect_dir", "off"), (c"volatile", "")];
            let tree = if n == 0 { overlay.detached_for_layer() } else { overlay.in_own_namespace(&options) };
            let root = Root::from_fd(tree.unwrap(), Path::new("test"));
            std::fs::set_permissions(root.proc_path().join("f"), PermissionsExt::from_mode(0o600)).unwrap();
            assert_eq!(std::fs::read(pair.0.join("f")).unwrap(), b"l", "not only its mode was copied");
            assert!(pair.1.join("work/incompat/volatile").is_dir(), "nothing waits for the disk");
        }
    }

    #[test]
    fn a_missing_layer_is_named() {
        let overlay = Overlay { lowers: vec!["/nonexistent/layer".into()], ..Overlay::default() };
        assert!(overlay.detached().unwrap_err().to_string().contains("/nonexistent/layer"));
    }

    #[test]
    fn one_tree_alone_is_read_only() {
        if !if_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let lower = layer(dir.path(), "only", "f");
        let root =
            Root::from_fd(Overlay { lowers: vec![lower], ..Overlay::default() }.detached().unwrap(), Path::new("t"));
        assert_eq!(root.read_text("f").unwrap(), "only");
        assert!(crate::sys::fs::write_volatile(&root.proc_path().join("g"), b"", 0o600).is_err());
    }

    #[test]
    fn a_guest_sees_its_own_ids_and_the_disk_keeps_plain_ones() {
        if !if_root() {
            return;
        }
        let range = Range { first: 0x9_0000, count: 65536 };
        let Ok(mapping) = Mapping::of(range) else {
            let _ = io::Write::write_all(&mut io::stderr(), b"skipped: no user namespaces here\n");
            return;
        };
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let lowers = vec![layer(dir.path(), "l", "f"), layer(dir.path(), "l2", "g")];
        nix::unistd::chown(&lowers[0].join("f"), Some(33.into()), Some(33.into())).unwrap();
        if can_map(dir.path(), &mapping).is_err() {
            let _ = io::Write::write_all(&mut io::stderr(), b"skipped: this file system cannot map ids\n");
            return;
        }
        for (n, own_namespace) in [("a", false), ("b", true)] {
            let (upper, work) = (dir.path().join(format!("{n}u")), dir.path().join(format!("{n}w")));
            [&upper, &work].into_iter().for_each(|p| std::fs::create_dir(p).unwrap());
            let overlay =
                Overlay { lowers: lowers.clone(), upper: Some((upper.clone(), work)), ids: Some(mapping.clone()) };
            let tree = if own_namespace { overlay.in_own_namespace(&[]) } else { overlay.detached() }.unwrap();
            let root = Root::from_fd(tree, Path::new("test"));
            let seen = root.stat(Path::new("f")).unwrap();
            assert_eq!((seen.st_uid, seen.st_gid), (range.first + 33, range.first + 33));
            let new = root.proc_path().join("new");
            assert!(crate::sys::fs::write_volatile(&new, b"", 0o600).is_err(), "the host's root is nobody in there");
            let acting = ActAs::root_of(range).unwrap();
            crate::sys::fs::write_volatile(&new, b"x", 0o600).unwrap();
            drop(acting);
            assert_eq!(root.stat(Path::new("new")).unwrap().st_uid, range.first);
            let on_disk = std::fs::metadata(upper.join("new")).unwrap();
            assert_eq!((on_disk.uid(), on_disk.gid()), (0, 0));
            assert_eq!(nix::unistd::geteuid().as_raw(), 0);
        }
    }
}
