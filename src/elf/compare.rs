//! Whether two files are one and the same build, but for what names the build itself. What a newcomer would get wrong: those sections
//! may be of another length, and then all that stands behind them in the file has moved; so sections are compared by what is in
//! them, not the files by their bytes. Anybody may have written these.
//! Source: elf(5); gas, ".ident"; ld(1), "--build-id".

use goblin::elf::section_header::{SHF_ALLOC, SHT_NOBITS};
use goblin::elf::{Elf, ProgramHeader, SectionHeader};

use super::{Error, MOST_HEADERS, context, damaged, parse, program_headers, slice};

/// What names the compiler's build, and what is a hash over that, too.
const OF_THE_BUILD: [&[u8]; 2] = [b".comment", b".note.gnu.build-id"];

/// What one file has that the other has not, the end of a sentence: `differs in .text`. `None`: nothing. Errors: one of them is no whole
/// ELF file.
pub fn difference(a: &[u8], b: &[u8]) -> Result<Option<String>, Error> {
    if a == b {
        return Ok(None);
    }
    let (a, b) = (File::of(a)?, File::of(b)?);
    if a.ident != b.ident {
        return Ok(Some("is of another kind".into()));
    }
    let loads = |file: &File<'_>| -> Vec<_> { file.segments.iter().map(placed).collect() };
    if loads(&a) != loads(&b) {
        return Ok(Some("is laid out in another way".into()));
    }
    let (ours, theirs) = (a.sections()?, b.sections()?);
    for (one, other) in ours.iter().zip(&theirs) {
        if one != other {
            let name = if one.name == other.name { one.name } else { other.name };
            return Ok(Some(format!("differs in {}", String::from_utf8_lossy(name).escape_debug())));
        }
    }
    Ok((ours.len() != theirs.len()).then(|| "has other sections".into()))
}

type Ident = ([u8; 16], u16, u16, u32, u64);

struct File<'a> {
    bytes: &'a [u8],
    ident: Ident,
    segments: Vec<ProgramHeader>,
    sections: Vec<SectionHeader>,
    names: usize,
}

/// A section without its place in the file.
#[derive(PartialEq, Eq)]
struct Section<'a> {
    name: &'a [u8],
    kind: [u64; 5],
    links: [u32; 2],
    content: &'a [u8],
}

/// A segment without its place in the file.
fn placed(segment: &ProgramHeader) -> [u64; 6] {
    let ProgramHeader { p_type, p_flags, p_vaddr, p_filesz, p_memsz, p_align, .. } = *segment;
    [p_type.into(), p_flags.into(), p_vaddr, p_filesz, p_memsz, p_align]
}

