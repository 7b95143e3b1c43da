//! Which file system lies in a partition, how much room it says it needs, and by what names fstab knows it. What a newcomer
//! would get wrong: nothing here is a check that a file system is sound; that is the kernel's work. It says what the kernel
//! should be asked for, and tells a truncated image before anything is mounted.
//! Sources: kernel ext4/super.rst, xfs-on-disk, btrfs-progs "On-disk format", squashfs.rst, erofs.rst, util-linux libblkid.

use super::bytes::{Bytes, be32, be64, le32, le64};
use super::fat;
use crate::sys::disk::FileSystem;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub what: What,
    /// How many bytes it says it takes.
    pub size: u64,
    /// What `UUID=` names it by.
    pub uuid: String,
    /// What `LABEL=` names it by.
    pub label: String,
    /// It was not unmounted: its journal holds changes that nobody made.
    pub dirty: bool,
}

/// What can lie in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A file system that can be a root.
    Root(FileSystem),
    /// FAT, which boot loaders read.
    Fat,
    /// Something that is told and not used: `LUKS (encrypted)`.
    Unusable(&'static str),
}

impl What {
    /// Its name for messages.
    pub fn name(self) -> &'static str {
        match self {
            What::Root(kind) => kind.name(),
            What::Fat => "FAT",
            What::Unusable(name) => name,
        }
    }
}

/// Tells what lies in `part`; `None` for what is not known. Errors: a sentence, when it is known and cannot be whole.
pub fn identify<B: Bytes>(part: &B) -> Result<Option<Found>, String> {
    let Some(found) = look(part) else { return Ok(None) };
    if found.size > part.length() {
        let (name, needs, has) = (found.what.name(), found.size, part.length());
        return Err(format!("the {name} file system says it has {needs} bytes, but there are {has}: it is truncated"));
    }
    Ok(Some(found))
}

fn look<B: Bytes>(part: &B) -> Option<Found> {
    ext(part)
        .or_else(|| xfs(part))
        .or_else(|| squashfs(part))
        .or_else(|| erofs(part))
        .or_else(|| btrfs(part))
        .or_else(|| fat::identify(part))
        .or_else(|| unusable(part))
}

fn root(kind: FileSystem, size: u64) -> Found {
    Found { what: What::Root(kind), size, uuid: String::new(), label: String::new(), dirty: false }
}

fn ext<B: Bytes>(part: &B) -> Option<Found> {
    let block = part.vector(1024, 1024).ok()?;
    let shift = le32(&block, 24);
    if block[56..58] != [0x53, 0xef] || shift > 6 {
        return None;
    }
    const NEEDS_RECOVERY: u32 = 4;
    const WIDE: u32 = 0x80;
    let incompatible = le32(&block, 96);
    let high = if incompatible & WIDE == 0 { 0 } else { u64::from(le32(&block, 0x150)) };
    let blocks = u64::from(le32(&block, 4)) | high << 32;
    let found = root(FileSystem::Ext4, blocks.saturating_mul(1024 << shift));
    Some(Found {
        uuid: uuid(&block[104..120]),
        label: text(&block[120..136]),
        dirty: incompatible & NEEDS_RECOVERY != 0,
        ..found
    })
}

fn xfs<B: Bytes>(part: &B) -> Option<Found> {
    let block = part.vector(0, 512).ok()?;
    let size = be64(&block, 8).saturating_mul(u64::from(be32(&block, 4)));
    let found = root(FileSystem::Xfs, size);
    (&block[..4] == b"XFSB").then(|| Found { uuid: uuid(&block[32..48]), label: text(&block[108..120]), ..found })
}

fn btrfs<B: Bytes>(part: &B) -> Option<Found> {
    let block = part.vector(0x10000, 0x400).ok()?;
    let found = root(FileSystem::Btrfs, le64(&block, 0x70));
    (&block[0x40..0x48] == b"_BHRfS_M").then(|| Found {
        uuid: uuid(&block[32..48]),
        label: text(&block[0x12b..0x22b]),
        ..found
    })
}

fn squashfs<B: Bytes>(part: &B) -> Option<Found> {
    let block = part.vector(0, 96).ok()?;
    (&block[..4] == b"hsqs").then(|| root(FileSystem::Squashfs, le64(&block, 40)))
}

