//! What an interpreter shows its programs as `/proc/cpuinfo`. What a newcomer would get wrong: the text is not in any file. QEMU answers an
//! emulated program's open(2) of that path with a text of its own, which depends on its version and on the CPU that it is told to be;
//! for some architectures it does not, and they see the host's. So it is asked, by a program that copies the file, and nothing is made up.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::little;
use crate::arch::{Data, Profile};
use crate::sys::host;
use crate::sys::process::Tool;

const PATH: &str = "/proc/cpuinfo";
const EM_ARM: u16 = 40;
const EM_AARCH64: u16 = 183;
const EM_RISCV: u16 = 243;
/// EF_ARM_EABI_VER5.
const EABI5: u32 = 0x0500_0000;

/// The text, as `interpreter` shows it to programs of `profile` when it is this CPU model; `None` where it shows the host's own, or nobody knows
/// how to ask. Errors: it does not answer, in words.
pub fn cpuinfo(profile: &Profile, interpreter: &Path, cpu: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    let Some(program) = program(profile) else { return Ok(None) };
    let said = |e: &dyn std::fmt::Display| format!("{} does not show its {PATH}: {e}", interpreter.display());
    let program = host::in_memory(&program).map_err(|e| said(&e))?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd());
    let options = cpu.map(|cpu| ["-cpu", cpu]).into_iter().flatten();
    let text = Tool::new(interpreter).args(options).arg(path).output().map_err(|e| said(&e))?;
    if text.is_empty() {
        return Err(said(&"it is empty"));
    }
    let own = std::fs::read(PATH).map_err(|e| said(&e))?;
    // The values change from one moment to the next, the names do not.
    Ok((names(&text) != names(&own)).then_some(text))
}

/// What stands before the colons.
fn names(text: &[u8]) -> BTreeSet<&[u8]> {
    text.split(|b| *b == b'\n')
        .filter_map(|line| Some(line.split_at(line.iter().position(|b| *b == b':')?).0))
        .collect()
}

/// open(PATH); read(4096 or 2047), write(1) until there is nothing more; exit(0).
fn program(profile: &Profile) -> Option<Vec<u8>> {
    if profile.elf.data != Data::Little {
        return None;
    }
    let (flags, words) = match (profile.elf.machine, profile.elf.class) {
        (EM_ARM, 32) => (EABI5, ARM),
        (EM_AARCH64, 64) => (0, AARCH64),
        (EM_RISCV, 64) => (0, RISCV64),
        _ => return None,
    };
    let code = words.iter().flat_map(|word| word.to_le_bytes());
    let code: Vec<u8> = code.chain(PATH.bytes()).chain([0]).collect();
    Some(little::program(profile.elf.class, profile.elf.machine, flags, &code))
}

const ARM: &[u32] = &[
    0xe28f_0054, // adr r0, PATH
    0xe3a0_1000, // mov r1, #0 (O_RDONLY)
    0xe3a0_2000, // mov r2, #0
    0xe3a0_7005, // mov r7, #5 (open)
    0xef00_0000, // svc #0
    0xe1a0_4000, // mov r4, r0
    0xe24d_da01, // sub sp, sp, #4096
    0xe1a0_0004, // 1: mov r0, r4
    0xe1a0_100d, // mov r1, sp
    0xe3a0_2a01, // mov r2, #4096
    0xe3a0_7003, // mov r7, #3 (read)
    0xef00_0000, // svc #0
    0xe350_0000, // cmp r0, #0
    0xda00_0005, // ble 2
    0xe1a0_2000, // mov r2, r0
    0xe1a0_100d, // mov r1, sp
    0xe3a0_0001, // mov r0, #1
    0xe3a0_7004, // mov r7, #4 (write)
    0xef00_0000, // svc #0
    0xeaff_fff2, // b 1
    0xe260_0000, // 2: rsb r0, r0, #0
    0xe3a0_7001, // mov r7, #1 (exit)
    0xef00_0000, // svc #0
];

