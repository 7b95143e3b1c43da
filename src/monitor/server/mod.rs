//! The monitor's one loop: console bytes, clients, readiness, the guest's end. What a newcomer would get wrong: nothing in
//! here may wait for a client or for the guest; everything is a descriptor in one poll(2), and every deadline is the poll's
//! time-out.

mod console;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::client::{Client, Role};
use super::guest::{Guest, Outcome, Started};
use super::log::Log;
use super::protocol::{Event, How, Request};
use crate::sys::ns::shell_status;
use crate::sys::process::drop_text_pages;
use crate::sys::signal::Signals;
use crate::sys::{pty, sock};

/// What tells a monitor to let its guest power off and then be gone: nobody else sends it, and whoever does not expect it ignores
/// it. systemd sends it when the host goes down.
pub const HOST_STOPS: Signal = Signal::SIGURG;
/// How long the guest may take then: a little less than systemd waits by itself (90 s) before it kills everything.
const HOST_WAITS: Duration = Duration::from_secs(80);

/// How often a guest is looked at that never says that it is up.
const LOOKS: Duration = Duration::from_millis(100);

/// A domain's monitor at work.
pub struct Server<'a> {
    guest: &'a mut dyn Guest,
    listener: UnixListener,
    log: Log,
    signals: Signals,
    clients: Vec<Client>,
    run: Started,
    /// What the guest was last asked, and when it will be killed for not having done it.
    asked: Option<How>,
    deadline: Option<Instant>,
    ready: bool,
    /// When a guest that never says that it is up is looked at again.
    look: Option<Instant>,
    /// The command that started the domain has gone without handing it over.
    orphaned: bool,
    /// The host goes down: the guest is not started again.
    last: bool,
    /// Input that the console has not taken yet.
    typed: Vec<u8>,
}

impl std::fmt::Debug for Server<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

/// Starts the guest and serves it to its end. `starter` is the connection of the command that started it.
/// Errors: the text for the user when it could not be started (the starter has been told, everything is cleaned up).
pub fn serve(guest: &mut dyn Guest, listener: UnixListener, log: Log, starter: UnixStream) -> Result<(), String> {
    let mut starter = Client::new(starter, Role::Starter).map_err(|e| e.to_string())?;
    let signals =
        Signals::collect(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, HOST_STOPS]).map_err(|e| e.to_string())?;
    let started = listener.set_nonblocking(true).map_err(|e| e.to_string()).and_then(|()| guest.start());
    let run = match started {
        Ok(run) => run,
        Err(why) => {
            guest.kill();
            guest.finish("crashed", true);
            starter.tell(&Event::Failed { why: why.clone() });
            return Err(why);
        }
    };
    starter.tell(&Event::Started { domid: run.domid });
    let clients = vec![starter];
    let server = Server {
        guest,
        listener,
        log,
        signals,
        clients,
        run,
        asked: None,
        deadline: None,
        ready: false,
        look: None,
        orphaned: false,
        last: false,
        typed: Vec::new(),
    };
    server.run_to_the_end();
    Ok(())
}