/// Whether the first bytes are those of a squashfs, whole or not.
pub fn is_squashfs<B: Bytes>(part: &B) -> bool {
    squashfs(part).is_some()
}

fn erofs<B: Bytes>(part: &B) -> Option<Found> {
    let block = part.vector(1024, 128).ok()?;
    if le32(&block, 0) != 0xe0f5_e1e2 || !(9..=16).contains(&block[12]) {
        return None;
    }
    let size = u64::from(le32(&block, 36)) << block[12];
    Some(Found { uuid: uuid(&block[48..64]), label: text(&block[64..80]), ..root(FileSystem::Erofs, size) })
}

/// What a user should hear the name of.
fn unusable<B: Bytes>(part: &B) -> Option<Found> {
    const SIGNS: [(u64, &[u8], &str); 7] = [
        (0, b"LUKS\xba\xbe", "LUKS (encrypted)"),
        (512, b"LABELONE", "LVM"),
        (4086, b"SWAPSPACE2", "swap"),
        (3, b"NTFS    ", "NTFS"),
        (1024, b"\x10\x20\xf5\xf2", "F2FS"),
        (0x8001, b"CD001", "ISO 9660"),
        (3, b"EXFAT   ", "exFAT"),
    ];
    let holds = |(at, sign, _): &&(u64, &[u8], &str)| part.vector(*at, sign.len()).is_ok_and(|found| found == *sign);
    let (.., name) = SIGNS.iter().find(holds)?;
    Some(Found { what: What::Unusable(name), size: 0, uuid: String::new(), label: String::new(), dirty: false })
}

fn uuid(bytes: &[u8]) -> String {
    let dash = |n: usize| if matches!(n, 4 | 6 | 8 | 10) { "-" } else { "" };
    bytes.iter().enumerate().map(|(n, b)| format!("{}{b:02x}", dash(n))).collect()
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(length: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut image = vec![0; length];
        for (at, bytes) in parts {
            image[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    #[test]
    fn file_systems_by_their_marks() {
        let ext =
            with(1 << 20, &[(1028, &[0, 1]), (1048, &[2]), (1080, &[0x53, 0xef]), (1120, &[4]), (1144, b"rootfs\0")]);
        let found = identify(&ext).unwrap().unwrap();
        assert_eq!((found.what, found.size, found.dirty), (What::Root(FileSystem::Ext4), 1 << 20, true));
        assert_eq!((found.label.as_str(), found.uuid.len()), ("rootfs", 36));
        let images = [
            (with(4096, &[(0, b"XFSB\0\0\x10\0\0\0\0\0\0\0\0\x01")]), "xfs"),
            (with(4096, &[(0, b"hsqs"), (40, &[0, 16])]), "squashfs"),
            (with(4096, &[(1024, &[0xe2, 0xe1, 0xf5, 0xe0]), (1036, &[12]), (1060, &[1])]), "erofs"),
            (with(0x11000, &[(0x10040, b"_BHRfS_M"), (0x10071, &[16])]), "btrfs"),
            (with(8192, &[(0, b"LUKS\xba\xbe")]), "LUKS (encrypted)"),
            (with(8192, &[(4086, b"SWAPSPACE2")]), "swap"),
        ];
        for (image, name) in images {
            assert_eq!(identify(&image).unwrap().unwrap().what.name(), name);
        }
        assert_eq!(identify(&vec![0; 8192]).unwrap(), None);
        assert_eq!(identify(&vec![7; 8192]).unwrap(), None);
        assert_eq!(identify(&Vec::new()).unwrap(), None);
    }

    #[test]
    fn a_truncated_one_is_told() {
        let ext = with(1 << 20, &[(1028, &[1, 1]), (1048, &[2]), (1080, &[0x53, 0xef])]);
        assert!(identify(&ext).unwrap_err().contains("ext4 file system says it has 1052672 bytes"));
        let wide = with(
            1 << 20,
            &[(1028, &[0xff; 4]), (1048, &[6]), (1080, &[0x53, 0xef]), (1120, &[0x80]), (1360, &[0xff; 4])],
        );
        assert!(identify(&wide).unwrap_err().contains("truncated"), "no overflow");
    }
}
