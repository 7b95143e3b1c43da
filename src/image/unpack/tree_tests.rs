//! Tests of the extractor: links, owners, whiteouts, and every way out of the tree that an archive may try. What a newcomer
//! would get wrong: most of them need root, for owners and device nodes.

use super::*;
use crate::image::testing::{Header, Tar, entry};
use crate::image::unpack::tar::Reader;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A directory with a victim beside the tree: nothing may ever change there.
struct Place {
    dir: tempfile::TempDir,
    below: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may be deeper than what removes the rest can follow.
        let _ = crate::sys::fs::remove_tree(&self.tree());
    }
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("tree")).unwrap();
        std::fs::create_dir_all(dir.path().join("outside")).unwrap();
        crate::image::testing::put(&dir.path().join("outside/secret"), b"secret");
        Place { dir, below: false }
    }

    /// As a layer that lies on others.
    fn above_others() -> Place {
        let mut place = Place::new();
        place.below = true;
        place
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// Unpacks an archive; the error is a text.
    fn unpack(&self, archive: &[u8]) -> std::result::Result<Summary, String> {
        let mut tree = Tree::new(File::open(self.tree()).unwrap().into(), self.below);
        let mut reader = Reader::new(archive);
        let text = |e: Fault| match e {
            Fault::Refused(why) => why,
            Fault::Io(error) => format!("io: {error}"),
        };
        while let Some(entry) = reader.next(false).map_err(|e| e.to_string())? {
            if let Some(file) = tree.add(&entry).map_err(text)? {
                let mut out = File::from(file.0);
                reader.body(|piece| io::Write::write_all(&mut out, piece)).unwrap();
                tree.seal(&NewFile(out.into()), &entry).map_err(text)?;
            }
        }
        let result = tree.finish().map_err(text);
        let outside: Vec<_> = std::fs::read_dir(self.dir.path().join("outside")).unwrap().collect();
        assert_eq!(outside.len(), 1, "something was made outside");
        assert_eq!(std::fs::read(self.dir.path().join("outside/secret")).unwrap(), b"secret");
        result
    }

    fn refuses(&self, tar: Tar, why: &str) {
        let error = self.unpack(&tar.end()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.tree().join(path)).unwrap()
    }

    fn meta(&self, path: impl AsRef<Path>) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.tree().join(path)).unwrap()
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let meta = self.meta(path);
        meta.file_type().is_char_device() && meta.rdev() == 0
    }

    fn opaque(&self, path: &str) -> bool {
        let dir = File::open(self.tree().join(path)).unwrap();
        raw::get_xattr(dir.as_fd(), OPAQUE).unwrap().as_deref() == Some(b"y")
    }
}

#[test]
fn names_are_cleaned() {
    assert_eq!(clean(b"./usr//lib/./x/").unwrap(), b"usr/lib/x");
    assert_eq!(clean(b"/etc/passwd").unwrap(), b"etc/passwd");
    assert_eq!(clean(b"./").unwrap(), b"");
    for bad in [&b".."[..], b"a/../b", b"../x", b"/..", b"a\0b"] {
        assert!(clean(bad).is_err());
    }
    assert!(clean(b"..a/b..").is_ok());
}

#[test]
fn entries_that_climb_are_refused() {
    for name in ["../outside/x", "a/../../outside/x", "/../outside/x", ".."] {
        Place::new().refuses(Tar::new().file(name, b"x"), "climbs out");
    }
    Place::new().refuses(Tar::new().hard_link("x", "../outside/secret"), "leads out");
    Place::new().refuses(Tar::new().file("a/.wh...", b""), "whiteout of nothing");
}

