//! The program under test, each time with a store of its own (`--root`), and the domains that a test makes. What a newcomer
//! would get wrong: the stores lie on a tmpfs where there is room, for an ext4 without a journal takes seconds to delete a tree;
//! monitors are sessions of their own and outlive the test that started them, so a dropped store destroys what runs in it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use ::pronto::sys::lock::Lock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::fixtures;
use super::registry::{self, Registry};
use super::run::{Out, Run};
use super::{eventually, secs, skip};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_pronto");

/// A store of its own.
#[derive(Debug)]
pub struct Pronto {
    root: PathBuf,
}

/// Where this run of the ring keeps its stores.
struct Work {
    dir: PathBuf,
    _lock: Lock,
}

/// A directory for stores: `PRONTO_TEST_DIR`, else /dev/shm when there is room in memory, else /var/tmp. Both can carry an
/// overlay's upper layer, which a root on an overlay (a container's) cannot.
pub fn work() -> &'static Path {
    static WORK: OnceLock<Work> = OnceLock::new();
    let work = WORK.get_or_init(|| {
        let base = std::env::var_os("PRONTO_TEST_DIR").map_or_else(roomy, PathBuf::from);
        sweep(&base);
        let dir = base.join(format!("pronto-ring.{}", std::process::id()));
        ::pronto::sys::fs::private_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let lock = Lock::wait(&dir.join("lock")).expect("the work directory's lock");
        Work { dir, _lock: lock }
    });
    &work.dir
}

fn roomy() -> PathBuf {
    let shm = Path::new("/dev/shm");
    let is_tmpfs =
        super::read("/proc/self/mountinfo").lines().any(|l| l.contains(" /dev/shm ") && l.contains(" - tmpfs "));
    let info = super::read("/proc/meminfo");
    let available = info
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))
        .and_then(|v| v.trim().split(' ').next()?.parse::<u64>().ok());
    let room = ::pronto::sys::fs::free_bytes(shm).unwrap_or(0).min(available.unwrap_or(0) * 1024);
    if is_tmpfs && room > 10 << 30 { shm.to_owned() } else { PathBuf::from("/var/tmp") }
}

/// Removes what earlier runs left that were killed.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let dir = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with("pronto-ring.");
        if ours && !Lock::is_held(&dir.join("lock")).unwrap_or(true) {
            for store in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                Pronto { root: store.path() }.end();
            }
            let _ = std::fs::remove_dir_all(&dir);
        }
    }
}

/// An empty directory (0700) for a test's files; it goes with the ring.
pub fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let dir = work().join(format!("{name}.{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    ::pronto::sys::fs::private_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    dir
}

/// The store that the shared cases use, and in which slow things (unpacked, provisioned images) stay for all.
pub fn shared() -> &'static Pronto {
    static SHARED: OnceLock<Pronto> = OnceLock::new();
    SHARED.get_or_init(|| Pronto { root: work().join("shared") })
}

/// The registry that all cases use. Skips the test where none can be had.
pub fn registry() -> &'static Registry {
    if let Some(missing) = registry::missing() {
        skip!("{missing}");
    }
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| Registry::start(&scratch("registry")))
}

/// A running arm64 domain (Debian 12) that cases may use but not change.
pub fn shared_arm64() -> &'static str {
    static MADE: Mutex<()> = Mutex::new(());
    shared_guest(&MADE, "shared-arm64", fixtures::BOOKWORM_ARM64)
}

/// A running domain of the host's own architecture (Debian 12).
pub fn shared_native() -> &'static str {
    static MADE: Mutex<()> = Mutex::new(());
    shared_guest(&MADE, "shared-native", fixtures::BOOKWORM_AMD64)
}

