//! FAT, as boot loaders read it: enough to list it and to copy its files out. What a newcomer would get wrong: it is read here and
//! not mounted, because overlayfs refuses FAT as a layer (names without regard to case), so a guest could not change a file of it;
//! and a FAT that anybody may have made is one thing less for the host's kernel to read. Which of the three kinds it is follows
//! from the number of clusters alone. Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03.

use super::bytes::{Bytes, le16, le32};
use super::superblock::{Found, What};

/// A directory may have this many bytes (65536 entries), as the specification says.
const MAX_DIRECTORY: u64 = 2 << 20;

/// One FAT file system.
#[derive(Debug)]
pub struct Fat<'a, B> {
    part: &'a B,
    cluster: u64,
    /// Width of an entry of the table, in bits.
    bits: u64,
    clusters: u64,
    table: u64,
    /// Where the root directory of the two old kinds lies, and its length; cluster 2 comes after it.
    fixed_root: (u64, u64),
    root: u64,
}

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name: never empty, `.`, `..`, and without a slash.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length of a file in bytes.
    pub size: u64,
    /// When it was changed, in seconds since 1970; FAT knows no time zone, so it is taken as UTC.
    pub changed: i64,
    first: u64,
}

pub(super) fn identify<B: Bytes>(part: &B) -> Option<Found> {
    let fat = Fat::open(part)?;
    let at = if fat.bits == 32 { 67 } else { 39 };
    let block = part.vector(0, 512).ok()?;
    let serial = le32(&block, at);
    let label = String::from_utf8_lossy(&block[at + 4..at + 15]).trim_end().to_owned();
    let size = fat.fixed_root.0 + fat.fixed_root.1 + fat.clusters * fat.cluster;
    Some(Found {
        what: What::Fat,
        size,
        uuid: format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff),
        label: if label == "NO NAME" { String::new() } else { label },
        dirty: false,
    })
}

impl<'a, B: Bytes> Fat<'a, B> {
    /// Reads the first sector; `None` when it is no FAT's.
    pub fn open(part: &'a B) -> Option<Fat<'a, B>> {
        let block = part.vector(0, 512).ok()?;
        let sector = u64::from(le16(&block, 11));
        let per_cluster = u64::from(block[13]);
        let (reserved, tables, entries) =
            (u64::from(le16(&block, 14)), u64::from(block[16]), u64::from(le16(&block, 17)));
        let legal = matches!(block[0], 0xeb | 0xe9)
            && le16(&block, 510) == 0xaa55
            && matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=4).contains(&tables)
            && (block[21] == 0xf0 || block[21] >= 0xf8);
        if !legal {
            return None;
        }
        let either = |short: usize, long: usize| match le16(&block, short) {
            0 => u64::from(le32(&block, long)),
            n => u64::from(n),
        };
        let (total, length) = (either(19, 32), either(22, 36));
        let root_sectors = (entries * 32).div_ceil(sector);
        let before = reserved + tables * length;
        let clusters = total.checked_sub(before + root_sectors)? / per_cluster;
        if length == 0 || clusters == 0 {
            return None;
        }
        let bits = match clusters {
            ..4085 => 12,
            4085..65525 => 16,
            _ => 32,
        };
        Some(Fat {
            part,
            cluster: per_cluster * sector,
            bits,
            clusters,
            table: reserved * sector,
            fixed_root: (before * sector, root_sectors * sector),
            root: u64::from(le32(&block, 44)),
        })
    }

    /// What is in the root directory. Errors: a sentence.
    pub fn root(&self) -> Result<Vec<Node>, String> {
        if self.bits == 32 {
            return self.parse(&self.chain_bytes(self.root)?);
        }
        let (at, length) = self.fixed_root;
        self.parse(&self.part.vector(at, length as usize).map_err(|_| truncated())?)
    }

    /// What is in a directory.
    pub fn list(&self, dir: &Node) -> Result<Vec<Node>, String> {
        self.parse(&self.chain_bytes(dir.first)?)
    }

    /// Gives a file's bytes, piece by piece, to `take`, which may refuse. Errors: a sentence, or what `take` said.
    pub fn read<E: From<String>>(&self, file: &Node, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let (mut left, mut at, mut buffer) = (file.size, file.first, vec![0; self.cluster as usize]);
        while left > 0 {
            let part = &mut buffer[..self.cluster.min(left) as usize];
            self.part.read_at(self.place(at)?, part).map_err(|_| truncated())?;
            take(part)?;
            left -= part.len() as u64;
            if left > 0 {
                at = self.next(at)?.ok_or_else(|| format!("'{}' is shorter than it says", file.name.escape_debug()))?;
            }
        }
        Ok(())
    }