const AARCH64: &[u32] = &[
    0x1000_0301, // adr x1, PATH
    0x9280_0c60, // mov x0, #-100 (AT_FDCWD)
    0xd280_0002, // mov x2, #0 (O_RDONLY)
    0xd280_0003, // mov x3, #0
    0xd280_0708, // mov x8, #56 (openat)
    0xd400_0001, // svc #0
    0xaa00_03f3, // mov x19, x0
    0xd140_07ff, // sub sp, sp, #4096
    0xaa13_03e0, // 1: mov x0, x19
    0x9100_03e1, // mov x1, sp
    0xd282_0002, // mov x2, #4096
    0xd280_07e8, // mov x8, #63 (read)
    0xd400_0001, // svc #0
    0xf100_001f, // cmp x0, #0
    0x5400_00ed, // b.le 2
    0xaa00_03e2, // mov x2, x0
    0x9100_03e1, // mov x1, sp
    0xd280_0020, // mov x0, #1
    0xd280_0808, // mov x8, #64 (write)
    0xd400_0001, // svc #0
    0x17ff_fff4, // b 1
    0xcb00_03e0, // 2: neg x0, x0
    0xd280_0bc8, // mov x8, #94 (exit_group)
    0xd400_0001, // svc #0
];

const RISCV64: &[u32] = &[
    0x0000_0597, // auipc a1, 0
    0x05c5_8593, // addi a1, a1, PATH
    0xf9c0_0513, // li a0, -100 (AT_FDCWD)
    0x0000_0613, // li a2, 0 (O_RDONLY)
    0x0380_0893, // li a7, 56 (openat)
    0x0000_0073, // ecall
    0x0005_0493, // mv s1, a0
    0x8001_0113, // addi sp, sp, -2048
    0x0004_8513, // 1: mv a0, s1
    0x0001_0593, // mv a1, sp
    0x7ff0_0613, // li a2, 2047
    0x03f0_0893, // li a7, 63 (read)
    0x0000_0073, // ecall
    0x00a0_5e63, // blez a0, 2
    0x0005_0613, // mv a2, a0
    0x0001_0593, // mv a1, sp
    0x0010_0513, // li a0, 1
    0x0400_0893, // li a7, 64 (write)
    0x0000_0073, // ecall
    0xfd5f_f06f, // j 1
    0x40a0_0533, // 2: neg a0, a0
    0x05e0_0893, // li a7, 94 (exit_group)
    0x0000_0073, // ecall
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Profiles;

    /// Each of the programs runs, and says what the CPU says of itself.
    #[test]
    fn what_programs_are_shown() {
        let profiles = Profiles::embedded();
        let show = |name: &str, cpu| {
            let profile = profiles.find(name).unwrap();
            let suffix = match name {
                "arm64" => "aarch64",
                "armhf" => "arm",
                other => other,
            };
            let qemu = Path::new("/usr/bin").join(format!("qemu-{suffix}"));
            (cpuinfo(profile, &qemu, cpu), qemu.exists())
        };
        for (name, cpu, word) in [
            ("arm64", None, "CPU implementer"),
            ("arm64", Some("cortex-a53"), "CPU part\t: 0xd03"),
            ("armhf", Some("cortex-a7"), "CPU part\t: 0xc07"),
            ("riscv64", None, "isa\t\t: rv64"),
        ] {
            match show(name, cpu) {
                (Ok(text), true) => {
                    let text = String::from_utf8(text.expect("a text of its own")).unwrap();
                    assert!(
                        text.contains(word) && text.starts_with("processor") && !text.contains("vendor_id"),
                        "{text}"
                    );
                }
                // Without qemu-user there is nobody to ask.
                (answer, there) => assert!(answer.is_err() && !there, "{name}: {answer:?}"),
            }
        }
        assert!(show("arm64", Some("no-such")).0.unwrap_err().contains("does not show its /proc/cpuinfo"));
        assert_eq!(show("s390x", None).0, Ok(None), "nobody knows how to ask");
    }

    #[test]
    fn who_shows_the_hosts_own() {
        let text: &[u8] = b"processor\t: 0\nBogoMIPS\t: 100.00\n\nfree text\n";
        assert_eq!(names(text), BTreeSet::from([&b"processor\t"[..], b"BogoMIPS\t"]));
        assert_ne!(names(text), names(b"processor\t: 0\nvendor_id\t: x\n"));
    }
}
