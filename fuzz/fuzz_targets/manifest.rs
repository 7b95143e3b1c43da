//! Index, manifest and config, as a registry may send them, and the choice of a platform among what they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::image::oci::manifest::{Config, Document};
use pronto::image::platform;

fuzz_target!(|data: &[u8]| {
    match Document::parse(data) {
        Ok(Document::Index(entries)) => {
            let platforms: Vec<_> = entries.iter().filter_map(|e| e.platform()).collect();
            let _ = (platform::list(&platforms), entries.iter().filter(|e| e.is_attestation()).count());
            let wanted = platform::host();
            if let Some(best) = platform::best(&platforms, &wanted) {
                assert!(platform::rank(&platforms[best], &wanted).is_some());
            }
        }
        Ok(Document::Image(manifest)) => {
            let _ = manifest.layers.iter().chain([&manifest.config]).filter(|d| d.digest().is_ok()).count();
        }
        Err(why) => assert!(!why.is_empty()),
    }
    if let Ok(config) = Config::parse(data) {
        let _ = (
            platform::normal(&config.platform.architecture, config.platform.variant.as_deref()),
            config.diff_ids.len(),
        );
    }
});
