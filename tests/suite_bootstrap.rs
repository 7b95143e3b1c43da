//! A foreign Debian from packages, with its scripts run outside of its tree: what they do there reaches nothing, is seen, and has all
//! of it made by emulation instead. The real program, jail and store; mmdebstrap is a shell script, the host's and that of the
//! small system that the host's makes, so that no network is needed. What a newcomer would get wrong: the script in the small
//! system decides by the package that is asked for how it behaves.

#![allow(clippy::print_stderr, reason = "a test that leaves something out says so")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use pronto::ops::apart::{Place, System};
use pronto::sys::fs::write_atomic;
use pronto::sys::process::{Tool, find_program};

const PRONTO: &str = env!("CARGO_BIN_EXE_pronto");

/// What the small system's mmdebstrap does. HOST is a directory of the host's.
const INNER: &str = r#"#!/bin/sh
set -e
[ "$PWD" = / ] && [ -e /proc/self/exe ] && [ -c /dev/null ] && [ ! -e HOST ] || exit 9
for shared in /etc/hosts /usr/share/keyrings; do
    if [ -e $shared ] && (echo x >>$shared/x || echo x >>$shared) 2>/dev/null; then echo "E: $shared can be written"; exit 9; fi
done
mkdir -p /mnt/etc
echo native >/mnt/etc/how
case "$*" in
*"install libpam-systemd good;"*) echo log >/var/log/dpkg.log ;;
*"install libpam-systemd evil;"*) mkdir -p HOST; echo evil >HOST/file; echo evil >/etc/passwd; rm -rf /lib64 ;;
*"install libpam-systemd stuck;"*) echo >/mnt/etc/stuck; while :; do :; done ;;
*"install libpam-systemd broken;"*) echo "E: setup failed: of its own" >&2; exit 25 ;;
esac
"#;

/// The host's: the small system is a copy of SMALL, everything else says how it was made.
const OUTER: &str = r#"#!/bin/sh
set -e
eval "dir=\${$(($# - 1))}"
case "$*" in
*--architectures=arm64*) echo arm64 >>LOG; mkdir -p "$dir/etc"; echo emulated >"$dir/etc/how" ;;
*) echo "$*" >>LOG; cp -a SMALL/. "$dir/" ;;
esac
"#;

struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    /// `None` where this cannot run; why is said.
    fn new() -> Option<Bed> {
        let amd64 = std::env::consts::ARCH == "x86_64";
        if !nix::unistd::geteuid().is_root() || !amd64 || find_program("qemu-aarch64").is_none() {
            eprintln!("left out: needs root, an amd64 host and qemu-aarch64");
            return None;
        }
        let bed = Bed { dir: tempfile::Builder::new().tempdir_in("/var/tmp").unwrap() };
        bed.write("host/file", "untouched", 0o644);
        let small = bed.path("small");
        for name in ["dev", "etc", "mnt", "proc", "run", "sys", "tmp", "var/log"] {
            std::fs::create_dir_all(small.join(name)).unwrap();
        }
        ["/bin/sh", "/bin/mkdir", "/bin/rm"].iter().for_each(|program| copy_with_libraries(&small, Path::new(program)));
        bed.write("small/etc/passwd", "root:x:0:0::/root:/bin/sh\n", 0o644);
        bed.write("small/usr/bin/mmdebstrap", INNER, 0o755);
        bed.write("bin/mmdebstrap", OUTER, 0o755);
        Some(bed)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The words HOST, SMALL and LOG become paths.
    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let with = |text: String, word: &str, name: &str| text.replace(word, self.path(name).to_str().unwrap());
        let text = with(with(with(text.to_owned(), "HOST", "host"), "SMALL", "small"), "LOG", "log");
        write_atomic(&path, text.as_bytes(), mode).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn pull(&self, suite: &str, package: &str) -> Tool {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        Tool::new(PRONTO)
            .arg("--root")
            .arg(self.path("store"))
            .args(["pull", "--arch", "arm64", "--mirror", "http://127.0.0.1:9/debian", "--include", package])
            .arg(format!("debian/{suite}"))
            .env("PATH", path)
    }

    /// What was said, and how the tree was made.
    fn made(&self, tool: Tool) -> (String, String) {
        let Output { status, stderr, .. } = tool.answer(b"").unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert!(status.success(), "{said}");
        let layers = std::fs::read_dir(self.path("store/layers")).unwrap().map(|entry| entry.unwrap().path());
        let mut hows: Vec<_> = layers
            .filter_map(|layer| {
                let how = layer.join("etc/how");
                Some((std::fs::metadata(&how).ok()?.modified().unwrap(), std::fs::read_to_string(how).unwrap()))
            })
            .collect();
        hows.sort();
        self.nothing_is_left();
        (said, hows.pop().unwrap().1.trim().to_owned())
    }

    fn nothing_is_left(&self) {
        let names = |dir: &str| -> Vec<_> {
            std::fs::read_dir(self.path(dir)).map_or(Vec::new(), |dir| dir.map(|e| e.unwrap().file_name()).collect())
        };
        let layers = names("store/layers");
        assert!(layers.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{layers:?}");
        assert!(names("store/run/claims").is_empty(), "a claim is left: {:?}", names("store/run/claims"));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "a mount is left");
        assert_eq!(std::fs::read_to_string(self.path("host/file")).unwrap(), "untouched");
        assert_eq!(names("host").len(), 1, "{:?}", names("host"));
    }
}

