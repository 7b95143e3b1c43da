//! Images from a real registry, from layouts, from tarballs and from packages. What a newcomer would get wrong: an image has
//! layers of both compressions and both CPUs here, and the registry's own log says what was fetched; nothing is mocked.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pronto::sys::process::Tool;
use serde_json::json;

use super::guest::{field, is_healthy_within};
use super::tar::Tar;
use crate::common::elf::{Cpu, program};
use crate::common::fixtures::{self, BARE_AMD64, BARE_ARM64, BOOKWORM_AMD64, BOOKWORM_ARM64, Interpreter};
use crate::common::harness::cases;
use crate::common::http::{Response, Server};
use crate::common::oci::{Codec, Image, Layout, hex};
use crate::common::pronto::{Pronto, registry, scratch, shared};
use crate::common::run::Run;
use crate::common::{have, secs, skip};

cases! {
    Together: a_catalogue_label, a_debian_whose_scripts_ran_here, an_image_without_an_init_is_provisioned, the_platforms_that_exist, images_pull_and_rmi, a_layout_on_disk, tarballs_of_every_kind, a_broken_download_goes_on,
            an_image_of_an_index_boots,
            a_hundred_layers, whiteouts_links_and_owners,
              a_label_that_lies, archives_of_other_tools, damaged_archives;
}

