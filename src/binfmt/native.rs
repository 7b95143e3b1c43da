//! What this host runs without any interpreter, found out by trying. What a newcomer would get wrong: that a 64-bit x86 kernel
//! runs i386 (it may be built or started without), that a 64-bit ARM one runs 32-bit ARM (ThunderX and others cannot), and
//! that a program which ran was run by the CPU (an entry may match it).

use std::os::fd::AsRawFd;
use std::path::Path;

use super::{Error, Result, little};
use crate::arch::{Data, Profile, Profiles};
use crate::sys::host::{self, Runner};
use crate::sys::process::Tool;

const EM_386: u16 = 3;
const EM_ARM: u16 = 40;
/// EF_ARM_EABI_VER5: what current kernels and QEMU take.
const EABI5: u32 = 0x0500_0000;
/// What the little programs exit with.
const STATUS: u8 = 42;

/// The profile of the kernel beneath us.
pub fn host_profile(profiles: &Profiles) -> Option<&Profile> {
    profiles.by_uname(&host::machine())
}

/// Whether programs of `profile` need no interpreter here: the kernel's own architecture, the one this program was built for
/// (it runs, after all), or one that a little program of that architecture proves to run. Errors: the try was impossible.
pub fn runs_itself(profile: &Profile) -> Result<bool> {
    let machine = host::machine();
    let built_for = std::env::consts::ARCH;
    let called = |name: &str| profile.uname == name || profile.is_called(name);
    // "arm" is an alias of armhf only, but a program built for either says it.
    if called(&machine) || (called(built_for) && built_for != "arm") {
        return Ok(true);
    }
    let Some(program) = try_program(profile, &machine) else { return Ok(false) };
    match host::who_runs(&program, i32::from(STATUS)) {
        Ok(runner) => Ok(runner == Runner::Host),
        Err(source) => Err(Error::Probe { arch: profile.name.clone(), source }),
    }
}

/// A program that reads one byte and exits with [`STATUS`], for the pairs where a kernel may run a second architecture.
fn try_program(profile: &Profile, machine: &str) -> Option<Vec<u8>> {
    if (profile.elf.class, profile.elf.data) != (32, Data::Little) {
        return None;
    }
    let mut program = match (profile.elf.machine, machine) {
        (EM_386, "x86_64") => elf32(EM_386, 0, &i386_code()),
        (EM_ARM, "aarch64" | "armv8l" | "armv7l" | "armv6l") => elf32(EM_ARM, EABI5, &arm_code()),
        _ => return None,
    };
    // The kernel looks at the first four bytes and at what follows byte 16 (load_elf_binary); entries of binfmt_misc check the
    // bytes between. Rubbish there keeps the try away from an entry that would emulate what the CPU can do.
    program[4..16].fill(0xa5);
    Some(program)
}

/// What uname(2) calls the machine in a program of `profile`'s that `interpreter` runs as this CPU model. Only 32-bit ARM has more than one
/// answer (`armv6l`, `armv7l`, `armv8l`), and there the interpreter is asked. Errors: it does not say, in words.
pub fn machine(profile: &Profile, interpreter: &Path, cpu: Option<&str>) -> std::result::Result<String, String> {
    if (profile.elf.class, profile.elf.machine, profile.elf.data) != (32, EM_ARM, Data::Little) {
        return Ok(profile.uname.clone());
    }
    let said = |e: &dyn std::fmt::Display| format!("{} does not say its machine: {e}", interpreter.display());
    let program = host::in_memory(&elf32(EM_ARM, EABI5, &arm_uname())).map_err(|e| said(&e))?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd());
    let options = cpu.map(|cpu| ["-cpu", cpu]).into_iter().flatten();
    let out = Tool::new(interpreter).args(options).arg(path).output().map_err(|e| said(&e))?;
    let name = out.split(|byte| *byte == 0).next().unwrap_or_default();
    match std::str::from_utf8(name) {
        Ok(name) if name.starts_with("arm") => Ok(name.to_owned()),
        _ => Err(said(&"it says something else")),
    }
}

/// read(0, stack, 1); exit(42), by `int 0x80`.
fn i386_code() -> Vec<u8> {
    let mut code = vec![0x31, 0xdb]; // xor ebx, ebx
    code.extend([0x89, 0xe1]); // mov ecx, esp
    code.extend([0xba, 1, 0, 0, 0]); // mov edx, 1
    code.extend([0xb8, 3, 0, 0, 0]); // mov eax, 3 (read)
    code.extend([0xcd, 0x80]);
    code.extend([0xbb, STATUS, 0, 0, 0]); // mov ebx, 42
    code.extend([0xb8, 1, 0, 0, 0]); // mov eax, 1 (exit)
    code.extend([0xcd, 0x80]);
    code
}

