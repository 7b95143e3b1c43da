//! `exec`: one more command in a running domain. What a newcomer would get wrong: this process never enters the guest; a
//! sealed copy of it does (see `enter`), and what is kept here is the line to it, the terminal and the signals.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::enter::{self, Answer, Order, Say};
use super::{Ctx, Error, Interrupt, Kind, Result, hexagon};
use crate::domain::{DomainRef, InitKind, Name, State};
use crate::store::domains::{Domain, Run};
use crate::sys::process::Tool;
use crate::sys::{ns, pty, sock};

/// A command to run inside.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// The program and its words; never empty.
    pub words: Vec<OsString>,
    /// Keep stdin open (`-i`; stdin is passed when it is not a terminal, too).
    pub interactive: bool,
    /// Use a terminal (`-t`); decided by stdin and stdout when it is none.
    pub tty: Option<bool>,
    /// `user[:group]`, the guest's names or numbers; root when none.
    pub user: Option<String>,
    /// Where it starts; the user's home when none.
    pub workdir: Option<String>,
    /// More variables.
    pub env: Vec<(OsString, OsString)>,
    /// It is ended when it takes longer, which is an error.
    pub limit: Option<Duration>,
    /// Nothing native in it and in what it starts.
    pub emulated: bool,
}

/// Runs a command in a running domain; returns its exit status (128+N for signal N). Errors: no such domain, its state,
/// command not found (127) or not executable (126).
pub fn exec(ctx: &Ctx, domain: &DomainRef, command: Command) -> Result<u8> {
    super::need_root("exec")?;
    let mut interrupt = Interrupt::collect()?;
    let domain = enterable(ctx, domain, "no command can be run in it")?;
    let run = domain.run.as_ref().ok_or_else(|| Error::general("the domain does not run"))?;
    if hexagon::verbs::is_ours(&domain) {
        return hexagon::agent::exec(ctx, &domain, &command, &mut interrupt);
    }
    attend(run, command, Io::Caller, &mut interrupt).map(|(status, _)| status)
}

/// As [`exec`] in a run that is known, with the command's PID in the guest's pid namespace; 0 when it did not begin.
pub(super) fn watched(run: &Run, command: Command, interrupt: &mut Interrupt) -> Result<(u8, i32)> {
    let limit = command.limit;
    follow(&order(run, command, Io::Caller), Io::Caller, limit, interrupt).map(|ended| (ended.status, ended.pid))
}

/// The domain, when commands can be run in it now; `cannot` is what is said when they cannot, as in [`Error::state`].
pub fn enterable(ctx: &Ctx, which: &DomainRef, cannot: &str) -> Result<Domain> {
    super::sweep::sweep(ctx)?;
    let domain = begun(ctx, which)?;
    let name = domain.name.as_str();
    match domain.state {
        State::Paused => {
            Err(Error::state(name, domain.state, cannot, &format!("let it go on first: pronto unpause {name}")))
        }
        State::ShutOff => {
            Err(Error::state(name, domain.state, cannot, &format!("start it first: pronto start {name}")))
        }
        state if !state.can_enter() => Err(Error::state(name, state, cannot, "wait a moment and try again")),
        _ if domain.run.as_ref().is_none_or(|r| r.leader == 0) => {
            Err(Error::state(name, State::Building, cannot, "its init does not run yet: try again in a moment"))
        }
        _ => Ok(domain),
    }
}

/// The domain, when its init has begun: who has just said `create --no-wait` need not know that this takes some milliseconds.
fn begun(ctx: &Ctx, which: &DomainRef) -> Result<Domain> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let domain = ctx.store.resolve(which)?.ok_or_else(|| Error::no_domain(which))?;
        // Domid 0 is work that is done for a domain before it has an init at all.
        let begins = domain.run.as_ref().is_some_and(|run| run.leader == 0 && run.domid != 0);
        if !begins || Instant::now() >= end {
            return Ok(domain);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where a command's input and output go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// To the caller's own stdin, stdout and stderr.
    Caller,
    /// No input; stdout is returned, stderr is dropped.
    Captured,
}

/// Starts a command in a run and stays with it to its end. Returns its status and, when captured, its output.
pub fn attend(run: &Run, command: Command, io_: Io, interrupt: &mut Interrupt) -> Result<(u8, Vec<u8>)> {
    let limit = command.limit;
    follow(&order(run, command, io_), io_, limit, interrupt).map(|ended| (ended.status, ended.output))
}

fn order(run: &Run, command: Command, io_: Io) -> Order {
    let terminal = io_ == Io::Caller
        && command.tty.unwrap_or_else(|| pty::is_terminal(io::stdin()) && pty::is_terminal(io::stdout()));
    Order {
        words: command.words,
        env: command.env,
        user: command.user,
        workdir: command.workdir,
        emulated: command.emulated,
        tty: terminal.then(|| pty::size(io::stdin().as_fd()).unwrap_or((24, 80))),
        term: std::env::var_os("TERM"),
        ..Order::to(run)
    }
}

/// What came of a command.
struct Ended {
    status: u8,
    output: Vec<u8>,
    pid: i32,
}

