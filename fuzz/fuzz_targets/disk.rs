//! Partition tables and superblocks of disk images. A GPT's checksums are mended first, or nothing behind them would ever be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::image::disk::bytes::{Bytes, Part};
use pronto::image::disk::{gpt, mbr, superblock, traps};

fn look(data: &Vec<u8>) {
    for table in [gpt::read(data.as_slice()), mbr::read(data.as_slice())].into_iter().flatten().flatten() {
        for partition in table {
            let end = partition.start.checked_add(partition.size).expect("a partition has an end");
            assert!(end <= data.length(), "{} ends beyond the disk", partition.shown());
            let _ = superblock::identify(&Part::new(data, partition.start, partition.size));
        }
    }
    let _ = superblock::identify(&Part::new(data, 0, data.length()));
}

/// Makes the checksums of the first header right (UEFI, 5.3.2), for sectors of 512 bytes.
fn mended(data: &[u8]) -> Option<Vec<u8>> {
    let mut data = data.to_vec();
    let number = |data: &[u8], at: usize| u32::from_le_bytes(data[512 + at..512 + at + 4].try_into().unwrap()) as usize;
    if data.len() < 1024 || data[512..520] != *b"EFI PART" {
        return None;
    }
    let (length, at, count, size) = (number(&data, 12), number(&data, 72), number(&data, 80), number(&data, 84));
    let from = at.checked_mul(512)?;
    let entries = crc32fast::hash(data.get(from..from.checked_add(count.checked_mul(size)?)?)?);
    data[600..604].copy_from_slice(&entries.to_le_bytes());
    data[528..532].fill(0);
    let header = crc32fast::hash(data.get(512..512 + length)?);
    data[528..532].copy_from_slice(&header.to_le_bytes());
    Some(data)
}

fuzz_target!(|data: &[u8]| {
    look(&data.to_vec());
    if let Some(data) = mended(data) {
        look(&data);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (traps::fstab(text), traps::preload(text));
    }
});