#[test]
fn a_link_made_before_never_leads_out() {
    for target in ["/outside", "../outside", "../../../../../../outside", "/../outside"] {
        let place = Place::new();
        // Through the link as a parent: it leads to a directory *inside*, which is made.
        place.unpack(&Tar::new().symlink("l", target).file("l/x", b"in").end()).unwrap();
        assert_eq!(place.text("outside/x"), "in", "{target}");
        // The link as the last name is replaced, never followed.
        let place = Place::new();
        let secret = format!("{target}/secret");
        place.unpack(&Tar::new().symlink("l", &secret).file("l", b"mine").end()).unwrap();
        assert!(place.meta("l").is_file());
        // A hard link to the link is another name of the link itself.
        let place = Place::new();
        place.unpack(&Tar::new().symlink("l", &secret).hard_link("h", "l").end()).unwrap();
        assert!(place.meta("h").is_symlink());
        // ... and writing to that name replaces it.
        let place = Place::new();
        place.unpack(&Tar::new().symlink("l", &secret).hard_link("h", "l").file("h", b"mine").end()).unwrap();
        // A hard link through a link as a parent stays inside, where there is nothing.
        Place::new().refuses(Tar::new().symlink("l", target).hard_link("h", "l/secret"), "does not hold");
        // Modes and owners of a directory entry over a link are not applied through it.
        let place = Place::new();
        let wide = Header { mode: 0o777, uid: 7, ..entry(b'5', "l") };
        place.unpack(&Tar::new().symlink("l", target).add(wide, b"").end()).unwrap();
        assert!(place.meta("l").is_dir(), "the link leads nowhere inside, so the directory replaces it");
    }
}

#[test]
fn a_host_path_is_a_path_inside() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    let tar = Tar::new().symlink("l", outside.as_os_str().as_encoded_bytes()).file("l/secret", b"inside");
    place.unpack(&tar.end()).unwrap();
    let inside = outside.strip_prefix("/").unwrap().join("secret");
    assert_eq!(place.text(inside.to_str().unwrap()), "inside");
}

#[test]
fn a_link_to_a_directory_is_kept_and_used() {
    let place = Place::new();
    let tar =
        Tar::new().dir("usr").dir("usr/lib").symlink("lib", "usr/lib").dir("lib/").file("lib/x", b"x").dir("lib/d");
    place.unpack(&tar.end()).unwrap();
    assert!(place.meta("lib").is_symlink() && place.meta("usr/lib/d").is_dir());
    assert_eq!(place.text("usr/lib/x"), "x");
}

#[test]
fn a_parent_behind_a_link_that_changes_is_looked_up_anew() {
    let place = Place::new();
    let tar = Tar::new().dir("a").dir("b").symlink("l", "a").file("l/1", b"").symlink("l", "b").file("l/2", b"");
    place.unpack(&tar.end()).unwrap();
    assert!(place.meta("a/1").is_file() && place.meta("b/2").is_file());
    let place = Place::new();
    let tar = Tar::new().file("d/x/1", b"").file("d", b"now a file").dir("d").file("d/x/2", b"");
    place.unpack(&tar.end()).unwrap();
    assert!(place.meta("d/x/2").is_file() && !place.tree().join("d/x/1").exists());
}

#[test]
fn loops_and_files_as_parents_are_refused() {
    Place::new().refuses(Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b""), "loop");
    Place::new().refuses(Tar::new().symlink("a", "a/b").file("a/x", b""), "loop");
    Place::new().refuses(Tar::new().file("f", b"").file("f/x", b""), "not a directory");
    Place::new().refuses(Tar::new().symlink("a", "gone/../../x").file("a/x", b""), "'..'");
    Place::new().refuses(Tar::new().file(".", b""), "only be a directory");
    Place::new().refuses(Tar::new().symlink("a", ""), "link to nothing");
    Place::new().refuses(Tar::new().dir("d").hard_link("h", "d"), "is a directory");
    Place::new().refuses(Tar::new().hard_link("h", "nothing"), "does not hold");
}