/// Whoever needs it first makes it, and the others wait, each for the guest that it needs.
fn shared_guest(made: &Mutex<()>, name: &'static str, recipe: fixtures::Recipe) -> &'static str {
    let _one_at_a_time = made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if shared().row(name).is_none() {
        shared().create(name, recipe.tree(), &["--arch", recipe.arch]);
    }
    name
}

impl Pronto {
    /// A new, empty store.
    pub fn fresh() -> Pronto {
        Pronto { root: scratch("store") }
    }

    /// A store in a directory that the test chose.
    pub fn at(root: &Path) -> Pronto {
        Pronto { root: root.to_owned() }
    }

    /// Its `--root`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `pronto --root STORE WORDS…`
    pub fn cmd<S: AsRef<std::ffi::OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Run {
        Run::new(BINARY)
            .arg("--root")
            .arg(&self.root)
            .args(words)
            .env("PRONTO_MIRROR", fixtures::mirror())
            .limit(secs(120))
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Out {
        self.cmd(words).run()
    }

    /// Runs a command in a domain; returns its stdout without the white space around it. Panics unless it ended with 0.
    #[track_caller]
    pub fn exec(&self, name: &str, words: &[&str]) -> String {
        self.cmd(["exec", name, "--"]).args(words).run().ok().text().trim().to_owned()
    }

    /// Makes a domain and waits for it. Panics unless that went well and nothing was printed on stdout.
    #[track_caller]
    pub fn create(&self, name: &str, image: impl AsRef<std::ffi::OsStr>, options: &[&str]) -> Out {
        self.cmd(["create", "--name", name]).args(options).arg(image).limit(secs(400)).run().ok().silent()
    }

    /// One domain's row of `list --all --format json`, if it is there.
    pub fn row(&self, name: &str) -> Option<Value> {
        self.rows().into_iter().find(|row| row["name"] == name)
    }

    /// All rows of `list --all --format json`.
    #[track_caller]
    pub fn rows(&self) -> Vec<Value> {
        let out = self.run(["list", "--all", "--format", "json"]).ok();
        let parsed: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {out}"));
        parsed.as_array().unwrap_or_else(|| panic!("no JSON array: {out}")).clone()
    }

    /// The state that `list` shows (`running`, `paused`, `shut off`…); `absent` without a row.
    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        self.row(name).map_or_else(|| "absent".to_owned(), |row| row["state"].as_str().unwrap_or("?").to_owned())
    }

    /// Waits for a state.
    #[track_caller]
    pub fn until_state(&self, name: &str, state: &str, limit: Duration) {
        eventually(limit, &format!("'{name}' is {state} (now {})", self.state(name)), || {
            (self.state(name) == state).then_some(())
        });
    }

    /// The domid. Panics when it does not run.
    #[track_caller]
    pub fn domid(&self, name: &str) -> u32 {
        let out = self.run(["domid", name]).ok();
        out.text().trim().parse().unwrap_or_else(|e| panic!("no domid ({e}): {out}"))
    }

    /// PID, on the host, of a domain's init.
    #[track_caller]
    pub fn leader(&self, name: &str) -> i32 {
        let row = self.row(name).unwrap_or_else(|| panic!("no domain {name}"));
        row["leader"].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_else(|| panic!("no leader in {row}"))
    }

    /// The domain's directory in one cgroup hierarchy (`""` for v2, else a v1 controller), found from its init's own place: what
    /// lies above the `payload` that nspawn made.
    #[track_caller]
    pub fn cgroup(&self, name: &str, controller: &str) -> Option<PathBuf> {
        let text = super::read(format!("/proc/{}/cgroup", self.leader(name)));
        let path = text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (kinds, path) = (fields.next()?, fields.next()?);
            kinds.split(',').any(|k| k == controller).then(|| path.to_owned())
        })?;
        let ours = path.split_once("/payload").map_or(path.as_str(), |(above, _)| above);
        let mount = super::read("/proc/self/mountinfo").lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let fits = if controller.is_empty() {
                right.starts_with("cgroup2 ")
            } else {
                right.starts_with("cgroup ") && right.rsplit(' ').next()?.split(',').any(|o| o == controller)
            };
            fits.then(|| left.split(' ').nth(4).map(str::to_owned)).flatten()
        })?;
        Some(PathBuf::from(mount).join(ours.trim_start_matches('/')))
    }

    /// PIDs on the host of everything that belongs to a domain's monitor: the process that holds our binary and this store's
    /// path in its words, and is not a command of the test's.
    pub fn monitors(&self) -> Vec<i32> {
        let root = self.root.to_string_lossy().into_owned();
        let binary = Path::new(BINARY);
        pids()
            .filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary))
            .filter(|pid| {
                let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&words).contains(&root)
            })
            .collect()
    }

    /// PIDs on the host of the nspawns that stand above a domain's init.
    pub fn nspawn_of(&self, name: &str) -> Option<i32> {
        let mut pid = self.leader(name);
        for _ in 0..4 {
            pid = parent(pid)?;
            let words = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            if words.starts_with(b"systemd-nspawn") {
                return Some(pid);
            }
        }
        None
    }

    /// Destroys what runs, forgets what does not, and removes the store.
    fn end(&self) {
        if !self.root.join("domains").exists() {
            let _ = std::fs::remove_dir_all(&self.root);
            return;
        }
        let out = self.cmd(["list", "--all", "--format", "json"]).run();
        let rows: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        for row in rows.as_array().into_iter().flatten() {
            let name = row["name"].as_str().unwrap_or_default();
            if row["domid"].is_number() {
                let _ = self.run(["destroy", name]);
            }
            let _ = self.run(["delete", name]);
        }
        for pid in self.monitors() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Drop for Pronto {
    fn drop(&mut self) {
        self.end();
    }
}

/// Every PID on the host.
pub fn pids() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_string_lossy().parse().ok())
}

/// A process's parent.
pub fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// The names of pronto's own entries in the kernel's registry.
pub fn handlers() -> Vec<String> {
    let dir = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    dir.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.starts_with("pronto-")).collect()
}

/// Ends everything: stores, and the entries that are in the kernel's registry now and are not among `before`.
pub fn end(before: &[String]) {
    shared().end();
    for name in handlers().iter().filter(|n| !before.contains(n)) {
        let arch = name.trim_start_matches("pronto-");
        let _ = Run::new(BINARY).args(["binfmt", "unregister", arch]).run();
        let _ = std::fs::OpenOptions::new()
            .write(true)
            .open(Path::new("/proc/sys/fs/binfmt_misc").join(name))
            .and_then(|mut f| {
                use std::io::Write;
                f.write_all(b"-1")
            });
    }
    let _ = std::fs::remove_dir_all(work());
}

/// Ends the shared guests but keeps their store's images.
pub fn unshare() {
    for row in if shared().root.join("domains").exists() { shared().rows() } else { vec![] } {
        let name = row["name"].as_str().unwrap_or_default().to_owned();
        if row["domid"].is_number() {
            shared().run(["destroy", &name]).ok();
        }
        if shared().row(&name).is_some() {
            shared().run(["delete", &name]).ok();
        }
    }
}
