//! A tree as nasty as Linux allows goes through an archive and comes back the same. What a newcomer would get wrong: the trees are compared by
//! stat(2) and friends, not by packing both; and time does not pass for whiteouts, which have none in an image.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::*;
use crate::domain::Quiet;
use crate::image::unpack::{self, Job};
use crate::sys::{fs, unpack as raw, xattr};

fn if_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let _ = io::Write::write_all(&mut io::stderr(), b"skipped: owners and devices need root\n");
    }
    root
}

/// Everything in a tree: what it is, whose, since when, what it holds.
fn picture(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut out = BTreeMap::new();
    let mut links: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let whole = root.join(&path);
        let meta = std::fs::symlink_metadata(&whole).unwrap();
        let key = path.as_os_str().as_bytes().to_vec();
        let opened =
            nix::fcntl::open(&whole, nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_NOFOLLOW, Mode::empty()).unwrap();
        let mut said = format!("{:o} {}:{} dev {}", meta.mode(), meta.uid(), meta.gid(), meta.rdev());
        if (meta.mode() & 0o170_000, meta.rdev()) == (0o020_000, 0) {
            out.insert(key, "whiteout".into());
            continue;
        }
        said += &format!(" {}.{:09} {:?}", meta.mtime(), meta.mtime_nsec(), xattr::all(opened.as_fd()).unwrap());
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&whole).unwrap().map(|e| path.join(e.unwrap().file_name())));
        } else if meta.is_symlink() {
            said += &format!(" {:?}", std::fs::read_link(&whole).unwrap());
        } else if meta.is_file() {
            said += &format!(" {} {} {}", meta.size(), meta.blocks(), Digest::of(&std::fs::read(&whole).unwrap()));
        }
        if !meta.is_dir() && meta.nlink() > 1 {
            // The first in the order of names, as these come in any.
            let first = links.entry(meta.ino()).or_insert_with(|| key.clone());
            *first = key.clone().min(first.clone());
            said += &format!(" {} names", meta.nlink());
        }
        out.insert(key, said);
    }
    out
}

