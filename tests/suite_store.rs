//! What is in the store, and how it leaves it: shared sizes, `inspect`, `prune`, all platforms at once; and a pull that is killed at any moment.
//! What a newcomer would get wrong: the killed one is the real program, so that nothing of it can tidy up.

#[path = "common/bench.rs"]
mod bench;
#[path = "common/images.rs"]
mod images;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bench::{Bench, text};
use images::{Layout, Packed, Tar, put};
use pronto::ops::images::{self as verbs, Pruned};
use pronto::store::{blobs, images as records, layers};
use pronto::sys::process::Tool;

/// An index of two platforms that share their base; `text` is in the upper layer.
fn index(dir: &Path, text: &str) -> Layout {
    let mut layout = Layout::new(dir);
    let base = Tar::new().dir("usr").file("usr/base", &[7; 5000]).end();
    let upper = |arch: &str| Tar::new().dir("etc").file("etc/name", format!("{text} {arch}").as_bytes()).end();
    let image = |arch: &str| layout.image(arch, &[base.clone(), upper(arch)], Packed::Gzip, |_, _| ());
    let all = layout.index_of(&[image("amd64"), image("arm64")]);
    layout.tag("t", all);
    layout
}

#[test]
fn every_platform_at_once_and_what_they_share() {
    let bench = Bench::new();
    let layout = index(&bench.path("l"), "one");
    let word = format!("oci:{}:t", layout.dir.display());
    let all = verbs::pull_all(&bench.ctx, &word, false).unwrap();
    let platforms: Vec<String> = all.iter().map(|p| p.artifact.platform.as_ref().unwrap().to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
    assert!(all.iter().all(|p| p.fetched));
    let rows = verbs::images(&bench.ctx).unwrap();
    assert_eq!(rows.iter().map(|r| (r.size, r.shared)).collect::<Vec<_>>(), [(5009, 5000), (5009, 5000)]);
    let error = text(&verbs::pull_all(&bench.ctx, "./x.tar", false).unwrap_err());
    assert!(error.contains("no list of platforms"), "{error}");

    let found = verbs::inspect(&bench.ctx, &word, Some("arm64")).unwrap();
    assert_eq!(found.len(), 1);
    let shown = serde_json::to_value(&found[0]).unwrap();
    assert_eq!(shown["platform"], "linux/arm64");
    assert_eq!((&shown["layers"][0]["size"], &shown["layers"][1]["entries"]), (&5000.into(), &2.into()));
    assert_eq!(shown["config"]["config"]["Env"][0], "A=b");
    assert_eq!(shown["manifest"]["layers"].as_array().unwrap().len(), 2);
    assert_eq!(verbs::inspect(&bench.ctx, &word, None).unwrap().len(), 2);
    let error = text(&verbs::inspect(&bench.ctx, &word, Some("riscv64")).unwrap_err());
    assert!(error.contains("for riscv64 is stored"), "{error}");
}

#[test]
fn one_more_name() {
    let bench = Bench::new();
    let layout = index(&bench.path("l"), "one");
    let word = format!("oci:{}:t", layout.dir.display());
    verbs::pull_all(&bench.ctx, &word, false).unwrap();
    assert_eq!(verbs::tag(&bench.ctx, &word, "mine:1", None).unwrap(), "localhost/mine:1");
    assert_eq!(verbs::tag(&bench.ctx, "mine:1", "mine:2", Some("arm64")).unwrap(), "localhost/mine:2");
    let named = |name: &str| verbs::inspect(&bench.ctx, name, None).map(|all| all.len());
    assert_eq!((named("mine:1").unwrap(), named("localhost/mine:2").unwrap()), (2, 1));
    assert!(verbs::images(&bench.ctx).unwrap().iter().all(|row| row.shared == 5000), "a name shares nothing more");
    verbs::tag(&bench.ctx, "mine:2", "mine:1", None).unwrap();
    assert_eq!(named("mine:1").unwrap(), 1, "the name has moved");
    verbs::rmi(&bench.ctx, &word, None).unwrap();
    verbs::rmi(&bench.ctx, "mine:1", None).unwrap();
    assert_eq!(verbs::verify(&bench.ctx, false).unwrap().sound, 2, "the last name keeps its layers");
    let error = text(&verbs::tag(&bench.ctx, "gone", "mine", None).unwrap_err());
    assert!(error.contains("'gone' is stored"), "{error}");
    let error = text(&verbs::tag(&bench.ctx, "mine:2", "quay.io/x/y", None).unwrap_err());
    assert!(error.contains("registry's host"), "{error}");
    verbs::rmi(&bench.ctx, "mine:2", None).unwrap();
    assert_eq!(layers::keys(&bench.ctx.store).unwrap().len(), 0);
}

#[test]
fn what_was_replaced_is_pruned() {
    let bench = Bench::new();
    let (one, two) = (index(&bench.path("l"), "one"), bench.path("l2"));
    let word = format!("oci:{}:t", one.dir.display());
    let pull = || verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap();
    let old = pull();
    assert_eq!(verbs::prune(&bench.ctx, false, false).unwrap(), Pruned::default(), "everything is in use");
    let replaced = index(&two, "two");
    std::fs::remove_dir_all(&one.dir).unwrap();
    std::fs::rename(&replaced.dir, &one.dir).unwrap();
    let new = pull();
    assert_ne!(old.artifact.digest, new.artifact.digest);
    std::fs::create_dir_all(bench.ctx.store.partial()).unwrap();
    put(&bench.ctx.store.partial().join("x.part"), b"12345");
    let wanted = Pruned { layers: 1, bytes: 9 + 5, ..Pruned::default() };
    assert_eq!(verbs::prune(&bench.ctx, false, true).unwrap(), wanted);
    assert_eq!(layers::keys(&bench.ctx.store).unwrap().len(), 3, "told only");
    assert_eq!(verbs::prune(&bench.ctx, false, false).unwrap(), wanted);
    assert_eq!(layers::keys(&bench.ctx.store).unwrap().len(), 2);
    assert_eq!(blobs::all(&bench.ctx.store).unwrap().len(), 2, "the manifest and config of the one that is there");
    assert_eq!(std::fs::read_dir(bench.ctx.store.partial()).unwrap().count(), 0);
    bench.assert_clean();
    let pruned = verbs::prune(&bench.ctx, true, false).unwrap();
    assert_eq!((pruned.images, pruned.layers), (vec![format!("{word} (linux/arm64)")], 2));
    assert!(verbs::images(&bench.ctx).unwrap().is_empty() && blobs::all(&bench.ctx.store).unwrap().is_empty());
}

#[test]
fn damage_is_found_by_name_and_repaired_by_digest() {
    let bench = Bench::new();
    let layout = index(&bench.path("l"), "one");
    let word = format!("oci:{}:t", layout.dir.display());
    let store = &bench.ctx.store;
    let artifact = verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap().artifact;
    let tarball = bench.path("x.tar");
    put(&tarball, &Tar::new().file("f", b"x").end());
    verbs::pull(&bench.ctx, tarball.to_str().unwrap(), None, false, None).unwrap();
    let found = verbs::verify(&bench.ctx, false).unwrap();
    assert_eq!((found.sound, found.unknown.len(), found.damaged.len()), (3, 0, 0));

    let base = bench.tree(&artifact.layers[0]);
    let file = base.join("usr/base");
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    put(&file, &[8; 5000]);
    std::fs::File::open(&file).unwrap().set_modified(time).unwrap();
    std::fs::remove_dir_all(bench.tree(&artifact.layers[1])).unwrap();
    let config = blobs::all(store).unwrap()[0].clone();
    put(&store.blobs().join(&config), b"{}");
    let only = records::all(store).unwrap().into_iter().find(|r| r.reference.ends_with("x.tar")).unwrap();
    put(&store.layer(&only.entries[0].layers[0]).join("new"), b"");
    let found = verbs::verify(&bench.ctx, false).unwrap();
    assert_eq!((found.sound, found.damaged.len()), (0, 4), "{found:?}");
    assert!(found.is_bad());
    let of = |how: &str| found.damaged.iter().find(|d| d.how.iter().any(|h| h.contains(how))).unwrap();
    assert_eq!(of("/usr/base has changed").of, std::slice::from_ref(&word));
    assert!(of("is not there, or was not written").of == [word.clone()]);
    assert!(of("its digest is another").what.ends_with(&config));
    assert!(of("/new was not there").of[0].ends_with("x.tar"));

    // The tag has moved on, the stored digest is what is asked for.
    let mended = verbs::verify(&bench.ctx, true).unwrap();
    assert!(!mended.is_bad() && mended.damaged.iter().all(|d| d.repaired), "{mended:?}");
    let found = verbs::verify(&bench.ctx, false).unwrap();
    assert_eq!((found.sound, found.damaged.len()), (3, 0), "{found:?}");
    assert_eq!(std::fs::read(&file).unwrap(), [7; 5000]);

    // Where nobody has it any more, what is damaged is told and stays.
    std::fs::remove_file(layout.blob_path(artifact.digest.as_ref().unwrap())).unwrap();
    put(&file, &[9; 5000]);
    let lost = verbs::verify(&bench.ctx, true).unwrap();
    assert!(lost.is_bad() && lost.damaged[0].why.as_ref().unwrap().contains("cannot be fetched again"), "{lost:?}");
    assert_eq!(std::fs::read(&file).unwrap(), [9; 5000], "nothing is taken away that cannot be had again");
    assert_eq!(verbs::verify(&bench.ctx, false).unwrap().damaged[0].how, ["/usr/base has changed"]);
    bench.assert_clean();
    // What was never written down cannot be told.
    std::fs::remove_file(store.layers().join(format!("{}.sum", only.entries[0].layers[0]))).unwrap();
    assert_eq!(verbs::verify(&bench.ctx, false).unwrap().unknown, only.entries[0].layers);
}

/// An image whose second layer speaks of its first: a directory that it does not name, and these links.
fn speaking(dir: &Path, lower: &[u8], links: &[(&str, &str)]) -> (Layout, String) {
    let mut layout = Layout::new(dir);
    let tar = Tar::new().file("usr/new", b"new").dir("opt").symlink("up", "../../..");
    let upper = links.iter().fold(tar, |tar, (link, target)| tar.hard_link(link, target)).end();
    let image = layout.image("arm64", &[lower.to_vec(), upper], Packed::Gzip, |_, _| ());
    layout.tag("t", image);
    let word = format!("oci:{}:t", dir.display());
    (layout, word)
}

/// What joins layers is a layer: shared, verified, made anew, and gone with its image. One that needs nothing of the kind has none.
#[test]
fn seams_live_and_go_with_their_images() {
    let bench = Bench::new();
    let store = &bench.ctx.store;
    let wide = images::Header { mode: 0o1777, uid: 5, ..images::entry(b'5', "usr") };
    let lower = Tar::new().dir("./").add(wide, b"").file("usr/base", &[7; 5000]).end();
    let (_one, first) = speaking(&bench.path("one"), &lower, &[("link", "usr/base")]);
    let (_two, second) = speaking(&bench.path("two"), &Tar::new().dir("srv").end(), &[]);
    let pull = |word: &str| verbs::pull(&bench.ctx, word, Some("arm64"), false, None).unwrap().artifact.layers;
    assert_eq!(pull(&second).len(), 2, "nothing below is spoken of, so nothing is joined");
    let layers_of_first = pull(&first);
    assert_eq!(layers_of_first.len(), 3);
    let seam = bench.tree(&layers_of_first[2]);
    let usr = std::fs::metadata(seam.join("usr")).unwrap();
    assert_eq!((usr.mode() & 0o7777, usr.uid()), (0o1777, 5));
    let (base, link) = (bench.tree(&layers_of_first[0]).join("usr/base"), seam.join("link"));
    assert_eq!(std::fs::metadata(&base).unwrap().ino(), std::fs::metadata(&link).unwrap().ino(), "it takes no room");
    let size = |word: &str| verbs::images(&bench.ctx).unwrap().into_iter().find(|r| r.reference == word).unwrap().size;
    assert_eq!(size(&first), 5003);
    let whole = trees(&bench.path("store"));
    assert_eq!(verbs::verify(&bench.ctx, false).unwrap().sound, 5);

    // A file of two layers is damaged in both, and mended in both.
    put(&base, &[8; 5000]);
    std::fs::remove_dir_all(seam.join("usr")).unwrap();
    let mended = verbs::verify(&bench.ctx, true).unwrap();
    assert_eq!((mended.damaged.len(), mended.is_bad()), (2, false), "{mended:?}");
    assert_eq!(trees(&bench.path("store")), whole);
    assert_eq!(std::fs::read(&link).unwrap(), [7; 5000]);

    // A cache takes it along.
    let cache = bench.path("cache");
    pronto::ops::cache::export(&bench.ctx, &cache, &[], false).unwrap();
    let (other, _) = Bench::another(&bench.path("other"));
    pronto::ops::cache::import(&other, &cache).unwrap();
    let there = other.store.layer(seam.file_name().unwrap().to_str().unwrap());
    assert_eq!(std::fs::read(there.join("link")).unwrap(), [7; 5000]);
    assert_eq!(std::fs::metadata(there.join("usr")).unwrap().uid(), 5);
    assert!(!verbs::verify(&other, false).unwrap().is_bad());

    verbs::rmi(&bench.ctx, &first, None).unwrap();
    assert!(!seam.exists() && verbs::verify(&bench.ctx, false).unwrap().sound == 2);
    verbs::rmi(&bench.ctx, &second, None).unwrap();
    assert!(layers::keys(store).unwrap().is_empty());
    bench.assert_clean();
}

/// A hard link to what no layer holds is refused, whichever way it is spelled; what leads out leads nowhere.
#[test]
fn hard_links_to_nothing() {
    let bench = Bench::new();
    put(&bench.path("secret"), b"secret");
    let outside = format!("up{}", bench.path("secret").display());
    let lower = Tar::new().dir("usr").file("usr/base", b"x").symlink("loop", "loop").symlink("out", "/../../etc").end();
    for (number, (target, why)) in [
        ("usr/nothing", "neither this layer holds nor one below it"),
        ("usr", "is a hard link to 'usr', which is a directory"),
        ("loop/x", "neither this layer holds"),
        ("out/passwd", "neither this layer holds"),
        (outside.as_str(), "hold"),
        ("../secret", "leads out of the tree"),
    ]
    .into_iter()
    .enumerate()
    {
        let (_layout, word) = speaking(&bench.path(&number.to_string()), &lower, &[("opt/link", target)]);
        let error = text(&verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap_err());
        assert!(error.contains("opt/link") && error.contains(why), "{error}");
        assert!(verbs::images(&bench.ctx).unwrap().is_empty());
    }
    // Inside, links lead where they lead in a guest.
    let (_layout, word) = speaking(&bench.path("good"), &lower, &[("opt/link", "up/../usr/./base")]);
    let error = text(&verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap_err());
    assert!(error.contains("leads out of the tree"), "{error}");
    let (_layout, word) = speaking(&bench.path("better"), &lower, &[("opt/link", "up/usr/./base")]);
    let layers_of = verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap().artifact.layers;
    assert_eq!(std::fs::read(bench.tree(&layers_of[2]).join("opt/link")).unwrap(), b"x");
    verbs::rmi(&bench.ctx, &word, None).unwrap();
    verbs::prune(&bench.ctx, false, false).unwrap();
    assert!(layers::keys(&bench.ctx.store).unwrap().is_empty(), "what refused images have left is nobody's");
    bench.assert_clean();
}

/// What docker saved of two platforms: one reference, one entry for each; what is damaged is fetched again by its digest.
#[test]
fn an_archive_of_several_images() {
    let bench = Bench::new();
    let archive = bench.path("saved.tar");
    let (mut tar, mut items) = (Tar::new(), Vec::new());
    for arch in ["arm64", "amd64"] {
        let layer = Tar::new().dir("etc").file("etc/arch", arch.as_bytes()).end();
        let rootfs = serde_json::json!({"type": "layers", "diff_ids": [images::digest(&layer)]});
        let config = serde_json::json!({"architecture": arch, "os": "linux", "rootfs": rootfs}).to_string();
        tar = tar.file(format!("{arch}.json"), config.as_bytes()).file(format!("{arch}.tar"), &layer);
        items.push(serde_json::json!({"Config": format!("{arch}.json"), "RepoTags": ["a:1"], "Layers": [format!("{arch}.tar")]}));
    }
    put(&archive, &tar.file("manifest.json", serde_json::json!(items).to_string().as_bytes()).end());
    for word in [format!("docker-archive:{}", archive.display()), format!("docker-archive:{}:a:1", archive.display())] {
        let all = verbs::pull_all(&bench.ctx, &word, false).unwrap();
        assert_eq!(all.len(), 2);
        let arm = verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap().artifact;
        let file = bench.tree(&arm.layers[0]).join("etc/arch");
        assert_eq!(std::fs::read(&file).unwrap(), b"arm64");
        let error = text(&verbs::pull(&bench.ctx, &word, Some("riscv64"), false, None).unwrap_err());
        assert!(error.contains("it has linux/amd64, linux/arm64"), "{error}");
        put(&file, b"mra64");
        let mended = verbs::verify(&bench.ctx, true).unwrap();
        assert_eq!((mended.damaged.len(), mended.is_bad()), (1, false), "{mended:?}");
        assert_eq!(std::fs::read(&file).unwrap(), b"arm64");
        verbs::rmi(&bench.ctx, &word, None).unwrap();
        assert!(layers::keys(&bench.ctx.store).unwrap().is_empty());
    }
    bench.assert_clean();
}

/// Every entry of a tree: type and mode, owner, size, link or content.
/// As after a reboot: what was made counts as made in another boot.
fn reboot(store: &pronto::store::Store) {
    for key in layers::keys(store).unwrap() {
        let path = store.layers().join(format!("{key}.json"));
        let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(record["boot"], layers::boot_id().unwrap(), "nobody waited for the disk");
        record["boot"] = "another".into();
        put(&path, record.to_string().as_bytes());
    }
}

#[test]
fn a_reboot_keeps_what_reached_the_disk_and_fetches_what_did_not() {
    let bench = Bench::new();
    let layout = index(&bench.path("l"), "one");
    let word = format!("oci:{}:t", layout.dir.display());
    let store = &bench.ctx.store;
    verbs::pull_all(&bench.ctx, &word, false).unwrap();
    reboot(store);
    let away = bench.path("away");
    std::fs::rename(&layout.dir, &away).unwrap();
    assert_eq!(verbs::images(&bench.ctx).unwrap().len(), 2, "the source is not asked");
    assert!(layers::keys(store).unwrap().iter().all(|key| layers::meta(store, key).unwrap().unwrap().boot.is_none()));
    assert_eq!(verbs::verify(&bench.ctx, false).unwrap().sound, 3);
    for row in verbs::images(&bench.ctx).unwrap() {
        verbs::rmi(&bench.ctx, &row.reference, None).ok();
    }
    std::fs::rename(&away, &layout.dir).unwrap();

    let artifact = verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap().artifact;
    reboot(store);
    let keys = artifact.stored_keys();
    put(&store.layer(&keys[1]).join("etc/name"), b"");
    let image = std::fs::read_dir(store.images()).unwrap().next().unwrap().unwrap().path();
    put(&image, b"");
    for blob in blobs::all(store).unwrap() {
        put(&store.blobs().join(blob), b"");
    }
    assert!(verbs::images(&bench.ctx).unwrap().is_empty(), "its record is empty");
    let again = verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap();
    assert_eq!((again.fetched, &again.artifact), (true, &artifact));
    assert_eq!(std::fs::read(store.layer(&keys[1]).join("etc/name")).unwrap(), b"one arm64");
    let boots = keys.iter().map(|key| layers::meta(store, key).unwrap().unwrap().boot);
    assert_eq!(boots.collect::<Vec<_>>(), [None, layers::boot_id()], "the whole one was not fetched again");
    assert!(verbs::verify(&bench.ctx, false).unwrap().damaged.is_empty());
    bench.assert_clean();
}

fn tree(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let mut line =
            format!("{:o} {}:{} {}.{}", meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if meta.is_symlink() {
            line += &format!(" {}", std::fs::read_link(&path).unwrap().display());
        } else if meta.is_file() {
            line += &images::digest(&std::fs::read(&path).unwrap());
        }
        out.insert(path.strip_prefix(dir).unwrap().to_owned(), line);
    }
    out.remove(Path::new(""));
    out
}

/// The trees of all layers of a store, without the records beside them.
fn trees(root: &Path) -> Vec<(PathBuf, String)> {
    tree(&root.join("layers")).into_iter().filter(|(path, _)| path.extension().is_none()).collect()
}

/// Three layers that take a while, and not the same: many files, large ones, and links.
fn slow(dir: &Path) -> Layout {
    let mut layout = Layout::new(dir);
    let noise = |seed: u64, len: usize| {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect::<Vec<u8>>()
    };
    let layer = |seed: u64| {
        let mut tar = Tar::new().dir("./").dir("d");
        for n in 0..15 * seed * seed {
            tar = tar.file(format!("d/{seed}-{n}"), &noise(seed + n, 3000)).symlink(format!("d/{seed}-{n}l"), "x");
        }
        tar.file(format!("d/{seed}-big"), &noise(seed, 1_500_000 * (seed * seed) as usize)).end()
    };
    let image = layout.image("arm64", &[layer(1), layer(2), layer(3)], Packed::Gzip, |_, _| ());
    layout.tag("t", image);
    layout
}

/// At 50 moments all over its course; nothing of a killed one counts, and the next goes on with the layers that are whole.
#[test]
fn a_pull_that_is_killed_leaves_a_sound_store() {
    const KILLS: u32 = 50;
    if !nix::unistd::geteuid().is_root() {
        panic!("this test runs the program, which needs root: sudo make test");
    }
    let bench = Bench::new();
    let word = format!("oci:{}:t", slow(&bench.path("l")).dir.display());
    let pull = |root: &Path| {
        let mut tool =
            Tool::new(env!("CARGO_BIN_EXE_pronto")).arg("--root").arg(root).args(["pull", "--arch", "arm64", &word]);
        tool.command().stdout(Stdio::null()).stderr(Stdio::null());
        tool.spawn().unwrap()
    };
    let whole = bench.path("whole");
    let begun = std::time::Instant::now();
    assert!(pull(&whole).wait().unwrap().success());
    let course = begun.elapsed();
    let wanted: Vec<_> =
        tree(&whole.join("layers")).into_iter().filter(|(path, _)| path.extension().is_none()).collect();
    let root = bench.path("killed");
    let mut kept = 0;
    for n in 0..KILLS {
        let mut child = pull(&root);
        // Later and later: what is there already makes the rest of its course shorter.
        std::thread::sleep(course.mul_f64(f64::from(n % 10 + 1) / 11.0).max(Duration::from_millis(1)));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = pronto::store::Store::at(Some(&root));
        if !store.layers().is_dir() {
            continue;
        }
        for key in layers::keys(&store).unwrap().into_iter().filter(|key| layers::exists(&store, key).unwrap()) {
            let there = tree(&store.layer(&key));
            let same = tree(&whole.join("layers").join(&key));
            assert!(there == same, "after kill {n} layer {key} counts and is not whole");
            kept += 1;
        }
        let (ctx, _) = Bench::another(&root);
        let verified = verbs::verify(&ctx, false).unwrap();
        assert!(verified.damaged.is_empty(), "after kill {n}: {verified:?}");
        if n % 10 == 9 {
            std::fs::remove_dir_all(&root).unwrap();
        }
    }
    assert!(kept > 0, "no layer outlived a kill: the moments are badly chosen");
    assert!(pull(&root).wait().unwrap().success(), "and the next one goes on");
    assert!(trees(&root) == wanted, "the same tree in the end");
    let (ctx, _) = Bench::another(&root);
    let verified = verbs::verify(&ctx, false).unwrap();
    assert_eq!((verified.sound, verified.unknown.len(), verified.damaged.len()), (3, 0, 0), "{verified:?}");
    assert_eq!(verbs::prune(&ctx, false, false).unwrap(), Pruned::default(), "nothing is left over");
}

/// At 20 moments all over its course: every layer is there, damaged as it was or sound again, also when nobody has it any more.
#[test]
fn a_repair_that_is_killed_makes_nothing_worse() {
    const KILLS: u32 = 20;
    if !nix::unistd::geteuid().is_root() {
        panic!("this test runs the program, which needs root: sudo make test");
    }
    let bench = Bench::new();
    let layout = slow(&bench.path("l"));
    let word = format!("oci:{}:t", layout.dir.display());
    let store = &bench.ctx.store;
    let artifact = verbs::pull(&bench.ctx, &word, Some("arm64"), false, None).unwrap().artifact;
    let (top, gone) = (bench.tree(&artifact.layers[2]), bench.path("gone"));
    let pronto = |words: &[&str]| {
        let mut tool = Tool::new(env!("CARGO_BIN_EXE_pronto")).arg("--root").arg(store.root()).args(words);
        tool.command().stdout(Stdio::null()).stderr(Stdio::null());
        tool.spawn().unwrap()
    };
    let repair = || pronto(&["verify", "--repair"]);
    let damage = || {
        let file = top.join("d/3-7");
        let time = std::fs::metadata(&file).unwrap().modified().unwrap();
        put(&file, &[b'x'; 3000]);
        std::fs::File::open(&file).unwrap().set_modified(time).unwrap();
    };
    let whole = trees(store.root());
    damage();
    let begun = std::time::Instant::now();
    assert!(repair().wait().unwrap().success());
    let mut course = begun.elapsed();
    assert!(trees(store.root()) == whole, "a repair that lives");
    let (mut killed, mut middle, mut kept) = (0, 0, 0);
    for n in 0..10 * KILLS {
        if killed == KILLS {
            break;
        }
        damage();
        let damaged = trees(store.root());
        let mut child = repair();
        std::thread::sleep(course.mul_f64(f64::from(n % KILLS + 1) / f64::from(KILLS)));
        child.kill().unwrap();
        match child.wait().unwrap().success() {
            false => killed += 1,
            // It is not always as slow as the first one was.
            true => course = course.mul_f64(0.95),
        }
        let names = std::fs::read_dir(store.layers()).unwrap().map(|e| e.unwrap().file_name());
        middle += u32::from(names.into_iter().any(|name| name.to_str().unwrap().starts_with(".mending-")));
        // Whoever comes next puts it right: one that looks, one that uses the image, one that fetches.
        std::fs::rename(&layout.dir, &gone).unwrap();
        let tar = bench.path("x.tar");
        let next: &[&str] = if n % 2 == 0 { &["list"] } else { &["export", "--force", &word, tar.to_str().unwrap()] };
        assert!(pronto(next).wait().unwrap().success(), "after kill {n}: {next:?}");
        let found = verbs::verify(&bench.ctx, false).unwrap();
        let how: Vec<_> = found.damaged.iter().flat_map(|d| &d.how).collect();
        assert!(how.is_empty() || how == ["/d/3-7 has changed"], "after kill {n}: {found:?}");
        assert_eq!((found.sound + found.damaged.len(), found.unknown.len()), (3, 0), "after kill {n}: {found:?}");
        let now = trees(store.root());
        assert!(now == damaged || now == whole, "after kill {n}: as it was, or sound");
        kept += u32::from(now == damaged);
        std::fs::rename(&gone, &layout.dir).unwrap();
        if n % 5 == 4 {
            assert!(repair().wait().unwrap().success(), "and the next repair goes through");
            assert!(trees(store.root()) == whole);
        }
    }
    assert!(
        killed == KILLS && middle >= 3 && kept >= 3,
        "{killed} killed, {middle} while they fetched, {kept} in vain"
    );
    bench.assert_clean();
}
