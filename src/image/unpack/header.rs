//! The fields of a tar header and the records of a PAX header: bytes in, values out. What a newcomer would get wrong: numbers
//! are octal text, or binary when their first bit is set (GNU), and both are found in one archive.

use super::sparse;
use super::tar::Fault;

/// Everything in an archive comes in blocks of this size.
pub(super) const BLOCK: usize = 512;

/// What the records of a PAX header and GNU long names say about the entry after them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overrides {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, i64)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: sparse::Records,
}

/// The fields of one 512-byte header.
#[derive(Debug)]
pub(super) struct Header {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub flag: u8,
    pub mode: u64,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub mtime: i64,
    pub device: (u32, u32),
    pub block: [u8; BLOCK],
}

impl Header {
    pub fn parse(block: &[u8; BLOCK], started: bool) -> Result<Header, Fault> {
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
        // Linux has 12 bits for the major number and 20 for the minor one (kdev_t.h).
        let device = |what: &str, range: std::ops::Range<usize>, most: u64| match field(what, range)? {
            n if n <= most => Ok(n as u32),
            n => Err(Fault::Entry { name: name.clone(), why: format!("its {what} {n} is none that Linux has") }),
        };
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
            device: if devices {
                (
                    device("device's major number", 329..337, 0xfff)?,
                    device("device's minor number", 337..345, 0xf_ffff)?,
                )
            } else {
                (0, 0)
            },
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

pub(super) fn until_zero(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// A number field: octal digits between spaces and zeros, or (first bit set) big-endian binary. An empty one is 0.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    signed(field).and_then(|n| u64::try_from(n).ok())
}

pub(super) fn signed(field: &[u8]) -> Option<i64> {
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
pub(super) fn parse_pax(mut data: &[u8]) -> Result<Overrides, String> {
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
pub(super) fn time(text: &[u8]) -> Option<(i64, i64)> {
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
