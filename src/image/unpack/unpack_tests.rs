//! Tests of a layer's whole way: compressed stream, digests, tree. What a newcomer would get wrong: the digest of the blob
//! and the diffID of what is in it are two, and both are checked.

use super::*;
use crate::domain::Quiet;
use crate::image::testing::{Header, Tar, digest, entry, gzip};

fn run(data: &[u8], size: Option<u64>, blob: Option<&str>, diff: Option<&str>) -> Result<Unpacked> {
    let dir = tempfile::tempdir().unwrap();
    let digests = [blob, diff].map(|d| d.map(|d| d.parse::<Digest>().unwrap()));
    let job = Job {
        what: "layer",
        source: &mut &data[..],
        size,
        digest: digests[0].as_ref(),
        diff_id: digests[1].as_ref(),
        below: false,
        step: &Quiet,
    };
    unpack(job, dir.path())
}

/// A source of which nothing is known.
fn unpromised<'a>(what: &'a str, source: &'a mut (dyn Read + Send)) -> Job<'a> {
    Job { what, source, size: None, digest: None, diff_id: None, below: false, step: &Quiet }
}

fn text(result: Result<Unpacked>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn digests_and_sizes_are_checked() {
    let archive = Tar::new().file("a", &[1; 100_000]).file("b", b"2").end();
    let (gz, diff) = (gzip(&archive), digest(&archive));
    let (blob, size) = (digest(&gz), Some(gz.len() as u64));
    let good = run(&gz, size, Some(&blob), Some(&diff)).unwrap();
    assert_eq!((good.size, good.entries, good.digest.to_string()), (100_001, 2, blob.clone()));
    let zero = digest(b"");
    assert!(matches!(run(&gz, size, Some(&zero), Some(&diff)), Err(Error::WrongDigest { .. })));
    assert!(text(run(&gz, size, Some(&blob), Some(&zero))).contains("archive inside"));
    let cut = &gz[..gz.len() / 2];
    assert!(
        matches!(run(cut, size, Some(&blob), Some(&diff)), Err(Error::WrongSize { .. })),
        "truncated, not 'corrupt deflate'"
    );
    let mut spoilt = gz.clone();
    spoilt[gz.len() / 2] ^= 0x55;
    assert!(matches!(run(&spoilt, size, Some(&blob), Some(&diff)), Err(Error::WrongDigest { .. })));
    let mut longer = gz.clone();
    longer.extend_from_slice(&gz);
    assert!(matches!(run(&longer, size, Some(&blob), Some(&diff)), Err(Error::WrongSize { .. })));
}

#[test]
fn what_follows_the_end_mark_belongs_to_the_digest() {
    let mut archive = Tar::new().file("a", b"1").end();
    archive.resize(archive.len() + 900_000, 0);
    run(&gzip(&archive), None, None, Some(&digest(&archive))).unwrap();
}

#[test]
fn a_hostile_entry_is_named_even_in_a_large_layer() {
    let tar = Tar::new().file("../x\u{1b}[2J", b"").file("big", &vec![9; 8 << 20]).end();
    let error = text(run(&gzip(&tar), None, Some(&digest(&gzip(&tar))), Some(&digest(&tar))));
    assert!(error.contains("climbs out") && error.contains("../x\\x1b[2J"), "{error}");
}

#[test]
fn tarballs_that_are_none() {
    assert!(text(run(b"hello", None, None, None)).contains("truncated"));
    assert!(text(run(&[b'x'; 4096], None, None, None)).contains("no tar archive"));
    assert!(text(run(b"BZh91AY&SY", None, None, None)).contains("bzip2"));
    let archive = Tar::new().file("a", &[5; 5000]).end();
    let gz = gzip(&archive);
    assert!(text(run(&gz[..gz.len() - 9], None, None, None)).contains("truncated"));
    assert!(text(run(&archive[..1024], None, None, None)).contains("truncated"));
}

#[test]
fn sparse_files_have_holes() {
    let dir = tempfile::tempdir().unwrap();
    let records: [(&[u8], &[u8]); 2] = [(b"GNU.sparse.size", b"1000000"), (b"GNU.sparse.map", b"10,2,500000,3")];
    let archive = Tar::new().pax(&records).file("s", b"abcde").end();
    let mut source = &archive[..];
    let job = unpromised("t", &mut source);
    unpack(job, dir.path()).unwrap();
    let data = std::fs::read(dir.path().join("s")).unwrap();
    assert_eq!((data.len(), &data[10..12], &data[500_000..500_003]), (1_000_000, &b"ab"[..], &b"cde"[..]));
    assert_eq!(data.iter().filter(|&&b| b != 0).count(), 5);
}

fn xz(data: &[u8]) -> Vec<u8> {
    let mut out = xz2::write::XzEncoder::new(Vec::new(), 1);
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

/// Cut at many places, and with a byte changed at many: an error that says which of the two, never a tree.
#[test]
fn broken_compression_is_told() {
    let archive = Tar::new().file("a", &(0..60_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()).end();
    for (name, packed) in
        [("gzip", gzip(&archive)), ("xz", xz(&archive)), ("zstd", zstd::encode_all(&archive[..], 1).unwrap())]
    {
        run(&packed, None, None, None).unwrap();
        for part in 1..16 {
            let cut = text(run(&packed[..packed.len() * part / 16], None, None, None));
            assert!(cut.contains("truncated") || cut.contains("damaged"), "{name}: {cut}");
            let mut spoilt = packed.clone();
            spoilt[packed.len() * part / 16] ^= 0x10;
            // zstd's checksum is optional, and zstd(1) alone writes it: there a diffID tells.
            let told = text(run(&spoilt, None, None, Some(&digest(&archive))));
            assert!(
                ["damaged", "truncated", "archive inside", "checksum"].iter().any(|w| told.contains(w)),
                "{name}: {told}"
            );
        }
        let cut = text(run(&packed[..packed.len() - 5], None, None, None));
        assert!(cut.contains("its compressed data is truncated"), "{name}: {cut}");
    }
}

/// Zeros without end, of which the source's bytes are few: nothing but the ratio tells.
#[test]
fn a_bomb_is_refused() {
    let zeros = |mut out: zstd::stream::write::Encoder<'_, Vec<u8>>, archive: &[u8]| {
        out.write_all(archive).unwrap();
        let piece = vec![0; 1 << 20];
        for _ in 0..1200 {
            out.write_all(&piece).unwrap();
        }
        out.finish().unwrap()
    };
    // Behind the end mark, where no file takes them.
    let bomb = zeros(zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap(), &Tar::new().file("a", b"1").end());
    for blob in [None, Some(digest(&bomb))] {
        let error = text(run(&bomb, Some(bomb.len() as u64), blob.as_deref(), None));
        assert!(error.contains("layer cannot be used: it is a bomb") && error.contains("tar --sparse"), "{error}");
    }
    // A wrong digest explains more.
    assert!(matches!(run(&bomb, None, Some(&digest(b"")), None), Err(Error::WrongDigest { .. })));
}

/// What the sum of entries costs is known before it is written.
#[test]
fn a_file_that_cannot_fit_is_not_begun() {
    let huge = Header { size: (1 << 33) - 1, ..entry(b'0', "usr/huge") };
    let dir = tempfile::tempdir().unwrap();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mounted = Mounted::tmpfs(dir.path(), "size=100m");
    let archive = Tar::new().file("small", b"1").add(huge, &[1; 100_000]).end();
    let mut source = &archive[..];
    let job = unpromised("layer", &mut source);
    let error = unpack(job, dir.path()).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(
        error.to_string(),
        "cannot unpack 'usr/huge' of layer (8.6 GB more, 104.9 MB are free and the last 5.2 MB are left)"
    );
    assert!(!dir.path().join("usr").exists());
    drop(mounted);
}

/// A file system without inodes is full, too.
#[test]
fn inodes_run_out() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = Mounted::tmpfs(dir.path(), "size=100m,nr_inodes=9000");
    let tar = (0..9000).fold(Tar::new(), |tar, n| tar.file(format!("f{n}"), b""));
    let archive = tar.end();
    let mut source = &archive[..];
    let job = unpromised("layer", &mut source);
    let error = unpack(job, dir.path()).unwrap_err();
    assert!(error.is_disk_full() && error.to_string().contains("cannot unpack 'f8"), "{error}");
    drop(mounted);
}

/// Decoders take the memory that a stream asks for; these ask for 4 and 2 GiB.
#[test]
fn decoders_are_held_to_their_memory() {
    let archive = Tar::new().file("a", &[7; 100_000]).end();
    let mut packed = xz(&archive);
    // The block's header: size, flags, filter 0x21 with one byte of properties, filling, CRC32 (The .xz File Format, 3.1).
    assert_eq!(packed[14..16], [0x21, 1]);
    packed[16] = 40;
    let end = 12 + 4 * usize::from(packed[12]);
    let mut sum = flate2::Crc::new();
    sum.update(&packed[12..end]);
    packed[end..end + 4].copy_from_slice(&sum.sum().to_le_bytes());
    let error = text(run(&packed, None, None, None));
    assert!(error.contains("needs more memory than is allowed (285.2 MB)"), "{error}");
    // What `xz -9` and more make is read.
    let options = xz2::stream::LzmaOptions::new_preset(9).unwrap();
    let mut filters = xz2::stream::Filters::new();
    filters.lzma2(&options);
    let stream = xz2::stream::Stream::new_stream_encoder(&filters, xz2::stream::Check::Crc64).unwrap();
    let mut out = xz2::write::XzEncoder::new_stream(Vec::new(), stream);
    out.write_all(&archive).unwrap();
    run(&out.finish().unwrap(), None, None, None).unwrap();
    let mut packed = Vec::new();
    zstd::stream::copy_encode(&archive[..], &mut packed, 1).unwrap();
    // The window's descriptor follows the frame's (RFC 8878, 3.1.1.1.2): 2 to the power of 10 + 21.
    assert_eq!(packed[4] & 0x20, 0, "it has one");
    packed[5] = 21 << 3;
    let error = text(run(&packed, None, None, None));
    assert!(error.contains("needs more memory than is allowed"), "{error}");
}

/// A source whose reads fail with an error of this room.
struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other(Error::Unreachable { place: "example".into(), why: "gone".into() }));
        }
        let n = buffer.len().min(self.0);
        buffer[..n].fill(b'x');
        self.0 -= n;
        Ok(n)
    }
}

