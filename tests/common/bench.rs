//! A store of a test's own, and what is said to a user while images are got into it. What a newcomer would get wrong: a test that
//! expects a failure asks [`Bench::fails`], which also looks whether anything is left behind.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pronto::domain::{Layer, Report, Step};
use pronto::ops::images::obtain;
use pronto::ops::{Ctx, Error};
use pronto::store::{Store, images as records, layers};

/// Keeps what is said.
#[derive(Debug, Default)]
pub struct Said {
    pub lines: Mutex<Vec<String>>,
    pub bytes: AtomicU64,
    pub failed: AtomicUsize,
}

struct Progress(Arc<Said>, bool);

impl Report for Handle {
    fn note(&self, line: &str) {
        self.0.lines.lock().unwrap().push(line.to_owned());
    }
    fn warn(&self, line: &str) {
        self.0.lines.lock().unwrap().push(format!("warning: {line}"));
    }
    fn begin(&self, what: &str, _: Option<u64>) -> Box<dyn Step> {
        self.0.lines.lock().unwrap().push(format!("begin {what}"));
        Box::new(Progress(Arc::clone(&self.0), false))
    }
}

impl Step for Progress {
    fn advance(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    fn say(&self, _: &str) {}
    fn done(mut self: Box<Self>, _: &str) {
        self.1 = true;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.1 {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Clone)]
struct Handle(Arc<Said>);

/// A store of a test's own.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub ctx: Ctx,
    pub said: Arc<Said>,
}

impl Bench {
    pub fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (ctx, said) = Bench::another(&dir.path().join("store"));
        Bench { dir, ctx, said }
    }

    pub fn another(root: &Path) -> (Ctx, Arc<Said>) {
        let store = Store::at(Some(root));
        store.open().unwrap();
        let said = Arc::new(Said::default());
        (Ctx { store, root: None, report: Arc::new(Handle(Arc::clone(&said))), access: Default::default() }, said)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn get(&self, word: &str, arch: &str) -> Result<Vec<Layer>, Error> {
        let platforms = pronto::ops::registry::platforms_named(arch).unwrap();
        obtain(&self.ctx, word, Some(&platforms), false, None).map(|artifact| artifact.layers)
    }

    /// The error as a user reads it, with nothing left behind.
    pub fn fails(&self, word: &str, arch: &str) -> String {
        let error = self.get(word, arch).expect_err(word);
        self.assert_clean();
        text(&error)
    }

    pub fn assert_clean(&self) {
        let store = &self.ctx.store;
        let whole: Vec<String> =
            records::all(store).unwrap().into_iter().flat_map(|r| r.entries).flat_map(|e| e.layers).collect();
        for entry in std::fs::read_dir(store.layers()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with('.'), "{name} is left");
            let key = name.trim_end_matches(".json").trim_end_matches(".sum");
            assert!(whole.iter().any(|k| k == key) || layers::exists(store, key).unwrap(), "{name} is half-made");
        }
        let partial = std::fs::read_dir(store.run().join("claims")).map(Iterator::count).unwrap_or(0);
        assert_eq!(partial, 0, "claims are left");
    }

    pub fn tree(&self, layer: &Layer) -> PathBuf {
        match layer {
            Layer::Stored(key) => self.ctx.store.layer(key),
            Layer::Directory(path) => path.clone(),
        }
    }

    pub fn lines(&self) -> String {
        self.said.lines.lock().unwrap().join("\n")
    }
}

/// An error with its causes.
pub fn text(error: &Error) -> String {
    let mut out = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        out = format!("{out}: {cause}");
        source = cause.source();
    }
    out
}

/// A file system of a test's own, gone with it.
pub struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    pub fn tmpfs(path: &'a Path, options: &str) -> Mounted<'a> {
        nix::mount::mount(Some("t"), path, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options)).unwrap();
        Mounted(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
