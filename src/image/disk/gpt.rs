//! The GUID partition table (UEFI specification 2.10, chapter 5.3), and what its type GUIDs mean for Linux (UAPI group, "The
//! Discoverable Partitions Specification"). What a newcomer would get wrong: the first three fields of a GUID are stored little
//! endian and shown big endian; and the table at the image's end is only asked when the first one is damaged.

use super::bytes::{Bytes, le32, le64};
use super::table::{Partition, Role, check};

/// The most that is read of the list of entries. The least that a table may have is 16 KiB, and more than that has hardly anyone.
const MAX_ENTRIES: u64 = 1 << 20;

/// Type GUIDs and what they stand for; architectures by the names of their profiles.
const TYPES: [(&str, Role); 25] = [
    ("44479540-f297-41b2-9af7-d131d5f0458a", Role::Root("i386")),
    ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", Role::Root("amd64")),
    ("69dad710-2ce4-4e3c-b16c-21a1d49abed3", Role::Root("armhf")),
    ("b921b045-1df0-41c3-af44-4c6f280d3fae", Role::Root("arm64")),
    ("77055800-792c-4f94-b39a-98c91b762bb6", Role::Root("loong64")),
    ("700bda43-7a34-4507-b179-eeb93d7a7ca3", Role::Root("mips64el")),
    ("c31c45e6-3f39-412e-80fb-4809c4980599", Role::Root("ppc64el")),
    ("72ec70a6-cf74-40e6-bd49-4bda08e8f224", Role::Root("riscv64")),
    ("5eead9a9-fe09-4a1e-a1d7-520d00531306", Role::Root("s390x")),
    ("75250d76-8cc6-458e-bd66-bd47cc81a812", Role::Usr("i386")),
    ("8484680c-9521-48c6-9c11-b0720656f69e", Role::Usr("amd64")),
    ("7d0359a3-02b3-4f0a-865c-654403e70625", Role::Usr("armhf")),
    ("b0e01050-ee5f-4390-949a-9101b17104e9", Role::Usr("arm64")),
    ("e611c702-575c-4cbe-9a46-434fa0bf7e3f", Role::Usr("loong64")),
    ("c97c1f32-ba06-40b4-9f22-236061b08aa8", Role::Usr("mips64el")),
    ("15bb03af-77e7-4d4a-b12b-c0d084f7491c", Role::Usr("ppc64el")),
    ("beaec34b-8442-439b-a40b-984381ed097d", Role::Usr("riscv64")),
    ("8a4f5770-50aa-4ed3-874a-99b710db6fea", Role::Usr("s390x")),
    ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", Role::Esp),
    ("bc13c2ff-59e6-4262-a352-b275fd6f7172", Role::Boot),
    ("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", Role::Fat),
    ("0fc63daf-8483-4772-8e79-3d69d8477de4", Role::Linux),
    // Roots of architectures without a profile: Linux all the same, and the ELF files say the rest.
    ("912ade1d-a839-4913-8964-a10eee08fbd2", Role::Linux),
    ("37c58c8a-d913-4156-a25f-48b1b64e07f0", Role::Linux),
    ("60d5a7fe-8e7d-435c-b714-3dd8162144e1", Role::Linux),
];

/// Reads the table; `None` when there is none. Errors: a sentence, about a table that is there and damaged in both its places,
/// or about partitions that cannot be.
pub fn read<B: Bytes + ?Sized>(image: &B) -> Result<Option<Vec<Partition>>, String> {
    for sector in [512, 4096] {
        let first = header(image, sector, 1);
        let Found::Nothing = first else {
            let header = match first {
                Found::Good(header) => header,
                _ => match header(image, sector, (image.length() / sector).saturating_sub(1)) {
                    Found::Good(header) => header,
                    _ => return Err("its partition table (GPT) is damaged, and so is the copy at its end".into()),
                },
            };
            return partitions(image, sector, &header).map(Some);
        };
    }
    Ok(None)
}

enum Found {
    Nothing,
    Damaged,
    Good(Header),
}

struct Header {
    entries: Vec<u8>,
    entry: usize,
}

fn header<B: Bytes + ?Sized>(image: &B, sector: u64, lba: u64) -> Found {
    let Ok(mut block) = image.vector(lba * sector, 512) else { return Found::Nothing };
    if &block[..8] != b"EFI PART" {
        return Found::Nothing;
    }
    let (length, crc) = (le32(&block, 12) as usize, le32(&block, 16));
    let (count, entry) = (u64::from(le32(&block, 80)), u64::from(le32(&block, 84)));
    let fits = (92..=512).contains(&length) && entry >= 128 && entry % 128 == 0 && count * entry <= MAX_ENTRIES;
    if !fits || le64(&block, 24) != lba {
        return Found::Damaged;
    }
    let (at, entries_crc) = (le64(&block, 72).checked_mul(sector), le32(&block, 88));
    block[16..20].fill(0);
    let entries = at.and_then(|at| image.vector(at, (count * entry) as usize).ok());
    match entries {
        Some(entries) if crc32(&block[..length]) == crc && crc32(&entries) == entries_crc => {
            Found::Good(Header { entries, entry: entry as usize })
        }
        _ => Found::Damaged,
    }
}

