//! What runs in a jail between clone3 and execve, in process 1 and in process 2. Nothing here allocates, locks or panics;
//! what goes wrong is said over the report socket, and then the process ends. What a newcomer would get wrong: the order.
//! The fences come before the fork, so that both processes are behind them; and the command is executed only when process
//! 1 has become the stub, for until then process 1 is a copy of the caller, which no guest may see.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{SAYS_EXEC, SAYS_SETUP, Spec, mounts, stub};

/// What could not be done, and why.
pub struct Failure<'a> {
    pub what: &'a [u8],
    pub errno: i32,
}

pub type Outcome<'a> = Result<(), Failure<'a>>;

pub fn errno() -> i32 {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

pub fn check(what: &str, result: i32) -> Outcome<'_> {
    if result >= 0 { Ok(()) } else { Err(Failure { what: what.as_bytes(), errno: errno() }) }
}

/// A limit of resources: which, soft, hard.
type Limit = (libc::__rlimit_resource_t, libc::rlim_t, libc::rlim_t);

/// nspawn's limits; those that it copies from process 1 of the host are filled in by [`Prepared::new`].
const LIMITS: [Limit; 16] = [
    (libc::RLIMIT_CPU, libc::RLIM_INFINITY, libc::RLIM_INFINITY),
    (libc::RLIMIT_FSIZE, libc::RLIM_INFINITY, libc::RLIM_INFINITY),
    (libc::RLIMIT_DATA, libc::RLIM_INFINITY, libc::RLIM_INFINITY),
    (libc::RLIMIT_STACK, 8 << 20, libc::RLIM_INFINITY),
    (libc::RLIMIT_CORE, 0, libc::RLIM_INFINITY),
    (libc::RLIMIT_RSS, libc::RLIM_INFINITY, libc::RLIM_INFINITY),
    (libc::RLIMIT_NOFILE, 1024, 512 << 10),
    (libc::RLIMIT_MEMLOCK, 8 << 20, 8 << 20),
    (libc::RLIMIT_AS, libc::RLIM_INFINITY, libc::RLIM_INFINITY),
    (libc::RLIMIT_LOCKS, libc::RLIM_INFINITY, libc::RLIM_INFINITY),
    (libc::RLIMIT_MSGQUEUE, 800 << 10, 800 << 10),
    (libc::RLIMIT_NICE, 0, 0),
    (libc::RLIMIT_RTPRIO, 0, 0),
    (libc::RLIMIT_RTTIME, libc::RLIM_INFINITY, libc::RLIM_INFINITY),
    (libc::RLIMIT_NPROC, libc::RLIM_INFINITY, libc::RLIM_INFINITY),
    (libc::RLIMIT_SIGPENDING, libc::RLIM_INFINITY, libc::RLIM_INFINITY),
];

/// The spec and what is derived from it: pointers for execve, descriptors by number.
pub struct Prepared<'a> {
    spec: &'a Spec,
    stub: &'a [u8],
    words: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    init_env: Vec<*const libc::c_char>,
    limits: [Limit; 16],
    /// The caller's ends of the report socket and of the pipe for the ids: to be closed inside.
    outside: [RawFd; 2],
    report: RawFd,
    status: RawFd,
    /// A byte comes when the ids are mapped.
    mapped: RawFd,
}