fn copy_with_libraries(tree: &Path, program: &Path) {
    let listing = String::from_utf8(Tool::new("ldd").arg(program).output().unwrap()).unwrap();
    let libraries = listing.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for file in libraries.chain([program.to_owned()]) {
        let target = tree.join(file.strip_prefix("/").unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, &target).unwrap();
    }
}

#[test]
fn scripts_run_outside_and_what_they_do_there_reaches_nothing() {
    let Some(bed) = Bed::new() else { return };
    let passwd = std::fs::read("/etc/passwd").unwrap();
    let (said, how) = bed.made(bed.pull("trixie", "good"));
    assert_eq!(how, "native", "{said}");
    assert!(!said.contains("emulation"), "{said}");

    let (said, how) = bed.made(bed.pull("trixie", "evil"));
    assert_eq!(how, "emulated", "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.contains("emulation")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains(
        "trixie arm64 is made by emulation alone (a maintainer script does not obey DPKG_ROOT: it changed /"
    ));

    let (said, how) = bed.made(bed.pull("trixie", "broken"));
    assert_eq!(how, "emulated", "{said}");
    assert!(said.contains("(mmdebstrap cannot make trixie for arm64: E: setup failed: of its own)"), "{said}");

    assert_eq!(std::fs::read("/etc/passwd").unwrap(), passwd, "the host's own files are as before");
    assert!(Path::new("/lib64").is_dir());
    let log = std::fs::read_to_string(bed.path("log")).unwrap();
    let small: Vec<_> = log.lines().filter(|line| line.contains("--architectures=amd64")).collect();
    assert_eq!(small.len(), 1, "the small system is made once: {log}");
    assert!(small[0].contains(",mmdebstrap,passwd "), "{log}");
    assert_eq!(log.lines().filter(|line| *line == "arm64").count(), 2, "{log}");
}

/// Everything ends with the one that was killed, and the next sweeps up what it had begun.
#[test]
fn one_that_is_killed_takes_all_of_it_along() {
    let Some(bed) = Bed::new() else { return };
    let mut pull = bed.pull("trixie", "stuck").tied().spawn().unwrap();
    let stuck = || {
        let layers = std::fs::read_dir(bed.path("store/layers")).into_iter().flatten();
        layers.flatten().any(|entry| entry.path().join("etc/stuck").exists())
    };
    wait_for("the script", stuck);
    pull.kill().unwrap();
    pull.wait().unwrap();
    let words = "install libpam-systemd stuck;";
    let alive = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
            .any(|line| String::from_utf8_lossy(&line).contains(words))
    };
    wait_for("the end of all of it", || !alive());
    let (said, how) = bed.made(bed.pull("trixie", "good"));
    assert_eq!(how, "native", "{said}");
}

fn wait_for(what: &str, there: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !there() {
        assert!(begin.elapsed().as_secs() < 60, "waited a minute for {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn where_it_is_not_known_to_work_nothing_is_tried() {
    let Some(bed) = Bed::new() else { return };
    let (said, how) = bed.made(bed.pull("bookworm", "good"));
    assert_eq!(how, "emulated", "{said}");
    let (said, how) = bed.made(bed.pull("trixie", "good").env("PRONTO_BOOTSTRAP", "emulated"));
    assert_eq!(how, "emulated", "{said}");
    assert!(!said.contains("emulation"), "no word where it is a matter of course: {said}");
    assert_eq!(std::fs::read_to_string(bed.path("log")).unwrap(), "arm64\narm64\n");
}

/// As on a host whose own registry has the interpreters: no user namespace, so what is done is done by the host's root.
#[test]
fn the_root_of_another_system_is_a_fence_without_a_user_namespace() {
    let Some(bed) = Bed::new() else { return };
    let path = |name: &str| {
        std::fs::create_dir_all(bed.path(name)).unwrap();
        bed.path(name)
    };
    let run = |behaviour: &str| {
        let (upper, work) = (path(&format!("{behaviour}/up")), path(&format!("{behaviour}/work")));
        let system = System { lowers: vec![bed.path("small")], upper, work, target: path("target") };
        let place = serde_json::to_string(&Place { lines: Vec::new(), system: Some(system) }).unwrap();
        let words = ["/usr/bin/mmdebstrap", &format!("install libpam-systemd {behaviour};")];
        Tool::new(PRONTO).arg("__apart").arg(place).args(words).answer(b"").unwrap()
    };
    assert_eq!(run("broken").status.code(), Some(25), "its status comes through");
    let said = run("evil");
    assert!(said.status.success(), "{said:?}");
    bed.nothing_is_left();
    assert_eq!(std::fs::read_to_string(bed.path("target/etc/how")).unwrap(), "native\n");
    assert_eq!(std::fs::read_to_string(bed.path("evil/up/etc/passwd")).unwrap(), "evil\n");
    assert!(std::fs::read_to_string(bed.path("small/etc/passwd")).unwrap().starts_with("root:"));
    assert!(bed.path("small/lib64").is_dir(), "its own trees are not changed either");
    assert!(!bed.path("evil/up/lib64").is_dir(), "it was removed all the same");
    let inside = bed.path("host").strip_prefix("/").map(|host| bed.path("evil/up").join(host).join("file")).unwrap();
    assert_eq!(std::fs::read_to_string(inside).unwrap(), "evil\n", "where it wrote, there is nothing of the host's");
}
