//! What the suites that compare pronto with its peers share: a store, podman with storage of the test's own, and a tree as
//! text. What a newcomer would get wrong: a stack of layers is looked at in a mount namespace that ends with the look, so that nothing
//! stays mounted however a test ends.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use pronto::domain::{Layer, Quiet};
use pronto::ops::Ctx;
use pronto::ops::images::obtain;
use pronto::sys::process::{Tool, find_program};

/// Whether this is root and the programs are there; says so where not.
pub fn can(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&&str> = programs.iter().filter(|p| find_program(p).is_none()).collect();
    let root = nix::unistd::geteuid().is_root();
    if !root || !missing.is_empty() {
        eprintln!("{test}: not tested, for it needs root and {programs:?} (contrib/install-deps.sh test)");
    }
    root && missing.is_empty()
}

/// Runs a program; panics with what it said when it fails.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(program: &str, words: impl IntoIterator<Item = S>) -> String {
    let mut tool = Tool::new(program).args(words);
    tool.command().stdin(Stdio::null());
    String::from_utf8(tool.output().unwrap_or_else(|e| panic!("{e}"))).unwrap()
}

/// Runs a script in a directory; its arguments are `$1` and so on.
#[track_caller]
pub fn sh(dir: &Path, script: &str, words: &[&OsStr]) -> String {
    let mut tool = Tool::new("bash").args(["-c", script, "script"]).args(words);
    tool.command().stdin(Stdio::null()).current_dir(dir);
    String::from_utf8(tool.output().unwrap_or_else(|e| panic!("{e}"))).unwrap()
}

/// A tree as text, by tree.py.
#[track_caller]
pub fn tree(dir: &Path) -> String {
    run("python3", ["tests/common/tree.py".as_ref(), dir.as_os_str()])
}

/// A store of pronto's.
#[derive(Debug)]
pub struct Store {
    ctx: Ctx,
    dir: PathBuf,
}

impl Store {
    pub fn new(dir: &Path) -> Store {
        let store = pronto::store::Store::at(Some(dir));
        store.open().unwrap();
        Store {
            ctx: Ctx { store, root: None, report: Arc::new(Quiet), access: Default::default() },
            dir: dir.to_owned(),
        }
    }

    /// Fetches an image; its layers' directories, the lowest first.
    #[track_caller]
    pub fn layers(&self, word: &str, arch: &str) -> Vec<PathBuf> {
        let platforms = pronto::ops::registry::platforms_named(arch).unwrap();
        let artifact = obtain(&self.ctx, word, Some(&platforms), false, None);
        let layers = artifact.unwrap_or_else(|e| panic!("{word}: {e}: {:?}", e.cure())).layers;
        let place = |layer: &Layer| match layer {
            Layer::Stored(key) => self.ctx.store.layer(key),
            Layer::Directory(path) => path.clone(),
        };
        layers.iter().map(place).collect()
    }

    /// Fetches an image for every platform that its source has; these platforms.
    #[track_caller]
    pub fn every(&self, word: &str) -> Result<Vec<String>, String> {
        let all = pronto::ops::images::pull_all(&self.ctx, word, false);
        let all = all.map_err(|e| std::error::Error::source(&e).map_or(e.to_string(), |why| format!("{e}: {why}")))?;
        Ok(all.into_iter().map(|pulled| pulled.artifact.platform.unwrap().to_string()).collect())
    }

    /// Fetches an image and shows the tree that overlayfs makes of its layers.
    #[track_caller]
    pub fn tree(&self, word: &str, arch: &str) -> String {
        let mut layers = self.layers(word, arch);
        let (point, empty) = (self.dir.join("run/point"), self.dir.join("run/empty"));
        for dir in [&point, &empty] {
            std::fs::create_dir_all(dir).unwrap();
        }
        // One directory alone is no overlay: an empty one above the others changes nothing.
        layers.reverse();
        let mut lower = layers.iter().map(|l| l.display().to_string()).collect::<Vec<_>>().join(":");
        if layers.len() == 1 {
            lower = format!("{lower}:{}", empty.display());
        }
        let script = "mount -t overlay o -o lowerdir=\"$1\" \"$2\" && exec python3 tests/common/tree.py \"$2\"";
        run("unshare", ["--mount", "sh", "-c", script, "sh", &lower, point.to_str().unwrap()])
    }
}

/// podman, or buildah, with storage of the test's own.
#[derive(Debug)]
pub struct Podman {
    dir: PathBuf,
    driver: &'static str,
}

impl Podman {
    pub fn new(dir: &Path, driver: &'static str) -> Podman {
        std::fs::create_dir_all(dir).unwrap();
        Podman { dir: dir.to_owned(), driver }
    }

    fn words(&self) -> [String; 6] {
        let at = |name: &str| self.dir.join(name).display().to_string();
        ["--root".into(), at("root"), "--runroot".into(), at("run"), "--storage-driver".into(), self.driver.into()]
    }

    /// podman's answer.
    #[track_caller]
    pub fn podman(&self, words: &[&str]) -> String {
        let ours = self.words();
        let all = ours.iter().map(String::as_str).chain(["--cgroup-manager", "cgroupfs"]).chain(words.iter().copied());
        run("podman", all).trim().to_owned()
    }

    /// buildah's answer.
    #[track_caller]
    pub fn buildah(&self, words: &[&str]) -> String {
        let ours = self.words();
        run("buildah", ours.iter().map(String::as_str).chain(words.iter().copied())).trim().to_owned()
    }

    /// Fetches an image and shows the tree that it mounts.
    #[track_caller]
    pub fn tree(&self, word: &str) -> String {
        self.podman(&["pull", "-q", "--tls-verify=false", word]);
        let point = self.podman(&["image", "mount", word]);
        let shown = tree(Path::new(&point));
        self.podman(&["image", "unmount", word]);
        shown
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Its storage keeps itself mounted on itself, so that nothing leaks into other namespaces.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|p| Path::new(p).starts_with(&self.dir));
        for point in ours.collect::<Vec<_>>().into_iter().rev() {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = pronto::sys::fs::remove_tree(&self.dir);
    }
}
