//! What a jail sees: its own root, and nspawn's table of what lies on it. Runs between fork and exec: nothing here allocates.
//! What a newcomer would get wrong: every path is looked up *after* pivot_root(2) and after the host's tree is gone, so a
//! symbolic link in the image can only lead into the image; and a read-only bind mount takes two calls, since MS_BIND
//! ignores every other flag. Source: systemd-nspawn(1), mount(2), pivot_root(2), the OCI runtime-spec's Linux defaults.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use super::inside::{Failure, Outcome, check, errno};
use super::{Bind, Spec};

const SAFE: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
const BIND: libc::c_ulong = libc::MS_BIND;

/// Where the stub lies until it runs; its last part is the process's name.
pub const STUB: &CStr = c"/dev/jail-init";
const MASK: &CStr = c"/dev/.mask";

/// Leaves the host's tree for the jail's.
pub fn enter(spec: &Spec) -> Outcome<'_> {
    mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None)?;
    attach(spec.root.as_raw_fd(), c"/")?;
    // SAFETY: plain system calls on a descriptor that is open and on constant strings.
    unsafe {
        check("the new root", libc::fchdir(spec.root.as_raw_fd()))?;
        check("pivot_root", libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) as i32)?;
        check("the host's tree", libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        check("the new root", libc::chdir(c"/".as_ptr()))
    }
}

/// Mounts the table. The umask is 0.
pub fn furnish(spec: &Spec) -> Outcome<'_> {
    for dir in [c"/proc", c"/sys", c"/dev", c"/run"] {
        make_dir(dir, 0o755)?;
    }
    make_dir(c"/tmp", 0o1777)?;
    mount(Some(c"tmpfs"), c"/dev", Some(c"tmpfs"), libc::MS_NOSUID, Some(c"mode=755,size=4m,nr_inodes=64k"))?;
    devices()?;
    if is_empty(c"/run") {
        let options = c"mode=755,size=20%,nr_inodes=800k";
        mount(Some(c"tmpfs"), c"/run", Some(c"tmpfs"), libc::MS_NOSUID | libc::MS_NODEV, Some(options))?;
    }
    if is_empty(c"/tmp") {
        let options = c"mode=1777,size=10%,nr_inodes=400k";
        mount(Some(c"tmpfs"), c"/tmp", Some(c"tmpfs"), libc::MS_NOSUID | libc::MS_NODEV, Some(options))?;
    }
    mount(Some(c"sysfs"), c"/sys", Some(c"sysfs"), SAFE | libc::MS_RDONLY, None)?;
    optional(mount(Some(c"cgroup2"), c"/sys/fs/cgroup", Some(c"cgroup2"), SAFE | libc::MS_RDONLY, None))?;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), SAFE, None)?;
    fence_proc(spec.private_network)?;
    spec.binds.iter().try_for_each(bind)
}

fn devices() -> Outcome<'static> {
    const NODES: [(&CStr, u32, u32, u32); 7] = [
        (c"/dev/null", 0o666, 1, 3),
        (c"/dev/zero", 0o666, 1, 5),
        (c"/dev/full", 0o666, 1, 7),
        (c"/dev/random", 0o666, 1, 8),
        (c"/dev/urandom", 0o666, 1, 9),
        (c"/dev/tty", 0o666, 5, 0),
        (c"/dev/net/tun", 0o600, 10, 200),
    ];
    const LINKS: [(&CStr, &CStr); 5] = [
        (c"/proc/self/fd", c"/dev/fd"),
        (c"/proc/self/fd/0", c"/dev/stdin"),
        (c"/proc/self/fd/1", c"/dev/stdout"),
        (c"/proc/self/fd/2", c"/dev/stderr"),
        (c"pts/ptmx", c"/dev/ptmx"),
    ];
    make_dir(c"/dev/net", 0o755)?;
    for (path, mode, major, minor) in NODES {
        // SAFETY: a constant path.
        check_path(path, unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | mode, libc::makedev(major, minor)) })?;
    }
    for (target, path) in LINKS {
        // SAFETY: constant paths.
        check_path(path, unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) })?;
    }
    make_dir(c"/dev/pts", 0o755)?;
    make_dir(c"/dev/shm", 0o1777)?;
    make_dir(c"/dev/mqueue", 0o1777)?;
    let options = c"newinstance,ptmxmode=0666,mode=620,gid=5";
    mount(Some(c"devpts"), c"/dev/pts", Some(c"devpts"), libc::MS_NOSUID | libc::MS_NOEXEC, Some(options))?;
    let options = c"mode=1777,size=10%,nr_inodes=400k";
    mount(Some(c"tmpfs"), c"/dev/shm", Some(c"tmpfs"), libc::MS_NOSUID | libc::MS_NODEV, Some(options))?;
    optional(mount(Some(c"mqueue"), c"/dev/mqueue", Some(c"mqueue"), SAFE, None))
}

