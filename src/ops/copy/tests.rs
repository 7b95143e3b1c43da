//! Copies between temporary trees, with links that want out. What a newcomer would get wrong: both sides are trees here; that
//! one of them is a running guest's makes no difference to the code, and the boot ring tries that.

use std::fs::{metadata, read, read_link, symlink_metadata};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::transfer::{Rules, Transfer};
use super::*;

/// A host's tree, a guest's tree, and a directory of neither that nobody may touch.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        for name in ["host/in", "guest/etc", "guest/srv", "outside"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        Case { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, data: &str) -> PathBuf {
        let path = self.path(path);
        crate::sys::fs::write_volatile(&path, data.as_bytes(), 0o644).unwrap();
        path
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(read(self.path(path)).unwrap()).unwrap()
    }

    fn copy(
        &self,
        from: (&str, &str),
        to: (&str, &str),
        tick: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Vec<String>> {
        let rules = Rules { owner: (geteuid(), getegid()), set_id: to.0 == "guest" };
        let (source, target) = (Root::open(&self.path(from.0)).unwrap(), Root::open(&self.path(to.0)).unwrap());
        let mut transfer = Transfer::new(&rules, tick);
        transfer.run((&source, Path::new(from.1)), (&target, Path::new(to.1)))?;
        Ok(transfer.left_out().to_vec())
    }

    fn put(&self, from: &str, to: &str) -> Result<Vec<String>> {
        self.copy(("host", from), ("guest", to), &mut |_| Ok(()))
    }

    fn get(&self, from: &str, to: &str) -> Result<Vec<String>> {
        self.copy(("guest", from), ("host", to), &mut |_| Ok(()))
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let names = std::fs::read_dir(self.path(dir)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

#[test]
fn words_name_sides() {
    let guest = |name: &str, path: &str| Side::Guest(DomainRef::from(name), PathBuf::from(path));
    for (word, side) in [
        ("web:/etc/x", guest("web", "/etc/x")),
        ("web:etc/", guest("web", "/etc/")),
        ("7:", guest("7", "/")),
        ("web:/a:b", guest("web", "/a:b")),
        ("./web:x", Side::Host("./web:x".into())),
        ("/tmp/a:b", Side::Host("/tmp/a:b".into())),
        ("a/b:c", Side::Host("a/b:c".into())),
        (":x", Side::Host(":x".into())),
        ("file", Side::Host("file".into())),
        ("-", Side::Stream),
    ] {
        assert_eq!(Side::parse(OsStr::new(word)), side, "{word}");
    }
}

#[test]
fn files_go_where_docker_puts_them() {
    let case = Case::new();
    case.write("host/f", "new");
    case.put("/f", "/etc").unwrap();
    case.put("/f", "/etc/g").unwrap();
    case.put("f", "/srv/").unwrap();
    for path in ["guest/etc/f", "guest/etc/g", "guest/srv/f"] {
        assert_eq!(case.text(path), "new", "{path}");
    }
    for (to, why) in [("/none/", "no such directory"), ("/none/g", "does not exist"), ("/etc/f/", "no directory")] {
        let error = case.put("/f", to).unwrap_err().to_string();
        assert!(error.contains(why), "{to}: {error}");
    }
    assert!(case.put("/absent", "/etc").unwrap_err().to_string().contains("/absent"));
    assert!(case.put("/f/", "/etc").is_err(), "a file is no directory");
    assert_eq!(case.names("guest/etc"), ["f", "g"]);
}

#[test]
fn directories_go_where_docker_puts_them() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("host/d/deep")).unwrap();
    case.write("host/d/deep/f", "deep");
    case.put("/d", "/new").unwrap();
    case.put("/d", "/srv").unwrap();
    case.put("/d/.", "/etc").unwrap();
    case.put("/d/", "/other/").unwrap();
    for path in ["guest/new/deep/f", "guest/srv/d/deep/f", "guest/etc/deep/f", "guest/other/deep/f"] {
        assert_eq!(case.text(path), "deep", "{path}");
    }
    assert!(case.put("/d/..", "/etc").unwrap_err().cure().is_some_and(|c| c.contains("../.")));
    case.write("guest/file", "old");
    assert!(case.put("/d", "/file").is_err());
    case.write("guest/srv/d/deep/f", "changed");
    case.put("/d", "/srv").unwrap();
    assert_eq!(case.text("guest/srv/d/deep/f"), "deep", "merged into what is there");
    // A directory and a file of one name: neither takes the other's place.
    std::fs::create_dir_all(case.path("guest/srv/e/x")).unwrap();
    std::fs::create_dir(case.path("host/e")).unwrap();
    case.write("host/e/x", "file");
    assert!(case.put("/e", "/srv").is_err());
    assert!(case.path("guest/srv/e/x").is_dir());
    std::fs::create_dir_all(case.path("host/h/y")).unwrap();
    std::fs::create_dir(case.path("guest/srv/h")).unwrap();
    case.write("guest/srv/h/y", "old");
    assert!(case.put("/h", "/srv").is_err());
    assert_eq!(case.text("guest/srv/h/y"), "old");
}

#[test]
fn modes_and_times_are_kept_and_set_id_is_not() {
    let case = Case::new();
    let file = case.write("guest/srv/f", "x");
    symlink("/no/where", case.path("guest/srv/l")).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o6751)).unwrap();
    std::fs::set_permissions(case.path("guest/srv"), PermissionsExt::from_mode(0o1500)).unwrap();
    let time = nix::sys::time::TimeSpec::new(1_000_000_000, 123_456_000);
    let there = std::fs::File::open(&file).unwrap();
    nix::sys::stat::futimens(&there, &time, &time).unwrap();
    case.get("/srv", "/out").unwrap();
    let out = metadata(case.path("host/out/f")).unwrap();
    assert_eq!((out.mode() & 0o7777, out.mtime(), out.mtime_nsec()), (0o751, 1_000_000_000, 123_456_000));
    assert_eq!(metadata(case.path("host/out")).unwrap().mode() & 0o7777, 0o1500);
    assert_eq!(read_link(case.path("host/out/l")).unwrap(), Path::new("/no/where"));
    if geteuid().is_root() {
        // Of root's own it means the same in the guest; of anybody else's it would make a program of root's.
        std::fs::set_permissions(case.write("host/in/su", "x"), PermissionsExt::from_mode(0o4755)).unwrap();
        let other = case.write("host/in/other", "x");
        std::os::unix::fs::chown(&other, Some(1000), Some(1000)).unwrap();
        std::fs::set_permissions(&other, PermissionsExt::from_mode(0o4755)).unwrap();
        case.put("/in", "/srv").unwrap();
        let mode = |path: &str| metadata(case.path(path)).unwrap();
        assert_eq!(mode("guest/srv/in/su").mode() & 0o7777, 0o4755);
        assert_eq!((mode("guest/srv/in/other").mode() & 0o7777, mode("guest/srv/in/other").uid()), (0o755, 0));
    }
}

