//! Starts one command without an init, as `docker run` would, behind nspawn's fences but without nspawn: building a jail
//! ourselves takes a few milliseconds, nspawn's start alone about a hundred.
//!
//! What a newcomer would get wrong: the image is not trusted and may be anything. It may have no /etc, its links lead
//! where they like, and under emulation none of its programs can be used to set things up. So its files are read through
//! [`Root`], here, before the start; everything in the jail is made by system calls alone ([`jail`]).

mod environment;

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};

use crate::domain::passwd::{self, Account};
use crate::sys::caps::Mask;
use crate::sys::devices;
use crate::sys::jail::{self, Jail, Spec};
use crate::sys::mount;
use crate::sys::root::{Root, file_type};
use crate::sys::seccomp::Filter;
use crate::sys::userns::{ActAs, Range};

/// What to start. Nothing in it names a place on the host: what comes from there is a descriptor.
#[derive(Debug)]
pub struct Plan {
    /// A detached, writable, throw-away mount of the image (fsmount(2) of an overlay): files are made in it.
    pub root: OwnedFd,
    /// The guest's host name.
    pub hostname: String,
    /// The command and its words; never empty. A name without a slash is looked for on the guest's PATH.
    pub words: Vec<OsString>,
    /// The image's and the user's variables, later ones win; PATH, HOME and a few more have defaults.
    pub env: Vec<(OsString, OsString)>,
    /// `user[:group]`, the guest's names or numbers; root when none.
    pub user: Option<String>,
    /// Where the command starts, made when it is missing; `/` when none.
    pub workdir: Option<PathBuf>,
    /// What is bound in, in this order.
    pub binds: Vec<Bind>,
    /// A network of its own, with nothing but a loopback device.
    pub private_network: bool,
    /// Give the command a terminal of the guest's own: [`Jail::take_terminal`]. Otherwise it gets descriptors 0 to 2 of
    /// this process as they are; a caller that has a terminal among them should relay instead, since a guest's root can
    /// type into any terminal that it holds (TIOCSTI).
    pub tty: bool,
    /// The guest's /etc/resolv.conf, when it is to be written.
    pub resolv_conf: Option<Vec<u8>>,
    /// The ids that it gets in a user namespace of its own; [`Plan::root`] is shown under them.
    pub ids: Option<Range>,
    /// The lines (binfmt.d(5)) for a registry of interpreters of its own; needs `ids`.
    pub private: Vec<String>,
    /// Detached mounts of files that stand in for the interpreters of those lines, each with the interpreter's path.
    pub copies: Vec<(PathBuf, OwnedFd)>,
    /// An empty cgroup v2 directory for it, which the caller removes afterwards. The device policy hangs on it: without one
    /// the guest's root could make and open any device.
    pub cgroup: Option<OwnedFd>,
}

/// One bind.
#[derive(Debug)]
pub struct Bind {
    /// A detached mount, from `open_tree(OPEN_TREE_CLONE)`.
    pub source: OwnedFd,
    /// Absolute, in the guest.
    pub target: PathBuf,
    /// Nothing in it can be changed from inside.
    pub read_only: bool,
}

/// Why a command was not started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No filter or no first process for this host's architecture, or a kernel without them: start through nspawn instead.
    #[error("starting without nspawn is not supported on {}", std::env::consts::ARCH)]
    Unsupported,
    /// The user or group is not the guest's.
    #[error(transparent)]
    Account(#[from] passwd::Error),
    /// A word, variable or path cannot be handed to a program.
    #[error("'{}' holds a NUL byte or is no absolute path", .0.escape_debug())]
    Word(String),
    /// The command is not in the guest (the front's 127).
    #[error("'{}' was not found in the guest", .0.escape_debug())]
    NotFound(String),
    /// The command is there but cannot be executed (the front's 126).
    #[error("'{}' cannot be executed: {source}", word.escape_debug())]
    NotExecutable {
        /// The command.
        word: String,
        /// As execve(2).
        source: io::Error,
    },
    /// A piece of the guest could not be made.
    #[error("cannot set up {what}: {source}")]
    Setup {
        /// What.
        what: String,
        /// As the system call.
        source: io::Error,
    },
}

fn setup(what: &str) -> impl FnOnce(io::Error) -> Error {
    let what = what.to_owned();
    move |source| Error::Setup { what, source }
}

/// Whether this host can start commands this way.
pub fn is_supported() -> bool {
    jail::is_supported() && Filter::for_host().is_some()
}