    fn place(&self, cluster: u64) -> Result<u64, String> {
        match cluster.checked_sub(2).filter(|&n| n < self.clusters) {
            Some(n) => Ok(self.fixed_root.0 + self.fixed_root.1 + n * self.cluster),
            None => Err(format!("its table leads to cluster {cluster}, which it does not have")),
        }
    }

    fn next(&self, cluster: u64) -> Result<Option<u64>, String> {
        let mut entry = [0; 4];
        let at = self.table + cluster * self.bits / 8;
        self.part.read_at(at, &mut entry[..if self.bits == 32 { 4 } else { 2 }]).map_err(|_| truncated())?;
        let value = u64::from(u32::from_le_bytes(entry));
        let (value, end) = match self.bits {
            12 => ((value >> (4 * (cluster % 2))) & 0xfff, 0xff8),
            16 => (value, 0xfff8),
            _ => (value & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok((value < end).then_some(value))
    }

    /// The bytes of a directory, which does not say its length.
    fn chain_bytes(&self, first: u64) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut at = Some(first);
        while let Some(cluster) = at {
            if bytes.len() as u64 >= MAX_DIRECTORY {
                return Err("a directory of it has no end".into());
            }
            bytes.extend(self.part.vector(self.place(cluster)?, self.cluster as usize).map_err(|_| truncated())?);
            at = self.next(cluster)?;
        }
        Ok(bytes)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Vec<Node>, String> {
        let mut nodes = Vec::new();
        let mut long = LongName::default();
        for entry in bytes.chunks_exact(32) {
            const LABEL: u8 = 0x08;
            const DIRECTORY: u8 = 0x10;
            const LONG: u8 = 0x0f;
            match (entry[0], entry[11]) {
                (0, _) => break,
                (0xe5, _) => long = LongName::default(),
                (_, attributes) if attributes & 0x3f == LONG => long.add(entry),
                (_, attributes) if attributes & LABEL != 0 => long = LongName::default(),
                (_, attributes) => {
                    let name = std::mem::take(&mut long).finish(entry).unwrap_or_else(|| short_name(entry));
                    if name == "." || name == ".." {
                        continue;
                    }
                    if name.is_empty() || name.contains(['/', '\0']) {
                        return Err(format!("'{}' is no name", name.escape_debug()));
                    }
                    let high = if self.bits == 32 { u64::from(le16(entry, 20)) << 16 } else { 0 };
                    nodes.push(Node {
                        name,
                        is_dir: attributes & DIRECTORY != 0,
                        size: u64::from(le32(entry, 28)),
                        changed: changed(le16(entry, 24), le16(entry, 22)),
                        first: high | u64::from(le16(entry, 26)),
                    });
                }
            }
        }
        Ok(nodes)
    }
}

fn truncated() -> String {
    "it is truncated".into()
}

/// The pieces of a long name come before the entry that they belong to, the last one first.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    sum: u8,
    left: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        let order = entry[0];
        if order & 0x40 != 0 {
            *self = LongName { units: Vec::new(), sum: entry[13], left: order & 0x1f };
        } else if order != self.left || entry[13] != self.sum {
            *self = LongName::default();
            return;
        }
        self.left = self.left.saturating_sub(1);
        let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        let mut units: Vec<u16> = places.iter().map(|&at| le16(entry, at)).collect();
        units.append(&mut self.units);
        self.units = units;
    }

    fn finish(self, entry: &[u8]) -> Option<String> {
        let sum = entry[..11].iter().fold(0_u8, |sum, &b| sum.rotate_right(1).wrapping_add(b));
        if self.units.is_empty() || self.left != 0 || sum != self.sum {
            return None;
        }
        let end = self.units.iter().position(|&u| u == 0).unwrap_or(self.units.len());
        Some(String::from_utf16_lossy(&self.units[..end]))
    }
}

