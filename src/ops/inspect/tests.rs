//! Trees made of real ELF headers, with links that try to leave. What a newcomer would get wrong: the host's own files must
//! never be read instead of the tree's, also where a link in the tree is absolute.

use std::os::unix::fs::symlink;

use super::*;
use crate::sys::fs::write_atomic;

/// A little-endian program for `machine` that asks for `loader`.
fn program(machine: u16, loader: Option<&str>) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend(3u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for word in [0u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, u16::from(loader.is_some()), 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    if let Some(loader) = loader {
        let size = loader.len() as u64 + 1;
        file.extend(3u32.to_le_bytes());
        file.extend(4u32.to_le_bytes());
        for word in [120, 0, 0, size, size, 1] {
            file.extend(word.to_le_bytes());
        }
        file.extend(loader.as_bytes());
        file.push(0);
    }
    file
}

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Tree {
        Tree(tempfile::tempdir().unwrap())
    }
    fn file(self, path: &str, bytes: &[u8]) -> Tree {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_atomic(&path, bytes, 0o755).unwrap();
        self
    }
    fn link(self, path: &str, target: &str) -> Tree {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }
    fn facts(&self) -> Result<Facts> {
        tree(&Root::open(self.0.path()).unwrap(), &Profiles::embedded())
    }
}

const ARM64: u16 = 183;
const AMD64: u16 = 62;
const LOADER: &str = "/lib/ld-linux-aarch64.so.1";

fn debian() -> Tree {
    Tree::new()
        .file("usr/lib/systemd/systemd", &program(ARM64, Some(LOADER)))
        .file("usr/bin/dash", &program(ARM64, Some(LOADER)))
        .file("usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", &program(ARM64, None))
        .file(
            "usr/lib/aarch64-linux-gnu/libc.so.6",
            &[&program(ARM64, None)[..], b"stable release version 2.36."].concat(),
        )
        .file("usr/lib/aarch64-linux-gnu/systemd/libsystemd-shared-252.so", b"")
        .file("usr/lib/os-release", b"ID=debian\nVERSION_ID=12\n")
        .link("etc/os-release", "../usr/lib/os-release")
        .link("lib", "usr/lib")
        .link("bin", "/usr/bin")
        .link("usr/bin/sh", "dash")
        .link("sbin", "usr/sbin")
        .link("usr/sbin/init", "/lib/systemd/systemd")
        .link("usr/lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu/ld-linux-aarch64.so.1")
}

#[test]
fn a_whole_tree_is_read_through_its_own_links() {
    let facts = debian().facts().unwrap();
    assert_eq!(facts.profile.as_deref(), Some("arm64"));
    assert_eq!(facts.init, Some(Init { path: PathBuf::from("/sbin/init"), kind: InitKind::Systemd }));
    assert_eq!((facts.systemd, facts.glibc), (Some(252), Some((2, 36))));
    assert_eq!(facts.os_release.as_ref().unwrap().id, "debian");
    assert!(facts.has_os && facts.missing_loader.is_none());
    let paths: Vec<&str> = facts.files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, [LOADER, "/sbin/init", "/bin/sh"]);
    let stored = serde_json::to_vec(&facts).unwrap();
    assert_eq!(serde_json::from_slice::<Facts>(&stored).unwrap(), facts);

    let profiles = Profiles::embedded();
    check(&facts, None).unwrap();
    check(&facts, profiles.find("aarch64").ok()).unwrap();
    let error = check(&facts, profiles.find("s390x").ok()).unwrap_err();
    assert!(error.to_string().starts_with("the image says s390x but holds arm64"), "{error}");
}

#[test]
fn two_architectures_are_named_with_their_files() {
    let mixed = Tree::new().file("sbin/init", &program(ARM64, None)).file("bin/sh", &program(AMD64, None));
    let error = mixed.facts().unwrap_err().to_string();
    assert_eq!(error, "the image holds programs of two architectures: /sbin/init is arm64, but /bin/sh is amd64");
    let loader = Tree::new()
        .file("sbin/init", &program(ARM64, Some(LOADER)))
        .file("lib/ld-linux-aarch64.so.1", &program(AMD64, None));
    assert!(loader.facts().unwrap_err().to_string().contains("two architectures"));
}

