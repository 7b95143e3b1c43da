//! `images:`: an index in the form of linuxcontainers.org's (recorded from its documentation and from incus, the client that
//! reads it), served on loopback. What a newcomer would get wrong: nothing here asks that server, so what it really has today is not shown.

use pronto::domain::Layer;
use pronto::ops::images::{images, obtain, pull, pull_all, rmi, verify};
use pronto::sys::overlay::Overlay;
use pronto::sys::process::{Tool, find_program};
use pronto::sys::root::Root;
use serde_json::{Value, json};

use super::*;
use crate::bench::{Bench, text};

/// A server that is configured as the one of `images:`.
struct Place {
    bench: Bench,
    files: Files,
    server: Server,
    products: Value,
}

impl Place {
    fn new() -> Place {
        let (bench, files) = (Bench::new(), Files::default());
        let server = files.serve();
        let settings = format!("[streams]\nserver = \"{}\"\n", server.url(""));
        images::put(&bench.ctx.store.sources(), settings.as_bytes());
        files.put(
            "streams/v1/index.json",
            json!({"format": "index:1.0", "index": {"images": {
                "datatype": "image-downloads", "path": "streams/v1/images.json", "format": "products:1.0",
                "products": ["debian:bullseye:arm64:default"], "updated": "Fri, 04 Sep 2026 05:24:00 +0000"}}})
            .to_string(),
        );
        let mut place = Place { bench, files, server, products: json!({}) };
        place.add("debian", "bullseye", "11", "arm64", "20260903_05:24", b"old arm64");
        place.add("debian", "bullseye", "11", "arm64", "20260904_05:24", b"new arm64");
        place.add("debian", "bullseye", "11", "amd64", "20260904_05:24", b"amd64");
        place.add("debian", "bullseye", "11", "armhf", "20260904_05:24", b"armhf");
        place.add("alpine", "3.22", "3", "arm64", "20260904_13:00", b"alpine");
        place
    }

    /// Adds a version and publishes the list.
    fn add(&mut self, distro: &str, release: &str, number: &str, arch: &str, version: &str, name: &[u8]) -> Vec<u8> {
        let tar = xz(&Tar::new().dir("etc").file("etc/name", name).dir("sbin").file("sbin/init", b"#!").end());
        let dir = format!("images/{distro}/{release}/{arch}/default/{version}");
        self.files.put(&format!("{dir}/rootfs.tar.xz"), tar.clone());
        let (key, hash) = (format!("{distro}:{release}:{arch}:default"), hex(&tar));
        let meta = hex(b"metadata");
        let aliases =
            format!("{distro}/{release}/default,{distro}/{release},{distro}/{number}/default,{distro}/{number}");
        if self.products[&key].is_null() {
            self.products[&key] = json!({"aliases": aliases, "arch": arch, "os": capital(distro), "release": release,
                "release_title": release, "variant": "default", "requirements": {"secureboot": "false"}, "versions": {}});
        }
        self.products[&key]["versions"][version] = json!({"items": {
            "incus.tar.xz": {"ftype": "incus.tar.xz", "path": format!("{dir}/incus.tar.xz"), "sha256": meta, "size": 700,
                "combined_rootxz_sha256": meta, "combined_squashfs_sha256": meta},
            "rootfs.squashfs": {"ftype": "squashfs", "path": format!("{dir}/rootfs.squashfs"), "sha256": meta, "size": 90_000},
            "disk.qcow2": {"ftype": "disk-kvm.img", "path": format!("{dir}/disk.qcow2"), "sha256": meta, "size": 90_000},
            "root.tar.xz": {"ftype": "root.tar.xz", "path": format!("{dir}/rootfs.tar.xz"), "sha256": hash, "size": tar.len()},
        }});
        self.publish();
        tar
    }

    fn publish(&self) {
        let list = json!({"content_id": "images", "datatype": "image-downloads", "format": "products:1.0", "products": self.products});
        self.files.put("streams/v1/images.json", list.to_string());
    }

    /// Spoils the newest file of the arm64 Debian.
    fn spoil(&mut self, key: &str, value: Value) {
        self.products["debian:bullseye:arm64:default"]["versions"]["20260904_05:24"]["items"]["root.tar.xz"][key] =
            value;
        self.publish();
    }

