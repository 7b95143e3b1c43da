//! Where `syscalls.txt` comes from, as a test that is run by hand: it starts a real systemd-nspawn, reads the filters that
//! nspawn installed out of the kernel (PTRACE_SECCOMP_GET_FILTER), asks them about every number of every architecture of
//! this host, and names the numbers with the libseccomp that nspawn itself uses.
//!
//! ```text
//! cargo test --lib sys::seccomp::derive -- --ignored            # is the file still what nspawn does?
//! PRONTO_BLESS=1 cargo test --lib sys::seccomp::derive -- --ignored    # write it anew
//! ```
//!
//! Needs root, systemd-nspawn 252 (a newer one allows some newer calls: read the difference before blessing),
//! libseccomp.so.2 and a kernel with CONFIG_CHECKPOINT_RESTORE. What a newcomer would get wrong: nspawn installs five
//! filters (one per architecture, one more for audit sockets each), and of all their answers the strictest holds.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use libc::sock_filter;

use super::bpf::{Call, run};
use super::{
    AARCH64, ALLOW, ARM, Abi, DENIED, Filter, I386, Leaf, NO_AUDIT, RISCV64, TABLE, TYPING, UNKNOWN, X32, X86_64, abis,
    numbers,
};
use crate::sys::process::Tool;

const COLUMNS: [Abi; 6] = [X86_64, X32, I386, AARCH64, ARM, RISCV64];

/// Calls that no architecture of the deriving host has: from the sets in `systemd-analyze syscall-filter` that nspawn
/// allows (`@default`, `@network-io`) or does not. The two `arm_` ones are `fadvise64_64` and `sync_file_range2`, which it
/// allows, by their other name.
const ONLY_ELSEWHERE: [(&str, &str); 14] = [
    ("arm_fadvise64_64", "allow"),
    ("arm_sync_file_range", "allow"),
    ("breakpoint", "enosys"),
    ("cacheflush", "allow"),
    ("get_tls", "enosys"),
    ("pciconfig_iobase", "eperm"),
    ("pciconfig_read", "eperm"),
    ("pciconfig_write", "eperm"),
    ("recv", "allow"),
    ("riscv_flush_icache", "allow"),
    ("send", "allow"),
    ("set_tls", "allow"),
    ("usr26", "enosys"),
    ("usr32", "enosys"),
];

const HEAD: &str = "\
# What systemd-nspawn's default seccomp filter (systemd 252, its default capabilities) says to every system call, and the
# call's number on each architecture. Derived from a real nspawn by derive.rs, beside this file; do not edit by hand.
# allow: goes through. eperm: a call that nspawn knows and refuses. enosys: as if the kernel had no such call, like every
# number that is not here. Two rules look at arguments: socket(AF_NETLINK, *, NETLINK_AUDIT) gives EAFNOSUPPORT, as under
# nspawn; and ioctl(*, TIOCSTI) and ioctl(*, TIOCLINUX), which nspawn allows, give EPERM.
";

/// Tells what all filters together say: the strictest (lowest, as a signed number) answer holds.
fn verdict(filters: &[Vec<sock_filter>], call: &Call) -> u32 {
    filters.iter().map(|f| run(f, call).unwrap()).min_by_key(|a| (a & libc::SECCOMP_RET_ACTION_FULL) as i32).unwrap()
}

