//! Images against a real registry (docker-registry, filled by skopeo), real tarballs and a real web server. What a newcomer would
//! get wrong: each test has a store and a registry of its own, so that spoiling a blob spoils nobody else's.

#[path = "common/bench.rs"]
mod bench;
#[path = "common/images.rs"]
mod images;
#[path = "common/registry.rs"]
mod registry;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bench::{Bench, Mounted, text};
use images::{Layout, Packed, Tar, digest, gzip, put};
use pronto::domain::Layer;
use pronto::ops::images::{self as verbs, obtain};
use pronto::store::layers;
use pronto::sys::process::Tool;
use registry::Registry;
use serde_json::{Value, json};

/// Pushes the tag `t` of a layout. docker's schema 2 is made by skopeo itself, for its `oci:` reads nothing else than OCI.
fn push(registry: &Registry, layout: &Layout, name: &str) {
    let how = if layout.docker { &["--format", "v2s2"][..] } else { &["--preserve-digests"] };
    registry.copy(&format!("oci:{}:t", layout.dir.display()), name, how);
}

fn small(name: &str) -> Vec<u8> {
    Tar::new().dir("etc").file("etc/name", name.as_bytes()).file(format!("etc/{name}"), &[1; 3000]).end()
}

/// Spoils a config and a manifest before they are written.
type Edit = fn(&mut Value, &mut Value);

const AS_IT_IS: Edit = |_, _| ();

/// An index of amd64 and arm64, with an attestation, tagged `t`.
fn index(dir: &Path, packed: Packed, docker: bool) -> Layout {
    let mut layout = Layout::new(dir);
    let base = small("base");
    let mut all: Vec<Value> =
        ["amd64", "arm64"].map(|arch| layout.image(arch, &[base.clone(), small(arch)], packed, AS_IT_IS)).into();
    if !docker {
        let mut attestation = layout.image("unknown", &[small("attestation")], packed, AS_IT_IS);
        attestation["platform"] = json!({"architecture": "unknown", "os": "unknown"});
        attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
        all.push(attestation);
    }
    let index = layout.index_of(&all);
    layout.tag("t", index);
    layout.docker = docker;
    layout
}

#[test]
fn an_index_gives_the_wanted_platform_and_shares_layers() {
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path());
    for (name, packed, docker) in
        [("gz", Packed::Gzip, false), ("zstd", Packed::Zstd, false), ("docker", Packed::Gzip, true)]
    {
        let layout = index(&bench.path(name), packed, docker);
        push(&registry, &layout, &format!("{name}:t"));
        let word = format!("{}/{name}:t", registry.host);
        let arm = bench.get(&word, "arm64").unwrap();
        let amd = bench.get(&word, "amd64").unwrap();
        assert_eq!((arm.len(), &arm[0]), (2, &amd[0]), "{name}: the base is one layer");
        assert_eq!(std::fs::read(bench.tree(&arm[1]).join("etc/name")).unwrap(), b"arm64", "{name}");
        assert_eq!(std::fs::read(bench.tree(&amd[1]).join("etc/name")).unwrap(), b"amd64", "{name}");
        let error = bench.fails(&word, "riscv64");
        assert!(error.contains("it has linux/amd64, linux/arm64"), "{error}");
        let platforms = pronto::ops::registry::platforms_named("arm64").unwrap();
        let artifact = obtain(&bench.ctx, &word, Some(&platforms), false, None).unwrap();
        assert_eq!(artifact.config.env, ["A=b"]);
        assert_eq!(
            (artifact.config.user.as_deref(), artifact.platform.unwrap().architecture),
            (Some("1:2"), "arm64".into())
        );
    }
    // The same archives in three packings are the same layers: 3 in all.
    let trees = layers::keys(&bench.ctx.store).unwrap();
    assert_eq!(trees.len(), 3, "{trees:?}");
    assert_eq!(verbs::images(&bench.ctx).unwrap().len(), 6);
    // Dropped without an end: the three look-ups that found no riscv64, and nothing else.
    assert_eq!(bench.said.failed.load(Ordering::Relaxed), 3, "{}", bench.lines());
    bench.assert_clean();
}