impl<'a> Prepared<'a> {
    pub fn new(
        spec: &'a Spec,
        stub: &'a [u8],
        outside: [RawFd; 2],
        report: RawFd,
        status: &OwnedFd,
        mapped: &OwnedFd,
    ) -> Prepared<'a> {
        let mut limits = LIMITS;
        for (resource, soft, hard) in &mut limits {
            if *resource == libc::RLIMIT_NPROC || *resource == libc::RLIMIT_SIGPENDING {
                let mut first = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                // SAFETY: the kernel writes the old limits of process 1 to `first` and changes nothing.
                if unsafe { libc::prlimit(1, *resource, ptr::null(), &raw mut first) } == 0 {
                    (*soft, *hard) = (first.rlim_cur, first.rlim_max);
                }
            }
        }
        Prepared {
            spec,
            stub,
            words: pointers(&spec.words),
            env: pointers(&spec.env),
            init_env: pointers(&spec.init_env),
            limits,
            outside,
            report,
            status: status.as_raw_fd(),
            mapped: mapped.as_raw_fd(),
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

/// Process 1.
pub fn first(prepared: &Prepared<'_>) -> ! {
    if let Err(failure) = set_up(prepared) {
        complain(prepared.report, SAYS_SETUP, &failure);
    }
    exit()
}

fn exit() -> ! {
    // SAFETY: ends this process without running anything of the caller's.
    unsafe { libc::_exit(125) }
}

fn complain(report: RawFd, kind: u8, failure: &Failure<'_>) {
    let mut message = [0; 512];
    message[0] = kind;
    message[1..5].copy_from_slice(&failure.errno.to_ne_bytes());
    let len = failure.what.len().min(message.len() - 5);
    message[5..5 + len].copy_from_slice(&failure.what[..len]);
    // SAFETY: a buffer and its length.
    unsafe { libc::send(report, message.as_ptr().cast(), 5 + len, libc::MSG_NOSIGNAL) };
}

fn set_up<'a>(prepared: &'a Prepared<'_>) -> Outcome<'a> {
    let spec = prepared.spec;
    for fd in prepared.outside {
        // SAFETY: a number: the caller's end, of which this process has a copy.
        unsafe { libc::close(fd) };
    }
    if spec.ids.is_some() {
        become_root_inside(prepared)?;
    }
    // After the change of ids, which clears it.
    live_with_the_caller(prepared)?;
    // SAFETY: plain system calls without pointers.
    unsafe {
        check("a session", libc::setsid())?;
        check("a cgroup namespace", libc::unshare(libc::CLONE_NEWCGROUP))?;
        libc::umask(0);
    }
    fresh_keyring();
    let borrowed = mounts::borrow(spec)?;
    if borrowed.registry >= 0 {
        send_descriptor(prepared.report, borrowed.registry, super::SAYS_REGISTRY)?;
        // SAFETY: this process's own descriptor; the caller has it now, and keeps it for the jail's life.
        unsafe { libc::close(borrowed.registry) };
    }
    mounts::enter(spec)?;
    mounts::furnish(spec, &borrowed)?;
    mounts::write_file(mounts::STUB, prepared.stub, 0o500)?;
    // SAFETY: a buffer and its length.
    unsafe { check("the host name", libc::sethostname(spec.hostname.as_ptr(), spec.hostname.count_bytes()))? };
    if spec.private_network {
        loopback_up()?;
    }
    let slave = if spec.terminal { terminal(prepared)? } else { -1 };
    limit(&prepared.limits)?;
    let fenced = spec.filter.install().and_then(|()| super::super::caps::drop_to(spec.caps));
    if let Err(error) = fenced {
        return Err(Failure { what: b"the fences", errno: error.raw_os_error().unwrap_or(libc::EINVAL) });
    }
    let mut gate = [-1; 2];
    // SAFETY: room for two descriptors; then like fork(2): the child runs `second` only, which never returns.
    let command = unsafe {
        check("a gate", libc::pipe2(gate.as_mut_ptr(), libc::O_CLOEXEC))?;
        libc::umask(0o022);
        libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as i32
    };
    check("the command's process", command)?;
    if command == 0 {
        second(prepared, gate, slave);
    }
    if command != stub::COMMAND {
        return Err(Failure { what: b"the command's process", errno: libc::EPROTO });
    }
    become_stub(prepared, gate)
}

/// Waits until the caller has mapped the ids, and becomes the root of the new user namespace.
fn become_root_inside(prepared: &Prepared<'_>) -> Outcome<'static> {
    let what = "the guest's ids";
    // SAFETY: a buffer of one byte; numbers.
    unsafe {
        let mut byte = 0u8;
        let got = loop {
            let got = libc::read(prepared.mapped, (&raw mut byte).cast(), 1);
            if got >= 0 || errno() != libc::EINTR {
                break got;
            }
        };
        if got != 1 {
            exit();
        }
        libc::close(prepared.mapped);
        check(what, libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()) as i32)?;
        check(what, libc::syscall(libc::SYS_setresgid, 0, 0, 0) as i32)?;
        check(what, libc::syscall(libc::SYS_setresuid, 0, 0, 0) as i32)
    }
}

/// Dies with the caller; had it died before that was arranged, its end of the socket is closed already.
fn live_with_the_caller(prepared: &Prepared<'_>) -> Outcome<'static> {
    // SAFETY: numbers, and one pollfd that outlives the call.
    unsafe {
        check("the death signal", libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0))?;
        let mut peer = libc::pollfd { fd: prepared.report, events: 0, revents: 0 };
        if libc::poll(&raw mut peer, 1, 0) == 1 && peer.revents & (libc::POLLHUP | libc::POLLERR) != 0 {
            exit();
        }
    }
    Ok(())
}

/// Gives this process a session keyring of its own: keyrings belong to no namespace, and the caller's may hold keys. nspawn
/// does this too, but below our filter it is refused: call this before [`super::Filter::install`] then. As with nspawn, one
/// goes on where the kernel has no keyrings. Allocates nothing.
pub fn fresh_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: no name: a new anonymous keyring.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0) };
}

