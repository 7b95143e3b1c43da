//! Mounts that nobody else sees: detached trees (fsmount, open_tree) held by a descriptor, and the calls that put them into
//! the monitor's own mount namespace. What a newcomer would get wrong: a detached mount vanishes with its last descriptor,
//! so a process that is killed leaves nothing behind; a mount made by mount(2) in the host's namespace would stay.
//! Source: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2), kernel overlayfs.rst.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Makes every mount of this mount namespace a slave: the host's mounts and unmounts arrive, ours never leave.
pub fn make_slave() -> io::Result<()> {
    Ok(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?)
}

/// Mounts a fresh tmpfs; `options` as in tmpfs(5).
pub fn tmpfs(target: &Path, options: &str) -> io::Result<()> {
    Ok(mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options))?)
}

/// Hides what is mounted at `path` behind an empty directory, from this process and its children alone: it leaves its mount namespace for
/// a copy. What they mount elsewhere is seen as before. Nothing is mounted there: nothing is done. Errors: as unshare(2), mount(2).
pub fn cover(path: &Path) -> io::Result<()> {
    if !is_mounted(path)? {
        return Ok(());
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    // A mount on a shared one would show in the namespace that this is a copy of (kernel, sharedsubtree.rst).
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=0755"))?)
}

/// Whether another file system is mounted on a directory; on a missing one there is none.
fn is_mounted(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let here = match std::fs::symlink_metadata(path) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(false),
        other => other?,
    };
    let above = std::fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
    Ok(here.dev() != above.dev())
}

/// Mounts the proc file system of this process's pid namespace.
pub fn proc(target: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("proc"), target, Some("proc"), flags, None::<&str>)?)
}

/// A detached copy of the mount at `path`, with everything mounted below it when `recursive`. It is private: a copy of a mount that
/// is shared (systemd makes the host's so) would be shared with it, and what a guest mounts there would appear on the host.
/// Source: kernel sharedsubtree.rst. Errors: as open_tree(2), mount_setattr(2).
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
    let tree = into_fd(unsafe { libc::syscall(libc::SYS_open_tree, at, path.as_ptr(), flags) })?;
    let private = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    set_attributes(tree.as_fd(), &private, recursive)?;
    Ok(tree)
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

/// Makes a detached mount read-only, with `recursive` what is mounted below it, too.
pub fn set_read_only(tree: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    set_attributes(tree, &attributes, recursive)
}

/// Changes the attributes of a mount by its descriptor; with `recursive` of all mounts below it too. Errors: as
/// mount_setattr(2).
pub fn set_attributes(tree: BorrowedFd<'_>, attributes: &libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: mount_setattr(2) reads the structure of the size that we say; the empty path means the descriptor itself.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    check(done)
}

/// A file system of its own kind (`proc`, `binfmt_misc`), without options and without a mount point. Errors: ENODEV when the
/// kernel has none, EPERM when this process's namespaces may not have one.
pub fn detached(kind: &CStr) -> io::Result<OwnedFd> {
    let context = fsopen(kind)?;
    fsconfig_create(&context)?;
    fsmount(&context, 0)
}

/// Makes a detached mount the root of this mount namespace, which must be this process's own and no longer shared with the
/// host's ([`make_slave`]); the tree before is no longer to be seen, and `/` is the working directory. Errors: as
/// pivot_root(2).
pub fn enter(root: BorrowedFd<'_>) -> io::Result<()> {
    attach(root, Path::new("/"))?;
    nix::unistd::fchdir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH)?;
    Ok(nix::unistd::chdir("/")?)
}

/// Bind mounts `source` on `target` in this mount namespace.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    attach(clone_tree(source, true)?.as_fd(), target)
}

const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4; // linux/mount.h
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

pub(super) fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: fsopen(2) reads a C string; flag 1 is FSOPEN_CLOEXEC.
    into_fd(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 1) })
}

pub(super) fn fsconfig_string(context: &OwnedFd, key: &CStr, value: &str) -> io::Result<()> {
    let value = CString::new(value).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: fsconfig(2) reads two C strings that live across the call.
    let done = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0)
    };
    check(done)
}

pub(super) fn fsconfig_flag(context: &OwnedFd, key: &CStr) -> io::Result<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: fsconfig(2) reads a C string that lives across the call; a flag has no value.
    let done =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_FLAG, key.as_ptr(), null, 0) };
    check(done)
}

pub(super) fn fsconfig_create(context: &OwnedFd) -> io::Result<()> {
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: FSCONFIG_CMD_CREATE takes null pointers.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) })
}

pub(super) fn fsmount(context: &OwnedFd, attributes: u64) -> io::Result<OwnedFd> {
    // SAFETY: fsmount(2) takes a descriptor and numbers; 1 is FSMOUNT_CLOEXEC.
    into_fd(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, attributes) })
}

/// What the kernel says of a mount that it refused, its lines joined; empty when it says nothing. Source: fsopen(2), "Message
/// retrieval interface".
pub(super) fn messages(context: &OwnedFd) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = nix::unistd::read(context, &mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..n]).trim().to_owned();
        // Each begins with its level: `e ext4: …`.
        lines.push(line.split_once(' ').map_or(line.clone(), |(_, text)| text.to_owned()));
    }
    lines.join("; ").escape_debug().to_string()
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