#[test]
fn what_is_present_asks_no_network_and_pull_asks() {
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path());
    let layout = index(&bench.path("l"), Packed::Gzip, false);
    registry.push(&layout.dir, "t", "x:t");
    let word = format!("{}/x:t", registry.host);
    assert!(verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap().fetched);
    assert!(!verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap().fetched, "it is up to date");
    let blobs = registry.asked("GET", "/blobs/");
    let pinned = format!("{}/x@{}", registry.host, digest(&std::fs::read(layout.blob_path(&top(&layout))).unwrap()));
    bench.get(&pinned, "arm64").unwrap();
    assert!(registry.asked("GET", "/blobs/") <= blobs + 1, "by digest: its config at most, no layer again");
    drop(registry);
    bench.get(&word, "arm64").unwrap();
    let error = text(&verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap_err());
    assert!(error.contains("cannot be reached: Connection refused"), "{error}");
    let error = bench.fails(&word, "amd64");
    assert!(error.contains("registry 127.0.0.1:") && error.contains("Connection refused"), "{error}");
}

fn top(layout: &Layout) -> String {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.dir.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn unknown_names_and_tags() {
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path());
    registry.push(&index(&bench.path("l"), Packed::Gzip, false).dir, "t", "x:t");
    for word in ["x:other", "nothing:t"] {
        let error = bench.fails(&format!("{}/{word}", registry.host), "arm64");
        assert!(error.contains(&format!("{word} was not found at registry 127.0.0.1")), "{error}");
    }
    let error = bench.fails("Debian:x", "arm64");
    assert!(error.contains("lower case"), "{error}");
}

#[test]
fn a_single_manifest_of_another_architecture_is_refused() {
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path());
    let mut layout = Layout::new(&bench.path("l"));
    let image = layout.image("amd64", &[small("amd64")], Packed::Gzip, AS_IT_IS);
    layout.tag("one", image);
    registry.push(&layout.dir, "one", "x:one");
    let word = format!("{}/x:one", registry.host);
    let error = bench.fails(&word, "arm64");
    assert!(error.contains("no platform linux/arm64") && error.contains("it has linux/amd64"), "{error}");
    bench.get(&word, "amd64").unwrap();
    let error = bench.fails(&format!("oci:{}:one", layout.dir.display()), "arm64");
    assert!(error.contains("it has linux/amd64"), "{error}");
}

#[test]
fn spoilt_blobs_are_found() {
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path());
    let layout = index(&bench.path("l"), Packed::Gzip, false);
    registry.push(&layout.dir, "t", "x:t");
    let word = format!("{}/x:t", registry.host);
    let blob = registry.blob(&digest(&gzip(&small("arm64"))));
    let good = std::fs::read(&blob).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 0x20;
    put(&blob, &bad);
    let error = bench.fails(&word, "arm64");
    assert!(error.contains("is damaged: its digest is sha256:"), "{error}");
    put(&blob, &good[..good.len() - 7]);
    let before = Instant::now();
    let error = bench.fails(&word, "arm64");
    assert!(error.contains(&format!("{} of {} bytes came", good.len() - 7, good.len())), "{error}");
    assert!(
        before.elapsed() < Duration::from_secs(5),
        "a blob that is short at its source is not asked for again and again"
    );
    std::fs::remove_file(&blob).unwrap();
    let error = bench.fails(&word, "arm64");
    assert!(error.contains("was not found at registry"), "{error}");
    put(&blob, &good);
    bench.get(&word, "arm64").unwrap();
}

#[test]
fn a_manifest_that_lies_about_digests() {
    let bench = Bench::new();
    let zero = digest(b"");
    let spoil: [(&str, Edit, &str); 4] = [
        ("diff", |config, _| config["rootfs"]["diff_ids"][0] = json!(digest(b"")), "archive inside layer"),
        ("size", |_, manifest| manifest["layers"][0]["size"] = json!(7), "bytes came"),
        ("none", |_, manifest| manifest["layers"] = json!([]), "no image of a file system"),
        (
            "sha512",
            |_, manifest| manifest["layers"][0]["digest"] = json!(format!("sha512:{}", "0".repeat(128))),
            "sha512",
        ),
    ];
    for (name, edit, why) in spoil {
        let mut layout = Layout::new(&bench.path(name));
        let image = layout.image("arm64", &[small("arm64")], Packed::Gzip, edit);
        layout.tag("t", image);
        let error = bench.fails(&format!("oci:{}:t", layout.dir.display()), "arm64");
        assert!(error.contains(why), "{name}: {error}");
    }
    // A manifest whose bytes are not those that the index promised.
    let layout = index(&bench.path("manifest"), Packed::Gzip, false);
    let index: Value = serde_json::from_slice(&std::fs::read(layout.blob_path(&top(&layout))).unwrap()).unwrap();
    let manifest = layout.blob_path(index["manifests"][1]["digest"].as_str().unwrap());
    let mut bytes = std::fs::read(&manifest).unwrap();
    bytes.push(b' ');
    put(&manifest, &bytes);
    let error = bench.fails(&format!("oci:{}:t", layout.dir.display()), "arm64");
    assert!(error.contains("manifest") && error.contains("damaged"), "{error}");
    assert_ne!(zero, digest(&bytes));
}

