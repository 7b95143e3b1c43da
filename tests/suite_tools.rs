//! Images that other tools made: committed by buildah as OCI and as docker's, pushed by buildah, podman and skopeo with gzip and zstd, in
//! indexes and in indexes of indexes. What a newcomer would get wrong: the tree that went in is the one that buildah shows of the
//! container before it is committed; what comes out of pronto must be that one.

#![allow(clippy::print_stderr, reason = "what cannot be tested here says so")]

#[path = "common/images.rs"]
mod images;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/registry.rs"]
mod registry;

use std::path::Path;

use images::{Layout, put};
use peers::{Podman, Store, can, run, sh, tree};
use registry::Registry;
use serde_json::Value;

const NEEDED: [&str; 6] = ["docker-registry", "skopeo", "buildah", "podman", "python3", "curl"];

/// The first layer, as a person would fill it.
const BASE: &str = r#"
set -e; mkdir -p etc/conf.d usr/bin tmp opt/app/cache var; chmod 1777 tmp; printf base >etc/name; printf gone >etc/gone
printf su >usr/bin/su; chmod 4755 usr/bin/su; printf a >opt/app/a; ln opt/app/a opt/app/b; ln -s ../etc/name usr/name
printf x >opt/app/cache/x; chown -R 33:44 opt/app; printf 'caf' >"etc/$(printf 'caf\351')"
setcap() { python3 -c "import os,sys; os.setxattr(sys.argv[1], 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000'))" "$1"; }
printf ping >usr/bin/ping; setcap usr/bin/ping; find . -exec touch -h -d '2021-03-04 05:06:07' {} +
"#;

/// What a second container changes.
const CHANGE: &str = r#"
set -e; rm etc/gone; rm -r opt/app/cache; mkdir opt/app/cache; printf y >opt/app/cache/y; printf changed >etc/name; chmod 600 etc/name
rm usr/name; mkdir usr/name; printf in >usr/name/in; mkdir new; printf n >new/n; ln new/n new/m
find . -newermt '2022-01-01' -exec touch -h -d '2022-03-04 05:06:07' {} +
"#;

/// Two layers by buildah; returns the tree that the container showed. The images are called `NAME` and `NAME-docker`.
fn built(buildah: &Podman, dir: &Path, name: &str, arch: &str) -> String {
    let base = dir.join(format!("{name}-base"));
    std::fs::create_dir(&base).unwrap();
    sh(&base, BASE, &[]);
    put(&base.join("etc/arch"), arch.as_bytes());
    let first = buildah.buildah(&["from", "scratch"]);
    buildah.buildah(&["copy", "-q", &first, base.to_str().unwrap(), "/"]);
    let (kind, words) =
        (["config", "--arch", arch], ["--env", "A=b", "--cmd", "[\"/bin/sh\"]", "--user", "1:2", &first]);
    buildah.buildah(&[&kind[..], &words[..]].concat());
    buildah.buildah(&["commit", "-q", &first, &format!("{name}-first")]);
    let second = buildah.buildah(&["from", "--pull-never", "--arch", arch, &format!("localhost/{name}-first")]);
    let point = buildah.buildah(&["mount", &second]);
    sh(Path::new(&point), CHANGE, &[]);
    let shown = tree(Path::new(&point));
    buildah.buildah(&["umount", &second]);
    buildah.buildah(&["commit", "-q", &second, name]);
    buildah.buildah(&["commit", "-q", "--format", "docker", &second, &format!("{name}-docker")]);
    shown
}

/// The trees are the same, but for the root itself.
#[track_caller]
fn same(ours: &str, theirs: &str, what: &str) {
    let below =
        |text: &str| -> Vec<String> { text.lines().filter(|l| !l.starts_with("b'.' ")).map(str::to_owned).collect() };
    let (ours, theirs) = (below(ours), below(theirs));
    let only = |a: &[String], b: &[String]| a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>();
    assert_eq!((only(&ours, &theirs), only(&theirs, &ours)), (vec![], vec![]), "{what}: ours, theirs");
    assert!(ours.len() > 15, "{what}");
}

