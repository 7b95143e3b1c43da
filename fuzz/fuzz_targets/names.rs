//! Words of a command line that become names of files, hosts and units; sizes; the nearest label, the architecture's profile.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::domain::{Name, size};
use pronto::image::{Digest, catalogue};

fuzz_target!(|word: &str| {
    if let Ok(name) = Name::new(word) {
        assert!(!name.as_str().contains('/') && !name.as_str().starts_with('.'), "{name:?} would be another file");
        is_host(&name.hostname());
    }
    is_host(&Name::for_image(word).hostname());
    if let Ok(bytes) = size::parse(word) {
        assert!(!size::human(bytes).is_empty());
    }
    if let Some(label) = catalogue::nearest(word) {
        assert!(catalogue::is_label(label));
    }
    if let Ok(digest) = word.parse::<Digest>() {
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.hex().len() == 64 && digest.hex().bytes().all(|b| b.is_ascii_hexdigit()));
    }
    static PROFILES: std::sync::OnceLock<pronto::arch::Profiles> = std::sync::OnceLock::new();
    let _ = PROFILES.get_or_init(pronto::arch::Profiles::embedded).find(word);
});

/// A label of hostname(7).
fn is_host(host: &str) {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    assert!((1..=64).contains(&host.len()) && host.bytes().all(inside) && !host.starts_with('-'), "{host:?}");
}
