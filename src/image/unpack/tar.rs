//! Reading tar: ustar, GNU long names and sparse files, PAX (pax(1), "ustar Interchange Format" and "pax Header Block").
//! What a newcomer would get wrong: names are bytes; a PAX record wins over a GNU long name, which wins over the header's own
//! field; and links, devices and directories have no body, whatever their size field says.

use std::io::{self, BufRead};

use super::sparse;

const BLOCK: usize = 512;
/// The most that a long name or a PAX header may hold. Names end at 4 KiB and attributes at 64 KiB each (Linux).
const MAX_META: u64 = 8 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry's header, everything resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name as it stands in the archive.
    pub name: Vec<u8>,
    /// What a link leads to.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, setuid, setgid and sticky among them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds and nanoseconds since 1970.
    pub mtime: (i64, i64),
    /// Bytes of body in the archive.
    pub size: u64,
    /// Bytes of the file itself and where its data lies, when it is sparse.
    pub sparse: Option<sparse::Map>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why reading stopped.
#[derive(Debug)]
pub enum Fault {
    /// The stream could not be read.
    Read(io::Error),
    /// It is no tar, or not one that is understood; a sentence.
    Malformed(String),
    /// One entry is not acceptable.
    Entry {
        /// Its name.
        name: Vec<u8>,
        /// Why not.
        why: String,
    },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Read(error)
    }
}

/// What the records of a PAX header and GNU long names say about the entry after them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, i64)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: sparse::Records,
}

/// Reads an archive from front to end.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes of the current entry's body that were not read yet.
    left: u64,
    /// Bytes that fill the body's last block.
    padding: u64,
    started: bool,
}

impl<R: BufRead> Reader<R> {
    /// Begins at the first header.
    pub fn new(input: R) -> Reader<R> {
        Reader { input, left: 0, padding: 0, started: false }
    }

    /// The next entry; `None` at the end mark, or (`strict` off) where the stream ends between two entries.
    pub fn next(&mut self, strict: bool) -> Result<Option<Entry>, Fault> {
        self.skip(self.left + self.padding)?;
        (self.left, self.padding) = (0, 0);
        let mut pax: Option<Overrides> = None;
        let mut gnu = Overrides::default();
        loop {
            let mut block = [0; BLOCK];
            if !self.fill(&mut block)? {
                if !self.started {
                    return Err(Fault::Malformed("it is empty".into()));
                }
                return if strict {
                    Err(Fault::Malformed("it ends without its end mark: it is truncated".into()))
                } else {
                    Ok(None)
                };
            }
            if block == [0; BLOCK] {
                return if self.started { Ok(None) } else { self.only_zeros() };
            }
            let header = Header::parse(&block, self.started)?;
            self.started = true;
            match header.flag {
                b'x' | b'X' => pax = Some(parse_pax(&self.meta(header.size)?).map_err(Fault::Malformed)?),
                b'g' => drop(self.meta(header.size)?),
                b'L' => gnu.path = Some(until_zero(&self.meta(header.size)?).to_vec()),
                b'K' => gnu.link = Some(until_zero(&self.meta(header.size)?).to_vec()),
                b'V' => self.skip(padded(header.size)?)?,
                _ => return self.entry(header, pax.unwrap_or_default(), gnu).map(Some),
            }
        }
    }

    /// An archive of nothing is two blocks of zeros: fine.
    fn only_zeros(&mut self) -> Result<Option<Entry>, Fault> {
        self.started = true;
        Ok(None)
    }