#[test]
fn links_lead_inside_or_are_copied_as_links() {
    let case = Case::new();
    let secret = case.write("outside/secret", "the host's");
    symlink(&secret, case.path("guest/etc/abs")).unwrap();
    symlink("../../../../outside", case.path("guest/up")).unwrap();
    symlink(case.path("outside"), case.path("guest/dir")).unwrap();
    symlink("/srv/real", case.path("guest/etc/dangling")).unwrap();
    case.write("host/f", "new");
    // Out: a link in the last place is copied as it is; on the way it leads inside, where there is nothing.
    case.get("/etc/abs", "/got").unwrap();
    assert_eq!(read_link(case.path("host/got")).unwrap(), secret);
    for path in ["/up/secret", "/dir/secret", "/up/", "/dir/."] {
        assert!(case.get(path, "/stolen").is_err(), "{path}");
        assert!(symlink_metadata(case.path("host/stolen")).is_err(), "{path}");
    }
    // In: a destination's link is followed inside.
    for path in ["/up/secret", "/dir/new", "/up", "/dir", "/etc/abs"] {
        let _ = case.put("/f", path);
    }
    assert_eq!(case.text("outside/secret"), "the host's");
    assert_eq!(case.names("outside"), ["secret"]);
    case.put("/f", "/etc/dangling").unwrap();
    assert_eq!(case.text("guest/srv/real"), "new");
    assert!(symlink_metadata(case.path("guest/etc/dangling")).unwrap().is_symlink());
    // Deeper down a link is replaced, and never taken for the directory that it leads to.
    std::fs::create_dir_all(case.path("host/t/etc")).unwrap();
    case.write("host/t/etc/abs", "mine");
    case.put("/t/.", "/").unwrap();
    assert_eq!((case.text("guest/etc/abs"), case.text("outside/secret")), ("mine".into(), "the host's".into()));
    std::fs::create_dir_all(case.path("host/t/dir")).unwrap();
    case.write("host/t/dir/secret", "mine");
    assert!(case.put("/t/.", "/").is_err());
    assert_eq!(case.text("outside/secret"), "the host's");
    symlink("loop", case.path("guest/loop")).unwrap();
    assert!(case.put("/f", "/loop").is_err() && case.get("/loop/", "/x").is_err());
}

