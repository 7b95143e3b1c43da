//! Options baked into a copy of a QEMU user-mode interpreter, so that *every* process of a guest gets them: services, `env -i`, `sudo`,
//! a nested chroot. Pure: bytes in, bytes out.
//!
//! What a newcomer would get wrong: binfmt_misc hands an interpreter no options, and a variable (`QEMU_CPU`) is lost wherever the
//! environment is cleaned. A wrapper program costs an exec per process and loses what the kernel tells the interpreter in its auxiliary
//! vector. So the copy gets a new entry point: a few instructions that put the options behind `argv[0]` on the stack that the kernel
//! has made, and jump to the old one. The copy stays on the machine that it was made on. Sources: elf(5); System V ABI, AMD64
//! supplement, 3.4.1 "Initial Stack and Register State"; getauxval(3) for `AT_SECURE`.

use std::fmt;

use super::dispatch;

/// Why a program cannot have options baked in; a guest can still have them by its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(&'static str);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unfit {}

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const EM_X86_64: u16 = 62;
/// Readable and executable.
const PF_RX: u32 = 5;
const PAGE: u64 = 0x1000;
/// Segments are aligned to no more than this by any linker of x86-64's.
const FAR: u64 = 0x1_0000;

/// For a program that runs with more rights than its caller (`AT_SECURE`: a setuid file, flag C) every variable `QEMU_*` is replaced by
/// an empty one, as the dynamic linker does with `LD_*`: QEMU itself obeys them, and would write its log wherever the caller says.
/// Then the word count and `argv[0]` are popped; what pushes the options follows.
const STUB: [u8; 0x51] = [
    0x48, 0x8b, 0x04, 0x24, // mov rax, [rsp]              argc
    0x48, 0x8d, 0x7c, 0xc4, 0x10, // lea rdi, [rsp+rax*8+16]     envp
    0x48, 0x89, 0xfe, // mov rsi, rdi
    0x48, 0xad, // 1: lodsq                    to the end of envp
    0x48, 0x85, 0xc0, // test rax, rax
    0x75, 0xf9, // jnz 1b
    0x48, 0xad, // 2: lodsq                    the auxiliary vector
    0x48, 0x91, // xchg rcx, rax
    0x48, 0xad, // lodsq
    0xe3, 0x34, // jrcxz 9f                    AT_NULL
    0x48, 0x83, 0xf9, 0x17, // cmp rcx, 23                 AT_SECURE
    0x75, 0xf2, // jne 2b
    0x48, 0x85, 0xc0, // test rax, rax
    0x74, 0x29, // jz 9f
    0x48, 0x8d, 0x35, 0x1f, 0x00, 0x00, 0x00, // lea rsi, [rip+nothing]
    0x48, 0x8b, 0x07, // 3: mov rax, [rdi]
    0x48, 0x85, 0xc0, // test rax, rax
    0x74, 0x1a, // jz 9f
    0x81, 0x38, b'Q', b'E', b'M', b'U', // cmp dword [rax], "QEMU"
    0x75, 0x09, // jne 4f
    0x80, 0x78, 0x04, b'_', // cmp byte [rax+4], '_'
    0x75, 0x03, // jne 4f
    0x48, 0x89, 0x37, // mov [rdi], rsi
    0x48, 0x83, 0xc7, 0x08, // 4: add rdi, 8
    0xeb, 0xe1, // jmp 3b
    b'_', b'=', 0,    // nothing: "_="
    0x58, // 9: pop rax                  argc
    0x59, // pop rcx                     argv[0]
];

/// A copy of `program` that behaves as if these options stood behind its name on every command line: pairs, since the stack must stay
/// aligned to 16 bytes. With `native` it looks first whether there is a native program to run in its own place ([`dispatch`]).
/// Errors: it is no static ELF file for x86-64, or not laid out as linkers do.
pub fn bake(program: &[u8], options: &[(&str, &str)], native: bool) -> Result<Vec<u8>, Unfit> {
    let elf = Elf::of(program)?;
    let mut out = program.to_vec();
    out.resize(program.len().next_multiple_of(PAGE as usize), 0);
    let (offset, address) = (out.len() as u64, elf.end.next_multiple_of(FAR));
    let code = code(address, elf.entry, options, native)?;
    let size = code.len() as u64;
    out.extend(code);
    let mut header = Vec::with_capacity(56);
    header.extend(PT_LOAD.to_le_bytes());
    header.extend(PF_RX.to_le_bytes());
    [offset, address, address, size, size, PAGE].iter().for_each(|n| header.extend(n.to_le_bytes()));
    out[elf.note..elf.note + header.len()].copy_from_slice(&header);
    out[24..32].copy_from_slice(&address.to_le_bytes());
    Ok(out)
}

