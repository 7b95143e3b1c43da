//! Guests made of Debian packages: built once by mmdebstrap from this machine's own mirror, kept in the user's cache directory
//! under the hash of their recipe, and never written to again. What a newcomer would get wrong: the cache is `0700`, because a
//! Debian tree holds setuid programs; and a foreign tree needs its CPU's interpreter while it is built, long before pronto is
//! tried, so that a line of the tests' own stands in the kernel's registry just for that time.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use ::pronto::sys::fs::private_dir;
use ::pronto::sys::lock::Lock;

use super::elf::{self, Cpu};
use super::harness::say;
use super::run::Run;
use super::{secs, skip};

/// A Debian tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Recipe {
    /// The release.
    pub suite: &'static str,
    /// Debian's name of the architecture.
    pub arch: &'static str,
    /// With systemd, dbus and a few tools; or the bare minimum. Either has a user `tester` (1000) and no password for root.
    pub init: bool,
    /// Packages beside those.
    pub more: &'static str,
}

/// Debian 11, arm64, with an init.
pub const BULLSEYE_ARM64: Recipe = Recipe { suite: "bullseye", arch: "arm64", init: true, more: "" };
/// Debian 12, arm64, with an init.
pub const BOOKWORM_ARM64: Recipe = Recipe { suite: "bookworm", arch: "arm64", init: true, more: "" };
/// Debian 13, arm64, with an init.
pub const TRIXIE_ARM64: Recipe = Recipe { suite: "trixie", arch: "arm64", init: true, more: "" };
/// Debian 12, amd64, with an init.
pub const BOOKWORM_AMD64: Recipe = Recipe { suite: "bookworm", arch: "amd64", init: true, more: "" };
/// Debian 12, arm64, without an init: what container images are like.
pub const BARE_ARM64: Recipe = Recipe { suite: "bookworm", arch: "arm64", init: false, more: "" };
/// Debian 12, amd64, without an init.
pub const BARE_AMD64: Recipe = Recipe { suite: "bookworm", arch: "amd64", init: false, more: "" };

/// Debian 12 for 32-bit ARM (v7), with an init.
pub const BOOKWORM_ARMHF: Recipe = Recipe { suite: "bookworm", arch: "armhf", init: true, more: "" };
/// Debian 12 for IBM's mainframes, whose bytes stand the other way round, with an init.
pub const BOOKWORM_S390X: Recipe = Recipe { suite: "bookworm", arch: "s390x", init: true, more: "" };

/// Debian 12, arm64, with three other inits, of which a test makes one `/sbin/init`.
pub const OTHER_INITS_ARM64: Recipe =
    Recipe { suite: "bookworm", arch: "arm64", init: false, more: "sysvinit-core,openrc,busybox-static,procps" };

/// All of them, the longest to build first.
pub const ALL: [Recipe; 9] = [
    BOOKWORM_ARM64,
    OTHER_INITS_ARM64,
    BULLSEYE_ARM64,
    BOOKWORM_S390X,
    BOOKWORM_ARMHF,
    TRIXIE_ARM64,
    BARE_ARM64,
    BOOKWORM_AMD64,
    BARE_AMD64,
];

const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,sudo,procps,login,util-linux";

/// Done in every tree, by the host's shell with the tree as `$1`. Root without a password: a console test logs in.
const ACCOUNTS: &str = r#"sed -i "s/^root:[^:]*:/root::/" "$1/etc/shadow"
echo "tester:x:1000:1000:Tester:/home/tester:/bin/sh" >>"$1/etc/passwd"
echo "tester:!:19000:0:99999:7:::" >>"$1/etc/shadow"
echo "tester:x:1000:" >>"$1/etc/group"
mkdir -p "$1/home/tester" && chown 1000:1000 "$1/home/tester""#;

/// A guest without systemd that is ready in a moment, for tests of pronto's verbs and accidents: Debian's bare tree with
/// an init of its own. It says that it is ready, reaps, and powers off as systemd does, by SIGRTMIN+4.
pub const LIGHT_INIT: &str = r#"#!/usr/bin/perl
use Socket;
$SIG{NUM38} = sub { exit 0 };
socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!\n";
send($s, "READY=1", 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})) or die "send: $!\n";
$SIG{CHLD} = sub { 1 while waitpid(-1, 1) > 0 };
while (1) { sleep 1000 }
"#;

