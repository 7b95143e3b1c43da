//! A seccomp filter of our own that decides as systemd-nspawn's default one does, but for two commands of ioctl(2), which
//! type into a terminal. nspawn builds its filter with libseccomp at every start, which is more than half of its start time;
//! it inherits ours instead when it is started below it with `SYSTEMD_SECCOMP=0`. The decisions stand in `syscalls.txt`, one
//! system call per line; `derive.rs` reads them from a real nspawn and says how.
//!
//! What a newcomer would get wrong: the same call has another number on every architecture, and one host kernel serves
//! several of them (x86-64 runs i386 and x32 code, arm64 often 32-bit arm): a filter that knows only the host's own
//! numbers is no fence at all. A number that the table does not hold gives ENOSYS, so that new calls are closed until
//! somebody looks at them. An emulated guest is held by it like a native one: qemu-user makes host calls.
//! Source: seccomp(2), `<linux/audit.h>`, systemd-nspawn(1).

mod bpf;
#[cfg(test)]
mod derive;

use std::collections::BTreeMap;
use std::io;

use libc::sock_filter;

const TABLE: &str = include_str!("syscalls.txt");

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const DENIED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
/// What audit's user space takes as "the kernel has no audit": nspawn's own trick, since audit breaks in containers.
const NO_AUDIT: u32 = libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32;
/// Done without doing anything.
const IGNORED: u32 = libc::SECCOMP_RET_ERRNO;
/// The calls that wait for a disk (nspawn's own list for `--suppress-sync=`, without the flags of open(2)).
const SYNC: [&str; 8] =
    ["fdatasync", "fsync", "msync", "sync", "sync_file_range", "sync_file_range2", "arm_sync_file_range", "syncfs"];
const NETLINK_AUDIT: u32 = 9;
/// TIOCSTI and TIOCLINUX of ioctl(2): they put bytes into a terminal's input as if its user had typed them, and paste on a
/// console. A guest may hold a terminal of the host's (`run` and `exec` hand their standard streams in as they are when stdin
/// or stdout is no terminal), and its root has CAP_SYS_ADMIN, with which the kernel obeys whatever dev.tty.legacy_tiocsti
/// says. The numbers are those of `<asm-generic/ioctls.h>`, which every architecture of [`abis`] uses. Source:
/// ioctl_tty(2), TIOCLINUX(2const).
const TYPING: [u32; 2] = [0x5412, 0x541C];
/// x32 calls carry the architecture token of x86-64 and this bit in their number.
const X32_BIT: u32 = 0x4000_0000;

/// One architecture whose calls a host kernel accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Abi {
    /// Its column in the table.
    column: &'static str,
    /// AUDIT_ARCH_* of `<linux/audit.h>`.
    token: u32,
    /// Added to its numbers.
    base: u32,
}

const X86_64: Abi = Abi { column: "x86_64", token: 0xc000_003e, base: 0 };
const X32: Abi = Abi { column: "x32", token: 0xc000_003e, base: X32_BIT };
const I386: Abi = Abi { column: "i386", token: 0x4000_0003, base: 0 };
const AARCH64: Abi = Abi { column: "aarch64", token: 0xc000_00b7, base: 0 };
const ARM: Abi = Abi { column: "arm", token: 0x4000_0028, base: 0 };
const RISCV64: Abi = Abi { column: "riscv64", token: 0xc000_00f3, base: 0 };

/// What a kernel of `machine` (Rust's name of the architecture) serves; none when the table lacks one of them.
fn abis(machine: &str) -> Option<&'static [Abi]> {
    match machine {
        "x86_64" => Some(&[X86_64, X32, I386]),
        "aarch64" => Some(&[AARCH64, ARM]),
        "riscv64" => Some(&[RISCV64]),
        _ => None,
    }
}

/// A program for the kernel that answers every system call.
#[derive(Clone)]
pub struct Filter {
    program: Vec<sock_filter>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({} instructions)", self.program.len())
    }
}

