//! The registry for real: entries are registered, files are run, systemd-binfmt is run whole. Each test does so in a *private*
//! registry: a user namespace with a binfmt_misc of its own (Linux 6.7 and newer), so that the host's entries are neither
//! changed nor seen. What a newcomer would get wrong: in such a namespace the host's registry is still there to be written to
//! until ours is mounted over it, so that is the first thing done, and checked.

#![allow(missing_docs, reason = "a test program")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use pronto::arch::{Profile, Profiles};
use pronto::binfmt::{Entry, Error, Host, Pinned, Registry, ident};
use pronto::domain::Quiet;
use pronto::ops::registry::{self, Found};
use pronto::ops::{Ctx, inspect::Facts};
use pronto::store::Store;
use pronto::sys::fs::write_atomic;
use pronto::sys::host::{Runner, who_runs};
use pronto::sys::process::Tool;

/// Names the test that shall run inside; set when this program starts itself there.
const INSIDE: &str = "PRONTO_TEST_PRIVATE_REGISTRY";
/// Makes the test `worker` one of twenty processes.
const WORKER: &str = "PRONTO_TEST_WORKER";
/// Before everything else on PATH inside.
const BIN: &str = "/run/q/bin";
const SYSTEMD_BINFMT: &str = "/usr/lib/systemd/systemd-binfmt";

/// As in Debian's package qemu-user-binfmt, but for the name of the directory.
const DEBIANS: &str = r":qemu-aarch64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64:OPF";

/// The inside of a test.
struct Bench {
    host: Host,
    arm64: Profile,
}

/// Runs `inside` in a private registry, in a process of its own; says so where the host cannot.
fn privately(test: &str, inside: fn(&Bench)) {
    if std::env::var(INSIDE).is_ok_and(|name| name == test) {
        inside(&Bench::new());
        return;
    }
    if let Some(why) = cannot() {
        let _ = writeln!(std::io::stderr(), "skipped {test}: {why}");
        return;
    }
    let path = format!("{BIN}:{}", std::env::var("PATH").unwrap_or_default());
    let own = std::env::current_exe().unwrap();
    let tool = Tool::new("unshare").args(["--user", "--map-root-user", "--mount", "--"]).arg(own);
    let output = tool.args(["--exact", test, "--nocapture"]).env(INSIDE, test).env("PATH", path).output();
    let output = String::from_utf8_lossy(&output.unwrap_or_else(|e| panic!("{e}"))).into_owned();
    assert!(output.contains("1 passed"), "{output}");
}

/// Why a private registry of arm64 programs is impossible here.
fn cannot() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if !Path::new("/usr/bin/qemu-aarch64").exists() {
        return Some("qemu-user is not installed".to_owned());
    }
    if std::env::consts::ARCH == "aarch64" {
        return Some("this host runs arm64 itself".to_owned());
    }
    let try_it =
        ["--user", "--map-root-user", "--mount", "--", "mount", "-t", "binfmt_misc", "x", "/proc/sys/fs/binfmt_misc"];
    let tried = Tool::new("unshare").args(try_it).output();
    tried.err().map(|e| format!("no private registry (Linux 6.7 and newer have them): {e}"))
}

impl Bench {
    fn new() -> Bench {
        let registry = Registry::system();
        mount(Some("private"), registry.dir(), Some("binfmt_misc"), MsFlags::empty(), None::<&str>).unwrap();
        assert!(registry.entries().unwrap().is_empty(), "this is not a registry of our own");
        for dir in ["/run", "/etc", "/usr/lib/binfmt.d"] {
            if Path::new(dir).is_dir() {
                mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            }
        }
        std::fs::create_dir_all(BIN).unwrap();
        let host = Host {
            registry,
            conf_dir: PathBuf::from("/etc/binfmt.d"),
            boot_dir: None,
            systemd_binfmt: Some(PathBuf::from(SYSTEMD_BINFMT)).filter(|p| p.exists()),
            cache: Some(PathBuf::from("/run/q/interpreters.json")),
            copies: Some(PathBuf::from("/run/q/registered")),
            profiles: Profiles::embedded(),
        };
        let arm64 = host.profiles.find("arm64").unwrap().clone();
        Bench { host, arm64 }
    }

    fn registry(&self) -> &Registry {
        &self.host.registry
    }

