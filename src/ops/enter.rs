//! `pronto __enter`: the process that goes into a running guest and starts one command there. It is a sealed copy of this
//! program in memory, so that a guest that gets at `/proc/PID/exe` of ours finds nothing of the host's.
//!
//! ```text
//! client ──socket──▶ __enter (in the guest's namespaces but its pid namespace) ──fork──▶ the command (in all of them)
//! ```
//!
//! What a newcomer would get wrong: the cgroup is joined before the namespaces (afterwards the host's tree is out of sight),
//! and the command gets the guest init's bounding set and a system call filter: what is put into a guest is fenced like it.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};

use crate::domain::accel::PLACE;
use crate::domain::passwd::{self, Account};
use crate::store::domains::Run;
use crate::sys::caps::{self, Sets};
use crate::sys::cgroup::{self, Hierarchies};
use crate::sys::seccomp::Filter;
use crate::sys::{lock, mount, ns, process, pty, signal, sock, systemd_bus};

/// What shall be run, and where. Bytes are kept as they are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Order {
    /// The guest's init, as the host sees it.
    pub leader: i32,
    /// Its start time: another process with its PID is not it.
    pub leader_start: u64,
    /// The command.
    pub words: Vec<OsString>,
    /// More variables.
    pub env: Vec<(OsString, OsString)>,
    /// `user[:group]` of the guest's.
    pub user: Option<String>,
    /// Where it starts.
    pub workdir: Option<String>,
    /// A terminal of the guest's, with rows and columns.
    pub tty: Option<(u16, u16)>,
    /// The client's TERM.
    pub term: Option<OsString>,
    /// Nothing will be left of the guest: the command need not wait for the disk.
    pub forgetful: bool,
    /// Run nothing, but ask systemd whether units have failed: the status is 0 when none has.
    pub ask: bool,
    /// Nothing native: the command and all that it starts are emulated.
    #[serde(default)]
    pub emulated: bool,
}

impl Order {
    /// Nothing yet, to the guest of this run.
    pub fn to(run: &Run) -> Order {
        Order { leader: run.leader, leader_start: run.leader_start, forgetful: run.forgetful, ..Order::default() }
    }
}

/// What is said back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The terminal follows as a descriptor.
    Terminal,
    /// The command begins, as this process of the guest's pid namespace.
    Began(i32),
    /// The command has ended with this status, as a shell shows it.
    Exit(u8),
    /// It could not be started: why, and docker's code (125, 126, 127).
    Failed(String, u8),
}

/// What the client says while the command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Say {
    /// Send this signal to the command.
    Signal(i32),
}

/// Runs `__enter SOCKET-FD`.
pub fn main(words: &[OsString]) -> u8 {
    let number = words.first().and_then(|w| w.to_str()).and_then(|w| w.parse().ok());
    let Some(Ok(fd)) = number.map(lock::inherited) else { return 125 };
    let mut socket = UnixStream::from(fd);
    let answer = match serve(&mut socket) {
        Ok(status) => Answer::Exit(status),
        Err((why, code)) => Answer::Failed(why, code),
    };
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    let _ = socket.write_all(&line);
    0
}

/// How long systemd may take to say how many units have failed, in seconds; a slower one is asked by `systemctl`.
const LONGEST_ANSWER: u32 = 3;

type Failure = (String, u8);

fn fault(what: &str) -> impl Fn(io::Error) -> Failure + '_ {
    move |e| (format!("{what}: {e}"), 125)
}