impl Filter {
    /// The filter for this host; `None` where its system calls are not in our table: let nspawn build its own there.
    pub fn for_host() -> Option<Filter> {
        Filter::for_machine(std::env::consts::ARCH, false)
    }

    /// As [`Filter::for_host`], for a guest of which nothing will be left: what would wait for the disk succeeds at once.
    pub fn without_sync() -> Option<Filter> {
        Filter::for_machine(std::env::consts::ARCH, true)
    }

    /// One of the two, by whether the guest is `forgetful`.
    pub fn of(forgetful: bool) -> Option<Filter> {
        if forgetful { Filter::without_sync() } else { Filter::for_host() }
    }

    fn for_machine(machine: &str, forgetful: bool) -> Option<Filter> {
        Some(Filter { program: compile(abis(machine)?, forgetful) })
    }

    /// The program, for those who install it themselves.
    pub fn instructions(&self) -> &[sock_filter] {
        &self.program
    }

    /// Puts this process, and all that it starts, under the filter for good. Allocates nothing: may be called between fork
    /// and exec. No no_new_privs is set (setuid programs of the guest go on working), so this needs CAP_SYS_ADMIN.
    /// Errors: as seccomp(2); EACCES without the capability, ENOSYS on a kernel without filters.
    pub fn install(&self) -> io::Result<()> {
        let len = u16::try_from(self.program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        let program = libc::sock_fprog { len, filter: self.program.as_ptr().cast_mut() };
        // SAFETY: the kernel reads `len` instructions from `filter`, which `self` keeps alive, and writes nothing.
        let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn compile(abis: &[Abi], forgetful: bool) -> Vec<sock_filter> {
    // An architecture that this kernel does not serve cannot come; should it, it finds nothing.
    let mut rest = vec![bpf::ret(UNKNOWN)];
    let mut tokens: Vec<u32> = abis.iter().map(|a| a.token).collect();
    tokens.dedup();
    for token in tokens.into_iter().rev() {
        let mut decisions = BTreeMap::new();
        for abi in abis.iter().filter(|a| a.token == token) {
            decisions.extend(numbers(abi.column, forgetful).map(|(nr, leaf)| (nr + abi.base, leaf)));
        }
        let mut body = vec![bpf::load(bpf::NR)];
        body.extend(bpf::search(&steps(&decisions)));
        rest = bpf::if_equal(token, &body, &rest);
    }
    let mut program = vec![bpf::load(bpf::ARCH)];
    program.extend(rest);
    program
}

/// What to do for one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Return(u32),
    /// Allowed, but not for NETLINK_AUDIT.
    Socket,
    /// Allowed, but not the commands of [`TYPING`].
    Ioctl,
}

impl Leaf {
    fn code(self) -> Vec<sock_filter> {
        match self {
            Leaf::Return(action) => vec![bpf::ret(action)],
            Leaf::Socket => {
                let mut code = vec![bpf::load(bpf::arg_low(0))];
                let allow = [bpf::ret(ALLOW)];
                let mut protocol = vec![bpf::load(bpf::arg_low(2))];
                protocol.extend(bpf::if_equal(NETLINK_AUDIT, &[bpf::ret(NO_AUDIT)], &allow));
                code.extend(bpf::if_equal(libc::AF_NETLINK as u32, &protocol, &allow));
                code
            }
            Leaf::Ioctl => {
                // The kernel takes the command as an unsigned int: a filter that compared all 64 bits would let it pass with
                // a bit set above (CVE-2019-10063, CVE-2023-1523).
                let mut code = vec![bpf::load(bpf::arg_low(1))];
                let refuse =
                    |rest: Vec<sock_filter>, &command: &u32| bpf::if_equal(command, &[bpf::ret(DENIED)], &rest);
                code.extend(TYPING.iter().rev().fold(vec![bpf::ret(ALLOW)], refuse));
                code
            }
        }
    }
}

/// Runs of equal decisions, each with its first number; what is not in `decisions` is unknown.
fn steps(decisions: &BTreeMap<u32, Leaf>) -> Vec<(u32, Vec<sock_filter>)> {
    let unknown = Leaf::Return(UNKNOWN);
    let mut runs = vec![(0, unknown)];
    let mut expected = 0;
    let change = |runs: &mut Vec<(u32, Leaf)>, nr: u32, leaf: Leaf| match runs.last_mut() {
        Some(last) if last.1 == leaf => {}
        Some(last) if last.0 == nr => last.1 = leaf,
        _ => runs.push((nr, leaf)),
    };
    for (&nr, &leaf) in decisions {
        if nr != expected {
            change(&mut runs, expected, unknown);
        }
        change(&mut runs, nr, leaf);
        expected = nr + 1;
    }
    change(&mut runs, expected, unknown);
    runs.into_iter().map(|(first, leaf)| (first, leaf.code())).collect()
}

/// The table's rows that have a number in `column`.
fn numbers(column: &str, forgetful: bool) -> impl Iterator<Item = (u32, Leaf)> {
    let mut lines = TABLE.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    let header = lines.next().unwrap_or_default();
    let at = header.split_ascii_whitespace().position(|c| c == column).unwrap_or(usize::MAX);
    lines.filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        let leaf = match fields.next()? {
            "allow" if name == "socket" => Leaf::Socket,
            "allow" if name == "ioctl" => Leaf::Ioctl,
            "allow" if forgetful && SYNC.contains(&name) => Leaf::Return(IGNORED),
            "allow" => Leaf::Return(ALLOW),
            "eperm" => Leaf::Return(DENIED),
            _ => Leaf::Return(UNKNOWN),
        };
        let nr = fields.nth(at.checked_sub(2)?)?;
        Some((nr.parse().ok()?, leaf))
    })
}