/// The filters of a process; the newest first.
fn filters_of(pid: i32) -> Vec<Vec<sock_filter>> {
    const PTRACE_SECCOMP_GET_FILTER: u32 = 0x420c;
    let target = nix::unistd::Pid::from_raw(pid);
    // SAFETY: no memory is handed over; the traced process is a child of the nspawn started here.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0) }, 0, "{}", std::io::Error::last_os_error());
    nix::sys::wait::waitpid(target, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
    let mut filters = Vec::new();
    loop {
        // SAFETY: with a null buffer the kernel only counts.
        let len = unsafe { libc::ptrace(PTRACE_SECCOMP_GET_FILTER as _, pid, filters.len(), 0) };
        let Ok(len) = usize::try_from(len) else { break };
        let mut program = vec![sock_filter { code: 0, jt: 0, jf: 0, k: 0 }; len];
        // SAFETY: the buffer has room for the `len` instructions that the kernel announced.
        let got = unsafe { libc::ptrace(PTRACE_SECCOMP_GET_FILTER as _, pid, filters.len(), program.as_mut_ptr()) };
        assert_eq!(got, len as i64);
        filters.push(program);
    }
    // SAFETY: as above; the process goes on.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) };
    filters
}

/// Starts nspawn on a tree that borrows the host's /usr and reads its payload's filters.
fn nspawn_filters(more: &[&str]) -> Vec<Vec<sock_filter>> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::fs::create_dir(dir.path().join("usr")).unwrap();
    crate::sys::fs::write_atomic(&dir.path().join("etc/os-release"), b"ID=probe\n", 0o644).unwrap();
    for name in ["bin", "lib", "lib64", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), dir.path().join(name)).unwrap();
    }
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let machine = format!("pronto-derive-{}-{count}", std::process::id());
    let mut tool = Tool::new("systemd-nspawn")
        .args(["-M", &machine, "-q", "--register=no", "--keep-unit", "--pipe", "--bind-ro=/usr"])
        .args(more)
        .arg("-D")
        .arg(dir.path())
        .args(["sleep", "60"]);
    tool.command().stdout(Stdio::null());
    let mut nspawn = tool.spawn().unwrap();
    let payload = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let children = format!("/proc/{0}/task/{0}/children", nspawn.id());
        let children = std::fs::read_to_string(children).ok()?;
        children.split_whitespace().find_map(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name.trim() == "sleep").then(|| pid.parse::<i32>().unwrap())
        })
    });
    let filters = filters_of(payload.expect("nspawn starts sleep"));
    nspawn.kill().unwrap();
    nspawn.wait().unwrap();
    for left in ["propagate", "unix-export"] {
        let _ = std::fs::remove_dir_all(format!("/run/systemd/nspawn/{left}/{machine}"));
    }
    filters
}

/// The name that libseccomp gives to a number.
fn namer() -> impl Fn(u32, u32) -> Option<String> {
    // SAFETY: loading the library that nspawn loads; both strings end with NUL.
    let symbol = unsafe {
        let library = libc::dlopen(c"libseccomp.so.2".as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null(), "libseccomp.so.2 is needed");
        libc::dlsym(library, c"seccomp_syscall_resolve_num_arch".as_ptr())
    };
    assert!(!symbol.is_null());
    // SAFETY: this is the function's type in seccomp.h: char *(uint32_t arch_token, int num).
    let resolve: extern "C" fn(u32, i32) -> *mut libc::c_char = unsafe { std::mem::transmute(symbol) };
    move |token, nr| {
        let name = resolve(token, nr as i32);
        // SAFETY: the result is null or a string of malloc(3)'s that is ours now.
        let name: CString = unsafe { (!name.is_null()).then(|| CStr::from_ptr(name).to_owned())? };
        Some(name.into_string().unwrap())
    }
}

fn all_numbers() -> impl Iterator<Item = u32> {
    (0..1000).chain(0xf_0000..0xf_0010)
}