    /// Which entry wins, by what pronto reads.
    fn winner(&self) -> Option<String> {
        self.registry().winner(&ident(&self.arm64)).unwrap().map(|w| w.entry.name)
    }

    fn command(&self, entry: &str, word: &[u8]) {
        let path = self.registry().dir().join(entry);
        std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all(word).unwrap();
    }
}

/// A copy of the interpreter, so that it can be told from others.
fn copy_of_qemu(path: &str) {
    let copy = format!("{path}.copy");
    std::fs::copy("/usr/bin/qemu-aarch64", &copy).unwrap();
    std::fs::rename(copy, path).unwrap();
}

fn entry(name: &str, interpreter: &str) -> Entry {
    let text = DEBIANS.replace(":qemu-aarch64:", &format!(":{name}:"));
    Entry::parse(&text.replace("/usr/bin/qemu-aarch64", interpreter)).unwrap()
}

/// An arm64 program that reads a byte and exits with 42. `mark` are its bytes 8 to 10.
fn program(mark: &[u8; 3]) -> Vec<u8> {
    let code: [u32; 8] = [
        0xd280_0000, // mov x0, #0
        0x9100_03e1, // mov x1, sp
        0xd280_0022, // mov x2, #1
        0xd280_07e8, // mov x8, #63 (read)
        0xd400_0001, // svc #0
        0xd280_0540, // mov x0, #42
        0xd280_0ba8, // mov x8, #93 (exit)
        0xd400_0001, // svc #0
    ];
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    file.extend(mark);
    file.extend([0; 5]);
    file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    for word in [0x40_0078u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, 0x40_0000, 0x40_0000, 120 + 32, 120 + 32, 0x1000u64] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code.iter().flat_map(|w| w.to_le_bytes()));
    file
}

/// The interpreter that the kernel really takes, as /proc names it.
fn really_runs(mark: &[u8; 3]) -> Option<String> {
    match who_runs(&program(mark), 42).unwrap() {
        Runner::Interpreter(path) => Some(path.expect("it waits, so it can be seen").to_string_lossy().into_owned()),
        Runner::Nobody => None,
        Runner::Host => panic!("this host runs arm64 itself"),
    }
}

const PLAIN: &[u8; 3] = b"\0\0\0";
const APPIMAGE: &[u8; 3] = b"AI\x02";

#[test]
fn the_newest_enabled_entry_wins() {
    privately("the_newest_enabled_entry_wins", |bench| {
        let registry = bench.registry();
        assert_eq!((bench.winner(), really_runs(PLAIN)), (None, None));
        for (name, file) in [("zz", "/run/q/1"), ("aa", "/run/q/2"), ("mm", "/run/q/3")] {
            copy_of_qemu(file);
            registry.add(&entry(name, file)).unwrap();
            assert_eq!((bench.winner().as_deref(), really_runs(PLAIN).as_deref()), (Some(name), Some(file)));
        }
        let expect = |name: &str, file: &str| {
            assert_eq!((bench.winner().as_deref(), really_runs(PLAIN).as_deref()), (Some(name), Some(file)));
        };
        bench.command("mm", b"0");
        expect("aa", "/run/q/2");
        bench.command("zz", b"0");
        bench.command("zz", b"1");
        bench.command("mm", b"1");
        expect("mm", "/run/q/3");
        bench.command("status", b"0");
        assert_eq!((bench.winner(), really_runs(PLAIN)), (None, None));
        bench.command("status", b"1");
        registry.remove("mm").unwrap();
        registry.remove("mm").unwrap();
        expect("aa", "/run/q/2");
        registry.replace(&entry("zz", "/run/q/1")).unwrap();
        expect("zz", "/run/q/1");
        let names: Vec<_> = registry.entries().unwrap().into_iter().map(|r| r.entry.name).collect();
        assert_eq!(names, ["zz", "aa"], "no twin is left");
    });
}