fn loopback_up() -> Outcome<'static> {
    // SAFETY: an all-zero ifreq is valid; the kernel reads its name and flags, which are set; the socket is closed here.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check("the loopback device", socket)?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOOPBACK) as libc::c_short;
        let done = libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw mut request);
        libc::close(socket);
        check("the loopback device", done)
    }
}

/// A terminal from the jail's own devpts: the master goes to the caller, the slave stays.
fn terminal<'a>(prepared: &Prepared<'_>) -> Result<RawFd, Failure<'a>> {
    const WHAT: &str = "the terminal";
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: constant paths and an int that the kernel reads; the descriptors are this process's own.
    let slave = unsafe {
        let master = libc::open(c"/dev/pts/ptmx".as_ptr(), flags);
        check(WHAT, master)?;
        let unlock: libc::c_int = 0;
        check(WHAT, libc::ioctl(master, libc::TIOCSPTLCK as _, &raw const unlock))?;
        // The first one of a new devpts is always number 0.
        let slave = libc::open(c"/dev/pts/0".as_ptr(), flags);
        check(WHAT, slave)?;
        check(WHAT, libc::fchown(slave, prepared.spec.uid, u32::MAX))?;
        send_descriptor(prepared.report, master, super::SAYS_TERMINAL)?;
        libc::close(master);
        slave
    };
    mounts::console(c"/dev/pts/0")?;
    Ok(slave)
}

fn send_descriptor(socket: RawFd, fd: RawFd, kind: u8) -> Outcome<'static> {
    /// Room for one control message with one descriptor, aligned as the kernel wants it.
    #[repr(C)]
    struct Control {
        head: libc::cmsghdr,
        fd: RawFd,
        padding: i32,
    }
    let mut said = [kind];
    let mut part = libc::iovec { iov_base: said.as_mut_ptr().cast(), iov_len: said.len() };
    // SAFETY: all zeros is valid for these plain structures; every pointer below leads to a local that outlives the call.
    unsafe {
        let mut control: Control = std::mem::zeroed();
        control.head.cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        control.head.cmsg_level = libc::SOL_SOCKET;
        control.head.cmsg_type = libc::SCM_RIGHTS;
        control.fd = fd;
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
        check("a descriptor for the caller", libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) as i32)
    }
}

/// Sets the limits; where the caller may not raise a hard one, its own stays, as with nspawn.
fn limit(limits: &[Limit]) -> Outcome<'static> {
    for &(resource, soft, hard) in limits {
        let wanted = libc::rlimit { rlim_cur: soft.min(hard), rlim_max: hard };
        let mut had = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both structures outlive the calls.
        unsafe {
            if libc::setrlimit(resource, &raw const wanted) != 0 {
                check("resource limits", libc::getrlimit(resource, &raw mut had))?;
                let less = libc::rlimit { rlim_cur: soft.min(had.rlim_max), rlim_max: hard.min(had.rlim_max) };
                check("resource limits", libc::setrlimit(resource, &raw const less))?;
            }
        }
    }
    Ok(())
}

