//! An image without an init is given one: with a real jail, overlay and store, and a package manager that is a shell script,
//! so that no network is needed. What a newcomer would get wrong: what the script does is what real package managers leave
//! behind; what must be seen is the layer, not the script.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pronto::arch::Profiles;
use pronto::domain::report::{Quiet, Report, Step};
use pronto::domain::{Artifact, ImageConfig, Layer};
use pronto::ops::inspect;
use pronto::ops::isolation::Isolation;
use pronto::ops::provision::{Wish, provision};
use pronto::ops::{Ctx, Interrupt, Kind, Result};
use pronto::store::{Store, layers};
use pronto::sys::root::Root;

const UUID: &str = "0e4b1c5e-test";

/// Keeps what was begun.
#[derive(Default, Clone)]
struct Counted(Arc<Mutex<Vec<String>>>);

impl Report for Counted {
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn begin(&self, what: &str, _: Option<u64>) -> Box<dyn Step> {
        self.0.lock().unwrap().push(what.to_owned());
        Box::new(Quiet)
    }
}

struct Place {
    dir: tempfile::TempDir,
    ctx: Ctx,
}

/// A tree with a shell, mkdir, rm and an apt-get that runs `script`.
fn place(script: &str) -> Option<Place> {
    if !nix::unistd::geteuid().is_root() || !pronto::backend::direct::is_supported() {
        let why = b"skipped: a jail needs root, and a host that jails are written for\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), why);
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    for program in ["/bin/sh", "/bin/mkdir", "/bin/rm"] {
        copy_with_libraries(&tree, Path::new(program));
    }
    write(&tree, "etc/os-release", "ID=debian\nVERSION_CODENAME=bookworm\n");
    write(&tree, "etc/hosts", "192.0.2.1 the-image\n");
    write(&tree, "etc/doomed", "x");
    write(&tree, "usr/sbin/.keep", "");
    write(&tree, "usr/bin/apt-get", &format!("#!/bin/sh\nset -e\nfor last do :; done\n{script}\n"));
    std::fs::set_permissions(tree.join("usr/bin/apt-get"), PermissionsExt::from_mode(0o755)).unwrap();
    let store = Store::at(Some(&dir.path().join("store")));
    store.open().unwrap();
    std::fs::create_dir_all(store.run_dir(UUID)).unwrap();
    Some(Place { ctx: Ctx { store, root: None, report: Arc::new(Quiet), access: Default::default() }, dir })
}

fn write(tree: &Path, path: &str, text: &str) {
    let path = tree.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    pronto::sys::fs::write_volatile(&path, text.as_bytes(), 0o644).unwrap();
}

fn copy_with_libraries(tree: &Path, program: &Path) {
    let listing = pronto::sys::process::Tool::new("ldd").arg(program).output().unwrap();
    let listing = String::from_utf8(listing).unwrap();
    let libraries = listing.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    for file in libraries.chain([program.to_owned()]) {
        let target = tree.join(file.strip_prefix("/").unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, &target).unwrap();
    }
}

impl Place {
    fn provision(&self) -> Result<Option<Layer>> {
        let artifact = Artifact {
            label: "test/image".into(),
            layers: vec![Layer::Directory(self.dir.path().join("tree"))],
            digest: Some("sha256:of-the-image".into()),
            platform: None,
            config: ImageConfig::default(),
        };
        let profiles = Profiles::embedded();
        let root = Root::open(&self.dir.path().join("tree")).unwrap();
        let facts = inspect::tree(&root, &profiles)?;
        assert!(facts.init.is_none() && facts.profile.is_some(), "{facts:?}");
        let isolation = Isolation { userns: true, private: false };
        let wish = Wish { mirror: None, credentials: true, uuid: UUID, isolation, kernel: false };
        provision(&self.ctx, &artifact, &facts, &profiles, &wish, &mut Interrupt::collect()?)
    }

    fn nothing_is_left(&self) {
        let store = &self.ctx.store;
        let left: Vec<_> = std::fs::read_dir(store.layers()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
        assert_eq!(std::fs::read_dir(store.run_dir(UUID)).unwrap().count(), 0, "a run record is left");
        let claims = std::fs::read_dir(store.run().join("claims"));
        assert_eq!(claims.map_or(0, Iterator::count), 0, "a claim is left");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "a mount is left");
    }
}

#[test]
fn an_init_becomes_a_layer_and_the_image_stays_as_it_was() {
    let script = r#"
        [ "$DEBIAN_FRONTEND" = noninteractive ] && [ -x /usr/sbin/policy-rc.d ] && [ ! -e /proc/1/cwd/store ]
        mkdir -p /usr/lib/systemd /var/lib/apt/lists /var/log/apt /var/lib/systemd /run/x /tmp/x
        echo "$last" >>/var/log/apt/history.log
        if [ "$last" = update ]; then echo lists >/var/lib/apt/lists/x; exit; fi
        [ -e /var/lib/apt/lists/x ] && read answer && exit 9
        echo init >/usr/lib/systemd/systemd
        echo 0123 >/etc/machine-id
        echo seed >/var/lib/systemd/random-seed
        rm /etc/doomed"#;
    let Some(place) = place(script) else { return };
    let Some(Layer::Stored(key)) = place.provision().unwrap() else { panic!("no layer") };
    let layer = place.ctx.store.layer(&key);
    let read = |path: &str| std::fs::read_to_string(layer.join(path));
    assert_eq!(read("usr/lib/systemd/systemd").unwrap(), "init\n");
    assert_eq!(read("etc/machine-id").unwrap(), "");
    assert!(layer.join("var/log/apt").is_dir());
    for gone in [
        "var/log/apt/history.log",
        "var/lib/apt/lists/x",
        "var/lib/systemd/random-seed",
        "usr/sbin/policy-rc.d",
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
        ".pronto-provision",
        "run/x",
        "tmp/x",
    ] {
        assert!(!layer.join(gone).exists(), "{gone}");
    }
    let whiteout = std::fs::symlink_metadata(layer.join("etc/doomed")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0, "what was removed stays removed");
    let tree = place.dir.path().join("tree");
    assert_eq!(std::fs::read_to_string(tree.join("etc/hosts")).unwrap(), "192.0.2.1 the-image\n");
    assert!(tree.join("etc/doomed").exists() && !tree.join("usr/lib/systemd/systemd").exists());
    let meta = layers::meta(&place.ctx.store, &key).unwrap().unwrap();
    assert_eq!(meta.parent.as_deref(), Some("sha256:of-the-image"));
    assert_eq!(meta.boot, None, "it is on the disk");
    place.nothing_is_left();
}

#[test]
fn it_is_made_once() {
    let script = "mkdir -p /usr/lib/systemd; echo init >/usr/lib/systemd/systemd";
    let Some(mut place) = place(script) else { return };
    let counted = Counted::default();
    place.ctx.report = Arc::new(counted.clone());
    let keys: Vec<_> = std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| place.provision().unwrap().unwrap())).collect();
        both.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(keys[0], keys[1]);
    assert_eq!(place.provision().unwrap().unwrap(), keys[0]);
    assert_eq!(*counted.0.lock().unwrap(), ["installing systemd in test/image by apt-get"]);
    place.nothing_is_left();
}