fn short_name(entry: &[u8]) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text: String = bytes.iter().map(|&b| if b.is_ascii() { char::from(b) } else { '_' }).collect();
        let text = text.trim_end().to_owned();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    let (base, extension) = (part(&entry[..8], entry[12] & 0x08 != 0), part(&entry[8..11], entry[12] & 0x10 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// Days since 1970 by the civil calendar, from a date in FAT's form, and the time of the day.
fn changed(date: u16, time: u16) -> i64 {
    let (year, month, day) = (i64::from(date >> 9) + 1980, i64::from(date >> 5 & 15), i64::from(date & 31));
    let before_march = i64::from(month < 3);
    let (year, month) = (year - before_march, (month + 9) % 12);
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = i64::from(time >> 11) * 3600 + i64::from(time >> 5 & 63) * 60 + i64::from(time & 31) * 2;
    days * 86400 + seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Tool;

    fn content<B: Bytes>(fat: &Fat<'_, B>, node: &Node) -> Vec<u8> {
        let mut out = Vec::new();
        let taken: Result<(), String> = fat.read(node, |piece| {
            out.extend_from_slice(piece);
            Ok(())
        });
        taken.unwrap();
        out
    }

    /// Images of all three kinds, made by the real tools, and read back.
    #[test]
    fn files_come_out_of_every_kind() {
        let dir = tempfile::tempdir().unwrap();
        let (image, file) = (dir.path().join("fat.img"), dir.path().join("x"));
        let data: Vec<u8> = (0..300_000_u32).map(|n| (n / 7) as u8).collect();
        crate::sys::fs::write_volatile(&file, &data, 0o644).unwrap();
        for (bits, size) in [("12", 2 << 20), ("16", 40 << 20), ("32", 64 << 20)] {
            std::fs::File::create(&image).unwrap().set_len(size).unwrap();
            let made = Tool::new("mkfs.vfat").args(["-F", bits, "-n", "bootfs", "-i", "12ab34cd"]).arg(&image).output();
            if let Err(why) = made {
                let text = format!("skipped: mkfs.vfat (dosfstools) is needed: {why}\n");
                std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()).unwrap();
                return;
            }
            let copy =
                |name: &str| Tool::new("mcopy").arg("-i").arg(&image).arg(&file).arg(format!("::{name}")).output();
            Tool::new("mmd").arg("-i").arg(&image).arg("::overlays").output().expect("mtools");
            for name in ["KERNEL.IMG", "config.txt", "overlays/A rather long name.dtbo"] {
                copy(name).unwrap();
            }
            let opened = std::fs::File::open(&image).unwrap();
            let found = identify(&opened).unwrap();
            assert_eq!((found.uuid.as_str(), found.label.as_str()), ("12AB-34CD", "bootfs"), "FAT{bits}");
            assert!(found.size <= size && found.size > size / 2);
            let fat = Fat::open(&opened).unwrap();
            assert_eq!(fat.bits.to_string(), bits);
            let root = fat.root().unwrap();
            let names: Vec<&str> = root.iter().map(|n| n.name.as_str()).collect();
            assert_eq!(names, ["overlays", "KERNEL.IMG", "config.txt"], "FAT{bits}");
            assert!(content(&fat, &root[1]) == data, "FAT{bits}");
            let below = fat.list(&root[0]).unwrap();
            assert_eq!(below.len(), 1);
            assert_eq!(below[0].name, "A rather long name.dtbo");
            assert!(content(&fat, &below[0]) == data && below[0].changed > 1_600_000_000);
        }
    }

    #[test]
    fn dates() {
        assert_eq!(changed(0x21, 0), 315_532_800, "1980-01-01");
        assert_eq!(changed(44 << 9 | 2 << 5 | 29, 12 << 11 | 30 << 5 | 5), 1_709_209_810, "2024-02-29 12:30:10");
        changed(0, 0xffff);
        changed(0xffff, 0);
    }

    #[test]
    fn a_circle_ends_and_bad_places_are_errors() {
        let mut image = vec![0; 1 << 20];
        image[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        image[11..33].copy_from_slice(&[0, 2, 1, 1, 0, 1, 16, 0, 0, 8, 0xf8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        // Clusters 2 and 3 of the 12-bit table lead to each other.
        image[512 + 3..512 + 6].copy_from_slice(&[0x03, 0x20, 0x00]);
        let dir = |first: u8| {
            let mut entry = *b"DIR        \x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
            entry[26] = first;
            entry
        };
        let root = 512 * 9;
        image[root..root + 32].copy_from_slice(&dir(2));
        image[root + 32..root + 64].copy_from_slice(&dir(200));
        image[root + 58 + 1] = 0xff;
        let fat = Fat::open(&image).unwrap();
        let nodes = fat.root().unwrap();
        assert_eq!(fat.list(&nodes[0]).unwrap_err(), "a directory of it has no end");
        assert!(fat.list(&nodes[1]).unwrap_err().contains("which it does not have"));
        let file = Node { is_dir: false, size: 1 << 30, ..nodes[0].clone() };
        let mut count = 0_u64;
        let stopped = fat.read(&file, |piece| {
            count += piece.len() as u64;
            if count > 1 << 20 { Err("enough".to_owned()) } else { Ok(()) }
        });
        assert_eq!(stopped.unwrap_err(), "enough");
    }
}
