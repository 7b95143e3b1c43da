//! Where everything stands in a program or library of x86-64's: addresses and places in the file, what the dynamic linker reads.
//! Anybody may have written the bytes: nothing here trusts a number, and nothing panics.
//!
//! What a newcomer would get wrong: the dynamic linker knows no sections, only segments and the table `PT_DYNAMIC`; sections are
//! looked at for one question alone, whether bytes between instructions are data. And the symbol table says nowhere how long it is:
//! its hash tables do. Sources: elf(5); System V ABI, "Dynamic Linking"; "RELR relative relocations" (the proposal for the generic ABI).

use std::ops::Range;

use goblin::elf::dynamic::{DT_GNU_HASH, DT_HASH, DT_NULL, DT_RELA, DT_RELASZ, DT_STRSZ, DT_STRTAB, DT_SYMTAB};
use goblin::elf::header::ET_EXEC;
use goblin::elf::program_header::{PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD};
use goblin::elf::reloc::R_X86_64_RELATIVE;
use goblin::elf::section_header::{SHF_ALLOC, SHF_EXECINSTR, SHT_PROGBITS};
use goblin::elf::sym::STT_FUNC;
use goblin::elf::{ProgramHeader, SectionHeader};

use super::segment::headers;
use super::{Class, Data, Error, MOST_HEADERS, context, slice};

const DT_RELRSZ: u64 = 35;
const DT_RELR: u64 = 36;
/// Entries of the dynamic table that are read; real files have some thirty.
const MOST_DYNAMIC: usize = 1024;
/// Loaded segments of a file; real files have up to six or so.
const MOST_LOADS: usize = 64;

/// The layout of one file.
#[derive(Debug)]
pub struct Layout<'a> {
    bytes: &'a [u8],
    fixed: bool,
    loads: Vec<Load>,
    interpreter: Option<Range<usize>>,
    /// Data that stands within executable segments, in the file.
    islands: Vec<Range<usize>>,
    dynamic: Vec<(u64, u64)>,
}

/// One loaded segment, as far as it comes from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Its bytes in the file.
    pub file: Range<usize>,
    /// The address of its first byte.
    pub address: u64,
    /// Whether it holds instructions.
    pub executable: bool,
}

/// A word that holds an address once the program is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// The address it will hold, as the file counts addresses.
    pub target: u64,
    /// Where in the file the eight bytes stand that say so.
    pub place: usize,
}

/// A dynamic symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol {
    /// Its name's place in the dynamic strings.
    pub name: u64,
    /// Its address, when it is a function that is defined here.
    pub function: Option<u64>,
    /// Where in the file its address stands (`st_value`).
    pub value_at: usize,
}

impl<'a> Layout<'a> {
    /// Reads it. Errors: no ELF file of x86-64's, or one whose segments are not where it says.
    pub fn of(bytes: &'a [u8]) -> Result<Layout<'a>, Error> {
        let (raw, segments) = headers(bytes)?;
        let loads = segments.iter().filter(|s| s.p_type == PT_LOAD).map(|s| {
            let file = range(bytes, s)?;
            s.p_vaddr.checked_add(s.p_filesz).ok_or_else(outside)?;
            Ok(Load { file, address: s.p_vaddr, executable: s.p_flags & PF_X != 0 })
        });
        let loads = loads.collect::<Result<Vec<Load>, Error>>()?;
        if loads.len() > MOST_LOADS {
            return Err(super::damaged("it has more segments than any linker makes"));
        }
        let interpreter = segments.iter().find(|s| s.p_type == PT_INTERP).map(|s| range(bytes, s)).transpose()?;
        let table = segments.iter().find(|s| s.p_type == PT_DYNAMIC).map(|s| range(bytes, s)).transpose()?;
        let words = table.map_or(&[][..], |table| &bytes[table]).chunks_exact(16);
        let pair = |w: &[u8]| Some((u64_at(w, 0)?, u64_at(w, 8)?));
        let dynamic = words.filter_map(pair).take_while(|(tag, _)| *tag != DT_NULL).take(MOST_DYNAMIC).collect();
        let islands = islands(bytes, &raw);
        Ok(Layout { bytes, fixed: raw.e_type == ET_EXEC, loads, interpreter, islands, dynamic })
    }

    /// Whether it runs at the addresses it names, so that nothing says which of its words are addresses.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// What is loaded.
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// The name of its loader in the file, with its NUL and what is behind it.
    pub fn interpreter(&self) -> Option<Range<usize>> {
        self.interpreter.clone()
    }

    /// Whether the byte at this place of the file is data, not an instruction.
    pub fn is_data(&self, place: usize) -> bool {
        let inside = |range: &Range<usize>| range.contains(&place);
        let mut loads = self.loads.iter().filter(|l| inside(&l.file)).peekable();
        loads.peek().is_some() && (loads.all(|l| !l.executable) || self.islands.iter().any(inside))
    }

    /// Where in the file the byte of an address stands.
    pub fn place(&self, address: u64) -> Option<usize> {
        self.loads.iter().find_map(|l| {
            let place = usize::try_from(address.checked_sub(l.address)?).ok()?.checked_add(l.file.start)?;
            l.file.contains(&place).then_some(place)
        })
    }

    /// The address of a byte in the file.
    pub fn address(&self, place: usize) -> Option<u64> {
        let load = self.loads.iter().find(|l| l.file.contains(&place))?;
        load.address.checked_add((place - load.file.start) as u64)
    }

    /// The entries of a tag in the dynamic table.
    pub fn dynamic(&self, tag: u64) -> impl Iterator<Item = u64> {
        self.dynamic.iter().filter(move |(t, _)| *t == tag).map(|(_, value)| *value)
    }

    /// The dynamic strings in the file: names of symbols and libraries, search paths.
    pub fn dynamic_strings(&self) -> Option<Range<usize>> {
        self.table(DT_STRTAB, DT_STRSZ)
    }

    /// The dynamic string at `name`, without its NUL.
    pub fn dynamic_string(&self, name: u64) -> Option<&'a [u8]> {
        let strings = &self.bytes[self.dynamic_strings()?];
        let string = strings.get(usize::try_from(name).ok()?..)?;
        Some(&string[..string.iter().position(|b| *b == 0)?])
    }

