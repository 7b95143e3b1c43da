//! Who uses which of a program's dynamic strings. What a newcomer would get wrong: a linker lets these share their ends as well, so
//! that a search path may hold a symbol's name. Source: elf(5); "ELF Symbol Versioning", LSB core specification, 10.7.

use goblin::elf::dynamic::{DT_NEEDED, DT_SONAME, DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM};

use super::Layout;
use super::layout::u32_at;

const DT_AUDIT: u64 = 0x6fff_fefc;
const DT_DEPAUDIT: u64 = 0x6fff_fefb;
const DT_CONFIG: u64 = 0x6fff_fefa;
const DT_AUXILIARY: u64 = 0x7fff_fffd;
const DT_FILTER: u64 = 0x7fff_ffff;
/// Versions of one file; the C library has some forty.
const MOST: u64 = 4096;

/// A table of versions: where its records keep the way to their parts, the count of those, and the way to the next record.
struct Versions {
    table: u64,
    count: u64,
    /// A name in the record itself.
    own: Option<usize>,
    parts: usize,
    next: usize,
    /// In a part: its name, and the way to the next part.
    part: (usize, usize),
}

/// `Elf64_Verneed` and `Elf64_Vernaux`; `Elf64_Verdef` and `Elf64_Verdaux`.
const VERSIONS: [Versions; 2] = [
    Versions { table: DT_VERNEED, count: DT_VERNEEDNUM, own: Some(4), parts: 8, next: 12, part: (8, 12) },
    Versions { table: DT_VERDEF, count: DT_VERDEFNUM, own: None, parts: 12, next: 16, part: (0, 4) },
];

/// The places in the dynamic strings that a symbol, a library or a version is named by; search paths are not among them.
/// `None`: they cannot all be found.
pub fn name_users(bytes: &[u8], layout: &Layout<'_>) -> Option<Vec<u64>> {
    let mut users: Vec<u64> = layout.symbols()?.iter().map(|s| s.name).collect();
    for tag in [DT_NEEDED, DT_SONAME, DT_AUDIT, DT_DEPAUDIT, DT_CONFIG, DT_AUXILIARY, DT_FILTER] {
        users.extend(layout.dynamic(tag));
    }
    for versions in VERSIONS {
        let Some(table) = layout.dynamic(versions.table).next() else { continue };
        let count = layout.dynamic(versions.count).next().filter(|n| *n <= MOST)?;
        let mut record = layout.place(table)?;
        for _ in 0..count {
            let word = |at: usize| u32_at(bytes, record.checked_add(at)?);
            users.extend(versions.own.and_then(word).map(u64::from));
            let mut part = record.checked_add(word(versions.parts)? as usize)?;
            for _ in 0..MOST {
                let word = |at: usize| u32_at(bytes, part.checked_add(at)?);
                users.push(word(versions.part.0)?.into());
                match word(versions.part.1)? as usize {
                    0 => break,
                    next => part = part.checked_add(next)?,
                }
            }
            record = match word(versions.next)? as usize {
                0 => break,
                next => record.checked_add(next)?,
            };
        }
    }
    Some(users)
}
