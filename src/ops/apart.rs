//! `pronto __apart PLACE PROGRAM WORD…`: runs a program as root, apart from the host. Where foreign programs are to be started
//! without the host's registry knowing, in a user namespace that has the host's own ids, and a registry of its own; where the
//! program and all that it starts are another system's, in that system's root, which takes what they write and is thrown away.
//! A bootstrap of a foreign Debian runs like this.
//!
//! What a newcomer would get wrong: this is no fence against malice. Its root is the host's root; what it lacks in a user
//! namespace are rights over the kernel (device nodes, the host's mounts). The other root is a fence against mistakes: no path
//! in it leads to a file of the host's that can be written. All of it ends with this process.
//! Source: user_namespaces(7), pid_namespaces(7), pivot_root(2).

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, SFlag};
use serde::{Deserialize, Serialize};

use crate::binfmt;
use crate::sys::overlay::{Lower, Overlay};
use crate::sys::process;
use crate::sys::root::file_type;
use crate::sys::userns::{self, Range};
use crate::sys::{mount, ns};

/// Where a program runs. It is handed to the process as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// The lines (binfmt.d(5)) of a registry of interpreters of its own, in a user namespace; without any the host's serves.
    pub lines: Vec<String>,
    /// The system whose root it has; the host's own when none.
    pub system: Option<System>,
}

/// A system that is not the host's, and what it works on.
#[derive(Debug, Serialize, Deserialize)]
pub struct System {
    /// Its trees, the topmost first; they are not changed.
    pub lowers: Vec<PathBuf>,
    /// An empty directory, which afterwards holds what was written anywhere but in `target`, `/dev`, `/run` and `/tmp`.
    pub upper: PathBuf,
    /// An empty directory on the same file system, for overlayfs.
    pub work: PathBuf,
    /// The directory to work on. It is [`TARGET`] in there.
    pub target: PathBuf,
}

/// Where the directory to work on is in another system's root.
pub const TARGET: &str = "/mnt";

/// What another system sees of the host's, where the host has it, and cannot write: how a mirror is found, and why it is trusted.
pub const SHARED: [&str; 7] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/apt/trusted.gpg",
    "/etc/apt/trusted.gpg.d",
    "/etc/ssl",
    "/usr/share/ca-certificates",
    "/usr/share/keyrings",
];

const NODES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// All ids there are, as they are.
const EVERYBODY: Range = Range { first: 0, count: u32::MAX };

/// Runs it; the exit status is the program's, 125 when it could not be started.
pub fn main(words: &[OsString]) -> u8 {
    match run(words) {
        Ok(status) => u8::try_from(status).unwrap_or(255),
        Err(why) => {
            tracing::error!("{why}");
            let _ = io::Write::write_all(&mut io::stderr(), format!("E: {why}\n").as_bytes());
            125
        }
    }
}

fn run(words: &[OsString]) -> io::Result<i32> {
    let [place, command @ ..] = words else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
    let place: Place = serde_json::from_slice(place.as_bytes())?;
    let (mapped, tell) = process::pipe()?;
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if !place.lines.is_empty() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    // Stacked by the host's root: in a user namespace overlayfs cannot write all that it has to.
    let root = place.system.as_ref().map(stack).transpose()?;
    let held = process::above(tell.as_fd(), 3)?;
    drop(tell);
    let child = ns::spawn(flags, || {
        let error = inside(mapped, &place, root, command);
        let _ = io::Write::write_all(&mut io::stderr(), format!("E: {error}\n").as_bytes());
        125
    })?;
    if !place.lines.is_empty() {
        userns::map(child.pid.as_raw(), EVERYBODY)?;
    }
    nix::unistd::write(&held, b"m")?;
    Ok(ns::shell_status(child.wait()?))
}

fn stack(system: &System) -> io::Result<OwnedFd> {
    let lowers = system.lowers.iter().cloned().map(Lower::from).collect();
    let upper = Some((system.upper.clone(), system.work.clone()));
    Overlay { lowers, upper, ids: None }.detached_for_layer()
}

/// In the child; returns only what went wrong.
fn inside(mut mapped: std::fs::File, place: &Place, root: Option<OwnedFd>, command: &[OsString]) -> io::Error {
    let prepared = (|| -> io::Result<Vec<CString>> {
        io::Read::read_exact(&mut mapped, &mut [0])?;
        mount::make_slave()?;
        mount::proc(Path::new("/proc"))?;
        let registry = (!place.lines.is_empty()).then(|| binfmt::private(&place.lines)).transpose()?;
        if let (Some(system), Some(root)) = (&place.system, root) {
            enter(system, &root)?;
        }
        if let Some(registry) = registry {
            // Mounted where everybody looks for it, and so held as long as this mount namespace is there.
            mount::attach(registry.as_fd(), Path::new("/proc/sys/fs/binfmt_misc"))?;
        }
        let nul = |_| io::Error::from(io::ErrorKind::InvalidInput);
        command.iter().map(|w| CString::new(w.as_bytes()).map_err(nul)).collect()
    })();
    let words = match prepared {
        Ok(words) if !words.is_empty() => words,
        Ok(_) => return io::Error::from(io::ErrorKind::InvalidInput),
        Err(error) => return error,
    };
    match nix::unistd::execvp(&words[0], &words) {
        Err(error) => error.into(),
        Ok(never) => match never {},
    }
}

/// Leaves the host's tree for the other system's. What that one gets of the host's is taken before; what is mounted there comes
/// after, when no path leads back.
fn enter(system: &System, root: &OwnedFd) -> io::Result<()> {
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let proc = mount::detached(c"proc")?;
    let target = mount::clone_tree(&system.target, true)?;
    let mut binds = Vec::new();
    for path in NODES.into_iter().chain(SHARED) {
        match mount::clone_tree(Path::new(path), true) {
            Ok(tree) => binds.push((path, tree)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    mount::enter(root.as_fd())?;
    mount::attach(proc.as_fd(), Path::new("/proc"))?;
    mount::tmpfs(Path::new("/dev"), "mode=0755,size=1m")?;
    mount::tmpfs(Path::new("/run"), "mode=0755")?;
    mount::tmpfs(Path::new("/tmp"), "mode=1777")?;
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        std::os::unix::fs::symlink(format!("/proc/self/{target}"), format!("/dev/{name}"))?;
    }
    for (path, tree) in binds {
        if !path.starts_with("/dev/") {
            mount::set_read_only(tree.as_fd(), true)?;
        }
        put(&tree, Path::new(path))?;
    }
    put(&target, Path::new(TARGET))
}

/// Mounts a tree or a file there; what it is mounted on is made where it is missing.
fn put(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    if file_type(&nix::sys::stat::fstat(tree)?) == SFlag::S_IFDIR {
        std::fs::create_dir_all(path)?;
    } else {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    }
    mount::attach(tree.as_fd(), path)
}
