//! What is written is what is read, entry by entry, at the borders of every field. What a newcomer would get wrong: reading it with
//! our own reader alone would prove that both are wrong alike, so GNU tar lists the same archive in `tests/suite_port.rs`.

use std::io::BufReader;

use super::*;
use crate::image::unpack::tar::Reader;

fn file(name: &[u8]) -> Entry {
    Entry {
        name: name.to_vec(),
        link: Vec::new(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (1_000_000_000, 0),
        size: 0,
        sparse: None,
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

/// Writes the entries with bodies of `#`, and reads them again.
fn round(entries: &[Entry]) -> (Vec<u8>, Vec<Entry>) {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry).unwrap();
        writer.body(&vec![b'#'; entry.size as usize]).unwrap();
    }
    let bytes = writer.finish().unwrap();
    let mut reader = Reader::new(BufReader::new(bytes.as_slice()));
    let mut read = Vec::new();
    while let Some(entry) = reader.next(true).unwrap() {
        let mut body = Vec::new();
        reader.body(|piece| std::io::Write::write_all(&mut body, piece)).unwrap();
        assert_eq!(body, vec![b'#'; entry.size as usize]);
        read.push(entry);
    }
    (bytes, read)
}

#[test]
fn every_field_comes_back() {
    let long = |n: usize, tail: &str| [b"d/".repeat(n / 2), tail.as_bytes().to_vec()].concat();
    let mut entries: Vec<Entry> = [0, 1, 98, 99, 100, 101, 253, 254, 255, 256, 257, 300, 4000]
        .into_iter()
        .map(|n| Entry { size: 700, ..file(&long(n, "name")) })
        .collect();
    entries.push(file(&[b'x'; 255]));
    entries.push(file(b"latin-\xe4\xf6"));
    entries.push(file(&[&b"\xff".repeat(200)[..], b"/\xfe"].concat()));
    for kind in [Kind::HardLink, Kind::Symlink] {
        for length in [1, 99, 100, 101, 1000] {
            entries.push(Entry { kind, link: b"\xe4".repeat(length), ..file(b"link") });
        }
    }
    entries.push(Entry { kind: Kind::Directory, mode: 0o7777, ..file(b"dir/") });
    entries.push(Entry { kind: Kind::Directory, ..file(&[long(300, "dir"), b"/".to_vec()].concat()) });
    entries.push(Entry { kind: Kind::Directory, ..file(b"./") });
    entries.push(Entry { kind: Kind::Fifo, ..file(b"fifo") });
    entries.push(Entry { kind: Kind::Char, device: (4095, 0xfffff), ..file(b"char") });
    entries.push(Entry { kind: Kind::Block, device: (8, 1), ..file(b"block") });
    for id in [65534, 0o7_777_777, 0o10_000_000, u32::MAX - 1] {
        entries.push(Entry { uid: id, gid: id, ..file(b"owner") });
    }
    for mtime in
        [(0, 0), (0, 1), (5, 120_000_000), (0o77_777_777_777, 0), (0o100_000_000_000, 7), (-1, 0), (-2, 500_000_000)]
    {
        entries.push(Entry { mtime, ..file(b"time") });
    }
    let xattrs = vec![(b"user.a".to_vec(), b"=\n\0\xff".to_vec()), (b"user.empty".to_vec(), Vec::new())];
    entries.push(Entry { xattrs, ..file(b"xattr") });
    let (bytes, read) = round(&entries);
    for (written, read) in entries.iter().zip(&read) {
        assert_eq!(written, read);
    }
    assert_eq!(entries.len(), read.len());
    assert_eq!((bytes.len() % 512, round(&entries).0 == bytes), (0, true), "the same bytes every time");
}

#[test]
fn sparse_files_come_back() {
    let maps = [
        (0x30000, vec![(0x1000, 0x2000), (0x20000, 0x1000)]),
        (0x1000, vec![]),
        (1 << 40, vec![(0, 512), ((1 << 40) - 1000, 1000)]),
        (700 << 12, (0..350).map(|n| (n << 13, 4096)).collect()),
    ];
    for (size, pieces) in maps {
        let body = pieces.iter().map(|(_, length)| length).sum();
        let sparse = Some(Map { size, pieces });
        let written = Entry { sparse, size: body, ..file(&[b"long/".repeat(60), b"\xff".to_vec()].concat()) };
        assert_eq!(round(&[written.clone(), file(b"next")]).1, [written, file(b"next")]);
    }
}

#[test]
fn a_huge_file_needs_a_record() {
    let mut writer = Writer::new(Vec::new());
    let entry = Entry { size: 9 << 30, ..file(b"huge") };
    writer.entry(&entry).unwrap();
    assert!(writer.entry(&file(b"next")).is_err(), "the body is missing");
    let bytes = writer.out;
    let mut reader = Reader::new(BufReader::new(bytes.as_slice()));
    assert_eq!(reader.next(true).unwrap(), Some(entry));
    assert!(String::from_utf8_lossy(&bytes).contains(" size=9663676416\n"));
}

#[test]
fn what_cannot_be_written_is_said() {
    let mut writer = Writer::new(Vec::new());
    let odd = Entry { xattrs: vec![(b"user.a=b".to_vec(), b"".to_vec())], ..file(b"x") };
    assert!(writer.entry(&odd).unwrap_err().to_string().contains("user.a=b"));
    writer.entry(&Entry { size: 2, ..file(b"x") }).unwrap();
    assert!(writer.body(b"###").is_err());
    assert!(writer.body(b"#").is_ok() && writer.finish().is_err());
}
