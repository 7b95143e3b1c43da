//! The Xen hosts: a hypervisor, a kernel and a file system in memory with the real `xl` and its daemons, taken out of Debian's packages and kept
//! in the cache. What a newcomer would get wrong: no package is installed and no program of the host's CPU is run to build it, so that it is the
//! same work for any CPU: what a program needs is read from its ELF headers, and so is what a kernel module needs.

use std::path::{Path, PathBuf};

use goblin::elf::Elf;

use crate::archive::Archive;
use crate::bytes;
use crate::common::fixtures::{mirror, mmdebstrap, once};
use crate::common::{secs, skip, write};

/// A host by its CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Debian's name of the architecture; also the name of its tests.
    pub arch: &'static str,
    /// The program that emulates it.
    pub qemu: &'static str,
    /// What a guest is, in xl.cfg.
    pub guest: &'static str,
    /// Rust's name of it.
    pub target: &'static str,
    /// The C compiler that makes its programs, by the name that Debian gives it everywhere.
    pub cc: &'static str,
    /// The dynamic loader's path.
    loader: &'static str,
}

/// ARM: every guest is as PVH is.
pub const ARM64: Host = Host {
    arch: "arm64",
    qemu: "qemu-system-aarch64",
    guest: "pvh",
    target: "aarch64-unknown-linux-gnu",
    cc: "aarch64-linux-gnu-gcc",
    loader: "lib/ld-linux-aarch64.so.1",
};
/// amd64: paravirtual guests, as QEMU does not emulate enough of a CPU's help for others.
pub const AMD64: Host = Host {
    arch: "amd64",
    qemu: "qemu-system-x86_64",
    guest: "pv",
    target: "x86_64-unknown-linux-gnu",
    cc: "x86_64-linux-gnu-gcc",
    loader: "lib64/ld-linux-x86-64.so.2",
};

/// The release, and the version of Xen that it carries.
const SUITE: &str = "bookworm";
const XEN: &str = "4.17";

const PACKAGES: &str = "busybox-static,bash,util-linux,mount,libgcc-s1,xenstore-utils,xen-utils-4.17";

/// What dom0 runs; the first ones are in Xen's own directory.
const DAEMONS: [&str; 6] = ["xl", "xenstored", "xenconsoled", "xenconsole", "xen-init-dom0", "libxl-save-helper"];
const PROGRAMS: [&str; 7] = [
    "bin/bash",
    "usr/bin/flock",
    "sbin/losetup",
    "usr/bin/xenstore-read",
    "usr/bin/xenstore-ls",
    "usr/bin/xenstore-write",
    "usr/bin/xenstore-rm",
];

/// What dom0's kernel needs beside itself, in any order.
const MODULES: [&str; 14] = [
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-privcmd",
    "xenfs",
    "xen-blkback",
    "xen-netback",
    "loop",
    "bridge",
    "9p",
    "9pnet_virtio",
    "virtio_pci",
    "virtio_mmio",
    "netfs",
];
const FRONTENDS: [&str; 2] = ["xen-blkfront", "xen-netfront"];

const DOM0_INIT: &str = include_str!("inside/dom0-init.sh");
const GUEST_INIT: &str = include_str!("inside/guest-init.sh");

impl Host {
    /// The directory with `xen`, `vmlinuz` and `initrd`, built now if need be.
    pub fn built(self) -> PathBuf {
        let lists = format!("{DAEMONS:?}{PROGRAMS:?}{MODULES:?}{FRONTENDS:?}");
        let text = format!("1\n{} {SUITE} {XEN} {PACKAGES} {lists}\n{DOM0_INIT}\n{GUEST_INIT}", self.arch);
        once(&format!("Xen host {}", self.arch), &text, |half| self.build(half))
    }

