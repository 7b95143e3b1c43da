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

use crate::sys::tiny;

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

/// The program as an ELF file; `None` on an architecture that it is not written for.
pub fn elf() -> Option<Vec<u8>> {
    tiny::wrap(code())
}
