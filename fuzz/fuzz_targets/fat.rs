//! FAT file systems of disk images: every directory and file is read, as when they are copied.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::image::disk::fat::Fat;

fuzz_target!(|data: &[u8]| {
    let data = data.to_vec();
    let Some(fat) = Fat::open(&data) else { return };
    let Ok(mut todo) = fat.root() else { return };
    let mut bytes = 0;
    for _ in 0..2000 {
        let Some(node) = todo.pop() else { break };
        if node.is_dir {
            todo.extend(fat.list(&node).unwrap_or_default());
        } else {
            let _ = fat.read::<String>(&node, |piece| {
                bytes += piece.len();
                if bytes > 16 << 20 { Err("enough".into()) } else { Ok(()) }
            });
        }
    }
});