    /// Every word that the dynamic linker will add the load address to.
    pub fn pointers(&self) -> Vec<Pointer> {
        let mut found = Vec::new();
        if let Some(table) = self.table(DT_RELA, DT_RELASZ) {
            for place in table.clone().step_by(24).filter(|p| table.end - p >= 24) {
                let kind = u32_at(self.bytes, place + 8).filter(|kind| *kind == R_X86_64_RELATIVE);
                if let Some((_, target)) = kind.zip(u64_at(self.bytes, place + 16)) {
                    found.push(Pointer { target, place: place + 16 });
                }
            }
        }
        if let Some(table) = self.table(DT_RELR, DT_RELRSZ) {
            let words = self.bytes[table].chunks_exact(8).filter_map(|w| u64_at(w, 0));
            // No more than there are words in the file, whatever the table says.
            let places = relr(words).filter_map(|address| self.place(address)).take(self.bytes.len() / 8);
            found.extend(places.filter_map(|place| Some(Pointer { target: u64_at(self.bytes, place)?, place })));
        }
        found
    }

    /// The dynamic symbols. `None`: how many there are cannot be told.
    pub fn symbols(&self) -> Option<Vec<Symbol>> {
        let count = match self.dynamic(DT_HASH).next() {
            Some(table) => u32_at(self.bytes, self.place(table)?.checked_add(4)?)? as usize,
            None => self.hashed(self.place(self.dynamic(DT_GNU_HASH).next()?)?)?,
        };
        let start = self.place(self.dynamic(DT_SYMTAB).next()?)?;
        let table = self.bytes.get(start..start.checked_add(count.checked_mul(24)?)?)?;
        let symbols = table.chunks_exact(24).enumerate().map(|(n, symbol)| {
            let (name, value) = (u32_at(symbol, 0).unwrap_or_default(), u64_at(symbol, 8).unwrap_or_default());
            let defined = symbol[6..8] != [0, 0] && symbol[4] & 0xf == STT_FUNC;
            Symbol { name: name.into(), function: defined.then_some(value), value_at: start + n * 24 + 8 }
        });
        Some(symbols.collect())
    }

    /// How many symbols a GNU hash table says there are: the last bucket's chain ends with the last of them.
    fn hashed(&self, table: usize) -> Option<usize> {
        let word = |n: usize| u32_at(self.bytes, n.checked_mul(4)?.checked_add(table)?).map(|w| w as usize);
        let (buckets, first, bloom) = (word(0)?, word(1)?, word(2)?);
        let start = bloom.checked_mul(2)?.checked_add(4)?;
        let chains = start.checked_add(buckets)?;
        let mut last = 0;
        for n in start..chains {
            last = last.max(word(n)?);
        }
        if last < first {
            return Some(first);
        }
        let end = (last - first..).find_map(|n| match chains.checked_add(n).and_then(word) {
            Some(hash) => (hash & 1 == 1).then_some(Some(n + 1)),
            None => Some(None),
        });
        end.flatten()?.checked_add(first)
    }