fn serve(socket: &mut UnixStream) -> Result<u8, Failure> {
    let order = read_order(socket).map_err(fault("cannot read what to run"))?;
    let entered = Entered::go_in(&order)?;
    let mut terminal = None;
    if let Some((rows, columns)) = order.tty {
        let (controller, guest_side) = guest_pty().map_err(fault("cannot open a terminal in the guest"))?;
        let _ = pty::set_size(controller.as_fd(), rows, columns);
        let mut line = serde_json::to_vec(&Answer::Terminal).unwrap_or_default();
        line.push(b'\n');
        socket.write_all(&line).and_then(|()| sock::send_fd(socket, controller.as_fd())).map_err(fault("terminal"))?;
        terminal = Some(guest_side);
    }
    let (mut reader, writer) = crate::sys::process::pipe().map_err(fault("pipe"))?;
    let mut teller = socket.try_clone().map_err(fault("socket"))?;
    let process = ns::spawn(CloneFlags::empty(), move || {
        if order.ask {
            // The parent waits for its end before it attends to this process.
            drop(writer);
            return i32::from(!entered.nothing_failed());
        }
        let mut line = serde_json::to_vec(&Answer::Began(std::process::id() as i32)).unwrap_or_default();
        line.push(b'\n');
        let _ = teller.write_all(&line);
        let (why, code) = entered.become_command(&order, terminal.as_ref());
        let mut writer = writer;
        let _ = writer.write_all(&[code]).and_then(|()| writer.write_all(why.as_bytes()));
        i32::from(code)
    })
    .map_err(fault("cannot fork"))?;
    let mut why = Vec::new();
    reader.read_to_end(&mut why).map_err(fault("pipe"))?;
    if let Some((&code, text)) = why.split_first() {
        let _ = process.wait();
        return Err((String::from_utf8_lossy(text).into_owned(), code));
    }
    attend(socket, &process).map_err(fault("cannot wait for the command"))
}

