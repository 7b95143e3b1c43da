//! What fuzz targets share. What a newcomer would get wrong: a changed header has a wrong checksum, and every change would be refused for
//! that alone; so archives are [`mend`]ed first, and what lies behind the checksum is reached.

use std::path::{Path, PathBuf};

/// Puts the right checksum into each header of an archive. Bodies are stepped over, as far as plain size fields tell.
pub fn mend(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    let mut at = 0;
    while let Some(block) = out.get_mut(at..at + 512) {
        at += 512;
        if block.iter().all(|&b| b == 0) {
            continue;
        }
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        if !(b'1'..=b'6').contains(&block[156]) {
            let digits = block[124..136].iter().skip_while(|b| **b == b' ').take_while(|b| (b'0'..=b'7').contains(b));
            let size = digits.fold(0_usize, |n, b| n.saturating_mul(8).saturating_add(usize::from(b - b'0')));
            at = at.saturating_add(size).saturating_add(511) / 512 * 512;
        }
    }
    out
}

/// A directory of this process's own, on a tmpfs where there is one. It is removed by `contrib/fuzz.sh`, however a target ends.
pub fn scratch() -> PathBuf {
    let base =
        std::env::var_os("FUZZ_SCRATCH").map_or_else(|| Path::new("/dev/shm").join("pronto-fuzz"), PathBuf::from);
    let dir = base.join(std::process::id().to_string());
    std::fs::create_dir_all(&dir).expect("a directory for what is unpacked");
    dir
}
