//! Image words: what one is shown as means the same thing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::image::reference::{self, ImageRef, layout_parts};

fuzz_target!(|word: &str| {
    match reference::parse(word) {
        Ok(image) => {
            let shown = image.to_string();
            assert_eq!(reference::parse(&shown).ok().as_ref(), Some(&image), "{word:?} is shown as {shown:?}");
            match &image {
                ImageRef::Layout(rest) | ImageRef::OciArchive(rest) => assert!(!layout_parts(rest).is_empty()),
                ImageRef::Registry(registry) => {
                    assert!(shown.bytes().all(|b| b.is_ascii_graphic()), "{shown:?}");
                    let _ = reference::is_loopback(registry.registry());
                }
                _ => {}
            }
        }
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
});
