//! KVM, by trying it: a machine of one page and one CPU that halts at once. What a newcomer would get wrong: `/dev/kvm` that
//! opens proves little (nested hosts offer it and then fail to run anything), so one instruction is really executed.
//! Source: Documentation/virt/kvm/api.rst.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What came of the try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An instruction was executed.
    Ran,
    /// A machine and a CPU were made; running one is only tried on x86.
    Made,
    /// The CPU did not come back in time.
    Hangs,
}

/// The step at which it failed, and why.
#[derive(Debug)]
pub struct Failure {
    /// What was tried: `open /dev/kvm`, `create a machine`…
    pub step: &'static str,
    /// As ioctl(2).
    pub source: io::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.step, self.source)
    }
}

/// Request numbers have 32 bits; C libraries differ in the type they take them as.
const KVM_GET_API_VERSION: libc::Ioctl = 0xae00_u32 as libc::Ioctl;
const KVM_CREATE_VM: libc::Ioctl = 0xae01_u32 as libc::Ioctl;
const KVM_CREATE_VCPU: libc::Ioctl = 0xae41_u32 as libc::Ioctl;

/// Tries KVM. The work is done in a thread, so that a CPU that never comes back costs `patience` and not for ever; such a
/// thread stays until this process ends. Errors: the first step that fails.
pub fn try_it(patience: Duration) -> Result<Outcome, Failure> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let spawned = std::thread::Builder::new().spawn(move || {
        let _ = sender.send(run());
    });
    spawned.map_err(|source| Failure { step: "start a thread", source })?;
    receiver.recv_timeout(patience).unwrap_or(Ok(Outcome::Hangs))
}

fn run() -> Result<Outcome, Failure> {
    let failed = |step| move |source| Failure { step, source };
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm").map_err(failed("open /dev/kvm"))?;
    let version = ioctl(&kvm, KVM_GET_API_VERSION, 0).map_err(failed("ask KVM's version"))?;
    if version != 12 {
        let source = io::Error::other(format!("the API's version is {version}, not 12"));
        return Err(Failure { step: "use KVM", source });
    }
    let machine = made(ioctl(&kvm, KVM_CREATE_VM, 0)).map_err(failed("create a machine"))?;
    let cpu = made(ioctl(&machine, KVM_CREATE_VCPU, 0)).map_err(failed("create a CPU"))?;
    #[cfg(target_arch = "x86_64")]
    return x86::halt(&kvm, &machine, &cpu);
    #[cfg(not(target_arch = "x86_64"))]
    {
        drop(cpu);
        Ok(Outcome::Made)
    }
}

