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

/// Moves to where the last [`KEEP`] bytes of whole lines begin, out of the first `length` bytes of a log.
pub fn seek_to_kept(log: &mut File, length: u64) -> io::Result<()> {
    let Some(start) = length.checked_sub(KEEP).filter(|s| *s > 0) else { return Ok(()) };
    log.seek(SeekFrom::Start(start - 1))?;
    let mut byte = [0];
    while log.read(&mut byte)? == 1 && byte[0] != b'\n' {}
    Ok(())
}

/// A console's bytes as a person can read them in an error: without colours, cursor moves and other control characters.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            // ECMA-48: ESC [ parameters final, ESC ] text BEL; any other escape is two characters long.
            '\x1b' => match rest.next() {
                Some('[') => while rest.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']') => while rest.next().is_some_and(|c| c != '\x07') {},
                _ => {}
            },
            '\n' => out.push('\n'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
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
    fn what_is_shown_is_the_last_mebibyte_in_whole_lines() {
        let mut file = tempfile::tempfile().unwrap();
        let lines: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
        file.write_all(lines.as_bytes()).unwrap();
        seek_to_kept(&mut file, lines.len() as u64).unwrap();
        let mut shown = String::new();
        file.read_to_string(&mut shown).unwrap();
        assert!(shown.len() as u64 <= KEEP && shown.len() as u64 > KEEP - 20);
        assert!(shown.starts_with("line ") && shown.ends_with("line 199999\n"));
    }

    #[test]
    fn people_see_no_escapes() {
        assert_eq!(plain(b"[\x1b[0;32m  OK  \x1b[0m] a\r\n\x1b]0;title\x07b\x1b(Bc\x00"), "[  OK  ] a\nbBc");
    }

    #[test]
    fn tail() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        assert_eq!(last_lines(b"a", 5), b"a");
        assert_eq!(last_lines(b"", 1), b"");
    }
}