    fn name_in(&self, layers: &[Layer]) -> String {
        std::fs::read_to_string(self.bench.tree(&layers[0]).join("etc/name")).unwrap()
    }

    fn got(&self, word: &str, arch: &str) -> String {
        self.name_in(&self.bench.get(word, arch).unwrap())
    }

    /// How often the list of products was asked for, and how often it was sent anew.
    fn lists(&self) -> usize {
        asked(&self.server, "streams/v1/images.json").len()
    }

    /// Makes every copy of an index an hour and a half older.
    fn age(&self) {
        for entry in std::fs::read_dir(self.bench.ctx.store.indexes()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let end = bytes.iter().position(|b| *b == b'\n').unwrap();
            let mut head: Value = serde_json::from_slice(&bytes[..end]).unwrap();
            head["asked"] = json!(head["asked"].as_u64().unwrap() - 5400);
            images::put(&path, &[head.to_string().as_bytes(), &bytes[end..]].concat());
        }
    }
}

fn capital(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

#[test]
fn the_newest_version_for_each_architecture() {
    let place = Place::new();
    assert_eq!(place.got("images:debian/bullseye", "arm64"), "new arm64");
    assert_eq!(place.got("images:debian/bullseye", "amd64"), "amd64");
    assert_eq!(place.got("images:debian/bullseye/default", "armhf"), "armhf");
    // By an alias of the index, and with the architecture in the word.
    assert_eq!(place.got("images:debian/11", "arm64"), "new arm64");
    let ctx = &place.bench.ctx;
    let artifact = obtain(ctx, "images:debian/bullseye/arm64", None, false, None).unwrap();
    assert_eq!(place.name_in(&artifact.layers), "new arm64");
    assert_eq!(artifact.platform.unwrap().to_string(), "linux/arm64");
    assert_eq!(artifact.label, "images:debian/bullseye/default");
    let word = format!("images+http://{}/alpine/3.22/arm64", place.server.host());
    assert_eq!(place.name_in(&obtain(ctx, &word, None, false, None).unwrap().layers), "alpine");
    let error = place.bench.fails("images:debian/bullseye/arm64", "amd64");
    assert!(error.contains("has no platform linux/amd64/v1") && error.contains("it has linux/arm64"), "{error}");
    let error = place.bench.fails("images:debian/bullseye", "riscv64");
    assert!(error.contains("it has linux/amd64, linux/arm/v7, linux/arm64"), "{error}");
    let error = place.bench.fails("images:debian/bookworm", "arm64");
    assert!(error.contains("was not found at 127.0.0.1: it has debian/bullseye/default"), "{error}");
    let error = place.bench.fails("images:gentoo/current", "arm64");
    assert!(error.contains("it has alpine debian"), "{error}");
    let rows = images(ctx).unwrap();
    let arches = |reference: &str| rows.iter().filter(|r| r.reference == reference).count();
    assert_eq!((arches("images:debian/bullseye/default"), arches("images:debian/11/default")), (3, 1));
    rmi(ctx, "images:debian/bullseye/amd64", None).unwrap();
    assert_eq!(images(ctx).unwrap().len(), rows.len() - 1, "that one only");
    assert!(!place.bench.lines().contains("not verified"));
}

#[test]
fn the_index_is_kept_and_asked_about() {
    let mut place = Place::new();
    place.got("images:debian/bullseye", "arm64");
    place.got("images:debian/bullseye", "amd64");
    assert_eq!(place.lists(), 1, "it is young");
    place.age();
    place.got("images:debian/bullseye", "armhf");
    let last = place.server.requests().into_iter().rfind(|r| r.path == "/streams/v1/images.json").unwrap();
    assert!(place.lists() == 2 && last.header("if-none-match").is_some(), "{last:?}");
    place.got("images:alpine/3.22", "arm64");
    assert_eq!(place.lists(), 2, "not modified: it counts as young again");
    // What is present asks nobody; pull asks, and fetches only what is newer.
    let before = place.server.requests().len();
    place.got("images:debian/bullseye", "arm64");
    assert_eq!(place.server.requests().len(), before);
    let ctx = place.bench.ctx.clone();
    let pulled = || pull(&ctx, "images:debian/bullseye", Some("arm64"), false, None).unwrap();
    assert!(!pulled().fetched);
    assert_eq!(place.lists(), 3);
    place.add("debian", "bullseye", "11", "arm64", "20260905_05:24", b"newer");
    let now = pulled();
    assert!(now.fetched && place.name_in(&now.artifact.layers) == "newer");
    assert!(!pulled().fetched);
    assert_eq!(place.got("images:debian/bullseye", "arm64"), "newer");
}

#[test]
fn an_old_index_is_better_than_none() {
    let place = Place::new();
    place.got("images:debian/bullseye", "arm64");
    place.age();
    // The server loses its index, not its images.
    let files = place.files.clone();
    let half = Server::start(move |request| match request.path.as_str() {
        path if path.starts_with("//streams") || path.starts_with("/streams") => {
            Response::status(503, &["Retry-After: 0"], "")
        }
        _ => files.answer(request),
    });
    // The copies are of the old address: they are given the new one.
    let (old, new) = (place.server.host(), half.host());
    let store = &place.bench.ctx.store;
    for entry in std::fs::read_dir(store.indexes()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read_to_string(&path).unwrap().replace(&old, &new);
        std::fs::remove_file(&path).unwrap();
        let url: Value = serde_json::from_str(bytes.lines().next().unwrap()).unwrap();
        let name = hex(url["url"].as_str().unwrap().as_bytes());
        images::put(&store.indexes().join(name), bytes.as_bytes());
    }
    images::put(&store.sources(), format!("[streams]\nserver = \"{}\"\n", half.url("")).as_bytes());
    assert_eq!(place.got("images:debian/bullseye", "amd64"), "amd64");
    let said = place.bench.lines();
    assert!(
        said.contains("127.0.0.1 cannot be reached (503 Service Unavailable): using its index of 1 h ago"),
        "{said}"
    );
    let error = pull(&place.bench.ctx, "images:debian/bullseye", Some("amd64"), false, None).unwrap_err();
    assert!(text(&error).contains("cannot be reached: 503"), "pull wants to know: {}", text(&error));
}

#[test]
fn hostile_indexes() {
    let zero = "0".repeat(64);
    let cases: [(&str, Value, &str); 10] = [
        ("path", json!("images/../../etc/passwd"), "the path 'images/../../etc/passwd' in it is refused"),
        ("path", json!("http://169.254.169.254/latest"), "is refused"),
        ("path", json!("/etc/passwd"), "is refused"),
        ("path", json!("//evil.example/x"), "is refused"),
        ("path", json!("a\u{1b}[31m"), "is refused"),
        ("size", json!(u64::MAX), "has 18446744073709551615 bytes"),
        ("size", json!(-1), "no index of images"),
        ("size", json!(12), "is truncated or too long"),
        ("sha256", json!(""), "no SHA-256"),
        ("sha256", json!(zero), "is damaged: its digest is sha256:"),
    ];
    for (key, value, why) in cases {
        let mut place = Place::new();
        place.spoil(key, value);
        let error = place.bench.fails("images:debian/bullseye", "arm64");
        assert!(error.contains(why) && !error.contains('\u{1b}'), "{key}: {error}");
        assert!(images(&place.bench.ctx).unwrap().is_empty());
        assert_eq!(place.bench.ctx.store.partial().read_dir().map_or(0, Iterator::count), 0, "{why}");
    }
    let mut place = Place::new();
    let versions = &mut place.products["debian:bullseye:arm64:default"]["versions"];
    let newest = versions["20260904_05:24"].take();
    *versions = json!({"2\n/../": newest});
    place.publish();
    let error = place.bench.fails("images:debian/bullseye", "arm64");
    assert!(error.contains(r"the index calls it version '2\n/../'"), "{error}");
}

#[test]
fn what_is_no_index() {
    let spoil: [(&str, &[u8], &str); 6] = [
        ("images.json", b"<!DOCTYPE html><html>Sign in</html>", "sent a page of HTML in place of an index"),
        ("images.json", b"{\"format\": \"products:1.0\"", "no index of images"),
        ("images.json", b"{\"format\": \"products:9\", \"products\": {}}", "format 'products:9' is not known"),
        ("index.json", b"[]", "no index of images"),
        ("index.json", b"{\"index\": {}}", "lists no images to download"),
        (
            "index.json",
            br#"{"index":{"images":{"datatype":"image-downloads","path":"https://evil.example/images.json"}}}"#,
            "the path 'https://evil.example/images.json' in it is refused",
        ),
    ];
    for (name, body, why) in spoil {
        let place = Place::new();
        place.files.put(&format!("streams/v1/{name}"), body);
        let error = place.bench.fails("images:debian/bullseye", "arm64");
        assert!(error.contains(why), "{error}");
    }
    // A good copy outlives a bad answer.
    let place = Place::new();
    place.got("images:debian/bullseye", "arm64");
    place.files.put("streams/v1/images.json", "<html>");
    place.age();
    let error = place.bench.fails("images:debian/bullseye", "amd64");
    assert!(error.contains("HTML"), "{error}");
    place.publish();
    assert_eq!(place.got("images:debian/bullseye", "amd64"), "amd64");
    // Longer than any index is.
    place.files.put("streams/v1/images.json", vec![b' '; (32 << 20) + 1]);
    place.age();
    let error = place.bench.fails("images:debian/bullseye", "armhf");
    assert!(error.contains("it is longer than 33554432 bytes"), "{error}");
}

/// Every architecture of a list that is asked once; what of them cannot be used is told and left out.
#[test]
fn every_platform() {
    let mut place = Place::new();
    let all = |place: &Place, word: &str| -> Vec<(String, bool)> {
        let got = pull_all(&place.bench.ctx, word, false).unwrap();
        got.into_iter().map(|p| (p.artifact.platform.unwrap().to_string(), p.fetched)).collect()
    };
    let wanted = |fetched| ["linux/amd64", "linux/arm/v7", "linux/arm64"].map(|p| (p.to_owned(), fetched)).to_vec();
    assert_eq!(all(&place, "images:debian/bullseye"), wanted(true));
    assert_eq!(place.lists(), 1, "it is asked once for all");
    assert_eq!(all(&place, "images:debian/11"), wanted(true), "the same under another name is a name of its own");
    assert_eq!(all(&place, "images:debian/bullseye"), wanted(false));
    assert_eq!(all(&place, "images:debian/bullseye/arm64"), [("linux/arm64".to_owned(), false)]);
    let rows = images(&place.bench.ctx).unwrap();
    assert_eq!(rows.iter().filter(|row| row.reference == "images:debian/bullseye/default").count(), 3);

    place.spoil("sha256", json!(""));
    let got = all(&place, "images:debian/bullseye");
    assert_eq!(got, [("linux/amd64".to_owned(), false), ("linux/arm/v7".to_owned(), false)]);
    let said = place.bench.said.lines.lock().unwrap().join("\n");
    assert!(said.contains("warning: linux/arm64: images:debian/bullseye/default cannot be used"), "{said}");
    let fails = |word: &str| text(&pull_all(&place.bench.ctx, word, false).unwrap_err());
    let error = fails("images:debian/bullseye/arm64");
    assert!(error.contains("no SHA-256"), "{error}");
    let error = fails("images:debian/bullseye/riscv64");
    assert!(error.contains("has no platform linux/riscv64; it has linux/amd64"), "{error}");
    let error = fails("images:debian/nothing");
    assert!(error.contains("was not found"), "{error}");
    place.bench.assert_clean();
}

/// A version without a tarball is taken as a squashfs; the kernel shows it.
#[test]
fn a_squashfs_where_there_is_no_tarball() {
    if !nix::unistd::geteuid().is_root() || find_program("mksquashfs").is_none() {
        let text = b"not tested: a squashfs needs root, and mksquashfs (contrib/install-deps.sh test)\n";
        std::io::Write::write_all(&mut std::io::stderr(), text).unwrap();
        return;
    }
    let mut place = Place::new();
    let tree = place.bench.path("tree");
    std::fs::create_dir_all(tree.join("etc")).unwrap();
    images::put(&tree.join("etc/name"), b"of a squashfs");
    images::put(&tree.join("etc/noise"), &system("noise"));
    let file = place.bench.path("squashfs");
    Tool::new("mksquashfs").arg(&tree).arg(&file).args(["-noappend", "-quiet", "-comp", "xz"]).output().unwrap();
    let data = std::fs::read(&file).unwrap();
    let version = "20260904_05:24";
    let publish = |place: &mut Place, data: &[u8]| {
        let items = &mut place.products["debian:bullseye:arm64:default"]["versions"][version]["items"];
        items.as_object_mut().unwrap().remove("root.tar.xz");
        (items["rootfs.squashfs"]["sha256"], items["rootfs.squashfs"]["size"]) = (hex(data).into(), data.len().into());
        place.files.put(&format!("images/debian/bullseye/arm64/default/{version}/rootfs.squashfs"), data);
        place.publish();
    };
    // The index's promise is kept, and still it is none.
    publish(&mut place, &data[..data.len() / 2]);
    let error = place.bench.fails("images:debian/bullseye", "arm64");
    assert!(error.contains("the squashfs file system says it has") && error.contains("truncated"), "{error}");
    publish(&mut place, &data);
    place.age();
    let platforms = pronto::ops::registry::platforms_named("arm64").unwrap();
    let artifact = obtain(&place.bench.ctx, "images:debian/bullseye", Some(&platforms), false, None).unwrap();
    let lowers = pronto::ops::tree::lowers(&place.bench.ctx.store, &artifact).unwrap();
    let shown = Overlay { lowers, ..Overlay::default() }.detached().unwrap();
    let root = Root::from_fd(shown, std::path::Path::new("guest"));
    assert_eq!(root.read_text("etc/name").unwrap(), "of a squashfs", "the newest, though an older one has a tarball");

    for version in ["20260903_05:24", version] {
        let items = place.products["debian:bullseye:arm64:default"]["versions"][version]["items"].as_object_mut();
        items.unwrap().retain(|name, _| name == "disk.qcow2");
    }
    place.publish();
    let error = text(&pull(&place.bench.ctx, "images:debian/bullseye", Some("arm64"), false, None).unwrap_err());
    assert!(error.contains("names neither a tarball nor a squashfs"), "{error}");
}

/// The image breaks off, and the rest is asked for without a validator: the index's digest vouches for it.
#[test]
fn an_image_goes_on_where_it_broke_off() {
    let place = Place::new();
    let files = place.files.clone();
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let mut answer = files.answer(request);
        if request.path.ends_with("rootfs.tar.xz") {
            answer.headers.clear();
            if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                answer.cut = Some(100);
            }
        }
        answer
    });
    let word = format!("images+http://{}/debian/bullseye", server.host());
    assert_eq!(place.got(&word, "arm64"), "new arm64");
    let froms = asked(&server, "images/debian/bullseye/arm64/default/20260904_05:24/rootfs.tar.xz");
    assert_eq!(froms, [None, Some(100)]);
}

