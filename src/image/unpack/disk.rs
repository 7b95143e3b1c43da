//! A source that turns out to be a disk: told by its first bytes, and written as one sparse file. What a newcomer would get wrong:
//! nothing here looks into the disk; that is done when it is whole. Names and endings say nothing, except in a tar, whose one
//! member is called by what it is.

use std::fs::File;
use std::io::{self, BufRead};
use std::path::Path;

use super::raw::Sink;
use super::{Failure, Written, header, stream, tar, tree};
use crate::image::disk::bytes::Bytes;
use crate::image::disk::qcow2::{self, Fault, Qcow2};
use crate::image::disk::superblock;
use crate::image::net;
use crate::store::sums::Known;

/// The disk's name in the layer's directory.
pub const NAME: &str = crate::store::layers::DISK;
/// What a qcow2 image is called there until it has become that.
const SPOOL: &str = "disk.qcow2";

/// What the first bytes of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A disk, or a file system, as it is.
    Raw,
    /// QEMU's format.
    Qcow2,
    /// Another program's, by its name.
    Foreign(&'static str),
}

/// Tells a disk by the first bytes of a stream; `None`: it is to be read as a tar.
pub(super) fn kind(head: &[u8]) -> Option<Kind> {
    let is_tar = head.first_chunk().is_some_and(|block| header::Header::parse(block, false).is_ok());
    let has = |at: usize, mark: &[u8]| head.get(at..at + mark.len()) == Some(mark);
    if is_tar {
        return None;
    }
    if has(0, &qcow2::MAGIC) {
        return Some(Kind::Qcow2);
    }
    for (at, mark, name) in [
        (0, &b"KDMV"[..], "VMDK"),
        (0x40, b"\x7f\x10\xda\xbe", "VDI"),
        (0, b"conectix", "VHD"),
        (0, b"vhdxfile", "VHDX"),
    ] {
        if has(at, mark) {
            return Some(Kind::Foreign(name));
        }
    }
    // A beginning is shorter than the file system that it begins, so what it says of its size does not count here.
    let file_system = || !matches!(superblock::identify(&head.to_vec()), Ok(None));
    (has(510, &[0x55, 0xaa]) || has(512, b"EFI PART") || has(4096, b"EFI PART") || file_system()).then_some(Kind::Raw)
}

/// Writes a disk. `local` is the source itself, when it is a file that can be read at any place.
pub(super) fn write(
    kind: Kind,
    pieces: &mut stream::Pieces,
    dest: &Path,
    local: Option<&File>,
) -> Result<Written, Failure> {
    match kind {
        Kind::Foreign(name) => Err(Failure::Archive(format!(
            "it is a disk in the format {name}, which is not read: qemu-img convert -O qcow2 makes one that is"
        ))),
        Kind::Raw => {
            let mut sink = Sink::create(dest, NAME).map_err(refused)?;
            spill(pieces, &mut sink)?;
            finished(sink, 0)
        }
        Kind::Qcow2 => match local.filter(|file| file.vector(0, 4).is_ok_and(|head| head == qcow2::MAGIC)) {
            Some(file) => {
                let written = convert(file, dest)?;
                // The rest of the stream belongs to the digest.
                io::copy(pieces, &mut io::sink()).map_err(refused)?;
                Ok(written)
            }
            None => {
                let mut sink = Sink::create(dest, SPOOL).map_err(refused)?;
                spill(pieces, &mut sink)?;
                let (file, _) = sink.finish(0).map_err(refused)?;
                let written = convert(&file, dest)?;
                std::fs::remove_file(dest.join(SPOOL)).map_err(refused)?;
                Ok(written)
            }
        },
    }
}

fn spill(pieces: &mut stream::Pieces, sink: &mut Sink) -> Result<(), Failure> {
    loop {
        let piece = pieces.fill_buf().map_err(refused)?;
        let length = piece.len();
        if length == 0 {
            return Ok(());
        }
        sink.put(piece).map_err(refused)?;
        pieces.consume(length);
    }
}

fn convert(file: &File, dest: &Path) -> Result<Written, Failure> {
    let image = Qcow2::open(file).map_err(Failure::Archive)?;
    let mut sink = Sink::create(dest, NAME).map_err(refused)?;
    // Before its tables are looked through.
    sink.reach(image.size).map_err(refused)?;
    let done = image.read(|at, data| {
        net::check_signal().map_err(io::Error::other)?;
        sink.put_at(at, data)
    });
    match done {
        Ok(()) => finished(sink, image.size),
        Err(Fault::Image(why)) => Err(Failure::Archive(why)),
        Err(Fault::Taker(error)) => Err(refused(error)),
    }
}