#[test]
fn overlayfs_marks_that_come_in_an_archive_are_refused() {
    for name in [&b"trusted.overlay.opaque"[..], b"trusted.overlay.redirect", b"trusted.overlay.metacopy"] {
        let key = [b"SCHILY.xattr.", name].concat();
        Place::new().refuses(Tar::new().pax(&[(&key, b"y")]).dir("d"), "belongs to overlayfs");
        Place::new().refuses(Tar::new().pax(&[(&key, b"/etc")]).file("f", b""), "belongs to overlayfs");
    }
    Place::new().refuses(Tar::new().add(entry(b'3', "c"), b""), "device 0:0");
    Place::new().refuses(Tar::new().add(entry(b'4', "b"), b""), "device 0:0");
    // A hard link cannot multiply a whiteout either.
    Place::new().refuses(Tar::new().file(".wh.a", b"").hard_link("b", "a"), "does not hold");
}

/// What only the layers below can say is told, by real paths, as long as nothing else has come in its place.
#[test]
fn what_is_left_to_the_layers_below() {
    let place = Place::above_others();
    let tar = Tar::new()
        .symlink("alias", "usr/share")
        .file("alias/doc/f", b"")
        .file("named/later/f", b"")
        .dir("named/")
        .file("gone/x/f", b"")
        .file("gone", b"a file now")
        .hard_link("etc/link", "etc/lower")
        .hard_link("alias/second", "etc/link")
        .hard_link("early", "lower")
        .file("early", b"something else")
        .hard_link("away", "lower")
        .file(".wh.away", b"")
        .hard_link("lower", "lower")
        .file("own", b"")
        .hard_link("twin", "own")
        .hard_link("own", "below")
        .end();
    let loose = place.unpack(&tar).unwrap().loose;
    let shown = |name: &Name| String::from_utf8(name.0.clone()).unwrap();
    let parents: Vec<String> = loose.parents.iter().map(shown).collect();
    assert_eq!(parents, ["etc", "named/later", "usr", "usr/share", "usr/share/doc"]);
    let links: Vec<_> = loose.links.iter().map(|(link, target)| (shown(link), shown(target))).collect();
    let wanted = [("etc/link", "etc/lower"), ("usr/share/second", "etc/link"), ("away", "lower"), ("own", "below")];
    assert_eq!(links, wanted.map(|(link, target)| (link.to_owned(), target.to_owned())));
    assert!(["etc/link", "usr/share/second", "own"].iter().all(|link| place.is_whiteout(link)));
    assert!(!place.tree().join("lower").exists() && place.meta("twin").is_file());

    for (tar, why) in [
        (Tar::new().file(".wh.a", b"").hard_link("b", "a"), "does not hold"),
        (Tar::new().file(".wh.a", b"").hard_link("b", "a/c"), "does not hold"),
        (Tar::new().file("a", b"").hard_link("b", "a/c"), "does not hold"),
        (Tar::new().symlink("a", "a").hard_link("b", "a/c"), "does not hold"),
        (Tar::new().hard_link("b", "../outside/secret"), "leads out"),
        (Tar::new().hard_link("b", "/"), "leads out"),
    ] {
        Place::above_others().refuses(tar, why);
    }
}

/// What a layer leaves to those below it stands in its record, so there is an end to it.
#[test]
fn what_is_left_open_has_an_end() {
    let place = Place::above_others();
    let long = format!("/{}", "a".repeat(250)).repeat(15).into_bytes();
    let deep = |n: usize| [n.to_string().as_bytes(), &long, b"/f"].concat();
    let tar = (1000..1700).fold(Tar::new(), |tar, n| tar.gnu_long(b'L', &deep(n)).file("x", b""));
    let parents = place.unpack(&tar.end()).unwrap().loose.parents;
    let (first, last) = (deep(1000), deep(1699));
    assert!(parents.iter().any(|Name(path)| first.starts_with(path)), "the first ones are told");
    assert!(!parents.iter().any(|Name(path)| last.starts_with(path)), "the others are made all the same");
    assert!(place.meta(OsStr::from_bytes(&last)).is_file());

    let far = |n: usize| [&b"t/".repeat(1990)[..], n.to_string().as_bytes()].concat();
    let link = |tar: Tar, n: usize| tar.gnu_long(b'K', &far(n)).hard_link(format!("link{n}"), "x");
    let error = Place::above_others().unpack(&(0..4200).fold(Tar::new(), link).end()).unwrap_err();
    assert!(error.contains("it is a bomb"), "{error}");
}

