//! Images in and out of the store, and what other programs make of them: GNU tar, skopeo, podman, umoci. What a newcomer would get wrong:
//! trees are compared by find(1) and not by our own reader, or both could be wrong alike; and podman gets storage of its own.

#[path = "common/elf.rs"]
mod elf;
#[path = "common/images.rs"]
mod images;

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use elf::{Cpu, program};
use images::{Header, Layout, Packed, Tar, digest, entry, put};
use pronto::store::layers::{self, Claimed, Meta};
use pronto::store::{Store, domains, images as records, young};
use pronto::sys::process::{Tool, find_program};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_pronto");

/// What came of a command.
#[derive(Debug)]
struct Said {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Said {
    #[track_caller]
    fn ok(self) -> Said {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    #[track_caller]
    fn fails(self, why: &str) -> Said {
        assert!(self.code != 0 && self.err.contains(why), "'{why}': {} {}", self.code, self.err);
        self
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

fn run<W: AsRef<std::ffi::OsStr>>(program: &str, words: &[W]) -> Said {
    let mut tool = Tool::new(program).args(words);
    let output = tool.command().stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    Said {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Says why a test, or a part of it, is not run.
fn skip(why: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("skipped: {why}\n").as_bytes());
}

fn have(program: &str) -> bool {
    let found = find_program(program).is_some();
    if !found {
        skip(&format!("{program} is not installed (contrib/install-deps.sh test)"));
    }
    found
}

/// A directory and a store in it; none where the tests are not run by root.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Option<Place> {
        if !nix::unistd::geteuid().is_root() {
            skip("owners, devices and mounts need root");
            return None;
        }
        Some(Place { dir: tempfile::tempdir_in("/var/tmp").unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn in_store(&self, store: &str, words: &[&str]) -> Said {
        run(BINARY, &[&["--root", &self.at(store)], words].concat())
    }

    fn pronto(&self, words: &[&str]) -> Said {
        self.in_store("store", words)
    }

    fn store(&self, name: &str) -> Store {
        let store = Store::at(Some(&self.path(name)));
        store.open().unwrap();
        store
    }

    /// No file that is not whole is left beside an export.
    #[track_caller]
    fn has_no_halves(&self) {
        let found = run("find", &[self.at("."), "-name".into(), "*.tmp".into()]).ok().text();
        assert_eq!(found, "");
    }
}

/// Everything in a tree, a line each, as find(1) sees it, and its attributes. Times of what is a whiteout are nobody's.
#[track_caller]
fn picture(tree: &Path) -> Vec<String> {
    let script = r"cd -- $1 && find . \( -type c -printf '%p %y\0' -o -type d -printf '%p %y %m %U:%G %T@\0' \
        -o -printf '%p %y %m %U:%G %T@ %s %l %n\0' \) && find . -type f -exec sha256sum -z {} +";
    let said = run("sh", &["-c", script, "sh", tree.to_str().unwrap()]).ok();
    let mut lines: Vec<String> = said.out.split(|&b| b == 0).map(|l| l.escape_ascii().to_string()).collect();
    for (path, list) in attributes(tree) {
        lines.push(format!("{path} {list:?}"));
    }
    lines.sort();
    lines
}

fn attributes(tree: &Path) -> Vec<(String, Vec<pronto::sys::xattr::Xattr>)> {
    let mut out = Vec::new();
    let mut todo = vec![PathBuf::from(".")];
    while let Some(path) = todo.pop() {
        let whole = tree.join(&path);
        let meta = std::fs::symlink_metadata(&whole).unwrap();
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&whole).unwrap().map(|e| path.join(e.unwrap().file_name())));
        }
        let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_NOFOLLOW;
        let file = nix::fcntl::open(&whole, flags, nix::sys::stat::Mode::empty()).unwrap();
        let all = pronto::sys::xattr::all(std::os::fd::AsFd::as_fd(&file)).unwrap();
        if !all.is_empty() {
            out.push((path.as_os_str().as_bytes().escape_ascii().to_string(), all));
        }
    }
    out
}

/// A root file system with one program and one of everything that is hard to carry.
fn tree(root: &Path, cpu: Cpu) {
    std::fs::create_dir_all(root.join("bin")).unwrap();
    put(&root.join("bin/sh"), &program(cpu, b"hello\n", 0));
    std::fs::set_permissions(root.join("bin/sh"), PermissionsExt::from_mode(0o4755)).unwrap();
    let long = "long".repeat(40);
    std::fs::create_dir_all(root.join(&long).join(&long)).unwrap();
    put(&root.join(&long).join(&long).join("file"), b"deep");
    put(&root.join(std::ffi::OsStr::from_bytes(b"latin-\xe4\n'x")), b"odd");
    std::fs::hard_link(root.join("bin/sh"), root.join("zz")).unwrap();
    std::os::unix::fs::chown(root.join("zz"), Some(3_000_000), Some(7)).unwrap();
    std::fs::set_permissions(root.join("bin/sh"), PermissionsExt::from_mode(0o4755)).unwrap();
    symlink("x/".repeat(300), root.join("link")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let null = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(&root.join("null"), nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRUSR, null)
        .unwrap();
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"middle", 3 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    let dir = std::fs::File::open(root).unwrap();
    let set = |leaf: &str, name: &[u8], value: &[u8]| {
        let dir = std::os::fd::AsFd::as_fd(&dir);
        pronto::sys::unpack::set_xattr_at(dir, leaf.as_bytes(), name, value).unwrap();
    };
    set("sparse", b"user.note", b"a=b");
    // cap_net_raw=ep (capability.h, vfs_cap_data), and a list that lets user 1000 read (acl(5), posix_acl_xattr.h).
    set("sparse", b"security.capability", &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let one = |tag: u8, perm: u8, id: u32| [&[tag, 0, perm, 0][..], &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let list = [one(1, 6, none), one(2, 4, 1000), one(4, 4, none), one(16, 4, none), one(32, 0, none)].concat();
    set("fifo", b"system.posix_acl_access", &[&[2, 0, 0, 0][..], &list].concat());
    std::fs::set_permissions(root, PermissionsExt::from_mode(0o711)).unwrap();
}

#[test]
fn a_tree_goes_in_and_comes_out_the_same() {
    let Some(place) = Place::new() else { return };
    let root = place.path("tree");
    tree(&root, Cpu::Amd64);
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let said = place.pronto(&["import", &place.at("tree"), "mine"]).ok();
    assert_eq!(said.text(), "localhost/mine:latest\n");
    assert!(said.err.contains("left out: socket") && said.err.contains("linux/amd64"), "{}", said.err);
    std::fs::remove_file(root.join("socket")).unwrap();
    let time = nix::sys::time::TimeSpec::new(1_600_000_000, 123_456_789);
    nix::sys::stat::futimens(std::fs::File::open(&root).unwrap(), &time, &time).unwrap();
    place.pronto(&["import", "--force", &place.at("tree"), "mine"]).ok();
    for (name, again) in [("x.tar", "one"), ("x.tar.gz", "two"), ("x.tar.zst", "three"), ("x.tar.xz", "four")] {
        place.pronto(&["export", "mine", &place.at(name)]).ok();
        // What GNU tar makes of it is what went in.
        std::fs::create_dir(place.path(again)).unwrap();
        let words =
            ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", &place.at(name), "-C", &place.at(again)];
        let said = run("tar", &words).ok();
        assert_eq!(said.err, "", "GNU tar has nothing to complain of");
        assert_eq!(picture(&place.path(again)), picture(&root), "{name}");
        // And what comes of importing it is exported to the same bytes.
        place.pronto(&["import", &place.at(name), again]).ok();
        let stdout = place.pronto(&["export", again]).ok().out;
        assert!(stdout == std::fs::read(place.path("x.tar")).unwrap(), "{name}");
    }
    assert!(std::fs::metadata(place.path("x.tar")).unwrap().size() < 100_000, "holes stay holes");
    place.pronto(&["rmi", "mine"]).ok();
    place.has_no_halves();
}

#[test]
fn names_that_were_given_here_come_first() {
    let Some(place) = Place::new() else { return };
    let (amd64, arm64) = (place.path("amd64"), place.path("arm64"));
    tree(&amd64, Cpu::Amd64);
    tree(&arm64, Cpu::Arm64);
    let list = || {
        let text = place.pronto(&["images", "--format", "json"]).ok().text();
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        rows.iter().map(|r| format!("{} {}", r["reference"], r["platform"]).replace('"', "")).collect::<Vec<_>>()
    };
    place.pronto(&["import", &place.at("amd64"), "debian:bookworm"]).ok();
    place.pronto(&["import", &place.at("arm64"), "debian:bookworm"]).ok();
    place.pronto(&["import", &place.at("arm64"), "localhost/other"]).ok();
    let named = "localhost/debian:bookworm";
    let both =
        [format!("{named} linux/amd64"), format!("{named} linux/arm64"), "localhost/other:latest linux/arm64".into()];
    assert_eq!(list(), both);
    // No network is asked, though docker.io has one of that name.
    let said = place.pronto(&["run", "debian:bookworm", "/bin/sh"]).ok();
    assert_eq!(said.text(), "hello\n");
    place.pronto(&["pull", "debian:bookworm"]).ok();
    assert!(place.pronto(&["pull", "--force", "debian:bookworm"]).ok().err.contains("named here"));
    place.pronto(&["run", "--arch", "riscv64", "debian:bookworm"]).fails("it has linux/amd64, linux/arm64");
    place.pronto(&["run", "localhost/nothing", "/bin/sh"]).fails("no image 'localhost/nothing' is stored");
    // A registry's image of that spelling is another one.
    let store = place.store("store");
    let theirs = records::get(&store, named).unwrap().unwrap().entries[0].clone();
    assert!(records::put(&store, "docker.io/library/debian:bookworm", theirs).unwrap());
    place.pronto(&["rmi", "--arch", "arm64", "debian:bookworm"]).ok();
    place.pronto(&["rmi", "debian:bookworm"]).ok();
    assert_eq!(list(), ["docker.io/library/debian:bookworm linux/amd64", &both[2]]);
    let kept = list();
    for (source, name, why) in [
        (place.at("amd64"), "docker.io/x", "registry's host"),
        (place.at("amd64"), "debian/bookworm", "catalogue"),
        (place.at("amd64"), "Big", "lower case"),
        (place.at("nothing"), "x", "No such file"),
        ("debian/bookworm".into(), "x", "no file"),
        ("alpine:3".into(), "x", "no file"),
        (place.at("amd64"), "other:a b", "white space"),
    ] {
        place.pronto(&["import", &source, name]).fails(why);
    }
    put(&place.path("empty.tar"), &Tar::new().file("etc/hostname", b"x").end());
    place.pronto(&["import", &place.at("empty.tar"), "x"]).fails("nothing in");
    place.pronto(&["import", "--arch", "arm64", &place.at("amd64"), "x"]).fails("holds amd64");
    put(&place.path("amd64/new"), b"x");
    place.pronto(&["import", "--arch", "amd64", &place.at("amd64"), "mine"]).ok();
    put(&place.path("amd64/newer"), b"x");
    place.pronto(&["import", &place.at("amd64"), "mine"]).fails("there is another image 'localhost/mine:latest'");
    place.pronto(&["rmi", "mine"]).ok();
    assert_eq!(list(), kept, "nothing is left of what failed");
    let keys = layers::keys(&store).unwrap();
    assert_eq!(keys.len(), 2, "nor its layers: {keys:?}");
    place.pronto(&["import", "--arch", "s390x", &place.at("empty.tar"), "x"]).ok();
    assert!(list().contains(&"localhost/x:latest linux/s390x".to_owned()));
}

/// A web server that has one file and nothing else; says where.
fn serve(data: Vec<u8>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/tree.tar.gz", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let mut request = [0; 4096];
            let length = client.read(&mut request).unwrap_or(0);
            let (status, body) = match request[..length].starts_with(b"GET /tree.tar.gz ") {
                true => ("200 OK", data.as_slice()),
                false => ("404 Not Found", &[][..]),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = client.write_all(head.as_bytes()).and_then(|()| client.write_all(body));
        }
    });
    url
}

#[test]
fn what_came_by_a_url_is_known_by_its_name_alone() {
    let Some(place) = Place::new() else { return };
    tree(&place.path("tree"), Cpu::Arm64);
    place.pronto(&["import", &place.at("tree"), "one"]).ok();
    place.pronto(&["export", "one", &place.at("x.tar.gz")]).ok();
    let url = serve(std::fs::read(place.path("x.tar.gz")).unwrap());
    place.pronto(&["import", &url, "web"]).ok();
    // A file that is there under its own name stays there, too.
    place.pronto(&["pull", &place.at("x.tar.gz")]).ok();
    place.pronto(&["import", &place.at("x.tar.gz"), "file"]).ok();
    let names: Vec<String> = records::all(&place.store("store")).unwrap().into_iter().map(|r| r.reference).collect();
    assert_eq!(names, [&place.at("x.tar.gz"), "localhost/file:latest", "localhost/one:latest", "localhost/web:latest"]);
    assert!(place.pronto(&["export", "web"]).ok().out == place.pronto(&["export", "one"]).ok().out);
}

/// Two layers, of which the upper one hides a file and a directory's content, and replaces one.
fn two_layers(place: &Place) -> Layout {
    let sh = program(Cpu::Amd64, b"hello\n", 0);
    let lower = Tar::new()
        .add(Header { size: sh.len() as u64, mode: 0o755, ..entry(b'0', "bin/sh") }, &sh)
        .dir("etc/")
        .file("etc/gone", b"gone")
        .file("etc/stays", b"stays")
        .dir("var/")
        .dir("var/old/")
        .file("var/old/hidden", b"hidden")
        .end();
    let upper =
        Tar::new().dir("etc/").file("etc/.wh.gone", b"").dir("var/").dir("var/old/").file("var/old/.wh..wh..opq", b"");
    let upper = upper.file("var/old/new", b"new").end();
    let mut layout = Layout::new(&place.path("layout"));
    let image = layout.image("amd64", &[lower, upper], Packed::Gzip, |config, _| {
        config["config"]["Labels"] = json!({ "kept": "yes" });
        config["config"]["Entrypoint"] = Value::Null;
        config["config"]["User"] = Value::Null;
        config["config"]["WorkingDir"] = json!("/etc");
        config["history"] = json!([{ "created_by": "one" }, { "empty_layer": true }, { "created_by": "two" }]);
    });
    layout.tag("t", image);
    layout
}

#[test]
fn other_programs_read_what_is_exported() {
    let Some(place) = Place::new() else { return };
    two_layers(&place);
    place.pronto(&["import", &format!("oci:{}:t", place.at("layout")), "app:1"]).ok();
    let oci = format!("oci:{}:v1", place.at("out"));
    let plain = format!("oci-archive:{}", place.at("plain.tar"));
    place.pronto(&["export", "app:1", &oci]).ok();
    place.pronto(&["export", "app:1", &oci]).fails("has an image of this tag");
    place.pronto(&["export", "--force", "app:1", &oci]).ok();
    place.pronto(&["export", "app:1", &format!("oci:{}:v2", place.at("out"))]).ok();
    place.pronto(&["export", "app:1", &plain]).ok();
    place.pronto(&["export", "app:1", &plain]).fails("exists");
    place.pronto(&["export", "app:1", &format!("oci-archive:{}:tag", place.at("tagged.tar"))]).ok();
    place.has_no_halves();
    let first = std::fs::read(place.path("plain.tar")).unwrap();
    place.pronto(&["export", "--force", "app:1", &plain]).ok();
    assert!(std::fs::read(place.path("plain.tar")).unwrap() == first, "the same bytes every time");
    // Read again, it is the same image: whiteouts, labels, the way its command is run.
    place.pronto(&["import", &plain, "again"]).ok();
    let tar = |name: &str| place.pronto(&["export", name]).ok().out;
    assert!(tar("again") == tar("app:1"));
    if have("skopeo") {
        for word in [&oci, &plain, &format!("oci-archive:{}:tag", place.at("tagged.tar"))] {
            let config: Value =
                serde_json::from_slice(&run("skopeo", &["inspect", "--config", word]).ok().out).unwrap();
            assert_eq!(
                (config["architecture"].as_str(), config["config"]["Labels"]["kept"].as_str()),
                (Some("amd64"), Some("yes"))
            );
            assert_eq!(
                (config["history"].as_array().unwrap().len(), config["config"]["Cmd"][0].as_str()),
                (3, Some("c"))
            );
            let info: Value = serde_json::from_slice(&run("skopeo", &["inspect", word]).ok().out).unwrap();
            assert_eq!(info["Layers"].as_array().unwrap().len(), 2, "layer by layer");
        }
        run("skopeo", &["copy", "-q", &plain, &format!("docker-archive:{}:a:1", place.at("docker.tar"))]).ok();
        place.pronto(&["import", &format!("docker-archive:{}", place.at("docker.tar")), "docker"]).ok();
        assert!(tar("docker") == tar("app:1"));
    }
    if have("umoci") {
        let out = place.at("bundle");
        run("umoci", &["raw", "unpack", "--image", &format!("{}:v1", place.at("out")), &out]).ok();
        let files = run("find", &[&out, "-type", "f", "-printf", "%P\n"]).ok().text();
        let mut files: Vec<&str> = files.lines().collect();
        files.sort_unstable();
        assert_eq!(files, ["bin/sh", "etc/stays", "var/old/new"], "what is hidden is hidden");
    }
    podman(&place, &plain);
}

/// podman loads and pulls it, and sees the same files; runs it where it can run anything.
fn podman(place: &Place, archive: &str) {
    if !have("podman") || !have("runc") {
        return;
    }
    let (root, runroot) = (place.at("podman"), place.at("podman.run"));
    let all = [
        "--root",
        &root,
        "--runroot",
        &runroot,
        "--cgroup-manager",
        "cgroupfs",
        "--runtime",
        "runc",
        "--storage-driver",
        "vfs",
    ];
    let podman = |words: &[&str]| run("podman", &[&all[..], words].concat());
    let loaded = podman(&["load", "-i", &place.at("tagged.tar")]).ok().text();
    assert!(loaded.contains("Loaded image"), "{loaded}");
    let id = podman(&["pull", "-q", archive]).ok().text();
    let id = id.trim();
    let about: Vec<Value> = serde_json::from_slice(&podman(&["image", "inspect", id]).ok().out).unwrap();
    assert_eq!(
        (about[0]["Architecture"].as_str(), about[0]["Config"]["WorkingDir"].as_str()),
        (Some("amd64"), Some("/etc"))
    );
    let name = podman(&["create", "--network", "none", id]).ok().text();
    let out = place.at("podman.tar");
    podman(&["export", "-o", &out, name.trim()]).ok();
    let listed = run("tar", &["-tf", &out]).ok().text();
    let files: Vec<&str> =
        listed.lines().filter(|l| !l.ends_with('/') && (l.starts_with("etc/") || l.starts_with("var/"))).collect();
    assert!(files.contains(&"etc/stays") && files.contains(&"var/old/new"), "{files:?}");
    assert!(!files.contains(&"etc/gone") && !files.contains(&"var/old/hidden"), "{files:?}");
    // And a domain's tarball is what podman imports.
    place.pronto(&["export", "again", &place.at("again.tar.gz")]).ok();
    podman(&["import", "-q", &place.at("again.tar.gz"), "fs:1"]).ok();
    podman(&["rm", "-a", "-f"]);
    podman(&["rmi", "-a", "-f"]);
}

/// A domain as `create` leaves it when it is shut off; its changes and its emulation layer are made by hand.
fn domain(place: &Place, layers: &[String], name: &str) -> PathBuf {
    let store = place.store("store");
    let record: domains::Record = serde_json::from_value(json!({
        "uuid": domains::new_uuid(),
        "spec": { "image": "app" },
        "artifact": { "label": "app", "layers": layers.iter().map(|k| json!({ "stored": k })).collect::<Vec<_>>(),
            "config": { "cmd": ["/bin/sh"] } },
        "arch": "amd64",
        "emulated": { "interpreter": "/usr/bin/qemu-x86_64", "version": "10.0.0", "layer": true },
        "created": 1,
    }))
    .unwrap();
    let lock = store.reserve(&pronto::domain::Name::new(name).unwrap(), &record).unwrap();
    drop(lock);
    store.remove_run(&record.uuid).unwrap();
    let dir = store.domain(name);
    for (path, text) in [
        ("emulation/usr/lib/systemd/system/service.d/zzz-pronto.conf", "[Service]"),
        ("upper/etc/changed", "changed"),
        ("upper/home/user/file", "mine"),
    ] {
        std::fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        put(&dir.join(path), text.as_bytes());
    }
    let none = nix::sys::stat::Mode::empty();
    nix::sys::stat::mknod(&dir.join("upper/etc/stays"), nix::sys::stat::SFlag::S_IFCHR, none, 0).unwrap();
    symlink("/etc/passwd", dir.join("upper/home/out")).unwrap();
    symlink("/", dir.join("upper/home/all")).unwrap();
    dir
}

#[test]
fn a_domain_is_exported_with_its_changes_and_nothing_of_ours() {
    let Some(place) = Place::new() else { return };
    two_layers(&place);
    place.pronto(&["import", &format!("oci:{}:t", place.at("layout")), "app"]).ok();
    let record = records::get(&place.store("store"), "localhost/app:latest").unwrap().unwrap();
    domain(&place, &record.entries[0].layers, "guest");
    place.pronto(&["export", "guest", &place.at("g.tar")]).ok();
    let listed = run("tar", &["-tf", &place.at("g.tar")]).ok().text();
    let names: Vec<&str> = listed.lines().filter(|l| !l.ends_with('/')).collect();
    let whole = ["bin/sh", "etc/changed", "home/all", "home/out", "home/user/file", "var/old/new"];
    assert_eq!(names, whole, "changes over image, no emulation layer, links as links");
    assert!(!listed.contains("systemd"));
    place.pronto(&["export", "guest", &format!("oci-archive:{}", place.at("g.oci.tar"))]).ok();
    place.pronto(&["import", &format!("oci-archive:{}", place.at("g.oci.tar")), "guest2"]).ok();
    place.pronto(&["import", &place.at("g.tar"), "guest3"]).ok();
    let tar = std::fs::read(place.path("g.tar")).unwrap();
    for name in ["guest2", "guest3"] {
        assert!(place.pronto(&["export", name]).ok().out == tar, "{name}");
    }
    let store = place.store("store");
    let entry = records::get(&store, "localhost/guest2:latest").unwrap().unwrap().entries.remove(0);
    assert_eq!(
        (entry.layers.len(), entry.config.cmd, entry.platform.unwrap().to_string()),
        (1, vec!["/bin/sh".to_owned()], "linux/amd64".into())
    );
    assert_eq!(std::fs::read_dir(store.runs()).unwrap().count(), 0, "no lock is left");
    place.pronto(&["export", "nobody", &place.at("n.tar")]).fails("no domain and no stored image 'nobody'");
    place.pronto(&["export", "guest", &place.at("n.zip")]).fails("does not say what to write");
    place.pronto(&["export", "guest", &place.at("g.tar")]).fails("exists");
    place.pronto(&["export", "guest", &place.at("no/where.tar")]).fails("No such file");
    place.pronto(&["export", "guest", &format!("oci:{}", place.at("store"))]).fails("no OCI image layout");
    place.has_no_halves();
}

/// Bytes that no program packs.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_full_disk_and_a_signal_leave_nothing() {
    let Some(place) = Place::new() else { return };
    let root = place.path("tree");
    tree(&root, Cpu::Amd64);
    put(&root.join("noise"), &noise(4_000_000));
    place.pronto(&["import", &place.at("tree"), "big"]).ok();
    std::fs::create_dir(place.path("small")).unwrap();
    for target in ["small/x.tar", "oci:small/o", "oci-archive:small/a.tar", "cache"] {
        let (verb, target) = match target {
            "cache" => ("cache export".to_owned(), format!("{}/c", place.at("small"))),
            other => ("export big".to_owned(), other.replace("small", &place.at("small"))),
        };
        let script = format!(
            "mount -t tmpfs -o size=1m none {small} && {BINARY} --root {store} {verb} {target}; echo $?; find {small} -type f",
            small = place.at("small"),
            store = place.at("store"),
        );
        let said = run("unshare", &["-m", "sh", "-c", &script]).ok();
        assert!(said.err.contains("No space left") && said.err.contains("free some space"), "{verb}: {}", said.err);
        let left = said.text().replace(&place.at("small"), "");
        // The cache's directory and its lock stay, for what comes next.
        assert_eq!(left.trim(), if verb.starts_with("cache") { "1\n/c/.lock" } else { "1" }, "{verb}");
    }
    // A reader that does not read holds the export up; then it is told to stop.
    let fifo = place.path("pipe");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    place.pronto(&["export", "big", &place.at("pipe")]).fails("does not say");
    place.pronto(&["export", "--format", "tar", "big", &place.at("pipe")]).fails("is no file");
    let script = format!(
        "timeout --preserve-status -s TERM 0.2 {BINARY} --root {} export --force big {}; echo $?",
        place.at("store"),
        place.at("slow.tar.xz")
    );
    let code = run("sh", &["-c", &script]).ok().text();
    assert_eq!(code.trim(), "143", "SIGTERM ended it");
    assert!(!place.path("slow.tar.xz").exists());
    place.has_no_halves();
}

/// SIGKILL in the middle of each form of export, at 25 moments: what has the name is whole; what has not is gone, or goes with the next export.
#[test]
fn a_killed_export_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    let root = place.path("tree");
    tree(&root, Cpu::Amd64);
    put(&root.join("noise"), &noise(8_000_000));
    place.pronto(&["import", &place.at("tree"), "big"]).ok();
    let out = place.path("out");
    let names = || -> Vec<String> {
        std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    };
    let store = place.at("store");
    for (words, name) in [
        (&["export", "big"][..], "x.tar"),
        (&["export", "--force", "big"], "x.tar"),
        (&["export", "big"], "oci-archive:x.tar"),
        (&["export", "big"], "oci:x"),
        (&["cache", "export"], "x"),
    ] {
        let (form, name) = name.split_once(':').unwrap_or(("", name));
        let target = format!("{form}{}{}", if form.is_empty() { "" } else { ":" }, out.join(name).display());
        let export = || {
            let mut tool = Tool::new(BINARY).args(["--root", &store]).args(words).arg(&target);
            tool.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            tool.spawn().unwrap()
        };
        // The tree of a cache, a layout, or a file's bytes.
        let shown = || {
            let path = out.join(name);
            if path.is_dir() { picture_of_bytes(&path) } else { images::digest(&std::fs::read(path).unwrap()) }
        };
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir(&out).unwrap();
        let begun = std::time::Instant::now();
        assert!(export().wait().unwrap().success());
        let (mut course, whole) = (begun.elapsed(), shown());
        let replaces = words.contains(&"--force");
        let (mut killed, mut left) = (0, 0);
        for n in 0..200 {
            if killed == 25 {
                break;
            }
            if !replaces {
                let _ = std::fs::remove_dir_all(out.join(name));
                let _ = std::fs::remove_file(out.join(name));
            }
            let mut child = export();
            std::thread::sleep(course.mul_f64(f64::from(n % 25 + 1) / 25.0));
            child.kill().unwrap();
            match child.wait().unwrap().success() {
                false => killed += 1,
                // It is not always as slow as the first one was.
                true => course = course.mul_f64(0.95),
            }
            let (hidden, named): (Vec<_>, Vec<_>) = names().into_iter().partition(|n| n.starts_with('.'));
            left += u32::from(!hidden.is_empty());
            assert!(hidden.len() <= 1, "an earlier one's is swept: {hidden:?}");
            match words[0] {
                "export" if form != "oci" => {
                    assert!(named.is_empty() && !replaces || named == [name], "{words:?}: {named:?}");
                    assert!(named.is_empty() || shown() == whole, "{words:?}: not whole");
                    assert_eq!(hidden, Vec::<String>::new(), "{words:?} {target}");
                }
                "export" => assert!(named.is_empty() || shown() == whole, "{words:?}: not whole"),
                // A cache grows in its place; what is in it counts by its index.
                _ => {
                    let found = run("find", &[out.display().to_string(), "-name".into(), ".layer.*".into()]).ok();
                    assert_eq!(found.text(), "", "{words:?}");
                }
            }
        }
        assert_eq!(killed, 25, "so many were killed in the middle of {words:?} {target}");
        assert!(form != "oci" || left > 0, "a directory has a hidden name until it is whole");
        let _ = std::fs::remove_file(out.join(name)).or_else(|_| std::fs::remove_dir_all(out.join(name)));
        assert!(export().wait().unwrap().success());
        assert_eq!((names(), shown()), (vec![name.to_owned()], whole), "{words:?} {target}");
    }
}

/// The names and bytes of all files of a directory but its lock.
fn picture_of_bytes(dir: &Path) -> String {
    let script = "cd -- \"$1\" && find . -type f ! -name .lock -exec sha256sum {} + | sort";
    run("sh", &["-c", script, "sh", dir.to_str().unwrap()]).ok().text()
}

/// A store with an image for two platforms, a tarball, and an init that was installed on top.
fn stocked(place: &Place) -> Store {
    two_layers(place);
    tree(&place.path("tree"), Cpu::Arm64);
    place.pronto(&["import", &format!("oci:{}:t", place.at("layout")), "app"]).ok();
    place.pronto(&["import", &place.at("tree"), "app"]).ok();
    put(&place.path("t.tar"), &Tar::new().file("x", b"y").end());
    place.pronto(&["pull", &place.at("t.tar")]).ok();
    let store = place.store("store");
    let app = records::get(&store, "localhost/app:latest").unwrap().unwrap();
    let parent = app.entries.iter().find(|e| e.config_digest.is_some()).unwrap().digest.clone();
    let Claimed::Mine(claim) = layers::claim(&store, "init-abc", || Ok(None::<()>), || ()).unwrap() else { panic!() };
    let dir = claim.directory().unwrap();
    std::fs::create_dir(dir.join("sbin")).unwrap();
    put(&dir.join("sbin/init"), b"init");
    let none = nix::sys::stat::Mode::empty();
    nix::sys::stat::mknod(&dir.join("gone"), nix::sys::stat::SFlag::S_IFCHR, none, 0).unwrap();
    claim.publish("init-abc", Meta { size: 4, entries: 2, parent: Some(parent), ..Meta::default() }, None).unwrap();
    drop(claim);
    young::settle(&store, &["init-abc".into()]).unwrap();
    store
}

/// A layer's key, its record and everything in it.
type Shelf = (String, Option<Meta>, Vec<String>);

/// Everything in a store that an image is.
fn stock(store: &Store) -> (Vec<records::Record>, Vec<Shelf>, Vec<String>) {
    let keys = layers::keys(store).unwrap();
    // Whether the disk was waited for is each store's own affair.
    let meta = |key: &str| layers::meta(store, key).unwrap().map(|meta| Meta { boot: None, ..meta });
    let layers = keys.iter().map(|key| (key.clone(), meta(key), picture(&store.layer(key)))).collect();
    let mut blobs: Vec<String> =
        std::fs::read_dir(store.blobs()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    blobs.sort();
    let mut all = records::all(store).unwrap();
    // Their order in a record means nothing.
    all.iter_mut().for_each(|r| r.entries.sort_by_key(|e| e.platform.as_ref().map(ToString::to_string)));
    (all, layers, blobs)
}

fn files(dir: &Path) -> Vec<(PathBuf, i64, u64)> {
    let entries = std::fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|e| e.unwrap().path());
    let mut all: Vec<_> = entries.collect();
    all.sort();
    all.into_iter()
        .map(|p| (p.clone(), std::fs::metadata(&p).unwrap().mtime_nsec(), std::fs::metadata(&p).unwrap().ino()))
        .collect()
}

#[test]
fn a_cache_brings_everything_to_another_store() {
    let Some(place) = Place::new() else { return };
    let store = stocked(&place);
    let cache = place.at("cache");
    let said = place.pronto(&["cache", "export", &cache]).ok();
    assert!(said.err.contains("3 images in the cache; 5 layers written, 0 were there"), "{}", said.err);
    let said = place.in_store("second", &["cache", "import", &cache]).ok();
    assert!(said.err.contains("5 layers unpacked, 0 were there"), "{}", said.err);
    let second = place.store("second");
    assert_eq!(stock(&second), stock(&store), "references, digests, layers, what was installed, and every file");
    for (path, _, _) in files(Path::new(&cache)) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(
            digest(&std::fs::read(&path).unwrap()),
            format!("sha256:{name}"),
            "files are named by what is in them"
        );
    }
    // Again: nothing is written, nothing is unpacked.
    let before = files(Path::new(&cache));
    assert!(place.pronto(&["cache", "export", &cache]).ok().err.contains("0 layers written, 5 were there"));
    assert_eq!(files(Path::new(&cache)), before);
    let was = stock(&second);
    assert!(
        place.in_store("second", &["cache", "import", &cache]).ok().err.contains("0 layers unpacked, 5 were there")
    );
    assert_eq!(stock(&second), was);
    // It is an image layout for everybody else.
    if have("skopeo") {
        let word = format!("oci:{cache}:localhost/app:latest");
        let config: Value = serde_json::from_slice(&run("skopeo", &["inspect", "--config", &word]).ok().out).unwrap();
        assert_eq!(config["architecture"], "amd64");
        run("skopeo", &["copy", "-q", &word, &format!("oci:{}:x", place.at("copy"))]).ok();
    }
    // And the image is there without any source.
    std::fs::remove_dir_all(place.path("layout")).unwrap();
    assert_eq!(place.in_store("second", &["run", "app", "/bin/sh"]).ok().text(), "hello\n");
    // Less is kept only when it is asked for.
    place.pronto(&["rmi", "--arch", "arm64", "app"]).ok();
    place.pronto(&["cache", "export", &cache, "app"]).ok();
    assert_eq!(files(Path::new(&cache)).len(), before.len());
    let said = place.pronto(&["cache", "export", "--prune", &cache, "app"]).ok();
    assert!(said.err.contains("1 images in the cache; 0 layers written, 3 were there"), "{}", said.err);
    assert!(files(Path::new(&cache)).len() < before.len());
    place.in_store("third", &["cache", "import", &cache]).ok();
    let third = stock(&place.store("third"));
    assert_eq!((third.0.len(), third.1.len()), (1, 3));
    place.pronto(&["cache", "export", &cache, "nobody"]).fails("no image 'nobody'");
    place.pronto(&["cache", "export", &place.at("tree")]).fails("something else than a cache");
    place.pronto(&["cache", "import", &place.at("tree")]).fails("no cache in");
    place.pronto(&["cache", "import", &place.at("copy")]).fails("no cache that pronto has written");
    place.has_no_halves();
}

#[test]
fn a_damaged_cache_is_named_and_leaves_nothing() {
    let Some(place) = Place::new() else { return };
    stocked(&place);
    let cache = place.at("cache");
    place.pronto(&["cache", "export", &cache]).ok();
    let all: Vec<PathBuf> = files(Path::new(&cache)).into_iter().map(|(p, _, _)| p).collect();
    let text = |path: &Path| std::fs::read(path).unwrap();
    let mut met = 0;
    for path in &all {
        let whole = text(path);
        for (how, bytes) in [("flipped", None), ("short", Some(&whole[..whole.len() / 2])), ("gone", Some(&[][..]))] {
            match bytes {
                None => {
                    let mut bytes = whole.clone();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0x40;
                    put(path, &bytes);
                }
                Some([]) => std::fs::remove_file(path).unwrap(),
                Some(bytes) => put(path, bytes),
            }
            let said = place.in_store("second", &["cache", "import", &cache]);
            let name = path.file_name().unwrap().to_str().unwrap();
            if said.code == 0 {
                // A manifest or config of the layout's own, which only other programs read, or an original that is missing.
                let json = serde_json::from_slice::<Value>(&whole).is_ok();
                assert!(json, "{how} {name} went unseen");
                place.in_store("second", &["rmi", "app"]).ok();
                place.in_store("second", &["rmi", &place.at("t.tar")]).ok();
            } else {
                met += 1;
                assert!(said.err.contains(name) && said.err.contains("damaged"), "{how} {name}: {}", said.err);
                assert!(said.err.contains("try: remove the directory"), "{}", said.err);
            }
            let second = place.store("second");
            let (images, layers, _) = stock(&second);
            assert!(images.is_empty() && layers.is_empty(), "{how} {name}: {images:?} {layers:?}");
            let left = std::fs::read_dir(second.layers()).unwrap().count();
            // What fails before a layer is claimed has no directory of claims, either.
            let claims = std::fs::read_dir(second.run().join("claims")).map_or(0, Iterator::count);
            assert_eq!((left, claims), (0, 0));
            put(path, &whole);
        }
    }
    // Five layers and the record thrice, the original manifest and config unless they are missing.
    assert_eq!(met, 6 * 3 + 2 * 2, "of {}", all.len());
    let index = text(&place.path("cache/index.json"));
    put(&place.path("cache/index.json"), &index[..40]);
    place.in_store("second", &["cache", "import", &cache]).fails("index.json is damaged");
    place.pronto(&["cache", "export", &cache]).fails("index.json is damaged");
    put(&place.path("cache/index.json"), &index);
    place.in_store("second", &["cache", "import", &cache]).ok();
}

#[test]
fn imports_at_once_share_the_work() {
    let Some(place) = Place::new() else { return };
    let store = stocked(&place);
    let cache = place.at("cache");
    place.pronto(&["cache", "export", &cache]).ok();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4)
            .map(|n| {
                let (place, cache) = (&place, &cache);
                // Two of them write the cache anew meanwhile.
                scope.spawn(move || match n {
                    0 => place.pronto(&["cache", "export", cache]),
                    _ => place.in_store("second", &["cache", "import", cache]),
                })
            })
            .collect();
        runs.into_iter().for_each(|run| drop(run.join().unwrap().ok()));
    });
    assert_eq!(stock(&place.store("second")), stock(&store));
}