    /// A table of the dynamic linker's in the file, by the tags of its address and its size.
    fn table(&self, address: u64, size: u64) -> Option<Range<usize>> {
        let start = self.place(self.dynamic(address).next()?)?;
        let end = start.checked_add(usize::try_from(self.dynamic(size).next()?).ok()?)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}

/// The addresses that a table of DT_RELR names: an even entry is one, an odd one holds a bit for each of the 63 words that follow.
fn relr(entries: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    let mut next = 0u64;
    entries.flat_map(move |entry| {
        let (base, bits) = if entry & 1 == 0 { (entry, 1) } else { (next, entry >> 1) };
        next = base.wrapping_add(if entry & 1 == 0 { 8 } else { 63 * 8 });
        (0..63).filter(move |n| (bits >> n) & 1 == 1).map(move |n| base.wrapping_add(n * 8))
    })
}

fn outside() -> Error {
    super::damaged("its segments are not where it says")
}

/// The bytes of a segment in the file.
fn range(bytes: &[u8], segment: &ProgramHeader) -> Result<Range<usize>, Error> {
    slice(bytes, segment.p_offset, segment.p_filesz).ok_or_else(outside)?;
    let number = |n: u64| usize::try_from(n).map_err(|_| outside());
    Ok(number(segment.p_offset)?..number(segment.p_offset + segment.p_filesz)?)
}

/// Sections of data. Linkers that save pages put them and instructions into one segment. A table that cannot be read names none.
fn islands(bytes: &[u8], raw: &goblin::elf::Header) -> Vec<Range<usize>> {
    let ctx = context(Class::Elf64, Data::Little);
    let (count, size) = (usize::from(raw.e_shnum), SectionHeader::size(ctx));
    let table = slice(bytes, raw.e_shoff, (size * count) as u64).filter(|t| !t.is_empty() && count <= MOST_HEADERS);
    if table.is_none() || usize::from(raw.e_shentsize) != size {
        return Vec::new();
    }
    let start = usize::try_from(raw.e_shoff).unwrap_or_default();
    let sections = SectionHeader::parse(bytes, start, count, ctx).unwrap_or_default();
    let wanted = u64::from(SHF_ALLOC);
    let data = sections
        .iter()
        .filter(|s| s.sh_type == SHT_PROGBITS && s.sh_flags & (wanted | u64::from(SHF_EXECINSTR)) == wanted);
    data.filter_map(|s| {
        let start = usize::try_from(s.sh_offset).ok()?;
        Some(start..start.checked_add(usize::try_from(s.sh_size).ok()?)?)
    })
    .collect()
}

/// The four bytes at a place, as a number.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

/// The eight bytes at a place, as a number.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::name_users;

    const PACKED: &[u8] = include_bytes!("../../fuzz/corpus/accel_patch/library");
    const PLAIN: &[u8] = include_bytes!("../../fuzz/corpus/accel_patch/library-sysv");

    #[test]
    fn both_kinds_of_tables_say_the_same() {
        for file in [PACKED, PLAIN] {
            let layout = Layout::of(file).unwrap();
            assert!(!layout.is_fixed() && layout.interpreter().is_none());
            let text = |at: u64| layout.place(at).map(|place| file[place..].split(|b| *b == 0).next().unwrap());
            let told: Vec<&[u8]> = layout.pointers().iter().filter_map(|p| text(p.target)).collect();
            let paths: &[u8] = b"-L/usr/lib/x86_64-linux-gnu/a:/usr/lib/x86_64-linux-gnu/b";
            assert_eq!(told, [paths, b"x86_64-pc-linux-gnu", b"/opt/usr/lib/x86_64-linux-gnu/"]);
            let symbols = layout.symbols().unwrap();
            let names = symbols.iter().map(|s| (layout.dynamic_string(s.name).unwrap(), s.function.is_some()));
            let mut names: Vec<(&[u8], bool)> = names.collect();
            names.sort_unstable();
            let wanted: [(&[u8], bool); 5] =
                [(b"", false), (b"dir", false), (b"table", false), (b"uname", true), (b"writable", false)];
            assert_eq!(names, wanted);
            let library = layout.dynamic(goblin::elf::dynamic::DT_SONAME).next().unwrap();
            assert!(name_users(file, &layout).unwrap().contains(&library));
        }
    }

    #[test]
    fn addresses_and_places() {
        let layout = Layout::of(PLAIN).unwrap();
        for load in layout.loads() {
            for place in load.file.clone() {
                assert_eq!(layout.address(place).and_then(|a| layout.place(a)), Some(place));
            }
        }
        let text = PLAIN.windows(9).position(|w| w == b"x86_64-pc").unwrap();
        let code = PLAIN.windows(4).position(|w| w == [0xf3, 0x0f, 0x1e, 0xfa]).unwrap();
        assert!(layout.is_data(text) && !layout.is_data(code) && !layout.is_data(PLAIN.len()));
        assert_eq!((layout.place(u64::MAX), layout.address(usize::MAX)), (None, None));
    }

    #[test]
    fn packed_relocations() {
        let found: Vec<u64> = relr([0x1000, 0b1011, 0x3, u64::MAX].into_iter()).take(6).collect();
        // 0x1000; two of the 63 words behind it; the first of the next 63, and so on.
        assert_eq!(found, [0x1000, 0x1008, 0x1018, 0x1200, 0x13f8, 0x1400]);
    }
}