#[test]
fn layouts_by_tag_by_index_and_nested() {
    let bench = Bench::new();
    let mut layout = index(&bench.path("a b:c,d"), Packed::Plain, false);
    let dir = layout.dir.display().to_string();
    bench.get(&format!("oci:{dir}:t"), "arm64").unwrap();
    bench.get(&format!("oci:{dir}"), "amd64").unwrap();
    let error = bench.fails(&format!("oci:{dir}:other"), "arm64");
    assert!(error.contains("tag 'other' was not found") && error.contains("it has the tags t"), "{error}");
    // An index in an index, and entries that say no platform: the config says it.
    let silent = |arch: &str| {
        let mut image = layout.image(arch, &[small(arch)], Packed::Gzip, AS_IT_IS);
        image.as_object_mut().unwrap().remove("platform");
        image
    };
    let inner = layout.index_of(&[silent("s390x"), silent("riscv64")]);
    let outer = layout.index_of(&[inner]);
    layout.tag("nested", outer);
    let got = bench.get(&format!("oci:{dir}:nested"), "riscv64").unwrap();
    assert_eq!(std::fs::read(bench.tree(&got[0]).join("etc/name")).unwrap(), b"riscv64");
    let error = bench.fails(&format!("oci:{dir}:nested"), "ppc64le");
    assert!(error.contains("it has linux/riscv64, linux/s390x"), "{error}");
    let error = bench.fails(&format!("oci:{dir}"), "arm64");
    assert!(error.contains("a tag is needed"), "{error}");
    for (word, why) in
        [(format!("oci:{}", bench.path("none").display()), "cannot open"), ("oci:/usr".into(), "no index.json")]
    {
        let error = bench.fails(&word, "arm64");
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_hundred_layers_and_equal_ones() {
    let bench = Bench::new();
    let mut layout = Layout::new(&bench.path("l"));
    let mut tars: Vec<Vec<u8>> =
        (0..100).map(|n| Tar::new().file(format!("f{n}"), format!("{n}").as_bytes()).end()).collect();
    let twice = tars[3].clone();
    tars.push(twice.clone());
    let image = layout.image("arm64", &tars, Packed::Gzip, AS_IT_IS);
    layout.tag("t", image);
    let registry = Registry::start(bench.dir.path());
    registry.push(&layout.dir, "t", "x:t");
    let got = bench.get(&format!("{}/x:t", registry.host), "arm64").unwrap();
    assert_eq!(got.len(), 100, "overlayfs takes no directory twice");
    let upper = digest(&twice);
    assert_eq!(
        got.last(),
        Some(&Layer::Stored(upper.strip_prefix("sha256:").unwrap().into())),
        "the upper of two equals stays"
    );
    // An opaque root hides everything below it.
    let tars = [small("below"), Tar::new().file(".wh..wh..opq", b"").file("only", b"x").end(), small("above")];
    let image = layout.image("arm64", &tars, Packed::Gzip, AS_IT_IS);
    layout.tag("opaque", image);
    assert_eq!(bench.get(&format!("oci:{}:opaque", layout.dir.display()), "arm64").unwrap().len(), 2);
}

#[test]
fn a_hostile_layer_leaves_nothing() {
    let bench = Bench::new();
    let mut layout = Layout::new(&bench.path("l"));
    let hostile = Tar::new().symlink("l", "/").file("../../x", b"").end();
    let image = layout.image("arm64", &[small("base"), hostile], Packed::Gzip, AS_IT_IS);
    layout.tag("t", image);
    let error = bench.fails(&format!("oci:{}:t", layout.dir.display()), "arm64");
    assert!(error.contains("entry '../../x': its name climbs out"), "{error}");
    assert!(verbs::images(&bench.ctx).unwrap().is_empty());
}

#[test]
fn two_pulls_at_once_download_once() {
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path());
    let mut layout = Layout::new(&bench.path("l"));
    let big: Vec<u8> = (0..6_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let tar = Tar::new().file("big", &big).end();
    let image = layout.image("arm64", std::slice::from_ref(&tar), Packed::Gzip, AS_IT_IS);
    layout.tag("t", image);
    registry.push(&layout.dir, "t", "x:t");
    let word = format!("{}/x:t", registry.host);
    let got: Vec<Vec<Layer>> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.get(&word, "arm64").unwrap())).collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    assert!(got.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(registry.asked("GET", &digest(&gzip(&tar))), 1, "one download");
    assert!(bench.lines().contains("waiting for it"), "{}", bench.lines());
    bench.assert_clean();
}

#[test]
fn rmi_keeps_what_others_use() {
    let bench = Bench::new();
    let layout = index(&bench.path("l"), Packed::Gzip, false);
    let word = format!("oci:{}:t", layout.dir.display());
    let arm = bench.get(&word, "arm64").unwrap();
    bench.get(&word, "amd64").unwrap();
    let Layer::Stored(top) = &arm[1] else { panic!() };
    let domain = bench.ctx.store.domain("web");
    std::fs::create_dir_all(&domain).unwrap();
    put(&domain.join("domain.json"), json!({"artifact": {"layers": [{"stored": top}]}}).to_string().as_bytes());
    let error = verbs::rmi(&bench.ctx, &word, None).unwrap_err();
    assert!(error.to_string().contains("in use by web"), "{error}");
    assert_eq!(verbs::images(&bench.ctx).unwrap().len(), 2, "nothing was removed");
    verbs::rmi(&bench.ctx, &word, Some("amd64")).unwrap();
    assert_eq!(layers::keys(&bench.ctx.store).unwrap().len(), 2, "the base is arm64's too");
    std::fs::remove_dir_all(&domain).unwrap();
    verbs::rmi(&bench.ctx, &word, None).unwrap();
    assert_eq!(std::fs::read_dir(bench.ctx.store.layers()).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(bench.ctx.store.blobs()).unwrap().count(), 0);
    let error = verbs::rmi(&bench.ctx, &word, None).unwrap_err();
    assert!(error.to_string().contains("no image"), "{error}");
}

#[test]
fn what_a_killed_fetch_left_goes_with_the_next_change() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let bench = Bench::new();
    let left = bench.ctx.store.layers().join(".tmp-dead");
    let pronto = |words: &[&str]| {
        let mut tool = Tool::new(env!("CARGO_BIN_EXE_pronto")).args(words);
        tool.command().env("PRONTO_ROOT", bench.ctx.store.root()).output().unwrap().status.success()
    };
    for words in
        [&["rmi", "no/such"][..], &["new", "./no-such"], &["create", "./no-such"], &["run", "./no-such", "true"]]
    {
        std::fs::create_dir_all(left.join("usr")).unwrap();
        assert!(pronto(&["list", "--all"]) && left.exists(), "looking must not wait for a tree to be removed");
        assert!(!pronto(words) && !left.exists(), "{words:?}");
    }
}

