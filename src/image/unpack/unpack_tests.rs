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
        step: &Quiet,
    };
    unpack(job, dir.path())
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
    let job = Job { what: "t", source: &mut &archive[..], size: None, digest: None, diff_id: None, step: &Quiet };
    unpack(job, dir.path()).unwrap();
    let data = std::fs::read(dir.path().join("s")).unwrap();
    assert_eq!((data.len(), &data[10..12], &data[500_000..500_003]), (1_000_000, &b"ab"[..], &b"cde"[..]));
    assert_eq!(data.iter().filter(|&&b| b != 0).count(), 5);
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
        let job = Job { what: "t", source: &mut Failing(bytes), size: None, digest: None, diff_id: None, step: &Quiet };
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
    let job = Job { what: "layer", source: &mut &archive[..], size: None, digest: None, diff_id: None, step: &Quiet };
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