fn ioctl(file: &impl AsRawFd, request: libc::Ioctl, argument: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: only requests whose argument is a plain number come here; the kernel touches no memory of ours.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn made(result: io::Result<i32>) -> io::Result<File> {
    // SAFETY: the ioctl has just returned this descriptor, and nobody else knows it.
    result.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{AsRawFd, Failure, File, Outcome, io, ioctl};

    const PAGE: usize = 4096;
    const HLT: u8 = 0xf4;
    const KVM_GET_VCPU_MMAP_SIZE: libc::Ioctl = 0xae04_u32 as libc::Ioctl;
    const KVM_SET_TSS_ADDR: libc::Ioctl = 0xae47_u32 as libc::Ioctl;
    const KVM_SET_USER_MEMORY_REGION: libc::Ioctl = 0x4020_ae46_u32 as libc::Ioctl;
    const KVM_SET_REGS: libc::Ioctl = 0x4090_ae82_u32 as libc::Ioctl;
    const KVM_GET_SREGS: libc::Ioctl = 0x8138_ae83_u32 as libc::Ioctl;
    const KVM_SET_SREGS: libc::Ioctl = 0x4138_ae84_u32 as libc::Ioctl;
    const KVM_RUN: libc::Ioctl = 0xae80_u32 as libc::Ioctl;
    const KVM_EXIT_HLT: u32 = 5;
    /// Three unused pages below 4 GiB, which older Intel CPUs need for real mode.
    const TSS: libc::c_ulong = 0xfffb_d000;
    /// Where the page lies in the machine, and where its CPU begins.
    const START: u64 = 0x1000;

    #[repr(C)]
    struct Region {
        slot: u32,
        flags: u32,
        guest_address: u64,
        size: u64,
        our_address: u64,
    }

    /// `struct kvm_sregs`, of which only the code segment (`base`, then `limit`, `selector`) matters here.
    #[repr(C, align(8))]
    struct Sregs([u8; 312]);

    /// A mapping that ends with its owner.
    struct Mapping {
        start: *mut libc::c_void,
        size: usize,
    }

    impl Mapping {
        fn new(size: usize, file: Option<&File>) -> io::Result<Mapping> {
            let (flags, fd) = match file {
                Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
                None => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
            };
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: a new mapping at an address of the kernel's choice takes nothing from anybody.
            let start = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, fd, 0) };
            if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Mapping { start, size }) }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the mapping is ours alone, and no reference into it is left.
            unsafe { libc::munmap(self.start, self.size) };
        }
    }

    fn pass<T>(file: &File, request: libc::Ioctl, data: *mut T) -> io::Result<()> {
        // SAFETY: each request's number holds the size of its structure, and callers pass one of just that size.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), request, data) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Puts one `hlt` into the machine and runs it.
    pub(super) fn halt(kvm: &File, machine: &File, cpu: &File) -> Result<Outcome, Failure> {
        let failed = |step| move |source| Failure { step, source };
        let _ = ioctl(machine, KVM_SET_TSS_ADDR, TSS);
        let page = Mapping::new(PAGE, None).map_err(failed("get memory"))?;
        // SAFETY: the page is mapped, writable and at least one byte long.
        unsafe { page.start.cast::<u8>().write_volatile(HLT) };
        let our_address = page.start as u64;
        let mut region = Region { slot: 0, flags: 0, guest_address: START, size: PAGE as u64, our_address };
        pass(machine, KVM_SET_USER_MEMORY_REGION, &mut region).map_err(failed("give the machine memory"))?;
        prepare(cpu).map_err(failed("set the CPU's registers"))?;
        let size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0).map_err(failed("ask the size of the CPU's state"))?;
        let state = Mapping::new(size.max(16) as usize, Some(cpu)).map_err(failed("map the CPU's state"))?;
        loop {
            match ioctl(cpu, KVM_RUN, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Failure { step: "run an instruction", source }),
                Ok(_) => break,
            }
        }
        // SAFETY: struct kvm_run begins with eight bytes of flags and padding, then exit_reason; 16 bytes are mapped.
        let reason = unsafe { state.start.cast::<u32>().add(2).read_volatile() };
        if reason == KVM_EXIT_HLT {
            return Ok(Outcome::Ran);
        }
        let source = io::Error::other(format!("the CPU stopped for reason {reason} instead of its halt"));
        Err(Failure { step: "run an instruction", source })
    }

    /// Real mode, code segment at 0, next instruction at [`START`].
    fn prepare(cpu: &File) -> io::Result<()> {
        let mut sregs = Sregs([0; 312]);
        pass(cpu, KVM_GET_SREGS, &mut sregs)?;
        sregs.0[..8].fill(0);
        sregs.0[12..14].fill(0);
        pass(cpu, KVM_SET_SREGS, &mut sregs)?;
        let mut regs = [0u64; 18];
        regs[16] = START;
        // Bit 1 of rflags is always set.
        regs[17] = 2;
        pass(cpu, KVM_SET_REGS, &mut regs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_or_says_at_which_step_not() {
        match try_it(Duration::from_secs(3)) {
            Ok(outcome) => assert!(std::path::Path::new("/dev/kvm").exists(), "{outcome:?}"),
            Err(failure) => assert!(failure.to_string().starts_with("cannot "), "{failure}"),
        }
    }
}
