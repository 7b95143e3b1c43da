//! The first process of a jail: some forty instructions that reap orphans, pass signals on to the command (process 2) and
//! write its wait status to descriptor 3. It is a complete static program, assembled here per architecture and wrapped in
//! an ELF header, and it is executed from a file in the guest's own `/dev`.
//!
//! What a newcomer would get wrong: process 1 could simply be a fork of ours, and then a guest's root, which has
//! CAP_SYS_PTRACE and CAP_SYS_ADMIN, would reach *the host's* files through it: our binary by `/proc/1/exe` (it cannot
//! write to it while it runs, but it can chmod it to 4777) and libc and the dynamic loader by `/proc/1/map_files`.
//! Executing a copy of ourselves from a sealed memfd hides the first but not the second, and costs 10 ms. This stub maps
//! nothing but itself, and the file that holds it belongs to the guest and ends with it: there is nothing to protect.
//! Source: proc(5), pid_namespaces(7), elf(5).

use std::arch::global_asm;

/// The process number of the command in its namespace: the first child of process 1.
pub const COMMAND: libc::pid_t = 2;
/// The descriptor that the stub writes the wait status to (four bytes, as wait(2) gives it).
pub const STATUS_FD: i32 = 3;

// All of them, with every signal blocked by whoever executed it (the mask outlives execve):
//   loop:  sig = rt_sigtimedwait(all, &info, NULL, 8)
//          sig == SIGCHLD: reap; sig <= 0: loop
//          kill(2, sig); loop
//   reap:  pid = wait4(-1, &status, WNOHANG | __WALL, NULL)
//          pid <= 0: loop; pid != 2: reap
//          write(3, &status, 4); exit_group(0)
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .rodata.pronto_jail_stub, \"a\", @progbits",
    ".balign 16",
    ".globl pronto_jail_stub_begin",
    "pronto_jail_stub_begin:",
    "sub rsp, 256",
    "and rsp, -16",
    "mov qword ptr [rsp], -1",
    "2:",
    "mov eax, 128", // rt_sigtimedwait
    "mov rdi, rsp",
    "lea rsi, [rsp + 64]",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "cmp eax, 17", // SIGCHLD
    "je 3f",
    "test eax, eax",
    "jle 2b",
    "mov esi, eax",
    "mov edi, 2",
    "mov eax, 62", // kill
    "syscall",
    "jmp 2b",
    "3:",
    "mov eax, 61", // wait4
    "mov rdi, -1",
    "lea rsi, [rsp + 16]",
    "mov edx, 0x40000001",
    "xor r10d, r10d",
    "syscall",
    "test eax, eax",
    "jle 2b",
    "cmp eax, 2",
    "jne 3b",
    "mov eax, 1", // write
    "mov edi, 3",
    "lea rsi, [rsp + 16]",
    "mov edx, 4",
    "syscall",
    "mov eax, 231", // exit_group
    "xor edi, edi",
    "syscall",
    "ud2",
    ".globl pronto_jail_stub_end",
    "pronto_jail_stub_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .rodata.pronto_jail_stub, \"a\", @progbits",
    ".balign 16",
    ".globl pronto_jail_stub_begin",
    "pronto_jail_stub_begin:",
    "sub sp, sp, #256",
    "mov x0, #-1",
    "str x0, [sp]",
    "2:",
    "mov x0, sp",
    "add x1, sp, #64",
    "mov x2, #0",
    "mov x3, #8",
    "mov x8, #137", // rt_sigtimedwait
    "svc #0",
    "cmp w0, #17", // SIGCHLD
    "b.eq 3f",
    "cmp w0, #0",
    "b.le 2b",
    "mov w1, w0",
    "mov x0, #2",
    "mov x8, #129", // kill
    "svc #0",
    "b 2b",
    "3:",
    "mov x0, #-1",
    "add x1, sp, #16",
    "movz w2, #0x4000, lsl #16",
    "orr w2, w2, #1",
    "mov x3, #0",
    "mov x8, #260", // wait4
    "svc #0",
    "cmp w0, #0",
    "b.le 2b",
    "cmp w0, #2",
    "b.ne 3b",
    "mov x0, #3",
    "add x1, sp, #16",
    "mov x2, #4",
    "mov x8, #64", // write
    "svc #0",
    "mov x0, #0",
    "mov x8, #94", // exit_group
    "svc #0",
    "brk #1",
    ".globl pronto_jail_stub_end",
    "pronto_jail_stub_end:",
    ".popsection",
);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn code() -> &'static [u8] {
    unsafe extern "C" {
        static pronto_jail_stub_begin: u8;
        static pronto_jail_stub_end: u8;
    }
    let (begin, end) = (&raw const pronto_jail_stub_begin, &raw const pronto_jail_stub_end);
    // SAFETY: both labels stand in the same read-only section of this program, the second one behind the first.
    unsafe { std::slice::from_raw_parts(begin, end.offset_from(begin) as usize) }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn code() -> &'static [u8] {
    &[]
}

/// `e_machine` of this host.
const MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
const LOAD_AT: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 2 * 56;

/// The program as an ELF file; `None` on an architecture that it is not written for.
pub fn elf() -> Option<Vec<u8>> {
    let code = code();
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
    fn it_is_an_elf_file_of_this_host() {
        let Some(file) = elf() else { return };
        assert!(file.len() < 512, "{}", file.len());
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(file[4..7], own[4..7]);
        assert_eq!(file[18..20], own[18..20], "e_machine");
        let parsed = goblin::elf::Elf::parse(&file).unwrap();
        assert_eq!((parsed.entry, parsed.program_headers.len()), (LOAD_AT + HEADERS, 2));
        assert!(parsed.interpreter.is_none());
    }
}
