//! The files that make up an image on the disk: those of a directory, or of one tar archive that is read where it lies. What a newcomer would
//! get wrong: an archive is not unpacked first; its headers are read once, bodies jumped over, and a blob is a range of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::MAX_DOCUMENT;
use crate::image::unpack::tar::{Kind, Reader};
use crate::image::{Error, Result, reference};

/// No image has more files than this; an archive of a whole tree has.
const MOST: usize = 100_000;
/// How often a link may lead to another one.
const LINKS: usize = 8;

/// Files by their names, which use `/` and have no `./` before them.
#[derive(Debug)]
pub enum Files {
    /// Below a directory.
    Directory(PathBuf),
    /// In a tar archive.
    Archive(Archive),
}

/// A tar archive, and where everything in it is.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    file: File,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
enum Place {
    /// First byte and length.
    Body(u64, u64),
    Link(String),
}

impl Files {
    /// Opens one of them. Errors: as open(2); NotFound in an archive that lacks it.
    pub fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send + '_>> {
        match self {
            Files::Directory(dir) => Ok(Box::new(File::open(dir.join(name))?)),
            Files::Archive(archive) => {
                let (at, left) = archive.find(name).ok_or(io::ErrorKind::NotFound)?;
                Ok(Box::new(Section { file: &archive.file, at, left }))
            }
        }
    }

    /// Reads a document, whole; `absent` is said when it is not there. Errors: it cannot be read, or is too large.
    pub fn document(&self, name: &str, what: &str, absent: impl FnOnce() -> Error) -> Result<Vec<u8>> {
        let failed = |doing: &str| format!("cannot {doing} {name} of {}", self.path().display());
        let file = match self.open(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(absent()),
            other => other.map_err(Error::io(failed("open")))?,
        };
        let mut data = Vec::new();
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut data).map_err(Error::io(failed("read")))?;
        if data.len() as u64 > MAX_DOCUMENT {
            return Err(Error::Malformed { what: what.to_owned(), why: "it is too large".into() });
        }
        Ok(data)
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        match self {
            Files::Directory(dir) => dir,
            Files::Archive(archive) => &archive.path,
        }
    }
}

impl Archive {
    /// Reads the headers of an archive. Errors: it cannot be read, is no plain tar, or ends too early.
    pub fn open(path: &Path) -> Result<Archive> {
        let path = reference::canonical(path)?;
        let io = |e| Error::io(format!("cannot read {}", path.display()))(e);
        let malformed = |why: String| Error::Malformed { what: path.display().to_string(), why };
        let file = File::open(&path).map_err(io)?;
        if let Some(packed) = packed(&file) {
            return Err(malformed(format!("it is compressed: unpack it with {packed} first, it is read in place")));
        }
        let length = file.metadata().map_err(io)?.len();
        let mut reader = Reader::new(BufReader::new(file.try_clone().map_err(io)?));
        let mut places = BTreeMap::new();
        while let Some(entry) = reader.next(false).map_err(|e| malformed(e.to_string()))? {
            let name = plain(&entry.name);
            let body = reader.jump().map_err(io)?;
            let place = match entry.kind {
                Kind::File if entry.sparse.is_some() => return Err(malformed(format!("'{name}' in it is sparse"))),
                Kind::File if body.saturating_add(entry.size) > length => {
                    return Err(malformed("it ends in the middle of an entry: it is truncated".into()));
                }
                Kind::File => Place::Body(body, entry.size),
                Kind::Symlink => Place::Link(beside(&name, &String::from_utf8_lossy(&entry.link))),
                Kind::HardLink => Place::Link(plain(&entry.link)),
                _ => continue,
            };
            if places.len() >= MOST {
                return Err(malformed("it holds too many files for an image".into()));
            }
            places.insert(name, place);
        }
        Ok(Archive { path: path.clone(), file, places })
    }

    /// First byte and length of a file's content.
    pub fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = name;
        for _ in 0..LINKS {
            match self.places.get(name)? {
                Place::Body(at, length) => return Some((*at, *length)),
                Place::Link(to) => name = to,
            }
        }
        None
    }
}

/// A name without the `./` that some put before all of theirs.
fn plain(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    name.strip_prefix("./").unwrap_or(&name).to_owned()
}

/// What a link at `name` leads to, if that is in the archive.
fn beside(name: &str, target: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// The program that unpacks it, where the first bytes are those of a compressed file.
pub fn packed(file: &File) -> Option<&'static str> {
    let mut magic = [0; 6];
    file.read_exact_at(&mut magic, 0).ok()?;
    match magic {
        [0x1f, 0x8b, ..] => Some("gunzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("unzstd"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Some("unxz"),
        [b'B', b'Z', b'h', ..] => Some("bunzip2"),
        _ => None,
    }
}

/// A range of a file, which others may read at the same time.
struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_names_of_the_archive() {
        assert_eq!(beside("abc/layer.tar", "../def/layer.tar"), "def/layer.tar");
        assert_eq!(beside("layer.tar", "../../etc/passwd"), "etc/passwd");
        assert_eq!(beside("a/b", "./c"), "a/c");
    }
}