/// Whether a program can have options baked in, told by its first 64 KiB. Errors: as [`bake`].
pub fn fits(prefix: &[u8]) -> Result<(), Unfit> {
    Elf::of(prefix).map(|_| ())
}

/// The new entry at `address`, with its strings behind it.
fn code(address: u64, entry: u64, options: &[(&str, &str)], native: bool) -> Result<Vec<u8>, Unfit> {
    let words: Vec<&str> = options.iter().flat_map(|(name, value)| [*name, *value]).collect();
    let count = i8::try_from(words.len()).map_err(|_| Unfit("too many options"))?;
    if words.iter().any(|w| w.contains('\0')) {
        return Err(Unfit("an option holds a NUL"));
    }
    let mut code = if native { dispatch::CODE.to_vec() } else { Vec::new() };
    code.extend(STUB);
    let mut strings = Vec::new();
    let mut fixes = Vec::new();
    // The stack grows down: the last word first.
    for word in words.iter().rev() {
        code.extend([0x48, 0x8d, 0x1d, 0, 0, 0, 0, 0x53]); // lea rbx, [rip+word]; push rbx
        fixes.push((code.len() - 5, strings.len()));
        strings.extend(word.bytes().chain([0]));
    }
    code.extend([0x51, 0x48, 0x83, 0xc0, count.to_le_bytes()[0], 0x50]); // push rcx; add rax, count; push rax
    code.extend([0xe9, 0, 0, 0, 0]); // jmp entry
    let next = address + code.len() as u64;
    let way = i64::from_ne_bytes(entry.wrapping_sub(next).to_ne_bytes());
    let way = i32::try_from(way).map_err(|_| Unfit("it is larger than a jump is far"))?;
    let (at, base) = (code.len() - 4, code.len());
    code[at..].copy_from_slice(&way.to_le_bytes());
    for (at, string) in fixes {
        let way = i32::try_from(base + string - (at + 4)).map_err(|_| Unfit("its options are too long"))?;
        code[at..at + 4].copy_from_slice(&way.to_le_bytes());
    }
    code.extend(strings);
    Ok(code)
}

/// What must be known of the program's layout.
struct Elf {
    /// Where it starts.
    entry: u64,
    /// The first address behind everything that is loaded.
    end: u64,
    /// Where in the file the header of a note stands that nothing needs, behind those of all that is loaded (the kernel wants them in
    /// the order of their addresses).
    note: usize,
}

impl Elf {
    fn of(program: &[u8]) -> Result<Elf, Unfit> {
        let short = Unfit("it is a damaged ELF file");
        if program.get(..6) != Some(b"\x7fELF\x02\x01") || u16_at(program, 18) != Some(EM_X86_64) {
            return Err(Unfit("only interpreters for x86-64 can have options baked in"));
        }
        let entry = u64_at(program, 24).ok_or(short.clone())?;
        let first = u64_at(program, 32).and_then(|n| usize::try_from(n).ok()).ok_or(short.clone())?;
        let (size, count) = u16_at(program, 54).zip(u16_at(program, 56)).ok_or(short.clone())?;
        let (mut end, mut note, mut last_load) = (0, None, 0);
        for n in 0..usize::from(count) {
            let at = n.checked_mul(size.into()).and_then(|n| n.checked_add(first)).ok_or(short.clone())?;
            if program.len() < at.saturating_add(56) {
                return Err(short);
            }
            match u32_at(program, at) {
                Some(PT_INTERP) => return Err(Unfit("it is linked dynamically")),
                Some(PT_NOTE) => note = Some(at),
                Some(PT_LOAD) => {
                    last_load = at;
                    let (address, size) =
                        u64_at(program, at + 16).zip(u64_at(program, at + 40)).ok_or(short.clone())?;
                    end = end.max(address.checked_add(size).ok_or(short.clone())?);
                }
                _ => {}
            }
        }
        match note.filter(|at| *at > last_load && end > 0 && end < 1 << 40) {
            Some(note) => Ok(Elf { entry, end, note }),
            None => Err(Unfit("it has no room for another segment")),
        }
    }
}