#[test]
fn the_hosts_files_are_never_read() {
    // The host has /bin/sh and the loader; the tree has links to them that lead nowhere inside.
    let empty = Tree::new()
        .link("bin/sh", "/bin/dash")
        .link("sbin/init", "/lib/systemd/systemd")
        .link("etc/os-release", "/usr/lib/os-release");
    assert_eq!(empty.facts().unwrap(), Facts::default());
    let up = Tree::new().link("bin/sh", "../../../../../../../../bin/dash");
    assert_eq!(up.facts().unwrap(), Facts::default());
    let circle = Tree::new().link("sbin/init", "init").link("bin", "bin");
    assert_eq!(circle.facts().unwrap(), Facts::default());
}

#[test]
fn other_inits_and_none() {
    let alpine = Tree::new()
        .file("bin/busybox", &program(ARM64, None))
        .link("sbin/init", "/bin/busybox")
        .link("bin/sh", "/bin/busybox");
    let facts = alpine.facts().unwrap();
    assert_eq!(facts.init.as_ref().unwrap().kind, InitKind::Busybox);
    assert_eq!((facts.systemd, facts.glibc), (None, None));
    let openrc = alpine.file("sbin/openrc", b"").facts().unwrap();
    assert_eq!(openrc.init.unwrap().kind, InitKind::Busybox, "what starts services is not who is asked to stop");
    let own = Tree::new().file("sbin/openrc-init", &program(ARM64, None)).link("sbin/init", "openrc-init");
    assert_eq!(own.facts().unwrap().init.unwrap().kind, InitKind::OpenRc);
    let sysv = Tree::new().file("sbin/init", &program(ARM64, None)).file("etc/inittab", b"").facts().unwrap();
    assert_eq!(sysv.init.unwrap().kind, InitKind::SysV);
    let script = Tree::new().file("sbin/init", b"#!/bin/sh\n").file("bin/sh", &program(AMD64, None)).facts().unwrap();
    assert_eq!((script.init.unwrap().kind, script.profile.as_deref()), (InitKind::Other, Some("amd64")));
    let static_only = Tree::new().file("hello", &program(ARM64, None));
    assert!(!static_only.facts().unwrap().has_os);
    let root = Root::open(static_only.0.path()).unwrap();
    let found = file(&root, "/hello", &Profiles::embedded()).unwrap().unwrap();
    assert_eq!(found.profile.as_deref(), Some("arm64"));
}

#[test]
fn what_cannot_start_is_told() {
    let facts = Tree::new().file("bin/sh", &program(ARM64, Some(LOADER))).facts().unwrap();
    let error = check(&facts, None).unwrap_err().to_string();
    assert_eq!(error, "/bin/sh (arm64) cannot start: its loader /lib/ld-linux-aarch64.so.1 is not in the image");
    let alien = Tree::new().file("bin/sh", &program(9999, None)).facts().unwrap();
    let error = check(&alien, None).unwrap_err().to_string();
    assert_eq!(error, "no profile describes the architecture of /bin/sh (64-bit little-endian, machine 9999)");
    let cut = Tree::new().file("bin/sh", &program(ARM64, Some(LOADER))[..100]).facts();
    assert!(cut.is_err());
}

#[test]
fn this_very_host_is_what_it_is() {
    let facts = tree(&Root::open(Path::new("/")).unwrap(), &Profiles::embedded()).unwrap();
    let host = Profiles::embedded().by_uname(std::env::consts::ARCH).map(|p| p.name.clone());
    assert_eq!(facts.profile, host);
    assert!(facts.has_os && facts.os_release.is_some());
}

/// Linkers for MIPS put the loader's name behind the code, which may be long.
#[test]
fn the_loaders_name_may_stand_far_behind() {
    let mut init = program(ARM64, Some(LOADER));
    let far = 200 << 10;
    // p_offset of the only program header.
    init[64 + 8..64 + 16].copy_from_slice(&(far as u64).to_le_bytes());
    let name = init.split_off(120);
    init.resize(far, 0);
    init.extend(name);
    let tree = Tree::new().file("sbin/init", &init).file(&LOADER[1..], &program(ARM64, None));
    let facts = tree.facts().unwrap();
    assert_eq!(facts.profile.as_deref(), Some("arm64"));
    assert_eq!(facts.missing_loader, None);
    assert!(facts.files.iter().any(|f| f.header.interpreter.as_deref() == Some(LOADER)));
}
