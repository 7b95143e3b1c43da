//! Who in a program speaks of which address: instructions and pointers. What a newcomer would get wrong: instructions are not decoded
//! one after the other, for that goes astray at the first table between them; each place is asked whether it *could* be the instruction
//! looked for. That it says so by chance and names just the address in question happens once in four thousand million places.

use crate::elf::{Layout, Load};

/// The addresses that are spoken of.
#[derive(Debug, Default)]
pub(super) struct References {
    /// Sorted by target.
    all: Vec<Reference>,
}

/// One use of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    /// The address.
    pub(super) target: u64,
    /// Where in the file the number stands that makes it.
    pub(super) place: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `lea reg, [rip+disp32]`: four bytes that count from this address.
    Lea(u64),
    /// Eight bytes: the address itself.
    Pointer,
}

impl References {
    pub(super) fn of(program: &[u8], layout: &Layout<'_>) -> References {
        let pointers = layout.pointers().into_iter();
        let mut all: Vec<Reference> =
            pointers.map(|p| Reference { target: p.target, place: p.place, kind: Kind::Pointer }).collect();
        for load in layout.loads().iter().filter(|l| l.executable) {
            // REX.W, REX.WR: registers of 64 bits.
            let lea = |o: &Operand| matches!(o.before, [0x48 | 0x4c, 0x8d]);
            all.extend(operands(program, load).filter(lea).map(|o| Reference {
                target: o.target,
                place: o.place,
                kind: Kind::Lea(o.next),
            }));
        }
        all.sort_unstable();
        all.dedup();
        References { all }
    }

    /// Those whose address lies in a range.
    pub(super) fn to(&self, addresses: std::ops::Range<u64>) -> &[Reference] {
        let first = self.all.partition_point(|r| r.target < addresses.start);
        let end = self.all.partition_point(|r| r.target < addresses.end);
        self.all.get(first..end).unwrap_or_default()
    }
}

/// What could be an operand in memory, `[rip+disp32]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    /// The two bytes before ModRM.
    before: [u8; 2],
    pub(super) target: u64,
    /// Where in the file the displacement stands.
    pub(super) place: usize,
    /// The address behind the displacement.
    next: u64,
}

/// Everything in a segment that could be one.
pub(super) fn operands<'a>(program: &'a [u8], load: &'a Load) -> impl Iterator<Item = Operand> + 'a {
    let code = program.get(load.file.clone()).unwrap_or_default();
    code.windows(7).enumerate().filter_map(|(at, bytes)| {
        let [rex, opcode, modrm, disp @ ..] = bytes else { return None };
        // mod 00, rm 101
        if modrm & 0xc7 != 0x05 {
            return None;
        }
        let way = i32::from_le_bytes(disp.try_into().ok()?);
        let next = load.address.wrapping_add(at as u64 + 7);
        let target = next.wrapping_add_signed(way.into());
        Some(Operand { before: [*rex, *opcode], target, place: load.file.start + at + 3, next })
    })
}