/// A copy that looks for native programs serves everybody; who wants one gets one, and it is not taken from others.
#[test]
fn one_that_looks_for_native_programs_stays() {
    privately("one_that_looks_for_native_programs_stays", |bench| {
        let qemu = format!("{BIN}/qemu-aarch64");
        copy_of_qemu(&qemu);
        let ensure = |native| bench.host.ensure(&bench.arm64, true, native).unwrap();
        assert!(!ensure(false).native);
        let first = ensure(true);
        assert!(first.native && first.registered_now);
        assert_eq!(first.interpreter.to_str(), Some(qemu.as_str()), "it is told by the name of what it was made of");
        let copy = bench.registry().read("pronto-arm64").unwrap().entry.interpreter;
        assert!(copy.starts_with("/run/q/registered"), "{}", copy.display());
        assert_eq!(really_runs(PLAIN), copy.to_str().map(str::to_owned));
        for native in [true, false] {
            std::thread::sleep(Duration::from_millis(50));
            assert!(!ensure(native).registered_now, "nothing is left to do");
        }
        let row = bench.host.status(&bench.arm64).unwrap();
        assert!(row.ours && row.version.is_some() && row.problems.is_empty(), "{row:?}");
        // Another store's is as good.
        let other = Host { copies: Some(PathBuf::from("/run/q/other")), ..bench.host.clone() };
        assert!(!other.ensure(&bench.arm64, true, true).unwrap().registered_now);
        // A cache may be emptied, an interpreter upgraded.
        std::fs::remove_dir_all("/run/q/registered").unwrap();
        assert!(ensure(true).registered_now);
        std::thread::sleep(Duration::from_millis(50));
        copy_of_qemu(&qemu);
        assert!(ensure(true).registered_now);
        let now = bench.registry().read("pronto-arm64").unwrap().entry.interpreter;
        assert_ne!(now, copy);
        assert_eq!(std::fs::read_dir("/run/q/registered").unwrap().count(), 1, "the old one is gone");
        // Who registers by name, for good, gets the interpreter itself.
        assert!(bench.host.register(&bench.arm64, true).unwrap().changed);
        assert_eq!(really_runs(PLAIN), Some(qemu));
    });
}

#[test]
fn ensure_changes_only_what_it_must() {
    privately("ensure_changes_only_what_it_must", |bench| {
        let qemu = format!("{BIN}/qemu-aarch64");
        bench.registry().add(&Entry::parse(DEBIANS).unwrap()).unwrap();
        assert_eq!(really_runs(APPIMAGE), None, "the distribution's mask leaves AppImages out");
        copy_of_qemu(&qemu);
        let first = bench.host.ensure(&bench.arm64, true, false).unwrap();
        assert!(first.registered_now && first.credentials);
        assert_eq!((first.interpreter.to_str(), first.entry.as_str()), (Some(qemu.as_str()), "pronto-arm64"));
        assert_eq!(bench.registry().read("pronto-arm64").unwrap().entry.flags.to_string(), "POCF");
        assert_eq!(really_runs(PLAIN).as_ref(), Some(&qemu));
        assert_eq!(really_runs(APPIMAGE).as_ref(), Some(&qemu));
        assert!(!bench.host.ensure(&bench.arm64, true, false).unwrap().registered_now);

        let row = bench.host.status(&bench.arm64).unwrap();
        assert!(row.ours && row.setuid && !row.durable && row.problems.is_empty(), "{row:?}");
        assert_eq!((row.native, row.pinned), (Some(false), Some(Pinned::Same)));
        let version = first.version;
        assert_eq!(row.version, Some(format!("{}.{}.{}", version.0, version.1, version.2)));

        // A new file at its path: the kernel still runs the old one, which is told, and cured by the next ensure.
        std::thread::sleep(Duration::from_millis(50));
        copy_of_qemu(&qemu);
        assert_eq!(really_runs(PLAIN), Some(format!("{qemu} (deleted)")));
        let row = bench.host.status(&bench.arm64).unwrap();
        assert_eq!((row.pinned, row.problems.len()), (Some(Pinned::Changed), 1), "{row:?}");
        std::thread::sleep(Duration::from_millis(50));
        assert!(bench.host.ensure(&bench.arm64, true, false).unwrap().registered_now);
        assert_eq!(really_runs(PLAIN), Some(qemu.clone()));

        // Without credentials, and disabled, and covered by a newer entry.
        assert!(bench.host.ensure(&bench.arm64, false, false).unwrap().registered_now);
        assert_eq!(bench.registry().read("pronto-arm64").unwrap().entry.flags.to_string(), "POF");
        bench.command("pronto-arm64", b"0");
        assert!(bench.host.ensure(&bench.arm64, false, false).unwrap().registered_now);
        copy_of_qemu("/run/q/newer");
        bench.registry().add(&entry("newer", "/run/q/newer")).unwrap();
        assert_eq!(bench.winner().as_deref(), Some("newer"));
        assert!(bench.host.ensure(&bench.arm64, false, false).unwrap().registered_now);
        assert_eq!(really_runs(PLAIN), Some(qemu));
        assert!(bench.host.unregister(&bench.arm64).unwrap().changed);
        assert!(!bench.host.unregister(&bench.arm64).unwrap().changed);
        let names: Vec<_> = bench.registry().entries().unwrap().into_iter().map(|r| r.entry.name).collect();
        assert_eq!(names, ["newer", "qemu-aarch64"], "others' entries stay");
    });
}

