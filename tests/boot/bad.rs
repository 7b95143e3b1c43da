//! Bad input: each kind gives one clear error, the exit status that scripts expect, and leaves nothing. What a newcomer would
//! get wrong: "clear" is tested by the words that a person needs (which image, which platforms, which package), not by a
//! message's whole text.

use std::path::Path;

use super::images::{bare, hello};
use super::tar::Tar;
use crate::common::elf::{Cpu, program};
use crate::common::fixtures::BOOKWORM_AMD64;
use crate::common::harness::cases;
use crate::common::http::{Response, Server};
use crate::common::oci::{Codec, Image, Layout};
use crate::common::pronto::{BINARY, Pronto, registry, scratch};
use crate::common::registry::free_port;
use crate::common::run::{Out, Run};
use crate::common::{secs, write};

cases! {
    Together: words_that_mean_nothing, the_registry_is_down_or_refuses, an_unknown_image, damaged_blobs, no_tarball,
           entries_that_climb_out, forbidden_entries, a_directory_without_an_os, a_full_disk, a_missing_interpreter, not_root,
           the_store_is_private, keys_that_are_not_ours, control_characters_are_escaped;
}

/// A create that must fail, and what must be true afterwards.
#[track_caller]
fn refused(pronto: &Pronto, image: &str, words: &[&str]) -> Out {
    let out = pronto.cmd(["create", "--name", "guest", image]).limit(secs(120)).run();
    assert!([1, 3].contains(&out.code()), "{out}");
    for word in words {
        assert!(out.err().to_lowercase().contains(&word.to_lowercase()), "wanted '{word}': {out}");
    }
    assert!(out.err().lines().count() <= 12, "one clear error, no flood: {out}");
    assert!(!out.err().contains("panicked"), "{out}");
    assert!(pronto.rows().is_empty(), "no domain is left: {out}");
    assert_eq!(std::fs::read_dir(pronto.root().join("domains")).map_or(0, Iterator::count), 0, "{out}");
    out
}

fn words_that_mean_nothing() {
    let pronto = Pronto::fresh();
    for word in ["frobnicate", "debain", "bookworm"] {
        let out = pronto.run([word, "true"]).exits(1).says("unknown command or image").says(word);
        assert!(out.took < secs(2), "no network: {out}");
    }
    pronto.run(["lst"]).exits(1).says("list");
    // A verb of xl's that pronto lacks is never taken for an image.
    for verb in ["migrate", "cpupool-list", "cd-insert"] {
        let out = pronto.run([verb, "x"]).exits(1);
        assert!(out.err().contains(verb) && out.err().lines().count() == 1, "one line: {out}");
    }
    pronto.run(["li"]).ok();
    pronto.run(["re", "x"]).exits(1).says("reboot").says("rename");
    pronto.run(["create"]).exits(6);
    pronto.run(["list", "--no-such-option"]).exits(2);
    let out = refused(&pronto, "127.0.0.1:1/UPPER/Case:tag", &["UPPER/Case"]);
    assert!(out.took < secs(2), "no network: {out}");
}

fn the_registry_is_down_or_refuses() {
    let pronto = Pronto::fresh();
    let down = format!("127.0.0.1:{}/x/y:z", free_port());
    let out = refused(&pronto, &down, &[&down[..down.find('/').unwrap()], "refused"]);
    assert!(out.took < secs(30), "{out}");
    let body = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    for status in [401, 403] {
        let server = Server::start(move |_| Response::status(status, &["Content-Type: application/json"], body));
        let out = refused(&pronto, &format!("{}/x/y:z", server.host()), &["refuses"]);
        assert!(server.requests().len() < 6, "a refusal is not asked for again and again: {out}");
    }
    let server = Server::start(|_| Response::status(500, &[], "boom"));
    refused(&pronto, &format!("{}/x/y:z", server.host()), &["500"]);
}

fn an_unknown_image() {
    let pronto = Pronto::fresh();
    refused(&pronto, &registry().image("no/such:image"), &["no/such"]);
    refused(&pronto, &registry().image("ring/bare:no-such-tag"), &["no-such-tag"]);
    pronto.run(["pull", &registry().image("no/such:image")]).exits(1);
    pronto.run(["run", &registry().image("no/such:image"), "true"]).exits(125);
}

