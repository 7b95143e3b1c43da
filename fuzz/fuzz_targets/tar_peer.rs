//! The tar reader against the crate `tar`: what both accept to the end, both read alike. Two programs that see two trees in one archive
//! are how something gets past whoever checked it.
#![no_main]

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use pronto::image::unpack::tar::{Kind, Reader};

/// Each entry's kind, permissions, name, link and body, as text that a person can compare.
type Entries = Vec<String>;

fn line(kind: u8, mode: u32, name: &[u8], link: Option<&[u8]>, body: &[u8]) -> String {
    let link = link.map(<[u8]>::escape_ascii);
    let link = link.map(|l| l.to_string());
    format!("{} {mode:o} '{}' -> {link:?}: {} '{}'", kind as char, name.escape_ascii(), body.len(), body.escape_ascii())
}

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
        all.push(line(kind, entry.mode, &entry.name, link.as_deref(), &body));
    }
    Some(all)
}

/// Long names end at their first zero; the crate keeps what is behind it.
fn whole(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|&b| b == 0).unwrap_or(name.len()));
    name
}

fn theirs(data: &[u8]) -> Option<Entries> {
    let mut all = Vec::new();
    for entry in tar::Archive::new(data).entries().ok()? {
        let mut entry = entry.ok()?;
        let kind = entry.header().entry_type().as_byte();
        match kind {
            b'g' => continue,
            // Without the magic of ustar or GNU the crate takes these for files; GNU tar does not.
            b'x' | b'X' | b'L' | b'K' | b'V' => return None,
            _ => {}
        }
        // The crate wants a version as well before it looks at the prefix; GNU tar and Go do not.
        let head = entry.header().as_bytes();
        if &head[257..263] == b"ustar\0" && &head[263..265] != b"00" {
            return None;
        }
        // No data follows these, whatever they say (pax(1)); the crate reads some.
        if (b'1'..=b'6').contains(&kind) && entry.size() > 0 {
            return None;
        }
        let name = whole(entry.path_bytes().into_owned());
        let kind = match kind {
            0 | b'7' if name.ends_with(b"/") => b'5',
            b'0' if name.ends_with(b"/") => b'5',
            0 | b'7' => b'0',
            other => other,
        };
        let link = matches!(kind, b'1' | b'2').then(|| whole(entry.link_name_bytes().unwrap_or_default().into_owned()));
        let mut body = Vec::new();
        entry.read_to_end(&mut body).ok()?;
        all.push(line(kind, entry.header().mode().ok()? & 0o7777, &name, link.as_deref(), &body));
    }
    Some(all)
}

fuzz_target!(|data: &[u8]| {
    let data = pronto_fuzz::mend(data);
    if let (Some(ours), Some(theirs)) = (ours(&data), theirs(&data)) {
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours.len(), theirs.len(), "one of them ends early");
    }
});