/// Starts the command; returns when it has been executed. The guest lives at most as long as the calling thread. Errors:
/// see [`Error`]; no process is left then.
pub fn start(plan: Plan) -> Result<Jail, Error> {
    // A run is discarded; what it shares is not, nor what the caller's streams lead to.
    let filter = Filter::of(plan.binds.iter().all(|bind| bind.read_only) && !crate::sys::process::streams_are_stored())
        .ok_or(Error::Unsupported)?;
    let word = plan.words.first().ok_or_else(|| Error::Word(String::new()))?.to_string_lossy().into_owned();
    let image = Root::from_fd(plan.root, Path::new("/"));
    let account = account(&image, plan.user.as_deref())?;
    let etc = || write_etc(&image, &plan.hostname, plan.resolv_conf.as_deref());
    let acting = plan.ids.map(ActAs::root_of).transpose().map_err(setup("files in the guest"))?;
    etc()?;
    drop(acting);
    if let Some(cgroup) = &plan.cgroup {
        devices::restrict_v2(cgroup.as_fd(), &device_rules(&plan.binds)).map_err(setup("the device policy"))?;
    }
    let env = environment::complete(&plan.env, &account, &plan.hostname, plan.tty);
    let programs = environment::programs(&plan.words[0], &env);
    let spec = Spec {
        root: image.into_fd(),
        hostname: c_string(plan.hostname.into())?,
        private_network: plan.private_network,
        binds: plan.binds.into_iter().map(bind).collect::<Result<_, _>>()?,
        programs: c_strings(programs)?,
        words: c_strings(plan.words)?,
        env: c_strings(env.into_iter().map(environment::line))?,
        init_env: vec![c"container=pronto".to_owned()],
        uid: account.uid,
        gid: account.gid,
        groups: account.groups,
        workdir: steps(plan.workdir.as_deref().unwrap_or(Path::new("/")))?,
        terminal: plan.tty,
        caps: Mask::nspawn(plan.private_network),
        filter,
        ids: plan.ids,
        private: c_strings(plan.private.into_iter().map(OsString::from))?,
        copies: plan
            .copies
            .into_iter()
            .map(|(of, copy)| Ok((c_string(of.into())?, copy)))
            .collect::<Result<_, Error>>()?,
        sysfs: shared_sysfs(plan.ids.is_some() && !plan.private_network)?,
        cgroup: plan.cgroup,
    };
    jail::spawn(&spec).map_err(|error| match error {
        jail::Error::Unsupported => Error::Unsupported,
        jail::Error::Setup { what, source } => Error::Setup { what, source },
        jail::Error::Caller(source) => Error::Setup { what: "the guest's first process".to_owned(), source },
        jail::Error::Exec { source } if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            Error::NotFound(word)
        }
        jail::Error::Exec { source } => Error::NotExecutable { word, source },
    })
}

/// Only who owns a network namespace may mount a sysfs that shows it: a guest with ids of its own on the host's network gets a
/// copy of the host's mount, without what is mounted on it there.
fn shared_sysfs(wanted: bool) -> Result<Option<OwnedFd>, Error> {
    wanted.then(|| mount::clone_tree(Path::new("/sys"), false)).transpose().map_err(setup("/sys"))
}

/// The user, by the guest's own files; a file that is missing or is no file is empty.
fn account(image: &Root, user: Option<&str>) -> Result<Account, Error> {
    let read = |path: &str| image.read(path, 4 << 20).unwrap_or_default();
    Ok(passwd::resolve(user.unwrap_or_default(), &read("etc/passwd"), &read("etc/group"))?)
}

/// Writes what a network needs to the guest's /etc: the resolver's configuration when there is one, and the names of this
/// machine when the image has none.
fn write_etc(image: &Root, hostname: &str, resolv_conf: Option<&[u8]>) -> Result<(), Error> {
    let hosts = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let empty = |name: &str| image.stat(&Path::new("etc").join(name)).map_or(true, |s| s.st_size == 0);
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    files.extend(resolv_conf.map(|text| ("resolv.conf", text)));
    let name = format!("{hostname}\n");
    files.extend(empty("hosts").then_some(("hosts", hosts.as_bytes())));
    files.extend(empty("hostname").then_some(("hostname", name.as_bytes())));
    if files.is_empty() {
        return Ok(());
    }
    let etc = open_etc(image).map_err(setup("/etc"))?;
    for (name, text) in files {
        if image.read(Path::new("etc").join(name), 1 << 20).is_ok_and(|held| held == text) {
            continue;
        }
        replace(&etc, name, text).map_err(setup(&format!("/etc/{name}")))?;
    }
    Ok(())
}

