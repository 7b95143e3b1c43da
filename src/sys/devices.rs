//! Which devices the processes of a cgroup may open or make: nspawn's list. A guest's root has CAP_MKNOD and
//! CAP_SYS_ADMIN, so it can make a node of the host's disk, or mount devtmpfs; this is what keeps it from opening one.
//!
//! What a newcomer would get wrong: on cgroup v2 there is no file to write, the policy is an eBPF program attached to the
//! directory, and it holds for the whole subtree; on v1 a group may widen its own list up to its parent's, so restrict a
//! parent that the guest cannot see (its cgroup namespace starts below). Source: systemd's `DevicePolicy=closed` and
//! systemd-nspawn@.service, Documentation/admin-guide/cgroup-v1/devices.rst, bpf(2), `struct bpf_cgroup_dev_ctx`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Character or block device; the values are `BPF_DEVCG_DEV_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A block device.
    Block = 1,
    /// A character device.
    Char = 2,
}

const MAKE: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MAKE | READ | WRITE;

/// One line of the list: what may be done with one device, or with all minors of a major number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    kind: Kind,
    major: u32,
    minor: Option<u32>,
    /// `BPF_DEVCG_ACC_*`.
    access: u8,
}

impl Rule {
    /// Lets a device be opened, but not made: what nspawn adds for a device node that the user binds into a guest.
    pub const fn open(kind: Kind, major: u32, minor: u32, read_only: bool) -> Rule {
        Rule { kind, major, minor: Some(minor), access: if read_only { READ } else { READ | WRITE } }
    }

    /// A line for v1's `devices.allow`.
    fn line(&self) -> String {
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        let minor = self.minor.map_or("*".to_owned(), |m| m.to_string());
        let access: String = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')]
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|x| x.1)
            .collect();
        format!("{kind} {}:{minor} {access}", self.major)
    }
}

const fn char_device(major: u32, minor: u32) -> Rule {
    Rule { kind: Kind::Char, major, minor: Some(minor), access: ALL }
}

/// nspawn's list. `DevicePolicy=closed` is the first nine and rw for terminals; nspawn adds those again and `/dev/net/tun`.
pub const NSPAWN: [Rule; 11] = [
    char_device(1, 3),                                                        // null
    char_device(1, 5),                                                        // zero
    char_device(1, 7),                                                        // full
    char_device(1, 8),                                                        // random
    char_device(1, 9),                                                        // urandom
    char_device(5, 0),                                                        // tty
    char_device(5, 2),                                                        // ptmx
    char_device(0, 0), // no driver: systemd's /run/systemd/inaccessible/chr, overlayfs' whiteouts
    Rule { kind: Kind::Block, major: 0, minor: Some(0), access: ALL }, // no driver: …/inaccessible/blk
    Rule { kind: Kind::Char, major: 136, minor: None, access: READ | WRITE }, // pts: to use, never to make
    char_device(10, 200), // net/tun
];

/// Closes a cgroup v2 directory to all devices but [`NSPAWN`]'s and `more`: for all processes in it and below, those to
/// come too. Errors: as bpf(2); EPERM without CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN), ENOSYS or EINVAL on a kernel
/// without CONFIG_CGROUP_BPF, EBADF when the descriptor is no cgroup2 directory.
pub fn restrict_v2(cgroup: BorrowedFd<'_>, more: &[Rule]) -> io::Result<()> {
    let program = load(&compile(NSPAWN.iter().chain(more)))?;
    let attach = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        // Beside what systemd may have attached; every program must say yes. Without this flag a second attach replaces.
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attach)?;
    Ok(())
}

/// The same for a directory in a v1 `devices` hierarchy, which must have no children yet. What its parent does not allow stays
/// closed (inside a container, for example). Errors: as open(2) and write(2); EINVAL where there is a child.
pub fn restrict_v1(dir: &Path, more: &[Rule]) -> io::Result<()> {
    let write =
        |file: &str, line: &str| OpenOptions::new().write(true).open(dir.join(file))?.write_all(line.as_bytes());
    write("devices.deny", "a")?;
    NSPAWN.iter().chain(more).try_for_each(|rule| match write("devices.allow", &rule.line()) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    })
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u8,
    /// Destination register in the low four bits, source in the high ones (the other way round on big endian).
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn registers(destination: u8, source: u8) -> u8 {
    if cfg!(target_endian = "big") { destination << 4 | source } else { source << 4 | destination }
}