impl Recipe {
    /// What the cache's key is made of: everything that decides what is in the tree, but not this machine's mirror.
    fn text(self) -> String {
        let include = self.include();
        format!("1\n{} {} minbase\n{include}\n{ACCOUNTS}\n", self.suite, self.arch)
    }

    fn include(self) -> &'static str {
        if self.init { PACKAGES } else { self.more }
    }

    /// The name that it has in the cache.
    pub fn key(self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.text().as_bytes());
        super::oci::hex(&digest.as_ref()[..12])
    }

    fn label(self) -> String {
        let kind = match (self.init, self.more) {
            (true, _) => "",
            (false, "") => " without an init",
            (false, _) => " with other inits",
        };
        format!("{} {}{kind}", self.suite, self.arch)
    }

    /// The unpacked tree, built now if need be. Skips the test when this machine's mirror does not carry the release.
    pub fn tree(self) -> PathBuf {
        self.built();
        cache().join(self.key())
    }

    /// The same as a tar archive.
    pub fn tar(self) -> PathBuf {
        self.built();
        cache().join(format!("{}.tar", self.key()))
    }

    fn built(self) {
        match self.build() {
            Ok(()) => {}
            Err(Trouble::NotCarried(why)) => skip!("{}: {why}", self.label()),
            Err(Trouble::Failed(why)) => panic!("cannot build {}: {why}", self.label()),
        }
    }

    /// Builds it unless that was done, or tried, before.
    fn build(self) -> Result<(), Trouble> {
        static TRIED: OnceLock<Mutex<HashMap<Recipe, Result<(), Trouble>>>> = OnceLock::new();
        let tried = TRIED.get_or_init(Mutex::default);
        if let Some(known) = tried.lock().unwrap().get(&self) {
            return known.clone();
        }
        let result = self.build_under_lock();
        tried.lock().unwrap().insert(self, result.clone());
        result
    }

    fn build_under_lock(self) -> Result<(), Trouble> {
        let (tar, tree) = (cache().join(format!("{}.tar", self.key())), cache().join(self.key()));
        let _lock =
            Lock::wait(&cache().join(format!("{}.lock", self.key()))).map_err(|e| Trouble::Failed(e.to_string()))?;
        if !tar.exists() {
            let begin = Instant::now();
            say(&format!("fixture {}: building it from Debian packages (once)", self.label()));
            self.bootstrap(&tar)?;
            say(&format!("fixture {}: built in {:.0} s", self.label(), begin.elapsed().as_secs_f64()));
        }
        if !tree.exists() {
            let half = cache().join(format!("{}.half", self.key()));
            let _ = std::fs::remove_dir_all(&half);
            std::fs::create_dir(&half).map_err(|e| Trouble::Failed(e.to_string()))?;
            Run::new("tar")
                .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
                .arg(&tar)
                .arg("-C")
                .arg(&half)
                .limit(secs(300))
                .run()
                .ok();
            std::fs::rename(&half, &tree).map_err(|e| Trouble::Failed(e.to_string()))?;
        }
        Ok(())
    }

    fn bootstrap(self, tar: &Path) -> Result<(), Trouble> {
        let _interpreter = (self.arch != "amd64").then(|| Interpreter::needed_for(self.arch));
        let half = tar.with_extension("tar.half");
        let _ = std::fs::remove_file(&half);
        // mmdebstrap looks for qemu-user by the name that it had as qemu-user-static, which newer packages lack.
        let mut run = mmdebstrap().args(["--quiet", "--skip=check/qemu", "--format=tar", "--variant=minbase"]);
        run = run.arg(format!("--architectures={}", self.arch));
        if !self.include().is_empty() {
            run = run.arg(format!("--include={}", self.include()));
        }
        run = run.arg(format!("--customize-hook={ACCOUNTS}"));
        run = run.arg(self.suite).arg(&half).arg(format!("deb {} {} main", mirror(), self.suite));
        let out = run.limit(secs(20 * 60)).run();
        super::write(cache().join(format!("{}.log", self.key())), out.stderr.clone());
        if out.code() != 0 {
            let said = out.err();
            if said.contains("does not have a Release file") || said.contains("404  Not Found") {
                return Err(Trouble::NotCarried(format!("the mirror {} does not carry it", mirror())));
            }
            return Err(Trouble::Failed(out.to_string()));
        }
        std::fs::rename(&half, tar).map_err(|e| Trouble::Failed(e.to_string()))
    }
}

