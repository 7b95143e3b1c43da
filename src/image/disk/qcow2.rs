//! qcow2, QEMU's image format, versions 2 and 3: read as the disk that it stands for. What a newcomer would get wrong: an image
//! may name another file that it is only the difference to, and who unpacks such an image that somebody else has made reads any
//! file of the host's into a guest; so a backing file and an external data file are refused, whatever they are called.
//! Source: QEMU, docs/interop/qcow2.rst.

use std::io::Read;

use super::bytes::{Bytes, be32, be64};

/// What the first bytes of an image are.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The most that the table of tables may have, in bytes, as in QEMU.
const MAX_L1: u64 = 32 << 20;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// An image that can be read.
#[derive(Debug)]
pub struct Qcow2<'a, B: ?Sized> {
    file: &'a B,
    cluster_bits: u32,
    /// The size of the disk in bytes.
    pub size: u64,
    l1: Vec<u8>,
    zstd: bool,
    version: u32,
}

/// Why an image cannot be read.
#[derive(Debug)]
pub enum Fault<E> {
    /// It is not as it should be, or refused; a sentence.
    Image(String),
    /// Whoever took the bytes refused them.
    Taker(E),
}

impl<'a, B: Bytes + ?Sized> Qcow2<'a, B> {
    /// Reads the header and the table of tables. Errors: a sentence.
    pub fn open(file: &'a B) -> Result<Qcow2<'a, B>, String> {
        let mut header = vec![0; 112];
        let have = file.length().min(112) as usize;
        file.read_at(0, &mut header[..have]).map_err(|e| format!("it cannot be read: {e}"))?;
        let version = be32(&header, 4);
        if header[..4] != MAGIC || have < 72 || !matches!(version, 2 | 3) {
            return Err(format!("it is no qcow2 image of version 2 or 3, but of version {version}"));
        }
        if be64(&header, 8) != 0 {
            let name = file.vector(be64(&header, 8), be32(&header, 16).min(1023) as usize).unwrap_or_default();
            let name = String::from_utf8_lossy(&name).escape_debug().to_string();
            return Err(format!(
                "it is only the difference to another file, '{name}', which is not read: qemu-img convert -O qcow2 makes one file of both"
            ));
        }
        if be32(&header, 32) != 0 {
            return Err("it is encrypted".into());
        }
        let zstd = if version == 3 { features(&header)? } else { false };
        let (cluster_bits, size) = (be32(&header, 20), be64(&header, 24));
        if !(9..=21).contains(&cluster_bits) {
            return Err(format!("its clusters of 2^{cluster_bits} bytes cannot be"));
        }
        let per_table = 1_u64 << (2 * cluster_bits - 3);
        let (needed, l1_size) = (size.div_ceil(per_table), u64::from(be32(&header, 36)));
        if l1_size < needed || needed * 8 > MAX_L1 {
            return Err(format!("its table does not fit its size of {size} bytes"));
        }
        let l1 = file.vector(be64(&header, 40), (needed * 8) as usize);
        let l1 = l1.map_err(|_| "its table lies beyond its end: it is truncated".to_owned())?;
        Ok(Qcow2 { file, cluster_bits, size, l1, zstd, version })
    }

    /// Gives every cluster that holds something to `take`, with its place on the disk, in order; what is not given is zero.
    pub fn read<E>(&self, mut take: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), Fault<E>> {
        let cluster = 1_u64 << self.cluster_bits;
        let mut buffer = vec![0; cluster as usize];
        for (n, entry) in self.l1.chunks_exact(8).enumerate() {
            let table = be64(entry, 0) & OFFSET;
            if table == 0 {
                continue;
            }
            let table = self.file.vector(table, cluster as usize).map_err(|_| beyond(n as u64))?;
            for (m, entry) in table.chunks_exact(8).enumerate() {
                let at = (n as u64 * (cluster / 8) + m as u64) << self.cluster_bits;
                if at >= self.size {
                    break;
                }
                if self.cluster(be64(entry, 0), at, &mut buffer).map_err(Fault::Image)? {
                    let length = cluster.min(self.size - at) as usize;
                    take(at, &buffer[..length]).map_err(Fault::Taker)?;
                }
            }
        }
        Ok(())
    }

    /// Fills `buffer` with one cluster; false when it is zero.
    fn cluster(&self, entry: u64, at: u64, buffer: &mut [u8]) -> Result<bool, String> {
        const COMPRESSED: u64 = 1 << 62;
        let truncated = || format!("the data of byte {at} lies beyond its end: it is truncated");
        if entry & COMPRESSED != 0 {
            let bits = 62 - (self.cluster_bits - 8);
            let place = entry & ((1 << bits) - 1);
            let sectors = (entry & (COMPRESSED - 1)) >> bits;
            let length = (sectors + 1) * 512 - (place & 511);
            // The last one of a file may say more than there is.
            let length = length.min(self.file.length().saturating_sub(place));
            let packed = self.file.vector(place, length as usize).map_err(|_| truncated())?;
            return self
                .decompress(&packed, buffer)
                .map(|()| true)
                .map_err(|e| format!("the data of byte {at} is damaged ({})", e.to_string().escape_debug()));
        }
        let zero = self.version >= 3 && entry & 1 != 0;
        let place = entry & OFFSET;
        if zero || place == 0 {
            return Ok(false);
        }
        let length = (buffer.len() as u64).min(self.size - at) as usize;
        self.file.read_at(place, &mut buffer[..length]).map_err(|_| truncated())?;
        Ok(true)
    }

    fn decompress(&self, packed: &[u8], buffer: &mut [u8]) -> std::io::Result<()> {
        if self.zstd {
            // A frame without its length is read up to the cluster's end; what follows it fills the sector.
            return zstd::stream::read::Decoder::with_buffer(packed)?.single_frame().read_exact(buffer);
        }
        flate2::bufread::DeflateDecoder::new(packed).read_exact(buffer)
    }
}

fn beyond<E>(n: u64) -> Fault<E> {
    Fault::Image(format!("its table number {n} lies beyond its end: it is truncated"))
}

/// What a version 3 image must be understood for. Returns whether its clusters are packed by zstd.
fn features(header: &[u8]) -> Result<bool, String> {
    let bits = be64(header, 72);
    let refuse = [(2, "it is marked as corrupt"), (4, "its data lies in another file, which is not read")];
    if let Some((_, why)) = refuse.iter().find(|(bit, _)| bits & bit != 0) {
        return Err((*why).into());
    }
    // Bit 0 is "dirty", which is about counters that reading does not need; bit 3 is the compression.
    if bits & !0b1001 != 0 {
        return Err(format!("it needs features that are not known (bits {bits:#x}; extended L2 entries are bit 4)"));
    }
    let length = be32(header, 100);
    match if bits & 8 != 0 && length > 104 { header[104] } else { 0 } {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("its compression {other} is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Tool;

    /// A version 2 image of 4 MiB with 64 KiB clusters: header, L1, L2, one data cluster.
    fn small() -> Vec<u8> {
        let mut image = vec![0; 4 << 16];
        image[..4].copy_from_slice(&MAGIC);
        for (at, value) in [(4, 2_u32), (20, 16), (36, 1)] {
            image[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        for (at, value) in [(24, 4_u64 << 20), (40, 1 << 16), (1 << 16, 2 << 16), ((2 << 16) + 8, 3 << 16)] {
            image[at..at + 8].copy_from_slice(&value.to_be_bytes());
        }
        image[3 << 16..].fill(0x42);
        image
    }

    fn read(image: &[u8]) -> Result<Vec<(u64, usize)>, String> {
        let opened = Qcow2::open(image)?;
        let mut seen = Vec::new();
        let done = opened.read(|at, data| -> Result<(), ()> {
            seen.push((at, data.len()));
            Ok(())
        });
        match done {
            Ok(()) => Ok(seen),
            Err(Fault::Image(why)) => Err(why),
            Err(Fault::Taker(())) => unreachable!(),
        }
    }

    fn with(at: usize, bytes: &[u8]) -> Result<Vec<(u64, usize)>, String> {
        let mut image = small();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        read(&image)
    }

    #[test]
    fn clusters_in_their_places() {
        assert_eq!(read(&small()).unwrap(), [(1 << 16, 1 << 16)]);
    }

    #[test]
    fn what_is_refused() {
        for (at, bytes, said) in [
            (8, &[0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 9][..], "the difference to another file, 'BBBBBBBBB'"),
            (35, &[1], "encrypted"),
            (7, &[9], "version 9"),
            (23, &[30], "clusters of 2^30"),
            (24, &[0xff], "does not fit its size"),
            (39, &[0], "does not fit its size"),
            (40, &[1], "lies beyond its end"),
            (1 << 16, &[0, 1], "table number 0 lies beyond"),
            ((2 << 16) + 8, &[0, 1], "byte 65536 lies beyond"),
            ((2 << 16) + 8, &[0x40], "byte 65536 is damaged"),
        ] {
            let error = with(at, bytes).unwrap_err();
            assert!(error.contains(said), "{at}: {error}");
        }
        for (bits, said) in [(2, "corrupt"), (4, "another file"), (16, "not known"), (8, "compression 7")] {
            let mut image = small();
            image[7] = 3;
            image[79] = bits;
            image[100..105].copy_from_slice(&[0, 0, 0, 112, 7]);
            assert!(read(&image).unwrap_err().contains(said), "{bits}");
        }
        assert!(read(b"QFI\xfb").unwrap_err().contains("no qcow2"));
    }

    #[test]
    fn any_header_is_read_without_a_panic() {
        for at in 4..112 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let _ = with(at, &[value]);
            }
        }
        for at in [1 << 16, 2 << 16, (2 << 16) + 8] {
            for byte in 0..8 {
                let _ = with(at + byte, &[0xff]);
            }
        }
    }

    /// What qemu-img writes, in every kind that is read, is the disk that it was made of.
    #[test]
    fn real_images() {
        let dir = tempfile::tempdir().unwrap();
        let (raw, made) = (dir.path().join("raw"), dir.path().join("made"));
        let mut disk = vec![0; (5 << 20) + 512];
        for (n, byte) in disk.iter_mut().enumerate().skip(1 << 20).take(900_000) {
            *byte = (n / 3) as u8;
        }
        disk[5 << 20..].fill(1);
        crate::sys::fs::write_volatile(&raw, &disk, 0o600).unwrap();
        for options in [
            &["-o", "compat=0.10"][..],
            &["-o", "cluster_size=4k"],
            &["-c"],
            &["-c", "-o", "compression_type=zstd"],
            &["-c", "-o", "cluster_size=2M"],
        ] {
            let made_it = Tool::new("qemu-img").args(["convert", "-O", "qcow2"]).args(options).arg(&raw).arg(&made);
            if let Err(why) = made_it.output() {
                let text = format!("skipped: qemu-img (qemu-utils) is needed: {why}\n");
                std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
                return;
            }
            let file = std::fs::File::open(&made).unwrap();
            let image = Qcow2::open(&file).unwrap();
            let mut read = vec![0; image.size as usize];
            let done = image.read(|at, data| -> Result<(), ()> {
                read[at as usize..][..data.len()].copy_from_slice(data);
                Ok(())
            });
            assert!(done.is_ok() && read == disk, "{options:?}: {:?}", done.err().map(|_| ()));
        }
    }
}
