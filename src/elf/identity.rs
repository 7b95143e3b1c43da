//! What tells one program from every other: a hash of the first bytes of its file, in which a linker puts its build-id. What a newcomer
//! would get wrong: it is computed once more by a few instructions in front of the emulator (`binfmt/dispatch.rs`), at each start of a
//! program, so it must stay as simple as it is. It finds equal programs; it is no protection: who can write a guest's files can give
//! one the head of another, and gains nothing but to run what any user of that guest may run.
//! Sources: elf(5), "Notes"; the build-id is a hash over the whole program (ld(1), `--build-id`).

use goblin::container::{Ctx, Endian};
use goblin::elf::note::NT_GNU_BUILD_ID;
use goblin::elf::program_header::PT_NOTE;

/// How many bytes of a file are hashed.
pub const HEAD: usize = 2048;

/// The identity of a program; `None` for one that is shorter, or whose build-id does not lie in its head, so that nothing tells it
/// from another. `program` may be cut behind its section headers' offset, or whole.
pub fn identity(program: &[u8]) -> Option<u64> {
    let head = program.get(..HEAD)?;
    has_build_id(head).then(|| hash(head))
}

/// The same as it stands in paths: 16 hex digits.
pub fn text(program: &[u8]) -> Option<String> {
    identity(program).map(|identity| format!("{identity:016x}"))
}

fn has_build_id(head: &[u8]) -> bool {
    let Ok(raw) = goblin::elf::Elf::parse_header(head) else { return false };
    let (Ok(container), Ok(endian)) = (raw.container(), raw.endianness()) else { return false };
    let segments = super::program_headers(head, &raw, Ctx::new(container, endian)).unwrap_or_default();
    segments.iter().filter(|segment| segment.p_type == PT_NOTE).any(|segment| {
        // Of a segment that goes on behind the head, what lies in it.
        let size = segment.p_filesz.min((HEAD as u64).saturating_sub(segment.p_offset));
        super::slice(head, segment.p_offset, size).is_some_and(|notes| names_build(notes, endian))
    })
}

/// Whether there is a build-id among these notes: sizes of name and content, type, then both, each padded to four bytes.
fn names_build(mut notes: &[u8], endian: Endian) -> bool {
    let word = |notes: &[u8], at: usize| {
        let word: [u8; 4] = notes.get(at..at + 4)?.try_into().ok()?;
        Some(if endian.is_little() { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    };
    while let (Some(name), Some(size), Some(kind)) = (word(notes, 0), word(notes, 4), word(notes, 8)) {
        let (begin, padded) = (12 + (name as usize).next_multiple_of(4), (size as usize).next_multiple_of(4));
        let Some(content) = notes.get(begin..begin.saturating_add(size as usize)) else { return false };
        if kind == NT_GNU_BUILD_ID && name == 4 && notes.get(12..16) == Some(b"GNU\0") && content.len() >= 8 {
            return true;
        }
        notes = notes.get(begin.saturating_add(padded)..).unwrap_or_default();
    }
    false
}

fn hash(head: &[u8]) -> u64 {
    head.chunks_exact(8).fold(0, |hash: u64, word| {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_apart() {
        let read = |path: &str| std::fs::read(path).ok();
        let (Some(sh), Some(ls)) = (read("/bin/sh"), read("/bin/ls")) else { return };
        let of = |program: &[u8]| identity(program).expect("a distribution's program has a build-id");
        assert_ne!(of(&sh), of(&ls));
        assert_eq!(of(&sh), of(&sh[..HEAD]), "its head is enough");
        assert_eq!(identity(&sh[..HEAD - 1]), None);
        let mut without = sh.clone();
        let at = without.windows(4).position(|w| w == b"GNU\0").unwrap();
        while let Some(at) = without[..HEAD].windows(4).position(|w| w == b"GNU\0") {
            without[at] = b'X';
        }
        assert!(at < HEAD);
        assert_eq!(identity(&without), None);
        assert_eq!(identity(&[0; HEAD]), None);
    }

    #[test]
    fn rubbish_is_no_program() {
        let Ok(sh) = std::fs::read("/bin/sh") else { return };
        for at in 0..HEAD {
            let mut spoilt = sh[..HEAD].to_vec();
            spoilt[at] ^= 0xff;
            let _ = identity(&spoilt);
        }
    }
}
