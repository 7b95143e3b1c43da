//! The smallest static programs there are, made by hand for two CPUs: images that hold no OS at all, and a probe that tells
//! whether this host runs a CPU's programs. What a newcomer would get wrong: no assembler is needed, and none may be: a cross
//! toolchain would be the largest dependency of the tests. Source: elf(5), the Arm A64 and x86 instruction sets.

/// Whose code the program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cpu {
    /// AArch64.
    Arm64,
    /// x86-64.
    Amd64,
}

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// A static program that writes `text` to stdout and exits with `status`.
pub fn program(cpu: Cpu, text: &[u8], status: u8) -> Vec<u8> {
    let (machine, code): (u16, Vec<u8>) = match cpu {
        Cpu::Arm64 => (183, arm64(text.len(), status)),
        Cpu::Amd64 => (62, amd64(text.len(), status)),
    };
    let size = HEADERS + code.len() as u64 + text.len() as u64;
    let mut out = Vec::new();
    out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2u16, machine] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    out.extend_from_slice(&1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    // One PT_LOAD of everything, readable and executable.
    for word in [1u32, 5] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&code);
    out.extend_from_slice(text);
    out
}

/// write(1, text, length); exit(status) with the text right behind the code.
fn arm64(length: usize, status: u8) -> Vec<u8> {
    let movz = |register: u32, value: u32| 0xD280_0000 | (value << 5) | register;
    let svc = 0xD400_0001;
    let mut words = vec![movz(0, 1), 0, movz(2, u32::try_from(length).unwrap()), movz(8, 64), svc];
    words.extend([movz(0, u32::from(status)), movz(8, 93), svc]);
    let offset = u32::try_from(words.len() - 1).unwrap() * 4;
    words[1] = 0x1000_0001 | ((offset >> 2) << 5); // adr x1, text
    words.iter().flat_map(|w: &u32| w.to_le_bytes()).collect()
}

fn amd64(length: usize, status: u8) -> Vec<u8> {
    let mut code = vec![0xB8, 1, 0, 0, 0, 0xBF, 1, 0, 0, 0, 0x48, 0x8D, 0x35, 0, 0, 0, 0, 0xBA];
    code.extend(u32::try_from(length).unwrap().to_le_bytes());
    code.extend([0x0F, 0x05, 0xB8, 60, 0, 0, 0, 0xBF, status, 0, 0, 0, 0x0F, 0x05]);
    let after_lea = 17;
    let offset = u32::try_from(code.len() - after_lea).unwrap();
    code[13..17].copy_from_slice(&offset.to_le_bytes());
    code
}
