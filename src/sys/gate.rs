//! What stands before a foreign guest's init: a tiny static program of the host's that waits for a byte, and then becomes the
//! init. nspawn starts it as the guest's first process; while it waits, the interpreter is registered in the user namespace
//! that nspawn has just made, without which the init could not be executed at all.
//!
//! What a newcomer would get wrong: nothing of it must be left. It comes in as a descriptor that nspawn passes on (as for
//! socket activation), so no path in the guest shows it; it closes that and the pipe itself, since systemd looks at what it
//! inherits. When the other end of the pipe is closed without a byte it ends: then the monitor is gone.
//! Source: sd_listen_fds(3), systemd-nspawn(1), execve(2).

use std::arch::global_asm;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::{process, pty, tiny};

/// Where the program is, in the guest's first process.
pub const PROGRAM: &str = "/proc/self/fd/3";
/// How many descriptors nspawn has to pass on: the program itself, and the pipe.
pub const DESCRIPTORS: u32 = 2;
const PROGRAM_FD: i32 = 3;
const PIPE_FD: i32 = 4;

// All of them:
//   wait:  n = read(4, buffer, 1); n == -EINTR: wait; n != 1: exit_group(127)
//          close(3); close(4)
//          take LISTEN_F… and LISTEN_P… out of envp (eight bytes can be read at any variable: more stands behind the last)
//          execve(argv[1], argv + 1, envp); exit_group(127)
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .rodata.pronto_gate, \"a\", @progbits",
    ".balign 16",
    ".globl pronto_gate_begin",
    "pronto_gate_begin:",
    "mov r12, rsp", // argc, argv
    "sub rsp, 64",
    "2:",
    "xor eax, eax", // read
    "mov edi, 4",
    "mov rsi, rsp",
    "mov edx, 1",
    "syscall",
    "cmp rax, -4", // EINTR
    "je 2b",
    "cmp rax, 1",
    "jne 3f",
    "mov eax, 3", // close
    "mov edi, 3",
    "syscall",
    "mov eax, 3",
    "mov edi, 4",
    "syscall",
    "mov rdi, qword ptr [r12 + 16]", // argv[1]
    "lea rsi, [r12 + 16]",
    "mov rdx, qword ptr [r12]",
    "lea rdx, [r12 + rdx * 8 + 16]", // behind argv's null
    "mov r8, rdx",
    "mov r9, rdx",
    "movabs r10, 0x465f4e455453494c", // LISTEN_F
    "movabs r11, 0x505f4e455453494c", // LISTEN_P
    "4:",
    "mov rax, qword ptr [r8]",
    "add r8, 8",
    "test rax, rax",
    "jz 5f",
    "cmp qword ptr [rax], r10",
    "je 4b",
    "cmp qword ptr [rax], r11",
    "je 4b",
    "mov qword ptr [r9], rax",
    "add r9, 8",
    "jmp 4b",
    "5:",
    "mov qword ptr [r9], 0",
    "mov eax, 59", // execve
    "syscall",
    "3:",
    "mov eax, 231", // exit_group
    "mov edi, 127",
    "syscall",
    "ud2",
    ".globl pronto_gate_end",
    "pronto_gate_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .rodata.pronto_gate, \"a\", @progbits",
    ".balign 16",
    ".globl pronto_gate_begin",
    "pronto_gate_begin:",
    "mov x19, sp", // argc, argv
    "sub sp, sp, #64",
    "2:",
    "mov x0, #4",
    "mov x1, sp",
    "mov x2, #1",
    "mov x8, #63", // read
    "svc #0",
    "cmn x0, #4", // EINTR
    "b.eq 2b",
    "cmp x0, #1",
    "b.ne 3f",
    "mov x0, #3",
    "mov x8, #57", // close
    "svc #0",
    "mov x0, #4",
    "mov x8, #57",
    "svc #0",
    "ldr x0, [x19, #16]", // argv[1]
    "add x1, x19, #16",
    "ldr x2, [x19]",
    "add x2, x19, x2, lsl #3",
    "add x2, x2, #16", // behind argv's null
    "mov x9, x2",
    "mov x10, x2",
    "movz x11, #0x494c", // LISTEN_F
    "movk x11, #0x5453, lsl #16",
    "movk x11, #0x4e45, lsl #32",
    "movk x11, #0x465f, lsl #48",
    "mov x12, x11", // LISTEN_P
    "movk x12, #0x505f, lsl #48",
    "4:",
    "ldr x13, [x9], #8",
    "cbz x13, 5f",
    "ldr x14, [x13]",
    "cmp x14, x11",
    "b.eq 4b",
    "cmp x14, x12",
    "b.eq 4b",
    "str x13, [x10], #8",
    "b 4b",
    "5:",
    "str xzr, [x10]",
    "mov x8, #221", // execve
    "svc #0",
    "3:",
    "mov x0, #127",
    "mov x8, #94", // exit_group
    "svc #0",
    "brk #1",
    ".globl pronto_gate_end",
    "pronto_gate_end:",
    ".popsection",
);

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn code() -> &'static [u8] {
    unsafe extern "C" {
        static pronto_gate_begin: u8;
        static pronto_gate_end: u8;
    }
    let (begin, end) = (&raw const pronto_gate_begin, &raw const pronto_gate_end);
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