fn open_etc(image: &Root) -> io::Result<OwnedFd> {
    match image.open_at(Path::new("etc"), OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            nix::sys::stat::mkdirat(image.fd(), "etc", Mode::from_bits_truncate(0o755))?;
            image.open_at(Path::new("etc"), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
        }
        other => other,
    }
}

/// A link (to systemd-resolved's file, say) is replaced, not followed.
fn replace(dir: &OwnedFd, name: &str, text: &[u8]) -> io::Result<()> {
    match nix::unistd::unlinkat(dir, name, nix::unistd::UnlinkatFlags::NoRemoveDir) {
        Err(nix::errno::Errno::ENOENT) | Ok(()) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = nix::fcntl::openat(dir, name, flags, Mode::from_bits_truncate(0o644))?;
    nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(0o644))?;
    io::Write::write_all(&mut std::fs::File::from(file), text)
}

/// Device nodes that the user binds in may be opened, as with nspawn.
fn device_rules(binds: &[Bind]) -> Vec<devices::Rule> {
    let rule = |bind: &Bind| {
        let stat = nix::sys::stat::fstat(&bind.source).ok()?;
        let kind = match file_type(&stat) {
            SFlag::S_IFBLK => devices::Kind::Block,
            SFlag::S_IFCHR => devices::Kind::Char,
            _ => return None,
        };
        let (major, minor) = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
        Some(devices::Rule::open(kind, major, minor, bind.read_only))
    };
    binds.iter().filter_map(rule).collect()
}

fn bind(bind: Bind) -> Result<jail::Bind, Error> {
    let stat = nix::sys::stat::fstat(&bind.source).map_err(|e| setup("a bind mount")(e.into()))?;
    let mut parents = steps(&bind.target)?;
    let target = parents.pop().ok_or_else(|| Error::Word(bind.target.display().to_string()))?;
    let is_dir = file_type(&stat) == SFlag::S_IFDIR;
    Ok(jail::Bind { source: bind.source, target, parents, is_dir, read_only: bind.read_only })
}

/// `/a`, `/a/b`, `/a/b/c`; `..` is refused, since it means something else behind a link.
fn steps(path: &Path) -> Result<Vec<CString>, Error> {
    let refuse = || Error::Word(path.display().to_string());
    if !path.is_absolute() {
        return Err(refuse());
    }
    let mut so_far = PathBuf::from("/");
    let mut steps = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                so_far.push(name);
                steps.push(c_string(so_far.clone().into())?);
            }
            Component::ParentDir | Component::Prefix(_) => return Err(refuse()),
        }
    }
    if steps.is_empty() { Ok(vec![c"/".to_owned()]) } else { Ok(steps) }
}

fn c_string(word: OsString) -> Result<CString, Error> {
    let lossy = word.to_string_lossy().into_owned();
    CString::new(word.into_vec()).map_err(|_| Error::Word(lossy))
}

fn c_strings(words: impl IntoIterator<Item = OsString>) -> Result<Vec<CString>, Error> {
    words.into_iter().map(c_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let words =
            |path: &str| steps(Path::new(path)).map(|v| v.into_iter().map(|c| c.into_string().unwrap()).collect());
        assert_eq!(words("/a/./b//c/").unwrap(), ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(words("/").unwrap(), ["/"]);
        for bad in ["a/b", "", "/a/../b", "/a\0b"] {
            let refused: Result<Vec<String>, _> = words(bad);
            assert!(matches!(refused, Err(Error::Word(_))), "{bad:?}");
        }
    }

    #[test]
    fn etc_is_written_in_the_image_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("etc")).unwrap();
        let image = Root::open(dir.path()).unwrap();
        assert!(write_etc(&image, "h", Some(b"x")).is_err(), "a link out of the image leads to nothing inside it");
        std::fs::remove_file(dir.path().join("etc")).unwrap();
        write_etc(&image, "guest", Some(b"nameserver 192.0.2.1\n")).unwrap();
        assert_eq!(image.read_text("etc/resolv.conf").unwrap(), "nameserver 192.0.2.1\n");
        assert_eq!(image.read_text("etc/hostname").unwrap(), "guest\n");
        let victim = outside.path().join("victim");
        crate::sys::fs::write_atomic(&victim, b"kept", 0o644).unwrap();
        std::fs::remove_file(dir.path().join("etc/resolv.conf")).unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("etc/resolv.conf")).unwrap();
        write_etc(&image, "other", Some(b"two")).unwrap();
        assert_eq!(image.read_text("etc/resolv.conf").unwrap(), "two");
        assert_eq!(std::fs::read(&victim).unwrap(), b"kept");
        assert_eq!(image.read_text("etc/hostname").unwrap(), "guest\n", "the image's own name stays");
    }
}