#[test]
fn the_sources_own_error_comes_through() {
    for bytes in [0, 3, 100_000] {
        let dir = tempfile::tempdir().unwrap();
        let mut source = Failing(bytes);
        let job = unpromised("t", &mut source);
        assert!(matches!(unpack(job, dir.path()), Err(Error::Unreachable { .. })), "{bytes}");
    }
}

#[test]
fn a_full_disk_stops_at_once() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mounted = Mounted::tmpfs(dir.path(), "size=1m");
    let big = Header { size: 8 << 20, ..entry(b'0', "usr/big") };
    let archive = Tar::new().add(big, &vec![1; 8 << 20]).end();
    let mut source = &archive[..];
    let job = unpromised("layer", &mut source);
    let error = unpack(job, dir.path()).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(error.to_string(), "cannot unpack 'usr/big' of layer");
    drop(mounted);
}

struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn tmpfs(path: &'a Path, options: &str) -> Mounted<'a> {
        nix::mount::mount(Some("t"), path, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options)).unwrap();
        Mounted(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn what_is_noted_while_writing_is_what_is_there() {
    let sparse: [(&[u8], &[u8]); 2] = [(b"GNU.sparse.size", b"1000000"), (b"GNU.sparse.map", b"10,2,500000,3")];
    let mut holes = vec![7; 50_000];
    holes[4096..30_000].fill(0);
    let mut archive = Tar::new()
        .dir("usr/")
        .dir("usr/lib/")
        .file("usr/lib/twice", b"first, and longer")
        .file("usr/lib/twice", b"second")
        .file("usr/lib/empty", b"")
        .file("usr/lib/holes", &holes)
        .symlink(b"lib", b"usr/lib")
        .file("lib/through-a-link", b"x")
        .hard_link(b"usr/lib/hard", b"usr/lib/holes")
        .file("gone/file", b"removed with its directory")
        .file("gone", b"a file in the place of a directory")
        .file("link-now", b"its inode may be used again")
        .symlink(b"link-now", b"usr")
        .pax(&sparse)
        .file("sparse", b"abcde")
        .pax(&[(b"mtime", b"99999999999.123456789")])
        .file("beyond-the-file-system's-time", b"1");
    if nix::unistd::geteuid().is_root() {
        archive = archive.file(".wh.hidden", b"").pax(&[(b"SCHILY.xattr.security.x", b"y")]).file("attributes", b"2");
    }
    let archive = archive.end();
    let dir = tempfile::tempdir().unwrap();
    let mut source = &archive[..];
    let job = unpromised("t", &mut source);
    let known = unpack(job, dir.path()).unwrap().known;
    let read = crate::store::sums::record(dir.path(), &Known::default()).unwrap();
    let noted = crate::store::sums::record(dir.path(), &known).unwrap();
    assert_eq!(String::from_utf8(noted).unwrap(), String::from_utf8(read).unwrap());
    assert_ne!(known, Known::default());
    // And it is what is noted that counts, not what is read.
    let file = File::options().write(true).open(dir.path().join("sparse")).unwrap();
    (&file).write_all(b"else").unwrap();
    let noted = crate::store::sums::record(dir.path(), &known).unwrap();
    assert!(!crate::store::sums::compare(dir.path(), &noted).unwrap().unwrap().is_empty());
}