#[test]
fn a_package_manager_that_fails_leaves_nothing_and_says_why() {
    let script =
        "[ \"$last\" = update ] && exit 0; echo 'Reading…'; echo \"E: Unable to locate package\" >&2; exit 100";
    let Some(place) = place(script) else { return };
    let error = place.provision().unwrap_err();
    assert_eq!(error.kind(), Kind::Create);
    assert_eq!(error.to_string(), "apt-get cannot install systemd and dbus in 'test/image'");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "E: Unable to locate package");
    assert!(error.cure().unwrap().contains("--mirror") && error.cure().unwrap().contains("pronto run test/image"));
    assert!(layers::keys(&place.ctx.store).unwrap().is_empty());
    place.nothing_is_left();
}

#[test]
fn an_image_without_a_package_manager_says_so() {
    let Some(place) = place("exit 1") else { return };
    std::fs::remove_file(place.dir.path().join("tree/usr/bin/apt-get")).unwrap();
    let error = place.provision().unwrap_err();
    assert_eq!(error.to_string(), "'test/image' has no init, and cannot be given one");
    assert!(std::error::Error::source(&error).unwrap().to_string().starts_with("it has no package manager"));
    assert!(error.cure().unwrap().contains("pronto run test/image"));
    place.nothing_is_left();
}