    fn entry(&mut self, header: Header, pax: Overrides, gnu: Overrides) -> Result<Entry, Fault> {
        let mut name = pax.path.or(gnu.path).unwrap_or(header.name);
        let refuse = |name: &[u8], why: String| Fault::Entry { name: name.to_vec(), why };
        let kind = match header.flag {
            b'0' | 0 | b'7' | b'S' if name.last() == Some(&b'/') => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(refuse(
                    &name,
                    format!("entries of type '{}' are not known", (other as char).escape_default()),
                ));
            }
        };
        let number = |what: &str, value: u64| {
            u32::try_from(value).map_err(|_| refuse(&name, format!("its {what} {value} is too large")))
        };
        let (uid, gid) =
            (number("owner", pax.uid.unwrap_or(header.uid))?, number("group", pax.gid.unwrap_or(header.gid))?);
        let size = if kind == Kind::File || header.flag == b'D' { pax.size.unwrap_or(header.size) } else { 0 };
        self.left = size;
        self.padding = padded(size)? - size;
        let mut sparse = None;
        if kind == Kind::File {
            let map = match (header.flag, &pax.sparse) {
                (b'S', _) => Some(self.old_sparse(&header.block).map_err(|why| refuse(&name, why))?),
                (_, records) if records.is_sparse() => {
                    Some(self.pax_sparse(records).map_err(|why| refuse(&name, why))?)
                }
                _ => None,
            };
            if let Some(map) = map {
                map.check(self.left).map_err(|why| refuse(&name, why))?;
                sparse = Some(map);
                if let Some(real) = pax.sparse.name {
                    name = real;
                }
            }
        }
        Ok(Entry {
            link: pax.link.or(gnu.link).unwrap_or(header.link),
            kind,
            mode: (header.mode & 0o7777) as u32,
            uid,
            gid,
            mtime: pax.mtime.unwrap_or((header.mtime, 0)),
            size: self.left,
            sparse,
            device: header.device,
            xattrs: pax.xattrs,
            name,
        })
    }

    /// The map of an old GNU sparse file: in the header, and in more blocks right after it.
    fn old_sparse(&mut self, header: &[u8; BLOCK]) -> Result<sparse::Map, String> {
        let mut map = sparse::Map::new(number(&header[483..495]).ok_or("its sparse size is no number")?);
        let mut more = map.read_table(&header[386..482], header[482])?;
        while more {
            let mut block = [0; BLOCK];
            if !self.fill(&mut block).map_err(|e| e.to_string())? {
                return Err("its sparse map is truncated".into());
            }
            more = map.read_table(&block[..504], block[504])?;
        }
        Ok(map)
    }

    fn pax_sparse(&mut self, records: &sparse::Records) -> Result<sparse::Map, String> {
        let mut map = sparse::Map::new(records.real_size.ok_or("its sparse size is missing")?);
        if let Some(list) = &records.map {
            map.read_list(list)?;
            return Ok(map);
        }
        // Version 1.0: the map is the first thing in the body, in decimal lines, filled up to a block.
        let mut text = sparse::Lines::default();
        loop {
            let mut block = [0; BLOCK];
            if self.left < BLOCK as u64 || !self.fill(&mut block).map_err(|e| e.to_string())? {
                return Err("its sparse map is truncated".into());
            }
            self.left -= BLOCK as u64;
            if text.push(&block, &mut map)? {
                return Ok(map);
            }
        }
    }

    /// Hands the rest of the current entry's body to `sink`, piece by piece.
    pub fn body(&mut self, mut sink: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), BodyError> {
        while self.left > 0 {
            let piece = self.input.fill_buf().map_err(BodyError::Read)?;
            if piece.is_empty() {
                return Err(BodyError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            let take = piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            sink(&piece[..take]).map_err(BodyError::Write)?;
            self.input.consume(take);
            self.left -= take as u64;
        }
        Ok(())
    }

    /// Reads what follows the end mark, to the very end. Returns the input.
    pub fn drain(mut self) -> Result<R, Fault> {
        loop {
            let length = self.input.fill_buf()?.len();
            if length == 0 {
                return Ok(self.input);
            }
            self.input.consume(length);
        }
    }

    fn meta(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        if size > MAX_META {
            return Err(Fault::Malformed(format!("a header of {size} bytes is too large")));
        }
        let mut data = vec![0; padded(size)? as usize];
        if !self.fill(&mut data)? && size > 0 {
            return Err(truncated());
        }
        data.truncate(size as usize);
        Ok(data)
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), Fault> {
        while bytes > 0 {
            let length = self.input.fill_buf()?.len();
            if length == 0 {
                return Err(truncated());
            }
            let take = length.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.input.consume(take);
            bytes -= take as u64;
        }
        Ok(())
    }

    /// Fills `buffer`; false when the stream ends before its first byte. Errors: it ends in the middle.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, Fault> {
        let mut have = 0;
        while have < buffer.len() {
            match self.input.read(&mut buffer[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(truncated()),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
pub enum BodyError {
    /// The archive.
    Read(io::Error),
    /// The file.
    Write(io::Error),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Read(error) => error.fmt(f),
            Fault::Malformed(why) => f.write_str(why),
            Fault::Entry { name, why } => write!(f, "entry '{}': {why}", name.escape_ascii()),
        }
    }
}

fn truncated() -> Fault {
    Fault::Malformed("it ends in the middle of an entry: it is truncated".into())
}

fn padded(size: u64) -> Result<u64, Fault> {
    size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| Fault::Malformed("an entry's size is too large".into()))
}

/// The fields of one 512-byte header.
#[derive(Debug)]
struct Header {
    name: Vec<u8>,
    link: Vec<u8>,
    flag: u8,
    mode: u64,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: i64,
    device: (u32, u32),
    block: [u8; BLOCK],
}

impl Header {
    fn parse(block: &[u8; BLOCK], started: bool) -> Result<Header, Fault> {
        if !checksum_holds(block) {
            return Err(Fault::Malformed(
                if started { "a header's checksum is wrong" } else { "it is no tar archive" }.into(),
            ));
        }
        let mut name = until_zero(&block[..100]).to_vec();
        // The prefix is POSIX's ("ustar\0"); GNU ("ustar ") keeps times there.
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            let mut whole = until_zero(&block[345..500]).to_vec();
            whole.push(b'/');
            whole.append(&mut name);
            name = whole;
        }
        let field = |what: &str, range: std::ops::Range<usize>| {
            number(&block[range])
                .ok_or_else(|| Fault::Entry { name: name.clone(), why: format!("its {what} is no number") })
        };
        let device = |what: &str, range: std::ops::Range<usize>| field(what, range).map(|n| n as u32);
        let flag = block[156];
        let devices = matches!(flag, b'3' | b'4');
        Ok(Header {
            link: until_zero(&block[157..257]).to_vec(),
            flag,
            mode: field("mode", 100..108)?,
            uid: field("owner", 108..116)?,
            gid: field("group", 116..124)?,
            size: field("size", 124..136)?,
            mtime: signed(&block[136..148]).unwrap_or(0),
            device: if devices { (device("device", 329..337)?, device("device", 337..345)?) } else { (0, 0) },
            block: *block,
            name,
        })
    }
}

/// The sum of all bytes with the sum's own field read as spaces; old programs summed signed bytes.
fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let Some(stored) = number(&block[148..156]) else { return false };
    let (mut unsigned, mut signed) = (8 * u64::from(b' '), 8 * i64::from(b' '));
    for (at, &byte) in block.iter().enumerate() {
        if !(148..156).contains(&at) {
            unsigned += u64::from(byte);
            signed += i64::from(byte as i8);
        }
    }
    stored == unsigned || i64::try_from(stored) == Ok(signed)
}

fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// A number field: octal digits between spaces and zeros, or (first bit set) big-endian binary. An empty one is 0.
fn number(field: &[u8]) -> Option<u64> {
    signed(field).and_then(|n| u64::try_from(n).ok())
}

/// As [`number`], for the maps of sparse files.
pub(super) fn field(field: &[u8]) -> Option<u64> {
    number(field)
}

fn signed(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement of as many bytes as there are; 0x80 marks a positive number and is no part of it.
        let start = if first & 0x40 != 0 { -1_i64 } else { 0 };
        let mut value = if first & 0x40 != 0 { start } else { i64::from(first & 0x3f) };
        for &byte in &field[1..] {
            if !(i64::MIN >> 8..=i64::MAX >> 8).contains(&value) {
                return None;
            }
            value = (value << 8) | i64::from(byte);
        }
        return Some(value);
    }
    let text = until_zero(field).trim_ascii();
    let mut value = 0_i64;
    for &digit in text {
        if !(b'0'..=b'7').contains(&digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

/// Reads the records `LENGTH KEY=VALUE\n`. Errors: a sentence.
fn parse_pax(mut data: &[u8]) -> Result<Overrides, String> {
    let mut out = Overrides::default();
    while !data.is_empty() && data[0] != 0 {
        let malformed = || "a PAX header is malformed".to_owned();
        let space = data.iter().position(|&b| b == b' ').ok_or_else(malformed)?;
        let length: usize = decimal(&data[..space]).ok_or_else(malformed)?.try_into().map_err(|_| malformed())?;
        if length < space + 3 || length > data.len() || data[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|&b| b == b'=').ok_or_else(malformed)?;
        out.set(&record[..equals], &record[equals + 1..])?;
        data = &data[length..];
    }
    Ok(out)
}

impl Overrides {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let whole = || decimal(value).ok_or_else(|| format!("PAX '{}' is no number", key.escape_ascii()));
        // An empty value takes back what a global header said; those are not obeyed here anyway.
        match key {
            _ if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") => {}
            b"path" | b"linkpath" if value.contains(&0) => return Err("a name holds a zero byte".into()),
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(whole()?),
            b"uid" => self.uid = Some(whole()?),
            b"gid" => self.gid = Some(whole()?),
            b"mtime" => self.mtime = Some(time(value).ok_or("PAX 'mtime' is no time")?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(key, value)?;
                }
            }
        }
        Ok(())
    }
}

/// Decimal digits.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]` as seconds and nanoseconds; the nanoseconds are never negative.
fn time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let seconds = i64::try_from(decimal(seconds.as_bytes())?).ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i64 = format!("{fraction:0<9}")[..9].parse().ok()?;
    match (negative, nanoseconds) {
        (false, n) => Some((seconds, n)),
        (true, 0) => Some((-seconds, 0)),
        (true, n) => Some((-seconds - 1, 1_000_000_000 - n)),
    }
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
