//! Tests of the tar reader: archives as programs write them, and as an attacker would. What a newcomer would get wrong: `H`
//! builds headers by hand, so that broken ones can be made.

use super::super::header::{signed, time};
use super::*;
use crate::image::testing::{Header as H, Tar, checksum, entry};

/// What an entry holds, its kind and name first.
fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Fault> {
    let mut reader = Reader::new(archive);
    let mut out = Vec::new();
    while let Some(entry) = reader.next(false)? {
        let mut body = Vec::new();
        reader.body(|piece| io::Write::write_all(&mut body, piece)).unwrap();
        out.push((entry, body));
    }
    Ok(out)
}

fn why(archive: &[u8]) -> String {
    read(archive).unwrap_err().to_string()
}

#[test]
fn plain_entries() {
    let device = H { device: (8, 1), mode: 0o660, gid: 6, ..entry(b'4', "dev/sda1") };
    let tar = Tar::new()
        .dir("./etc/")
        .file("etc/a", b"hello")
        .symlink("b", "/etc/a")
        .hard_link("c", "etc/a")
        .add(device, b"");
    let got = read(&tar.end()).unwrap();
    let kinds: Vec<_> = got.iter().map(|(e, _)| e.kind).collect();
    assert_eq!(kinds, [Kind::Directory, Kind::File, Kind::Symlink, Kind::HardLink, Kind::Block]);
    assert_eq!((got[1].1.as_slice(), got[1].0.mtime), (&b"hello"[..], (1_000_000_000, 0)));
    assert_eq!(
        (got[2].0.link.as_slice(), got[4].0.device, got[4].0.mode, got[4].0.gid),
        (&b"/etc/a"[..], (8, 1), 0o660, 6)
    );
}

#[test]
fn long_and_strange_names() {
    let long = [b"d/".as_slice(), &b"x".repeat(200)].concat();
    let strange = b"caf\xe9/\xff\n";
    let tar = Tar::new()
        .gnu_long(b'L', &long)
        .gnu_long(b'K', b"target")
        .symlink("short", "short")
        .pax(&[(b"path", strange), (b"mtime", b"12.5"), (b"uid", b"4294967294"), (b"SCHILY.xattr.user.x", b"a\0=\nb")])
        .file("short", b"1");
    let got = read(&tar.end()).unwrap();
    assert_eq!((&got[0].0.name, got[0].0.link.as_slice()), (&long, &b"target"[..]));
    assert_eq!(got[1].0.name, strange);
    assert_eq!((got[1].0.mtime, got[1].0.uid), ((12, 500_000_000), 4_294_967_294));
    assert_eq!(got[1].0.xattrs, [(b"user.x".to_vec(), b"a\0=\nb".to_vec())]);
}

#[test]
fn the_prefix_field_is_posix_only() {
    let mut block: [u8; 512] = Tar::new().file("name", b"").cut()[..512].try_into().unwrap();
    block[345..350].copy_from_slice(b"under");
    checksum(&mut block);
    assert_eq!(read(&block).unwrap()[0].0.name, b"under/name");
    block[257..265].copy_from_slice(b"ustar  \0");
    checksum(&mut block);
    assert_eq!(read(&block).unwrap()[0].0.name, b"name");
}

#[test]
fn numbers() {
    assert_eq!(number(b"0000644\0"), Some(0o644));
    assert_eq!(number(b"   644 \0"), Some(0o644));
    assert_eq!(number(b"\0\0\0\0"), Some(0));
    assert_eq!(number(b"12x\0"), None);
    assert_eq!(number(b"\x80\0\0\0\0\0\0\0\0\0\x01\0"), Some(256));
    assert_eq!(signed(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
    assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), None);
    assert_eq!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None, "more than fits");
    assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
    assert_eq!(time(b"1.1234567899"), Some((1, 123_456_789)));
    assert_eq!(time(b"x"), None);
}

#[test]
fn links_have_no_body_whatever_they_say() {
    let link = H { size: 4096, link: b"a".to_vec(), ..entry(b'1', "l") };
    let got = read(&Tar::new().add(link, b"").file("after", b"x").end()).unwrap();
    assert_eq!((got[0].0.size, got[1].0.name.as_slice()), (0, &b"after"[..]));
}