/// Process 1 executes the stub, which keeps nothing open but the status pipe.
fn become_stub(prepared: &Prepared<'_>, gate: [RawFd; 2]) -> Outcome<'static> {
    const WHAT: &str = "the first process";
    const ABOVE: RawFd = stub::STATUS_FD + 1;
    let words = [c"jail-init".as_ptr(), ptr::null()];
    // SAFETY: descriptors of this process only, and null-ended arrays of strings that end with NUL.
    unsafe {
        // Copies that the stub's descriptor cannot overwrite.
        let report = libc::fcntl(prepared.report, libc::F_DUPFD_CLOEXEC, ABOVE);
        check(WHAT, report)?;
        check(WHAT, libc::fcntl(gate[1], libc::F_DUPFD_CLOEXEC, ABOVE))?;
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        check(WHAT, null)?;
        for standard in 0..3 {
            check(WHAT, libc::dup2(null, standard))?;
        }
        if prepared.status == stub::STATUS_FD {
            check(WHAT, libc::fcntl(stub::STATUS_FD, libc::F_SETFD, 0))?;
        } else {
            check(WHAT, libc::dup2(prepared.status, stub::STATUS_FD))?;
        }
        check(WHAT, libc::syscall(libc::SYS_close_range, ABOVE, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) as i32)?;
        libc::execve(mounts::STUB.as_ptr(), words.as_ptr(), prepared.init_env.as_ptr());
        complain(report, SAYS_SETUP, &Failure { what: WHAT.as_bytes(), errno: errno() });
    }
    exit()
}

/// Process 2.
fn second(prepared: &Prepared<'_>, gate: [RawFd; 2], slave: RawFd) -> ! {
    match become_command(prepared, gate, slave) {
        Err(failure) => complain(prepared.report, SAYS_SETUP, &failure),
        Ok(errno) => complain(prepared.report, SAYS_EXEC, &Failure { what: b"", errno }),
    }
    exit()
}

/// Returns only when the command could not be executed, with execve's errno.
fn become_command<'a>(prepared: &'a Prepared<'_>, gate: [RawFd; 2], slave: RawFd) -> Result<i32, Failure<'a>> {
    let spec = prepared.spec;
    // SAFETY: descriptors of this process, a buffer of one byte, constant strings.
    unsafe {
        libc::close(gate[1]);
        libc::close(prepared.status);
        let mut byte = 0u8;
        // End of file: process 1 has executed the stub (or has ended, and then this process ends with it).
        while libc::read(gate[0], (&raw mut byte).cast(), 1) < 0 && errno() == libc::EINTR {}
        libc::unlink(mounts::STUB.as_ptr());
        check("a session", libc::setsid())?;
        if slave >= 0 {
            check("the terminal", libc::ioctl(slave, libc::TIOCSCTTY as _, 0))?;
            for standard in 0..3 {
                check("the terminal", libc::dup2(slave, standard))?;
            }
        }
    }
    for (index, dir) in spec.workdir.iter().enumerate() {
        mounts::make_dir(dir, 0o755)?;
        if index + 1 == spec.workdir.len() {
            // SAFETY: a string that ends with NUL. As root: the user may not be able to enter what leads there.
            check_dir(dir, unsafe { libc::chdir(dir.as_ptr()) })?;
        }
    }
    become_user(spec)?;
    default_signals();
    // SAFETY: numbers only: nothing but 0 to 2 goes into the command.
    unsafe {
        let done = libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        check("the command's descriptors", done as i32)?;
    }
    Ok(execute(prepared))
}

fn check_dir(path: &CStr, result: i32) -> Outcome<'_> {
    if result == 0 { Ok(()) } else { Err(Failure { what: path.to_bytes(), errno: errno() }) }
}

/// By system call: libc's setuid(2) would signal the threads that the caller had and this copy of it has not.
fn become_user(spec: &Spec) -> Outcome<'static> {
    let what = "the user";
    // SAFETY: the list's pointer and length; numbers.
    unsafe {
        check(what, libc::syscall(libc::SYS_setgroups, spec.groups.len(), spec.groups.as_ptr()) as i32)?;
        check(what, libc::syscall(libc::SYS_setresgid, spec.gid, spec.gid, spec.gid) as i32)?;
        check(what, libc::syscall(libc::SYS_setresuid, spec.uid, spec.uid, spec.uid) as i32)
    }
}

/// Ignored signals and the mask would outlive execve: Rust programs ignore SIGPIPE, for one. By system call: libc keeps two
/// real-time signals for itself and would leave them as they are.
fn default_signals() {
    // An all-zero `struct sigaction` of the kernel's: SIG_DFL, no flags, an empty mask.
    let default = [0u64; 4];
    let none = 0u64;
    // SAFETY: the kernel reads both; SIGKILL and SIGSTOP answer EINVAL, which is fine: they are never ignored.
    unsafe {
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, size_of_val(&none));
        }
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0, size_of_val(&none));
    }
}

/// As execvp(3) goes over PATH: what is not there or may not be executed is passed over, and the latter remembered.
fn execute(prepared: &Prepared<'_>) -> i32 {
    let mut answer = libc::ENOENT;
    for program in &prepared.spec.programs {
        // SAFETY: null-ended arrays of strings that end with NUL, all alive.
        unsafe { libc::execve(program.as_ptr(), prepared.words.as_ptr(), prepared.env.as_ptr()) };
        match errno() {
            libc::EACCES => answer = libc::EACCES,
            libc::ENOENT | libc::ENOTDIR => {}
            other => return other,
        }
    }
    answer
}
