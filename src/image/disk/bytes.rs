//! Bytes at a place, which is all that the parsers of this room know of an image: a file or a slice. What a newcomer would get
//! wrong: an image's numbers are anybody's, so a place is never computed without a check, and what lies beyond the end is an
//! error and not zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Something that bytes can be read from at any place.
pub trait Bytes {
    /// How many there are.
    fn length(&self) -> u64;
    /// Fills `buffer` from `offset` on. Errors: UnexpectedEof beyond the end; as pread(2).
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// `count` bytes from `offset` on; callers bound `count`.
    fn vector(&self, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; count];
        self.read_at(offset, &mut out)?;
        Ok(out)
    }
}

impl Bytes for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().filter(|&from| from <= self.len());
        let part = from.and_then(|from| self[from..].get(..buffer.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}

impl Bytes for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buffer)
    }
}

impl Bytes for File {
    fn length(&self) -> u64 {
        self.metadata().map_or(0, |meta| meta.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

/// A part of an image, as if it were one.
#[derive(Debug)]
pub struct Part<'a, B: ?Sized> {
    whole: &'a B,
    start: u64,
    size: u64,
}

impl<'a, B: Bytes + ?Sized> Part<'a, B> {
    /// `size` bytes of `whole` from `start` on; what the image is too short for cannot be read.
    pub fn new(whole: &'a B, start: u64, size: u64) -> Part<'a, B> {
        Part { whole, start, size }
    }
}

impl<B: Bytes + ?Sized> Bytes for Part<'_, B> {
    fn length(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.size);
        let at = end.and_then(|_| self.start.checked_add(offset)).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.whole.read_at(at, buffer)
    }
}

/// Little-endian numbers in a block that is known to be long enough.
pub(super) fn le16(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

pub(super) fn le32(block: &[u8], at: usize) -> u32 {
    u32::from(le16(block, at)) | u32::from(le16(block, at + 2)) << 16
}

pub(super) fn le64(block: &[u8], at: usize) -> u64 {
    u64::from(le32(block, at)) | u64::from(le32(block, at + 4)) << 32
}

pub(super) fn be32(block: &[u8], at: usize) -> u32 {
    le32(block, at).swap_bytes()
}

pub(super) fn be64(block: &[u8], at: usize) -> u64 {
    le64(block, at).swap_bytes()
}
