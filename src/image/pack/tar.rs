//! Writing tar: ustar headers, and PAX records where those have no room (pax(1), "pax Header Block"; GNU tar manual, "PAX Format,
//! Version 1.0" for sparse files; SCHILY.xattr as in star(5)). What a newcomer would get wrong: the same tree must give the same
//! bytes, so nothing of the moment, of this machine or of its user tables stands in the archive; and a name need not be UTF-8,
//! which a PAX record must say (`hdrcharset=BINARY`).

use std::io::{self, Write};

use crate::image::unpack::sparse::Map;
use crate::image::unpack::tar::{Entry, Kind};

const BLOCK: usize = 512;
/// What fits an octal field of eight bytes, and one of twelve.
const SHORT: u64 = 0o7_777_777;
const LONG: u64 = 0o77_777_777_777;

/// Writes an archive from front to end: an entry, its body, the next entry, and at last the end mark.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Bytes of the current body that are still to come, and those that fill its last block.
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Writer<W> {
        Writer { out, left: 0, padding: 0 }
    }

    /// Writes an entry's header. Of a file, `entry.size` bytes must follow by [`Writer::body`] (of a sparse one the pieces of its map alone).
    /// Errors: the last body was not whole, an attribute's name holds a `=`, or as write(2).
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.close()?;
        let map = entry.sparse.as_ref().map(lines).unwrap_or_default();
        let size = if entry.kind == Kind::File { entry.size + map.len() as u64 } else { 0 };
        let mut header = Header::new(entry, size);
        let records = records(entry, size, &mut header)?;
        if !records.is_empty() {
            let pax = pax_header(&entry.name, records.len() as u64);
            self.out.write_all(&pax)?;
            self.out.write_all(&records)?;
            self.out.write_all(&[0; BLOCK][..padding(records.len() as u64)])?;
        }
        self.out.write_all(&header.sealed())?;
        self.out.write_all(&map)?;
        self.left = if entry.kind == Kind::File { entry.size } else { 0 };
        self.padding = padding(size);
        Ok(())
    }

    /// Writes a piece of the current entry's body. Errors: more than its header promised; as write(2).
    pub fn body(&mut self, piece: &[u8]) -> io::Result<()> {
        self.left = self.left.checked_sub(piece.len() as u64).ok_or_else(|| io::Error::other("a body is too long"))?;
        self.out.write_all(piece)
    }

    /// Writes the end mark and gives the output back. Errors: the last body was not whole; as write(2).
    pub fn finish(mut self) -> io::Result<W> {
        self.close()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn close(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(io::Error::other("a body is too short"));
        }
        self.out.write_all(&[0; BLOCK][..std::mem::take(&mut self.padding)])
    }
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

