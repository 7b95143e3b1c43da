//! qcow2 images: tables of tables, packed clusters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::image::disk::qcow2::Qcow2;

fuzz_target!(|data: &[u8]| {
    let Ok(image) = Qcow2::open(data) else { return };
    let mut bytes = 0;
    let _ = image.read::<()>(|_, piece| {
        bytes += piece.len();
        if bytes > 16 << 20 { Err(()) } else { Ok(()) }
    });
});
