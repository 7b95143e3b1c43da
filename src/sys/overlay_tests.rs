//! Tests of stacks: real mounts, none of which anybody else sees. What a newcomer would get wrong: each is made by the kernel's new way
//! and by the old one, for which a test must not wait until it meets an old kernel.

use super::*;
use crate::sys::root::Root;
use std::os::unix::fs::MetadataExt;

fn layer(dir: &Path, name: &str, file: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir(&path).unwrap();
    crate::sys::fs::write_atomic(&path.join(file), name.as_bytes(), 0o644).unwrap();
    path
}

fn if_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        // A mount needs root: said, not hidden.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: mounting needs root\n");
    }
    root
}

#[test]
fn a_stack_needs_no_mount_point_and_takes_any_path() {
    if !if_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("a b:c,d\\e");
    std::fs::create_dir(&odd).unwrap();
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lowers: Vec<Lower> = (0..100).map(|n| layer(&odd, &format!("l{n}"), &format!("f{n}")).into()).collect();
    for (upper, work) in [("u", "w"), ("u2", "w2")] {
        std::fs::create_dir(odd.join(upper)).unwrap();
        std::fs::create_dir(odd.join(work)).unwrap();
    }
    let mut overlay = Overlay { lowers, upper: Some((odd.join("u"), odd.join("w"))), ids: None };
    let first = overlay.detached().unwrap();
    overlay.upper = Some((odd.join("u2"), odd.join("w2")));
    let old_way = overlay.in_own_namespace(&[]).unwrap();
    for tree in [first, old_way] {
        let root = Root::from_fd(tree, Path::new("test"));
        assert_eq!(root.read_text("f0").unwrap(), "l0");
        assert_eq!(root.read_text("f99").unwrap(), "l99");
        crate::sys::fs::write_volatile(&root.proc_path().join("new"), b"x", 0o600).unwrap();
    }
    assert!(odd.join("u/new").exists() && odd.join("u2/new").exists());
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

#[test]
fn a_layer_in_the_making_is_whole_by_itself() {
    if !if_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let lowers = vec![Lower::from(layer(dir.path(), "l", "f"))];
    for n in 0..2 {
        let pair = (dir.path().join(format!("u{n}")), dir.path().join(format!("w{n}")));
        [&pair.0, &pair.1].into_iter().for_each(|p| std::fs::create_dir(p).unwrap());
        let overlay = Overlay { lowers: lowers.clone(), upper: Some(pair.clone()), ids: None };
        let options = [(c"metacopy", "off"), (c"redirect_dir", "off"), (c"volatile", "")];
        let tree = if n == 0 { overlay.detached_for_layer() } else { overlay.in_own_namespace(&options) };
        let root = Root::from_fd(tree.unwrap(), Path::new("test"));
        std::fs::set_permissions(root.proc_path().join("f"), PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(std::fs::read(pair.0.join("f")).unwrap(), b"l", "not only its mode was copied");
        assert!(pair.1.join("work/incompat/volatile").is_dir(), "nothing waits for the disk");
    }
}

#[test]
fn a_missing_layer_is_named() {
    let overlay = Overlay { lowers: vec![PathBuf::from("/nonexistent/layer").into()], ..Overlay::default() };
    assert!(overlay.detached().unwrap_err().to_string().contains("/nonexistent/layer"));
}

#[test]
fn one_tree_alone_is_read_only() {
    if !if_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lower = layer(dir.path(), "only", "f");
    let root =
        Root::from_fd(Overlay { lowers: vec![lower.into()], ..Overlay::default() }.detached().unwrap(), Path::new("t"));
    assert_eq!(root.read_text("f").unwrap(), "only");
    assert!(crate::sys::fs::write_volatile(&root.proc_path().join("g"), b"", 0o600).is_err());
}

/// A disk below a tree, with a guest's ids and without, by the kernel's new way and by the old one.
#[test]
fn a_disk_is_a_layer() {
    if !if_root() {
        return;
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (over, inside) = (layer(dir.path(), "over", "f"), layer(dir.path(), "inside", "g"));
    let image = dir.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
    let mkfs = crate::sys::process::Tool::new("mkfs.ext4").args(["-q", "-d"]).arg(&inside).arg(&image);
    mkfs.output().expect("mkfs.ext4 (e2fsprogs)");
    let volume = Volume { offset: 0, size: 4 << 20, kind: disk::FileSystem::Ext4, subvolume: None };
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mapping = Mapping::of(Range { first: 0x9_0000, count: 65536 }).ok();
    if mapping.is_none() {
        let _ = io::Write::write_all(&mut io::stderr(), b"skipped in part: no user namespaces here\n");
    }
    for (n, ids) in [None, mapping].into_iter().enumerate().filter(|(n, ids)| *n == 0 || ids.is_some()) {
        for own_namespace in [false, true] {
            let pair = ["u", "w"].map(|kind| dir.path().join(format!("{kind}{n}{own_namespace}")));
            pair.iter().for_each(|p| std::fs::create_dir(p).unwrap());
            let [upper, work] = pair;
            let lowers = vec![over.clone().into(), Lower::Disk(image.clone(), volume.clone())];
            let overlay = Overlay { lowers, upper: Some((upper, work)), ids: ids.clone() };
            let tree = if own_namespace { overlay.in_own_namespace(&[]) } else { overlay.detached() };
            let root = Root::from_fd(tree.unwrap(), Path::new("test"));
            assert_eq!((root.read_text("f").unwrap(), root.read_text("g").unwrap()), ("over".into(), "inside".into()));
            let owner = ids.as_ref().map_or(0, |mapping| mapping.range.first);
            assert_eq!(root.stat(Path::new("g")).unwrap().st_uid, owner);
        }
    }
    let alone = Overlay { lowers: vec![Lower::Disk(image, volume)], ..Overlay::default() }.detached().unwrap();
    assert_eq!(Root::from_fd(alone, Path::new("test")).read_text("g").unwrap(), "inside");
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

#[test]
fn a_guest_sees_its_own_ids_and_the_disk_keeps_plain_ones() {
    if !if_root() {
        return;
    }
    let range = Range { first: 0x9_0000, count: 65536 };
    let Ok(mapping) = Mapping::of(range) else {
        let _ = io::Write::write_all(&mut io::stderr(), b"skipped: no user namespaces here\n");
        return;
    };
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let paths = [layer(dir.path(), "l", "f"), layer(dir.path(), "l2", "g")];
    nix::unistd::chown(&paths[0].join("f"), Some(33.into()), Some(33.into())).unwrap();
    let lowers: Vec<Lower> = paths.into_iter().map(Lower::from).collect();
    if can_map(&dir.path().to_owned().into(), &mapping).is_err() {
        let _ = io::Write::write_all(&mut io::stderr(), b"skipped: this file system cannot map ids\n");
        return;
    }
    for (n, own_namespace) in [("a", false), ("b", true)] {
        let (upper, work) = (dir.path().join(format!("{n}u")), dir.path().join(format!("{n}w")));
        [&upper, &work].into_iter().for_each(|p| std::fs::create_dir(p).unwrap());
        let overlay =
            Overlay { lowers: lowers.clone(), upper: Some((upper.clone(), work)), ids: Some(mapping.clone()) };
        let tree = if own_namespace { overlay.in_own_namespace(&[]) } else { overlay.detached() }.unwrap();
        let root = Root::from_fd(tree, Path::new("test"));
        let seen = root.stat(Path::new("f")).unwrap();
        assert_eq!((seen.st_uid, seen.st_gid), (range.first + 33, range.first + 33));
        let new = root.proc_path().join("new");
        assert!(crate::sys::fs::write_volatile(&new, b"", 0o600).is_err(), "the host's root is nobody in there");
        let acting = ActAs::root_of(range).unwrap();
        crate::sys::fs::write_volatile(&new, b"x", 0o600).unwrap();
        drop(acting);
        assert_eq!(root.stat(Path::new("new")).unwrap().st_uid, range.first);
        let on_disk = std::fs::metadata(upper.join("new")).unwrap();
        assert_eq!((on_disk.uid(), on_disk.gid()), (0, 0));
        assert_eq!(nix::unistd::geteuid().as_raw(), 0);
    }
}
