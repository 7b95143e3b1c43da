//! Capabilities: the sets of a process, nspawn's default mask, and giving up everything above a mask. What a newcomer would
//! get wrong: dropping the effective and permitted sets is not enough, since an execve(2) by uid 0 fills them again from
//! the *bounding* set; that one must shrink first, while CAP_SETPCAP is still there. Source: capabilities(7), prctl(2),
//! systemd-nspawn(1) `--capability=`.

use std::io;

/// Capabilities as a bit mask: bit N is capability number N of `<linux/capability.h>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask(pub u64);

const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const DAC_READ_SEARCH: u32 = 2;
const FOWNER: u32 = 3;
const FSETID: u32 = 4;
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const SETPCAP: u32 = 8;
const LINUX_IMMUTABLE: u32 = 9;
const NET_BIND_SERVICE: u32 = 10;
const NET_BROADCAST: u32 = 11;
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const IPC_OWNER: u32 = 15;
const SYS_CHROOT: u32 = 18;
const SYS_PTRACE: u32 = 19;
const SYS_PACCT: u32 = 20;
const SYS_ADMIN: u32 = 21;
const SYS_BOOT: u32 = 22;
const SYS_NICE: u32 = 23;
const SYS_RESOURCE: u32 = 24;
const SYS_TTY_CONFIG: u32 = 26;
const MKNOD: u32 = 27;
const LEASE: u32 = 28;
const AUDIT_WRITE: u32 = 29;
const AUDIT_CONTROL: u32 = 30;
const SETFCAP: u32 = 31;

const fn mask(bits: &[u32]) -> Mask {
    let (mut all, mut i) = (0, 0);
    while i < bits.len() {
        all |= 1 << bits[i];
        i += 1;
    }
    Mask(all)
}

impl Mask {
    /// What nspawn leaves to its guests by default (systemd-nspawn(1), `--capability=`): `0xfdecafff`.
    pub const NSPAWN: Mask = mask(&[
        CHOWN,
        DAC_OVERRIDE,
        DAC_READ_SEARCH,
        FOWNER,
        FSETID,
        KILL,
        SETGID,
        SETUID,
        SETPCAP,
        LINUX_IMMUTABLE,
        NET_BIND_SERVICE,
        NET_BROADCAST,
        NET_RAW,
        IPC_OWNER,
        SYS_CHROOT,
        SYS_PTRACE,
        SYS_ADMIN,
        SYS_BOOT,
        SYS_NICE,
        SYS_RESOURCE,
        SYS_TTY_CONFIG,
        MKNOD,
        LEASE,
        AUDIT_WRITE,
        AUDIT_CONTROL,
        SETFCAP,
    ]);

    /// As [`Mask::NSPAWN`] for a guest with a network of its own, which it may configure: `0xfdecbfff`.
    pub const NSPAWN_PRIVATE_NETWORK: Mask = Mask(Mask::NSPAWN.0 | 1 << NET_ADMIN);

    /// What acct(2) needs, and nothing else.
    pub const ACCOUNTING: Mask = mask(&[SYS_PACCT]);

    /// nspawn's choice by the guest's network.
    pub const fn nspawn(private_network: bool) -> Mask {
        if private_network { Mask::NSPAWN_PRIVATE_NETWORK } else { Mask::NSPAWN }
    }

    /// Whether everything in `self` is in `other` too.
    pub const fn within(self, other: Mask) -> bool {
        self.0 & !other.0 == 0
    }
}

/// The five sets of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sets {
    /// What programs with inheritable file capabilities may take over.
    pub inheritable: Mask,
    /// What the process may use.
    pub permitted: Mask,
    /// What it uses now.
    pub effective: Mask,
    /// The most that an execve(2) can give it.
    pub bounding: Mask,
    /// What an execve(2) of an ordinary program keeps without uid 0.
    pub ambient: Mask,
}

impl Sets {
    /// Reads the `Cap…:` lines of `/proc/PID/status`; `None` when one is missing. Source: proc(5).
    pub fn parse(status: &str) -> Option<Sets> {
        let set = |name: &str| {
            let hex = status.lines().find_map(|l| l.strip_prefix(name))?.trim();
            u64::from_str_radix(hex, 16).ok().map(Mask)
        };
        Some(Sets {
            inheritable: set("CapInh:")?,
            permitted: set("CapPrm:")?,
            effective: set("CapEff:")?,
            bounding: set("CapBnd:")?,
            ambient: set("CapAmb:")?,
        })
    }