/// The media types of an image in the registry: its manifest's and its layers'.
fn types(registry: &Registry, name: &str) -> Vec<String> {
    let text = run("skopeo", ["inspect", "--raw", "--tls-verify=false", &format!("docker://{}/{name}", registry.host)]);
    let json: Value = serde_json::from_str(&text).unwrap();
    let layers = json["layers"].as_array().into_iter().flatten();
    [&json].into_iter().chain(layers).filter_map(|v| v["mediaType"].as_str()).map(str::to_owned).collect()
}

#[test]
fn buildah_podman_and_skopeo_gzip_and_zstd_oci_and_docker() {
    if !can("buildah_podman_and_skopeo_gzip_and_zstd_oci_and_docker", &NEEDED) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let buildah = Podman::new(&dir.join("storage"), "vfs");
    let shown = built(&buildah, dir, "app", "arm64");
    let push = ["push", "-q", "--tls-verify=false"];
    let (b, p) = (|words: &[&str]| buildah.buildah(words), |words: &[&str]| buildah.podman(words));
    let all = |more: &[&str]| [&push[..], more].concat().iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    for (tool, format) in [("buildah", "oci"), ("buildah", "docker"), ("podman", "oci"), ("podman", "docker")] {
        for packing in ["gzip", "zstd"] {
            // docker's schema 2 knows gzip alone.
            if (format, packing) == ("docker", "zstd") {
                continue;
            }
            // A registry for each: these tools do not pack again what they know to be there, in whatever packing.
            let name = format!("{tool}/{format}:{packing}");
            let place = dir.join(name.replace(['/', ':'], "-"));
            std::fs::create_dir(&place).unwrap();
            let registry = Registry::start(&place);
            let to = |name: &str| format!("docker://{}/{name}", registry.host);
            let image = if format == "docker" { "localhost/app-docker" } else { "localhost/app" };
            let words = all(&["--compression-format", packing, image, &to(&name)]);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if tool == "buildah" {
                b(&words)
            } else {
                p(&words)
            };
            let types = types(&registry, &name);
            assert!(
                types.len() == 3 && types[0].contains(if format == "docker" { "docker" } else { "oci" }),
                "{types:?}"
            );
            assert!(types[1..].iter().all(|t| t.ends_with(packing)), "{name}: {types:?}");
            // Each from nothing, or the first one's layers would be shown again.
            let store = Store::new(&place.join("store"));
            same(&store.tree(&format!("{}/{name}", registry.host), "arm64"), &shown, &name);
        }
    }
    let registry = Registry::start(dir);
    let to = |name: &str| format!("docker://{}/{name}", registry.host);
    for image in ["app", "app-docker"] {
        b(&["push", "-q", "--tls-verify=false", &format!("localhost/{image}"), &to(&format!("buildah/{image}:t"))]);
    }
    // skopeo packs again what it copies, and turns one family's manifests into the other's.
    for (name, how) in [("oci", ["--format", "oci"]), ("v2s2", ["--format", "v2s2"])] {
        let from = if name == "oci" { to("buildah/app-docker:t") } else { to("buildah/app:t") };
        let plain = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"];
        run("skopeo", plain.iter().copied().chain(how).chain([from.as_str(), &to(&format!("skopeo/{name}:t"))]));
        let store = Store::new(&dir.join(format!("skopeo-{name}")));
        same(&store.tree(&format!("{}/skopeo/{name}:t", registry.host), "arm64"), &shown, name);
    }
    // What lies on the disk: layouts and archives, by buildah and podman.
    let at = |name: &str| dir.join(name).display().to_string();
    b(&["push", "-q", "localhost/app", &format!("oci:{}:t", at("lay"))]);
    b(&["push", "-q", "localhost/app", &format!("oci-archive:{}:t", at("oci.tar"))]);
    p(&["save", "-q", "--format", "docker-archive", "-o", &at("docker.tar"), "localhost/app"]);
    for word in [
        format!("oci:{}:t", at("lay")),
        format!("oci-archive:{}:t", at("oci.tar")),
        format!("docker-archive:{}", at("docker.tar")),
    ] {
        let store = Store::new(&dir.join(word.split(':').next().unwrap()).join("store"));
        same(&store.tree(&word, "arm64"), &shown, &word);
    }
}

