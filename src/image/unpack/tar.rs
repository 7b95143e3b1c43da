//! Reading tar: ustar, GNU long names and sparse files, PAX (pax(1), "ustar Interchange Format" and "pax Header Block").
//! What a newcomer would get wrong: names are bytes; a PAX record wins over a GNU long name, which wins over the header's own
//! field; and links, devices and directories have no body, whatever their size field says.

use std::io::{self, BufRead};

use super::header::{BLOCK, Header, Overrides, number, parse_pax, until_zero};
use super::sparse;

/// The most that a long name or a PAX header may hold. Names end at 4 KiB and attributes at 64 KiB each (Linux).
const MAX_META: u64 = 8 << 20;

/// The longest path that Linux takes (PATH_MAX with its zero), as a name and as what a link leads to.
const MAX_PATH: usize = 4095;

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
            // The last one means "nobody" to chown(2), which then changes nothing.
            u32::try_from(value)
                .ok()
                .filter(|&id| id != u32::MAX)
                .ok_or_else(|| refuse(&name, format!("its {what} {value} is too large")))
        };
        let (uid, gid) =
            (number("owner", pax.uid.unwrap_or(header.uid))?, number("group", pax.gid.unwrap_or(header.gid))?);
        // A name says that it is a directory, a size that something follows: readers disagree on what comes next.
        if kind == Kind::Directory
            && matches!(header.flag, b'0' | 0 | b'7' | b'S')
            && pax.size.unwrap_or(header.size) > 0
        {
            return Err(refuse(&name, "it is a directory by its name, and a file by its size".into()));
        }
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
        let link = pax.link.or(gnu.link).unwrap_or(header.link);
        for (what, path) in [("its name", &name), ("what it links to", &link)] {
            if path.len() > MAX_PATH {
                let shown = &path[..64];
                return Err(refuse(shown, format!("{what} has {} bytes, and paths end at {MAX_PATH}", path.len())));
            }
        }
        Ok(Entry {
            link,
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

    /// Where the current entry's body begins; goes on behind it without reading it. Errors: as lseek(2).
    pub fn jump(&mut self) -> io::Result<u64>
    where
        R: io::Seek,
    {
        let at = self.input.stream_position()?;
        let length = i64::try_from(self.left.saturating_add(self.padding)).map_err(io::Error::other)?;
        self.input.seek_relative(length)?;
        (self.left, self.padding) = (0, 0);
        Ok(at)
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

    /// What is at hand of the current entry's body, without taking it; empty at its end.
    pub fn peek(&mut self) -> io::Result<&[u8]> {
        let piece = self.input.fill_buf()?;
        Ok(&piece[..piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))])
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

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
