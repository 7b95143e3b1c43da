//! Options and keys as one request.

use std::ffi::OsString;

use super::*;
use crate::cli::front::Globals;
use crate::cli::progress::Talk;
use crate::domain::Quiet;
use crate::domain::xlcfg::BackendChoice;

/// A front whose administrator said what `toml` says.
fn front(toml: &str) -> (tempfile::TempDir, Front) {
    let dir = tempfile::tempdir().unwrap();
    crate::sys::fs::write_volatile(&dir.path().join("pronto.toml"), toml.as_bytes(), 0o644).unwrap();
    let globals = Globals { root: Some(dir.path().into()), quiet: true, ..Globals::default() };
    (dir, Front { globals, talk: Talk::new(true) })
}

fn asked(
    name: Option<&str>,
    options: GuestOptions,
    machine: MachineOptions,
    words: &[&str],
    front: &Front,
) -> Result<Create, Failure> {
    let words = gather::gather("create", None, words.iter().map(OsString::from).collect(), &Quiet)?;
    request("create", &words, name.map(str::to_owned), options, machine, front)
}

fn failure(options: GuestOptions, machine: MachineOptions, words: &[&str]) -> (String, u8) {
    let failure = asked(None, options, machine, words, &front("").1).unwrap_err();
    (failure.lines().join("\n"), failure.code(false))
}

fn qemu() -> MachineOptions {
    MachineOptions { backend: Some(BackendChoice::Qemu), ..MachineOptions::default() }
}

#[test]
fn what_is_said_wins_over_what_holds_for_all() {
    let (_dir, front) = front("[accel]\nmode = 'build'\nexclude = ['git']\n");
    let made = |options: GuestOptions, machine: MachineOptions, words: &[&str]| {
        let what = asked(None, options, machine, words, &front).unwrap();
        (what.spec.accel, what.spec.accel_exclude, what.accel_asked)
    };
    let (none, git) = (GuestOptions::default, vec!["git".to_owned()]);
    let shared = MachineOptions::default;
    assert_eq!(made(none(), shared(), &["x/y"]), (Accel::Build, git.clone(), Asked::default()));
    let off = GuestOptions { accel: Some(Accelerator::Native(Accel::Off)), ..none() };
    assert_eq!(made(off, shared(), &["x/y"]), (Accel::Off, git, Asked { mode: true, exclude: false }));
    let words = ["x/y", "accel=tools", "accel_exclude=sed"];
    assert_eq!(made(none(), shared(), &words), (Accel::Tools, vec!["sed".into()], Asked { mode: true, exclude: true }));
    assert_eq!(made(none(), qemu(), &["x/y"]), (Accel::Off, vec![], Asked::default()), "no program of it is native");
}

#[test]
fn options_and_keys_may_agree_but_not_differ() {
    let (_dir, front) = front("");
    let with = |name: Option<&str>, words: &[&str]| {
        let options = GuestOptions { arch: Some("arm64".into()), ..GuestOptions::default() };
        asked(name, options, MachineOptions::default(), words, &front)
    };
    let made = with(Some("a"), &["name=a", "./tree", "arch=arm64", "memory=64", "maxmem=64"]).unwrap();
    assert_eq!(made.name.unwrap().as_str(), "a");
    assert_eq!((made.spec.image.as_str(), made.spec.arch.as_deref()), ("./tree", Some("arm64")));
    for bad in [["./tree", "name=b"], ["./tree", "arch=amd64"], ["./tree", "image=./other"]] {
        assert!(with(Some("a"), &bad).is_err(), "{bad:?}");
    }
    assert!(with(None, &["x/y", "memory=64", "maxmem=63"]).is_err());
    assert!(with(Some("12"), &["x/y"]).is_err());
    assert_eq!(with(None, &["image=x/y"]).unwrap().spec.image, "x/y");
}