#[test]
fn whiteouts_become_overlayfs_marks() {
    let place = Place::new();
    let tar = Tar::new()
        .file("etc/.wh.passwd", b"")
        .file("opt/.wh..wh..opq", b"")
        .file(".wh.gone-then-file", b"")
        .file("gone-then-file", b"new")
        .file(".wh.gone-then-dir", b"")
        .dir("gone-then-dir")
        .file("kept", b"kept")
        .file(".wh.kept", b"")
        .dir("dir-then-gone")
        .file("dir-then-gone/x", b"x")
        .file(".wh.dir-then-gone", b"")
        .file(".wh..wh.plnk", b"");
    let summary = place.unpack(&tar.end()).unwrap();
    assert!(place.is_whiteout("etc/passwd") && place.opaque("opt") && !place.opaque("etc"));
    assert_eq!(place.text("gone-then-file"), "new");
    assert!(place.opaque("gone-then-dir"), "the lower one must not shine through");
    assert_eq!(place.text("kept"), "kept", "a whiteout speaks of lower layers only");
    assert!(place.opaque("dir-then-gone") && place.text("dir-then-gone/x") == "x");
    assert!(!place.tree().join(".wh..wh.plnk").exists() && !summary.opaque_root);
    assert!(Place::new().unpack(&Tar::new().file(".wh..wh..opq", b"").end()).unwrap().opaque_root);
}

