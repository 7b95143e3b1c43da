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

/// What a jail with ids of its own must take from the host's tree while it is still there: it may make no device nodes, and a
/// new proc only where one is to be seen. Descriptors; -1 where there is none.
pub struct Borrowed {
    nodes: [RawFd; NODES.len()],
    proc: RawFd,
    sysfs: RawFd,
    /// Its own registry of interpreters: to be held by somebody for as long as programs are to be started.
    pub registry: RawFd,
}

/// Opens it, detached. Nothing for a jail without ids of its own.
pub fn borrow(spec: &Spec) -> Result<Borrowed, Failure<'_>> {
    let mut borrowed = Borrowed { nodes: [-1; NODES.len()], proc: -1, sysfs: -1, registry: -1 };
    if spec.ids.is_none() {
        return Ok(borrowed);
    }
    for ((path, ..), fd) in NODES.iter().zip(&mut borrowed.nodes) {
        // SAFETY: a constant path.
        *fd = unsafe {
            let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC as libc::c_uint;
            libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) as RawFd
        };
        // A host without it (/dev/net/tun comes with a module): neither has the jail.
        if *fd < 0 && errno() != libc::ENOENT {
            check_path(path, *fd)?;
        }
    }
    borrowed.proc = detached(c"proc", c"/proc")?;
    borrowed.sysfs = match &spec.sysfs {
        Some(shared) => shared.as_raw_fd(),
        None => detached(c"sysfs", c"/sys")?,
    };
    if !spec.private.is_empty() {
        borrowed.registry = registry(spec)?;
    }
    Ok(borrowed)
}

/// A registry of interpreters in the jail's user namespace. The interpreters are opened here and now (flag F), on the host.
fn registry(spec: &Spec) -> Result<RawFd, Failure<'_>> {
    let what = c"the registry of interpreters";
    for (interpreter, copy) in &spec.copies {
        attach(copy.as_raw_fd(), interpreter)?;
    }
    let mount = detached(c"binfmt_misc", what)?;
    // SAFETY: constant and prepared strings with their lengths; descriptors of this process, closed here but the result.
    unsafe {
        let file = libc::openat(mount, c"register".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check_path(what, file)?;
        for line in &spec.private {
            let bytes = line.as_bytes();
            let written = libc::write(file, bytes.as_ptr().cast(), bytes.len());
            check_path(what, if written == bytes.len() as isize { 0 } else { -1 })?;
        }
        libc::close(file);
    }
    Ok(mount)
}

/// A new file system of this kind, mounted nowhere yet. `name` is for messages.
fn detached<'a>(kind: &CStr, name: &'a CStr) -> Result<RawFd, Failure<'a>> {
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const CLOEXEC: libc::c_uint = 1;
    // SAFETY: a string that ends with NUL, null pointers where the call takes none, numbers.
    unsafe {
        let context = libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC) as RawFd;
        check_path(name, context)?;
        let null = ptr::null::<libc::c_char>();
        check_path(name, libc::syscall(libc::SYS_fsconfig, context, FSCONFIG_CMD_CREATE, null, null, 0) as i32)?;
        let mount = libc::syscall(libc::SYS_fsmount, context, CLOEXEC, 0) as RawFd;
        check_path(name, mount)?;
        libc::close(context);
        Ok(mount)
    }
}

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
pub fn furnish<'a>(spec: &'a Spec, borrowed: &Borrowed) -> Outcome<'a> {
    for dir in [c"/proc", c"/sys", c"/dev", c"/run"] {
        make_dir(dir, 0o755)?;
    }
    make_dir(c"/tmp", 0o1777)?;
    mount(Some(c"tmpfs"), c"/dev", Some(c"tmpfs"), libc::MS_NOSUID, Some(c"mode=755,size=4m,nr_inodes=64k"))?;
    devices(spec, borrowed)?;
    if is_empty(c"/run") {
        let options = c"mode=755,size=20%,nr_inodes=800k";
        mount(Some(c"tmpfs"), c"/run", Some(c"tmpfs"), libc::MS_NOSUID | libc::MS_NODEV, Some(options))?;
    }
    if is_empty(c"/tmp") {
        let options = c"mode=1777,size=10%,nr_inodes=400k";
        mount(Some(c"tmpfs"), c"/tmp", Some(c"tmpfs"), libc::MS_NOSUID | libc::MS_NODEV, Some(options))?;
    }
    system_files(borrowed)?;
    optional(mount(Some(c"cgroup2"), c"/sys/fs/cgroup", Some(c"cgroup2"), SAFE | libc::MS_RDONLY, None))?;
    if borrowed.proc < 0 {
        mount(Some(c"proc"), c"/proc", Some(c"proc"), SAFE, None)?;
    } else {
        place(borrowed.proc, c"/proc", SAFE)?;
    }
    fence_proc(spec.private_network)?;
    spec.binds.iter().try_for_each(bind)
}

/// `/sys`, read-only.
fn system_files(borrowed: &Borrowed) -> Outcome<'static> {
    if borrowed.sysfs < 0 {
        return mount(Some(c"sysfs"), c"/sys", Some(c"sysfs"), SAFE | libc::MS_RDONLY, None);
    }
    place(borrowed.sysfs, c"/sys", SAFE | libc::MS_RDONLY)
}

/// Attaches a borrowed mount, with these flags.
fn place(mount_fd: RawFd, path: &'static CStr, flags: libc::c_ulong) -> Outcome<'static> {
    attach(mount_fd, path)?;
    mount(None, path, None, BIND | libc::MS_REMOUNT | flags, None)
}

const NODES: [(&CStr, u32, u32, u32); 7] = [
    (c"/dev/null", 0o666, 1, 3),
    (c"/dev/zero", 0o666, 1, 5),
    (c"/dev/full", 0o666, 1, 7),
    (c"/dev/random", 0o666, 1, 8),
    (c"/dev/urandom", 0o666, 1, 9),
    (c"/dev/tty", 0o666, 5, 0),
    (c"/dev/net/tun", 0o600, 10, 200),
];

fn devices(spec: &Spec, borrowed: &Borrowed) -> Outcome<'static> {
    const LINKS: [(&CStr, &CStr); 5] = [
        (c"/proc/self/fd", c"/dev/fd"),
        (c"/proc/self/fd/0", c"/dev/stdin"),
        (c"/proc/self/fd/1", c"/dev/stdout"),
        (c"/proc/self/fd/2", c"/dev/stderr"),
        (c"pts/ptmx", c"/dev/ptmx"),
    ];
    make_dir(c"/dev/net", 0o755)?;
    for ((path, mode, major, minor), node) in NODES.into_iter().zip(borrowed.nodes) {
        if spec.ids.is_none() {
            // SAFETY: a constant path.
            check_path(path, unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | mode, libc::makedev(major, minor)) })?;
        } else if node >= 0 {
            write_file(path, b"", mode)?;
            attach(node, path)?;
        }
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