/// mmdebstrap in namespaces of its own: killed in the middle it leaves neither processes nor mounts, so that what is half made can
/// be removed without removing anything through a mount.
pub fn mmdebstrap() -> Run {
    Run::new("unshare").args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "mmdebstrap"])
}

#[derive(Debug, Clone)]
enum Trouble {
    NotCarried(String),
    Failed(String),
}

/// The tree of the light guest, built now if need be (amd64).
pub fn light() -> PathBuf {
    once("the light guest", &format!("1\n{}\n{LIGHT_INIT}", BARE_AMD64.key()), |half| {
        let unpack = Run::new("tar").args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"]);
        let tree = half.join("tree");
        std::fs::create_dir(&tree).expect("a directory");
        unpack.arg(BARE_AMD64.tar()).arg("-C").arg(&tree).limit(secs(300)).run().ok();
        make_light(&tree);
    })
    .join("tree")
}

/// Gives a bare tree the light guest's init.
pub fn make_light(tree: &Path) {
    ::pronto::sys::fs::write_volatile(&tree.join("sbin/init"), LIGHT_INIT.as_bytes(), 0o755).expect("the light init");
}

/// Builds something into a directory of the cache unless it is there. It gets its name only when it is whole.
pub fn once(what: &str, recipe: &str, build: impl FnOnce(&Path)) -> PathBuf {
    let key = super::oci::hex(&ring::digest::digest(&ring::digest::SHA256, recipe.as_bytes()).as_ref()[..12]);
    let (dir, half) = (cache().join(&key), cache().join(format!("{key}.half")));
    let _lock = Lock::wait(&cache().join(format!("{key}.lock"))).expect("a lock in the cache");
    if !dir.exists() {
        let begin = Instant::now();
        say(&format!("fixture {what}: building it from Debian packages (once)"));
        let _ = std::fs::remove_dir_all(&half);
        ::pronto::sys::fs::private_dir(&half).unwrap_or_else(|e| panic!("{}: {e}", half.display()));
        build(&half);
        std::fs::rename(&half, &dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        say(&format!("fixture {what}: built in {:.0} s", begin.elapsed().as_secs_f64()));
    }
    dir
}

/// Builds all trees, two at a time, and the light guest of one of them.
pub fn prepare() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(recipe) = ALL.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if let Err(trouble) = recipe.build() {
                        say(&format!("fixture {}: {trouble:?}", recipe.label()));
                    }
                }
            });
        }
    });
    if BARE_AMD64.build().is_ok() {
        light();
    }
}

/// Where the trees are kept: `PRONTO_TEST_CACHE`, else `pronto-tests` in the user's cache directory.
pub fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
        let base = std::env::var_os("XDG_CACHE_HOME").filter(|d| !d.is_empty()).map_or_else(home, PathBuf::from);
        let cache = std::env::var_os("PRONTO_TEST_CACHE").map_or_else(|| base.join("pronto-tests"), PathBuf::from);
        private_dir(&cache).unwrap_or_else(|e| panic!("{}: {e}", cache.display()));
        assert!(::pronto::sys::fs::is_private(&cache).unwrap_or(false), "{} must be root's and 0700", cache.display());
        cache
    })
}

/// The Debian mirror that this machine itself uses: the first of its package sources that is Debian's and no security archive.
pub fn mirror() -> &'static str {
    static MIRROR: OnceLock<String> = OnceLock::new();
    MIRROR.get_or_init(find_mirror)
}