#[test]
fn directories_and_tarballs() {
    let bench = Bench::new();
    let tree = bench.path("a b:c,d");
    std::fs::create_dir(&tree).unwrap();
    let got = bench.get(tree.to_str().unwrap(), "arm64").unwrap();
    assert_eq!(got, [Layer::Directory(tree.canonicalize().unwrap())]);
    let tar = small("ball");
    let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&tar).unwrap();
    let packed = [tar.clone(), gzip(&tar), xz.finish().unwrap(), zstd::encode_all(tar.as_slice(), 1).unwrap()];
    for (data, name) in packed.iter().zip(["x.tar", "x.tar.gz", "x.tar.xz", "wrong-name"]) {
        let path = bench.path(name);
        put(&path, data);
        let got = bench.get(path.to_str().unwrap(), "arm64").unwrap();
        assert_eq!(got, [Layer::Stored(digest(data)[7..].to_owned())]);
        assert_eq!(std::fs::read(bench.tree(&got[0]).join("etc/name")).unwrap(), b"ball", "{name}");
    }
    // Unchanged: not read again. Changed: unpacked again, and what was there stays for whoever uses it.
    let path = bench.path("x.tar");
    let before = bench.said.bytes.load(Ordering::Relaxed);
    bench.get(path.to_str().unwrap(), "arm64").unwrap();
    assert_eq!(bench.said.bytes.load(Ordering::Relaxed), before);
    put(&path, &small("changed"));
    let got = bench.get(path.to_str().unwrap(), "arm64").unwrap();
    assert_eq!(std::fs::read(bench.tree(&got[0]).join("etc/name")).unwrap(), b"changed");
    put(&path, &tar[..1000]);
    assert!(bench.fails(path.to_str().unwrap(), "arm64").contains("truncated"));
    assert!(bench.fails("./no/such.tar", "arm64").contains("cannot open ./no/such.tar: No such file"));
    assert!(bench.fails("/dev/null", "arm64").contains("neither a file nor a directory"));
    bench.assert_clean();
}