fn follow(order: &Order, io_: Io, limit: Option<Duration>, interrupt: &mut Interrupt) -> Result<Ended> {
    let until = limit.map(|limit| Instant::now() + limit);
    let mut session = Session::start(order, io_).map_err(|e| Error::general("cannot enter the guest").because(e))?;
    let output = session.capture(io_);
    let answer = session.serve(until, interrupt);
    let _ = session.child.wait();
    match answer? {
        Answer::Exit(status) => {
            let output = output.map(|o| o.join().unwrap_or_default()).unwrap_or_default();
            Ok(Ended { status, output, pid: session.pid })
        }
        Answer::Failed(why, code) => Err(failed(why, code)),
        Answer::Terminal | Answer::Began(_) => {
            Err(Error::general("the process in the guest said the same thing twice"))
        }
    }
}

fn failed(why: String, code: u8) -> Error {
    match code {
        127 => Error::new(Kind::CommandNotFound, why),
        126 => Error::new(Kind::CommandNotExecutable, why),
        _ => Error::general(why),
    }
}

/// The names of units that failed in a guest, in systemctl's order; empty when it cannot be asked, which is told. A guest whose systemd is
/// silent is waited for no longer than `limit`, nor than a guest that answers could need.
pub fn failed_units(ctx: &Ctx, name: &Name, limit: Duration) -> Vec<String> {
    let Ok(Some(domain)) = ctx.store.load(name.as_str()) else { return Vec::new() };
    if domain.record.init != InitKind::Systemd {
        return Vec::new();
    }
    let (Some(run), Ok(mut interrupt)) = (&domain.run, Interrupt::collect()) else { return Vec::new() };
    if hexagon::verbs::is_ours(&domain) {
        return if run.agent { hexagon::agent::failed_units(ctx, &domain, limit, &mut interrupt) } else { Vec::new() };
    }
    // Mostly there is none, which is known at once.
    if !matches!(some_failed(run, &mut interrupt), Ok(true)) {
        return Vec::new();
    }
    let words = ["systemctl", "list-units", "--state=failed", "--no-legend", "--plain", "--no-pager"];
    // By itself systemctl gives up after a minute and a half.
    let limit = limit.min(Duration::from_secs(if domain.record.emulated.is_some() { 60 } else { 15 }));
    let words = words.map(OsString::from).to_vec();
    let command = Command { words, tty: Some(false), limit: Some(limit), ..Command::default() };
    let Ok((0, output)) = attend(run, command, Io::Captured, &mut interrupt) else {
        ctx.report.warn(&format!("the systemd of '{name}' does not say which of its units have failed"));
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output);
    text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
}

/// Whether some may have failed, as the guest's systemd says itself: no program is started for it. Errors: interrupted, or the guest has
/// ended.
fn some_failed(run: &Run, interrupt: &mut Interrupt) -> Result<bool> {
    let order = Order { ask: true, ..Order::to(run) };
    follow(&order, Io::Captured, None, interrupt).map(|ended| ended.status != 0)
}

struct Session {
    child: Child,
    socket: UnixStream,
    answers: BufReader<UnixStream>,
    controller: Option<OwnedFd>,
    /// The command's PID in the guest's pid namespace, once it has begun.
    pid: i32,
}