#[test]
fn sparse_files() {
    // GNU's old form: 3 bytes at 1024 of 2000, map in the header.
    let mut block: [u8; 512] =
        Tar::new().add(H { size: 3, magic: *b"ustar  \0", ..entry(b'S', "old") }, b"").cut()[..512].try_into().unwrap();
    block[386..410].copy_from_slice(b"00000002000\x0000000000003\0");
    block[483..495].copy_from_slice(b"00000003720\0");
    checksum(&mut block);
    let map = b"1\n1024\n3\n";
    let body = [&map[..], &vec![0; 512 - map.len()], b"abc"].concat();
    let sparse: [(&[u8], &[u8]); 4] = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"new"),
        (b"GNU.sparse.realsize", b"2000"),
    ];
    let list: [(&[u8], &[u8]); 2] = [(b"GNU.sparse.size", b"2000"), (b"GNU.sparse.map", b"1024,3")];
    let tar = Tar::new().raw(&block).raw(b"abc").raw(&[0; 509]).pax(&sparse).file("GNUSparseFile.0/new", &body);
    let got = read(&tar.pax(&list).file("list", b"abc").end()).unwrap();
    for ((entry, body), name) in got.iter().zip(["old", "new", "list"]) {
        let map = entry.sparse.as_ref().unwrap();
        assert_eq!((map.size, map.pieces.as_slice(), body.as_slice()), (2000, &[(1024, 3)][..], &b"abc"[..]), "{name}");
        assert_eq!(entry.name, name.as_bytes());
    }
    for bad in ["1024,4", "1999,3", "0,2,1,1", "1024", "x,3"] {
        let list: [(&[u8], &[u8]); 2] = [(b"GNU.sparse.size", b"2000"), (b"GNU.sparse.map", bad.as_bytes())];
        assert!(why(&Tar::new().pax(&list).file("bad", b"abc").end()).contains("sparse map"), "{bad}");
    }
}

#[test]
fn broken_archives_say_what_is_broken() {
    assert_eq!(why(b""), "it is empty");
    assert_eq!(why(&[b'x'; 1024]), "it is no tar archive");
    let mut broken = Tar::new().file("a", b"1").file("b", b"2").end();
    broken[1024] ^= 1;
    assert_eq!(why(&broken), "a header's checksum is wrong");
    let whole = Tar::new().file("a", &[7; 2000]).end();
    let mut reader = Reader::new(&whole[..700]);
    reader.next(false).unwrap().unwrap();
    assert!(matches!(reader.body(|_| Ok(())), Err(BodyError::Read(_))));
    let cut = Tar::new().file("a", b"1").cut();
    assert_eq!(read(&cut).unwrap().len(), 1);
    let mut strict = Reader::new(cut.as_slice());
    strict.next(true).unwrap();
    assert!(strict.next(true).unwrap_err().to_string().contains("end mark"));
    assert!(read(&Tar::new().end()).unwrap().is_empty(), "an archive of nothing is fine");
    assert!(why(&Tar::new().add(entry(b'M', "m"), b"").end()).contains("'M' are not known"));
    for bad in [&b"8 path=x\n"[..], b"x", b"99 path=x\n", b"9 path x\n", b"0 x=\n", b"9 uid=1x\n"] {
        let header = H { size: bad.len() as u64, ..entry(b'x', "p") };
        let archive = Tar::new().add(header, bad).file("a", b"").end();
        assert!(why(&archive).contains("PAX"), "{:?}: {}", bad.escape_ascii().to_string(), why(&archive));
    }
    let huge = H { size: u64::from(u32::MAX), ..entry(b'x', "p") };
    assert!(why(&Tar::new().add(huge, b"").end()).contains("too large"));
    let owner: [(&[u8], &[u8]); 1] = [(b"uid", b"4294967296")];
    assert!(why(&Tar::new().pax(&owner).file("a", b"").end()).contains("owner 4294967296 is too large"));
}

