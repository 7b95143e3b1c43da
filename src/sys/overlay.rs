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

use super::disk::{self, Volume};
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

/// A read-only tree of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lower {
    /// A directory of the host's.
    Tree(PathBuf),
    /// A file system in a file.
    Disk(PathBuf, Volume),
}

impl From<PathBuf> for Lower {
    fn from(path: PathBuf) -> Lower {
        Lower::Tree(path)
    }
}

impl Lower {
    fn path(&self) -> &Path {
        match self {
            Lower::Tree(path) | Lower::Disk(path, _) => path,
        }
    }
}

/// A stack of trees to be shown as one.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    /// Read-only trees, the **topmost first** (overlayfs's order).
    pub lowers: Vec<Lower>,
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
            if let Lower::Tree(path) = &self.lowers[0] {
                let tree = clone_tree(path, false)?;
                if let Some(mapping) = &self.ids {
                    userns::idmap(tree.as_fd(), mapping.namespace.as_fd())?;
                }
                set_read_only(tree.as_fd(), false)?;
                return Ok(tree);
            }
            return opened.lowers.into_iter().next().ok_or_else(|| io::ErrorKind::NotFound.into());
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
            if opened.attach_all(&stack)? {
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
        let lowers = self.lowers.iter().map(|lower| self.open(lower)).collect::<io::Result<Vec<_>>>()?;
        let Some((upper, work)) = &self.upper else { return Ok(Opened { lowers, ..Opened::default() }) };
        let (range, beside) = match &self.ids {
            None => {
                let upper = Some((self.open_tree(upper)?, self.open_tree(work)?));
                return Ok(Opened { lowers, upper, ..Opened::default() });
            }
            Some(mapping) => (mapping.range, upper.parent().unwrap_or(Path::new("/"))),
        };
        // Both must lie on one and the same mount, mapped once: the clone of the directory that holds them.
        let above = self.open_tree(beside)?;
        let within = |path: &Path| -> io::Result<OwnedFd> {
            let name = path.strip_prefix(beside).map_err(|_| io::Error::from_raw_os_error(libc::EXDEV))?;
            Ok(nix::fcntl::openat(&above, name, directory(), Mode::empty())?)
        };
        let upper = Some((within(upper)?, within(work)?));
        Ok(Opened { lowers, upper, above: Some(above), writes_as: Some(range), nodev: true })
    }

    fn open(&self, lower: &Lower) -> io::Result<OwnedFd> {
        let Lower::Disk(path, volume) = lower else { return self.open_tree(lower.path()) };
        let tree = disk::mount(path, volume).map_err(|e| named(path, &e, ""))?;
        if let Some(mapping) = &self.ids {
            userns::idmap(tree.as_fd(), mapping.namespace.as_fd()).map_err(|e| named(path, &e, NOT_MAPPED))?;
        }
        Ok(tree)
    }

    /// A directory of the host's by a descriptor, or a mapped clone of its mount.
    fn open_tree(&self, path: &Path) -> io::Result<OwnedFd> {
        let named = |e: io::Error, what: &str| named(path, &e, what);
        let opened = nix::fcntl::open(path, directory(), Mode::empty()).map_err(|e| named(e.into(), ""))?;
        let Some(mapping) = &self.ids else { return Ok(opened) };
        let tree = clone_tree(path, false).map_err(|e| named(e, ""))?;
        userns::idmap(tree.as_fd(), mapping.namespace.as_fd()).map_err(|e| named(e, NOT_MAPPED))?;
        Ok(tree)
    }
}

const NOT_MAPPED: &str = "its file system cannot show files under other ids: ";

fn named(path: &Path, error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {what}{}", path.display(), plain(error)))
}

/// Whether a tree can be shown under other ids; tried on a mount that nobody sees.
pub fn can_map(lower: &Lower, mapping: &Mapping) -> io::Result<()> {
    Overlay { ids: Some(mapping.clone()), ..Overlay::default() }.open(lower).map(drop)
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
    /// Puts what is attached nowhere (clones, disks) at places of this (private) mount namespace: kernels before 6.15 stack nothing
    /// that is not attached. Returns whether there was anything.
    fn attach_all(&self, stack: &Overlay) -> io::Result<bool> {
        let is_loose = |lower: &Lower| stack.ids.is_some() || matches!(lower, Lower::Disk(..));
        let lowers = self.lowers.iter().zip(&stack.lowers).filter(|(_, lower)| is_loose(lower)).map(|(tree, _)| tree);
        let loose: Vec<&OwnedFd> = lowers.chain(&self.above).collect();
        if loose.is_empty() {
            return Ok(false);
        }
        let base = Path::new("/run");
        tmpfs(base, "mode=0700")?;
        for (n, tree) in loose.into_iter().enumerate() {
            let point = base.join(n.to_string());
            std::fs::create_dir(&point)?;
            attach(tree.as_fd(), &point)?;
        }
        Ok(true)
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
#[path = "overlay_tests.rs"]
mod tests;