fn finished(sink: Sink, length: u64) -> Result<Written, Failure> {
    let (_, bytes) = sink.finish(length).map_err(refused)?;
    Ok(Written { known: Known::default(), bytes, entries: 1, summary: tree::Summary::default() })
}

fn refused(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::FileTooLarge if error.raw_os_error().is_none() => Failure::Archive(error.to_string()),
        _ => Failure::Host(NAME.into(), error),
    }
}

/// Whether the first member of a tar is a disk, as cloud images are shipped: one file and nothing else. A tree may begin with a file
/// of any name, so what the member begins with counts as well.
pub(super) fn is_member(entry: &tar::Entry, head: io::Result<&[u8]>) -> bool {
    let name = entry.name.to_ascii_lowercase();
    let named = entry.kind == tar::Kind::File && [&b".raw"[..], b".img"].iter().any(|end| name.ends_with(end));
    named && head.is_ok_and(|head| kind(head) == Some(Kind::Raw))
}

/// Writes a disk that is a member of a tar.
pub(super) fn write_member(
    archive: &mut tar::Reader<&mut stream::Pieces>,
    entry: &tar::Entry,
    dest: &Path,
) -> Result<Written, Failure> {
    let mut sink = Sink::create(dest, NAME).map_err(refused)?;
    let whole = [(0, entry.size)];
    let (places, length) = match &entry.sparse {
        Some(map) => (&map.pieces[..], map.size),
        None => (&whole[..], entry.size),
    };
    let mut places = places.iter().copied();
    let (mut offset, mut room) = (0, 0);
    let body = archive.body(|mut piece| {
        while !piece.is_empty() {
            if room == 0 {
                // The map was checked to be as long as the body.
                (offset, room) = places.next().ok_or(io::ErrorKind::InvalidData)?;
            }
            let take = piece.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            sink.put_at(offset, &piece[..take])?;
            piece = &piece[take..];
            offset += take as u64;
            room -= take as u64;
        }
        Ok(())
    });
    body.map_err(|error| match error {
        tar::BodyError::Read(_) => Failure::Archive(format!("entry '{}' is truncated", entry.name.escape_ascii())),
        tar::BodyError::Write(error) => refused(error),
    })?;
    finished(sink, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_by_their_first_bytes() {
        let with = |at: usize, mark: &[u8]| {
            let mut head = vec![0; 256 << 10];
            head[at..at + mark.len()].copy_from_slice(mark);
            head
        };
        for (at, mark) in
            [(510, &[0x55, 0xaa][..]), (512, b"EFI PART"), (1080, &[0x53, 0xef]), (0, b"hsqs"), (0x10040, b"_BHRfS_M")]
        {
            assert_eq!(kind(&with(at, mark)), Some(Kind::Raw), "{at}");
        }
        assert_eq!(kind(&with(0, b"QFI\xfb")), Some(Kind::Qcow2));
        assert_eq!(kind(&with(0, b"KDMV")), Some(Kind::Foreign("VMDK")));
        let tar = crate::image::testing::Tar::new().file("a", &[0x55; 4096]).end();
        assert_eq!(kind(&tar), None);
        assert_eq!(kind(b""), None);
        assert_eq!(kind(&[0; 1024]), None, "an empty tar");
        assert_eq!(kind(b"hello"), None);
    }

    /// A disk that is packed has two digests, as a layer has; the inner one is what some indexes promise.
    #[test]
    fn the_digest_of_the_disk_inside_is_checked() {
        use crate::domain::Quiet;
        use crate::image::testing::{digest, gzip};
        let mut disk = vec![0; 1 << 20];
        disk[1080..1082].copy_from_slice(&[0x53, 0xef]);
        disk[700_000..700_004].fill(9);
        let packed = gzip(&disk);
        let run = |inside: &str| {
            let dir = tempfile::tempdir().unwrap();
            let (outer, inner) = (digest(&packed).parse().unwrap(), inside.parse().unwrap());
            let job = super::super::Job {
                what: "image",
                source: &mut &packed[..],
                size: None,
                digest: Some(&outer),
                diff_id: Some(&inner),
                below: false,
                step: &Quiet,
            };
            let (unpacked, is_disk) = super::super::unpack_either(job, dir.path(), None)?;
            assert!(is_disk && std::fs::read(dir.path().join(NAME)).unwrap() == disk);
            Ok::<_, crate::image::Error>(unpacked.diff_id.unwrap().to_string())
        };
        assert_eq!(run(&digest(&disk)).unwrap(), digest(&disk));
        assert!(run(&digest(b"")).unwrap_err().to_string().contains("is damaged: its digest"));
    }
}