fn read_order(socket: &mut UnixStream) -> io::Result<Order> {
    // One line; nothing else may be read from the socket, so byte by byte would be safe and slow: the length comes first.
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut text = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Writes an order so that [`main`] reads it.
pub fn write_order(socket: &mut UnixStream, order: &Order) -> io::Result<()> {
    let text = serde_json::to_vec(order)?;
    let length = u32::try_from(text.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    socket.write_all(&length.to_be_bytes())?;
    socket.write_all(&text)
}

/// Waits for the command, and ends it when the client has gone or says so.
fn attend(socket: &mut UnixStream, process: &ns::Process) -> io::Result<u8> {
    let mut said = BufReader::new(socket.try_clone()?);
    let mut doomed: Option<Instant> = None;
    let mut client = true;
    let mut ending = false;
    loop {
        let mut fds = vec![(process.fd.as_fd(), false)];
        if client {
            fds.push((socket.as_fd(), false));
        }
        let ready = sock::poll(&fds, if doomed.is_some() { 50 } else { -1 })?;
        if ready[0] {
            let status = ns::shell_status(process.wait()?);
            // What the command started and left behind goes with it when its client was told to end: a shell's background
            // job, for one, ignores the signal that ended the shell.
            if ending {
                signal_group(process, libc::SIGKILL);
            }
            return Ok(u8::try_from(status).unwrap_or(255));
        }
        if ready.get(1) == Some(&true) {
            let mut line = String::new();
            match said.read_line(&mut line) {
                Ok(n) if n > 0 => {
                    if let Ok(Say::Signal(number)) = serde_json::from_str(&line) {
                        signal_group(process, number);
                        ending = true;
                    }
                }
                _ => {
                    client = false;
                    ending = true;
                    signal_group(process, libc::SIGHUP);
                    doomed = Some(Instant::now() + Duration::from_millis(700));
                }
            }
        }
        if doomed.is_some_and(|d| Instant::now() >= d) {
            signal_group(process, libc::SIGKILL);
            process.signal(libc::SIGKILL)?;
        }
    }
}

/// The command is the leader of a session of its own, so its process group is its PID.
fn signal_group(process: &ns::Process, number: i32) {
    if let Ok(signal) = nix::sys::signal::Signal::try_from(number) {
        let _ = nix::sys::signal::killpg(process.pid, signal);
    }
}

/// This process, in the guest's namespaces (its pid namespace counts for children).
struct Entered {
    fence: Option<Filter>,
    keep: caps::Mask,
}

impl Entered {
    fn go_in(order: &Order) -> Result<Entered, Failure> {
        let gone = || ("the guest has ended".to_owned(), 125);
        let pidfd = ns::pidfd(order.leader).map_err(|_| gone())?;
        if ns::start_time(order.leader) != Some(order.leader_start) {
            return Err(gone());
        }
        let keep = Sets::of(order.leader).map_err(fault("cannot read the guest's capabilities"))?.bounding;
        let here = Hierarchies::here();
        cgroup::join_like(&here, std::process::id(), order.leader).map_err(fault("cannot join the guest's cgroup"))?;
        let namespaces = namespaces_unlike_ours(order.leader);
        ns::enter(pidfd.as_fd(), namespaces).map_err(fault("cannot enter the guest"))?;
        if namespaces.contains(CloneFlags::CLONE_NEWUSER) {
            // The host's root has no number in there; the guest's root has all that is left to do.
            become_root_inside().map_err(|e| fault("cannot become the guest's root")(e.into()))?;
        }
        if order.emulated {
            mount::cover(Path::new(PLACE)).map_err(fault("cannot hide the native programs"))?;
        }
        Ok(Entered { fence: Filter::of(order.forgetful && !process::streams_are_stored()), keep })
    }

    /// Runs in the child: whether systemd says that no unit has failed. Who answers may be anybody, so this is fenced as a command would be,
    /// and a signal ends it however slow they are.
    fn nothing_failed(&self) -> bool {
        let _ = nix::unistd::setsid();
        nix::unistd::alarm::set(LONGEST_ANSWER);
        let fenced = account(None).and_then(|root| self.lower(&root));
        fenced.is_ok() && matches!(systemd_bus::failed_units(), Ok(0))
    }

    /// Runs in the child; returns only what went wrong, with docker's code.
    fn become_command(self, order: &Order, terminal: Option<&OwnedFd>) -> Failure {
        match self.prepare(order, terminal) {
            Ok((program, words, env)) => match nix::unistd::execve(&program, &words, &env) {
                Err(e) => cannot_execute(&order.words[0], e),
                Ok(never) => match never {},
            },
            Err(failure) => failure,
        }
    }

    fn prepare(
        &self,
        order: &Order,
        terminal: Option<&OwnedFd>,
    ) -> Result<(CString, Vec<CString>, Vec<CString>), Failure> {
        let account = account(order.user.as_deref())?;
        match terminal {
            Some(terminal) => {
                pty::make_controlling(terminal.as_fd()).map_err(fault("cannot take the terminal"))?;
                for number in 0..=2 {
                    pty::put_at(terminal.as_fd(), number).map_err(fault("terminal"))?;
                }
                let owner = (nix::unistd::Uid::from_raw(account.uid), nix::unistd::Gid::from_raw(5));
                let _ = nix::unistd::fchown(terminal, Some(owner.0), Some(owner.1));
            }
            None => drop(nix::unistd::setsid()),
        }
        let env = environment(order, &account);
        let path = env.iter().find(|(n, _)| n == "PATH").map(|(_, v)| v.clone()).unwrap_or_default();
        let home = if account.home.as_os_str().is_empty() { Path::new("/") } else { account.home.as_path() };
        let dir = order.workdir.as_ref().map_or(home, Path::new);
        if let Err(e) = std::env::set_current_dir(dir) {
            if order.workdir.is_some() {
                return Err((format!("cannot change to directory '{}': {e}", dir.display()), 126));
            }
            let _ = std::env::set_current_dir("/");
        }
        self.lower(&account)?;
        let program = find(&order.words[0], &path)?;
        let nul = |_| ("a NUL byte in the command or its environment".to_owned(), 126);
        let words = order.words.iter().map(|w| CString::new(w.as_bytes())).collect::<Result<_, _>>().map_err(nul)?;
        let joined = env.iter().map(|(n, v)| [n.as_bytes(), b"=", v.as_bytes()].concat());
        let env = joined.map(CString::new).collect::<Result<_, _>>().map_err(nul)?;
        // Everything but 0 to 2 stays outside; the pipe for bad news closes itself with the exec.
        ns::cloexec_from(3).map_err(fault("descriptors"))?;
        Ok((CString::new(program.into_os_string().into_vec()).map_err(nul)?, words, env))
    }

    /// Gives up what the guest's init does not have, and then root, if it is to be somebody else.
    fn lower(&self, account: &Account) -> Result<(), Failure> {
        use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
        signal::reset();
        if let Some(fence) = &self.fence {
            fence.install().map_err(fault("cannot install the system call filter"))?;
        }
        let groups: Vec<Gid> = account.groups.iter().map(|&g| Gid::from_raw(g)).collect();
        let become_user = || -> nix::Result<()> {
            setgroups(&groups)?;
            setgid(Gid::from_raw(account.gid))
        };
        become_user().map_err(|e| fault("cannot take the user's groups")(e.into()))?;
        caps::drop_to(self.keep).map_err(fault("cannot give up capabilities"))?;
        if account.uid != 0 {
            setuid(Uid::from_raw(account.uid)).map_err(|e| fault("cannot become the user")(e.into()))?;
        }
        // Changing the user has cleared it (prctl(2)).
        let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
        Ok(())
    }
}

fn become_root_inside() -> nix::Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)
}

