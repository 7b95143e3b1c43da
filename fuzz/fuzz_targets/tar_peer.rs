//! The tar reader against the crate `tar`: what both accept to the end, both read alike. Two programs that see two trees in one archive
//! are how something gets past whoever checked it.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use pronto::image::unpack::tar::{Kind, Reader};

/// Name, link, body, permissions and kind of each entry.
type Entries = Vec<(Vec<u8>, Option<Vec<u8>>, Vec<u8>, u32, u8)>;

fn ours(data: &[u8]) -> Option<Entries> {
    let (mut reader, mut all) = (Reader::new(data), Vec::new());
    while let Some(entry) = reader.next(false).ok()? {
        // The crate has its own opinion of sparse files' names and sizes; `tar` checks ours.
        if entry.sparse.is_some() {
            return None;
        }
        let mut body = Vec::new();
        reader.body(|piece| Ok(body.extend_from_slice(piece))).ok()?;
        let link = matches!(entry.kind, Kind::HardLink | Kind::Symlink).then_some(entry.link);
        let kind = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        all.push((entry.name, link, body, entry.mode, kind));
    }
    Some(all)
}

fn theirs(data: &[u8]) -> Option<Entries> {
    let mut all = Vec::new();
    for entry in tar::Archive::new(data).entries().ok()? {
        let mut entry = entry.ok()?;
        let kind = entry.header().entry_type().as_byte();
        if kind == b'g' {
            continue;
        }
        let name = entry.path_bytes().into_owned();
        let kind = match kind {
            0 | b'7' if name.ends_with(b"/") => b'5',
            b'0' if name.ends_with(b"/") => b'5',
            0 | b'7' => b'0',
            other => other,
        };
        let link = matches!(kind, b'1' | b'2').then(|| entry.link_name_bytes().unwrap_or_default().into_owned());
        let mut body = Vec::new();
        entry.read_to_end(&mut body).ok()?;
        all.push((name, link, body, entry.header().mode().ok()? & 0o7777, kind));
    }
    Some(all)
}

fuzz_target!(|data: &[u8]| {
    let data = pronto_fuzz::mend(data);
    if let (Some(ours), Some(theirs)) = (ours(&data), theirs(&data)) {
        assert_eq!(ours, theirs);
    }
});