/// A name of PATH_MAX is the longest that Linux takes; attributes and links that it does not take are no file's either.
#[test]
fn lengths_that_linux_does_not_take() {
    let long = |n: usize| [b"d/".repeat((n - 1) / 2).as_slice(), b"x", &b"x".repeat((n - 1) % 2)].concat();
    for (name, fits) in [(long(4095), true), (long(4096), false), (long(1 << 20), false)] {
        let by_pax = Tar::new().pax(&[(b"path", &name)]).file("short", b"").end();
        let by_gnu = Tar::new().gnu_long(b'L', &name).file("short", b"").end();
        let as_link = Tar::new().gnu_long(b'K', &name).symlink("short", "x").end();
        for archive in [by_pax, by_gnu, as_link] {
            match read(&archive) {
                Ok(_) => assert!(fits),
                Err(fault) => {
                    let text = fault.to_string();
                    assert!(!fits && text.contains("paths end at 4095") && text.len() < 200, "{text}");
                }
            }
        }
    }
    let nobody: [(&[u8], &[u8]); 1] = [(b"gid", b"4294967295")];
    assert!(why(&Tar::new().pax(&nobody).file("a", b"").end()).contains("group 4294967295 is too large"));
}

/// What follows is a body to one reader and a header to another, so an archive could show each a tree of its own.
#[test]
fn a_file_that_is_called_as_a_directory_has_no_body() {
    for flag in [b'0', 0, b'7'] {
        let hidden = Tar::new().file("hidden", b"").cut();
        let file = H { size: 512, ..entry(flag, "d/") };
        assert!(why(&Tar::new().add(file, &hidden).end()).contains("'d/': it is a directory by its name"));
        assert_eq!(read(&Tar::new().add(entry(flag, "d/"), b"").end()).unwrap()[0].0.kind, Kind::Directory);
    }
    // A directory has none, whatever it says (pax(1), "ustar Interchange Format"), as Go's reader has it too.
    let dir = H { size: 512, ..entry(b'5', "d") };
    let got = read(&Tar::new().add(dir, b"").file("next", b"").end()).unwrap();
    assert_eq!(got[1].0.name, b"next");
}

/// Found by the fuzzer: such numbers were cut, or refused by the system as if it were the host's fault.
#[test]
fn devices_that_linux_does_not_have() {
    for device in [(4096, 0), (0, 1 << 20)] {
        let text = why(&Tar::new().add(H { device, ..entry(b'4', "b") }, b"").end());
        assert!(text.contains("'b': its device's m") && text.contains("none that Linux has"), "{text}");
    }
    let last = H { device: (4095, (1 << 20) - 1), ..entry(b'3', "c") };
    assert_eq!(read(&Tar::new().add(last, b"").end()).unwrap()[0].0.device, (4095, 1_048_575));
}

#[test]
fn files_of_exabytes_are_refused() {
    for size in ["17592186044417", "9223372036854775807", "18446744073709551615"] {
        let list: [(&[u8], &[u8]); 2] = [(b"GNU.sparse.size", size.as_bytes()), (b"GNU.sparse.map", b"0,3")];
        let text = why(&Tar::new().pax(&list).file("huge", b"abc").end());
        assert!(text.contains("'huge': it claims to be") && text.contains("files end at 17.6 TB"), "{text}");
    }
    let huge = H { size: 8 << 30, ..entry(b'0', "f") };
    let archive = Tar::new().add(huge, b"little").end();
    let mut reader = Reader::new(archive.as_slice());
    assert_eq!(reader.next(false).unwrap().unwrap().size, 8 << 30);
    assert!(matches!(reader.body(|_| Ok(())), Err(BodyError::Read(_))), "it is not there");
    // The largest number that a header can hold: the sum of body and filling is still one.
    let size: [(&[u8], &[u8]); 1] = [(b"size", b"18446744073709551104")];
    let archive = Tar::new().pax(&size).file("f", b"").end();
    let mut reader = Reader::new(archive.as_slice());
    reader.next(false).unwrap();
    assert!(reader.next(false).unwrap_err().to_string().contains("truncated"));
    let size: [(&[u8], &[u8]); 1] = [(b"size", b"18446744073709551615")];
    assert!(why(&Tar::new().pax(&size).file("f", b"").end()).contains("too large"));
}