#[test]
fn devices_and_pipes_are_never_opened_nor_replaced() {
    let case = Case::new();
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&case.path("guest/srv/fifo"), mode).unwrap();
    case.write("guest/srv/f", "x");
    assert!(case.get("/srv/fifo", "/x").unwrap_err().to_string().contains("FIFO"));
    let left = case.get("/srv", "/out").unwrap();
    assert_eq!((left.len(), case.names("host/out")), (1, vec!["f".to_owned()]), "{left:?}");
    case.write("host/f", "new");
    assert!(case.put("/f", "/srv/fifo").unwrap_err().to_string().contains("FIFO"));
    assert!(symlink_metadata(case.path("guest/srv/fifo")).is_ok_and(|m| !m.is_file()));
}

#[test]
fn a_copy_that_is_stopped_leaves_the_old_file_and_nothing_else() {
    let case = Case::new();
    case.write("host/f", "new");
    case.write("guest/etc/f", "old");
    let mut stop = |bytes: u64| if bytes > 0 { Err(Error::general("stopped")) } else { Ok(()) };
    for to in ["/etc/f", "/srv/f"] {
        assert_eq!(case.copy(("host", "/f"), ("guest", to), &mut stop).unwrap_err().to_string(), "stopped");
    }
    assert_eq!(
        (case.text("guest/etc/f").as_str(), case.names("guest/etc").len(), case.names("guest/srv").len()),
        ("old", 1, 0)
    );
}

#[test]
fn holes_stay_holes_and_the_bytes_are_the_same() {
    let case = Case::new();
    let file = std::fs::File::create(case.path("host/f")).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", 20 << 20).unwrap();
    file.set_len(64 << 20).unwrap();
    case.put("/f", "/srv").unwrap();
    let (from, to) = (metadata(case.path("host/f")).unwrap(), metadata(case.path("guest/srv/f")).unwrap());
    assert_eq!(to.len(), from.len());
    assert!(to.blocks() <= from.blocks() + 64, "{} blocks from {}", to.blocks(), from.blocks());
    assert!(read(case.path("host/f")).unwrap() == read(case.path("guest/srv/f")).unwrap());
    // Files of /proc say that they are empty.
    let root = Root::open(Path::new("/proc")).unwrap();
    let rules = Rules { owner: (geteuid(), getegid()), set_id: false };
    let mut tick = |_| Ok(());
    let host = Root::open(&case.path("host")).unwrap();
    Transfer::new(&rules, &mut tick).run((&root, Path::new("/version")), (&host, Path::new("/v"))).unwrap();
    assert_eq!(case.text("host/v"), std::fs::read_to_string("/proc/version").unwrap());
}

#[test]
fn a_tree_is_not_copied_into_itself() {
    let case = Case::new();
    case.write("guest/srv/f", "x");
    std::fs::create_dir(case.path("guest/srv/sub")).unwrap();
    let result = case.copy(("guest", "/srv"), ("guest", "/srv/sub/new"), &mut |_| Ok(()));
    assert!(result.unwrap_err().to_string().contains("into itself"));
    // By its name before it is made: nothing can be met yet, and the end comes all the same.
    assert!(case.copy(("guest", "/srv/."), ("guest", "/srv/sub"), &mut |_| Ok(())).is_err());
}

/// Somebody in the guest swaps a directory for a link to the host's for as long as copies go on.
#[test]
fn a_directory_that_becomes_a_link_leads_nowhere() {
    let case = Case::new();
    case.write("outside/f", "the host's");
    case.write("host/in/f", "new");
    std::fs::create_dir(case.path("guest/swap")).unwrap();
    case.write("guest/swap/f", "the guest's");
    symlink(case.path("outside"), case.path("guest/trap")).unwrap();
    let stop = AtomicBool::new(false);
    let swap = (case.path("guest/swap"), case.path("guest/trap"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flags = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                let _ = nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, &swap.0, nix::fcntl::AT_FDCWD, &swap.1, flags);
            }
        });
        for n in 0..300 {
            let _ = case.put("/in/f", "/swap/f");
            let _ = case.put("/in/.", "/swap");
            let _ = case.get("/swap/f", &format!("/got{n}"));
            let _ = case.get("/swap", &format!("/tree{n}"));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!((case.text("outside/f").as_str(), case.names("outside").len()), ("the host's", 1));
    for name in case.names("host").iter().filter(|n| n.starts_with("got")) {
        assert_ne!(case.text(&format!("host/{name}")), "the host's", "{name}");
    }
    for name in case.names("host").iter().filter(|n| n.starts_with("tree")) {
        let path = case.path(&format!("host/{name}"));
        if symlink_metadata(&path).unwrap().is_dir() && path.join("f").exists() {
            assert_ne!(case.text(&format!("host/{name}/f")), "the host's", "{name}");
        }
    }
}