fn find_mirror() -> String {
    if let Some(mirror) = std::env::var("PRONTO_MIRROR").ok().filter(|m| !m.is_empty()) {
        return mirror;
    }
    for only in [&["Origin: Debian"][..], &[]] {
        let out =
            Run::new("apt-get").args(["indextargets", "--format", "$(SITE)", "Created-By: Packages"]).args(only).run();
        if let Some(site) = out.text().lines().find(|l| !l.trim_end_matches('/').ends_with("-security")) {
            return site.to_owned();
        }
    }
    panic!("this machine has no Debian package source: set PRONTO_MIRROR to a mirror's URL")
}

/// An entry of the tests' own in the kernel's registry, gone when this is dropped. Another's that would do could be taken away in the
/// middle.
#[derive(Debug)]
pub struct Interpreter(&'static str);

const REGISTRY: &str = "/proc/sys/fs/binfmt_misc";

/// How many holders each entry has, so that two builds at once do not take it from each other.
static HOLDERS: Mutex<BTreeMap<&'static str, usize>> = Mutex::new(BTreeMap::new());

impl Interpreter {
    /// Makes arm64 programs run.
    pub fn needed() -> Interpreter {
        Interpreter::needed_for("arm64")
    }

    /// Makes an architecture's programs run.
    pub fn needed_for(arch: &'static str) -> Interpreter {
        let mut holders = HOLDERS.lock().unwrap();
        let count = holders.entry(arch).or_default();
        if *count == 0 {
            Interpreter::register(arch);
        }
        *count += 1;
        Interpreter(arch)
    }

    fn register(arch: &str) {
        // Class, byte order and machine as they stand in the file (elf(5)).
        let (program, class, order, kind, machine) = match arch {
            "arm64" => ("qemu-aarch64", 2, 1, r"\x02\x00", r"\xb7\x00"),
            "armhf" => ("qemu-arm", 1, 1, r"\x02\x00", r"\x28\x00"),
            "s390x" => ("qemu-s390x", 2, 2, r"\x00\x02", r"\x00\x16"),
            other => panic!("no interpreter is known for {other}"),
        };
        let qemu = ::pronto::sys::process::find_program(program);
        let qemu = qemu.unwrap_or_else(|| panic!("{program} is missing (package qemu-user)"));
        let magic = format!(r"\x7fELF\x0{class}\x0{order}\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00{kind}{machine}");
        let either = if order == 1 { r"\xfe\xff" } else { r"\xff\xfe" };
        let mask = format!(r"\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff{either}\xff\xff");
        let line = format!(":{}:M::{magic}:{mask}:{}:POCF", entry_of(arch), qemu.display());
        if !Path::new(REGISTRY).join("register").exists() {
            Run::new("mount").args(["-t", "binfmt_misc", "binfmt_misc", REGISTRY]).run().ok();
        }
        let _ = into_kernel(&entry_of(arch), "-1");
        into_kernel("register", &line).unwrap_or_else(|e| panic!("cannot register {line}: {e}"));
        assert!(arch != "arm64" || runs(Cpu::Arm64), "{} does not run arm64 programs", qemu.display());
    }
}

fn entry_of(arch: &str) -> String {
    format!("pronto-test-{arch}")
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        let mut holders = HOLDERS.lock().unwrap();
        let count = holders.entry(self.0).or_default();
        *count -= 1;
        if *count == 0 {
            let _ = into_kernel(&entry_of(self.0), "-1");
        }
    }
}

/// Writes to a file of the kernel's registry: one write, to the file itself.
fn into_kernel(file: &str, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new().write(true).open(Path::new(REGISTRY).join(file))?.write_all(text.as_bytes())
}

/// Whether this host runs a CPU's programs, now, by itself or through an interpreter.
pub fn runs(cpu: Cpu) -> bool {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("probe");
    ::pronto::sys::fs::write_volatile(&path, &elf::program(cpu, b"", 42), 0o755).expect("the probe is written");
    super::run::command(&path).status().is_ok_and(|s| s.code() == Some(42))
}
