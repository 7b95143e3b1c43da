//! Whether KVM runs a guest here, by running one: a firmware of our own that does what every kernel does first. What a newcomer would
//! get wrong: `/dev/kvm` proves nothing, and neither does a CPU that executes an instruction ([`crate::sys::kvm`]). Some hosts
//! offer a KVM that runs real mode, even long mode, instruction by instruction in software, and gives up at the first exception; only
//! kernels made for it come further. So this one goes to long mode, jumps to where kernels live (the highest two gigabytes), raises an
//! exception, returns from it, and then says so. The CPU model is the one that a guest would get.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::sys::process::{Tool, pipe};

/// How long a host may take to run a few dozen instructions.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Whether guests can have KVM, or why not, in words that follow "no KVM: ".
pub type Verdict = Result<(), String>;

/// Tries it with `program`, the QEMU of the guest's architecture; `guest` and `host` are names of profiles. Costs a tenth of a second
/// where it works, `patience` at most where not. The caller remembers the answer for this boot of the host.
pub fn probe(program: &Path, guest: &str, host: &str, patience: Duration) -> Verdict {
    match (guest, host) {
        ("amd64", "amd64") | ("arm64", "arm64") => {}
        (guest, host) if guest == host => return Err(format!("it is not tried on {host}")),
        (guest, host) => return Err(format!("the guest is {guest}, this machine {host}")),
    }
    if !Path::new("/dev/kvm").exists() {
        return Err("there is no /dev/kvm".to_owned());
    }
    trial(program, guest, "kvm", "host", patience)
}

/// Runs the firmware of `guest` (amd64 or arm64) under any accelerator and CPU model; for itself it shows that the firmware does its work.
pub fn trial(program: &Path, guest: &str, accel: &str, cpu: &str, patience: Duration) -> Verdict {
    let firmware = firmware(guest).map_err(|e| format!("cannot write the trial's firmware: {e}"))?;
    let (child, said) = start(program, guest, accel, cpu, firmware)?;
    let (ended, last) = watch(child, &said, patience);
    match ended {
        Some(code) if code == success(guest) => Ok(()),
        Some(code) => Err(format!("a trial guest ended with {code}{}", told(&last))),
        None => Err(format!("a trial guest did not run{}", told(&last))),
    }
}

fn told(last: &[String]) -> String {
    // What says why comes before registers and traces.
    let line = last.iter().find(|l| !l.contains("warning:") && !l.contains("extra data"));
    let text = |l: &String| match l.split_once(": ") {
        Some((program, text)) if program.starts_with("qemu-system-") => format!(": {text}"),
        _ => format!(": {l}"),
    };
    line.map_or_else(|| ", and QEMU does not say why".to_owned(), text)
}

fn start(
    program: &Path,
    guest: &str,
    accel: &str,
    cpu: &str,
    firmware: OwnedFd,
) -> Result<(Child, Receiver<String>), String> {
    let (reader, writer) = pipe().map_err(|e| format!("cannot make a pipe: {e}"))?;
    let machine = if guest == "amd64" { "q35" } else { "virt" };
    let path = format!("/proc/self/fd/{}", firmware.as_raw_fd());
    let mut tool = Tool::new(program).args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", machine]);
    tool = tool.args(["-accel", accel, "-cpu", cpu, "-m", "32", "-bios", &path]);
    if guest == "amd64" {
        tool = tool.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]);
    }
    tool = tool.inherit(firmware).tied();
    tool.command().stdout(Stdio::null()).stderr(writer);
    let child = tool.spawn().map_err(|e| e.to_string())?;
    let (sender, said) = channel();
    // Ends when the program does: nobody else holds the other end of the pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    Ok((child, said))
}

/// Waits for its end, or kills it; its exit code and what it said.
fn watch(mut child: Child, said: &Receiver<String>, patience: Duration) -> (Option<i32>, Vec<String>) {
    let end = Instant::now() + patience;
    let mut lines = Vec::new();
    loop {
        match said.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let hopeless = line.contains("emulation failure") || line.contains("KVM internal error");
                if lines.len() < 100 {
                    lines.push(line);
                }
                if hopeless {
                    break;
                }
            }
            // It has closed its stderr, so it is ending.
            Err(RecvTimeoutError::Disconnected) => {
                return (child.wait().ok().and_then(|s| s.code().or(Some(-1))), lines);
            }
            Err(RecvTimeoutError::Timeout) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    // The one that says why may come after the one that says that it is hopeless.
    lines.sort_by_key(|l| !(l.contains("emulation failure") || l.contains("KVM internal error")));
    (None, lines)
}

/// How QEMU ends when the firmware has come to its end.
fn success(guest: &str) -> i32 {
    // isa-debug-exit: twice what was written, plus one. PSCI's SYSTEM_OFF: an ordinary end.
    if guest == "amd64" { 2 * 0x15 + 1 } else { 0 }
}

