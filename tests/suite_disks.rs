//! Disk images without a guest: every format comes to the same tree, and everything that is wrong with one is told in a sentence and
//! leaves nothing: no layer, no loop device, no mount. What a newcomer would get wrong: the images are made by the real tools;
//! bytes are changed here only where no tool would write them. It needs root, for what it looks at is mounted.

mod common;

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::disk::{Disk, MIB, ext4, fat, loops, taken};
use common::http::{Response, Server};
use common::pronto::BINARY;
use common::run::Run;
use nix::sys::signal::Signal;
use pronto::domain::{Artifact, Quiet, Report, Step};
use pronto::ops::images::obtain;
use pronto::ops::{Ctx, Error, tree};
use pronto::store::{Store, images as records};
use pronto::sys::overlay::Overlay;
use pronto::sys::process::{Tool, find_program};
use pronto::sys::root::Root;

#[derive(Debug, Default)]
struct Said(Mutex<Vec<String>>);

impl Report for Said {
    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
    fn warn(&self, line: &str) {
        self.note(line);
    }
    fn begin(&self, _: &str, _: Option<u64>) -> Box<dyn Step> {
        Box::new(Quiet)
    }
}

/// A store of a test's own, and a place for its images.
struct Bench {
    dir: tempfile::TempDir,
    ctx: Ctx,
    said: Arc<Said>,
    mounts: String,
}

impl Bench {
    /// `None`, with a word about it, where nothing can be mounted or a tool is missing.
    fn new(tools: &[&str]) -> Option<Bench> {
        let missing: Vec<&&str> = tools.iter().filter(|tool| find_program(tool).is_none()).collect();
        if !missing.is_empty() || !nix::unistd::geteuid().is_root() {
            let text = format!("skipped: needs root, and {missing:?} (contrib/install-deps.sh test)\n");
            std::io::stderr().write_all(text.as_bytes()).unwrap();
            return None;
        }
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::at(Some(&dir.path().join("store")));
        store.open().unwrap();
        let said = Arc::new(Said::default());
        let ctx = Ctx { store, root: None, report: Arc::<Said>::clone(&said), access: Default::default() };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        Some(Bench { dir, ctx, said, mounts })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn get(&self, image: &Path) -> Result<Artifact, Error> {
        obtain(&self.ctx, image.to_str().unwrap(), None, false, None)
    }

    /// The error as a user reads it, with nothing left behind.
    #[track_caller]
    fn fails(&self, image: &Path, words: &[&str]) -> String {
        let error = match self.get(image) {
            Ok(artifact) => panic!("{} is taken: {artifact:?}", image.display()),
            Err(error) => {
                let mut text = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    text += &format!(": {cause}");
                    source = cause.source();
                }
                text
            }
        };
        for word in words {
            assert!(error.contains(word), "'{word}' is not in: {error}");
        }
        self.is_clean();
        error
    }