#[test]
#[ignore = "needs root, systemd-nspawn 252 and libseccomp; run by hand"]
fn the_table_is_what_nspawn_does() {
    let filters = nspawn_filters(&[]);
    let name_of = namer();
    let native = abis(std::env::consts::ARCH).unwrap();
    let mut decision: BTreeMap<String, &str> = ONLY_ELSEWHERE.iter().map(|&(n, d)| (n.to_owned(), d)).collect();
    let mut number: BTreeMap<(String, &str), u32> = BTreeMap::new();
    for abi in COLUMNS {
        // libseccomp has a token of its own for x32.
        let token = if abi == X32 { 0x4000_003e } else { abi.token };
        for nr in all_numbers() {
            let said = verdict(&filters, &Call { nr: nr + abi.base, arch: abi.token, args: [0; 6] });
            let Some(name) = name_of(token, nr + abi.base) else {
                assert!(!native.contains(&abi) || said == UNKNOWN, "{} {nr} has no name but {said:#x}", abi.column);
                continue;
            };
            if native.contains(&abi) {
                let said = match said {
                    ALLOW => "allow",
                    DENIED => "eperm",
                    UNKNOWN => "enosys",
                    other => panic!("{name}: {other:#x}"),
                };
                assert_eq!(*decision.entry(name.clone()).or_insert(said), said, "{name} on {}", abi.column);
            }
            assert_eq!(number.insert((name, abi.column), nr), None);
        }
    }
    let table = render(&decision, &number);
    if std::env::var_os("PRONTO_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/sys/seccomp/syscalls.txt");
        crate::sys::fs::write_atomic(path.as_ref(), table.as_bytes(), 0o644).unwrap();
    } else {
        assert_eq!(table, TABLE);
    }
}

fn render(decision: &BTreeMap<String, &str>, number: &BTreeMap<(String, &str), u32>) -> String {
    let mut table = HEAD.to_owned();
    let mut line = format!("{:<28} {:<8}", "name", "decision");
    COLUMNS.iter().for_each(|c| write!(line, " {:>7}", c.column).unwrap());
    writeln!(table, "{line}").unwrap();
    let mut names: Vec<&String> = number.keys().map(|(name, _)| name).collect();
    names.dedup();
    for name in names {
        let what = decision.get(name).unwrap_or_else(|| panic!("no decision for {name}"));
        let mut line = format!("{name:<28} {what:<8}");
        for abi in COLUMNS {
            let nr = number.get(&(name.clone(), abi.column)).map_or("-".to_owned(), u32::to_string);
            write!(line, " {nr:>7}").unwrap();
        }
        writeln!(table, "{line}").unwrap();
    }
    table
}

#[test]
#[ignore = "needs root, systemd-nspawn 252 and libseccomp; run by hand"]
fn our_filter_answers_as_nspawns() {
    let ours = Filter::for_host().unwrap();
    let theirs = nspawn_filters(&[]);
    let netlink = libc::AF_NETLINK as u64;
    // With a network of its own the guest has CAP_NET_ADMIN too: that changes no decision.
    let plain =
        |filters: &[Vec<sock_filter>]| filters.iter().flatten().map(|i| (i.code, i.jt, i.jf, i.k)).collect::<Vec<_>>();
    assert_eq!(plain(&theirs), plain(&nspawn_filters(&["--private-network"])));
    let typing = TYPING.map(|command| [0, u64::from(command) | 1 << 32, 0, 0, 0, 0]);
    let others = [[0; 6], [netlink, 3, 9, 0, 0, 0], [netlink, 3, 0, 0, 0, 0], [1, 1, 9, 0, 0, 0], [u64::MAX; 6]];
    for abi in abis(std::env::consts::ARCH).unwrap() {
        let ioctl = numbers(abi.column, false).find_map(|(nr, leaf)| (leaf == Leaf::Ioctl).then_some(nr)).unwrap();
        for nr in all_numbers().chain([u32::MAX - abi.base]) {
            for args in typing.into_iter().chain(others) {
                let call = Call { nr: nr + abi.base, arch: abi.token, args };
                let (our, their) = (run(ours.instructions(), &call).unwrap(), verdict(&theirs, &call));
                // On i386 nspawn leaves audit sockets open, since socketcall(2) hides them; we close the direct call.
                let audit = our == NO_AUDIT && *abi == I386;
                // And nspawn lets a guest type into a terminal that it holds.
                let types = our == DENIED && nr == ioctl && typing.contains(&args);
                let stricter = their == ALLOW && (audit || types);
                assert!(our == their || stricter, "{} {nr} {args:?}: {our:#x} for {their:#x}", abi.column);
                assert!(types || nr != ioctl || !typing.contains(&args), "{} {args:?}: {our:#x}", abi.column);
            }
        }
    }
}