/// The same in A32, which every 32-bit ARM since v4 runs.
fn arm_code() -> Vec<u8> {
    let words: [u32; 8] = [
        0xe3a0_0000,                     // mov r0, #0
        0xe1a0_100d,                     // mov r1, sp
        0xe3a0_2001,                     // mov r2, #1
        0xe3a0_7003,                     // mov r7, #3 (read)
        0xef00_0000,                     // svc 0
        0xe3a0_0000 | u32::from(STATUS), // mov r0, #42
        0xe3a0_7001,                     // mov r7, #1 (exit)
        0xef00_0000,                     // svc 0
    ];
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// Writes the machine's field of uname(2), 65 bytes: the fifth of its kind (struct new_utsname).
fn arm_uname() -> Vec<u8> {
    let words: [u32; 12] = [
        0xe24d_dc02, // sub sp, sp, #512
        0xe1a0_000d, // mov r0, sp
        0xe3a0_707a, // mov r7, #122 (uname)
        0xef00_0000, // svc 0
        0xe28d_1f41, // add r1, sp, #260
        0xe3a0_0001, // mov r0, #1
        0xe3a0_2041, // mov r2, #65
        0xe3a0_7004, // mov r7, #4 (write)
        0xef00_0000, // svc 0
        0xe3a0_0000, // mov r0, #0
        0xe3a0_7001, // mov r7, #1 (exit)
        0xef00_0000, // svc 0
    ];
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn elf32(machine: u16, flags: u32, code: &[u8]) -> Vec<u8> {
    little::program(32, machine, flags, code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_little_programs_are_whole() {
        let profiles = Profiles::embedded();
        for (name, machine) in [("i386", "x86_64"), ("armel", "aarch64"), ("armhf", "aarch64")] {
            let mut program = try_program(profiles.find(name).unwrap(), machine).expect(name);
            assert!(super::super::shipped().iter().all(|entry| !entry.matches(&program)), "no entry takes it");
            program[4..16].copy_from_slice(&[1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let header = crate::elf::parse(&program).unwrap();
            assert!(header.is_program() && header.is_static() && !header.is_pie());
            assert_eq!(header.machine, profiles.find(name).unwrap().elf.machine);
        }
        for (name, machine) in [("arm64", "x86_64"), ("i386", "aarch64"), ("s390x", "x86_64"), ("armhf", "x86_64")] {
            assert_eq!(try_program(profiles.find(name).unwrap(), machine), None, "{name} on {machine}");
        }
    }

    /// As each CPU's kernel does.
    #[test]
    fn the_machine_of_a_cpu() {
        let profiles = Profiles::embedded();
        let qemu = Path::new("/usr/bin/qemu-arm");
        let arm64 = machine(profiles.find("arm64").unwrap(), qemu, None);
        assert_eq!(arm64.as_deref(), Ok("aarch64"));
        let armhf = |cpu| machine(profiles.find("armhf").unwrap(), qemu, cpu);
        if !qemu.exists() {
            // Without qemu-user there is nobody to ask.
            return assert!(armhf(None).is_err());
        }
        assert_eq!(armhf(Some("arm1176")).as_deref(), Ok("armv6l"));
        assert_eq!(armhf(Some("cortex-a7")).as_deref(), Ok("armv7l"));
        assert!(armhf(Some("no-such")).unwrap_err().contains("does not say its machine"));
        assert!(machine(profiles.find("armhf").unwrap(), Path::new("/bin/true"), None).is_err());
    }

    #[test]
    fn this_host() {
        let profiles = Profiles::embedded();
        let own = profiles.by_uname(std::env::consts::ARCH).unwrap();
        assert!(runs_itself(own).unwrap());
        let alien = if own.name == "s390x" { "riscv64" } else { "s390x" };
        assert!(!runs_itself(profiles.find(alien).unwrap()).unwrap());
        // Whatever it is, the question has an answer.
        runs_itself(profiles.find("i386").unwrap()).unwrap();
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn an_emulated_program_is_not_taken_for_a_native_one() {
        // Where an entry runs ARM programs the interpreter shows; where none does, nobody runs them.
        let mut program = elf32(EM_ARM, EABI5, &arm_code());
        program[4..16].fill(0xa5);
        assert_eq!(host::who_runs(&program, i32::from(STATUS)).unwrap(), Runner::Nobody);
        program[4..16].copy_from_slice(&[1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_ne!(host::who_runs(&program, i32::from(STATUS)).unwrap(), Runner::Host);
    }
}
