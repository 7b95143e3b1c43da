//! The stream from a source's bytes to an archive's: counting, hashing, decompression, and the channel between the two threads
//! that work on one layer. What a newcomer would get wrong: the format is told by the first bytes, never by a media type or
//! a file's name, for both lie.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::limits;
use crate::domain::Step;
use crate::image::digest::{Digest, Hasher};
use crate::image::net;

/// Bytes per piece between the threads, and how many pieces there are. Buffers go round: a fresh page costs more than a copy.
const PIECE: usize = 256 << 10;
const PIECES: usize = 8;

/// Counts and hashes what is read, and tells the step.
pub(super) struct Meter<'a> {
    source: &'a mut dyn Read,
    hasher: Hasher,
    /// Shared with whoever must know it while a decoder has the meter.
    count: Rc<Cell<u64>>,
    limit: u64,
    step: &'a dyn Step,
    /// What went wrong with the source itself.
    pub error: Option<io::Error>,
}

impl<'a> Meter<'a> {
    pub fn new(source: &'a mut dyn Read, limit: Option<u64>, step: &'a dyn Step) -> Meter<'a> {
        Meter {
            source,
            hasher: Hasher::new(),
            count: Rc::default(),
            limit: limit.unwrap_or(u64::MAX),
            step,
            error: None,
        }
    }

    /// How many bytes were read, now and later.
    pub fn count(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.count)
    }

    /// Reads what is left, for the digest's sake.
    pub fn drain(&mut self) {
        let mut buffer = vec![0; 64 << 10];
        while matches!(self.read(&mut buffer), Ok(n) if n > 0) {}
    }

    pub fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl Read for Meter<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.count.get() > self.limit {
            return Ok(0);
        }
        loop {
            let checked = net::check_signal().map_err(io::Error::other);
            match checked.and_then(|()| self.source.read(buffer)) {
                Ok(n) => {
                    self.hasher.update(&buffer[..n]);
                    self.count.set(self.count.get() + n as u64);
                    self.step.advance(n as u64);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let kind = e.kind();
                    self.error = Some(e);
                    return Err(kind.into());
                }
            }
        }
    }
}

/// What a stream is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// xz (The .xz File Format, tukaani.org).
    Xz,
    /// bzip2, which is told but not read.
    Bzip2,
}

/// Tells the packing by the first bytes of a stream.
pub fn packing(head: &[u8]) -> Packing {
    match head {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Bzip2,
        _ => Packing::None,
    }
}

/// Reads the first bytes and returns a reader of the unpacked stream.
pub(super) fn unpacked<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = [0; 6];
    let mut have = 0;
    while have < head.len() {
        match input.read(&mut head[have..])? {
            0 => break,
            n => have += n,
        }
    }
    let packing = packing(&head[..have]);
    let whole = BufReader::with_capacity(PIECE, Cursor::new(head).take(have as u64).chain(input));
    Ok(match packing {
        Packing::None => Box::new(whole),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(whole)?),
        Packing::Xz => {
            let stream = xz2::stream::Stream::new_stream_decoder(limits::DECODER, xz2::stream::CONCATENATED)?;
            Box::new(xz2::bufread::XzDecoder::new_stream(whole, stream))
        }
        Packing::Bzip2 => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "bzip2 is not supported: use gzip, zstd or xz"));
        }
    })
}

/// The writing end of the channel.
pub(super) struct Feed {
    to: SyncSender<Vec<u8>>,
    empties: Receiver<Vec<u8>>,
}

/// The reading end: hashes what passes.
pub(super) struct Pieces {
    from: Receiver<Vec<u8>>,
    back: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hasher: Option<Hasher>,
    pub count: u64,
}

pub(super) fn channel(hash: bool) -> (Feed, Pieces) {
    let (to, from) = sync_channel(PIECES);
    let (back, empties) = sync_channel(PIECES + 2);
    let pieces = Pieces { from, back, current: Vec::new(), at: 0, hasher: hash.then(Hasher::new), count: 0 };
    (Feed { to, empties }, pieces)
}

impl Feed {
    /// Sends all that `input` gives, as long as `may` allows so many bytes. False when the reader has gone.
    pub fn send_all(&self, mut input: impl Read, may: impl Fn(u64) -> io::Result<()>) -> io::Result<bool> {
        let mut sent = 0;
        loop {
            let mut piece = self.empties.try_recv().unwrap_or_default();
            piece.resize(PIECE, 0);
            let mut have = 0;
            while have < PIECE {
                match input.read(&mut piece[have..]) {
                    Ok(0) => break,
                    Ok(n) => have += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            piece.truncate(have);
            if have == 0 {
                return Ok(true);
            }
            sent += have as u64;
            may(sent)?;
            if self.to.send(piece).is_err() {
                return Ok(false);
            }
        }
    }
}

impl Pieces {
    pub fn finish(self) -> Option<Digest> {
        self.hasher.map(Hasher::finish)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() {
            let done = std::mem::take(&mut self.current);
            self.at = 0;
            if done.capacity() > 0 {
                // Full or hung up: then the buffer is simply freed.
                let _ = self.back.try_send(done);
            }
            if let Ok(piece) = self.from.recv() {
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&piece);
                }
                self.count += piece.len() as u64;
                self.current = piece;
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let n = piece.len().min(buffer.len());
        buffer[..n].copy_from_slice(&piece[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn packings_are_told_by_their_first_bytes() {
        let text = b"hello ".repeat(1000);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&text).unwrap();
        let gz = gz.finish().unwrap();
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&text).unwrap();
        let xz = xz.finish().unwrap();
        let zst = zstd::encode_all(text.as_slice(), 1).unwrap();
        for (name, packed) in [("plain", text.clone()), ("gzip", gz), ("xz", xz), ("zstd", zst)] {
            // Twice, one after the other: several members make one stream.
            let twice = [packed.clone(), packed].concat();
            let mut out = Vec::new();
            unpacked(twice.as_slice()).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, text.repeat(2), "{name}");
        }
        assert!(unpacked(&b"BZh91AY"[..]).err().unwrap().to_string().contains("bzip2"));
    }

    #[test]
    fn pieces_arrive_in_order_and_are_hashed() {
        let data: Vec<u8> = (0..3 * PIECE + 5).map(|n| n as u8).collect();
        let (feed, mut pieces) = channel(true);
        let copy = data.clone();
        let sender = std::thread::spawn(move || feed.send_all(copy.as_slice(), |_| Ok(())).unwrap());
        let mut out = Vec::new();
        pieces.read_to_end(&mut out).unwrap();
        assert!(sender.join().unwrap());
        assert_eq!(pieces.finish().unwrap(), Digest::of(&data));
        assert!(out == data);
    }
}
