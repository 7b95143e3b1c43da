//! One more loaded segment for a finished program of x86-64's. Pure: bytes in, bytes out.
//!
//! What a newcomer would get wrong: there is no room for another program header, and moving the table means moving all that stands
//! behind it. So the header of a note is taken, which nothing needs at run time. It must stand behind those of all that is loaded
//! already: the kernel and ld.so want segments in the order of their addresses. Sources: elf(5); fs/binfmt_elf.c;
//! elf/dl-load.c of glibc.

use goblin::elf::header::EM_X86_64;
use goblin::elf::program_header::{PF_R, PF_X, PT_GNU_PROPERTY, PT_LOAD, PT_NOTE};
use goblin::elf::{Elf, ProgramHeader};

use super::{Class, Data, Error, context, damaged, program_headers};

/// The page of x86-64, and the alignment of the new segment.
const PAGE: usize = 0x1000;
/// Distance to what is loaded already: no linker of x86-64's asks for a coarser alignment between segments that are neighbours.
const FAR: u64 = 0x1_0000;
/// No program of ours is larger; beyond it sums could overflow.
const MOST: u64 = 1 << 40;

/// Where a further segment of a program can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Where in the file its header will stand.
    header: usize,
    address: u64,
}

impl Spot {
    /// Finds it; the first 64 KiB ([`super::PREFIX`]) of the file are enough. Of several notes the one that `PT_GNU_PROPERTY` names
    /// once more is taken, so that nothing is lost; otherwise the last. `None`: nothing is loaded, or there is no such header.
    /// Errors: no ELF file of x86-64's, or a damaged one.
    pub fn of(program: &[u8]) -> Result<Option<Spot>, Error> {
        let (raw, segments) = headers(program)?;
        let mut end = 0;
        for load in segments.iter().filter(|s| s.p_type == PT_LOAD) {
            let behind = load.p_vaddr.checked_add(load.p_memsz).filter(|end| *end < MOST);
            end = end.max(behind.ok_or_else(|| damaged("it is too large to be loaded"))?);
        }
        let Some(last) = segments.iter().rposition(|s| s.p_type == PT_LOAD).filter(|_| end > 0) else {
            return Ok(None);
        };
        let property = segments.iter().find(|s| s.p_type == PT_GNU_PROPERTY).map(|s| s.p_offset);
        let notes = || (last..segments.len()).filter(|n| segments[*n].p_type == PT_NOTE);
        let note = notes().find(|n| Some(segments[*n].p_offset) == property).or_else(|| notes().next_back());
        let Some(note) = note else { return Ok(None) };
        // In bounds: the table was read.
        let header = usize::try_from(raw.e_phoff).unwrap_or_default() + note * usize::from(raw.e_phentsize);
        Ok(Some(Spot { header, address: end.next_multiple_of(FAR) }))
    }

    /// The address of its first byte, as the file counts addresses.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Puts `content` behind `program`, readable and executable. `program` is the one that [`Spot::of`] was asked about.
    pub fn fill(&self, program: &mut Vec<u8>, content: &[u8]) {
        program.resize(program.len().next_multiple_of(PAGE), 0);
        let (offset, size) = (program.len() as u64, content.len() as u64);
        program.extend(content);
        let mut header = Vec::with_capacity(56);
        [PT_LOAD, PF_R | PF_X].iter().for_each(|n| header.extend(n.to_le_bytes()));
        let words = [offset, self.address, self.address, size, size, PAGE as u64];
        words.iter().for_each(|n| header.extend(n.to_le_bytes()));
        if let Some(place) = program.get_mut(self.header..self.header + header.len()) {
            place.copy_from_slice(&header);
        }
    }
}

/// The header and the program headers of a 64-bit little-endian file of x86-64's. Errors: it is another, or damaged.
pub(super) fn headers(program: &[u8]) -> Result<(goblin::elf::Header, Vec<ProgramHeader>), Error> {
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(Error::NotElf);
    }
    let raw = Elf::parse_header(program).map_err(|e| damaged(e.to_string()))?;
    if raw.e_machine != EM_X86_64 {
        return Err(Error::NotElf);
    }
    let segments = program_headers(program, &raw, context(Class::Elf64, Data::Little))?;
    Ok((raw, segments))
}

#[cfg(test)]
mod tests {
    use super::super::slice;
    use super::*;

    const LIBRARY: &[u8] = include_bytes!("../../fuzz/corpus/accel_patch/library");

    #[test]
    fn a_note_behind_all_that_is_loaded_becomes_a_segment() {
        let spot = Spot::of(LIBRARY).unwrap().unwrap();
        assert_eq!(Spot::of(&LIBRARY[..1024]).unwrap(), Some(spot));
        let mut more = LIBRARY.to_vec();
        spot.fill(&mut more, b"content");
        let (_, segments) = headers(&more).unwrap();
        let loads: Vec<&ProgramHeader> = segments.iter().filter(|s| s.p_type == PT_LOAD).collect();
        assert!(loads.is_sorted_by_key(|l| l.p_vaddr) && loads.len() == 3, "{loads:?}");
        let last = loads[2];
        assert_eq!((last.p_vaddr, last.p_filesz, last.p_memsz), (spot.address(), 7, 7));
        assert_eq!(slice(&more, last.p_offset, 7).unwrap(), b"content");
        assert_eq!(Spot::of(&more).unwrap(), None);
    }

    #[test]
    fn a_note_before_what_is_loaded_is_of_no_use() {
        let (raw, segments) = headers(LIBRARY).unwrap();
        let at = |n: usize| raw.e_phoff as usize + 56 * n;
        let note = segments.iter().position(|s| s.p_type == PT_NOTE).unwrap();
        let load = segments.iter().rposition(|s| s.p_type == PT_LOAD).unwrap();
        let mut turned = LIBRARY.to_vec();
        turned[at(load)..at(load + 1)].copy_from_slice(&LIBRARY[at(note)..at(note + 1)]);
        turned[at(note)..at(note + 1)].copy_from_slice(&LIBRARY[at(load)..at(load + 1)]);
        assert_eq!(Spot::of(&turned).unwrap(), None);
        // The size of what is loaded last.
        turned[at(note) + 40..at(note) + 48].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(Spot::of(&turned), Err(Error::Damaged(_))));
        assert_eq!(Spot::of(b"#!/bin/sh\n"), Err(Error::NotElf));
    }
}
