//! Static programs of a few dozen instructions, for the places in a guest where a program of the host's must run and nothing
//! of the host's may be seen: the first process of a jail, and what waits before a foreign init. What a newcomer would get
//! wrong: a copy of ourselves would bring libc and the dynamic loader of the host along; these map nothing but themselves.
//! Source: elf(5).

/// `e_machine` of this host.
const MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
const LOAD_AT: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 2 * 56;

/// Machine code of this host's as a static program that begins at its first instruction; `None` when there is none.
pub fn wrap(code: &[u8]) -> Option<Vec<u8>> {
    if code.is_empty() {
        return None;
    }
    let size = HEADERS + code.len() as u64;
    let mut file = Vec::with_capacity(size as usize);
    let put = |file: &mut Vec<u8>, values: &[(u64, usize)]| {
        values.iter().for_each(|(value, width)| file.extend_from_slice(&value.to_le_bytes()[..*width]));
    };
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // type EXEC, machine, version, entry, program headers' offset, no sections, flags, and the sizes of the headers.
    put(&mut file, &[(2, 2), (MACHINE.into(), 2), (1, 4), (LOAD_AT + HEADERS, 8), (64, 8), (0, 8), (0, 4)]);
    put(&mut file, &[(64, 2), (56, 2), (2, 2), (64, 2), (0, 2), (0, 2)]);
    // PT_LOAD, readable and executable: the whole file. Aligned for pages of up to 64 KiB.
    put(&mut file, &[(1, 4), (5, 4), (0, 8), (LOAD_AT, 8), (LOAD_AT, 8), (size, 8), (size, 8), (0x1_0000, 8)]);
    // PT_GNU_STACK: the stack is not executable.
    put(&mut file, &[(0x6474_e551, 4), (6, 4), (0, 8), (0, 8), (0, 8), (0, 8), (0, 8), (16, 8)]);
    file.extend_from_slice(code);
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_elf_files_of_this_host() {
        let programs = [crate::sys::jail::first_process(), crate::sys::gate::elf()];
        for file in programs.into_iter().flatten() {
            assert!(file.len() < 512, "{}", file.len());
            let own = std::fs::read("/proc/self/exe").unwrap();
            assert_eq!(file[4..7], own[4..7]);
            assert_eq!(file[18..20], own[18..20], "e_machine");
            let parsed = goblin::elf::Elf::parse(&file).unwrap();
            assert_eq!((parsed.entry, parsed.program_headers.len()), (LOAD_AT + HEADERS, 2));
            assert!(parsed.interpreter.is_none());
        }
        assert_eq!(wrap(&[]), None);
    }
}