#[test]
fn owners_modes_times_devices_and_capabilities() {
    let place = Place::new();
    // cap_net_raw=ep, as setcap(8) writes it (struct vfs_cap_data, version 2).
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let of = |flag, name: &str, mode, uid, gid| Header { mode, uid, gid, ..entry(flag, name) };
    let tar = Tar::new()
        .add(of(b'5', ".", 0o751, 3, 4), b"")
        .add(of(b'5', "mail", 0o2775, 0, 8), b"")
        .file("mail/box", b"")
        .add(Header { size: 1, ..of(b'0', "su", 0o4755, 5, 6) }, b"x")
        .pax(&[(b"SCHILY.xattr.security.capability", capability)])
        .add(of(b'0', "ping", 0o755, 5, 6), b"")
        .pax(&[(b"SCHILY.xattr.user.note", b"hi")])
        .dir("noted")
        .add(Header { device: (1, 3), ..of(b'3', "null", 0o666, 0, 0) }, b"")
        .add(of(b'6', "pipe", 0o640, 1, 2), b"")
        .add(Header { link: b"su".to_vec(), ..of(b'2', "link", 0o777, 9, 10) }, b"")
        .add(of(b'5', "sealed", 0o000, 0, 0), b"")
        .file("sealed/in", b"in");
    let summary = place.unpack(&tar.end()).unwrap();
    assert_eq!(summary.lost, (0, String::new()));
    let look = |path: &str| {
        let m = place.meta(path);
        (m.permissions().mode() & 0o7777, m.uid(), m.gid(), m.mtime())
    };
    let then = 1_000_000_000;
    assert_eq!(look("."), (0o751, 3, 4, then));
    assert_eq!(look("mail"), (0o2775, 0, 8, then));
    assert_eq!(look("mail/box"), (0o644, 0, 0, then), "a setgid directory hands nothing down here");
    assert_eq!(look("su"), (0o4755, 5, 6, then));
    assert_eq!(look("pipe"), (0o640, 1, 2, then));
    assert_eq!(look("link"), (0o777, 9, 10, then));
    assert_eq!(look("sealed"), (0, 0, 0, then));
    assert!(place.meta("pipe").file_type().is_fifo() && place.meta("null").rdev() == makedev(1, 3));
    let get =
        |path: &str, name: &[u8]| raw::get_xattr(File::open(place.tree().join(path)).unwrap().as_fd(), name).unwrap();
    assert_eq!(get("ping", b"security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(get("noted", b"user.note").as_deref(), Some(&b"hi"[..]));
}

#[test]
fn names_that_are_not_text() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    place.unpack(&Tar::new().file(b"caf\xe9/\xff\n", b"x").end()).unwrap();
    assert!(place.tree().join(std::ffi::OsStr::from_bytes(b"caf\xe9/\xff\n")).is_file());
}

#[test]
fn hard_links_share_and_may_repeat() {
    let place = Place::new();
    let tar = Tar::new()
        .file("a", b"1")
        .hard_link("b", "./a")
        .hard_link("b", "/a")
        .hard_link("a", "a")
        .file("c", b"2")
        .hard_link("c", "b");
    place.unpack(&tar.end()).unwrap();
    assert_eq!(place.meta("a").ino(), place.meta("c").ino());
    assert_eq!((place.meta("a").nlink(), place.text("c")), (3, "1".to_owned()));
}

#[test]
fn a_missing_parent_is_an_ordinary_directory() {
    let place = Place::new();
    place.unpack(&Tar::new().file("a/b/c", b"").end()).unwrap();
    assert_eq!(place.meta("a/b").permissions().mode() & 0o7777, 0o755);
}

#[test]
fn names_and_parts_of_any_length() {
    // 16 parts of 255 bytes and their slashes are PATH_MAX, the longest name that there is.
    let part = |c: &[u8]| c.repeat(255);
    let longest = (0..16).map(|_| part(b"p")).collect::<Vec<_>>().join(&b'/');
    let place = Place::new();
    place.unpack(&Tar::new().pax(&[(b"path", &longest)]).file("short", b"deep").end()).unwrap();
    let mut dir = raw::open_dir(File::open(place.tree()).unwrap().as_fd(), &longest[..15 * 256 - 1]).unwrap();
    assert_eq!(fstatat(&dir, part(b"p").as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW).unwrap().st_size, 4);
    // As many parts as fit.
    let most = [b"d/".repeat(2047).as_slice(), b"f"].concat();
    place.unpack(&Tar::new().pax(&[(b"path", &most)]).file("short", b"deeper").end()).unwrap();
    dir = raw::open_dir(File::open(place.tree()).unwrap().as_fd(), &most[..2047 * 2 - 1]).unwrap();
    assert_eq!(fstatat(&dir, b"f".as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW).unwrap().st_size, 6);
    let too_long = b"x".repeat(256);
    for tar in [Tar::new().gnu_long(b'L', &too_long), Tar::new().gnu_long(b'L', &[&too_long[..], b"/f"].concat())] {
        Place::new().refuses(tar.file("short", b""), "too long for this file system");
    }
    // Longer than a path by a link that stands before it.
    let inner = [b"e/".repeat(2000).as_slice(), b"e"].concat();
    let tar = Tar::new().gnu_long(b'K', &inner).symlink("l", "x").gnu_long(b'L', &[b"l/", &inner[..]].concat());
    Place::new().refuses(tar.file("short", b""), "too long for this file system");
}

/// Each link leads two thousand directories further down: deeper than descriptors, stack and paths reach.
#[test]
fn a_tree_without_end_is_made_replaced_and_removed() {
    let place = Place::new();
    let inner = b"a/".repeat(1900);
    let mut tar = Tar::new().dir("top");
    for n in 0..8 {
        let from = if n == 0 { b"top/".to_vec() } else { format!("l{}/", n - 1).into_bytes() };
        let deeper = [&from[..], &inner].concat();
        tar = tar.gnu_long(b'L', &[&deeper[..], b"f"].concat()).file("short", b"");
        tar = tar.gnu_long(b'K', &deeper).symlink(format!("l{n}"), "x");
    }
    let small = std::thread::Builder::new().stack_size(512 << 10);
    let archive = tar.clone().end();
    let spawned = std::thread::scope(|scope| {
        small.spawn_scoped(scope, || place.unpack(&archive).unwrap()).unwrap().join().unwrap()
    });
    assert!(!spawned.opaque_root && place.meta("top/a/a/a").is_dir());
    Place::new().unpack(&tar.file("top", b"a file in place of all that").end()).unwrap();
    crate::sys::fs::remove_tree(&place.tree()).unwrap();
}

#[test]
fn links_that_lead_on_and_on() {
    // Every parent is a link to the next, which is not there yet: as many as the kernel follows, and no more.
    let chain = |n: usize| {
        let links = (0..n).fold(Tar::new(), |tar, at| tar.symlink(format!("l{at}"), format!("l{}", at + 1)));
        links.file("l0/f", b"end")
    };
    let place = Place::new();
    place.unpack(&chain(39).end()).unwrap();
    assert_eq!(place.text("l39/f"), "end");
    Place::new().refuses(chain(200), "loop of links");
    // A link whose target doubles at each turn.
    let tar = (0..60).fold(Tar::new(), |tar, at| tar.symlink(format!("d{at}"), format!("d{0}/../d{0}/x", at + 1)));
    assert!(Place::new().unpack(&tar.file("d0/f", b"").end()).is_err());
}

/// Whatever comes twice: the later one counts, and nothing is written through the first.
#[test]
fn the_later_of_two_entries_counts() {
    type Add = fn(Tar) -> Tar;
    let kinds: [(&str, Add); 6] = [
        ("file", |tar| tar.file("x", b"later")),
        ("directory", |tar| tar.dir("x").file("x/in", b"")),
        ("symlink", |tar| tar.symlink("x", "/outside/secret")),
        ("hard link", |tar| tar.hard_link("x", "other")),
        ("pipe", |tar| tar.add(entry(b'6', "x"), b"")),
        ("device", |tar| tar.add(Header { device: (1, 3), ..entry(b'3', "x") }, b"")),
    ];
    for (first, add_first) in kinds {
        for (second, add) in kinds {
            let place = Place::new();
            place.unpack(&add(add_first(Tar::new().file("other", b"other"))).end()).unwrap();
            let kind = place.meta("x").file_type();
            let right = match second {
                "file" => kind.is_file() && place.text("x") == "later",
                "directory" => kind.is_dir() && place.meta("x/in").is_file(),
                "symlink" => kind.is_symlink(),
                "hard link" => place.meta("x").ino() == place.meta("other").ino(),
                "pipe" => kind.is_fifo(),
                _ => kind.is_char_device(),
            };
            assert!(right, "{first}, then {second}");
            assert_eq!(place.text("other"), "other", "{first}, then {second}");
        }
    }
}

#[test]
fn attributes_that_linux_does_not_take() {
    let long = [b"SCHILY.xattr.user.", b"n".repeat(300).as_slice()].concat();
    for (key, value) in [
        (b"SCHILY.xattr.user.a\0b".as_slice(), b"x".as_slice()),
        (&long, b"x"),
        (b"SCHILY.xattr.user.big", &[1; 70_000]),
        (b"SCHILY.xattr.security.capability", b"no capability"),
        (b"SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0\xff\0\x07\0\0\0\0\0"),
    ] {
        for tar in [Tar::new().pax(&[(key, value)]).file("f", b""), Tar::new().pax(&[(key, value)]).dir("d")] {
            Place::new().refuses(tar, "is none that Linux takes");
        }
    }
}

#[test]
fn whiteouts_of_what_is_not_there() {
    let place = Place::new();
    place.unpack(&Tar::new().file("no/such/.wh.thing", b"").file("nor/.wh..wh..opq", b"").end()).unwrap();
    assert!(place.is_whiteout("no/such/thing") && place.opaque("nor"));
    Place::new().refuses(Tar::new().file("f", b"").file("f/.wh.x", b""), "not a directory");
}
