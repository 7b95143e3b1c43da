//! What an archive passes through on its way out: compression, hashing, counting. What a newcomer would get wrong: the same archive must
//! give the same bytes, so gzip gets neither a name nor a time, and one thread does it all.

use std::io::{self, Write};

use crate::image::digest::{Digest, Hasher};

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    Plain,
    /// gzip (RFC 1952): what every reader of images knows.
    Gzip,
    /// Zstandard (RFC 8878) at this level.
    Zstd(i32),
    /// xz (The .xz File Format, tukaani.org).
    Xz,
}

impl Codec {
    /// The media type of a layer that is packed so (image-spec, layer.md; none for xz).
    pub fn media_type(self) -> &'static str {
        match self {
            Codec::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Codec::Zstd(_) => "application/vnd.oci.image.layer.v1.tar+zstd",
            Codec::Plain | Codec::Xz => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

/// Compresses what is written to it.
pub enum Encoder<W: Write> {
    /// Not at all.
    Plain(W),
    /// gzip.
    Gzip(flate2::write::GzEncoder<W>),
    /// Zstandard.
    Zstd(zstd::stream::write::Encoder<'static, W>),
    /// xz.
    Xz(xz2::write::XzEncoder<W>),
}

impl<W: Write> std::fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl<W: Write> Encoder<W> {
    /// Begins. Errors: a level that zstd does not have.
    pub fn new(codec: Codec, out: W) -> io::Result<Encoder<W>> {
        Ok(match codec {
            Codec::Plain => Encoder::Plain(out),
            Codec::Gzip => Encoder::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::default())),
            Codec::Zstd(level) => Encoder::Zstd(zstd::stream::write::Encoder::new(out, level)?),
            Codec::Xz => Encoder::Xz(xz2::write::XzEncoder::new(out, 6)),
        })
    }

    /// Writes what is left and gives the output back. Errors: as write(2).
    pub fn finish(self) -> io::Result<W> {
        match self {
            Encoder::Plain(out) => Ok(out),
            Encoder::Gzip(inner) => inner.finish(),
            Encoder::Zstd(inner) => inner.finish(),
            Encoder::Xz(inner) => inner.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::Plain(out) => out.write(data),
            Encoder::Gzip(inner) => inner.write(data),
            Encoder::Zstd(inner) => inner.write(data),
            Encoder::Xz(inner) => inner.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Plain(out) => out.flush(),
            Encoder::Gzip(inner) => inner.flush(),
            Encoder::Zstd(inner) => inner.flush(),
            Encoder::Xz(inner) => inner.flush(),
        }
    }
}

/// Hashes and counts what passes.
#[derive(Debug)]
pub struct Hashing<W> {
    out: W,
    hasher: Hasher,
    count: u64,
}

impl<W: Write> Hashing<W> {
    /// Nothing has passed yet.
    pub fn new(out: W) -> Hashing<W> {
        Hashing { out, hasher: Hasher::new(), count: 0 }
    }

    /// The output, the digest of all that has passed, and how many bytes that was.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.out, self.hasher.finish(), self.count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.out.write(data)?;
        self.hasher.update(&data[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
