//! The house of the tests itself: trees, programs, layouts, registry, terminal. What a newcomer would get wrong: these do not
//! try pronto; they show that what the other tests stand on holds, so that a failure there is pronto's.

use std::time::Duration;

use crate::common::elf::{Cpu, program};
use crate::common::fixtures::{self, Interpreter};
use crate::common::harness::cases;
use crate::common::http::{Response, Server};
use crate::common::oci::{Codec, Image, Layout};
use crate::common::pronto::{registry, scratch};
use crate::common::pty::Pty;
use crate::common::run::{Run, command};
use crate::common::snapshot::Snapshot;
use crate::common::{read, secs};

cases! {
    Together: hand_made_programs_run, a_terminal_is_driven, a_layout_goes_through_the_registry, a_download_breaks_off_and_goes_on,
              trees_are_what_they_say;
    Alone: a_leak_is_seen;
}

fn hand_made_programs_run() {
    let _interpreter = Interpreter::needed();
    let dir = scratch("programs");
    for cpu in [Cpu::Arm64, Cpu::Amd64] {
        let path = dir.join(format!("{cpu:?}"));
        ::pronto::sys::fs::write_volatile(&path, &program(cpu, b"hello from afar\n", 7), 0o755).unwrap();
        Run::new(&path).run().exits(7).prints("hello from afar");
    }
}

fn a_terminal_is_driven() {
    let script = "trap 'stty size; exit 3' WINCH; stty size; read word; echo got $word; while :; do sleep 0.1; done";
    let mut pty = Pty::start(Run::new("bash").args(["-c", script]), 24, 80);
    pty.expect("24 80", secs(10));
    pty.send("word\r");
    pty.expect("got word", secs(10));
    pty.resize(50, 100);
    pty.expect("50 100", secs(10));
    assert_eq!(pty.wait(secs(10)), 3);
}

fn a_layout_goes_through_the_registry() {
    let dir = scratch("layout");
    let files = dir.join("files");
    std::fs::create_dir(&files).unwrap();
    ::pronto::sys::fs::write_volatile(&files.join("hello"), &program(Cpu::Arm64, b"hi\n", 0), 0o755).unwrap();
    let tar = dir.join("hello.tar");
    Run::new("tar").arg("-C").arg(&files).arg("-cf").arg(&tar).arg(".").run().ok();
    let images =
        [("arm64", Codec::Zstd), ("amd64", Codec::Gzip)].map(|(arch, c)| Image::new(arch, &[&tar], c, &["/hello"]));
    let mut layout = Layout::new(&dir.join("oci"));
    let digest = layout.index("both", &images);
    registry().push(&dir.join("oci"), "both", "house/hello:both");
    let flags = ["inspect", "--raw", "--tls-verify=false"];
    let raw =
        Run::new("skopeo").args(flags).arg(format!("docker://{}", registry().image("house/hello:both"))).run().ok();
    let found = ring::digest::digest(&ring::digest::SHA256, &raw.stdout);
    assert_eq!(
        format!("sha256:{}", crate::common::oci::hex(found.as_ref())),
        digest,
        "the index arrives as it was written"
    );
    let layer = layout_layer(&dir.join("oci"));
    assert!(registry().blob(&layer).exists(), "the test knows where the registry keeps {layer}");
    let before = registry().blob_gets("house/hello");
    let to = format!("dir:{}", dir.join("pulled").display());
    let from = format!("docker://{}", registry().image("house/hello:both"));
    let flags = ["--insecure-policy", "copy", "-q", "--override-arch", "arm64", "--src-tls-verify=false"];
    Run::new("skopeo").args(flags).args([from, to]).run().ok();
    assert_eq!(registry().blob_gets("house/hello") - before, 2, "one config and one layer: {}", registry().log());
}

fn layout_layer(dir: &std::path::Path) -> String {
    let blobs = std::fs::read_dir(dir.join("blobs/sha256")).unwrap().flatten();
    let names = blobs.filter(|b| std::fs::read(b.path()).unwrap().starts_with(&[0x1f, 0x8b]));
    names.map(|b| format!("sha256:{}", b.file_name().to_string_lossy())).next().expect("a gzip layer")
}

fn a_download_breaks_off_and_goes_on() {
    let body: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let whole = body.clone();
    let server = Server::start(move |request| {
        let cut = request.from.is_none().then_some(1000);
        Response { cut, ..Response::ok(body.clone()) }
    });
    let out = scratch("download").join("file");
    let fetch =
        |resume: &[&str]| Run::new("curl").args(["-sS", "-o"]).arg(&out).args(resume).arg(server.url("x")).run();
    fetch(&[]).exits(18);
    assert_eq!(std::fs::metadata(&out).unwrap().len(), 1000);
    fetch(&["-C", "-"]).ok();
    assert_eq!(std::fs::read(&out).unwrap(), whole);
    assert_eq!(server.requests().iter().map(|r| r.from).collect::<Vec<_>>(), [None, Some(1000)]);
}

fn trees_are_what_they_say() {
    for recipe in fixtures::ALL {
        let tree = recipe.tree();
        assert!(read(tree.join("etc/os-release")).contains(recipe.suite), "{recipe:?}");
        assert_eq!(
            tree.join("usr/lib/systemd/systemd").exists() || tree.join("lib/systemd/systemd").exists(),
            recipe.init
        );
        let machine = &std::fs::read(tree.join("usr/bin/env")).unwrap()[18..20];
        let want = match recipe.arch {
            "arm64" => [183, 0],
            "armhf" => [40, 0],
            "s390x" => [0, 22],
            _ => [62, 0],
        };
        assert_eq!(machine, want, "{recipe:?}");
        assert!(read(tree.join("etc/passwd")).contains("\ntester:x:1000:"), "{recipe:?}");
        assert!(recipe.tar().exists());
    }
}

/// The picture shows a mount, a guest's process and a cgroup, and forgets them when they are gone.
fn a_leak_is_seen() {
    let before = Snapshot::take();
    let dir = scratch("mount");
    Run::new("mount").args(["-t", "tmpfs", "leak"]).arg(&dir).run().ok();
    let mut guest = command("unshare").args(["--pid", "--fork", "--kill-child", "sleep", "300"]).spawn().unwrap();
    std::thread::sleep(secs(1));
    let seen = before.difference(Duration::ZERO).expect("a difference");
    Run::new("umount").arg(&dir).run().ok();
    guest.kill().unwrap();
    guest.wait().unwrap();
    assert!(seen.contains(&dir.display().to_string()) && seen.contains("sleep 300"), "{seen}");
    assert_eq!(before.same_again(secs(5)), None);
}