/// The registry hands out a blob that is too short, then one with a wrong byte.
fn damaged_blobs() {
    for (name, damage) in [("truncated", true), ("flipped", false)] {
        let (pronto, dir) = (Pronto::fresh(), scratch(name));
        let noise: Vec<u8> = (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let tar = dir.join("layer.tar");
        Tar::new().file(name, 0o644, &noise).file("hello", 0o755, &program(Cpu::Amd64, b"hi\n", 0)).write(&tar);
        let mut layout = Layout::new(&dir.join("oci"));
        layout.index("x", &[Image::new("amd64", &[&tar], Codec::Plain, &["/hello"])]);
        registry().push(&dir.join("oci"), "x", &format!("ring/{name}:x"));
        let digest = crate::common::oci::hex(
            ring::digest::digest(&ring::digest::SHA256, &std::fs::read(&tar).unwrap()).as_ref(),
        );
        let blob = registry().blob(&digest);
        let mut bytes = std::fs::read(&blob).unwrap();
        if damage {
            bytes.truncate(700_000);
        } else {
            bytes[700_000] ^= 1;
        }
        write(&blob, &bytes);
        let image = registry().image(&format!("ring/{name}:x"));
        refused(&pronto, &image, &[&digest[..12]]);
        pronto.run(["run", &image]).exits(125);
        assert!(!pronto.root().join("blobs/sha256").join(&digest).exists(), "a bad blob gets no name");
        assert_eq!(std::fs::read_dir(pronto.root().join("layers")).map_or(0, Iterator::count), 0, "no layer is left");
    }
}

fn no_tarball() {
    let (pronto, dir) = (Pronto::fresh(), scratch("no-tarball"));
    write(dir.join("text.tar"), "this is no archive at all\n".repeat(100));
    write(dir.join("empty.tar"), "");
    let mut half = std::fs::read(hello(Cpu::Amd64, &dir)).unwrap();
    half.truncate(700);
    write(dir.join("half.tar"), half);
    for name in ["text.tar", "empty.tar", "half.tar"] {
        refused(&pronto, &dir.join(name).to_string_lossy(), &[name]);
    }
    refused(&pronto, "/no/such/file.tar", &["/no/such/file.tar"]);
    refused(&pronto, "/dev/null", &["/dev/null"]);
    let server = Server::start(|_| Response::status(404, &[], "nothing here"));
    refused(&pronto, &server.url("gone.tar.xz"), &["not found"]);
    assert_eq!(std::fs::read_dir(pronto.root().join("layers")).map_or(0, Iterator::count), 0);
}

/// Entries that would write beside the tree: by their name, through a link made before, through a hard link.
fn entries_that_climb_out() {
    let (pronto, dir) = (Pronto::fresh(), scratch("climb"));
    let prey = dir.join("prey");
    std::fs::create_dir(&prey).unwrap();
    write(prey.join("file"), "untouched");
    let (at, evil) = (prey.display().to_string(), b"evil".as_slice());
    let up = format!("{}{}/evil", "../".repeat(20), at.trim_start_matches('/'));
    let attacks = [
        ("dots", Tar::new().file(&up, 0o644, evil)),
        ("absolute", Tar::new().file(&format!("{at}/evil"), 0o644, evil)),
        ("symlink", Tar::new().symlink("x", &at).file("x/evil", 0o644, evil)),
        (
            "chain",
            Tar::new().dir("a/").symlink("a/b", "/").symlink("c", &format!("a/b{at}")).file("c/evil", 0o644, evil),
        ),
        ("over", Tar::new().symlink("x", &format!("{at}/file")).file("x", 0o644, evil)),
        ("hard", Tar::new().hard_link("x", &format!("{at}/file")).file("x", 0o644, evil)),
        (
            "hard-dots",
            Tar::new()
                .hard_link("x", &format!("{}{}/file", "../".repeat(20), at.trim_start_matches('/')))
                .file("x", 0o644, evil),
        ),
        ("whiteout", Tar::new().symlink("x", &at).file("x/.wh.file", 0o644, b"")),
    ];
    for (name, tar) in attacks {
        let path = dir.join(format!("{name}.tar"));
        tar.file("hello", 0o755, &program(Cpu::Amd64, b"hi\n", 0)).write(&path);
        // It may be refused, or unpacked with everything kept inside; outside nothing may happen.
        let out = pronto.cmd(["run"]).arg(&path).arg("/hello").run();
        assert!(out.code() == 0 || out.code() == 125, "{name}: {out}");
        assert!(!out.err().contains("panicked"), "{out}");
        assert_eq!(std::fs::read_to_string(prey.join("file")).unwrap(), "untouched", "{name}: {out}");
        assert_eq!(std::fs::read_dir(&prey).unwrap().count(), 1, "{name}: {out}");
    }
}

fn forbidden_entries() {
    let (pronto, dir) = (Pronto::fresh(), scratch("forbidden"));
    let attacks = [
        ("redirect", Tar::new().file_with_xattr("x", "trusted.overlay.redirect", "/etc")),
        ("opaque", Tar::new().file_with_xattr("x", "trusted.overlay.opaque", "y")),
        ("whiteout device", Tar::new().device("x", 0, 0)),
    ];
    for (name, tar) in attacks {
        let path = dir.join("attack.tar");
        tar.write(&path);
        let out = pronto.cmd(["run"]).arg(&path).arg("/x").run().exits(125);
        assert!(out.err().contains('x'), "{name}: {out}");
        assert_eq!(std::fs::read_dir(pronto.root().join("layers")).map_or(0, Iterator::count), 0, "{name}");
    }
}

fn a_directory_without_an_os() {
    let (pronto, dir) = (Pronto::fresh(), scratch("empty"));
    refused(&pronto, &dir.to_string_lossy(), &[&dir.to_string_lossy()]);
    ::pronto::sys::fs::write_volatile(&dir.join("hello"), &program(Cpu::Amd64, b"hi\n", 0), 0o755).unwrap();
    refused(&pronto, &dir.to_string_lossy(), &["run"]);
}

/// The store is on a file system that is too small; it is mounted in a namespace of the command's own.
fn a_full_disk() {
    let (dir, image) = (scratch("full"), bare());
    let script = format!(
        "mount -t tmpfs -o size=24m,mode=0700 small {dir} && {BINARY} --root {dir}/store create --name guest {image}; echo $?; \
         {BINARY} --root {dir}/store list --all --format json; ls -A {dir}/store/domains {dir}/store/run/domains",
        dir = dir.display()
    );
    let out = Run::new("unshare").args(["-m", "sh", "-c", &script]).limit(secs(120)).run().says("space");
    let text = out.text().replace([' ', '\n'], "");
    assert!(text.starts_with("3[]") || text.starts_with("1[]"), "exit status 3, and an empty list: {out}");
    assert!(!out.text().contains("guest"), "nothing is left: {out}");
}

/// The interpreter is hidden by a mount in a namespace of the command's own.
fn a_missing_interpreter() {
    let (pronto, dir) = (Pronto::fresh(), scratch("riscv"));
    let tree = dir.join("tree");
    std::fs::create_dir(&tree).unwrap();
    let mut riscv = program(Cpu::Arm64, b"", 0);
    riscv[18..20].copy_from_slice(&243u16.to_le_bytes());
    ::pronto::sys::fs::write_volatile(&tree.join("hello"), &riscv, 0o755).unwrap();
    let script = "for q in /usr/bin/qemu-riscv64 /usr/bin/qemu-riscv64-static /usr/libexec/qemu-binfmt/riscv64-binfmt-P; do \
                  [ -e $q ] && mount --bind /dev/null $q; done; exec \"$@\"";
    let pronto_words = [BINARY.as_ref(), "--root".as_ref(), pronto.root().as_os_str()];
    let out = Run::new("unshare").args(["-m", "sh", "-c", script, "sh"]).args(pronto_words);
    let out = out.args(["run", "--arch", "riscv64"]).arg(&tree).arg("/hello").run().exits(125);
    assert!(out.err().contains("riscv64") && out.err().contains("qemu-user"), "which CPU, and which package: {out}");
    assert!(!Path::new("/proc/sys/fs/binfmt_misc/pronto-riscv64").exists());
}

/// An ordinary user: what needs root says so in one line; what needs none works.
fn not_root() {
    let dir = tempfile::Builder::new().prefix("pronto-user").tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let binary = dir.path().join("pronto");
    std::fs::copy(BINARY, &binary).unwrap();
    let run = |words: &[&str]| {
        Run::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&binary)
            .args(words)
            .dir("/")
            .run()
    };
    let words: [&[&str]; 9] = [
        &["create", "debian/bookworm"],
        &["run", "debian/bookworm", "true"],
        &["debian/bookworm", "true"],
        &["destroy", "x"],
        &["exec", "x", "true"],
        &["console", "x"],
        &["binfmt", "register", "arm64"],
        &["pull", "debian/bookworm"],
        &["rmi", "x/y"],
    ];
    for verb in words {
        let out = run(verb);
        assert!([1, 125].contains(&out.code()) && out.err().contains("root"), "{out}");
        assert!(out.err().lines().count() <= 3 && out.took < secs(2), "in one line, before anything is tried: {out}");
    }
    for verb in [&["--help"][..], &["--version"], &["arch", "list"], &["completions", "bash"], &["binfmt", "status"]] {
        run(verb).ok();
    }
    let out = run(&["doctor"]);
    assert!(!out.stdout.is_empty() && !out.err().contains("panicked"), "{out}");
}