    fn build(self, half: &Path) {
        let (tree, arch) = (half.join("tree"), self.arch);
        let kernels = format!("xen-hypervisor-{XEN}-{arch},linux-image-{arch},linux-image-cloud-{arch}");
        let mut run = mmdebstrap().args(["--quiet", "--variant=extract", "--format=directory"]);
        run = run.arg(format!("--architectures={arch}")).arg(format!("--include={PACKAGES},{kernels}"));
        let out = run.arg(SUITE).arg(&tree).arg(format!("deb {} {SUITE} main", mirror())).limit(secs(10 * 60)).run();
        write(half.join("log"), out.stderr.clone());
        if out.err().contains("does not have a Release file") || out.err().contains("404  Not Found") {
            skip!("the mirror does not carry {SUITE} for {arch}");
        }
        out.ok();
        let (cloud, full) = kernels_of(&tree);
        let guest = guest(&tree, &cloud);
        write(half.join("initrd"), self.dom0(&tree, &full, &cloud, &guest).bytes());
        write(half.join("vmlinuz"), bytes(&tree.join(format!("boot/vmlinuz-{full}"))));
        let (plain, packed) = (format!("boot/xen-{XEN}-{arch}"), format!("boot/xen-{XEN}-{arch}.gz"));
        let (plain, packed) = (tree.join(plain), tree.join(packed));
        write(half.join("xen"), if packed.exists() { unpacked(&packed) } else { bytes(&plain) });
        std::fs::remove_dir_all(&tree).expect("the tree is removed");
    }

    fn dom0(self, tree: &Path, kernel: &str, guests_kernel: &str, guest: &Archive) -> Archive {
        let mut dom0 = Archive::default();
        dom0.dirs(
            "proc sys dev run tmp root mnt etc/xen var/log/xen/console var/lib/xen var/lib/xenstored sbin usr/sbin",
        );
        dom0.link("var/run", "../run");
        dom0.link("var/lock", "../run/lock");
        dom0.file("init", 0o755, DOM0_INIT);
        dom0.file("bin/busybox", 0o755, bytes(&tree.join("bin/busybox")));
        let toolbox = format!("usr/lib/xen-{XEN}/bin");
        DAEMONS.iter().for_each(|name| program(&mut dom0, tree, &format!("{toolbox}/{name}")));
        PROGRAMS.iter().for_each(|path| program(&mut dom0, tree, path));
        dom0.link("usr/sbin/xl", &format!("../lib/xen-{XEN}/bin/xl"));
        // Not linked: pthread_cancel(3) looks for it when it is used, and xl aborts without it.
        library(&mut dom0, tree, "libgcc_s.so.1");
        dom0.file(self.loader, 0o755, bytes(&tree.join(self.loader)));
        dom0.tree("etc/xen/scripts", &tree.join("etc/xen/scripts"));
        dom0.file("etc/xen/xl.conf", 0o644, bytes(&tree.join("etc/xen/xl.conf")));
        let order = modules(&mut dom0, tree, kernel, &MODULES);
        dom0.file("modules", 0o644, order.join("\n") + "\n");
        dom0.file("guest/initrd", 0o644, guest.bytes());
        dom0.file("guest/vmlinuz", 0o644, bytes(&tree.join(format!("boot/vmlinuz-{guests_kernel}"))));
        dom0
    }
}

/// A guest of busybox alone.
fn guest(tree: &Path, kernel: &str) -> Archive {
    let mut guest = Archive::default();
    guest.dirs("proc sys dev sbin");
    guest.file("init", 0o755, GUEST_INIT);
    guest.file("bin/busybox", 0o755, bytes(&tree.join("bin/busybox")));
    let order = modules(&mut guest, tree, kernel, &FRONTENDS);
    guest.file("modules", 0o644, order.join("\n") + "\n");
    guest
}