impl Session {
    fn start(order: &Order, io_: Io) -> io::Result<Session> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let copy = ns::sealed_self()?;
        let program = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let mut tool = Tool::new(program).arg("__enter").arg(theirs.as_raw_fd().to_string());
        let command = tool.command();
        command.env_clear();
        match io_ {
            Io::Caller => command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit()),
            Io::Captured => command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()),
        };
        ns::keep_for_child(command, theirs.as_raw_fd());
        let child = tool.spawn().map_err(io::Error::other)?;
        drop(theirs);
        enter::write_order(&mut ours, order)?;
        let answers = BufReader::with_capacity(1, ours.try_clone()?);
        Ok(Session { child, socket: ours, answers, controller: None, pid: 0 })
    }

    fn capture(&mut self, io_: Io) -> Option<std::thread::JoinHandle<Vec<u8>>> {
        let mut stdout = self.child.stdout.take().filter(|_| io_ == Io::Captured)?;
        Some(std::thread::spawn(move || {
            let mut output = Vec::new();
            let _ = stdout.read_to_end(&mut output);
            output
        }))
    }

    fn next_answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        let lost = |e: io::Error| Error::general("lost the process in the guest").because(e);
        if self.answers.read_line(&mut line).map_err(lost)? == 0 {
            return Err(Error::general("the process in the guest was killed"));
        }
        serde_json::from_str(&line).map_err(|e| lost(e.into()))
    }

    /// Relays the terminal and the signals until the command has ended, or ends it when its time is over.
    fn serve(&mut self, until: Option<Instant>, interrupt: &mut Interrupt) -> Result<Answer> {
        let mut relay: Option<Relay> = None;
        let mut doomed: Option<(Instant, Error)> = None;
        loop {
            let socket = self.socket.as_fd();
            let mut fds = vec![(socket, false), (interrupt.as_fd(), false)];
            if let (Some(relay), Some(controller)) = (&relay, &self.controller) {
                fds.push((controller.as_fd(), false));
                if relay.input {
                    fds.push((relay.stdin(), false));
                }
            }
            let timeout = match (&doomed, &relay, until) {
                (Some(_), ..) => 50,
                (None, None, None) => -1,
                _ => 250,
            };
            let ready = sock::poll(&fds, timeout).map_err(|e| Error::general("cannot wait").because(e))?;
            let (answered, typed) = (ready[0], ready.get(3) == Some(&true));
            let printed = ready.get(2) == Some(&true);
            drop(fds);
            if let (Some(relay), Some(controller)) = (&mut relay, &self.controller) {
                relay.turn(controller, printed, typed);
            }
            if answered {
                match self.next_answer()? {
                    Answer::Terminal => {
                        let fd =
                            sock::receive_fd(&self.socket).map_err(|e| Error::general("no terminal").because(e))?;
                        self.controller = Some(fd);
                        relay = Some(Relay::start());
                    }
                    Answer::Began(pid) => self.pid = pid,
                    answer => {
                        if let (Some(relay), Some(controller)) = (&mut relay, &self.controller) {
                            relay.rest(controller);
                        }
                        drop(relay);
                        return doomed.map_or(Ok(answer), |(_, error)| Err(error));
                    }
                }
            }
            if let Err(error) = interrupt.check() {
                self.pass_on(&error);
                doomed.get_or_insert((Instant::now() + Duration::from_millis(900), error));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                doomed.get_or_insert((Instant::now(), Error::general("the command in the guest took too long")));
            }
            if doomed.as_ref().is_some_and(|(at, _)| Instant::now() >= *at) {
                // It did not obey: the line is cut, and the other side kills it.
                let _ = self.socket.shutdown(std::net::Shutdown::Write);
            }
            if let (Some(relay), Some(controller)) = (&mut relay, &self.controller) {
                relay.resize(controller);
            }
        }
    }

    fn pass_on(&mut self, error: &Error) {
        if let Kind::Interrupted(number) = error.kind() {
            let mut line = serde_json::to_vec(&Say::Signal(number)).unwrap_or_default();
            line.push(b'\n');
            let _ = self.socket.write_all(&line);
        }
    }
}

/// The user's terminal joined to the guest's.
#[derive(Debug)]
pub struct Relay {
    raw: Option<pty::Raw>,
    size: Option<(u16, u16)>,
    input: bool,
    stdin: io::Stdin,
}

impl Relay {
    /// Puts the user's terminal in raw mode until this is dropped, and gives the guest's the same size.
    pub fn start_on(controller: &OwnedFd) -> Relay {
        let relay = Relay::start();
        if let Some((rows, columns)) = relay.size {
            let _ = pty::set_size(controller.as_fd(), rows, columns);
        }
        relay
    }

    /// Whether there is input to come.
    pub fn input(&self) -> bool {
        self.input
    }

    fn start() -> Relay {
        let stdin = io::stdin();
        Relay { raw: pty::Raw::enter(stdin.as_fd()).ok(), size: pty::size(stdin.as_fd()), input: true, stdin }
    }

    /// Where input comes from.
    pub fn stdin(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stdin.as_fd()
    }

    /// Passes on what there is.
    pub fn turn(&mut self, controller: &OwnedFd, printed: bool, typed: bool) {
        let mut buffer = [0; 16 << 10];
        if printed {
            if let Ok(n) = nix::unistd::read(controller, &mut buffer) {
                let _ = write_all(io::stdout().as_fd(), &buffer[..n]);
            }
        }
        if typed {
            match nix::unistd::read(self.stdin.as_fd(), &mut buffer) {
                // The end of a stdin that is no terminal: the guest's terminal gets its end-of-file character.
                Ok(0) | Err(_) => {
                    self.input = false;
                    let _ = write_all(controller.as_fd(), b"\x04");
                }
                Ok(n) => drop(write_all(controller.as_fd(), &buffer[..n])),
            }
        }
    }

    /// What the command printed last.
    pub fn rest(&mut self, controller: &OwnedFd) {
        while sock::poll(&[(controller.as_fd(), false)], 0).is_ok_and(|r| r[0]) {
            let mut buffer = [0; 16 << 10];
            match nix::unistd::read(controller, &mut buffer) {
                Ok(n) if n > 0 => drop(write_all(io::stdout().as_fd(), &buffer[..n])),
                _ => break,
            }
        }
    }

    /// Follows the size of the user's terminal.
    pub fn resize(&mut self, controller: &OwnedFd) {
        if self.raw.is_none() {
            return;
        }
        let now = pty::size(self.stdin.as_fd());
        if now != self.size {
            self.size = now;
            if let Some((rows, columns)) = now {
                let _ = pty::set_size(controller.as_fd(), rows, columns);
            }
        }
    }
}

/// Writes everything, past any buffer of the standard library's.
pub fn write_all(fd: std::os::fd::BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => drop(sock::poll(&[(fd, true)], 1000)?),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
