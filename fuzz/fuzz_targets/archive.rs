//! Images in archives that are read where they lie: `docker save`'s, and OCI layouts in a tar.
#![no_main]

use std::io::{Read, Write};

use libfuzzer_sys::fuzz_target;
use pronto::image::oci::manifest::Document;
use pronto::image::oci::{DockerArchive, Layout, Source};

fn look(source: &dyn Source) {
    let Ok(Document::Image(manifest)) = source.top().map_err(|_| ()).and_then(|t| Document::parse(&t).map_err(|_| ()))
    else {
        return;
    };
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if let Ok(body) = source.blob(blob) {
            let _ = body.take(1 << 20).read_to_end(&mut Vec::new());
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let path = pronto_fuzz::scratch().join("archive.tar");
    std::fs::File::create(&path).unwrap().write_all(&pronto_fuzz::mend(data)).unwrap();
    let path = path.to_str().unwrap();
    for tag in ["", ":t"] {
        if let Ok(archive) = DockerArchive::open(&format!("{path}{tag}")) {
            look(&archive);
        }
        if let Ok(layout) = Layout::open_archive(&format!("{path}{tag}")) {
            look(&layout);
        }
    }
});