/// The namespaces in which `leader` is not with us: setns(2) refuses a user namespace that one is in already.
fn namespaces_unlike_ours(leader: i32) -> CloneFlags {
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("net", CloneFlags::CLONE_NEWNET),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ];
    let link = |who: &str, kind: &str| std::fs::read_link(format!("/proc/{who}/ns/{kind}")).ok();
    let differs = |kind: &str| link("self", kind) != link(&leader.to_string(), kind);
    kinds.into_iter().filter(|(kind, _)| differs(kind)).map(|(_, flag)| flag).collect()
}

/// A terminal out of the guest's own devpts: its name means the same inside.
fn guest_pty() -> io::Result<(OwnedFd, OwnedFd)> {
    let controller = File::options().read(true).write(true).open("/dev/pts/ptmx")?;
    let guest_side = pty::unlocked_peer(controller.as_fd())?;
    Ok((controller.into(), guest_side))
}

fn account(user: Option<&str>) -> Result<Account, Failure> {
    let read = |path| std::fs::read(path).unwrap_or_default();
    let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
    passwd::resolve(user.unwrap_or("root"), &passwd, &group).map_err(|e| (e.to_string(), 126)).or_else(|failure| {
        // A guest without a passwd file has a root all the same.
        if user.is_none() { passwd::resolve("0", &passwd, &group).map_err(|_| failure) } else { Err(failure) }
    })
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn environment(order: &Order, account: &Account) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), PATH.into()),
        ("HOME".into(), account.home.clone().into_os_string()),
        ("SHELL".into(), account.shell.clone().into_os_string()),
    ];
    if let Some(name) = &account.name {
        env.push(("USER".into(), name.clone()));
        env.push(("LOGNAME".into(), name.clone()));
    }
    if order.tty.is_some() {
        env.push(("TERM".into(), order.term.clone().unwrap_or_else(|| "xterm".into())));
    }
    for (name, value) in &order.env {
        env.retain(|(n, _)| n != name);
        env.push((name.clone(), value.clone()));
    }
    env
}

/// Looks a command up as execvp(3), with `path` from the command's own environment.
fn find(word: &OsString, path: &std::ffi::OsStr) -> Result<PathBuf, Failure> {
    if word.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(word));
    }
    let mut denied = None;
    for dir in std::env::split_paths(path) {
        let candidate = dir.join(word);
        match nix::unistd::access(&candidate, nix::unistd::AccessFlags::X_OK) {
            Ok(()) if candidate.is_file() => return Ok(candidate),
            Err(nix::errno::Errno::EACCES) => denied = Some(candidate),
            _ => {}
        }
    }
    match denied {
        Some(candidate) => Ok(candidate),
        None => Err((format!("exec: \"{}\": executable file not found in $PATH", word.to_string_lossy()), 127)),
    }
}

fn cannot_execute(word: &OsString, error: nix::errno::Errno) -> Failure {
    use nix::errno::Errno;
    let word = word.to_string_lossy();
    match error {
        Errno::ENOENT => (format!("exec: \"{word}\": no such file or directory"), 127),
        Errno::ENOEXEC => (format!("exec: \"{word}\": exec format error: no interpreter is registered for it"), 126),
        other => (format!("exec: \"{word}\": {}", other.desc()), 126),
    }
}