fn partitions<B: Bytes + ?Sized>(image: &B, sector: u64, header: &Header) -> Result<Vec<Partition>, String> {
    let mut found = Vec::new();
    for (n, entry) in header.entries.chunks_exact(header.entry).enumerate() {
        if entry[..16] == [0; 16] {
            continue;
        }
        let (number, kind) = (n as u32 + 1, guid(&entry[..16]));
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        let start = first.checked_mul(sector);
        let sectors = last.checked_sub(first).and_then(|n| n.checked_add(1));
        let size = sectors.and_then(|n| n.checked_mul(sector));
        let (Some(start), Some(size)) = (start, size) else {
            return Err(format!("partition {number} ends before it begins, or nowhere"));
        };
        let role = TYPES.iter().find(|(guid, _)| *guid == kind).map_or(Role::Other, |(_, role)| *role);
        let name: Vec<u16> = entry[56..128].chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
        let label = String::from_utf16_lossy(name.split(|&c| c == 0).next().unwrap_or_default());
        found.push(Partition { number, start, size, role, uuid: guid(&entry[16..32]), label });
    }
    check(&found, image.length())?;
    Ok(found)
}

/// A GUID as it is written (RFC 9562, with the first three fields little endian).
fn guid(bytes: &[u8]) -> String {
    let order = [3, 2, 1, 0, 16, 5, 4, 16, 7, 6, 16, 8, 9, 16, 10, 11, 12, 13, 14, 15];
    order.iter().map(|&n| bytes.get(n).map_or("-".to_owned(), |b| format!("{b:02x}"))).collect()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &str = "b921b045-1df0-41c3-af44-4c6f280d3fae";
    const LENGTH: usize = 4 << 20;

    fn stored(guid: &str) -> Vec<u8> {
        let hex: Vec<u8> = guid.bytes().filter(|&b| b != b'-').collect();
        let bytes: Vec<u8> =
            hex.chunks(2).map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap()).collect();
        [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].iter().map(|&n| bytes[n]).collect()
    }

    /// A disk with these partitions: type, first and last sector. Both tables are written.
    fn disk(parts: &[(&str, u64, u64)]) -> Vec<u8> {
        let mut image = vec![0; LENGTH];
        let mut entries = vec![0; 128 * 128];
        for (n, (kind, first, last)) in parts.iter().enumerate() {
            let entry = &mut entries[n * 128..][..128];
            entry[..16].copy_from_slice(&stored(kind));
            entry[16] = n as u8 + 1;
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            entry[56..60].copy_from_slice(b"r\0t\0");
        }
        let last = (LENGTH / 512 - 1) as u64;
        for (lba, list) in [(1, 2), (last, last - 32)] {
            let mut header = vec![0; 512];
            header[..8].copy_from_slice(b"EFI PART");
            header[12..16].copy_from_slice(&92u32.to_le_bytes());
            header[24..32].copy_from_slice(&lba.to_le_bytes());
            header[72..80].copy_from_slice(&list.to_le_bytes());
            header[80..84].copy_from_slice(&128u32.to_le_bytes());
            header[84..88].copy_from_slice(&128u32.to_le_bytes());
            header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
            let crc = crc32(&header[..92]);
            header[16..20].copy_from_slice(&crc.to_le_bytes());
            image[lba as usize * 512..][..512].copy_from_slice(&header);
            image[list as usize * 512..][..entries.len()].copy_from_slice(&entries);
        }
        image
    }

    #[test]
    fn partitions_and_their_roles() {
        let image = disk(&[(ARM64, 2048, 4095), ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", 4096, 5000)]);
        let found = read(&image).unwrap().unwrap();
        assert_eq!((found[0].number, found[0].start, found[0].size), (1, 1 << 20, 1 << 20));
        assert_eq!((found[0].role, found[0].label.as_str()), (Role::Root("arm64"), "rt"));
        assert_eq!((found[1].role, found[1].uuid.as_str()), (Role::Esp, "00000002-0000-0000-0000-000000000000"));
        assert_eq!(read(&vec![0; 4096]).unwrap(), None);
        assert_eq!(read(&Vec::new()).unwrap(), None);
    }

    #[test]
    fn the_copy_at_the_end_serves_when_the_first_is_damaged() {
        for at in [512 + 40, 1024 + 33, 512 + 12] {
            let mut image = disk(&[(ARM64, 2048, 4095)]);
            image[at] ^= 0xff;
            assert_eq!(read(&image).unwrap().unwrap().len(), 1, "byte {at}");
            let end = image.len() - 512 + 16;
            image[end] ^= 0xff;
            assert!(read(&image).unwrap_err().contains("damaged"), "byte {at}");
        }
    }

    #[test]
    fn partitions_that_cannot_be_are_named() {
        for (parts, said) in [
            (vec![(ARM64, 2048, 9000)], "partition 1 ('rt') ends at byte 4608512, but the image has 4194304 bytes"),
            (vec![(ARM64, 2048, 4095), (ARM64, 4000, 5000)], "partition 1 ('rt') and partition 2 ('rt') overlap"),
            (vec![(ARM64, 5000, 4000)], "partition 1 ends before it begins"),
            (vec![(ARM64, 0, u64::MAX)], "partition 1 ends before it begins, or nowhere"),
            (vec![(ARM64, u64::MAX / 512, u64::MAX / 512)], "ends"),
        ] {
            let error = read(&disk(&parts)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let good = disk(&[(ARM64, 2048, 4095)]);
        for at in (512..1200).chain(good.len() - 512..good.len()) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = read(&bad);
            }
        }
        for length in [0, 511, 512, 600, 1024, 5000, 20_000] {
            let _ = read(&good[..length]);
        }
    }
}