/// The firmware as an open file without a name.
fn firmware(guest: &str) -> std::io::Result<OwnedFd> {
    let image = if guest == "amd64" { pc() } else { ARM64.to_vec() };
    let fd = nix::sys::memfd::memfd_create(c"pronto-kvm", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    std::io::Write::write_all(&mut file, &image)?;
    Ok(file.into())
}

/// 64 KiB that end where an x86 CPU begins.
fn pc() -> Vec<u8> {
    let mut rom = vec![0xff; 0x1_0000];
    rom[..AMD64.len()].copy_from_slice(&AMD64);
    // ljmp $0xf000,$0
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0]);
    rom
}

/// Runs at 0xf0000, in GNU as:
///
/// ```text
/// .code16         cli; lgdtl %cs:gdtptr; cr0 |= 1; ljmpl $8,$pm
/// .code32 pm:     ds = ss = 0x10; page tables at 0x1000, 0x2000, 0x3000: two MiB at 0 and at -2 GiB
///                 cr4 |= PAE; cr3 = 0x1000; EFER |= LME; cr0 |= PG; ljmpl $0x18,$lm
/// .code64 lm:     jmp *$(-2 GiB + high)
///         high:   rsp = -2 GiB + 0x7000; gate 3 at -2 GiB + 0x4000 leads to handler; lidt; int3
///                 outb $0x15, $0xf4; 1: hlt; jmp 1b
///      handler:   iretq
///          gdt:   null, 32-bit code, data, 64-bit code
/// ```
const AMD64: [u8; 254] = [
    0xfa, 0x2e, 0x66, 0x0f, 0x01, 0x16, 0xf8, 0x00, 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0x66, 0xea, 0x18,
    0x00, 0x0f, 0x00, 0x08, 0x00, 0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xd0, 0xb8, 0x03, 0x20, 0x00, 0x00, 0xa3,
    0x00, 0x10, 0x00, 0x00, 0xa3, 0xf8, 0x1f, 0x00, 0x00, 0xb8, 0x03, 0x30, 0x00, 0x00, 0xa3, 0x00, 0x20, 0x00, 0x00,
    0xa3, 0xf0, 0x2f, 0x00, 0x00, 0xc7, 0x05, 0x00, 0x30, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00, 0x0f, 0x20, 0xe0, 0x83,
    0xc8, 0x20, 0x0f, 0x22, 0xe0, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f,
    0x32, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30, 0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0,
    0xea, 0x79, 0x00, 0x0f, 0x00, 0x18, 0x00, 0x48, 0xc7, 0xc0, 0x82, 0x00, 0x0f, 0x80, 0xff, 0xe0, 0x48, 0xc7, 0xc4,
    0x00, 0x70, 0x00, 0x80, 0x48, 0x8d, 0x05, 0x42, 0x00, 0x00, 0x00, 0x48, 0xc7, 0xc7, 0x00, 0x40, 0x00, 0x80, 0x66,
    0x89, 0x47, 0x30, 0x66, 0xc7, 0x47, 0x32, 0x18, 0x00, 0x66, 0xc7, 0x47, 0x34, 0x00, 0x8e, 0x48, 0xc1, 0xe8, 0x10,
    0x66, 0x89, 0x47, 0x36, 0x48, 0xc1, 0xe8, 0x10, 0x89, 0x47, 0x38, 0x66, 0xc7, 0x44, 0x24, 0xf6, 0xff, 0x0f, 0x48,
    0x89, 0x7c, 0x24, 0xf8, 0x0f, 0x01, 0x5c, 0x24, 0xf6, 0xcc, 0x66, 0xba, 0xf4, 0x00, 0xb0, 0x15, 0xee, 0xf4, 0xeb,
    0xfd, 0x48, 0xcf, 0x0f, 0x1f, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00,
    0x00, 0x9b, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xaf,
    0x00, 0x1f, 0x00, 0xd8, 0x00, 0x0f, 0x00,
];

/// Runs at 0: PSCI's SYSTEM_OFF, by a call to the hypervisor.
const ARM64: [u8; 20] = [
    0x00, 0x01, 0x80, 0x52, // mov w0, #0x0008
    0x00, 0x80, 0xb0, 0x72, // movk w0, #0x8400, lsl #16
    0x02, 0x00, 0x00, 0xd4, // hvc #0
    0x7f, 0x20, 0x03, 0xd5, // wfi
    0xff, 0xff, 0xff, 0x17, // b .-4
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_trial() {
        let probe = |guest, host| probe(Path::new("/nonexistent"), guest, host, PATIENCE).unwrap_err();
        assert_eq!(probe("arm64", "amd64"), "the guest is arm64, this machine amd64");
        assert_eq!(probe("riscv64", "riscv64"), "it is not tried on riscv64");
    }

    #[test]
    fn the_firmware_ends_where_a_cpu_begins() {
        assert_eq!(pc().len(), 65536);
        // The far jump out of real mode, and the last descriptor: 64-bit code.
        assert_eq!(AMD64[0x10..0x12], [0x66, 0xea]);
        assert!(AMD64.windows(8).any(|w| w == 0x00af_9b00_0000_ffff_u64.to_le_bytes()));
        assert_eq!(u32::from_le_bytes(ARM64[..4].try_into().unwrap()), 0x5280_0100);
    }
}