#[cfg(test)]
mod tests {
    use super::bpf::{Call, run};
    use super::*;

    fn ask(machine: &str, abi: Abi, nr: u32, args: [u64; 6]) -> u32 {
        let filter = Filter::for_machine(machine, false).unwrap();
        run(filter.instructions(), &Call { nr: nr + abi.base, arch: abi.token, args }).unwrap()
    }

    #[test]
    fn every_row_is_decided_as_written() {
        for machine in ["x86_64", "aarch64", "riscv64"] {
            let filter = Filter::for_machine(machine, false).unwrap();
            assert!(filter.instructions().len() < 4096, "BPF_MAXINSNS");
            for abi in abis(machine).unwrap() {
                let rows: BTreeMap<_, _> = numbers(abi.column, false).collect();
                assert!(rows.len() > 250, "{}: {}", abi.column, rows.len());
                for nr in (0..1200).chain(0xf0000..0xf0010) {
                    let call = Call { nr: nr + abi.base, arch: abi.token, args: [0; 6] };
                    let want = match rows.get(&nr) {
                        Some(Leaf::Return(action)) => *action,
                        Some(Leaf::Socket | Leaf::Ioctl) => ALLOW,
                        None => UNKNOWN,
                    };
                    assert_eq!(run(filter.instructions(), &call), Some(want), "{} {nr}", abi.column);
                }
            }
        }
        assert!(Filter::for_machine("m68k", false).is_none());
    }

    #[test]
    fn numbers_are_those_of_this_kernel() {
        let rows: BTreeMap<_, _> = numbers(std::env::consts::ARCH, false).collect();
        for nr in [libc::SYS_read, libc::SYS_execve, libc::SYS_openat, libc::SYS_clone3, libc::SYS_faccessat2] {
            assert_eq!(rows[&(nr as u32)], Leaf::Return(ALLOW), "{nr}");
        }
        let denied = [
            libc::SYS_kexec_load,
            libc::SYS_add_key,
            libc::SYS_keyctl,
            libc::SYS_bpf,
            libc::SYS_open_by_handle_at,
            libc::SYS_clock_settime,
            libc::SYS_perf_event_open,
            libc::SYS_init_module,
            libc::SYS_swapon,
        ];
        for nr in denied {
            assert_eq!(rows[&(nr as u32)], Leaf::Return(DENIED), "{nr}");
        }
    }