#[test]
fn indexes_of_buildah_and_indexes_in_indexes() {
    if !can("indexes_of_buildah_and_indexes_in_indexes", &NEEDED) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let (buildah, registry) = (Podman::new(&dir.join("storage"), "vfs"), Registry::start(dir));
    let arm = built(&buildah, dir, "arm", "arm64");
    let amd = built(&buildah, dir, "amd", "amd64");
    for format in ["oci", "v2s2"] {
        let list = format!("list-{format}");
        buildah.buildah(&["manifest", "create", &list]);
        for name in ["arm", "amd"] {
            let image = if format == "oci" { format!("localhost/{name}") } else { format!("localhost/{name}-docker") };
            buildah.buildah(&["manifest", "add", &list, &image]);
        }
        let to = format!("docker://{}/x/list:{format}", registry.host);
        let push = ["manifest", "push", "-q", "--all", "--tls-verify=false", "--format", format, &list, &to];
        buildah.buildah(&push);
        assert!(types(&registry, &format!("x/list:{format}"))[0].contains(if format == "oci" {
            "index"
        } else {
            "list"
        }));
        let store = Store::new(&dir.join(&list));
        let word = format!("{}/x/list:{format}", registry.host);
        same(&store.tree(&word, "arm64"), &arm, &list);
        same(&store.tree(&word, "amd64"), &amd, &list);
    }
    // An archive of docker's form has a list of images in the place of an index.
    let at = |name: &str| dir.join(name).display().to_string();
    let save = |name: &str, images: &[&str]| {
        let words = ["save", "-q", "--format", "docker-archive", "-m", "-o"];
        let file = at(name);
        buildah.podman(&words.into_iter().chain([file.as_str()]).chain(images.iter().copied()).collect::<Vec<_>>());
        format!("docker-archive:{file}")
    };
    let (store, word) = (Store::new(&dir.join("saved")), save("both.tar", &["localhost/arm", "localhost/amd"]));
    let mut platforms = store.every(&word).unwrap();
    platforms.sort();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    same(&store.tree(&word, "arm64"), &arm, &word);
    same(&store.tree(&word, "amd64"), &amd, &word);
    assert_eq!(store.every(&format!("{word}:localhost/arm")).unwrap(), ["linux/arm64"]);
    same(&Store::new(&dir.join("saved-one")).tree(&format!("{word}:localhost/amd"), "amd64"), &amd, &word);
    // Two of one platform are told apart by their names only.
    buildah.buildah(&["tag", "localhost/arm-docker", "localhost/other"]);
    let word = save("three.tar", &["localhost/arm", "localhost/other", "localhost/amd"]);
    let error = store.every(&word).unwrap_err();
    assert!(error.contains("a name is needed") && error.contains("localhost/other:latest"), "{error}");
    same(&store.tree(&format!("{word}:localhost/arm"), "arm64"), &arm, &word);
    assert!(store.every(&format!("{word}:nothing")).unwrap_err().contains("image 'nothing' was not found"));

    // An index that holds buildah's index, and one that holds that: written by hand, for no tool makes them.
    let mut inner =
        run("skopeo", ["inspect", "--raw", "--tls-verify=false", &format!("docker://{}/x/list:oci", registry.host)]);
    let store = Store::new(&dir.join("nested"));
    let layout = Layout::new(&dir.join("documents"));
    for depth in 1..=2 {
        let digest = images::digest(inner.as_bytes());
        let kind = "application/vnd.oci.image.index.v1+json";
        let outer = layout.index_of(&[serde_json::json!({"mediaType": kind, "digest": digest, "size": inner.len()})]);
        let file = layout.blob_path(outer["digest"].as_str().unwrap());
        let url = format!("http://{}/v2/x/list/manifests/nested{depth}", registry.host);
        let data = format!("@{}", file.display());
        run("curl", ["-sSf", "-X", "PUT", "-H", &format!("Content-Type: {kind}"), "--data-binary", &data, &url]);
        let word = format!("{}/x/list:nested{depth}", registry.host);
        same(&store.tree(&word, "arm64"), &arm, &word);
        same(&store.tree(&word, "amd64"), &amd, &word);
        inner = std::fs::read_to_string(file).unwrap();
    }
}