fn bytes_at<const N: usize>(program: &[u8], at: usize) -> Option<[u8; N]> {
    program.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(program: &[u8], at: usize) -> Option<u16> {
    bytes_at(program, at).map(u16::from_le_bytes)
}

fn u32_at(program: &[u8], at: usize) -> Option<u32> {
    bytes_at(program, at).map(u32::from_le_bytes)
}

fn u64_at(program: &[u8], at: usize) -> Option<u64> {
    bytes_at(program, at).map(u64::from_le_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::process::Tool;

    /// A static program that writes its words and variables (each with its NUL) and exits with 0.
    pub fn teller() -> Vec<u8> {
        #[rustfmt::skip]
        let code: &[u8] = &[
            0x48, 0x8d, 0x5c, 0x24, 0x08,                   // lea rbx, [rsp+8]      argv
            0xbd, 0x02, 0x00, 0x00, 0x00,                   // mov ebp, 2            two lists
            0x48, 0x8b, 0x33,                               // 1: mov rsi, [rbx]
            0x48, 0x83, 0xc3, 0x08,                         // add rbx, 8
            0x48, 0x85, 0xf6,                               // test rsi, rsi
            0x74, 0x1b,                                     // jz 3f
            0x31, 0xd2,                                     // xor edx, edx
            0x80, 0x3c, 0x16, 0x00,                         // 2: cmp byte [rsi+rdx], 0
            0x74, 0x04,                                     // je 4f
            0xff, 0xc2,                                     // inc edx
            0xeb, 0xf6,                                     // jmp 2b
            0x0f, 0x1f, 0x40, 0x00,                         // 4: nop
            0xff, 0xc2,                                     // inc edx               the NUL too
            0x6a, 0x01, 0x58, 0x89, 0xc7,                   // push 1; pop rax; mov edi, eax
            0x0f, 0x05,                                     // syscall (write)
            0xeb, 0xd9,                                     // jmp 1b
            0xff, 0xcd,                                     // 3: dec ebp
            0x75, 0xd5,                                     // jnz 1b
            0x31, 0xff, 0x6a, 0x3c, 0x58, 0x0f, 0x05,       // exit(0)
        ];
        const BASE: u64 = 0x40_0000;
        let start = 64 + 2 * 56;
        let size = (start + code.len()) as u64;
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
        [BASE + start as u64, 64, 0].iter().for_each(|n: &u64| file.extend(n.to_le_bytes()));
        file.extend(0u32.to_le_bytes());
        [64u16, 56, 2, 64, 0, 0].iter().for_each(|n| file.extend(n.to_le_bytes()));
        for kind in [PT_LOAD, PT_NOTE] {
            file.extend(kind.to_le_bytes());
            file.extend(PF_RX.to_le_bytes());
            [0, BASE, BASE, size, size, PAGE].iter().for_each(|n| file.extend(n.to_le_bytes()));
        }
        file.extend(code);
        file
    }

    #[test]
    fn options_stand_behind_the_name() {
        if std::env::consts::ARCH != "x86_64" {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let run = |program: &[u8]| {
            let path = dir.path().join("program");
            crate::sys::fs::write_volatile(&path, program, 0o755).unwrap();
            let out = Tool::new(&path).env("QEMU_LOG", "x").args(["one", "two"]).output().unwrap();
            let text = String::from_utf8(out).unwrap().replace('\0', "\n");
            // Without its name; of the variables the one that a setuid program would not be given.
            let words = text.split_once('\n').unwrap().1;
            words
                .lines()
                .filter(|l| !l.contains('=') || l.starts_with("QEMU_"))
                .map(|l| format!("{l}\n"))
                .collect::<String>()
        };
        assert_eq!(run(&teller()), "one\ntwo\nQEMU_LOG=x\n");
        let baked = bake(&teller(), &[("-cpu", "cortex-a7"), ("-t", "34 34 20")], false).unwrap();
        assert_eq!(run(&baked), "-cpu\ncortex-a7\n-t\n34 34 20\none\ntwo\nQEMU_LOG=x\n");
        // Twice is once more: the note is used up.
        assert_eq!(bake(&baked, &[], false).unwrap_err(), Unfit("it has no room for another segment"));
        // No kernel has started it for another program: it runs as ever.
        for native in [false, true] {
            assert_eq!(run(&bake(&teller(), &[], native).unwrap()), "one\ntwo\nQEMU_LOG=x\n");
        }
    }

    #[test]
    fn what_cannot_be_baked() {
        let mut arm = teller();
        arm[18] = 183;
        assert!(bake(&arm, &[], false).unwrap_err().to_string().contains("x86-64"));
        let mut dynamic = teller();
        dynamic[64 + 56] = PT_INTERP as u8;
        assert_eq!(bake(&dynamic, &[], false).unwrap_err(), Unfit("it is linked dynamically"));
        for length in 0..teller().len() {
            let _ = bake(&teller()[..length], &[], true);
        }
        assert!(bake(&teller(), &[("a\0b", "")], false).is_err());
        assert!(bake(b"#!/bin/sh\n", &[], false).is_err());
    }
}
