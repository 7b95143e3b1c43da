//! The smallest programs of other architectures: one segment, a few instructions. They are run to see who runs them, and what they are told. What
//! a newcomer would get wrong: nothing assembles them at build time, since a host has no assembler of every architecture; the words
//! are written down with what they mean. Source: elf(5).

/// Where they are loaded.
const BASE: u64 = 0x1_0000;

/// A static, little-endian program of this class (32 or 64), `e_machine` and `e_flags` that begins with its first instruction.
pub(super) fn program(class: u8, machine: u16, flags: u32, code: &[u8]) -> Vec<u8> {
    let wide = class == 64;
    let (header, segment): (u16, u16) = if wide { (64, 56) } else { (52, 32) };
    let headers = u64::from(header + segment);
    let size = headers + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let number = |file: &mut Vec<u8>, value: u64| {
        let bytes = value.to_le_bytes();
        file.extend(if wide { &bytes[..] } else { &bytes[..4] });
    };
    file.extend([2u16, machine].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    // The entry, the program headers' place, no sections.
    [BASE + headers, header.into(), 0].into_iter().for_each(|value| number(&mut file, value));
    file.extend(flags.to_le_bytes());
    for half in [header, segment, 1, if wide { 64 } else { 40 }, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD of the whole file, readable and executable. The narrow form has its flags nearer to the end.
    const READ_EXECUTE: u32 = 5;
    file.extend(1u32.to_le_bytes());
    if wide {
        file.extend(READ_EXECUTE.to_le_bytes());
    }
    [0, BASE, BASE, size, size].into_iter().for_each(|value| number(&mut file, value));
    if !wide {
        file.extend(READ_EXECUTE.to_le_bytes());
    }
    number(&mut file, 0x1000);
    file.extend(code);
    file
}