/// A full disk is one error, and what was begun is gone; what was whole before stays.
#[test]
fn a_full_disk() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = Mounted::tmpfs(dir.path(), "size=2m,mode=0700");
    let (ctx, _) = Bench::another(&dir.path().join("s"));
    let outside = tempfile::tempdir().unwrap();
    let mut layout = Layout::new(&outside.path().join("l"));
    let big = Tar::new().file("usr/big", &vec![7; 8 << 20]).end();
    let image = layout.image("arm64", &[small("base"), big], Packed::Gzip, AS_IT_IS);
    layout.tag("t", image);
    let platforms = pronto::ops::registry::platforms_named("arm64").unwrap();
    let error = obtain(&ctx, &format!("oci:{}:t", layout.dir.display()), Some(&platforms), false, None).unwrap_err();
    let said = text(&error);
    assert!(said.contains("cannot unpack 'usr/big' of layer") && said.contains("No space left on device"), "{said}");
    assert!(error.cure().unwrap().contains("free some space"));
    let names: Vec<_> = std::fs::read_dir(ctx.store.layers()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "the base, its record and its sums, nothing half-made: {names:?}");
    assert!(verbs::images(&ctx).unwrap().is_empty());
    drop(mounted);
}

/// A web server that knows ranges and breaks off: the `n`th answer ends after `n` times `step` bytes.
struct Web {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn serve(data: Vec<u8>, tag: Option<&'static str>, step: usize, ranges: bool) -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/rootfs.tar.gz", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let request = read_head(&mut client);
                if !request.starts_with("GET /rootfs.tar.gz HTTP") {
                    // No checksums stand beside it.
                    let _ = client.write_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    continue;
                }
                let count = seen.lock().unwrap().len() + 1;
                let lower = request.to_ascii_lowercase();
                let range =
                    lower.split("range: bytes=").nth(1).and_then(|r| r.split('-').next()?.parse::<usize>().ok());
                seen.lock().unwrap().push(request);
                let from = range.filter(|_| ranges).unwrap_or(0).min(data.len());
                let etag = tag.map(|t| format!("ETag: \"{t}\"\r\n")).unwrap_or_default();
                let total = data.len();
                let head = match from {
                    0 => format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n{etag}"),
                    _ => {
                        let length = total - from;
                        let last = total - 1;
                        format!(
                            "HTTP/1.1 206 Partial\r\nContent-Length: {length}\r\nContent-Range: bytes {from}-{last}/{total}\r\n{etag}"
                        )
                    }
                };
                let end = if step == 0 { total } else { total.min(count * step).max(from) };
                let _ = client.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes());
                let _ = client.write_all(&data[from..end]);
            }
        });
        Web { url, requests }
    }

    fn ranges(&self) -> Vec<bool> {
        self.requests.lock().unwrap().iter().map(|r| r.to_ascii_lowercase().contains("\r\nrange: bytes=")).collect()
    }
}

fn read_head(client: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) == 1 {
        request.push(byte[0]);
    }
    String::from_utf8_lossy(&request).into_owned()
}

fn noise(len: u32) -> Vec<u8> {
    (0..len).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 32).to_le_bytes()).collect()
}

#[test]
fn a_url_goes_on_where_it_broke_off() {
    let bench = Bench::new();
    let data = gzip(&Tar::new().file("noise", &noise(200_000)).end());
    let web = Web::serve(data.clone(), Some("v1"), data.len() / 3 + 1, true);
    let got = bench.get(&web.url, "arm64").unwrap();
    assert_eq!(got, [Layer::Stored(digest(&data)[7..].to_owned())]);
    assert_eq!(web.ranges(), [false, true, true]);
    assert_eq!(std::fs::read_dir(bench.ctx.store.partial()).unwrap().count(), 0, "nothing is kept");
    bench.get(&web.url, "arm64").unwrap();
    assert_eq!(web.ranges().len(), 3, "what is present asks no network");
    assert!(verbs::pull(&bench.ctx, &web.url, None, true, None).is_ok());
    assert!(web.ranges().len() > 3, "unless forced");
}