#[test]
fn a_distributions_entry_is_described() {
    privately("a_distributions_entry_is_described", |bench| {
        let row = bench.host.status(&bench.arm64).unwrap();
        assert_eq!(row.entry, None);
        assert_eq!(row.problems[0].text, "not registered on this host");
        bench.registry().add(&Entry::parse(DEBIANS).unwrap()).unwrap();
        let row = bench.host.status(&bench.arm64).unwrap();
        assert!(!row.ours && !row.setuid && row.entry.as_deref() == Some("qemu-aarch64"));
        assert_eq!(row.flags.as_deref(), Some("POF"));
        let told = format!("{:?}", row.problems);
        assert!(told.contains("without flag C") && told.contains("AppImages"), "{told}");
        bench.command("qemu-aarch64", b"0");
        let told = format!("{:?}", bench.host.status(&bench.arm64).unwrap().problems);
        assert!(told.contains("entry qemu-aarch64 is disabled"), "{told}");
        bench.command("status", b"0");
        let told = format!("{:?}", bench.host.status(&bench.arm64).unwrap().problems);
        assert!(told.contains("disabled as a whole"), "{told}");
        let error = bench.host.ensure(&bench.arm64, true, false).unwrap_err();
        assert!(matches!(error, Error::NotInForce { .. }), "{error}");
        assert!(bench.registry().read("pronto-arm64").is_none(), "a failed ensure leaves nothing");
    });
}

#[test]
fn a_whole_run_of_systemd_binfmt_leaves_ours_in_force() {
    privately("a_whole_run_of_systemd_binfmt_leaves_ours_in_force", |bench| {
        if bench.host.systemd_binfmt.is_none() {
            let _ = writeln!(std::io::stderr(), "skipped: {SYSTEMD_BINFMT} is not installed");
            return;
        }
        let qemu = format!("{BIN}/qemu-aarch64");
        copy_of_qemu(&qemu);
        write_atomic(Path::new("/usr/lib/binfmt.d/qemu-aarch64.conf"), DEBIANS.as_bytes(), 0o644).unwrap();
        bench.registry().add(&entry("somebodys", "/usr/bin/qemu-aarch64")).unwrap();
        let made = bench.host.register(&bench.arm64, true).unwrap();
        assert!(made.changed);
        assert_eq!(made.file, Path::new("/etc/binfmt.d/zz-pronto-arm64.conf"));
        assert!(bench.registry().read("somebodys").is_some(), "our file alone was applied");
        assert!(!bench.host.register(&bench.arm64, true).unwrap().changed);
        assert!(bench.host.status(&bench.arm64).unwrap().durable);

        Tool::new(SYSTEMD_BINFMT).output().unwrap();
        let names: Vec<_> = bench.registry().entries().unwrap().into_iter().map(|r| r.entry.name).collect();
        assert_eq!(names, ["pronto-arm64", "qemu-aarch64"], "it flushed and applied all files");
        assert_eq!(really_runs(PLAIN).as_ref(), Some(&qemu));
        assert!(!bench.host.ensure(&bench.arm64, true, false).unwrap().registered_now, "nothing is left to do");

        // The proof that the name matters: under one that sorts before qemu-*, ours would lose.
        std::fs::rename(&made.file, "/etc/binfmt.d/pronto-arm64.conf").unwrap();
        Tool::new(SYSTEMD_BINFMT).output().unwrap();
        assert_eq!(really_runs(PLAIN).as_deref(), Some("/usr/bin/qemu-aarch64"));
        std::fs::rename("/etc/binfmt.d/pronto-arm64.conf", &made.file).unwrap();

        // A flush by others is told by status, and ensure mends it.
        Tool::new(SYSTEMD_BINFMT).arg("--unregister").output().unwrap();
        let told = format!("{:?}", bench.host.status(&bench.arm64).unwrap().problems);
        assert!(told.contains("is not in force"), "{told}");
        assert!(bench.host.ensure(&bench.arm64, true, false).unwrap().registered_now);

        assert!(bench.host.unregister(&bench.arm64).unwrap().changed);
        assert!(!made.file.exists() && bench.winner().is_none());
    });
}