#[test]
fn an_option_overrules_a_file() {
    let (dir, front) = front("");
    let file = dir.path().join("web.cfg");
    let text = b"name = 'a'\nimage = 'x/y'\nextra = 'quiet'\nkernel = 'k'\ndisk = [ '/a,raw,xvdb' ]\n";
    crate::sys::fs::write_volatile(&file, text, 0o644).unwrap();
    let file = file.to_str().unwrap();
    let machine = MachineOptions {
        cmdline: Some("debug".into()),
        disks: vec!["/b,raw,xvdc".into()],
        ..MachineOptions::default()
    };
    let made = asked(Some("b"), GuestOptions::default(), machine.clone(), &[file, "z/z"], &front).unwrap();
    assert_eq!(made.name.unwrap().as_str(), "b");
    assert_eq!((made.spec.image.as_str(), made.spec.backend), ("z/z", Backend::Qemu));
    assert_eq!(made.spec.full.cmdline.as_deref(), Some("debug"));
    assert_eq!(made.spec.full.disks, ["/a,raw,xvdb", "/b,raw,xvdc"], "options add to the list");
    assert_eq!(made.spec.full.kernel.unwrap(), std::env::current_dir().unwrap().join("k"));
    let clash = asked(None, GuestOptions::default(), machine, &[file, "extra=ro"], &front).unwrap_err();
    assert_eq!(clash.lines(), ["pronto: --cmdline and extra= say different things: give one of them"]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let none = GuestOptions::default;
    let shared = MachineOptions::default;
    let accel = |accel| GuestOptions { accel: Some(accel), ..none() };
    let port = || vec![crate::cli::choices::publish("80:80").unwrap()];
    let cases: Vec<(GuestOptions, MachineOptions, &[&str], &str)> = vec![
        (accel(Accelerator::Kvm), shared(), &["a/b"], "--accel: kvm and tcg are for guests with a kernel of their own"),
        (
            none(),
            shared(),
            &["a/b", "accel=tcg"],
            "'accel=tcg': accel: kvm and tcg are for guests with a kernel of their own",
        ),
        (accel(Accelerator::Native(Accel::Build)), qemu(), &["a/b"], "--accel: 'build' is for guests that share"),
        (none(), MachineOptions { publish: port(), ..shared() }, &["a/b"], "--publish needs a guest with a kernel of"),
        (none(), MachineOptions { cmdline: Some("x".into()), ..shared() }, &["a/b"], "--cmdline needs a guest with a"),
        (
            GuestOptions { env: vec![("A".into(), None)], ..none() },
            qemu(),
            &["a/b"],
            "--env needs a guest that shares this host's kernel",
        ),
        (
            none(),
            MachineOptions { publish: port(), ..qemu() },
            &["a/b", "network=none"],
            "--publish: with --network none",
        ),
        (none(), MachineOptions { publish: port(), ..qemu() }, &["a/b", "vif=['bridge=x']"], "--publish: a guest on a"),
        (
            none(),
            qemu(),
            &["a/b", "disk=['/a,raw,xvda']"],
            "'disk=['/a,raw,xvda']': disk: the disk xvda is made from the image",
        ),
        (
            none(),
            MachineOptions { disks: vec!["/a,qed,xvdb".into()], ..shared() },
            &["a/b"],
            "--disk: a disk of the format qed",
        ),
        (none(), MachineOptions { vifs: vec!["mac=a".into()], ..shared() }, &["a/b"], "--vif: "),
    ];
    for (options, machine, words, want) in cases {
        let (said, code) = failure(options, machine, words);
        assert!(said.starts_with(&format!("pronto: {want}")) && code == 2, "{words:?}: {said} ({code})");
    }
}

#[test]
fn without_an_image() {
    let none = || (GuestOptions::default(), MachineOptions::default());
    let (said, code) = failure(none().0, none().1, &["name=x"]);
    assert_eq!((said.as_str(), code), ("Image not specified: pronto create IMAGE [key=value …]", 6));
    let (_dir, front) = front("");
    let made = asked(None, none().0, none().1, &["name=x", "disk=['/a,raw,xvda']"], &front).unwrap();
    assert_eq!((made.spec.image.as_str(), made.spec.backend), ("", Backend::Qemu));
}

#[test]
fn one_command_shares_the_kernel() {
    let (_dir, mut front) = front("");
    let made = one_command("a/b".as_ref(), None, GuestOptions::default(), &front).unwrap();
    assert_eq!((made.spec.backend, made.spec.image.as_str()), (Backend::Nspawn, "a/b"));
    front.globals.called = Some(BackendChoice::Hexagon);
    let failure = one_command("a/b".as_ref(), None, GuestOptions::default(), &front).unwrap_err();
    assert!(failure.code(true) == 125 && failure.lines()[0].contains("shares this host's kernel"));
    let tcg = GuestOptions { accel: Some(Accelerator::Tcg), ..GuestOptions::default() };
    front.globals.called = Some(BackendChoice::Kaxon);
    assert!(one_command("a/b".as_ref(), None, tcg, &front).is_err());
}