impl Server<'_> {
    fn run_to_the_end(mut self) {
        let _ = console::set_nonblocking(self.run.pty.as_fd());
        loop {
            let turn = self.turn();
            let ended = match turn {
                Ok(ended) => ended,
                // poll(2) itself fails only for want of memory: the guest must not go on unwatched.
                Err(_) => {
                    self.guest.kill();
                    Some(self.run.process.wait().map_or(255, shell_status))
                }
            };
            let Some(status) = ended else { continue };
            self.drain_console();
            match self.guest.ended(status, self.asked.take()) {
                Outcome::Over(how) => return self.over(how),
                Outcome::Again if self.last => return self.over("poweroff"),
                Outcome::Again => {
                    if let Err(why) = self.again() {
                        self.say_on_console(&format!("\r\npronto: the domain could not be started again: {why}\r\n"));
                        self.guest.kill();
                        return self.over("crashed");
                    }
                }
            }
        }
    }

    fn again(&mut self) -> Result<(), String> {
        self.tell_all(&Event::Rebooting);
        self.run = self.guest.start()?;
        let _ = console::set_nonblocking(self.run.pty.as_fd());
        self.ready = false;
        self.look = None;
        self.deadline = None;
        self.typed.clear();
        self.tell_all(&Event::Started { domid: self.run.domid });
        Ok(())
    }

    fn over(mut self, how: &str) {
        let orphan = self.orphaned || self.clients.iter().any(|c| c.role == Role::Starter);
        self.guest.finish(how, orphan);
        self.tell_all(&Event::Ended { how: how.to_owned() });
        // A last chance for slow console clients: half a second, then they are left behind.
        let end = Instant::now() + Duration::from_millis(500);
        while self.clients.iter().any(|c| c.wants_to_write() && !c.gone) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            self.clients.iter_mut().for_each(Client::flush);
        }
    }

    /// Waits for the next thing and does it. Returns the program's status when it has ended.
    fn turn(&mut self) -> io::Result<Option<i32>> {
        let timeout = self.deadline.into_iter().chain(self.look).min().map_or(-1, |d| {
            let left = d.saturating_duration_since(Instant::now()).as_millis();
            i32::try_from(left).unwrap_or(i32::MAX - 1).saturating_add(1)
        });
        // One that is not there is stood in for by the listener, whose place is looked at once.
        let listener = self.listener.as_fd();
        let mut fds: Vec<(BorrowedFd<'_>, bool)> = vec![
            (self.run.pty.as_fd(), !self.typed.is_empty()),
            (self.run.notify.as_ref().map_or(listener, AsFd::as_fd), false),
            (self.run.process.fd.as_fd(), false),
            (self.signals.as_fd(), false),
            (listener, false),
            (self.guest.control().unwrap_or(listener), false),
        ];
        let fixed = fds.len();
        fds.extend(self.clients.iter().map(|c| (c.as_fd(), c.wants_to_write())));
        let ready = sock::poll(&fds, timeout)?;
        drop(fds);
        if ready[0] {
            self.console();
        }
        if ready[1] {
            self.notified();
        }
        if ready[5] && self.guest.control().is_some() {
            self.heard();
        }
        if let Some(signal) = if ready[3] { self.signals.take() } else { None } {
            self.must_go(signal);
        }
        if ready[4] {
            while let Ok((stream, _)) = self.listener.accept() {
                self.clients.extend(Client::new(stream, Role::Fresh));
            }
        }
        for at in 0..ready.len() - fixed {
            if ready[at + fixed] {
                self.clients[at].flush();
                self.clients[at].receive();
                self.serve_client(at);
            }
        }
        self.forget_the_gone();
        if self.look.is_some_and(|at| Instant::now() >= at) {
            self.look_at_it();
        }
        if self.deadline.is_some_and(|d| Instant::now() >= d) {
            self.deadline = None;
            self.guest.kill();
        }
        if ready[2] { Ok(self.run.process.try_wait()?.map(shell_status)) } else { Ok(None) }
    }

    /// Somebody wants this monitor gone: the guest goes first, in its own time when it is the host that stops.
    fn must_go(&mut self, signal: i32) {
        self.last = true;
        if signal == HOST_STOPS as i32 && self.guest.ask(How::Poweroff).is_ok() {
            self.asked = Some(How::Poweroff);
            self.deadline = Some(Instant::now() + HOST_WAITS);
        } else {
            self.asked = Some(How::Kill);
            self.guest.kill();
        }
    }

    fn forget_the_gone(&mut self) {
        if !self.clients.iter().any(|c| c.gone) {
            return;
        }
        if self.clients.iter().any(|c| c.gone && c.role == Role::Starter) {
            // The command that started this domain died before it was done: what it began ends.
            self.orphaned = true;
            self.asked = Some(How::Kill);
            self.guest.kill();
        }
        self.clients.retain(|c| !c.gone);
        drop_text_pages();
    }

    fn notified(&mut self) {
        while let Some(text) = receive_notice(&self.run) {
            for line in text.lines() {
                if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=").and_then(|p| p.parse().ok()) {
                    self.must(|guest| guest.leader(pid));
                    self.look = Some(Instant::now() + LOOKS);
                } else if line == "READY=1" {
                    self.up();
                }
            }
        }
    }

    fn heard(&mut self) {
        let mut up = false;
        self.must(|guest| guest.heard().map(|is| up = is));
        if up {
            self.up();
        }
    }

    fn look_at_it(&mut self) {
        self.look = None;
        match self.guest.looks_up() {
            _ if self.ready => {}
            Some(true) => self.up(),
            Some(false) => self.look = Some(Instant::now() + LOOKS),
            None => {}
        }
    }

    fn up(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            self.must(|guest| guest.ready());
            self.tell_all(&Event::Ready);
            drop_text_pages();
        }
    }

    /// A step without which the domain cannot be handed over: its failure ends the domain.
    fn must(&mut self, step: impl FnOnce(&mut dyn Guest) -> Result<(), String>) {
        if let Err(why) = step(self.guest) {
            for client in self.clients.iter_mut().filter(|c| c.role == Role::Starter) {
                client.tell(&Event::Failed { why: why.clone() });
            }
            self.asked = Some(How::Kill);
            self.guest.kill();
        }
    }

    fn tell_all(&mut self, event: &Event) {
        for client in self.clients.iter_mut().filter(|c| matches!(c.role, Role::Watcher | Role::Starter)) {
            client.tell(event);
        }
    }

    fn serve_client(&mut self, at: usize) {
        if self.clients[at].role == Role::Console {
            return self.serve_console(at);
        }
        while let Some(request) = self.clients[at].next_request() {
            let answer = match request {
                Ok(request) => self.obey(at, &request),
                Err(why) => Event::Refused { why },
            };
            self.clients[at].tell(&answer);
            if self.clients[at].role == Role::Console {
                return self.serve_console(at);
            }
        }
    }

    fn obey(&mut self, at: usize, request: &Request) -> Event {
        let done = Event::Ok { log: self.log.size() };
        match *request {
            Request::Console { rows, columns } => {
                self.clients[at].role = Role::Console;
                if rows > 0 {
                    let _ = pty::set_size(self.run.pty.as_fd(), rows, columns);
                }
            }
            Request::Watch => self.clients[at].role = Role::Watcher,
            Request::Release => {
                if let Err(why) = self.guest.handed_over() {
                    return Event::Refused { why };
                }
                self.clients[at].role = Role::Watcher;
            }
            Request::Stop { how: How::Kill, .. } => {
                self.asked = Some(How::Kill);
                self.guest.kill();
            }
            Request::Stop { how, millis } => {
                if let Err(why) = self.guest.ask(how) {
                    return Event::Refused { why };
                }
                self.asked = Some(how);
                self.deadline = Some(Instant::now() + Duration::from_millis(millis));
            }
        }
        done
    }
}

/// One message of the program that runs the guest. The socket's name is visible to a guest that shares the host's network,
/// so what others send is dropped: the kernel says who it was.
fn receive_notice(run: &Started) -> Option<String> {
    loop {
        let (text, sender) = sock::receive_from(run.notify.as_ref()?).ok()?;
        if sender == run.process.pid.as_raw() {
            return Some(String::from_utf8_lossy(&text).into_owned());
        }
    }
}