#[test]
fn what_fails_leaves_everything_as_it_was() {
    privately("what_fails_leaves_everything_as_it_was", |bench| {
        let qemu = format!("{BIN}/qemu-aarch64");
        copy_of_qemu(&qemu);
        let broken = Host { systemd_binfmt: Some(PathBuf::from("/bin/false")), ..bench.host.clone() };
        assert!(matches!(broken.register(&bench.arm64, true), Err(Error::Tool(_))));
        assert!(bench.registry().entries().unwrap().is_empty());
        let file = bench.host.conf_file(&bench.arm64);
        assert!(!file.exists());

        // A program that says yes and does nothing: the kernel is told directly.
        let idle = Host { systemd_binfmt: Some(PathBuf::from("/bin/true")), ..bench.host.clone() };
        assert!(idle.register(&bench.arm64, false).unwrap().changed);
        assert_eq!(really_runs(PLAIN), Some(qemu));
        let text = std::fs::read(&file).unwrap();
        let before = bench.registry().read("pronto-arm64").unwrap().entry;
        assert!(broken.register(&bench.arm64, true).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), text);
        assert_eq!(bench.registry().read("pronto-arm64").unwrap().entry, before);
        // The administrator said no to credentials for good: a create does not overrule it.
        assert!(!bench.host.ensure(&bench.arm64, true, false).unwrap().credentials);
        bench.host.unregister(&bench.arm64).unwrap();

        // A registry that was not mounted is not mounted after a failure.
        std::fs::create_dir("/run/q/registry").unwrap();
        let registry = Registry::at(Path::new("/run/q/registry"));
        let elsewhere = Host { registry: registry.clone(), ..broken.clone() };
        assert!(elsewhere.register(&bench.arm64, true).is_err());
        assert!(!registry.is_mounted());
        let elsewhere = Host { systemd_binfmt: None, ..elsewhere };
        assert!(elsewhere.ensure(&bench.arm64, true, false).unwrap().registered_now);
        assert!(registry.is_mounted() && bench.winner().as_deref() == Some("pronto-arm64"));
    });
}

#[test]
fn what_is_for_this_boot_outlives_a_run_of_systemd_binfmt() {
    privately("what_is_for_this_boot_outlives_a_run_of_systemd_binfmt", |bench| {
        if bench.host.systemd_binfmt.is_none() {
            let _ = writeln!(std::io::stderr(), "skipped: {SYSTEMD_BINFMT} is not installed");
            return;
        }
        let qemu = format!("{BIN}/qemu-aarch64");
        copy_of_qemu(&qemu);
        let host = Host { boot_dir: Some(PathBuf::from("/run/binfmt.d")), ..bench.host.clone() };
        host.ensure(&bench.arm64, true, false).unwrap();
        Tool::new(SYSTEMD_BINFMT).output().unwrap();
        assert_eq!(really_runs(PLAIN), Some(qemu));
        assert!(!host.status(&bench.arm64).unwrap().durable, "it is for this boot only");
        assert!(!host.ensure(&bench.arm64, true, false).unwrap().registered_now, "nothing is left to do");
        // An administrator's durable file has the same name, and so it wins.
        host.register(&bench.arm64, false).unwrap();
        Tool::new(SYSTEMD_BINFMT).output().unwrap();
        assert_eq!(bench.registry().read("pronto-arm64").unwrap().entry.flags.to_string(), "POF");
        host.unregister(&bench.arm64).unwrap();
        Tool::new(SYSTEMD_BINFMT).output().unwrap();
        assert!(bench.registry().entries().unwrap().is_empty(), "both files are gone");
    });
}