    #[test]
    fn audit_sockets_do_not_exist() {
        let netlink = libc::AF_NETLINK as u64;
        for (machine, abi, socket) in
            [("x86_64", X86_64, 41), ("x86_64", X32, 41), ("x86_64", I386, 359), ("aarch64", AARCH64, 198)]
        {
            assert_eq!(ask(machine, abi, socket, [netlink, 3, 9, 0, 0, 0]), NO_AUDIT);
            // The kernel takes an int: bits above do not make it another socket.
            assert_eq!(ask(machine, abi, socket, [netlink | 1 << 40, 3, 9 | 1 << 33, 0, 0, 0]), NO_AUDIT);
            assert_eq!(ask(machine, abi, socket, [netlink, 3, 0, 0, 0, 0]), ALLOW);
            assert_eq!(ask(machine, abi, socket, [1, 1, 9, 0, 0, 0]), ALLOW);
        }
    }

    #[test]
    fn nobody_types_into_a_terminal() {
        const TCGETS: u64 = 0x5401;
        // One row per ABI of every machine: the numbers are those of the kernel's own tables, not read from ours.
        for (machine, abi, ioctl) in [
            ("x86_64", X86_64, 16),
            ("x86_64", X32, 514),
            ("x86_64", I386, 54),
            ("aarch64", AARCH64, 29),
            ("aarch64", ARM, 54),
            ("riscv64", RISCV64, 29),
        ] {
            let said = |command: u64| ask(machine, abi, ioctl, [0, command, 0x1000, 0, 0, 0]);
            for command in [libc::TIOCSTI, libc::TIOCLINUX] {
                assert_eq!(said(command), DENIED, "{} {command:#x}", abi.column);
                for above in [1 << 32, 1 << 63, 0xffff_ffff << 32] {
                    assert_eq!(said(command | above), DENIED, "{} {command:#x} {above:#x}", abi.column);
                }
                // The command decides, wherever else its number stands.
                assert_eq!(ask(machine, abi, ioctl, [command, TCGETS, command, 0, 0, 0]), ALLOW, "{}", abi.column);
            }
            for command in [0, TCGETS, libc::TIOCSTI - 1, libc::TIOCSTI + 1, libc::TIOCLINUX + 1, libc::TIOCSTI << 32] {
                assert_eq!(said(command), ALLOW, "{} {command:#x}", abi.column);
            }
        }
        for machine in ["x86_64", "aarch64", "riscv64"] {
            for abi in abis(machine).unwrap() {
                let ioctls = numbers(abi.column, false).filter(|(_, leaf)| *leaf == Leaf::Ioctl).count();
                assert_eq!(ioctls, 1, "{}", abi.column);
            }
        }
    }

    #[test]
    fn who_forgets_does_not_wait_for_the_disk() {
        for machine in ["x86_64", "aarch64", "riscv64"] {
            for abi in abis(machine).unwrap() {
                let (kept, lost) = (numbers(abi.column, false), numbers(abi.column, true));
                let differ: Vec<_> = kept.zip(lost).filter(|(one, two)| one != two).collect();
                // fdatasync, fsync, msync, sync, sync_file_range (or its arm form), syncfs
                assert_eq!(differ.len(), 6, "{}", abi.column);
                assert!(differ.iter().all(|(one, two)| one.1 == Leaf::Return(ALLOW) && two.1 == Leaf::Return(IGNORED)));
            }
        }
    }

    #[test]
    fn a_foreign_token_finds_nothing() {
        let filter = Filter::for_machine("x86_64", false).unwrap();
        let call = Call { nr: 0, arch: AARCH64.token, args: [0; 6] };
        assert_eq!(run(filter.instructions(), &call), Some(UNKNOWN));
        assert_eq!(ask("x86_64", X86_64, u32::MAX, [0; 6]), UNKNOWN, "a number that a tracer wiped");
    }
}