/// The kernels' versions: the small one for clouds, and the other.
fn kernels_of(tree: &Path) -> (String, String) {
    let names = std::fs::read_dir(tree.join("lib/modules")).expect("kernels").flatten();
    let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
    let (cloud, full): (Vec<String>, Vec<String>) = names.partition(|name| name.contains("cloud"));
    (cloud.into_iter().next().expect("a cloud kernel"), full.into_iter().next().expect("a kernel"))
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(std::fs::File::open(path).expect("the hypervisor"));
    std::io::Read::read_to_end(&mut reader, &mut out).expect("a gzip file");
    out
}

/// A program with all libraries that it needs.
fn program(into: &mut Archive, tree: &Path, path: &str) {
    let data = bytes(&tree.join(path));
    let needed = Elf::parse(&data).expect("an ELF file").libraries.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    into.file(path, 0o755, data);
    needed.iter().for_each(|name| library(into, tree, name));
}

/// A library with those that it needs, all in /lib, where every loader looks.
fn library(into: &mut Archive, tree: &Path, name: &str) {
    let path = format!("lib/{name}");
    if into.has(&path) {
        return;
    }
    let found = ["lib", "usr/lib"].iter().find_map(|dir| find(&tree.join(dir), name, 2));
    let data = bytes(&found.unwrap_or_else(|| panic!("no {name} in the packages")));
    let needed = Elf::parse(&data).expect("an ELF file").libraries.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    into.file(&path, 0o755, data);
    needed.iter().for_each(|name| library(into, tree, name));
}

/// A file of this name, not deeper than `depth` directories.
fn find(dir: &Path, name: &str, depth: u32) -> Option<PathBuf> {
    let here = dir.join(name);
    if here.exists() {
        return Some(here);
    }
    let inner = std::fs::read_dir(dir).ok()?.flatten().filter(|e| depth > 0 && e.path().is_dir());
    inner.filter_map(|e| find(&e.path(), name, depth - 1)).next()
}

/// Puts in modules and those that they need; returns their paths in the order in which they must be loaded. What the kernel has built in
/// has no file and needs none.
fn modules(into: &mut Archive, tree: &Path, kernel: &str, wanted: &[&str]) -> Vec<String> {
    let all = files(&tree.join("lib/modules").join(kernel));
    let mut order = Vec::new();
    for name in wanted {
        load(into, &all, name, &mut order);
    }
    order
}

fn load(into: &mut Archive, all: &[PathBuf], name: &str, order: &mut Vec<String>) {
    // A module's name has underscores where its file may have dashes.
    let same = |path: &PathBuf| {
        path.file_stem().is_some_and(|s| s.to_string_lossy().replace('-', "_") == name.replace('-', "_"))
    };
    let Some(path) = all.iter().find(|path| same(path)) else { return };
    let inside = format!("modules.d/{}", path.file_name().expect("a name").to_string_lossy());
    if into.has(&inside) {
        return;
    }
    let data = bytes(path);
    let needs = needed_modules(&data);
    into.file(&inside, 0o644, data);
    needs.iter().for_each(|name| load(into, all, name, order));
    order.push(format!("/{inside}"));
}

/// `depends=` of a module's description (modinfo(8)).
fn needed_modules(module: &[u8]) -> Vec<String> {
    let elf = Elf::parse(module).expect("an ELF file");
    let named = |s: &&goblin::elf::SectionHeader| elf.shdr_strtab.get_at(s.sh_name) == Some(".modinfo");
    let range = elf.section_headers.iter().find(named).and_then(goblin::elf::SectionHeader::file_range);
    let info = range.map(|range| &module[range]).unwrap_or_default();
    let words = info.split(|b| *b == 0).map(String::from_utf8_lossy);
    let depends = words.filter_map(|w| w.strip_prefix("depends=").map(str::to_owned));
    depends.flat_map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>()).filter(|n| !n.is_empty()).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())).flatten();
    let each =
        |e: std::fs::DirEntry| if e.file_type().is_ok_and(|t| t.is_dir()) { files(&e.path()) } else { vec![e.path()] };
    entries.flat_map(each).collect()
}