#[test]
fn an_unfit_interpreter_is_named_with_its_fault() {
    privately("an_unfit_interpreter_is_named_with_its_fault", |bench| {
        let text = include_str!("../arch-profiles/arm64.toml");
        let start = text.find("programs = [").unwrap();
        let end = start + text[start..].find(']').unwrap();
        let text = format!("{}programs = [\"qemu-strange\"{}", &text[..start], &text[end..]);
        let profiles = Profiles::with_overrides(&[("arm64.toml", text)]).unwrap();
        let arm64 = profiles.find("arm64").unwrap();
        let strange = PathBuf::from(BIN).join("qemu-strange");
        let fault = || {
            let error = bench.host.ensure(arm64, true, false).unwrap_err();
            assert_eq!(error.package(), Some("qemu-user"));
            error.to_string()
        };
        assert_eq!(fault(), "no interpreter for arm64 programs is installed (looked for qemu-strange)");
        let dynamic = std::fs::read("/bin/true").unwrap();
        let cases: [(&[u8], u32, &str); 4] = [
            (b"#!/bin/sh\necho qemu-aarch64 version 99.0.0\n", 0o755, "is not an ELF file"),
            (&dynamic, 0o755, "is not static (it needs "),
            (&program(PLAIN), 0o755, "is a program for arm64, not for this host"),
            (&dynamic, 0o775, "can be changed by others than root"),
        ];
        for (bytes, mode, why) in cases {
            write_atomic(&strange, bytes, 0o755).unwrap();
            std::fs::set_permissions(&strange, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            let told = fault();
            assert!(told.contains(why) && told.contains("qemu-strange"), "{told}");
        }
        assert!(bench.registry().entries().unwrap().is_empty());
        for profile in &bench.host.profiles {
            if pronto::binfmt::runs_itself(profile).unwrap() {
                assert!(matches!(bench.host.ensure(profile, true, false), Err(Error::Native(_))), "{}", profile.name);
                assert!(matches!(bench.host.register(profile, true), Err(Error::Native(_))), "{}", profile.name);
            }
        }
        assert!(bench.registry().entries().unwrap().is_empty());
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn an_entry_for_what_the_host_runs_itself_does_not_fool_the_probe() {
    privately("an_entry_for_what_the_host_runs_itself_does_not_fool_the_probe", |bench| {
        let i386 = bench.host.profiles.find("i386").unwrap();
        let native = pronto::binfmt::runs_itself(i386).unwrap();
        let qemu = Path::new("/usr/bin/qemu-i386");
        if !native || !qemu.exists() {
            let _ =
                writeln!(std::io::stderr(), "skipped: needs qemu-i386 and a kernel that runs i386 (it does: {native})");
            return;
        }
        bench.registry().add(&pronto::binfmt::for_profile(i386, qemu, true)).unwrap();
        assert!(pronto::binfmt::runs_itself(i386).unwrap());
        let told = format!("{:?}", bench.host.status(i386).unwrap().problems);
        assert!(told.contains("puts an emulator before it"), "{told}");
    });
}

#[test]
fn twenty_at_once_register_once() {
    privately("twenty_at_once_register_once", |bench| {
        let qemu = format!("{BIN}/qemu-aarch64");
        for round in 0..3 {
            copy_of_qemu(&qemu);
            std::thread::sleep(Duration::from_millis(50));
            let own = std::env::current_exe().unwrap();
            let start = |_| {
                let mut tool = Tool::new(&own).args(["--exact", "worker", "--nocapture"]).env(WORKER, "1");
                tool.command().stdout(Stdio::piped()).stderr(Stdio::piped());
                tool.spawn().unwrap()
            };
            let children: Vec<_> = (0..20).map(start).collect();
            let outputs: Vec<_> = children.into_iter().map(|c| c.wait_with_output().unwrap()).collect();
            let said: Vec<_> = outputs.iter().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).collect();
            assert!(outputs.iter().all(|o| o.status.success()), "{said:?}");
            let registered = said.iter().filter(|s| s.contains("registered_now=true")).count();
            assert_eq!(registered, 1, "round {round}: {said:?}");
            let names: Vec<_> = bench.registry().entries().unwrap().into_iter().map(|r| r.entry.name).collect();
            assert_eq!(names, ["pronto-arm64"]);
            assert_eq!(really_runs(PLAIN).as_ref(), Some(&qemu));
        }
    });
}

#[test]
fn programs_start_while_the_entry_is_replaced() {
    privately("programs_start_while_the_entry_is_replaced", |bench| {
        let entry = entry("pronto-arm64", "/usr/bin/qemu-aarch64");
        bench.registry().add(&entry).unwrap();
        let stop = AtomicBool::new(false);
        let failed = std::thread::scope(|scope| {
            let replacing = scope.spawn(|| {
                let mut times = 0;
                while !stop.load(Ordering::Relaxed) {
                    bench.registry().replace(&entry).unwrap();
                    times += 1;
                }
                times
            });
            let failed = (0..200).filter(|_| really_runs(PLAIN).is_none()).count();
            stop.store(true, Ordering::Relaxed);
            assert!(replacing.join().unwrap() > 200);
            failed
        });
        assert_eq!(failed, 0, "programs found no interpreter");
    });
}

#[test]
fn several_are_registered_or_none() {
    privately("several_are_registered_or_none", |bench| {
        let store = Store::at(Some(Path::new("/run/q/store")));
        store.open().unwrap();
        let ctx = Ctx { store, root: None, report: Arc::new(Quiet), access: Default::default() };
        let own = pronto::binfmt::host_profile(&bench.host.profiles).unwrap().name.clone();
        let error = registry::register(&ctx, &["arm64".to_owned(), own.clone()], true).unwrap_err();
        assert!(error.to_string().contains(&format!("this host runs {own} programs itself")), "{error}");
        assert!(bench.registry().entries().unwrap().is_empty());
        assert_eq!(std::fs::read_dir("/etc/binfmt.d").unwrap().count(), 0);

        let made =
            registry::register(&ctx, &["armhf".to_owned(), "arm64".to_owned(), "armel".to_owned()], true).unwrap();
        assert_eq!(made.iter().map(|m| m.entry.as_str()).collect::<Vec<_>>(), ["pronto-arm", "pronto-arm64"]);
        assert!(made.iter().all(|m| m.changed));
        let again = registry::register(&ctx, &["armel".to_owned(), "armhf".to_owned()], true).unwrap();
        assert!(again.iter().all(|m| !m.changed), "{again:?}");
        for row in registry::status(&ctx, &[]).unwrap() {
            assert_eq!(row.durable, ["arm64", "armel", "armhf"].contains(&row.arch.as_str()), "{row:?}");
        }
        let gone = registry::unregister(&ctx, &[]).unwrap();
        assert_eq!(gone.iter().filter(|g| g.changed).count(), 2);
        assert!(bench.registry().entries().unwrap().is_empty());
        assert_eq!(std::fs::read_dir("/etc/binfmt.d").unwrap().count(), 0);

        let facts = Facts::default();
        let private = registry::emulator(&ctx, &bench.arm64, &facts, true, true, false).unwrap();
        let Some(Found::Private(_, lines)) = private else { panic!("{private:?}") };
        assert!(lines[0].starts_with(":pronto-arm64:M:") && lines[0].ends_with(":POCF"), "{lines:?}");
        assert!(!bench.registry().entries().unwrap().iter().any(|e| e.entry.name == "pronto-arm64"));
        let found = registry::emulator(&ctx, &bench.arm64, &facts, true, false, false).unwrap();
        let Some(Found::Host(arm64)) = found else { panic!("{found:?}") };
        assert!(arm64.registered_now);
        let own = bench.host.profiles.find(&own).unwrap();
        assert!(registry::emulator(&ctx, own, &facts, true, false, false).unwrap().is_none());
    });
}

/// No test by itself: one of the twenty above.
#[test]
fn worker() {
    if std::env::var_os(WORKER).is_none() {
        return;
    }
    let host = Host { cache: Some(PathBuf::from("/run/q/interpreters.json")), ..Host::system(Path::new("/run/q")) };
    let arm64 = host.profiles.find("arm64").unwrap().clone();
    let emulator = host.ensure(&arm64, true, false).unwrap();
    writeln!(std::io::stdout(), "registered_now={}", emulator.registered_now).unwrap();
}
