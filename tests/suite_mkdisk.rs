//! Disks made of trees: what the kernel shows of one is the tree, entry by entry. What a newcomer would get wrong: the tree is a stack that
//! is mounted nowhere, as a guest's is, and the disk is looked at by mounting it the same way, so a test that fails leaves no mount.
//! It needs root.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::disk::{MIB, loops};
use common::run::Run;
use common::secs;
use pronto::image::disk::make::{Identity, make, measure};
use pronto::sys::disk::{FileSystem, Volume, mount};
use pronto::sys::overlay::Overlay;
use pronto::sys::process::{Tool, find_program};

const LOWER: &str = r#"
set -e; umask 022; mkdir -p usr/bin etc/conf.d var/mail dev srv/gone many "deep/$(printf 'd%.0s' $(seq 200))"
printf su >usr/bin/su; chmod 4755 usr/bin/su; printf ping >usr/bin/ping
printf busy >usr/bin/busy; ln usr/bin/busy usr/bin/ls; ln usr/bin/busy etc/cat; chmod 1777 var/mail; chmod 2775 etc/conf.d
ln -s busy usr/bin/sh; ln -s /usr/bin/su etc/absolute; ln -s "$(printf 'l%.0s' $(seq 3000))" etc/long
printf one >etc/one; chown 100000:70000 etc/one; chown 4000000:4000001 etc/conf.d; chown -h 7:8 usr/bin/sh
mkfifo -m 640 dev/pipe; mknod -m 666 dev/null c 1 3; mknod -m 660 dev/loop0 b 7 300; printf 'caf' >"etc/$(printf 'caf\351')"
printf '\n' >"etc/$(printf 'new\nline')"; : >etc/empty; printf n >"etc/$(printf 'n%.0s' $(seq 250))"; printf x >srv/gone/x
printf begin >var/sparse; printf middle | dd of=var/sparse bs=1 seek=30000000 conv=notrunc status=none; truncate -s 80000000 var/sparse
for i in $(seq 3000); do : >many/a-name-that-is-not-short-$i; done; head -c 20000000 /dev/urandom >var/random
python3 - <<'P'
import os, socket
os.setxattr('usr/bin/ping', 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000'))
os.setxattr('etc/one', 'user.note', b'a\x00b\xff')
os.setxattr('etc/conf.d', 'user.big', b'x' * 3000)
os.setxattr('etc/conf.d', 'trusted.of', b'root')
acl = b'\x02\0\0\0' + b'\x01\0\x06\0\xff\xff\xff\xff' + b'\x02\0\x04\0\xe8\x03\0\0' + b'\x04\0\x04\0\xff\xff\xff\xff' + b'\x10\0\x04\0\xff\xff\xff\xff' + b'\x20\0\x04\0\xff\xff\xff\xff'
os.setxattr('etc/one', 'system.posix_acl_access', acl)
os.setxattr('var/mail', 'system.posix_acl_default', acl)
socket.socket(socket.AF_UNIX).bind('dev/log')
P
chown 5:6 .; chmod 711 .; find . -exec touch -h -d '2009-02-13 23:31:30' {} +
"#;

const UPPER: &str = r#"
set -e; mkdir -p etc srv; mknod srv/gone c 0 0; printf changed >etc/one; printf new >etc/new; chown 5:6 .; chmod 711 .
find . -exec touch -h -d '2020-02-02 02:02:02' {} +
"#;

/// Skips with a word where it cannot be tried.
fn possible() -> bool {
    let tools = ["mke2fs", "debugfs", "e2fsck", "python3"];
    let missing: Vec<&str> = tools.into_iter().filter(|tool| find_program(tool).is_none()).collect();
    let can = missing.is_empty() && nix::unistd::geteuid().is_root();
    if !can {
        let text = format!("skipped: needs root, and {missing:?} (contrib/install-deps.sh test)\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
    }
    can
}

fn identity() -> Identity {
    Identity { uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8".into(), label: "root".into() }
}

/// Every entry of a tree, a line each. mke2fs keeps times to the second, and gives the top directory the time of the disk.
fn lines(tree: OwnedFd) -> Vec<String> {
    let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/tree.py");
    let out = Tool::new("python3").arg(script).arg(path).inherit(tree).output().unwrap();
    let out = String::from_utf8(out).unwrap();
    let times = |line: &str| {
        let top = line.starts_with("b'.' ");
        line.split(' ').filter(|word| !(top && word.starts_with("time="))).collect::<Vec<_>>().join(" ")
    };
    out.lines().filter(|l| !l.contains("lost+found")).map(times).collect()
}

/// The tree that a disk holds.
fn shown(disk: &Path) -> OwnedFd {
    let size = std::fs::metadata(disk).unwrap().len();
    mount(disk, &Volume { offset: 0, size, kind: FileSystem::Ext4, subvolume: None }).unwrap()
}

#[test]
fn a_stack_of_layers_becomes_a_disk() {
    if !possible() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    for (name, script) in [("lower", LOWER), ("upper", UPPER)] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        Run::new("bash").args(["-c", script]).dir(dir.path().join(name)).limit(secs(120)).run().ok();
    }
    let lowers = ["upper", "lower"].map(|name| dir.path().join(name).into()).to_vec();
    let tree = Overlay { lowers, ..Overlay::default() }.detached().unwrap();
    let path = dir.path().join("disk");
    let disk = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let size = make(&disk, tree.as_fd(), &identity(), 1 << 30).unwrap();
    assert_eq!(disk.metadata().unwrap().len(), size);

    let (expected, found) = (lines(tree), lines(shown(&path)));
    for (a, b) in expected.iter().zip(&found) {
        assert_eq!(a, b);
    }
    assert_eq!(expected.len(), found.len());
    assert!(expected.len() > 3030);
    // Holes and free space take nothing: twenty megabytes of the tree are data.
    let taken = disk.metadata().unwrap().blocks() * 512;
    assert!((20_000_000..30_000_000).contains(&taken), "{taken}");
    let check = Run::new("e2fsck").args(["-f", "-n"]).arg(&path).limit(secs(60)).run();
    assert_eq!(check.code(), 0, "{check}");
    let head = Run::new("dumpe2fs").arg("-h").arg(&path).run().ok();
    let value = |key: &str| head.text().lines().find_map(|l| l.strip_prefix(key).map(|v| v.trim().to_owned())).unwrap();
    assert_eq!(value("Filesystem UUID:"), identity().uuid);
    assert_eq!(value("Filesystem volume name:"), "root");
    let free = value("Free blocks:").parse::<u64>().unwrap() * 4096;
    assert!((1 << 30..1300 << 20).contains(&free), "{free}");
    for _ in 0..100 {
        if loops(dir.path()).is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{:?} are left", loops(dir.path()));
}

#[test]
fn a_disk_without_room_to_spare_holds_its_tree() {
    if !possible() {
        return;
    }
    // Each is the worst of its kind: many small files, many directories, one large file, long links, nothing at all.
    let scripts = [
        "for i in $(seq 4000); do printf x >$i; done",
        "mkdir $(seq 3000)",
        "head -c 300000000 /dev/zero | tr '\\0' x >a",
        "for i in $(seq 2000); do ln -s $(printf 'l%.0s' $(seq 100)) $i; done",
        ":",
    ];
    for script in scripts {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        Run::new("bash").args(["-c", script]).dir(&tree).limit(secs(120)).run().ok();
        let disk = File::options().read(true).write(true).create_new(true).open(dir.path().join("disk")).unwrap();
        let tree = File::open(&tree).unwrap();
        let size = make(&disk, tree.as_fd(), &identity(), 0).unwrap_or_else(|e| panic!("{script}: {e:?}"));
        let data = measure(tree.as_fd()).unwrap().blocks * 4096;
        assert!(size < data + data / 4 + 150 * MIB, "{script}: {size} for {data}");
    }
}

#[test]
fn a_full_disk_is_told() {
    if !possible() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    Run::new("bash").args(["-c", "head -c 9000000 /dev/urandom >a"]).dir(dir.path()).run().ok();
    // A file system of four megabytes in a namespace that ends with its holder; its root is reached through him.
    let hold = "mount -t tmpfs -o size=4m none /mnt && echo ready && exec cat";
    let mut tool = Tool::new("unshare").args(["--mount", "sh", "-c", hold]).tied();
    tool.command().stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut holder = tool.spawn().unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let path = format!("/proc/{}/root/mnt/disk", holder.id());
    let disk = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let error = make(&disk, File::open(dir.path()).unwrap().as_fd(), &identity(), 0).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.starts_with("mke2fs failed (exit status: 1): ") && source.contains("No space left"),
        "{error}: {source}"
    );
}