    /// The sets of process `pid` (in our own pid namespace's numbers). Errors: ENOENT when it is gone.
    pub fn of(pid: libc::pid_t) -> io::Result<Sets> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        Sets::parse(&status).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODATA))
    }
}

/// Gives up, for good, every capability outside `keep`: bounding, permitted and effective shrink to it (what this process
/// lacks already it does not get), inheritable and ambient become empty. Allocates nothing: may be called between fork and
/// exec. A guest's root gets `keep` back at execve(2), other users get nothing. Errors: EPERM without CAP_SETPCAP.
pub fn drop_to(keep: Mask) -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: these prctl(2) options take numbers only.
        let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability as libc::c_ulong, 0, 0, 0) };
        if held < 0 {
            // Above the kernel's last capability.
            break;
        }
        let unwanted = held == 1 && keep.0 & (1 << capability) == 0;
        // SAFETY: as above.
        if unwanted && unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: as above.
    if unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let have = get()?;
    set([0, 1].map(|half| {
        let keep = (keep.0 >> (32 * half)) as u32;
        let Half { effective, permitted, .. } = have[half];
        Half { effective: effective & keep, permitted: permitted & keep, inheritable: 0 }
    }))
}

/// Makes every permitted capability of this thread effective. Errors: as capset(2).
pub fn raise_permitted() -> io::Result<()> {
    set(get()?.map(|half| Half { effective: half.permitted, ..half }))
}

/// `struct __user_cap_data_struct`: 32 of the capabilities.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`, this process.
const HEADER: Header = Header { version: 0x2008_0522, pid: 0 };

fn get() -> io::Result<[Half; 2]> {
    let mut halves = [Half::default(); 2];
    let mut header = HEADER;
    // SAFETY: version 3 makes the kernel write exactly two halves; the header is ours to be written too.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, halves.as_mut_ptr()) };
    if done == 0 { Ok(halves) } else { Err(io::Error::last_os_error()) }
}

fn set(halves: [Half; 2]) -> io::Result<()> {
    let mut header = HEADER;
    // SAFETY: version 3 makes the kernel read exactly two halves.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, halves.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masks_are_nspawns() {
        // /proc/PID/status of a real payload (systemd 252) on a host that has every capability.
        assert_eq!(Mask::NSPAWN, Mask(0xfdec_afff));
        assert_eq!(Mask::nspawn(true), Mask(0xfdec_bfff));
        assert!(Mask::NSPAWN.within(Mask::nspawn(true)) && !Mask::nspawn(true).within(Mask::NSPAWN));
    }

    #[test]
    fn a_status_file_is_read() {
        let status = "Name:\tsystemd\nUmask:\t0000\nCapInh:\t00000000fcecafff\nCapPrm:\t00000000fcecafff\n\
                      CapEff:\t00000000fcecaffe\nCapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000000\nSeccomp:\t2\n";
        let sets = Sets::parse(status).unwrap();
        assert_eq!((sets.effective, sets.bounding), (Mask(0xfcec_affe), Mask(0x1ff_feff_ffff)));
        assert_eq!(Sets::parse("CapInh:\t0\n"), None);
        assert!(Sets::of(std::process::id() as i32).is_ok());
    }

    #[test]
    fn dropping_is_for_good() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // Capabilities belong to a thread: this one is lost afterwards, the test runner's others are not.
        let (before, after) = std::thread::spawn(|| {
            let status = || Sets::parse(&std::fs::read_to_string("/proc/thread-self/status").unwrap()).unwrap();
            let before = status();
            drop_to(Mask::NSPAWN).unwrap();
            drop_to(Mask::nspawn(true)).unwrap();
            (before, status())
        })
        .join()
        .unwrap();
        let left = Mask(before.bounding.0 & Mask::NSPAWN.0);
        let none = Mask(0);
        assert_eq!(after, Sets { inheritable: none, permitted: left, effective: left, bounding: left, ambient: none });
    }
}