/// Whether this host has the program.
pub fn is_supported() -> bool {
    !code().is_empty()
}

/// The guest's side: what nspawn has to inherit.
#[derive(Debug)]
pub struct Gate {
    program: OwnedFd,
    pipe: OwnedFd,
}

/// The host's side. Dropped unopened, the guest's first process ends.
#[derive(Debug)]
pub struct Key(std::fs::File);

/// Makes both sides. Errors: as memfd_create(2) and pipe2(2); ENOSYS on an architecture without the program.
pub fn make() -> io::Result<(Gate, Key)> {
    use std::io::Write;
    let code = elf().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSYS))?;
    let program = super::ns::sealed(c"init", |file| file.write_all(&code))?;
    let (pipe, key) = process::pipe()?;
    Ok((Gate { program, pipe: pipe.into() }, Key(key)))
}

impl Gate {
    /// Puts both descriptors where the program expects them, to be inherited. For a process that is about to execute nspawn:
    /// what it has at 3 and 4 is overwritten.
    pub fn put(&self) -> io::Result<()> {
        // Copies first: one may lie where the other has to go.
        let program = process::above(self.program.as_fd(), PIPE_FD + 1)?;
        let pipe = process::above(self.pipe.as_fd(), PIPE_FD + 1)?;
        pty::put_at(program.as_fd(), PROGRAM_FD)?;
        pty::put_at(pipe.as_fd(), PIPE_FD)
    }
}

impl Key {
    /// Lets the init begin.
    pub fn open(mut self) -> io::Result<()> {
        io::Write::write_all(&mut self.0, b"g")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Tool;
    use std::os::fd::AsRawFd;

    fn started(gate: Gate, words: &[&str]) -> std::process::Child {
        let tool = Tool::new(PROGRAM).args(words);
        let mut tool = tool.env("LISTEN_FDS", "2").env("KEPT", "kept").env("LISTEN_PID", "1");
        tool.command().stdout(std::process::Stdio::piped());
        crate::sys::ns::gate_for_child(tool.command(), gate.program.as_raw_fd(), gate.pipe.as_raw_fd());
        let child = tool.spawn().unwrap();
        drop(gate);
        child
    }

    #[test]
    fn it_waits_and_then_becomes_the_command() {
        let script = "echo $0 $KEPT $LISTEN_FDS $LISTEN_PID; readlink /proc/$$/fd/3 /proc/$$/fd/4; true";
        let (gate, key) = make().unwrap();
        let mut child = started(gate, &["/bin/sh", "-c", script, "zero"]);
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(child.try_wait().unwrap().is_none(), "it waits");
        key.open().unwrap();
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success());
        assert_eq!(text, "zero kept\n", "neither the program, nor the pipe, nor what told of them is left");
    }

    #[test]
    fn it_ends_when_nobody_is_left_to_open() {
        let (gate, key) = make().unwrap();
        let mut child = started(gate, &["/bin/true"]);
        drop(key);
        assert_eq!(child.wait().unwrap().code(), Some(127));
    }
}