#[test]
fn a_url_without_ranges_or_tags_begins_anew() {
    let bench = Bench::new();
    let data = gzip(&Tar::new().file("noise", &noise(100_000)).end());
    for (tag, ranges) in [(None, true), (Some("v1"), false)] {
        let web = Web::serve(data.clone(), tag, data.len() / 2 + 1, ranges);
        let got = bench.get(&web.url, "arm64").unwrap();
        assert_eq!(got, [Layer::Stored(digest(&data)[7..].to_owned())]);
        assert_eq!(web.ranges().len(), 2);
    }
}

#[test]
fn urls_that_fail() {
    let bench = Bench::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = bench.fails(&format!("http://{free}/x.tar"), "arm64");
    assert!(error.contains("127.0.0.1 cannot be reached: Connection refused"), "{error}");
    let web = Web::serve(b"this is no archive".repeat(100), None, 0, true);
    let error = bench.fails(&web.url, "arm64");
    assert!(error.contains("no tar archive"), "{error}");
    assert_eq!(std::fs::read_dir(bench.ctx.store.partial()).unwrap().count(), 0, "a bad download is not kept");
    let registry = Registry::start(bench.dir.path());
    let error = bench.fails(&format!("http://{}/missing.tar", registry.host), "arm64");
    assert!(error.contains("was not found at 127.0.0.1"), "{error}");
}

/// A registry in front of the real one, which hangs up in the middle of blobs.
#[test]
fn a_blob_goes_on_where_it_broke_off() {
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path());
    let mut layout = Layout::new(&bench.path("l"));
    let image = layout.image("arm64", &[Tar::new().file("noise", &noise(500_000)).end()], Packed::Gzip, AS_IT_IS);
    layout.tag("t", image);
    registry.push(&layout.dir, "t", "x:t");
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = proxy.local_addr().unwrap();
    let back = registry.host.clone();
    let broken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&broken);
    std::thread::spawn(move || {
        for client in proxy.incoming() {
            let (back, count) = (back.clone(), Arc::clone(&count));
            std::thread::spawn(move || relay(client.unwrap(), &back, &count));
        }
    });
    bench.get(&format!("{front}/x:t"), "arm64").unwrap();
    assert!(broken.load(Ordering::Relaxed) >= 2, "the proxy did break off");
    bench.assert_clean();
}

/// Passes one request on; a large answer is cut after 700 kB.
fn relay(mut client: TcpStream, back: &str, broken: &AtomicUsize) {
    let request = read_head(&mut client).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let mut server = TcpStream::connect(back).unwrap();
    server.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    server.take(700_000).read_to_end(&mut answer).unwrap();
    if answer.len() == 700_000 {
        broken.fetch_add(1, Ordering::Relaxed);
    }
    let _ = client.write_all(&answer);
}

/// The stack of a real image mounts, and whiteouts hide what they should.
#[test]
fn whiteouts_work_in_a_real_overlay() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let bench = Bench::new();
    let mut layout = Layout::new(&bench.path("l"));
    let lower = Tar::new()
        .dir("d")
        .file("d/old", b"1")
        .dir("e")
        .file("e/x", b"1")
        .file("gone", b"1")
        .dir("g")
        .file("g/x", b"1")
        .end();
    let upper = Tar::new()
        .dir("d")
        .file("d/.wh..wh..opq", b"")
        .file("d/new", b"2")
        .file("e/.wh.x", b"")
        .file(".wh.gone", b"")
        .file(".wh.g", b"")
        .dir("g")
        .file("g/y", b"2")
        .end();
    let image = layout.image("arm64", &[lower, upper], Packed::Zstd, AS_IT_IS);
    layout.tag("t", image);
    let got = bench.get(&format!("oci:{}:t", layout.dir.display()), "arm64").unwrap();
    let lowers: Vec<String> = got.iter().rev().map(|layer| bench.tree(layer).display().to_string()).collect();
    let point = bench.path("m");
    std::fs::create_dir(&point).unwrap();
    let show = format!(
        "mount -t overlay o -o lowerdir={} {point} && cd {point} && find . -mindepth 1 | sort && cd / && umount {point}",
        lowers.join(":"),
        point = point.display()
    );
    let mut tool = Tool::new("unshare").args(["--mount", "sh", "-c", &show]);
    tool.command().stdin(Stdio::null());
    let seen = String::from_utf8(tool.output().unwrap()).unwrap();
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["./d", "./d/new", "./e", "./g", "./g/y"]);
}