/// One of everything; `layer` adds what only a layer may hold.
fn nasty(root: &Path, layer: bool) {
    let write = |name: &OsStr, data: &[u8]| fs::write_volatile(&root.join(name), data, 0o640).unwrap();
    let long = "d".repeat(200);
    std::fs::create_dir_all(root.join("usr/share").join(&long).join(&long)).unwrap();
    write(OsStr::new(&format!("usr/share/{long}/{long}/file")), b"deep");
    write(OsStr::from_bytes(b"latin-\xe4\xf6\xfc"), b"no utf-8");
    write(OsStr::from_bytes(b"new\nline and 'quotes' \x1b[31m"), b"odd");
    write(OsStr::new("empty"), b"");
    write(OsStr::new("su"), b"#!");
    std::os::unix::fs::chown(root.join("su"), Some(70_000), Some(4_000_000_000)).unwrap();
    std::fs::set_permissions(root.join("su"), PermissionsExt::from_mode(0o6755)).unwrap();
    std::fs::hard_link(root.join("su"), root.join("usr/second name")).unwrap();
    symlink("/etc/passwd", root.join("link")).unwrap();
    symlink(OsStr::from_bytes(&b"\xff/".repeat(1000)), root.join("long link")).unwrap();
    std::fs::hard_link(root.join("link"), root.join("zz link again")).unwrap();
    mknod(&root.join("fifo"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap();
    mknod(&root.join("null"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)).unwrap();
    mknod(&root.join("disk"), SFlag::S_IFBLK, Mode::S_IRUSR, makedev(259, 70_000)).unwrap();
    std::fs::create_dir(root.join("sticky")).unwrap();
    std::fs::set_permissions(root.join("sticky"), PermissionsExt::from_mode(0o3777)).unwrap();
    std::fs::create_dir(root.join("closed")).unwrap();
    write(OsStr::new("closed/inside"), b"x");
    std::fs::set_permissions(root.join("closed"), PermissionsExt::from_mode(0o000)).unwrap();
    let sparse = OpenOptions::new().write(true).create_new(true).open(root.join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 1 << 16).unwrap();
    sparse.write_all_at(&[7; 5000], 10 << 20).unwrap();
    sparse.set_len(30 << 20).unwrap();
    File::create(root.join("hole")).unwrap().set_len(64 << 20).unwrap();
    let dir = File::open(root).unwrap();
    let set = |leaf: &str, name: &[u8], value: &[u8]| raw::set_xattr_at(dir.as_fd(), leaf.as_bytes(), name, value);
    // cap_net_raw=ep, and an access list that lets user 1000 read (acl(5), posix_acl_xattr.h).
    set("empty", b"security.capability", &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    let entry = |tag: u8, perm: u8, id: u32| [&[tag, 0, perm, 0][..], &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let list = [entry(1, 6, none), entry(2, 4, 1000), entry(4, 4, none), entry(16, 4, none), entry(32, 0, none)];
    let list = [&[2, 0, 0, 0][..], &list.concat()].concat();
    set("su", b"system.posix_acl_access", &list).unwrap();
    set("sticky", b"system.posix_acl_default", &list).unwrap();
    set("sticky", b"user.note", b"a=b\n\0").unwrap();
    set("link", b"trusted.link", b"on the link").unwrap();
    if layer {
        mknod(&root.join("gone"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        std::fs::hard_link(root.join("gone"), root.join("usr/gone too")).unwrap();
        set("sticky", b"trusted.overlay.opaque", b"y").unwrap();
        mknod(&root.join("sticky/below"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    }
    for (name, seconds, nanoseconds) in [("empty", -5, 500_000_000), ("usr", 1 << 35, 1), ("fifo", 0, 0), ("", 9, 9)] {
        let time = nix::sys::time::TimeSpec::new(seconds, nanoseconds);
        let flag = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
        let name = if name.is_empty() { "." } else { name };
        nix::sys::stat::utimensat(&dir, name, &time, &time, flag).unwrap();
    }
}

fn rules(form: Form) -> Rules<'static> {
    Rules { form, living: false, tick: &|_| Ok(()) }
}

fn pack(root: &Path, form: Form, codec: Codec) -> (Vec<u8>, Blob, Packed) {
    blob(File::open(root).unwrap().as_fd(), &rules(form), codec, Vec::new()).unwrap()
}

fn unpack_into(bytes: &[u8], blob: &Blob, dest: &Path) -> unpack::Unpacked {
    std::fs::create_dir(dest).unwrap();
    let job = Job {
        what: "test",
        source: &mut &*bytes,
        size: Some(blob.size),
        digest: Some(&blob.digest),
        diff_id: Some(&blob.diff_id),
        below: false,
        step: &Quiet,
    };
    unpack::unpack(job, dest).unwrap()
}

#[test]
fn a_nasty_tree_comes_back_the_same() {
    if !if_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (form, codec) in [(Form::Rootfs, Codec::Xz), (Form::Single, Codec::Gzip), (Form::Layer, Codec::Zstd(1))] {
        let (from, to) = (dir.path().join(format!("{form:?}")), dir.path().join(format!("{form:?} again")));
        std::fs::create_dir(&from).unwrap();
        nasty(&from, form == Form::Layer);
        let (bytes, blob, packed) = pack(&from, form, codec);
        assert!(packed.left_out.is_empty(), "{packed:?}");
        assert_eq!((blob.size, &blob.digest), (bytes.len() as u64, &Digest::of(&bytes)));
        assert!(bytes.len() < 1 << 20, "holes stay holes");
        let unpacked = unpack_into(&bytes, &blob, &to);
        assert_eq!(unpacked.lost_attributes.0, 0);
        let (before, after) = (picture(&from), picture(&to));
        assert!(before.len() > 20);
        for (name, said) in &before {
            assert_eq!(after.get(name), Some(said), "{}", name.escape_ascii());
        }
        assert_eq!(before.len(), after.len());
        assert_eq!(pack(&to, form, codec).0, bytes, "the same bytes again");
    }
}

#[test]
fn what_no_archive_holds_is_left_out_or_refused() {
    if !if_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let (_, _, packed) = pack(root, Form::Single, Codec::Plain);
    assert_eq!(packed.left_out, ["left out: socket (a socket)"]);
    mknod(&root.join("gone"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    assert_eq!(pack(root, Form::Rootfs, Codec::Plain).2.left_out.len(), 2);
    fs::write_volatile(&root.join(".wh.x"), b"", 0o600).unwrap();
    pack(root, Form::Rootfs, Codec::Plain);
    for form in [Form::Single, Form::Layer] {
        let fault = tree(File::open(root).unwrap().as_fd(), &rules(form), Vec::new()).unwrap_err();
        let error = fault.of("tree x", "y");
        assert!(matches!(&error, Error::Malformed { why, .. } if why.contains(".wh.x")), "{error}");
    }
    std::fs::remove_file(root.join(".wh.x")).unwrap();
    let opened = File::open(root).unwrap();
    raw::set_xattr_at(opened.as_fd(), b".", b"trusted.overlay.redirect", b"/x").unwrap();
    assert!(matches!(tree(opened.as_fd(), &rules(Form::Layer), Vec::new()), Err(Fault::Refused(..))));
}

#[test]
fn a_tree_that_changes_meanwhile() {
    for living in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write_volatile(&path("a"), &[1; 1_000_000], 0o600).unwrap();
        fs::write_volatile(&path("b"), &[1; 1000], 0o600).unwrap();
        // In the middle of the first file it is cut, and the second removed, whose name was read already.
        let tick = |bytes: u64| {
            if bytes > 0 {
                File::options().write(true).open(path("a"))?.set_len(300_000)?;
                let _ = std::fs::remove_file(path("b"));
            }
            Ok(())
        };
        let rules = Rules { form: Form::Rootfs, living, tick: &tick };
        let packed = tree(File::open(dir.path()).unwrap().as_fd(), &rules, Vec::new());
        if !living {
            assert!(matches!(packed, Err(Fault::Refused(name, why)) if name == b"a" && why.contains("shorter")));
            continue;
        }
        let (bytes, packed) = packed.unwrap();
        assert_eq!(packed.entries, 2, "itself and the first");
        let body = [vec![1; 300_000], vec![0; 700_000]].concat();
        assert!(bytes.windows(body.len()).step_by(512).any(|at| at == body), "what is missing is zeros");
    }
}

#[test]
fn an_end_is_heard_and_a_full_pipe_too() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..20 {
        fs::write_volatile(&dir.path().join(format!("f{n}")), &[1; 100_000], 0o600).unwrap();
    }
    let root = File::open(dir.path()).unwrap();
    let stop = |bytes: u64| if bytes > 0 { Err(io::Error::other("enough")) } else { Ok(()) };
    let ended = tree(root.as_fd(), &Rules { tick: &stop, ..rules(Form::Rootfs) }, Vec::new());
    assert!(matches!(ended, Err(Fault::Out(e)) if e.to_string() == "enough"));
    let one = |reader: &mut (dyn io::Read + Send)| -> Result<u8> {
        let mut byte = [0];
        reader.read_exact(&mut byte).map(|()| byte[0]).map_err(Error::io("reading"))
    };
    let fault = through(root.as_fd(), &rules(Form::Rootfs), "x", one).unwrap_err();
    assert!(fault.to_string().contains("cannot write"), "who hangs up ends the packer: {fault}");
    let quit =
        |_: &mut (dyn io::Read + Send)| -> Result<()> { Err(Error::Malformed { what: "it".into(), why: "no".into() }) };
    assert!(through(root.as_fd(), &rules(Form::Rootfs), "x", quit).unwrap_err().to_string().contains("no"));
}
