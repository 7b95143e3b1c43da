//! What a baked interpreter does before QEMU: it looks whether a native program is there for the foreign one that is to be run, and runs
//! that in its stead. What a newcomer would get wrong: nothing of the guest is replaced. The foreign file is told by its *identity*, a hash
//! of its first bytes, in which its build-id lies ([`crate::elf::identity`]); so a program of another version, or that nobody knows, is
//! emulated as ever, and so is everything where [`PLACE`](crate::domain::accel::PLACE) is not mounted, and whatever runs with more
//! rights than its caller (`AT_SECURE`). Sources: System V ABI, AMD64 supplement, 3.4.1; the kernel's
//! admin-guide/binfmt-misc.rst, flags `P` (argv is the interpreter, the path, and the program's own) and `O` (`AT_EXECFD`); execve(2).

/// Tries `PLACE/x/<class><identity>/<last part of the path>`, then `PLACE/x/<class><identity>/@`, and for what interprets a script,
/// `PLACE/x/i<identity><the script's absolute path>` (the first word, or the second behind an option, as in `#!/usr/bin/perl -w`), with the
/// program's own argv, environment and descriptors (its file closed). When there is neither, the stack and the registers are as before, and what follows the code runs;
/// so it does where LD_PRELOAD names a path, for a native program could not load what is there. The class tells of words that a
/// native program may not be able to obey as the guest's own would ([`crate::domain::accel::Class`]).
#[rustfmt::skip]
pub const CODE: [u8; 0x227] = [
    0x48, 0x89, 0xe5,                                     // mov rbp, rsp   the stack as the kernel made it: argc, argv, envp, auxiliary vector
    0x48, 0x8b, 0x04, 0x24,                               // mov rax, [rsp]
    0x48, 0x8d, 0x74, 0xc4, 0x10,                         // lea rsi, [rsp+rax*8+0x10]   envp
    0x49, 0x89, 0xf5,                                     // mov r13, rsi
    0x48, 0xad,                                           // 1: lodsq
    0x48, 0x85, 0xc0,                                     // test rax, rax
    0x75, 0xf9,                                           // jne 1
    0x6a, 0xff,                                           // push 0xffffffffffffffff   AT_EXECFD: none yet
    0x41, 0x5e,                                           // pop r14
    0x48, 0xad,                                           // 2: lodsq
    0x48, 0x91,                                           // xchg rcx, rax
    0x48, 0xad,                                           // lodsq
    0xe3, 0x18,                                           // jrcxz 3
    0x83, 0xf9, 0x17,                                     // cmp ecx, 0x17   AT_SECURE
    0x74, 0x0a,                                           // je secure
    0x83, 0xf9, 0x02,                                     // cmp ecx, 0x2   AT_EXECFD
    0x75, 0xee,                                           // jne 2
    0x41, 0x89, 0xc6,                                     // mov r14d, eax
    0xeb, 0xe9,                                           // jmp 2
    0x85, 0xc0,                                           // secure: test eax, eax
    0x74, 0xe5,                                           // je 2
    0xe9, 0xbd, 0x01, 0x00, 0x00,                         // jmp out
    0x45, 0x85, 0xf6,                                     // 3: test r14d, r14d
    0x0f, 0x88, 0xb4, 0x01, 0x00, 0x00,                   // js out
    0x48, 0x83, 0x3c, 0x24, 0x03,                         // cmp [rsp], 0x3   interpreter, path, argv[0] (flag P)
    0x0f, 0x82, 0xa9, 0x01, 0x00, 0x00,                   // jb out
    0x6a, 0x6e,                                           // push 0x6e   'n'
    0x41, 0x5f,                                           // pop r15
    0x48, 0x8d, 0x7d, 0x18,                               // lea rdi, [rbp+0x18]   the words
    0x49, 0xb8, 0x2d, 0x66, 0x70, 0x6c, 0x75, 0x67, 0x69, 0x6e,// movabs r8, 0x6e6967756c70662d   "-fplugin"
    0x49, 0xb9, 0x3d, 0x6e, 0x61, 0x74, 0x69, 0x76, 0x65, 0x00,// movabs r9, 0x65766974616e3d   "=native", NUL
    0x49, 0xba, 0x2d, 0x66, 0x73, 0x74, 0x61, 0x63, 0x6b, 0x2d,// movabs r10, 0x2d6b63617473662d   "-fstack-"
    0x48, 0xbb, 0x00, 0x00, 0x2d, 0x66, 0x6f, 0x70, 0x65, 0x6e,// movabs rbx, 0x6e65706f662d0000   "-fopen"
    0x48, 0x8b, 0x37,                                     // 4: mov rsi, [rdi]
    0x48, 0x85, 0xf6,                                     // test rsi, rsi
    0x74, 0x3c,                                           // je 8
    0x48, 0x83, 0xc7, 0x08,                               // add rdi, 0x8
    0x48, 0x8b, 0x06,                                     // mov rax, [rsi]
    0x4c, 0x39, 0xc0,                                     // cmp rax, r8
    0x74, 0x2b,                                           // je 7
    0x4c, 0x39, 0xd0,                                     // cmp rax, r10
    0x75, 0x09,                                           // jne 5
    0x41, 0x80, 0xff, 0x6e,                               // cmp r15b, 0x6e
    0x75, 0x03,                                           // jne 5
    0x41, 0xb7, 0x73,                                     // mov r15b, 0x73   's'
    0x48, 0xc1, 0xe0, 0x10,                               // 5: shl rax, 0x10
    0x48, 0x39, 0xd8,                                     // cmp rax, rbx
    0x75, 0x09,                                           // jne 6
    0x41, 0x80, 0xff, 0x70,                               // cmp r15b, 0x70
    0x74, 0x03,                                           // je 6
    0x41, 0xb7, 0x6f,                                     // mov r15b, 0x6f   'o'
    0xac,                                                 // 6: lodsb
    0x84, 0xc0,                                           // test al, al
    0x75, 0xfb,                                           // jne 6
    0x4c, 0x39, 0x4e, 0xf8,                               // cmp [rsi-0x8], r9
    0x75, 0xc1,                                           // jne 4
    0x41, 0xb7, 0x70,                                     // 7: mov r15b, 0x70   'p'
    0xeb, 0xbc,                                           // jmp 4
    0x4c, 0x89, 0xef,                                     // 8: mov rdi, r13   the variables
    0x49, 0xb8, 0x4c, 0x44, 0x5f, 0x50, 0x52, 0x45, 0x4c, 0x4f,// movabs r8, 0x4f4c4552505f444c   "LD_PRELO"
    0x48, 0x8b, 0x37,                                     // 9: mov rsi, [rdi]
    0x48, 0x85, 0xf6,                                     // test rsi, rsi
    0x74, 0x18,                                           // je 11
    0x48, 0x83, 0xc7, 0x08,                               // add rdi, 0x8
    0x4c, 0x39, 0x06,                                     // cmp [rsi], r8
    0x75, 0xef,                                           // jne 9
    0xac,                                                 // 10: lodsb
    0x3c, 0x2f,                                           // cmp al, 0x2f   '/'
    0x0f, 0x84, 0x0e, 0x01, 0x00, 0x00,                   // je out
    0x84, 0xc0,                                           // test al, al
    0x75, 0xf3,                                           // jne 10
    0xeb, 0xe0,                                           // jmp 9
    0x48, 0x81, 0xec, 0x00, 0x0a, 0x00, 0x00,             // 11: sub rsp, 0xa00   a buffer
    0x49, 0x89, 0xe4,                                     // mov r12, rsp
    0x44, 0x89, 0xf7,                                     // mov edi, r14d
    0x4c, 0x89, 0xe6,                                     // mov rsi, r12
    0xba, 0x00, 0x08, 0x00, 0x00,                         // mov edx, 0x800
    0x45, 0x31, 0xd2,                                     // xor r10d, r10d
    0x6a, 0x11,                                           // push 0x11   pread64(2)
    0x58,                                                 // pop rax
    0x0f, 0x05,                                           // syscall
    0x3d, 0x00, 0x08, 0x00, 0x00,                         // cmp eax, 0x800   a shorter file has no identity
    0x0f, 0x85, 0xe0, 0x00, 0x00, 0x00,                   // jne out
    0x4c, 0x89, 0xe6,                                     // mov rsi, r12
    0xb9, 0x00, 0x01, 0x00, 0x00,                         // mov ecx, 0x100
    0x49, 0xb8, 0x15, 0x7c, 0x4a, 0x7f, 0xb9, 0x79, 0x37, 0x9e,// movabs r8, 0x9e3779b97f4a7c15   elf::identity
    0x31, 0xdb,                                           // xor ebx, ebx
    0x48, 0xad,                                           // 12: lodsq
    0x48, 0x31, 0xc3,                                     // xor rbx, rax
    0x49, 0x0f, 0xaf, 0xd8,                               // imul rbx, r8
    0x48, 0xc1, 0xc3, 0x1d,                               // rol rbx, 0x1d
    0xe2, 0xf1,                                           // loop 12
    0x4c, 0x89, 0xe7,                                     // mov rdi, r12
    0x48, 0x8d, 0x35, 0xd6, 0x00, 0x00, 0x00,             // lea rsi,  [rip+prefix]
    0xb9, 0x0d, 0x00, 0x00, 0x00,                         // mov ecx, 0xd
    0xf3, 0xa4,                                           // rep movsb
    0x44, 0x89, 0xf8,                                     // mov eax, r15d
    0xaa,                                                 // stosb
    0xb9, 0x10, 0x00, 0x00, 0x00,                         // mov ecx, 0x10
    0x48, 0xc1, 0xc3, 0x04,                               // 13: rol rbx, 0x4
    0x89, 0xd8,                                           // mov eax, ebx
    0x83, 0xe0, 0x0f,                                     // and eax, 0xf
    0x3c, 0x0a,                                           // cmp al, 0xa
    0x72, 0x02,                                           // jb 14
    0x04, 0x27,                                           // add al, 0x27
    0x04, 0x30,                                           // 14: add al, 0x30
    0xaa,                                                 // stosb
    0xe2, 0xec,                                           // loop 13
    0xb0, 0x2f,                                           // mov al, 0x2f   '/'
    0xaa,                                                 // stosb
    0x49, 0x89, 0xff,                                     // mov r15, rdi
    0x6a, 0x01,                                           // push 0x1   FD_CLOEXEC
    0x5a,                                                 // pop rdx
    0xe8, 0x88, 0x00, 0x00, 0x00,                         // call setfd
    0x48, 0x8b, 0x75, 0x10,                               // mov rsi, [rbp+0x10]   the path that was executed: its last part
    0x48, 0x89, 0xf2,                                     // mov rdx, rsi
    0xac,                                                 // 15: lodsb
    0x3c, 0x2f,                                           // cmp al, 0x2f   '/'
    0x48, 0x0f, 0x44, 0xd6,                               // cmove rdx, rsi
    0x84, 0xc0,                                           // test al, al
    0x75, 0xf5,                                           // jne 15
    0x48, 0x89, 0xf1,                                     // mov rcx, rsi
    0x48, 0x29, 0xd1,                                     // sub rcx, rdx
    0x81, 0xf9, 0x00, 0x01, 0x00, 0x00,                   // cmp ecx, 0x100   longer than any name
    0x77, 0x0d,                                           // ja 16
    0x48, 0x89, 0xd6,                                     // mov rsi, rdx
    0x4c, 0x89, 0xff,                                     // mov rdi, r15
    0xf3, 0xa4,                                           // rep movsb
    0xe8, 0x67, 0x00, 0x00, 0x00,                         // call exec
    0x66, 0x41, 0xc7, 0x07, 0x40, 0x00,                   // 16: mov word [r15], 0x40   "@"
    0xe8, 0x5c, 0x00, 0x00, 0x00,                         // call exec
    0x48, 0x8b, 0x75, 0x20,                               // mov rsi, [rbp+0x20]   the first word, or behind an option the second: a script
    0x48, 0x85, 0xf6,                                     // test rsi, rsi
    0x74, 0x39,                                           // je 19
    0x80, 0x3e, 0x2d,                                     // cmp byte [rsi], 0x2d   '-'
    0x75, 0x09,                                           // jne 17
    0x48, 0x8b, 0x75, 0x28,                               // mov rsi, [rbp+0x28]
    0x48, 0x85, 0xf6,                                     // test rsi, rsi
    0x74, 0x2b,                                           // je 19
    0x80, 0x3e, 0x2f,                                     // 17: cmp byte [rsi], 0x2f   '/'
    0x75, 0x26,                                           // jne 19
    0x41, 0xc6, 0x44, 0x24, 0x0d, 0x69,                   // mov byte [r12+0xd], 0x69   'i'
    0x49, 0x8d, 0x7f, 0xff,                               // lea rdi, [r15-0x1]
    0xb9, 0x00, 0x01, 0x00, 0x00,                         // mov ecx, 0x100
    0xac,                                                 // 18: lodsb
    0xaa,                                                 // stosb
    0x66, 0x81, 0x7f, 0xfe, 0x2f, 0x2e,                   // cmp word [rdi-0x2], 0x2e2f   "/.": no step back
    0x74, 0x0d,                                           // je 19
    0xff, 0xc9,                                           // dec ecx
    0x74, 0x09,                                           // je 19
    0x84, 0xc0,                                           // test al, al
    0x75, 0xee,                                           // jne 18
    0xe8, 0x1a, 0x00, 0x00, 0x00,                         // call exec
    0x31, 0xd2,                                           // 19: xor edx, edx
    0xe8, 0x07, 0x00, 0x00, 0x00,                         // call setfd
    0x48, 0x89, 0xec,                                     // out: mov rsp, rbp
    0x31, 0xd2,                                           // xor edx, edx
    0xeb, 0x29,                                           // jmp end
    0x44, 0x89, 0xf7,                                     // setfd: mov edi, r14d
    0x6a, 0x02,                                           // push 0x2   F_SETFD
    0x5e,                                                 // pop rsi
    0x6a, 0x48,                                           // push 0x48   fcntl(2)
    0x58,                                                 // pop rax
    0x0f, 0x05,                                           // syscall
    0xc3,                                                 // ret
    0x4c, 0x89, 0xe7,                                     // exec: mov rdi, r12
    0x48, 0x8d, 0x75, 0x18,                               // lea rsi, [rbp+0x18]   from argv[0] on
    0x4c, 0x89, 0xea,                                     // mov rdx, r13
    0x6a, 0x3b,                                           // push 0x3b   execve(2)
    0x58,                                                 // pop rax
    0x0f, 0x05,                                           // syscall
    0xc3,                                                 // ret
    // prefix:
    b'/', b'r', b'u', b'n', b'/', b'a', b'c', b'c', b'e', b'l', b'/', b'x', b'/',
];

#[cfg(test)]
mod tests {
    use super::CODE;
    use crate::domain::accel::PLACE;

    #[test]
    fn it_looks_in_the_place() {
        assert!(CODE.ends_with(format!("{PLACE}/x/").as_bytes()));
    }
}
