//! Tarballs that a distribution offers for each architecture under one name, as Ubuntu's cloud images and Alpine's minirootfs are. What a
//! newcomer would get wrong: no architecture's digest is asked of another's checksum file.

use pronto::image::Result;
use pronto::image::template::{Template, obtain};
use pronto::store::images::Entry;

use super::*;
use crate::bench::Bench;

struct Shelf {
    bench: Bench,
    files: Files,
    server: Server,
    template: Template,
}

impl Shelf {
    /// `release/x86_64/mini-1-x86_64.tar.gz`, as Alpine's, or with one file of checksums for all, as Ubuntu's.
    fn new(url: &str, arches: &[&str]) -> Shelf {
        let (bench, files) = (Bench::new(), Files::default());
        let server = files.serve();
        let template = Template { url: server.url(url), arches: arches.iter().map(|a| (*a).to_owned()).collect() };
        Shelf { bench, files, server, template }
    }

    fn get(&self, arch: &str, ask: bool) -> Result<(Entry, bool)> {
        let wanted = pronto::ops::registry::platforms_named(arch).unwrap();
        obtain(&self.bench.ctx.store, &self.template, &wanted, ask, self.bench.ctx.report.as_ref())
    }

    fn name(&self, arch: &str, ask: bool) -> (String, bool) {
        let (entry, fetched) = self.get(arch, ask).unwrap();
        let tree = self.bench.ctx.store.layer(&entry.layers[0]);
        (std::fs::read_to_string(tree.join("etc/name")).unwrap(), fetched)
    }
}

#[test]
fn each_architecture_by_its_own_name() {
    let shelf =
        Shelf::new("release/{arch}/mini-1-{arch}.tar.gz", &["amd64=x86_64", "arm64=aarch64", "armhf=armv7", "s390x"]);
    for named in ["x86_64", "aarch64", "armv7", "s390x"] {
        let tar = images::gzip(&system(named));
        shelf.files.put(
            &format!("release/{named}/mini-1-{named}.tar.gz.sha256"),
            format!("{}  mini-1-{named}.tar.gz\n", hex(&tar)),
        );
        shelf.files.put(&format!("release/{named}/mini-1-{named}.tar.gz"), tar);
    }
    for (arch, named) in [("amd64", "x86_64"), ("arm64", "aarch64"), ("armhf", "armv7"), ("s390x", "s390x")] {
        assert_eq!(shelf.name(arch, false), (named.to_owned(), true));
    }
    let before = shelf.server.requests().len();
    assert_eq!(shelf.name("arm64", false), ("aarch64".to_owned(), false));
    assert_eq!(shelf.server.requests().len(), before, "what is present asks no network");
    let error = shelf.get("riscv64", false).unwrap_err().to_string();
    assert!(error.contains("it has linux/amd64, linux/arm/v7, linux/arm64, linux/s390x"), "{error}");
    assert!(!shelf.bench.lines().contains("not verified"));
}

#[test]
fn the_checksum_file_tells_what_is_new() {
    let shelf = Shelf::new("current/x-{arch}-root.tar.xz", &["amd64", "arm64"]);
    let publish = |name: &str| {
        let tar = xz(&system(name));
        shelf.files.put(
            "current/SHA256SUMS",
            format!("{} *x-amd64-root.tar.xz\n{} *x-arm64-root.tar.xz\n", hex(b"other"), hex(&tar)),
        );
        shelf.files.put("current/x-arm64-root.tar.xz", tar);
    };
    publish("one");
    assert_eq!(shelf.name("arm64", true), ("one".to_owned(), true));
    assert_eq!(shelf.name("arm64", true), ("one".to_owned(), false));
    assert_eq!(asked(&shelf.server, "current/x-arm64-root.tar.xz").len(), 1);
    publish("two");
    assert_eq!(shelf.name("arm64", true), ("two".to_owned(), true));
    // Promised, and not there.
    let error = shelf.get("amd64", false).unwrap_err().to_string();
    assert!(error.contains("was not found at 127.0.0.1"), "{error}");
    shelf.files.put("current/x-amd64-root.tar.xz", xz(&system("wrong")));
    let error = shelf.get("amd64", false).unwrap_err().to_string();
    assert!(error.contains("is damaged: its digest is sha256:"), "{error}");
    shelf.bench.assert_clean();
}
