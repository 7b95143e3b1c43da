//! A disk image being written: zeros become holes, and there is an end to everything. What a newcomer would get wrong: a bomb is not
//! only large, it is also long: a few megabytes of compressed zeros are terabytes that take hours, and cost nothing on the disk. So
//! the size has a limit of its own, beside the room that must be left for others.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::sys::fs;
use crate::sys::unpack::begin_writeback;

/// The largest disk that is taken, in bytes: more than any card or stick that such images are made for.
pub const MAX_SIZE: u64 = 1 << 40;
/// What must stay free where the store lies, in bytes.
const RESERVE: u64 = 64 << 20;
/// The smallest hole.
const BLOCK: usize = 4096;
/// How much is written between two looks at the room that is left.
const STRIDE: u64 = 32 << 20;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A file that is written from front to back.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    limit: u64,
    /// One after the last byte, holes included.
    end: u64,
    unchecked: u64,
    dir: std::path::PathBuf,
}

impl Sink {
    /// Makes `name` in `dir`. Errors: as open(2).
    pub fn create(dir: &Path, name: &str) -> io::Result<Sink> {
        let file = File::options().read(true).write(true).create_new(true).open(dir.join(name))?;
        std::fs::set_permissions(dir.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(Sink { file, limit: MAX_SIZE, end: 0, unchecked: STRIDE, dir: dir.to_owned() })
    }

    /// Adds to the end.
    pub fn put(&mut self, data: &[u8]) -> io::Result<()> {
        self.put_at(self.end, data)
    }

    /// Writes `data` at `offset`, which is not before the end. Errors: FileTooLarge above the limit; ENOSPC when too little room
    /// would be left.
    pub fn put_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.reach(offset.saturating_add(data.len() as u64))?;
        let mut run = 0;
        let mut at = 0;
        while at < data.len() {
            // Blocks lie where the file system's do.
            let block = BLOCK - (offset as usize + at) % BLOCK;
            let next = (at + block).min(data.len());
            if data[at..next] == ZEROS[..next - at] {
                self.write(offset + run as u64, &data[run..at])?;
                run = next;
            }
            at = next;
        }
        self.write(offset + run as u64, &data[run..])
    }

    /// Makes the disk at least so long. Errors: FileTooLarge above the limit.
    pub fn reach(&mut self, end: u64) -> io::Result<()> {
        if end > self.limit {
            let gib = self.limit >> 30;
            let why = format!("it would be a disk of more than {gib} GiB, which is more than is unpacked");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        self.end = self.end.max(end);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.unchecked += data.len() as u64;
        if self.unchecked >= STRIDE {
            self.unchecked = 0;
            if fs::free_bytes(&self.dir)? < RESERVE {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            begin_writeback(self.file.as_fd());
        }
        self.file.write_all_at(data, offset)
    }

    /// Gives the file its length, rounded up to whole sectors, since a loop device shows no half ones. Returns the file and how
    /// many bytes it takes.
    pub fn finish(mut self, length: u64) -> io::Result<(File, u64)> {
        self.reach(length)?;
        self.file.set_len(self.end.next_multiple_of(512))?;
        let taken = self.file.metadata()?.blocks() * 512;
        Ok((self.file, taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_holes_and_everything_else_is_in_its_place() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut sink = Sink::create(dir.path(), "d").unwrap();
        let mut whole = vec![0_u8; 8 << 20];
        for (at, length) in [(0, 1), (5000, 3), (100_000, 9000), (3 << 20, 4096), ((5 << 20) - 1, 2)] {
            whole[at..at + length].fill(7);
        }
        // Pieces of an odd length, as a decompressor gives them.
        whole.chunks(70_001).for_each(|piece| sink.put(piece).unwrap());
        let (_, taken) = sink.finish(0).unwrap();
        assert!(std::fs::read(dir.path().join("d")).unwrap() == whole);
        assert!(taken <= 64 << 10, "{taken} bytes are taken");
    }

    #[test]
    fn there_is_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::create(dir.path(), "d").unwrap();
        sink.limit = 10_000;
        sink.put(&[0; 8192]).unwrap();
        assert_eq!(sink.put(&[0; 8192]).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(sink.put_at(u64::MAX, &[0]).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let (file, _) = sink.finish(9000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 9216, "whole sectors");
    }
}
