//! The console's log: everything the guest's console showed, bounded. What a newcomer would get wrong: the file is replaced
//! when it has grown to twice what is kept, so a reader that follows it must notice that the file is another one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What is kept at least, in bytes (whole lines).
pub const KEEP: u64 = 1 << 20;

/// A log that is appended to.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    /// Opens the log at `path`, going on where it ended. Errors: as open(2).
    pub fn open(path: &Path) -> io::Result<Log> {
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Log { path: path.to_owned(), file, size })
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends; a log that has grown to twice [`KEEP`] is cut to its last lines. Errors: as write(2); a full disk loses
    /// output, never the guest.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        if self.size >= 2 * KEEP { self.cut() } else { Ok(()) }
    }

    fn cut(&mut self) -> io::Result<()> {
        let beside = crate::sys::fs::beside(&self.path)?;
        let mut old = File::open(&self.path)?;
        old.seek(SeekFrom::Start(self.size - KEEP))?;
        let mut new = OpenOptions::new().create_new(true).append(true).read(true).mode(0o600).open(&beside)?;
        let copied = copy_from_next_line(&mut old, &mut new);
        match copied.and_then(|size| std::fs::rename(&beside, &self.path).map(|()| size)) {
            Ok(size) => {
                self.file = new;
                self.size = size;
                Ok(())
            }
            Err(e) => {
                let _ = std::fs::remove_file(&beside);
                Err(e)
            }
        }
    }
}

fn copy_from_next_line(old: &mut File, new: &mut File) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut written = 0;
    let mut in_line = true;
    loop {
        let n = old.read(&mut buffer)?;
        if n == 0 {
            return Ok(written);
        }
        let mut part = &buffer[..n];
        if in_line {
            let Some(end) = part.iter().position(|&b| b == b'\n') else { continue };
            in_line = false;
            part = &part[end + 1..];
        }
        new.write_all(part)?;
        written += part.len() as u64;
    }
}

/// The last `lines` lines of a log's bytes.
pub fn last_lines(bytes: &[u8], lines: usize) -> &[u8] {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut seen = 0;
    for (at, &byte) in body.iter().enumerate().rev() {
        if byte == b'\n' {
            seen += 1;
            if seen == lines {
                return &bytes[at + 1..];
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut log = Log::open(&path).unwrap();
        let mut n = 0;
        for _ in 0..60 {
            let mut block = Vec::new();
            while block.len() < 100_000 {
                block.extend(format!("line {n}\n").bytes());
                n += 1;
            }
            log.append(&block).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.len() as u64, log.size());
        assert!(log.size() >= KEEP - 100 && log.size() < 2 * KEEP, "{}", log.size());
        let mut numbers = text.lines().map(|l| l.strip_prefix("line ").unwrap().parse::<u32>().unwrap());
        let first = numbers.next().unwrap();
        assert!(numbers.eq(first + 1..n), "whole lines, none missing, up to the last");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(log);
        assert_eq!(Log::open(&path).unwrap().size(), text.len() as u64);
    }

    #[test]
    fn tail() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        assert_eq!(last_lines(b"a", 5), b"a");
        assert_eq!(last_lines(b"", 1), b"");
    }
}
