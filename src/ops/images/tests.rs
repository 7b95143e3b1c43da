//! What is said when an image cannot be had. What a newcomer would get wrong: nothing here asks a network; port 1 of loopback
//! refuses.

use super::*;
use crate::domain::{Quiet, Report, Step};
use crate::store::Store;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Report for Arc<Notes> {
    fn note(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
    fn warn(&self, _: &str) {}
    fn begin(&self, _: &str, _: Option<u64>) -> Box<dyn Step> {
        Box::new(Quiet)
    }
}

#[test]
fn a_mistyped_label_is_told_when_nobody_has_it() {
    let place = || "registry docker.io".to_owned();
    let missing = || image::Error::NotFound { what: "x".into(), place: place(), why: String::new() };
    let silent = || image::Error::Unreachable { place: place(), why: "no route".into() };
    let login = || image::Error::Refused { what: "x".into(), place: place(), why: "needs a login".into() };
    for (word, label) in [
        ("debain/bookworm", "debian/bookworm"),
        ("debian/bookwrom", "debian/bookworm"),
        ("fedroa/41", "fedora/41"),
        ("fedora:41", "fedora-41"),
    ] {
        for error in [missing(), silent(), login()] {
            assert_eq!(failed(word, error).cure(), Some(&*format!("did you mean {label}?")), "{word}");
        }
    }
    for word in ["someone/their-app:1", "quay.io/centos/centos:stream9", "debian/bookworm", "debian-12"] {
        assert_eq!(failed(word, missing()).cure(), None, "{word}");
    }
    let damaged = image::Error::Malformed { what: "x".into(), why: "no JSON".into() };
    assert_eq!(failed("debain/bookworm", damaged).cure(), None, "it is there, so it was meant");
}

#[test]
fn a_source_out_of_reach_is_one_line_and_the_next_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::at(Some(&dir.path().join("s")));
    store.open().unwrap();
    let notes = Arc::new(Notes::default());
    let ctx = Ctx { store, root: None, report: Arc::new(Arc::clone(&notes)), access: Default::default() };
    let settings = b"[streams]\nserver = \"http://127.0.0.1:1\"\n";
    crate::sys::fs::write_atomic(&ctx.store.sources(), settings, 0o600).unwrap();
    let tarball =
        catalogue::Template { url: "http://127.0.0.1:1/{arch}.tar".into(), arches: vec!["amd64=x86_64".into()] };
    let source = |tag: &str| Source::Oci(format!("127.0.0.1:1/x:{tag}"));
    let row = catalogue::Row {
        label: "test/x".into(),
        aliases: Vec::new(),
        family: catalogue::Family::Apt,
        sources: vec![source("a"), Source::Streams("x/y".into()), Source::Tarball(tarball), source("b")],
        booted: "never".into(),
        note: None,
    };
    let wish = Wish { platforms: None, ask: Ask::Present, mirror: None, include: &[], ready: &|_| Ok(Vec::new()) };
    let error =
        from_catalogue(&ctx, &row, &crate::ops::registry::platforms_named("arm64").unwrap(), &wish).unwrap_err();
    let refused = "registry 127.0.0.1:1 cannot be reached: Connection refused";
    assert_eq!(
        *notes.0.lock().unwrap(),
        [
            format!("test/x: {refused}: trying its next source"),
            "test/x: 127.0.0.1 cannot be reached: Connection refused: trying its next source".into(),
            "test/x: http://127.0.0.1:1/{arch}.tar has no platform linux/arm64/v8 or linux/arm64; it has linux/amd64: \
             trying its next source"
                .into(),
        ]
    );
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), refused);
}
