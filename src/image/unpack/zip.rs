//! A zip archive with one file in it, read from front to back as if it were gzip: what older images for boards are shipped as. What
//! a newcomer would get wrong: zip's directory stands at the end, but each file has a header of its own before it, which is enough
//! for one file; its length may be told behind it only. Source: PKWARE, APPNOTE.TXT 6.3.10.

use std::io::{self, BufRead, Read};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

const FILE: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const DIRECTORY: u32 = 0x0201_4b50;

enum Body<R> {
    Deflated(DeflateDecoder<R>),
    Stored(io::Take<R>),
    Over,
}

/// The file's bytes.
pub(super) struct Zip<R> {
    body: Body<R>,
    crc: Crc,
    /// The promised checksum; told behind the file when none.
    wanted: Option<u32>,
}

fn unsupported(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why.to_owned())
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl<R: BufRead> Zip<R> {
    /// Reads the header of the first file. Errors: Unsupported with a sentence, for what is not read.
    pub fn new(mut input: R) -> io::Result<Zip<R>> {
        let mut header = [0; 30];
        input.read_exact(&mut header)?;
        let short = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let long = |at: usize| short(at) | short(at + 2) << 16;
        let (flags, method) = (short(6), short(8));
        if flags & 1 != 0 {
            return Err(unsupported("the zip archive is encrypted"));
        }
        let mut name = vec![0; short(26) as usize];
        input.read_exact(&mut name)?;
        if name.ends_with(b"/") {
            return Err(unsupported("the zip archive holds more than one disk image: unpack it yourself"));
        }
        let mut extra = vec![0; short(28) as usize];
        input.read_exact(&mut extra)?;
        let told_behind = flags & 8 != 0;
        let body = match method {
            8 => Body::Deflated(DeflateDecoder::new(input)),
            0 if !told_behind => Body::Stored(input.take(stored_size(long(18), &extra))),
            _ => {
                return Err(unsupported(
                    "the zip archive is packed in a way that is not supported: use gzip, zstd or xz",
                ));
            }
        };
        Ok(Zip { body, crc: Crc::new(), wanted: (!told_behind).then(|| long(14) as u32) })
    }

    /// Checks the sum, and that nothing but the directory follows.
    fn finish(&mut self) -> io::Result<()> {
        let mut rest = match std::mem::replace(&mut self.body, Body::Over) {
            Body::Deflated(decoder) => decoder.into_inner(),
            Body::Stored(take) if take.limit() > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Body::Stored(take) => take.into_inner(),
            Body::Over => return Ok(()),
        };
        let mut next = word(&mut rest)?;
        let wanted = match self.wanted {
            Some(wanted) => wanted,
            None => {
                let sum = if next == DESCRIPTOR { word(&mut rest)? } else { next };
                rest.read_exact(&mut [0; 8])?;
                next = word(&mut rest)?;
                if !matches!(next, DIRECTORY | FILE) {
                    // Both sizes have eight bytes.
                    word(&mut rest)?;
                    next = word(&mut rest)?;
                }
                sum
            }
        };
        match next {
            _ if wanted != self.crc.sum() => Err(damaged("its checksum is wrong")),
            FILE => Err(unsupported("the zip archive holds more than one file: unpack it yourself")),
            DIRECTORY => Ok(()),
            _ => Err(damaged("what follows the file is no directory")),
        }
    }
}

fn word(input: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// The size of a file that is not packed: from its header, or from the field for large ones (id 1: size, packed size).
fn stored_size(told: u64, mut extra: &[u8]) -> u64 {
    while told == 0xffff_ffff && extra.len() >= 20 {
        let length = usize::from(u16::from_le_bytes([extra[2], extra[3]]));
        if extra[..2] == [1, 0] {
            return extra[12..20].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        }
        extra = extra.get(4 + length..).unwrap_or_default();
    }
    told
}

impl<R: BufRead> Read for Zip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.body {
            Body::Deflated(decoder) => decoder.read(buffer)?,
            Body::Stored(take) => take.read(buffer)?,
            Body::Over => return Ok(0),
        };
        self.crc.update(&buffer[..n]);
        if n == 0 && !buffer.is_empty() {
            self.finish()?;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Tool;

    /// Archives by python's zipfile: stored, deflated, written to a pipe (so that sizes come behind), and with two files.
    fn made(how: &str) -> Vec<u8> {
        let script = format!(
            "import sys, io, zipfile\nclass Pipe(io.RawIOBase):\n    def __init__(s): s.b = bytearray()\n    def writable(s): return True\n    def write(s, d): s.b += d; return len(d)\n\
             o = Pipe() if 'pipe' in '{how}' else io.BytesIO()\n\
             with zipfile.ZipFile(o, 'w', zipfile.ZIP_STORED if 'stored' in '{how}' else zipfile.ZIP_DEFLATED) as z:\n    z.writestr('a.img', b'hello ' * 50000)\n    \n    if 'two' in '{how}': z.writestr('b', b'2')\n\
             sys.stdout.buffer.write(bytes(o.b) if 'pipe' in '{how}' else o.getvalue())"
        );
        Tool::new("python3").args(["-c", &script]).output().expect("python3")
    }

    fn read(zip: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Zip::new(zip)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn one_file_comes_out() {
        for how in ["stored", "deflated", "pipe"] {
            assert!(read(&made(how)).unwrap() == b"hello ".repeat(50000), "{how}");
        }
    }

    #[test]
    fn what_is_refused() {
        for how in ["two", "two stored", "two pipe"] {
            assert!(read(&made(how)).unwrap_err().to_string().contains("more than one file"), "{how}");
        }
        for how in ["deflated", "stored", "pipe"] {
            let good = made(how);
            for cut in [3, 31, 60, good.len() / 2, good.len() - 100] {
                assert_eq!(read(&good[..cut]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{how} {cut}");
            }
            let mut bad = good.clone();
            // The sum in the header; what is packed into a pipe has it behind.
            bad[14] ^= 1;
            if how != "pipe" {
                assert_eq!(read(&bad).unwrap_err().to_string(), "its checksum is wrong", "{how}");
            }
            let mut locked = good.clone();
            locked[6] |= 1;
            assert!(read(&locked).unwrap_err().to_string().contains("encrypted"));
        }
    }
}