const fn load_word(destination: u8, base: u8, offset: i16) -> Insn {
    Insn { code: 0x61, registers: registers(destination, base), offset, immediate: 0 }
}

const fn immediate(code: u8, destination: u8, offset: i16, immediate: u32) -> Insn {
    Insn { code, registers: registers(destination, 0), offset, immediate: immediate as i32 }
}

const fn between(code: u8, destination: u8, source: u8, offset: i16) -> Insn {
    Insn { code, registers: registers(destination, source), offset, immediate: 0 }
}

const MOV: u8 = 0xb7;
const MOV_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const IF_NOT_EQUAL: u8 = 0x55;
const IF_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: Insn = Insn { code: 0x95, registers: 0, offset: 0, immediate: 0 };

/// The program: r1 is the context `{ u32 access_type (access << 16 | kind), major, minor }`; 1 in r0 allows.
fn compile<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<Insn> {
    let (kind, access, major, minor, scratch) = (2, 3, 4, 5, 0);
    let mut program = vec![
        load_word(kind, 1, 0),
        between(MOV_REGISTER, access, kind, 0),
        immediate(SHIFT_RIGHT, access, 0, 16),
        immediate(AND, kind, 0, 0xffff),
        load_word(major, 1, 4),
        load_word(minor, 1, 8),
    ];
    for rule in rules {
        let mut test = vec![(IF_NOT_EQUAL, kind, rule.kind as u32), (IF_NOT_EQUAL, major, rule.major)];
        test.extend(rule.minor.map(|m| (IF_NOT_EQUAL, minor, m)));
        let some_access = rule.access != ALL;
        // How many instructions are left of this rule: each test jumps over them to the next rule.
        let mut left = test.len() as i16 + if some_access { 3 } else { 0 } + 2;
        for (code, register, value) in test {
            left -= 1;
            program.push(immediate(code, register, left, value));
        }
        if some_access {
            program.push(between(MOV_REGISTER, scratch, access, 0));
            program.push(immediate(AND, scratch, 0, rule.access.into()));
            program.push(between(IF_NOT_EQUAL_REGISTER, scratch, access, 2));
        }
        program.push(immediate(MOV, 0, 0, 1));
        program.push(EXIT);
    }
    program.push(immediate(MOV, 0, 0, 0));
    program.push(EXIT);
    program
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_ATTACH: libc::c_long = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The beginning of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

fn load(program: &[Insn]) -> io::Result<OwnedFd> {
    let attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"pronto_devices\0\0",
    };
    let fd = bpf(BPF_PROG_LOAD, &attr)?;
    // SAFETY: BPF_PROG_LOAD returned a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is a prefix of union bpf_attr of the size given; what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Whether `dir` lies on a cgroup v2 file system.
pub fn is_v2(dir: &impl AsFd) -> bool {
    nix::sys::statfs::fstatfs(dir).is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn allows(program: &[Insn], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
        let context = [u64::from(access) << 16 | kind as u64, major.into(), minor.into()];
        let mut r = [0u64; 11];
        let mut pc = 0usize;
        loop {
            let i = program[pc];
            let (low, high) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let (d, s) = if cfg!(target_endian = "big") { (high, low) } else { (low, high) };
            pc += 1;
            match i.code {
                0x61 => r[d] = context[i.offset as usize / 4],
                MOV => r[d] = i.immediate as u64,
                MOV_REGISTER => r[d] = r[s],
                AND => r[d] &= i.immediate as u64,
                SHIFT_RIGHT => r[d] >>= i.immediate,
                IF_NOT_EQUAL if r[d] != i.immediate as u64 => pc += i.offset as usize,
                IF_NOT_EQUAL_REGISTER if r[d] != r[s] => pc += i.offset as usize,
                IF_NOT_EQUAL | IF_NOT_EQUAL_REGISTER => {}
                0x95 => return r[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn the_list_is_nspawns() {
        let disk = Rule::open(Kind::Block, 8, 1, true);
        let program = compile(NSPAWN.iter().chain([&disk]));
        for (kind, access, major, minor, want) in [
            (Kind::Char, ALL, 1, 3, true),
            (Kind::Char, READ, 1, 3, true),
            (Kind::Block, READ, 1, 3, false),
            (Kind::Char, READ, 1, 1, false),            // mem
            (Kind::Char, READ, 1, 11, false),           // kmsg
            (Kind::Char, READ | WRITE, 136, 77, true),  // a terminal
            (Kind::Char, MAKE, 136, 77, false),         // but not to make one
            (Kind::Char, READ | WRITE, 10, 200, true),  // tun
            (Kind::Char, READ | WRITE, 10, 232, false), // kvm
            (Kind::Char, READ | WRITE, 10, 229, false), // fuse
            (Kind::Block, READ, 254, 0, false),         // a disk
            (Kind::Block, MAKE, 254, 0, false),
            (Kind::Block, READ, 8, 1, true),
            (Kind::Block, READ | WRITE, 8, 1, false),
            (Kind::Block, READ, 8, 0, false),
            (Kind::Char, READ, 5, 1, false), // the host's console
        ] {
            assert_eq!(allows(&program, kind, access, major, minor), want, "{kind:?} {access} {major}:{minor}");
        }
        let lines: Vec<String> = NSPAWN.iter().map(Rule::line).collect();
        assert_eq!((&*lines[0], &*lines[9], &*disk.line()), ("c 1:3 rwm", "c 136:* rw", "b 8:1 r"));
    }

    /// A cgroup of our own below the v2 tree, or none where there is no such tree for us.
    fn cgroup() -> Option<std::path::PathBuf> {
        ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].iter().find_map(|top| {
            let dir = Path::new(top).join(format!("pronto-test-devices-{}", std::process::id()));
            let held = std::fs::File::open(top).is_ok_and(|f| is_v2(&f));
            (held && std::fs::create_dir(&dir).is_ok()).then_some(dir)
        })
    }

    #[test]
    fn the_kernel_takes_the_program_and_closes_the_disk() {
        use crate::sys::process::Tool;
        let Some(dir) = cgroup() else { return };
        let fd = std::fs::File::open(&dir).unwrap();
        restrict_v2(fd.as_fd(), &[]).unwrap();
        let node = tempfile::tempdir().unwrap();
        // The shell joins the cgroup and then tries; `%` marks what was allowed.
        let script = format!(
            "echo $$ > {}/cgroup.procs; : < /dev/null && echo %null; cd {}; \
             mknod n c 1 3 && echo %make-null; mknod d b 254 0 && echo %make-disk; mknod k c 1 11 && echo %make-kmsg; exit 0",
            dir.display(),
            node.path().display(),
        );
        let said = Tool::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), "%null\n%make-null\n");
        std::fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn v1_lists_are_written() {
        use crate::sys::process::Tool;
        let top = Path::new("/sys/fs/cgroup/devices");
        let dir = top.join(format!("pronto-test-devices-{}", std::process::id()));
        if !top.join("devices.allow").exists() || std::fs::create_dir(&dir).is_err() {
            let why = b"skipped: needs root and a hierarchy 'devices' of cgroup v1\n";
            let _ = io::stderr().write_all(why);
            return;
        }
        let list = |dir: &Path| {
            let list = Tool::new("cat").arg(dir.join("devices.list")).output().unwrap();
            let mut list: Vec<String> = String::from_utf8(list).unwrap().lines().map(str::to_owned).collect();
            list.sort_unstable();
            list
        };
        restrict_v1(&dir, &[Rule::open(Kind::Block, 8, 1, true)]).unwrap();
        let mut want: Vec<String> = NSPAWN.iter().map(Rule::line).chain(["b 8:1 r".to_owned()]).collect();
        want.sort_unstable();
        assert_eq!(list(&dir), want);
        assert!(restrict_v1(&dir, &[]).is_ok() && std::fs::create_dir(dir.join("below")).is_ok());
        // What the parent has not is left out without a word, and who has children is refused.
        restrict_v1(&dir.join("below"), &[Rule::open(Kind::Block, 8, 1, true)]).unwrap();
        want.retain(|line| line != "b 8:1 r");
        assert_eq!(list(&dir.join("below")), want);
        assert_eq!(restrict_v1(&dir, &[]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        std::fs::remove_dir(dir.join("below")).unwrap();
        std::fs::remove_dir(&dir).unwrap();
    }
}
