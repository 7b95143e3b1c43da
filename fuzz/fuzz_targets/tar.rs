//! The tar reader: every entry of whatever bytes, its body read, and what it says within bounds.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;
use pronto::image::unpack::tar::{Kind, Reader};

fuzz_target!(|data: &[u8]| {
    let data = pronto_fuzz::mend(data);
    for strict in [false, true] {
        let mut reader = Reader::new(data.as_slice());
        let mut count = 0;
        while let Ok(Some(entry)) = reader.next(strict) {
            count += 1;
            assert!(count <= data.len() / 512, "more entries than headers");
            assert!(entry.name.len() <= 4095 && entry.link.len() <= 4095);
            assert!(entry.uid != u32::MAX && entry.gid != u32::MAX && entry.mode <= 0o7777);
            assert!((0..1_000_000_000).contains(&entry.mtime.1), "futimens would refuse {:?}", entry.mtime);
            assert!(entry.kind == Kind::File || entry.size == 0 || entry.kind == Kind::Directory);
            if let Some(map) = &entry.sparse {
                let ordered = map.pieces.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
                assert!(ordered && map.pieces.last().is_none_or(|(at, length)| at + length <= map.size));
                assert_eq!(map.pieces.iter().map(|(_, length)| length).sum::<u64>(), entry.size);
            }
            let mut body = Vec::new();
            match reader.body(|piece| body.write_all(piece)) {
                Ok(()) => assert_eq!(body.len() as u64, entry.size),
                Err(_) => break,
            }
        }
    }
});