/// `ring/bare:gz` and `:zst` in the registry: Debian without an init, amd64 and arm64, two layers each.
pub fn bare() -> String {
    static BARE: OnceLock<()> = OnceLock::new();
    BARE.get_or_init(|| {
        let dir = scratch("bare");
        let conf = dir.join("conf.tar");
        Tar::new().dir("etc/").file("etc/ring", 0o644, b"bare\n").write(&conf);
        let (arm64, amd64) = (BARE_ARM64.tar(), BARE_AMD64.tar());
        let mut layout = Layout::new(&dir.join("oci"));
        for (tag, codec) in [("gz", Codec::Gzip), ("zst", Codec::Zstd)] {
            layout.index(
                tag,
                &[
                    Image::new("amd64", &[&amd64, &conf], codec, &["/bin/sh"]),
                    Image::new("arm64", &[&arm64, &conf], codec, &["/bin/sh"]),
                ],
            );
            registry().push(&dir.join("oci"), tag, &format!("ring/bare:{tag}"));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    });
    registry().image("ring/bare:gz")
}

/// `ring/small:latest`: Debian amd64 with an init, two layers.
pub fn small() -> String {
    static SMALL: OnceLock<()> = OnceLock::new();
    SMALL.get_or_init(|| {
        let dir = scratch("small");
        let conf = dir.join("conf.tar");
        Tar::new().dir("etc/").file("etc/ring", 0o644, b"small\n").write(&conf);
        let mut layout = Layout::new(&dir.join("oci"));
        layout.index("latest", &[Image::new("amd64", &[&BOOKWORM_AMD64.tar(), &conf], Codec::Zstd, &["/sbin/init"])]);
        registry().push(&dir.join("oci"), "latest", "ring/small:latest");
        std::fs::remove_dir_all(&dir).unwrap();
    });
    registry().image("ring/small:latest")
}

/// A tar with one static program, `/hello`, that prints `hello` and `arch`.
pub fn hello(cpu: Cpu, dir: &Path) -> PathBuf {
    let tar = dir.join(format!("hello-{cpu:?}.tar"));
    Tar::new().file("hello", 0o755, &program(cpu, format!("hello {cpu:?}\n").as_bytes(), 0)).write(&tar);
    tar
}

/// The arm64 platform of an index is pulled, gets systemd by its own package manager, and boots with no failed unit; the second
/// domain of it takes what the first has made.
fn an_image_without_an_init_is_provisioned() {
    let (pronto, image) = (shared(), bare());
    let out = pronto.create("provisioned", &image, &["--arch", "arm64", "--timeout", "600s"]);
    assert!(out.err().contains("systemd"), "it says what it does: {out}");
    // The image itself has no units yet: what its release's systemd brings masked is in the tree that has it.
    is_healthy_within(pronto, "provisioned", &BOOKWORM_ARM64.tree());
    assert_eq!(pronto.exec("provisioned", &["cat", "/etc/ring"]), "bare");
    let text = pronto.exec("provisioned", &["hostnamectl"]);
    assert_eq!(
        (field(&text, "Architecture"), field(&text, "Virtualization")),
        ("arm64".into(), "systemd-nspawn".into())
    );
    let first = pronto.exec("provisioned", &["cat", "/etc/machine-id"]);
    pronto.cmd(["shutdown", "-w", "provisioned"]).run().ok();
    let out = pronto.create("again", registry().image("ring/bare:gz"), &["--arch", "arm64"]);
    assert!(out.took < secs(60), "nothing is provisioned twice: {out}");
    assert_ne!(pronto.exec("again", &["cat", "/etc/machine-id"]), first, "the layer holds no machine-id");
    let script = "ls /var/lib/apt/lists /etc/ssh/ssh_host_* /var/lib/systemd/random-seed 2>/dev/null | grep -v -e lock -e partial -e auxfiles -e : || true";
    assert_eq!(pronto.exec("again", &["sh", "-c", script]), "", "nor seeds, host keys and package lists");
    pronto.run(["destroy", "again"]).ok();
    for name in ["again", "provisioned"] {
        pronto.run(["delete", name]).ok();
    }
}

/// The main job as the README has it: a catalogue label, whose sources are a registry and then this machine's own mirror.
fn a_catalogue_label() {
    let pronto = shared();
    let out = pronto.cmd(["--arch", "arm64", "debian/bookworm", "hostnamectl"]).limit(secs(15 * 60)).run().ok();
    assert_eq!(field(&out.text(), "Virtualization"), "systemd-nspawn", "{out}");
    assert_eq!(field(&out.text(), "Architecture"), "arm64", "{out}");
    assert!(!out.err().contains("[  OK  ]"), "stderr is free of guest chatter: {out}");
    let out =
        pronto.cmd(["--arch", "arm64", "debian/bookworm", "systemctl", "is-system-running"]).limit(secs(120)).run();
    out.ok().prints("running");
    let out =
        pronto.cmd(["--arch", "arm64", "debian/bookworm", "hostnamectl", "--version"]).limit(secs(120)).run().ok();
    assert!(out.text().starts_with("systemd 252"), "{out}");
}

/// Where a suite's scripts obey DPKG_ROOT they run on this CPU. The guest that comes of it is a whole one: nothing fails in it,
/// and what the scripts that do not obey would have left out is there.
fn a_debian_whose_scripts_ran_here() {
    let pronto = Pronto::fresh();
    let out =
        pronto.cmd(["pull", "--arch", "arm64", "--include", "procps", "debian/trixie"]).limit(secs(15 * 60)).run();
    if out.err().contains("does not have a Release file") || out.err().contains("404  Not Found") {
        skip!("the mirror does not carry trixie");
    }
    let out = out.ok();
    assert!(!out.err().contains("emulation"), "nothing had to be made by emulation: {out}");
    let script = "systemctl is-system-running; uname -m; grep -c '^root:x:' /etc/passwd; grep -c '^[a-z-]*:[!*]' /etc/shadow; \
                  grep -c pam_systemd.so /etc/pam.d/common-session; dpkg --audit; ls /usr/sbin/policy-rc.d 2>&1 | grep -c such";
    let words = ["run", "--boot", "--arch", "arm64", "--include", "procps", "debian/trixie", "--", "sh", "-c", script];
    let out = pronto.cmd(words).limit(secs(120)).run().ok();
    let text = out.text();
    let said: Vec<&str> = text.lines().collect();
    assert_eq!(said[..3], ["running", "aarch64", "1"], "{out}");
    assert!(said[3].parse::<u32>().is_ok_and(|users| users > 18), "every user has a line in shadow: {out}");
    assert_eq!(said[4..], ["1", "1"], "{out}");
}

/// The index says arm64 but holds amd64: an error that names both, and nothing is created.
fn a_label_that_lies() {
    let (pronto, dir) = (Pronto::fresh(), scratch("liar"));
    let mut layout = Layout::new(&dir.join("oci"));
    layout.index("liar", &[Image::new("arm64", &[&BARE_AMD64.tar()], Codec::Gzip, &["/bin/sh"])]);
    registry().push(&dir.join("oci"), "liar", "ring/liar:latest");
    for words in [&["create", "--name", "guest"][..], &["run"]] {
        let out = pronto.cmd(words).args(["--arch", "arm64", &registry().image("ring/liar:latest")]).run();
        assert!(out.code() != 0 && out.err().contains("arm64") && out.err().contains("amd64"), "it names both: {out}");
    }
    assert!(pronto.rows().is_empty());
}

/// Never silently another architecture: what exists is printed, and nothing is stored.
fn the_platforms_that_exist() {
    let (pronto, image) = (Pronto::fresh(), bare());
    let out = pronto.run(["pull", "--arch", "riscv64", &image]).exits(1);
    assert!(out.err().contains("linux/amd64") && out.err().contains("linux/arm64"), "{out}");
    let dir = scratch("single");
    let mut layout = Layout::new(&dir.join("oci"));
    layout.single("one", &Image::new("amd64", &[&hello(Cpu::Amd64, &dir)], Codec::Plain, &["/hello"]));
    registry().push(&dir.join("oci"), "one", "ring/one:latest");
    let one = registry().image("ring/one:latest");
    let out = pronto.run(["run", "--arch", "arm64", &one]).exits(125);
    assert!(out.err().contains("amd64"), "a manifest without an index is looked at, too: {out}");
    assert_eq!(pronto.run(["images", "--format", "json"]).ok().text().trim().replace([' ', '\n'], ""), "[]");
    pronto.run(["run", &one]).ok().prints("hello Amd64");
}

fn images_pull_and_rmi() {
    let (pronto, dir) = (Pronto::fresh(), scratch("multi"));
    let mut layout = Layout::new(&dir.join("oci"));
    let images = [("amd64", Cpu::Amd64, Codec::Gzip), ("arm64", Cpu::Arm64, Codec::Zstd)];
    let digest =
        layout.index("m", &images.map(|(arch, cpu, codec)| Image::new(arch, &[&hello(cpu, &dir)], codec, &["/hello"])));
    registry().push(&dir.join("oci"), "m", "ring/multi:m");
    let image = registry().image("ring/multi:m");
    for (arch, cpu, _) in images {
        pronto.run(["pull", "--arch", arch, &image]).ok();
        pronto.run(["run", "--arch", arch, &image]).ok().prints(&format!("hello {cpu:?}"));
    }
    let rows: serde_json::Value =
        serde_json::from_slice(&pronto.run(["images", "--format", "json"]).ok().stdout).unwrap();
    let mut platforms: Vec<&str> = rows.as_array().unwrap().iter().map(|r| r["platform"].as_str().unwrap()).collect();
    platforms.sort_unstable();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64/v8"]);
    let before = registry().blob_gets("ring/multi");
    pronto.run(["pull", "--arch", "arm64", &image]).ok();
    assert_eq!(registry().blob_gets("ring/multi"), before, "what is there is not fetched again");
    let name = image.rsplit_once(':').unwrap().0;
    pronto.run(["run", "--arch", "arm64", &format!("{name}@{digest}")]).ok().prints("hello Arm64");
    pronto.run(["rmi", &image]).ok();
    pronto.run(["rmi", &format!("{name}@{digest}")]).ok();
    assert_eq!(pronto.run(["images", "--format", "json"]).ok().text().trim(), "[]");
    assert_eq!(
        std::fs::read_dir(pronto.root().join("layers")).unwrap().count(),
        0,
        "layers that nothing uses are gone"
    );
    pronto.run(["rmi", &image]).exits(1);
}

fn a_layout_on_disk() {
    let (pronto, dir) = (Pronto::fresh(), scratch("a layout, odd:name"));
    let _interpreter = Interpreter::needed();
    let mut layout = Layout::new(&dir.join("oci"));
    layout.index(
        "x",
        &[("amd64", Cpu::Amd64), ("arm64", Cpu::Arm64)]
            .map(|(a, c)| Image::new(a, &[&hello(c, &dir)], Codec::Zstd, &["/hello"])),
    );
    let plain = scratch("layout");
    std::fs::rename(dir.join("oci"), plain.join("oci")).unwrap();
    let image = format!("oci:{}:x", plain.join("oci").display());
    pronto.run(["run", "--arch", "arm64", &image]).ok().prints("hello Arm64");
    pronto.run(["run", &image]).ok().prints("hello Amd64");
    pronto.run(["run", &format!("oci:{}:nope", plain.join("oci").display())]).exits(125).says("nope");
}

fn tarballs_of_every_kind() {
    let (pronto, dir) = (Pronto::fresh(), scratch("tarballs"));
    let tar = hello(Cpu::Arm64, &dir);
    for (suffix, pack) in [("", ""), (".gz", "gzip -kf"), (".xz", "xz -kf"), (".zst", "zstd -qkf")] {
        let tool = pack.split(' ').next().unwrap_or_default();
        if !tool.is_empty() && !have(tool) {
            skip!("{tool} is not installed");
        }
        if !pack.is_empty() {
            let mut words = pack.split(' ');
            Run::new(words.next().unwrap()).args(words).arg(&tar).run().ok();
        }
        let path = PathBuf::from(format!("{}{suffix}", tar.display()));
        pronto.cmd(["run", "--arch", "arm64"]).arg(&path).arg("/hello").run().ok().prints("hello Arm64");
        // A name that says nothing: what is inside decides.
        let odd = dir.join(format!("odd, name{}", suffix.len()));
        std::fs::copy(&path, &odd).unwrap();
        pronto.cmd(["run", "--arch", "arm64"]).arg(&odd).arg("/hello").run().ok().prints("hello Arm64");
    }
}

/// The server closes the connection in the middle, once; the rest is asked for with a range, and the tree is whole.
fn a_broken_download_goes_on() {
    let (pronto, dir) = (Pronto::fresh(), scratch("resume"));
    let noise: Vec<u8> = (0..2_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let tar = dir.join("big.tar");
    Tar::new().file("hello", 0o755, &program(Cpu::Amd64, b"whole\n", 0)).file("noise", 0o644, &noise).write(&tar);
    let body = std::fs::read(&tar).unwrap();
    let server = Server::start(move |request| {
        if request.path != "/big.tar" {
            return Response::status(404, &[], "no checksums stand beside it");
        }
        let cut = (request.method == "GET" && request.from.is_none()).then_some(3_000_000);
        Response { cut, headers: vec!["ETag: \"one\"".into()], ..Response::ok(body.clone()) }
    });
    let url = server.url("big.tar");
    let first = pronto.cmd(["run", &url, "/hello"]).run();
    if first.code() != 0 {
        pronto.run(["run", &url, "/hello"]).ok().prints("whole");
    }
    let gets: Vec<Option<usize>> = server.requests().iter().filter(|r| r.path == "/big.tar").map(|r| r.from).collect();
    assert!(gets.iter().any(|from| from.is_some_and(|f| f > 0)), "it went on where it broke off: {gets:?}");
    assert!(gets.iter().filter(|from| from.is_none()).count() == 1, "it did not start again: {gets:?}");
}

/// `images:` from an index in the form of linuxcontainers.org's: the tree has an init, so nothing is installed, and it boots.
fn an_image_of_an_index_boots() {
    let (pronto, dir) = (Pronto::fresh(), scratch("index"));
    let packed = dir.join("root.tar.xz");
    let file = std::fs::File::create(&packed).unwrap();
    let mut xz = Tool::new("xz").args(["-0", "-T2", "-c"]).arg(BOOKWORM_ARM64.tar());
    xz.command().stdout(file);
    assert!(xz.spawn().unwrap().wait().unwrap().success());
    let root = std::fs::read(&packed).unwrap();
    let sum = hex(ring::digest::digest(&ring::digest::SHA256, &root).as_ref());
    let path = "images/debian/bookworm/arm64/default/20260904_05:24/rootfs.tar.xz";
    let item = json!({"ftype": "root.tar.xz", "path": path, "size": root.len(), "sha256": sum});
    let product = json!({"aliases": "debian/bookworm/default,debian/bookworm,debian/12", "arch": "arm64", "os": "Debian",
        "release": "bookworm", "variant": "default", "versions": {"20260904_05:24": {"items": {"root.tar.xz": item}}}});
    let index = json!({"format": "index:1.0", "index": {"images": {
        "datatype": "image-downloads", "path": "streams/v1/images.json", "format": "products:1.0"}}});
    let list = json!({"format": "products:1.0", "products": {"debian:bookworm:arm64:default": product}});
    let server = Server::start(move |request| match request.path.trim_start_matches('/') {
        "streams/v1/index.json" => Response::ok(index.to_string()),
        "streams/v1/images.json" => Response::ok(list.to_string()),
        at if at == path => Response::ok(root.clone()),
        _ => Response::status(404, &[], ""),
    });
    let image = format!("images+http://{}/debian/12/arm64", server.host());
    let out = pronto.create("indexed", &image, &["--timeout", "600s"]);
    assert!(!out.err().contains("installing"), "it has an init: {out}");
    is_healthy_within(&pronto, "indexed", &BOOKWORM_ARM64.tree());
    assert_eq!(pronto.exec("indexed", &["uname", "-m"]), "aarch64");
    assert!(pronto.run(["images"]).ok().text().contains("/debian/12/default"));
    pronto.run(["destroy", "indexed"]).ok();
    pronto.run(["delete", "indexed"]).ok();
}

/// mount(2)'s one page of options does not hold a hundred layers.
fn a_hundred_layers() {
    let (pronto, dir) = (Pronto::fresh(), scratch("hundred"));
    let base = BARE_AMD64.tar();
    let tars: Vec<PathBuf> = (0..100)
        .map(|n| {
            let tar = dir.join(format!("{n}.tar"));
            Tar::new()
                .dir("layers/")
                .file(&format!("layers/{n}"), 0o644, b"x")
                .file("top", 0o644, format!("{n}\n").as_bytes())
                .write(&tar);
            tar
        })
        .collect();
    let layers: Vec<&Path> = std::iter::once(base.as_path()).chain(tars.iter().map(PathBuf::as_path)).collect();
    let mut layout = Layout::new(&dir.join("oci"));
    layout.index("hundred", &[Image::new("amd64", &layers, Codec::Gzip, &["/bin/sh"])]);
    let image = format!("oci:{}:hundred", dir.join("oci").display());
    pronto.run(["run", &image, "--", "sh", "-c", "ls /layers | wc -l; cat /top"]).ok().prints("100\n99");
}

/// What layers may say about files: gone, replaced as a whole, linked, owned, privileged, named in bytes.
fn whiteouts_links_and_owners() {
    let (pronto, dir) = (Pronto::fresh(), scratch("whiteouts"));
    let (base, lower, upper) = (BARE_AMD64.tar(), dir.join("lower.tar"), dir.join("upper.tar"));
    Tar::new()
        .dir("d/")
        .dir("d/opaque/")
        .dir("d/plain/")
        .file("d/gone", 0o644, b"")
        .file("d/opaque/old", 0o644, b"")
        .file("d/plain/old", 0o644, b"")
        .file("d/setuid", 0o4755, b"s")
        .owner(1234, 4321)
        .file("d/owned", 0o640, b"o")
        .owner(0, 0)
        .hard_link("d/twin", "d/owned")
        .symlink("d/link", "/d/owned")
        .raw_file(b"d/b\xfftes", 0o644, b"bytes\n")
        .write(&lower);
    Tar::new()
        .file("d/.wh.gone", 0o644, b"")
        .file("d/opaque/.wh..wh..opq", 0o644, b"")
        .file("d/opaque/new", 0o644, b"")
        .file("d/plain/new", 0o644, b"")
        .file("d/.wh.never-there", 0o644, b"")
        .write(&upper);
    let mut image = Image::new("amd64", &[&base, &lower, &upper], Codec::Zstd, &["/bin/sh"]);
    image.config = json!({ "Env": ["PATH=/usr/bin:/bin", "FROM=image"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo $FROM"], "WorkingDir": "/d", "User": "1234" });
    let mut layout = Layout::new(&dir.join("oci"));
    layout.index("w", &[image]);
    let image = format!("oci:{}:w", dir.join("oci").display());
    pronto.run(["run", &image]).ok().prints("image");
    let run = |script: &str| pronto.run(["run", &image, script]);
    run("pwd; id -u").ok().prints("/d\n1234");
    run("ls -a /d | tr '\\n' ' '; ls /d/opaque /d/plain | tr '\\n' ' '")
        .ok()
        .prints(". .. b\u{fffd}tes link opaque owned plain setuid twin /d/opaque: new  /d/plain: new old");
    run("stat -c '%a %u:%g %h' /d/setuid /d/owned; cat /d/b*").ok().prints("4755 0:0 1\n640 1234:4321 2\nbytes");
    run("stat -c %i /d/owned /d/twin | uniq | wc -l; cat /d/link").ok().prints("1\no");
    let _ = fixtures::cache();
}

/// What `skopeo` writes for docker and for OCI, several platforms and one, read where it lies.
fn archives_of_other_tools() {
    let (pronto, dir) = (Pronto::fresh(), scratch("archives"));
    let mut layout = Layout::new(&dir.join("oci"));
    let (arm64, amd64) = (hello(Cpu::Arm64, &dir), hello(Cpu::Amd64, &dir));
    for (tag, codec) in [("gz", Codec::Gzip), ("zst", Codec::Zstd)] {
        let image = |arch, tar| Image::new(arch, &[tar], codec, &["/hello"]);
        layout.index(tag, &[image("amd64", &amd64), image("arm64", &arm64)]);
    }
    let from = |tag: &str| format!("oci:{}:{tag}", dir.join("oci").display());
    let at = |name: &str| dir.join(name).display().to_string();
    let copy = |flags: &[&str], from: &str, to: &str| {
        Run::new("skopeo").args(["--insecure-policy", "copy", "--quiet"]).args(flags).args([from, to]).run().ok();
    };
    copy(&["--all"], &from("gz"), &format!("oci-archive:{}:both", at("both.tar")));
    copy(&["--all"], &from("zst"), &format!("oci-archive:{}", at("none.tar")));
    copy(&["--override-arch", "arm64"], &from("gz"), &format!("docker-archive:{}:some/hello:1", at("save.tar")));
    let run = |word: &str, arch: &str| pronto.cmd(["--quiet", "run", "--arch", arch, word]).run();
    for (arch, said) in [("arm64", "hello Arm64"), ("amd64", "hello Amd64")] {
        run(&format!("oci-archive:{}:both", at("both.tar")), arch).ok().prints(said);
        run(&format!("oci-archive:{}", at("none.tar")), arch).ok().prints(said);
    }
    for name in ["", ":some/hello:1", ":docker.io/some/hello:1"] {
        run(&format!("docker-archive:{}{name}", at("save.tar")), "arm64").ok().prints("hello Arm64");
    }
    run(&format!("docker-archive:{}", at("save.tar")), "amd64").exits(125).says("it has linux/arm64");
    run(&format!("docker-archive:{}:other:1", at("save.tar")), "arm64")
        .exits(125)
        .says("it has docker.io/some/hello:1");
    run(&format!("oci-archive:{}:other", at("both.tar")), "arm64").exits(125).says("it has the tags both");
    let listed = pronto.run(["images"]).ok().text();
    assert!(listed.contains(&format!("docker-archive:{}:some/hello:1", at("save.tar"))), "{listed}");
    pronto.run(["rmi", &format!("oci-archive:{}:both", at("both.tar"))]).ok();
}

/// Two images in one archive, whose layers are links to one file and a compressed one; and archives that are none.
fn damaged_archives() {
    let (pronto, dir) = (Pronto::fresh(), scratch("damaged"));
    let layer = std::fs::read(hello(Cpu::Amd64, &dir)).unwrap();
    let diff = ::pronto::image::Digest::of(&layer).to_string();
    let config = |note: &str| {
        json!({"architecture": "amd64", "os": "linux", "author": note, "rootfs": {"type": "layers", "diff_ids": [diff]}}).to_string()
    };
    let item = |n: &str| json!({"Config": format!("{n}.json"), "RepoTags": [format!("{n}:latest")], "Layers": [format!("{n}/layer.tar")]});
    let gzip = Run::new("gzip").arg("-c").stdin(&layer).run().ok().stdout;
    let make = |name: &str, list: serde_json::Value, layer: &[u8]| {
        Tar::new()
            .file("shared.tar", 0o644, layer)
            .symlink("one/layer.tar", "../shared.tar")
            .file("two/layer.tar", 0o644, &gzip)
            .symlink("loop/layer.tar", "../loop/layer.tar")
            .file("one.json", 0o644, config("one").as_bytes())
            .file("two.json", 0o644, config("two").as_bytes())
            .file("loop.json", 0o644, config("loop").as_bytes())
            .file("manifest.json", 0o644, list.to_string().as_bytes())
            .write(&dir.join(name));
        format!("docker-archive:{}", dir.join(name).display())
    };
    let both = make("both.tar", json!([item("one"), item("two")]), &layer);
    let run = |word: &str| pronto.cmd(["--quiet", "run", word, "/hello"]).run();
    run(&both).exits(125).says("a name is needed").says("one:latest, two:latest");
    for name in [":one", ":two:latest", ":docker.io/library/one:latest"] {
        run(&format!("{both}{name}")).ok().prints("hello Amd64");
    }
    // A layer of nothing, compressed to some thirty bytes, and a path with an @.
    let nothing = vec![0; 1024];
    let packed = Run::new("gzip").arg("-c").stdin(&nothing).run().ok().stdout;
    let digests = [diff.clone(), ::pronto::image::Digest::of(&nothing).to_string()];
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests}}).to_string();
    let list = json!([{"Config": "c.json", "RepoTags": null, "Layers": ["l.tar", "n.tar"]}]).to_string();
    let tar = Tar::new().file("./l.tar", 0o644, &layer).file("./n.tar", 0o644, &packed);
    let tar = tar.file("./c.json", 0o644, config.as_bytes()).file("./manifest.json", 0o644, list.as_bytes());
    tar.write(&dir.join("app@1.2.tar"));
    run(&format!("docker-archive:{}", dir.join("app@1.2.tar").display())).ok().prints("hello Amd64");
    let mut wrong = layer.clone();
    wrong[600] ^= 1;
    let fresh = Pronto::fresh();
    let run = |word: &str| fresh.cmd(["--quiet", "run", word, "/hello"]).run().exits(125);
    run(&make("wrong.tar", json!([item("one")]), &wrong)).says("was promised");
    run(&make("loop.tar", json!([item("loop")]), &layer)).says("lacks its layer 'loop/layer.tar'");
    run(&make("list.tar", json!({"one": 1}), &layer)).says("manifest.json is not docker's");
    run(&format!("oci-archive:{}", dir.join("both.tar").display())).says("no index.json");
    let whole = std::fs::read(dir.join("both.tar")).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        ::pronto::sys::fs::write_volatile(&dir.join(name), bytes, 0o644).unwrap();
        format!("docker-archive:{}", dir.join(name).display())
    };
    run(&write("short.tar", &whole[..1000])).says("truncated");
    run(&write("html.tar", b"<html>")).says("truncated");
    run(&write("packed.tar.gz", &gzip)).says("gunzip");
    run(&format!("docker-archive:{}", dir.join("missing.tar").display())).says("No such file");
    run("docker-archive:").says("a file must follow");
    assert_eq!(fresh.run(["images", "--format", "json"]).ok().text().trim(), "[]", "nothing is stored of any of them");
}
