//! The old partition table of PCs, which the Raspberry Pi's images have too, with the chain of an extended partition. What a
//! newcomer would get wrong: the first sector of a FAT file system ends with the same two bytes; and the links of the chain
//! count from the extended partition's start, while the partitions in it count from their own link.
//! Source: UEFI specification 2.10, 5.2; util-linux, fdisk(8), "DOS-type partition table and DOS labels".

use super::bytes::{Bytes, le16, le32};
use super::table::{Partition, Role, check};

const SECTOR: u64 = 512;
/// More logical partitions than this has no honest disk: Linux names at most 255.
const MAX_LOGICAL: u32 = 255;

/// Reads the table; `None` when there is none, or only one that protects a GPT. Errors: a sentence that names what cannot be.
pub fn read<B: Bytes + ?Sized>(image: &B) -> Result<Option<Vec<Partition>>, String> {
    let Ok(block) = image.vector(0, 512) else { return Ok(None) };
    let Some(entries) = entries(&block) else { return Ok(None) };
    if entries.iter().all(|e| e.sectors == 0) || entries.iter().any(|e| e.kind == 0xee) {
        return Ok(None);
    }
    let disk = le32(&block, 440);
    let mut found = Vec::new();
    for (n, entry) in entries.iter().enumerate().filter(|(_, e)| e.kind != 0 && e.sectors > 0) {
        if is_extended(entry.kind) {
            chain(image, entry, disk, &mut found)?;
        } else {
            found.push(partition(n as u32 + 1, 0, entry, disk));
        }
    }
    check(&found, image.length())?;
    Ok(Some(found))
}

#[derive(Clone, Copy)]
struct Entry {
    kind: u8,
    first: u64,
    sectors: u64,
}

/// The four entries of a sector that is a table.
fn entries(block: &[u8]) -> Option<[Entry; 4]> {
    if le16(block, 510) != 0xaa55 {
        return None;
    }
    let entry = |n: usize| {
        let at = 446 + 16 * n;
        // "Active" or not; anything else is code of a boot sector.
        let legal = block[at] & 0x7f == 0;
        let entry = Entry {
            kind: block[at + 4],
            first: u64::from(le32(block, at + 8)),
            sectors: u64::from(le32(block, at + 12)),
        };
        legal.then_some(entry)
    };
    Some([entry(0)?, entry(1)?, entry(2)?, entry(3)?])
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

fn partition(number: u32, base: u64, entry: &Entry, disk: u32) -> Partition {
    let role = match entry.kind {
        0x83 => Role::Linux,
        0xef => Role::Esp,
        0x01 | 0x04 | 0x06 | 0x0b | 0x0c | 0x0e => Role::Fat,
        _ => Role::Other,
    };
    let uuid = format!("{disk:08x}-{number:02x}");
    let (start, size) = ((base + entry.first) * SECTOR, entry.sectors * SECTOR);
    Partition { number, start, size, role, uuid, label: String::new() }
}

/// The logical partitions, from number 5 on.
fn chain<B: Bytes + ?Sized>(image: &B, extended: &Entry, disk: u32, found: &mut Vec<Partition>) -> Result<(), String> {
    let mut link = 0;
    for number in 5..5 + MAX_LOGICAL {
        let base = extended.first + link;
        let block = image.vector(base * SECTOR, 512);
        let block = block.map_err(|_| {
            format!(
                "the extended partition goes on at byte {}, beyond the image: it is truncated or damaged",
                base * SECTOR
            )
        })?;
        let Some([logical, next, ..]) = entries(&block) else {
            return Err("the chain of its extended partition is damaged".into());
        };
        if logical.kind != 0 && logical.sectors > 0 {
            found.push(partition(number, base, &logical, disk));
        }
        if next.sectors == 0 || !is_extended(next.kind) {
            return Ok(());
        }
        // Only forward and only inside: a chain that turns back never ends.
        if next.first <= link || next.first >= extended.sectors {
            return Err("the chain of its extended partition leads back or out".into());
        }
        link = next.first;
    }
    Err(format!("its extended partition has more than {MAX_LOGICAL} partitions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(image: &mut [u8], sector: usize, n: usize, kind: u8, first: u32, sectors: u32) {
        let at = sector * 512 + 446 + 16 * n;
        image[at + 4] = kind;
        image[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        image[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        image[sector * 512 + 510..sector * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
    }

    fn disk() -> Vec<u8> {
        let mut image = vec![0; 1 << 20];
        image[440..444].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
        put(&mut image, 0, 0, 0x0c, 16, 100);
        put(&mut image, 0, 1, 0x83, 200, 300);
        image
    }

    #[test]
    fn the_layout_of_a_raspberry_pi() {
        let found = read(&disk()).unwrap().unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].role, found[0].start, found[0].size), (Role::Fat, 16 * 512, 100 * 512));
        assert_eq!((found[1].role, found[1].uuid.as_str()), (Role::Linux, "1234abcd-02"));
    }

    #[test]
    fn logical_partitions_are_counted_from_five() {
        let mut image = disk();
        put(&mut image, 0, 2, 0x0f, 1000, 900);
        put(&mut image, 1000, 0, 0x83, 10, 100);
        put(&mut image, 1000, 1, 0x05, 200, 300);
        put(&mut image, 1200, 0, 0x83, 10, 50);
        let found = read(&image).unwrap().unwrap();
        let places: Vec<_> = found.iter().map(|p| (p.number, p.start / 512, p.size / 512)).collect();
        assert_eq!(places[2..], [(5, 1010, 100), (6, 1210, 50)]);
        put(&mut image, 1200, 1, 0x05, 200, 300);
        assert!(read(&image).unwrap_err().contains("leads back"), "a circle ends");
        put(&mut image, 1200, 1, 0x05, 5_000_000, 300);
        assert!(read(&image).unwrap_err().contains("or out"));
        put(&mut image, 0, 2, 0x0f, 9000, 900);
        assert!(read(&image).unwrap_err().contains("beyond the image"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let mut image = disk();
        put(&mut image, 0, 1, 0x83, 200, u32::MAX);
        assert!(read(&image).unwrap_err().starts_with("partition 2 ends at byte"));
        put(&mut image, 0, 1, 0x83, 100, 300);
        assert_eq!(read(&image).unwrap_err(), "partition 1 and partition 2 overlap");
    }

    #[test]
    fn what_is_no_table() {
        assert_eq!(read(&vec![0; 512]).unwrap(), None);
        assert_eq!(read(&vec![0; 100]).unwrap(), None);
        let mut code = disk();
        code[446] = 0x31;
        assert_eq!(read(&code).unwrap(), None, "a boot sector");
        let mut protective = disk();
        put(&mut protective, 0, 0, 0xee, 1, 100);
        assert_eq!(read(&protective).unwrap(), None);
    }
}