impl<'a> File<'a> {
    fn of(bytes: &'a [u8]) -> Result<File<'a>, Error> {
        let header = parse(bytes)?;
        let ctx = context(header.class, header.data);
        let raw = Elf::parse_header(bytes).map_err(|e| damaged(e.to_string()))?;
        let (count, size) = (usize::from(raw.e_shnum), SectionHeader::size(ctx));
        let table = slice(bytes, raw.e_shoff, (size * count) as u64);
        // Not empty: with a count of 0 goblin would believe the first entry about how many follow.
        let fits =
            table.is_some_and(|t| !t.is_empty()) && count <= MOST_HEADERS && usize::from(raw.e_shentsize) == size;
        let at = usize::try_from(raw.e_shoff).ok().filter(|_| fits);
        let at = at.ok_or_else(|| damaged("its sections are not where it says"))?;
        let sections = SectionHeader::parse(bytes, at, count, ctx).map_err(|e| damaged(e.to_string()))?;
        let ident = (raw.e_ident, raw.e_type, raw.e_machine, raw.e_flags, raw.e_entry);
        let segments = program_headers(bytes, &raw, ctx)?;
        Ok(File { bytes, ident, segments, sections, names: raw.e_shstrndx.into() })
    }

    /// All but those that name the build, and the table of names, whose order says nothing.
    fn sections(&self) -> Result<Vec<Section<'a>>, Error> {
        let names = self.sections.get(self.names).and_then(|s| slice(self.bytes, s.sh_offset, s.sh_size));
        let names = names.ok_or_else(|| damaged("its sections have no names"))?;
        let mut out = Vec::new();
        for (n, section) in self.sections.iter().enumerate() {
            let name = names.get(section.sh_name..).unwrap_or_default().split(|b| *b == 0).next().unwrap_or_default();
            let is_names = n == self.names && section.sh_flags & u64::from(SHF_ALLOC) == 0;
            if is_names || OF_THE_BUILD.contains(&name) {
                continue;
            }
            let content = match section.sh_type {
                SHT_NOBITS => Some(&[][..]),
                _ => slice(self.bytes, section.sh_offset, section.sh_size),
            };
            let content = content.ok_or_else(|| damaged("a section is not where it says"))?;
            let SectionHeader { sh_type, sh_flags, sh_addr, sh_size, sh_addralign, sh_link, sh_info, .. } = *section;
            let kind = [sh_type.into(), sh_flags, sh_addr, sh_size, sh_addralign];
            out.push(Section { name, kind, links: [sh_link, sh_info], content });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object of 64 bits with these sections: name and content.
    fn object(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut names = vec![0];
        let mut out = vec![0; 64];
        let mut headers = vec![0; 64];
        let header = |name: usize, kind: u32, offset: usize, size: usize| {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&(name as u32).to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            header
        };
        for (name, content) in sections {
            headers.extend(header(names.len(), 1, out.len(), content.len()));
            names.extend(name.bytes().chain([0]));
            out.extend(*content);
        }
        headers.extend(header(0, 3, out.len(), names.len()));
        out.extend(names);
        let table = out.len() as u64;
        out.extend(&headers);
        out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        out[16..20].copy_from_slice(&[1, 0, 183, 0]);
        out[40..48].copy_from_slice(&table.to_le_bytes());
        out[52..54].copy_from_slice(&64_u16.to_le_bytes());
        out[58..60].copy_from_slice(&64_u16.to_le_bytes());
        let count = (headers.len() / 64) as u16;
        out[60..62].copy_from_slice(&count.to_le_bytes());
        out[62..64].copy_from_slice(&(count - 1).to_le_bytes());
        out
    }

    #[test]
    fn what_names_the_build_does_not_count() {
        let first = object(&[(".text", b"code"), (".comment", b"12.2.0-14"), (".data", b"words")]);
        let told = |sections: &[(&str, &[u8])]| difference(&first, &object(sections)).unwrap();
        assert_eq!(told(&[(".text", b"code"), (".comment", b"12.2.0-14+deb12u1"), (".data", b"words")]), None);
        assert_eq!(told(&[(".text", b"code"), (".data", b"words"), (".comment", b"12.2.0-14")]), None);
        assert_eq!(
            told(&[(".text", b"Code"), (".comment", b"12.2.0-14"), (".data", b"words")]).unwrap(),
            "differs in .text"
        );
        assert_eq!(told(&[(".text", b"code"), (".bss", b"words")]).unwrap(), "differs in .bss");
        assert_eq!(told(&[(".text", b"code")]).unwrap(), "has other sections");
        let mut other = first.clone();
        other[18] = 62;
        assert_eq!(difference(&first, &other).unwrap().unwrap(), "is of another kind");
    }

    #[test]
    fn damage_is_an_error() {
        let whole = object(&[(".text", b"code")]);
        assert!(difference(&whole, b"text").is_err());
        for cut in 0..whole.len() {
            let _ = difference(&whole[..cut], &whole);
            let mut bad = whole.clone();
            bad[cut] ^= 0xff;
            let _ = difference(&bad, &whole);
            let _ = difference(&whole, &bad);
        }
    }
}