/// All of the store is root's own, and one that is not is refused.
fn the_store_is_private() {
    let pronto = Pronto::fresh();
    pronto.create("guest", BOOKWORM_AMD64.tree(), &["--no-wait"]);
    let cat =
        Run::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups", "ls"]).arg(pronto.root()).run();
    assert_ne!(cat.code(), 0, "an ordinary user gets nowhere: {cat}");
    let out = Run::new("find").arg(pronto.root()).args(["-maxdepth", "1", "-type", "d", "-perm", "/077"]).run().ok();
    out.prints("");
    pronto.run(["destroy", "guest"]).ok();
    let layers = pronto.root().join("layers");
    std::fs::set_permissions(&layers, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    pronto.run(["list"]).exits(1).says("0700");
    std::fs::set_permissions(&layers, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    pronto.run(["list"]).ok();
    write(pronto.root().join("version"), "99\n");
    pronto.run(["list"]).exits(1).says("newer");
    write(pronto.root().join("version"), "1\n");
}

/// A key that nobody knows, or whose value cannot be, is named and refused; one that this backend does nothing with is told.
fn keys_that_are_not_ours() {
    let (pronto, tree) = (Pronto::fresh(), BOOKWORM_AMD64.tree());
    let words = [
        "nonsense=1",
        "memory=\"lots\"",
        "vcpus=-1",
        "on_reboot=\"explode\"",
        "on_crash=\"preserve\"",
        "on_crash=\"rename-restart\"",
        "disk=['x']",
        "accel=\"kvm\"",
        "backend=\"xen\"",
    ];
    for word in words {
        let out = pronto.cmd(["create", "--name", "guest"]).arg(&tree).arg(word).run();
        let named = if word.starts_with("backend") { "Xen" } else { word.split('=').next().unwrap() };
        assert!([2, 3].contains(&out.code()) && out.err().contains(named), "{out}");
    }
    assert!(pronto.rows().is_empty());
    let out = pronto.cmd(["new", "--name", "guest"]).arg(&tree).args(["vnc=1", "maxvcpus=2"]).run().ok();
    for key in ["vnc", "maxvcpus"] {
        assert_eq!(out.err().matches(&format!("'{key}' does nothing on kaxon")).count(), 1, "{out}");
    }
    pronto.run(["delete", "guest"]).ok();
    assert!(pronto.rows().is_empty());
}

/// What comes from outside cannot write on the terminal.
fn control_characters_are_escaped() {
    let (pronto, dir) = (Pronto::fresh(), scratch("escape"));
    let tar = dir.join("escape.tar");
    Tar::new().file("../\x1b[31mred\x07", 0o644, b"").write(&tar);
    let out = pronto.cmd(["run"]).arg(&tar).arg("/x").run();
    assert!(!out.stderr.contains(&0x1b) && !out.stderr.contains(&7), "{out}");
    let body = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no \\u001b[31mred\\u0007\"}]}";
    let server = Server::start(move |_| Response::status(403, &["Content-Type: application/json"], body));
    let out = pronto.run(["pull", &format!("{}/x/y:z", server.host())]).exits(1);
    assert!(!out.stderr.contains(&0x1b) && !out.stderr.contains(&7), "{out}");
}
