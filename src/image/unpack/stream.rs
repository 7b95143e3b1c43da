//! The stream from a source's bytes to an archive's: counting, hashing, decompression, and the channel between the two threads
//! that work on one layer. What a newcomer would get wrong: the format is told by the first bytes, never by a media type or
//! a file's name, for both lie.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::rc::Rc;
use std::sync::Arc;
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
    /// A zip archive with one file in it.
    Zip,
    /// bzip2, which is told but not read.
    Bzip2,
}

/// Tells the packing by the first bytes of a stream.
pub fn packing(head: &[u8]) -> Packing {
    match head {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
        [b'P', b'K', 3, 4, ..] => Packing::Zip,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Bzip2,
        _ => Packing::None,
    }
}

/// Reads the first bytes and returns a reader of the unpacked stream. `parallel`: the blocks of an xz file are unpacked side by
/// side, which costs memory for each of them.
pub(super) fn unpacked<'a>(mut input: impl Read + 'a, parallel: bool) -> io::Result<Box<dyn Read + 'a>> {
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
        Packing::Zip => Box::new(super::zip::Zip::new(whole)?),
        Packing::Xz if parallel => Box::new(Xz::new(whole)?),
        Packing::Xz => {
            let stream = xz2::stream::Stream::new_stream_decoder(limits::DECODER, xz2::stream::CONCATENATED)?;
            Box::new(xz2::bufread::XzDecoder::new_stream(whole, stream))
        }
        Packing::Bzip2 => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "bzip2 is not supported: use gzip, zstd or xz"));
        }
    })
}

/// How much memory unpacking blocks side by side may take; a file with larger ones is unpacked one after the other.
const XZ_MEMORY: u64 = 256 << 20;

/// xz with several threads. The decoder of one stream does not know of a second one behind it, so that is looked for here.
struct Xz<R: BufRead> {
    decoder: Option<xz2::bufread::XzDecoder<R>>,
}

impl<R: BufRead> Xz<R> {
    fn new(input: R) -> io::Result<Xz<R>> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(16));
        let stream = xz2::stream::MtStreamBuilder::new()
            .threads(threads as u32)
            .memlimit_threading(XZ_MEMORY)
            .memlimit_stop(limits::DECODER)
            .decoder()?;
        Ok(Xz { decoder: Some(xz2::bufread::XzDecoder::new_stream(input, stream)) })
    }

    /// Goes on with the stream behind this one; there may be zeros between them (The .xz File Format, 2.2).
    fn next_stream(&mut self) -> io::Result<()> {
        let Some(decoder) = self.decoder.take() else { return Ok(()) };
        let mut input = decoder.into_inner();
        loop {
            let buffer = input.fill_buf()?;
            let zeros = buffer.iter().take_while(|&&b| b == 0).count();
            match (buffer.is_empty(), zeros) {
                (true, _) => return Ok(()),
                (false, 0) => break,
                (false, n) => input.consume(n),
            }
        }
        *self = Xz::new(input)?;
        Ok(())
    }
}

impl<R: BufRead> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(0) };
            match decoder.read(buffer)? {
                0 if !buffer.is_empty() => self.next_stream()?,
                n => return Ok(n),
            }
        }
    }
}

/// A buffer that several threads read, and the last of them gives back.
type Piece = Arc<Vec<u8>>;

/// The writing end of the channel.
pub(super) struct Feed {
    to: SyncSender<Piece>,
    /// Who hashes what passes: a thread of its own, since hashing takes as long as half of the writing.
    hash: Option<SyncSender<Piece>>,
    empties: Receiver<Vec<u8>>,
}

/// The reading end.
pub(super) struct Pieces {
    from: Receiver<Piece>,
    back: SyncSender<Vec<u8>>,
    current: Piece,
    at: usize,
}

/// The end that hashes.
pub(super) struct Hashing {
    from: Receiver<Piece>,
    back: SyncSender<Vec<u8>>,
}

/// A channel to a reader and, with `hash`, to one who hashes the same bytes.
pub(super) fn channel(hash: bool) -> (Feed, Pieces, Option<Hashing>) {
    let (to, from) = sync_channel(PIECES);
    let (back, empties) = sync_channel(2 * PIECES + 2);
    let (hash, hashing) = match hash {
        true => {
            let (to, from) = sync_channel(PIECES);
            (Some(to), Some(Hashing { from, back: back.clone() }))
        }
        false => (None, None),
    };
    (Feed { to, hash, empties }, Pieces { from, back, current: Piece::default(), at: 0 }, hashing)
}

/// Gives a buffer back, if nobody else reads it. Full or hung up: then it is simply freed.
fn give_back(piece: Piece, back: &SyncSender<Vec<u8>>) {
    if let Some(buffer) = Arc::into_inner(piece).filter(|buffer| buffer.capacity() > 0) {
        let _ = back.try_send(buffer);
    }
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
            let piece = Arc::new(piece);
            if let Some(hash) = &self.hash {
                // It never hangs up before we do.
                let _ = hash.send(Arc::clone(&piece));
            }
            if self.to.send(piece).is_err() {
                return Ok(false);
            }
        }
    }
}

impl Hashing {
    /// Hashes until the writing end is gone.
    pub fn run(self) -> Digest {
        let mut hasher = Hasher::new();
        for piece in self.from {
            hasher.update(&piece);
            give_back(piece, &self.back);
        }
        hasher.finish()
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() {
            give_back(std::mem::take(&mut self.current), &self.back);
            self.at = 0;
            if let Ok(piece) = self.from.recv() {
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
            for parallel in [false, true] {
                let mut out = Vec::new();
                unpacked(twice.as_slice(), parallel).unwrap().read_to_end(&mut out).unwrap();
                assert_eq!(out, text.repeat(2), "{name}");
            }
            for parallel in [false, true] {
                let cut = unpacked(&twice[..twice.len() - 5], parallel).unwrap().read_to_end(&mut Vec::new());
                assert!(cut.is_err() || name == "plain", "{name} is cut");
            }
        }
        assert!(unpacked(&b"BZh91AY"[..], false).err().unwrap().to_string().contains("bzip2"));
    }

    #[test]
    fn pieces_arrive_in_order_and_are_hashed() {
        let data: Vec<u8> = (0..3 * PIECE + 5).map(|n| n as u8).collect();
        let (feed, mut pieces, hashing) = channel(true);
        let copy = data.clone();
        let sender = std::thread::spawn(move || feed.send_all(copy.as_slice(), |_| Ok(())).unwrap());
        let hasher = std::thread::spawn(|| hashing.unwrap().run());
        let mut out = Vec::new();
        pieces.read_to_end(&mut out).unwrap();
        assert!(sender.join().unwrap());
        assert_eq!(hasher.join().unwrap(), Digest::of(&data));
        assert!(out == data);
    }
}