#[test]
fn two_at_once_fetch_once() {
    let place = Place::new();
    let got: Vec<Vec<Layer>> = std::thread::scope(|scope| {
        let pulls: Vec<_> =
            (0..4).map(|_| scope.spawn(|| place.bench.get("images:debian/bullseye", "arm64").unwrap())).collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert!(got.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(asked(&place.server, "images/debian/bullseye/arm64/default/20260904_05:24/rootfs.tar.xz").len(), 1);
    place.bench.assert_clean();
}

/// What was damaged on the disk is fetched again from where the index says, while that still has it.
#[test]
fn a_damaged_layer_is_repaired() {
    let mut place = Place::new();
    let ctx = place.bench.ctx.clone();
    let layers = place.bench.get("images:debian/bullseye", "arm64").unwrap();
    let spoil = || crate::images::put(&place.bench.tree(&layers[0]).join("etc/name"), b"changed");
    spoil();
    let found = verify(&ctx, true).unwrap();
    assert!(found.damaged.len() == 1 && found.damaged[0].repaired, "{found:?}");
    assert_eq!(place.name_in(&layers), "new arm64");
    spoil();
    place.add("debian", "bullseye", "11", "arm64", "20260905_05:24", b"newer");
    let found = verify(&ctx, true).unwrap();
    assert!(found.damaged[0].why.as_ref().unwrap().contains("images:debian/bullseye/default is damaged"), "{found:?}");
    // The index has moved on: what there is is kept.
    assert_eq!(place.name_in(&layers), "changed");
}

#[test]
fn a_mistaken_word() {
    let place = Place::new();
    for word in ["images:debian", "images:debian/../x", "images:debian/bullseye/a/b/c"] {
        let error = place.bench.fails(word, "arm64");
        assert!(error.contains("is no image: "), "{error}");
    }
    assert_eq!(place.server.requests().len(), 0);
}