/// The header block of an entry of `size` bytes called `name`, as for a file of root's. For archives that are put together by hand.
pub fn plain_header(name: &str, size: u64) -> [u8; BLOCK] {
    let entry = Entry {
        name: name.as_bytes().to_vec(),
        link: Vec::new(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        size,
        sparse: None,
        device: (0, 0),
        xattrs: Vec::new(),
    };
    let mut header = Header::new(&entry, size);
    header.name(&entry.name);
    if size > LONG {
        // GNU's binary form: the first bit says so. Here no record can come before, for the size is known last.
        header.put(124, &[0x80, 0, 0, 0]);
        header.put(128, &size.to_be_bytes());
    }
    header.sealed()
}

fn pax_header(name: &[u8], size: u64) -> [u8; BLOCK] {
    let trimmed = name.strip_suffix(b"/").unwrap_or(name);
    let last = trimmed.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let mut header = Header([0; BLOCK]);
    header.put(0, b"PaxHeaders/");
    header.put(11, &last[..last.len().min(80)]);
    header.numbers(0o644, size, 0);
    header.0[156] = b'x';
    header.sealed()
}

struct Header([u8; BLOCK]);

impl Header {
    fn new(entry: &Entry, size: u64) -> Header {
        let mut header = Header([0; BLOCK]);
        header.numbers(entry.mode, size, u64::try_from(entry.mtime.0).unwrap_or(0));
        header.octal(108, 7, u64::from(entry.uid).min(SHORT));
        header.octal(116, 7, u64::from(entry.gid).min(SHORT));
        header.0[156] = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        if matches!(entry.kind, Kind::Char | Kind::Block) {
            header.octal(329, 7, entry.device.0.into());
            header.octal(337, 7, entry.device.1.into());
        }
        header
    }

    fn numbers(&mut self, mode: u32, size: u64, mtime: u64) {
        self.octal(100, 7, u64::from(mode));
        self.octal(108, 7, 0);
        self.octal(116, 7, 0);
        self.octal(124, 11, size.min(LONG));
        self.octal(136, 11, mtime.min(LONG));
        self.put(257, b"ustar\x0000");
    }

    fn octal(&mut self, at: usize, digits: usize, number: u64) {
        self.put(at, format!("{number:0digits$o}").as_bytes());
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes the name, split at a slash where it is too long for one field; false when it does not fit at all, and its beginning stands there.
    fn name(&mut self, name: &[u8]) -> bool {
        if name.len() <= 100 {
            self.put(0, name);
            return true;
        }
        // The slash itself is written nowhere; what stands behind it may not be empty.
        let split = (0..name.len() - 1).filter(|&at| name[at] == b'/').find(|&at| name.len() - at - 1 <= 100);
        match split.filter(|&at| (1..=155).contains(&at)) {
            Some(at) => {
                self.put(345, &name[..at]);
                self.put(0, &name[at + 1..]);
                true
            }
            None => {
                self.put(0, &name[..100]);
                false
            }
        }
    }

    /// The block with its checksum: the sum of all bytes, its own field read as blanks.
    fn sealed(mut self) -> [u8; BLOCK] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// Fills the header's name and link, and returns the records for what it has no room for.
fn records(entry: &Entry, size: u64, header: &mut Header) -> io::Result<Vec<u8>> {
    let mut pax = Records::default();
    let mut name = entry.name.clone();
    if entry.kind == Kind::Directory && name.last() != Some(&b'/') {
        name.push(b'/');
    }
    if let Some(map) = &entry.sparse {
        // Who does not know sparse files shall not take this for the file.
        let base = name.rsplit(|&b| b == b'/').next().unwrap_or_default();
        header.put(0, b"GNUSparseFile.0/");
        header.put(16, &base[..base.len().min(80)]);
        pax.add(b"GNU.sparse.major", b"1");
        pax.add(b"GNU.sparse.minor", b"0");
        pax.text(b"GNU.sparse.name", &name);
        pax.add(b"GNU.sparse.realsize", map.size.to_string().as_bytes());
    } else if !header.name(&name) {
        pax.text(b"path", &name);
    }
    header.put(157, &entry.link[..entry.link.len().min(100)]);
    if entry.link.len() > 100 {
        pax.text(b"linkpath", &entry.link);
    }
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if u64::from(id) > SHORT {
            pax.add(key, id.to_string().as_bytes());
        }
    }
    if size > LONG {
        pax.add(b"size", size.to_string().as_bytes());
    }
    if entry.mtime.1 != 0 || u64::try_from(entry.mtime.0).map_or(true, |seconds| seconds > LONG) {
        pax.add(b"mtime", decimal(entry.mtime).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        if name.contains(&b'=') {
            let why = format!("its attribute '{}' cannot be written: its name holds a '='", name.escape_ascii());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        pax.add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    Ok(pax.0)
}

/// Seconds and nanoseconds as a decimal number; the nanoseconds count forward from the second before.
fn decimal((seconds, nanoseconds): (i64, i64)) -> String {
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (false, n) => ("", seconds, n),
        (true, 0) => ("-", -seconds, 0),
        (true, n) => ("-", -(seconds + 1), 1_000_000_000 - n),
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Records `LENGTH KEY=VALUE\n`, whose length counts itself.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// A name, which readers take for UTF-8 unless they are told.
    fn text(&mut self, key: &[u8], value: &[u8]) {
        if std::str::from_utf8(value).is_err() {
            self.add(b"hdrcharset", b"BINARY");
        }
        self.add(key, value);
    }
}

/// The map of a sparse file: decimal lines, filled up to a block. A hole at the end is a piece of nothing there, or GNU tar would make the
/// file too short.
fn lines(map: &Map) -> Vec<u8> {
    let end = map.pieces.last().map_or(0, |(offset, length)| offset + length);
    let tail = (end < map.size).then_some((map.size, 0));
    let mut text = format!("{}\n", map.pieces.len() + usize::from(tail.is_some()));
    for (offset, length) in map.pieces.iter().copied().chain(tail) {
        text += &format!("{offset}\n{length}\n");
    }
    let mut block = text.into_bytes();
    block.resize(block.len().next_multiple_of(BLOCK), 0);
    block
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
