//! The child that becomes the backend's program: it makes every mount of the domain in a mount namespace of its own and
//! executes. What a newcomer would get wrong: what it needs from the host is opened *before* the fork, because /tmp, /proc
//! and nspawn's own directory under /run are covered in here.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::backend::Launch;
use crate::sys::cgroup::Cage;
use crate::sys::gate::Gate;
use crate::sys::seccomp::Filter;
use crate::sys::{fail, jail, mount, ns, process, pty, signal};

/// What the child needs, all of it ready.
#[derive(Debug)]
pub struct Stage {
    /// Where the tmpfs with the mount points goes: a directory of the host's that is covered.
    pub base: PathBuf,
    /// The guest's root, detached.
    pub root: OwnedFd,
    /// Bind sources, detached, and whether each is a directory.
    pub binds: Vec<(OwnedFd, bool)>,
    /// The guest's end of the console.
    pub terminal: OwnedFd,
    /// The domain's cgroups.
    pub cage: Cage,
    /// Our own fence, when nspawn is to build none.
    pub filter: Option<Filter>,
    /// The program, found before the fork.
    pub program: PathBuf,
    /// What stands before the guest's init, when it has to wait for its interpreter.
    pub gate: Option<Gate>,
    /// Its words and variables.
    pub launch: Launch,
}

/// A directory that nspawn uses for itself and that nobody else needs to see: the deepest one of `/run/systemd/nspawn`,
/// `/run/systemd`, `/run` that exists, so that nothing has to be made on the host.
pub fn base() -> PathBuf {
    let candidates = ["/run/systemd/nspawn", "/run/systemd", "/run"];
    PathBuf::from(candidates.into_iter().find(|p| Path::new(p).is_dir()).unwrap_or("/run"))
}

/// Where the guest's root is, as the program sees it.
pub fn root_path(base: &Path) -> PathBuf {
    base.join(".pronto/root")
}

/// Where the source of the bind mount number `n` is.
pub fn bind_path(base: &Path, n: usize) -> PathBuf {
    base.join(format!(".pronto/bind{n}"))
}

impl Stage {
    /// Runs in the child; returns only what went wrong.
    pub fn execute(self) -> io::Error {
        match self.set_up() {
            Ok(()) => self.replace(),
            Err(e) => e,
        }
    }

    fn set_up(&self) -> io::Result<()> {
        let step = |what: &'static str| move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"));
        // "0" is the writing process itself: its PID in here is not the one that the cgroup tree knows.
        self.cage.join_guest(0).map_err(|e| io::Error::other(e.to_string()))?;
        fail::point("namespace")?;
        mount::make_slave().map_err(step("making the mounts slaves"))?;
        mount::tmpfs(&self.base, "mode=0755").map_err(step("a tmpfs for the mount points"))?;
        let root = root_path(&self.base);
        std::fs::create_dir_all(&root)?;
        mount::attach(self.root.as_fd(), &root).map_err(step("attaching the root"))?;
        for (n, (source, is_dir)) in self.binds.iter().enumerate() {
            let point = bind_path(&self.base, n);
            if *is_dir {
                std::fs::create_dir(&point)?;
            } else {
                std::fs::File::create(&point)?;
            }
            mount::attach(source.as_fd(), &point).map_err(step("attaching a bind mount"))?;
        }
        // nspawn makes a directory for itself in /tmp; killed, it would leave it behind.
        mount::tmpfs(Path::new("/tmp"), "mode=1777").map_err(step("a tmpfs on /tmp"))?;
        mount::proc(Path::new("/proc")).map_err(step("mounting /proc"))?;
        pty::make_controlling(self.terminal.as_fd()).map_err(step("taking the terminal"))
    }

    fn replace(self) -> io::Error {
        let words = c_strings(self.launch.words.iter());
        let env = c_strings(self.launch.env.iter().map(|(name, value)| {
            let mut word = name.clone();
            word.push("=");
            word.push(value);
            word
        }));
        let program = CString::new(self.program.as_os_str().as_bytes());
        let (Ok(words), Ok(env), Ok(program)) = (words, env, program) else {
            return io::Error::new(io::ErrorKind::InvalidInput, "a NUL byte in the words or the environment");
        };
        signal::reset();
        for number in 0..=2 {
            if let Err(e) = pty::put_at(self.terminal.as_fd(), number) {
                return e;
            }
        }
        if let Some(Err(e)) = self.gate.as_ref().map(Gate::put) {
            return e;
        }
        if let Some(filter) = &self.filter {
            // Under the filter nspawn cannot make the guest a keyring of its own any more: it inherits this one.
            jail::fresh_keyring();
            if let Err(e) = filter.install() {
                return e;
            }
        }
        match nix::unistd::execve(&program, &words, &env) {
            Err(e) => io::Error::new(io::Error::from(e).kind(), format!("{}: {}", self.program.display(), e.desc())),
            Ok(never) => match never {},
        }
    }

    /// Starts the child in pid and mount namespaces of its own. Errors: what went wrong in the child before it was the
    /// program; nothing is left of it.
    pub fn spawn(self) -> io::Result<ns::Process> {
        use nix::sched::CloneFlags;
        process::spawn_reporting(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS, move || self.execute())
    }
}

fn c_strings<S: Into<OsString>>(words: impl Iterator<Item = S>) -> Result<Vec<CString>, std::ffi::NulError> {
    words.map(|w| CString::new(w.into().as_bytes())).collect()
}