/// Closes the parts of /proc that reach the host: an empty file over what would tell or do too much, read-only over the rest.
fn fence_proc(private_network: bool) -> Outcome<'static> {
    const HIDDEN: [&CStr; 8] = [
        c"/proc/kmsg",
        c"/proc/kallsyms",
        c"/proc/kcore",
        c"/proc/keys",
        c"/proc/sysrq-trigger",
        c"/proc/timer_list",
        c"/proc/latency_stats",
        c"/proc/sched_debug",
    ];
    const READ_ONLY: [&CStr; 8] = [
        c"/proc/sys",
        c"/proc/acpi",
        c"/proc/apm",
        c"/proc/asound",
        c"/proc/bus",
        c"/proc/fs",
        c"/proc/irq",
        c"/proc/scsi",
    ];
    write_file(MASK, b"", 0)?;
    let mut source = MASK;
    for path in HIDDEN {
        if !exists(path) {
            continue;
        }
        mount(Some(source), path, None, BIND, None)?;
        if source == MASK {
            mount(None, path, None, BIND | libc::MS_REMOUNT | libc::MS_RDONLY | SAFE, None)?;
            // The next ones are copies of this mount, flags and all.
            source = path;
        }
    }
    // SAFETY: a constant path.
    check_path(MASK, unsafe { libc::unlink(MASK.as_ptr()) })?;
    for path in READ_ONLY {
        if !exists(path) {
            continue;
        }
        mount(Some(path), path, None, BIND, None)?;
        if path == c"/proc/sys" && private_network {
            // A guest may tune a network of its own: this mount is made before the one below it closes.
            mount(Some(c"/proc/sys/net"), c"/proc/sys/net", None, BIND, None)?;
        }
        mount(None, path, None, BIND | libc::MS_REMOUNT | libc::MS_RDONLY | SAFE, None)?;
    }
    Ok(())
}

/// Attaches what the user binds in. Its place is made in the jail's own writable root when it is missing.
fn bind(bind: &Bind) -> Outcome<'_> {
    for dir in &bind.parents {
        make_dir(dir, 0o755)?;
    }
    if bind.is_dir {
        make_dir(&bind.target, 0o755)?;
    } else if !exists(&bind.target) {
        write_file(&bind.target, b"", 0o644)?;
    }
    if bind.read_only {
        let attr = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
        // SAFETY: the kernel reads the structure, whose size is given; the path is empty: the descriptor itself is meant.
        let done = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                bind.source.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
                &raw const attr,
                size_of::<libc::mount_attr>(),
            )
        };
        check_path(&bind.target, done as i32)?;
    }
    attach(bind.source.as_raw_fd(), &bind.target)
}

/// Attaches a detached mount.
fn attach(mount: RawFd, target: &CStr) -> Outcome<'_> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
    // SAFETY: an open descriptor and strings that end with NUL.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount,
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check_path(target, done as i32)
}

/// A file with this content. Replaces nothing: it must not be there.
pub fn write_file<'a>(path: &'a CStr, content: &[u8], mode: libc::mode_t) -> Outcome<'a> {
    // SAFETY: a path that ends with NUL, a buffer and its length; the descriptor is closed here.
    unsafe {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let fd = libc::open(path.as_ptr(), flags, mode);
        check_path(path, fd)?;
        let written = libc::write(fd, content.as_ptr().cast(), content.len());
        libc::close(fd);
        check_path(path, if written == content.len() as isize { 0 } else { -1 })
    }
}

/// The terminal's slave as `/dev/console`, for programs that open it by that name.
pub fn console(slave: &CStr) -> Outcome<'_> {
    const CONSOLE: &CStr = c"/dev/console";
    write_file(CONSOLE, b"", 0o600)?;
    mount(Some(slave), CONSOLE, None, BIND, None)
}

pub fn make_dir(path: &CStr, mode: libc::mode_t) -> Outcome<'_> {
    // SAFETY: a path that ends with NUL.
    let made = unsafe { libc::mkdir(path.as_ptr(), mode) };
    if made != 0 && errno() == libc::EEXIST {
        return Ok(());
    }
    check_path(path, made)
}

fn exists(path: &CStr) -> bool {
    // SAFETY: a path that ends with NUL.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

/// Whether a directory holds nothing: then nspawn's tmpfs hides nothing of the image's. One that cannot be read is not.
fn is_empty(path: &CStr) -> bool {
    let mut entries = [0u64; 64];
    // SAFETY: a path that ends with NUL; the kernel writes at most the buffer's size; the descriptor is closed here.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC);
        if fd < 0 {
            return false;
        }
        // "." and ".." take 24 bytes each; a first answer that is longer holds something else.
        let got = libc::syscall(libc::SYS_getdents64, fd, entries.as_mut_ptr(), size_of_val(&entries));
        libc::close(fd);
        (0..=48).contains(&got)
    }
}

fn mount<'a>(
    source: Option<&CStr>,
    target: &'a CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> Outcome<'a> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: all strings end with NUL and live longer than the call; the kernel takes null where there is none.
    let done = unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(options).cast()) };
    check_path(target, done)
}

/// File systems that a kernel may have been built without.
fn optional(outcome: Outcome<'_>) -> Outcome<'_> {
    match outcome {
        Err(Failure { errno: libc::ENODEV | libc::ENOENT, .. }) => Ok(()),
        other => other,
    }
}

fn check_path(path: &CStr, result: i32) -> Outcome<'_> {
    if result >= 0 { Ok(()) } else { Err(Failure { what: path.to_bytes(), errno: errno() }) }
}
