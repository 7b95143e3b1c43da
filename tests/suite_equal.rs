//! The same image unpacked by pronto, by GNU tar layer for layer, by umoci and by podman: the trees are equal, entry by entry. What a newcomer
//! would get wrong: pronto keeps layers apart, so its tree is what overlayfs shows of them, mounted in a namespace of the test's own;
//! and where a peer itself is wrong, the test says in what, and GNU tar decides.

#![allow(clippy::print_stderr, reason = "what cannot be tested here says so")]

#[path = "common/images.rs"]
mod images;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/registry.rs"]
mod registry;

use std::path::{Path, PathBuf};

use images::{Header, Layout, Packed, Tar, entry, put};
use peers::{Podman, Store, can, run, sh};
use registry::Registry;

/// All that a tree can hold, packed by GNU tar as it packs a root file system: nanoseconds, attributes, holes, links of both kinds.
const LOWER: &str = r#"
set -e; umask 022; mkdir -p usr/bin usr/lib etc/conf.d var/mail dev opt/old opt/kept srv/gone "deep/$(printf 'd%.0s' $(seq 200))"
printf su >usr/bin/su; chown 0:0 usr/bin/su; chmod 4755 usr/bin/su
printf wall >usr/bin/wall; chown 0:5 usr/bin/wall; chmod 2755 usr/bin/wall
printf ping >usr/bin/ping; printf busy >usr/bin/busy; ln usr/bin/busy usr/bin/ls; ln usr/bin/busy usr/bin/cat
ln -s busy usr/bin/sh; ln -s /usr/bin/su etc/absolute; ln -s ../nothing etc/dangling; ln -s "$(printf 'l%.0s' $(seq 300))" etc/long
printf one >etc/one; printf two >etc/two; ln etc/two etc/twin; printf x >etc/conf.d/a; printf y >etc/conf.d/b
chown 1000:70000 etc/one; chown 4000000:4000001 etc/conf.d; chown -h 7:8 usr/bin/sh
chmod 1777 var/mail; chmod 2775 opt; chmod 0 srv/gone; printf in >srv/gone/in; printf o >opt/old/o; printf k >opt/kept/k
mkfifo -m 640 dev/pipe; mknod -m 666 dev/null c 1 3; mknod -m 660 dev/loop0 b 7 0; chown 0:6 dev/loop0
printf 'caf' >"etc/$(printf 'caf\351')"; printf '\n' >"etc/$(printf 'new\nline')"; : >etc/empty; printf n >"etc/$(printf 'n%.0s' $(seq 250))"
printf begin >var/sparse; printf middle | dd of=var/sparse bs=1 seek=3000000 conv=notrunc status=none; truncate -s 8000000 var/sparse
python3 - <<'P'
import os
os.setxattr('usr/bin/ping', 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000'))
os.setxattr('etc/one', 'user.note', b'a\x00b\xff')
os.setxattr('etc/conf.d', 'user.dir', b'directory')
acl = b'\x02\0\0\0' + b'\x01\0\x06\0\xff\xff\xff\xff' + b'\x02\0\x04\0\xe8\x03\0\0' + b'\x04\0\x04\0\xff\xff\xff\xff' + b'\x10\0\x04\0\xff\xff\xff\xff' + b'\x20\0\x04\0\xff\xff\xff\xff'
os.setxattr('etc/two', 'system.posix_acl_access', acl)
for n, (above, dirs, files) in enumerate(sorted(os.walk('.', topdown=False))):
    for m, name in enumerate(sorted(dirs + files)):
        os.utime(os.path.join(above, name), ns=(0, 1234567890_000000000 + n * 10**9 + m * 7_000_001), follow_symlinks=False)
os.utime('.', ns=(0, 1111111111_222222222))
P
"#;

/// What changes above it: files that went, directories that are new inside, kinds that change, one of two hard links.
const UPPER: &str = r#"
set -e; umask 022; mkdir -p etc/conf.d opt/old opt/kept usr/bin srv
: >etc/.wh.one; : >etc/.wh.never-there; : >opt/old/.wh..wh..opq; printf new >opt/old/new; : >srv/.wh.gone
printf changed >usr/bin/cat; printf pair >usr/bin/pair; ln usr/bin/pair usr/bin/also; chmod 6755 usr/bin/pair
mkdir etc/two; printf inside >etc/two/inside; printf file >etc/conf.d/c; : >etc/conf.d/.wh.a
chown 33:33 etc/conf.d opt/kept; chmod 700 opt/kept; ln -s kept opt/link
find . -exec touch -h -d '2020-02-02 02:02:02.020202020' {} +
"#;

/// The third layer, written byte by byte: whole directories away, old times, a link in a directory's place.
fn third() -> Vec<u8> {
    let old = |flag, name: &str| Header { mtime: 1, ..entry(flag, name) };
    Tar::new()
        .dir("./")
        .dir("./dev")
        .file("./dev/.wh.loop0", b"")
        .add(Header { mode: 0o2775, gid: 9, ..old(b'5', "opt/") }, b"")
        .add(Header { mode: 0o700, ..old(b'5', "opt/kept") }, b"")
        .file("opt/kept/.wh.k", b"")
        .symlink("deep", "/usr")
        .end()
}

/// The fourth: what podman gets wrong. It refuses names that come twice, and where a directory comes back in the layer that takes it
/// away, it shows the lower one's content in it.
fn fourth() -> Vec<u8> {
    Tar::new()
        .dir("./")
        .file("./.wh.dev", b"")
        .dir("./dev")
        .dir("etc")
        .file("etc/.wh.conf.d", b"")
        .dir("etc/conf.d")
        .file("etc/conf.d/back", b"back")
        .dir("usr")
        .dir("usr/lib")
        .pax(&[(b"mtime", b"-1.5"), (b"SCHILY.xattr.user.twice", b"1")])
        .file("usr/lib/twice", b"the first")
        .pax(&[(b"mtime", b"7.123456789")])
        .file("usr/lib/twice", b"the second")
        .hard_link("usr/lib/again", "usr/lib/twice")
        .end()
}

/// Packs a tree that a script makes.
fn packed(dir: &Path, name: &str, script: &str) -> Vec<u8> {
    let tree = dir.join(name);
    std::fs::create_dir(&tree).unwrap();
    sh(&tree, script, &[]);
    let tar = dir.join(format!("{name}.tar"));
    let how = "tar --format=pax --pax-option=delete=atime,delete=ctime --sparse --xattrs --xattrs-include='*' --numeric-owner --sort=name -cf \"$1\" .";
    sh(&tree, how, &[tar.as_os_str()]);
    std::fs::read(&tar).unwrap()
}

/// The lines of a tree, with what a peer gets wrong taken out of both.
fn lines(text: &str, without: &dyn Fn(&str) -> bool) -> Vec<String> {
    let wanted = |line: &str| line.split(' ').filter(|word| !without(word)).collect::<Vec<_>>().join(" ");
    text.lines().map(wanted).collect()
}

/// Compares two trees; the failure shows the entries that differ.
#[track_caller]
fn equal(ours: &str, theirs: &str, who: &str, without: &dyn Fn(&str) -> bool) {
    let (ours, theirs) = (lines(ours, without), lines(theirs, without));
    let differ = |a: &[String], b: &[String], sign: &str| {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    let text = differ(&theirs, &ours, who) + &differ(&ours, &theirs, "pronto");
    assert!(text.is_empty(), "not the same tree:\n{text}");
    assert!(ours.len() > 20, "there is something to compare");
}

/// An image in a registry.
fn image(dir: &Path, registry: &Registry, name: &str, layers: &[Vec<u8>], packed: Packed) -> String {
    let mut layout = Layout::new(&dir.join(name));
    let image = layout.image("amd64", layers, packed, |_, _| ());
    layout.tag("t", image);
    registry.push(&layout.dir, "t", &format!("x/{name}:t"));
    format!("{}/x/{name}:t", registry.host)
}

#[test]
fn the_same_tree_as_gnu_tar_umoci_and_podman() {
    if !can("the_same_tree_as_gnu_tar_umoci_and_podman", &["docker-registry", "skopeo", "umoci", "python3", "podman"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let layers = [packed(dir, "lower", LOWER), packed(dir, "upper", UPPER), third(), fourth()];
    let files: Vec<PathBuf> = (0..layers.len()).map(|n| dir.join(format!("layer{n}"))).collect();
    files.iter().zip(&layers).for_each(|(path, data)| put(path, data));
    let truth = dir.join("truth");
    std::fs::create_dir(&truth).unwrap();
    run("python3", [Path::new("tests/common/apply.py"), &truth].into_iter().chain(files.iter().map(PathBuf::as_path)));
    let truth = peers::tree(&truth);
    assert!(
        truth.contains("b'etc/caf\\xe9'") && truth.contains("security.capability=") && truth.contains("holes=True")
    );
    assert!(truth.contains("time=7.123456789") && truth.contains("system.posix_acl_access="), "{truth}");

    let registry = Registry::start(dir);
    let word = image(dir, &registry, "four", &layers, Packed::Gzip);
    let store = Store::new(&dir.join("store"));
    let ours = store.tree(&word, "amd64");
    equal(&ours, &truth, "GNU tar", &|_| false);

    // umoci: gzip only.
    let copied = dir.join("copied");
    run(
        "skopeo",
        ["copy", "-q", "--src-tls-verify=false", &format!("docker://{word}"), &format!("oci:{}:t", copied.display())],
    );
    let bundle = dir.join("bundle");
    run("umoci", ["unpack", "--image", &format!("{}:t", copied.display()), bundle.to_str().unwrap()]);
    let theirs = peers::tree(&bundle.join("rootfs"));
    // umoci and podman write zeros where the archive has holes: what the file says is the same, what it takes is not.
    let holes = |word: &str| word.starts_with("holes=");
    equal(&ours, &theirs, "umoci", &holes);

    let word = image(dir, &registry, "three", &layers[..3], Packed::Zstd);
    let ours = store.tree(&word, "amd64");
    // Its driver vfs keeps a directory's older attributes and loses access lists; overlay is what everybody uses.
    let theirs = Podman::new(&dir.join("podman"), "overlay").tree(&word);
    // The root of the tree is podman's own.
    let below = |text: &str| text.lines().filter(|l| !l.starts_with("b'.' ")).collect::<Vec<_>>().join("\n");
    equal(&below(&ours), &below(&theirs), "podman", &holes);
}

/// Two lower layers that differ in what the upper one takes for granted.
const BELOW: [&str; 2] = [
    r#"
set -e; umask 022; mkdir -p etc/app.d srv/data/deep opt/cleared/sub usr/lib usr/share home; ln -s usr/lib lib
printf one >etc/app.d/one; printf tool >usr/lib/tool; ln usr/lib/tool usr/lib/tool-too; printf old >srv/data/old; ln -s /etc/app.d/one etc/to-one
printf replaced >srv/data/taken; chown 7:8 usr/lib/tool; chmod 4711 usr/lib/tool
chmod 2750 etc/app.d; chown 33:44 etc/app.d; chmod 1777 srv/data; chmod 700 srv/data/deep; chown 1000:1000 srv; chmod 711 opt/cleared/sub
python3 -c "import os; os.setxattr('srv/data', 'user.note', b'kept'); os.setxattr('usr/lib/tool', 'user.tool', b'x')"
find . -exec touch -h -d '2019-09-09 09:09:09.090909090' {} +
"#,
    r#"
set -e; umask 022; mkdir -p etc/app.d srv/data usr/lib usr/share opt; printf another >usr/lib/tool; printf two >etc/app.d/one
printf kept >srv/data/taken; ln -s one etc/app.d/alias; ln -s /nowhere etc/to-one; ln -s usr/lib lib; chmod 555 etc/app.d; chown 99 srv/data
find . -exec touch -h -d '2018-08-08 08:08:08.080808080' {} +
"#,
];

/// Files in directories that it does not name, and hard links to what it does not hold.
fn taking_for_granted() -> Vec<u8> {
    Tar::new()
        .dir("./")
        .file("etc/app.d/new", b"new")
        .file("srv/data/deep/er/file", b"deep")
        .dir("usr/")
        .file("usr/share/doc/x", b"doc")
        .file("opt/cleared/.wh..wh..opq", b"")
        .file("opt/cleared/sub/x", b"x")
        .hard_link("srv/data/taken", "usr/lib/tool")
        .hard_link("etc/again", "./srv/data/taken")
        .hard_link("etc/app.d/to-one", "etc/to-one")
        .end()
}

/// Without the times of directories that nothing names, and of those in which they are made: umoci leaves the time of its work there.
fn untimed(tree: &str) -> String {
    let paths = [
        "opt",
        "opt/cleared",
        "srv/data",
        "srv/data/deep",
        "srv/data/deep/er",
        "usr/share",
        "usr/share/doc",
        "opt/cleared/sub",
    ]
    .map(|p| format!("b'{p}' "));
    let line = |line: &str| match paths.iter().any(|path| line.starts_with(path)) {
        true => line.split(' ').filter(|word| !word.starts_with("time=")).collect::<Vec<_>>().join(" "),
        false => line.to_owned(),
    };
    tree.lines().map(|l| line(l) + "\n").collect()
}

/// A directory that a layer does not name is what it was below, and a hard link may lead to a lower layer's file; each image has its own
/// lower layers, though they share this one.
#[test]
fn what_a_layer_takes_for_granted() {
    if !can("what_a_layer_takes_for_granted", &["docker-registry", "skopeo", "umoci", "python3"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let registry = Registry::start(dir);
    let store = Store::new(&dir.join("store"));
    let loose = taking_for_granted();
    let top = Tar::new().dir("./").dir("etc").dir("srv").file("etc/app.d/on-top", b"top").end();
    let mut trees = Vec::new();
    for (number, script) in BELOW.iter().enumerate() {
        let lower = packed(dir, &format!("lower{number}"), script);
        let name = format!("granted{number}");
        let word = image(dir, &registry, &name, &[lower.clone(), loose.clone(), top.clone()], Packed::Gzip);
        let ours = store.tree(&word, "amd64");
        let bundle = dir.join(format!("bundle{number}"));
        run("umoci", ["unpack", "--image", &format!("{}:t", dir.join(&name).display()), bundle.to_str().unwrap()]);
        let theirs = peers::tree(&bundle.join("rootfs"));
        equal(&untimed(&ours), &untimed(&theirs), "umoci", &|_| false);
        // podman refuses hard links to what another layer holds, and makes such directories anew (0755, root's), so GNU tar is the second.
        let files: Vec<PathBuf> = (0..3).map(|n| dir.join(format!("granted{number}.{n}"))).collect();
        files.iter().zip([&lower, &loose, &top]).for_each(|(path, data)| put(path, data));
        let truth = dir.join(format!("truth{number}"));
        std::fs::create_dir(&truth).unwrap();
        run(
            "python3",
            [Path::new("tests/common/apply.py"), &truth].into_iter().chain(files.iter().map(PathBuf::as_path)),
        );
        // It leaves the times of its own work.
        equal(&ours, &peers::tree(&truth), "GNU tar", &|word| word.starts_with("time="));
        trees.push((word, ours));
    }
    assert_ne!(trees[0].1, trees[1].1);
    let layers: Vec<Vec<PathBuf>> = trees.iter().map(|(word, _)| store.layers(word, "amd64")).collect();
    assert_eq!(layers[0].len(), 5, "two of the three layers have a seam");
    assert!(layers[0][1] == layers[1][1] && layers[0][3] == layers[1][3] && layers[0][2] != layers[1][2]);
    // The second image's seams have changed nothing of the first.
    for (word, before) in &trees {
        equal(&store.tree(word, "amd64"), before, "before", &|_| false);
    }
    let of_data = trees[0].1.lines().find(|line| line.starts_with("b'srv/data' ")).unwrap();
    assert!(of_data.ends_with("mode=1777 owner=0:0 time=1568020149.090909090 user.note=6b657074"), "{of_data}");
    assert!(trees[0].1.contains("b'etc/again' file mode=4711 owner=7:8"), "{}", trees[0].1);
}