    #[track_caller]
    fn is_clean(&self) {
        let store = &self.ctx.store;
        let left: Vec<_> = std::fs::read_dir(store.layers()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(left.is_empty(), "{left:?} is left");
        assert!(records::all(store).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(store.run().join("claims")).map(Iterator::count).unwrap_or(0), 0, "claims");
        for _ in 0..100 {
            if loops(self.dir.path()).is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(loops(self.dir.path()), Vec::<String>::new());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        // Tests run side by side: only this one's directory counts.
        let dir = self.dir.path().to_string_lossy().into_owned();
        let ours = |text: &str| text.lines().filter(|l| l.contains(&dir)).count();
        assert_eq!(ours(&mounts), ours(&self.mounts), "{mounts}");
    }

    /// What a guest would see.
    fn root(&self, artifact: &Artifact) -> Root {
        let lowers = tree::lowers(&self.ctx.store, artifact).unwrap();
        Root::from_fd(Overlay { lowers, ..Overlay::default() }.detached().unwrap(), Path::new("guest"))
    }

    /// A small system: an ext4 with `/etc/fstab` and a megabyte of data, a FAT with two files.
    fn parts(&self) -> (PathBuf, PathBuf) {
        let (tree, root, boot) = (self.path("tree"), self.path("root"), self.path("boot"));
        for dir in ["etc", "usr", "boot/firmware"] {
            std::fs::create_dir_all(tree.join(dir)).unwrap();
        }
        common::write(
            tree.join("etc/fstab"),
            "PARTUUID=1234abcd-01 /boot/firmware vfat defaults\nLABEL=rootfs / ext4 x\n",
        );
        let data: Vec<u8> = (0..MIB as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        common::write(tree.join("usr/data"), &data);
        ext4(&root, 48 * MIB, &tree, "");
        fat(&boot, 16 * MIB, "BOOTFS", &[("cmdline.txt", b"quiet\n"), ("kernel8.img", &data)]);
        (root, boot)
    }

    /// The same as a card of a Raspberry Pi.
    fn card(&self) -> PathBuf {
        let (root, boot) = self.parts();
        let table = "label: dos\nlabel-id: 0x1234abcd\nstart=8MiB, size=16MiB, type=c\nstart=24MiB, type=83\n";
        let disk = Disk::new(&self.path("card.img"), 72 * MIB, table);
        disk.put(&boot, 8 * MIB).put(&root, 24 * MIB);
        disk.path
    }
}

const TOOLS: [&str; 5] = ["sfdisk", "mkfs.ext4", "mkfs.vfat", "mcopy", "debugfs"];

fn shell(script: &str, words: &[&Path]) {
    Tool::new("sh").args(["-ec", script, "sh"]).args(words).output().unwrap();
}

/// Changes a few bytes of a copy.
fn spoilt(image: &Path, name: &str, at: u64, bytes: &[u8]) -> PathBuf {
    let copy = image.with_file_name(name);
    shell("cp --sparse=always \"$1\" \"$2\"", &[image, &copy]);
    let mut file = std::fs::File::options().write(true).open(&copy).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
    copy
}

/// A copy that ends early.
fn cut(image: &Path, name: &str, length: u64) -> PathBuf {
    let copy = spoilt(image, name, 0, &[]);
    std::fs::File::options().write(true).open(&copy).unwrap().set_len(length).unwrap();
    copy
}

#[test]
fn every_format_is_the_same_tree_and_none_costs_more_than_its_data() {
    let Some(bench) = Bench::new(&[&TOOLS[..], &["qemu-img", "python3", "zstd", "xz"]].concat()) else { return };
    let card = bench.card();
    let data = std::fs::read(bench.path("tree/usr/data")).unwrap();
    let used = taken(&card);
    let makers = [
        ("a.img", "cp --sparse=never \"$1\" \"$2\""),
        ("a.img.gz", "gzip -1 <\"$1\" >\"$2\""),
        ("a.img.xz", "xz -1 -T2 --block-size=8MiB <\"$1\" >\"$2\""),
        ("two.img.xz", "{ head -c 30000000 \"$1\" | xz -1; tail -c +30000001 \"$1\" | xz -1; } >\"$2\""),
        ("a.img.zst", "zstd -q -1 <\"$1\" >\"$2\""),
        (
            "a.img.zip",
            "python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[2], \"w\", zipfile.ZIP_DEFLATED).write(sys.argv[1], \"a.img\")' \"$1\" \"$2\"",
        ),
        ("a.qcow2", "qemu-img convert -O qcow2 \"$1\" \"$2\""),
        ("packed.qcow2", "qemu-img convert -c -O qcow2 -o compression_type=zstd \"$1\" \"$2\""),
        ("a.qcow2.xz", "qemu-img convert -O qcow2 \"$1\" \"$2.tmp\" && xz -1 <\"$2.tmp\" >\"$2\" && rm \"$2.tmp\""),
        ("a.tar", "cp --sparse=always \"$1\" disk.raw && tar -cf \"$2\" disk.raw && rm disk.raw"),
        ("sparse.tar.gz", "cp --sparse=always \"$1\" disk.raw && tar -cSzf \"$2\" disk.raw && rm disk.raw"),
    ];
    for (name, script) in makers {
        let image = bench.path(name);
        shell(&format!("cd \"$(dirname \"$1\")\"; {script}"), &[&card, &image]);
        let artifact = bench.get(&image).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let root = bench.root(&artifact);
        assert!(root.read("usr/data", 2 * MIB).unwrap() == data, "{name}");
        assert!(root.read("boot/firmware/kernel8.img", 2 * MIB).unwrap() == data, "{name}");
        assert_eq!(root.read_text("boot/firmware/cmdline.txt").unwrap(), "quiet\n", "{name}");
        assert!(root.read_text("etc/fstab").unwrap().lines().all(|l| l.starts_with('#')), "{name}");
        let pronto::domain::Layer::Stored(key) = &artifact.layers[0] else { panic!("{artifact:?}") };
        let disk = bench.ctx.store.layer(key).join("disk.raw");
        assert_eq!(std::fs::metadata(&disk).unwrap().len(), 72 * MIB, "{name}");
        assert!(taken(&disk) <= used + MIB, "{name}: {} of {used} bytes", taken(&disk));
        assert_eq!(artifact.digest.as_deref().map(|d| d.len()), Some(71), "{name}");
        drop(root);
        pronto::ops::images::rmi(&bench.ctx, image.to_str().unwrap(), None).unwrap();
        bench.is_clean();
    }
    assert!(bench.said.0.lock().unwrap().iter().any(|line| line.contains("2 entries of fstab")));
}

/// From a server that breaks off in the middle of each: a stream, and a format that must be read here and there.
#[test]
fn a_disk_comes_from_a_server_too() {
    let Some(bench) = Bench::new(&[&TOOLS[..], &["qemu-img", "xz"]].concat()) else { return };
    let card = bench.card();
    for (name, script) in
        [("a.img.xz", "xz -1 <\"$1\" >\"$2\""), ("a.qcow2", "qemu-img convert -O qcow2 \"$1\" \"$2\"")]
    {
        let file = bench.path(name);
        shell(script, &[&card, &file]);
        let body = std::fs::read(&file).unwrap();
        let half = body.len() / 2;
        let server = Server::start(move |request| {
            // Nothing but the image: a checksum file beside it is looked for, too.
            if request.path.ends_with(name) {
                let cut = (request.method == "GET" && request.from.is_none()).then_some(half);
                return Response { cut, headers: vec!["ETag: \"one\"".into()], ..Response::ok(body.clone()) };
            }
            Response::status(404, &[], "")
        });
        let url = server.url(name);
        let artifact = obtain(&bench.ctx, &url, None, false, None).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(bench.root(&artifact).read_text("boot/firmware/cmdline.txt").unwrap(), "quiet\n", "{name}");
        assert!(server.requests().iter().any(|r| r.from.is_some()), "it went on where it broke off");
        pronto::ops::images::rmi(&bench.ctx, &url, None).unwrap();
        bench.is_clean();
    }
}

#[test]
fn file_systems_without_a_table_and_a_gpt() {
    let Some(bench) = Bench::new(&[&TOOLS[..], &["mksquashfs", "mkfs.erofs"]].concat()) else { return };
    let (root, boot) = bench.parts();
    shell(
        "mksquashfs \"$1\" \"$2\" -quiet -noappend; mkfs.erofs \"$3\" \"$1\"",
        &[&bench.path("tree"), &bench.path("s"), &bench.path("e")],
    );
    let table = "label: gpt\nstart=1MiB, size=16MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n\
                 start=17MiB, size=48MiB, type=B921B045-1DF0-41C3-AF44-4C6F280D3FAE, name=root\n";
    let gpt = Disk::new(&bench.path("gpt"), 68 * MIB, table);
    gpt.put(&boot, MIB).put(&root, 17 * MIB);
    // The first table is damaged, and the copy at the end is used.
    let half = spoilt(&gpt.path, "half", 512 + 16, &[0xff; 4]);
    for (image, kind) in [
        (&root, "ext4"),
        (&bench.path("s"), "squashfs"),
        (&bench.path("e"), "erofs"),
        (&gpt.path, "ext4"),
        (&half, "ext4"),
    ] {
        if !std::fs::read_to_string("/proc/filesystems").unwrap().contains(&format!("\t{kind}\n")) {
            std::io::stderr().write_all(format!("skipped: this kernel has no {kind}\n").as_bytes()).unwrap();
            continue;
        }
        let artifact = bench.get(image).unwrap_or_else(|e| panic!("{}: {e:?}", image.display()));
        let seen = bench.root(&artifact);
        assert_eq!(seen.stat(Path::new("usr/data")).unwrap().st_size as u64, MIB, "{}", image.display());
    }
}

/// As a root file system is shipped: owners, modes, links, a file capability; by every compression that the kernel knows.
#[test]
fn a_squashfs_of_any_compression_is_a_root() {
    let Some(bench) = Bench::new(&["mksquashfs", "python3"]) else { return };
    let (tree, image) = (bench.path("tree"), bench.path("image.squashfs"));
    let script = "mkdir -p \"$1/etc\" \"$1/usr/bin\"; cd \"$1\"; seq 100000 >usr/data; printf ping >usr/bin/ping; ln usr/bin/ping usr/bin/pong; \
        chown 5:6 usr/bin/ping; chmod 4755 usr/bin/ping; ln -s data usr/link; printf '/dev/sda1 / ext4 x 0 0\\n' >etc/fstab; \
        python3 -c \"import os; os.setxattr('usr/bin/ping', 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000'))\"";
    shell(script, &[&tree]);
    let kernel = std::fs::read_to_string("/proc/filesystems").unwrap();
    assert!(kernel.contains("\tsquashfs\n"), "this kernel has no squashfs, so this cannot be tested here");
    // Without padding, it need not end where a sector does.
    for words in ["gzip", "xz", "zstd", "lz4", "lzo", "gzip -nopad", "xz -nopad -b 4096", "zstd -no-fragments"] {
        shell("mksquashfs \"$1\" \"$2\" -noappend -quiet -comp $3", &[&tree, &image, Path::new(words)]);
        let artifact = bench.get(&image).unwrap_or_else(|e| panic!("{words}: {e:?}"));
        let seen = bench.root(&artifact);
        assert!(seen.read_text("usr/link").unwrap().ends_with("\n99999\n100000\n"), "{words}");
        assert!(seen.read_text("etc/fstab").unwrap().starts_with("# not in a guest"), "{words}");
        let (ping, pong) = ("usr/bin/ping", "usr/bin/pong");
        let stat = |path: &str| seen.stat(Path::new(path)).unwrap();
        assert_eq!((stat(ping).st_mode & 0o7777, stat(ping).st_uid, stat(ping).st_gid), (0o4755, 5, 6), "{words}");
        assert_eq!(stat(ping).st_ino, stat(pong).st_ino, "{words}");
        let file = seen.open_file(ping).unwrap();
        let attributes = pronto::sys::xattr::all(std::os::fd::AsFd::as_fd(&file)).unwrap();
        assert!(attributes.iter().any(|(name, _)| name == b"security.capability"), "{words}");
        drop((seen, file));
        pronto::ops::images::rmi(&bench.ctx, image.to_str().unwrap(), None).unwrap();
        bench.is_clean();
    }
}

#[test]
fn a_squashfs_that_is_broken_is_told() {
    let Some(bench) = Bench::new(&["mksquashfs"]) else { return };
    let (tree, image) = (bench.path("tree"), bench.path("good"));
    shell("mkdir -p \"$1/etc\"; seq 100000 >\"$1/etc/data\"", &[&tree]);
    shell("mksquashfs \"$1\" \"$2\" -noappend -quiet -nopad", &[&tree, &image]);
    let length = std::fs::metadata(&image).unwrap().size();
    let told = "the squashfs file system says it has";
    for short in [length - 512, length / 2, 4096, 600] {
        bench.fails(&cut(&image, "cut", short), &[told, "truncated"]);
    }
    bench.fails(&cut(&image, "cut", 95), &["cannot be used"]);
    bench.fails(&spoilt(&image, "large", 40, &u64::MAX.to_le_bytes()), &[told]);
    // Its own tables: where the root is, how it is packed, how large blocks are, which version it is.
    let kernel = "the kernel cannot mount its squashfs file system";
    for (name, at, bytes) in [
        ("root", 32, &[0xff; 8][..]),
        ("packing", 20, &[2, 0]),
        ("unknown-packing", 20, &[99, 0]),
        ("block", 12, &[0xff; 4]),
        ("version", 28, &[9, 0]),
        ("ids", 48, &[0xff; 8]),
        ("inodes", 64, &[0xff; 8]),
        ("directories", 72, &[0xff; 8]),
        ("everything", 4, &[0x5a; 36]),
    ] {
        bench.fails(&spoilt(&image, name, at, bytes), &[kernel]);
    }
    let table = u64::from_le_bytes(std::fs::read(&image).unwrap()[64..72].try_into().unwrap());
    let rubbish = noise(length - table);
    bench.fails(&spoilt(&image, "rubbish", table, &rubbish), &["cannot be used"]);
    // The mark of a partition table by chance: it is none.
    let marked = spoilt(&image, "marked", 510, &[0x55, 0xaa]);
    let artifact = bench.get(&marked).unwrap();
    assert!(bench.root(&artifact).is_dir("etc"));
    pronto::ops::images::rmi(&bench.ctx, marked.to_str().unwrap(), None).unwrap();
    bench.is_clean();
}

/// Fedora's layout: the root is a subvolume. It is made in a mount namespace that ends with the shell.
#[test]
fn a_root_in_a_subvolume_is_found() {
    let Some(bench) = Bench::new(&[&TOOLS[..], &["mkfs.btrfs", "btrfs"]].concat()) else { return };
    if !std::fs::read_to_string("/proc/filesystems").unwrap().contains("\tbtrfs\n") {
        std::io::stderr().write_all(b"skipped: this kernel has no btrfs\n").unwrap();
        return;
    }
    bench.parts();
    let (image, at) = (bench.path("btrfs"), bench.path("at"));
    std::fs::create_dir(&at).unwrap();
    std::fs::File::create(&image).unwrap().set_len(160 * MIB).unwrap();
    shell(
        "mkfs.btrfs -q \"$1\"; exec unshare --mount sh -ec 'mount -o loop \"$1\" \"$2\"; btrfs subvolume create \"$2/root\" >/dev/null; \
         cp -a \"$3/.\" \"$2/root/\"; mkdir \"$2/home\"; umount \"$2\"' sh \"$1\" \"$2\" \"$3\"",
        &[&image, &at, &bench.path("tree")],
    );
    let artifact = bench.get(&image).unwrap();
    let root = bench.root(&artifact);
    assert!(root.is_dir("usr") && !root.is_dir("home"));
    assert!(root.read_text("etc/fstab").unwrap().starts_with("# not in a guest"));
}

#[test]
fn a_damaged_table_or_file_system_is_told() {
    let Some(bench) = Bench::new(&TOOLS) else { return };
    let card = bench.card();
    let entry = |n: u64, field: u64| 446 + 16 * n + field;
    let sectors = |n: u32| n.to_le_bytes();
    bench.fails(&spoilt(&card, "overlap", entry(1, 8), &sectors(20 << 11)), &["partition 1 and partition 2 overlap"]);
    bench.fails(&spoilt(&card, "beyond", entry(1, 12), &sectors(1 << 30)), &["partition 2 ends at byte", "truncated"]);
    bench.fails(&cut(&card, "short", 50 * MIB), &["partition 2 ends at byte", "52428800 bytes"]);
    bench.fails(
        &spoilt(&card, "unknown", 24 * MIB + 1080, &[0, 0]),
        &["holds no Linux system", "no file system that is known"],
    );
    bench.fails(
        &spoilt(&card, "larger", 24 * MIB + 1028, &sectors(1 << 24)),
        &["partition 2: the ext4 file system says it has"],
    );
    // The kernel has the last word: a feature that nobody knows.
    let error = bench
        .fails(&spoilt(&card, "feature", 24 * MIB + 1120, &[0xff; 4]), &["partition 2", "the kernel cannot mount"]);
    assert!(error.contains("feature") || error.contains("Couldn't mount"), "in the kernel's words: {error}");
    bench.fails(
        &spoilt(&card, "fat", 8 * MIB + 19, &[0xff, 0xff]),
        &["the FAT file system in partition 1", "says it has", "truncated"],
    );
    let swap = bench.path("swap");
    std::fs::File::create(&swap).unwrap().set_len(8 * MIB).unwrap();
    bench.fails(&spoilt(&swap, "swapped", 4086, b"SWAPSPACE2"), &["swap"]);
    bench.fails(&spoilt(&swap, "locked", 0, b"LUKS\xba\xbe"), &["LUKS (encrypted)"]);
    bench.fails(&spoilt(&swap, "vmdk", 0, b"KDMV"), &["VMDK", "qemu-img convert"]);
    bench.fails(&spoilt(&swap, "table", 510, &[0x55, 0xaa]), &["neither a partition table nor a file system"]);
}

#[test]
fn a_damaged_stream_is_told() {
    let Some(bench) = Bench::new(&[&TOOLS[..], &["qemu-img", "python3", "zstd", "xz"]].concat()) else { return };
    let card = bench.card();
    for (name, script) in [
        ("a.gz", "gzip -1 <\"$1\" >\"$2\""),
        ("a.xz", "xz -1 -T2 --block-size=8MiB <\"$1\" >\"$2\""),
        ("one.xz", "xz -1 -T1 <\"$1\" >\"$2\""),
        ("a.zst", "zstd -q -1 --check <\"$1\" >\"$2\""),
        (
            "a.zip",
            "python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[2], \"w\", zipfile.ZIP_DEFLATED).write(sys.argv[1], \"a.img\")' \"$1\" \"$2\"",
        ),
    ] {
        let image = bench.path(name);
        shell(script, &[&card, &image]);
        let length = std::fs::metadata(&image).unwrap().size();
        for (part, whole) in [(1, 2), (9, 10)] {
            let short = cut(&image, "cut", length * part / whole);
            bench.fails(&short, &["compressed data is truncated"]);
        }
        let mut middle = [0; 64];
        let mut file = std::fs::File::open(&image).unwrap();
        file.seek(SeekFrom::Start(length / 2)).unwrap();
        file.read_exact(&mut middle).unwrap();
        middle.iter_mut().for_each(|byte| *byte ^= 0x5a);
        bench.fails(&spoilt(&image, "corrupt", length / 2, &middle), &["compressed data is"]);
    }
}

#[test]
fn a_qcow2_image_that_is_not_whole_by_itself_is_refused() {
    let Some(bench) = Bench::new(&[&TOOLS[..], &["qemu-img", "xz"]].concat()) else { return };
    let (card, secret) = (bench.card(), bench.path("secret"));
    common::write(&secret, vec![b's'; MIB as usize]);
    let made = |name: &str, options: &str| {
        let image = bench.path(name);
        shell(&format!("qemu-img create -q -f qcow2 {options} \"$1\" 1M"), &[&image]);
        image
    };
    let backed = made("backed", &format!("-b {} -F raw", secret.display()));
    bench.fails(&backed, &["only the difference to another file", "secret"]);
    let packed = bench.path("backed.xz");
    shell("xz -1 <\"$1\" >\"$2\"", &[&backed, &packed]);
    bench.fails(&packed, &["only the difference to another file"]);
    let outside = made("outside", &format!("-o data_file={},data_file_raw=on", bench.path("data").display()));
    bench.fails(&outside, &["its data lies in another file"]);
    let good = bench.path("good");
    shell("qemu-img convert -O qcow2 \"$1\" \"$2\"", &[&card, &good]);
    bench.fails(&spoilt(&good, "encrypted", 35, &[2]), &["encrypted"]);
    bench.fails(&cut(&good, "short", std::fs::metadata(&good).unwrap().len() / 2), &["truncated"]);
    // Two terabytes of nothing cost two hundred kilobytes, and hours to look through.
    let bomb = bench.path("bomb");
    shell("qemu-img create -q -f qcow2 \"$1\" 2T", &[&bomb]);
    bench.fails(&bomb, &["more than 1024 GiB"]);
}

#[test]
fn a_tar_with_more_than_the_image_is_refused() {
    let Some(bench) = Bench::new(&TOOLS) else { return };
    let (card, tar) = (bench.card(), bench.path("two.tar"));
    shell(
        "cd \"$(dirname \"$1\")\"; ln \"$1\" disk.raw; echo x >README; tar -cf \"$2\" disk.raw README",
        &[&card, &tar],
    );
    bench.fails(&tar, &["beside a disk image it holds 'README'"]);
    shell("cd \"$(dirname \"$1\")\"; echo splash >boot.img; tar -cf \"$2\" boot.img README", &[&card, &tar]);
    let artifact = bench.get(&tar).unwrap();
    assert_eq!(bench.root(&artifact).read_text("boot.img").unwrap(), "splash\n", "a tree with a file of that name");
}

/// SIGKILL at any moment of an import: no loop device stays, the next import sweeps what the dead one left, and works.
#[test]
fn a_killed_import_is_swept() {
    let Some(bench) = Bench::new(&[&TOOLS[..], &["xz"]].concat()) else { return };
    let (card, packed) = (bench.card(), bench.path("a.img.xz"));
    let mut file = std::fs::File::options().write(true).open(&card).unwrap();
    file.seek(SeekFrom::Start(40 * MIB)).unwrap();
    file.write_all(&noise(24 * MIB)).unwrap();
    shell("xz -0 <\"$1\" >\"$2\"", &[&card, &packed]);
    let mut killed = 0;
    for n in 0..12 {
        let pull = Run::new(BINARY).arg("--root").arg(bench.ctx.store.root()).arg("pull").arg(&packed);
        let running = pull.start();
        std::thread::sleep(std::time::Duration::from_millis(60 * n));
        running.signal(Signal::SIGKILL);
        if running.wait(common::secs(30)).code() == 0 {
            pronto::ops::images::rmi(&bench.ctx, packed.to_str().unwrap(), None).unwrap();
        } else {
            killed += 1;
        }
        for _ in 0..100 {
            if loops(bench.dir.path()).is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(loops(bench.dir.path()), Vec::<String>::new());
    }
    assert!(killed >= 3, "only {killed} were killed in the middle");
    let artifact = bench.get(&packed).unwrap();
    assert_eq!(bench.root(&artifact).stat(Path::new("usr/data")).unwrap().st_size as u64, MIB);
    pronto::ops::images::rmi(&bench.ctx, packed.to_str().unwrap(), None).unwrap();
    bench.is_clean();
}

/// Bytes that do not become fewer.
fn noise(count: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// A store on a file system that is too small: the disk, what becomes of qcow2, and the files of the FAT.
#[test]
fn a_full_disk_is_told() {
    let Some(mut bench) = Bench::new(&[&TOOLS[..], &["qemu-img", "xz"]].concat()) else { return };
    let card = bench.card();
    let (qcow2, packed) = (bench.path("a.qcow2"), bench.path("a.img.xz"));
    shell("qemu-img convert -O qcow2 \"$1\" \"$2\"; xz -1 <\"$1\" >\"$3\"", &[&card, &qcow2, &packed]);
    let data = noise(40 * MIB);
    let large = bench.path("large.img");
    shell("cp --sparse=always \"$1\" \"$2\"", &[&card, &large]);
    let mut file = std::fs::File::options().write(true).open(&large).unwrap();
    // Data where no file system looks: behind what the table names would do as well.
    file.seek(SeekFrom::Start(26 * MIB)).unwrap();
    file.write_all(&data).unwrap();
    let small = bench.path("small");
    std::fs::create_dir(&small).unwrap();
    nix::mount::mount(Some("tmpfs"), &small, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=66M,mode=0700"))
        .unwrap();
    bench.mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let store = Store::at(Some(&small.join("store")));
    store.open().unwrap();
    let first = std::mem::replace(&mut bench.ctx.store, store);
    for image in [&large, &qcow2, &packed] {
        // What lies there leaves less than the reserve at once, or in the middle.
        common::write(small.join("filling"), vec![1; 3 * MIB as usize]);
        bench.fails(image, &["No space left"]);
        std::fs::remove_file(small.join("filling")).unwrap();
    }
    bench.fails(&large, &["No space left"]);
    bench.ctx.store = first;
    nix::mount::umount(&small).unwrap();
}

/// Raspberry Pi OS by its name: the imager's index, the packed card, the digest of what is in it.
#[test]
fn a_card_out_of_the_imagers_index() {
    let Some(bench) = Bench::new(&TOOLS) else { return };
    let card = bench.card();
    let digest = |path: &Path| {
        let digest = ring::digest::digest(&ring::digest::SHA256, &std::fs::read(path).unwrap());
        digest.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    let inner = digest(&card);
    Run::new("xz").args(["-k", "-T1", "-0"]).arg(&card).run().ok();
    let packed = std::fs::read(bench.path("card.img.xz")).unwrap();
    let promise = Arc::new(Mutex::new(inner.clone()));
    let promised = Arc::clone(&promise);
    let server = Server::start(move |request| {
        if request.path.ends_with(".img.xz") {
            return Response::ok(packed.clone());
        }
        let host = request.header("host").unwrap().to_owned();
        let index = serde_json::json!({"imager": {}, "os_list": [{
            "name": "Raspberry Pi OS Lite", "url": format!("http://{host}/2026-06-18-raspios-trixie-arm64-lite.img.xz"),
            "extract_sha256": *promised.lock().unwrap(), "image_download_size": packed.len(),
            "release_date": "2026-06-18", "devices": ["pi5-64bit"], "architecture": "armv8",
        }]});
        Response::ok(index.to_string())
    });
    common::write(bench.ctx.store.sources(), format!("[raspios]\nindex = \"{}\"\n", server.url("os_list.json")));
    *promise.lock().unwrap() = "0".repeat(64);
    bench.fails(Path::new("raspios/trixie-lite"), &["is damaged", &inner]);
    *promise.lock().unwrap() = inner;
    std::fs::remove_dir_all(bench.ctx.store.cache()).unwrap();
    bench.ctx.store.open().unwrap();
    let artifact = bench.get(Path::new("raspios/trixie-lite")).unwrap();
    let root = bench.root(&artifact);
    assert_eq!(root.read_text("boot/firmware/cmdline.txt").unwrap(), "quiet\n");
    assert_eq!(root.stat(Path::new("usr/data")).unwrap().st_size, MIB as i64);
}

/// A disk is no layer that others know: what goes out is the tree that a guest would see.
#[test]
fn a_disk_goes_out_as_a_tree() {
    let Some(bench) = Bench::new(&TOOLS) else { return };
    let card = bench.card();
    bench.get(&card).unwrap();
    let out = bench.path("out");
    let run = |words: &[&str]| {
        Run::new(BINARY).arg("--root").arg(bench.path("store")).args(words).run().ok();
    };
    // Nothing in this one says what it is for.
    run(&["export", "--arch", "amd64", card.to_str().unwrap(), &format!("oci:{}:t", out.display())]);
    let listed = Run::new("skopeo").args(["inspect", "--raw"]).arg(format!("oci:{}:t", out.display())).run().ok();
    let manifest: serde_json::Value = serde_json::from_str(&listed.text()).unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1, "{manifest}");
    let again = obtain(&bench.ctx, &format!("oci:{}:t", out.display()), None, false, None).unwrap();
    let root = bench.root(&again);
    assert!(root.exists("boot/firmware/kernel8.img") && root.read_text("etc/fstab").unwrap().contains('#'));

    let cache = bench.path("cache");
    run(&["cache", "export", cache.to_str().unwrap()]);
    let other = bench.path("other");
    Run::new(BINARY).arg("--root").arg(&other).args(["cache", "import"]).arg(&cache).run().ok();
    let there = Run::new(BINARY).arg("--root").arg(&other).args(["verify", "--format", "json"]).run().ok();
    let found: serde_json::Value = serde_json::from_str(&there.text()).unwrap();
    assert_eq!((&found["sound"], &found["damaged"]), (&2.into(), &serde_json::json!([])), "{found}");
}
