//! Starting a monitor from a command, and what that command hears of it. What a newcomer would get wrong: the monitor must
//! survive its starter's terminal and process group, so it gets a session of its own; and where systemd is PID 1 it must
//! not stay in the starter's cgroup, so `systemd-run` gives it a scope that is delegated to it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::domain::Name;
use crate::monitor::protocol::{self, Event, How, Request};
use crate::ops::{Error, Kind, Result};
use crate::store::Store;
use crate::sys::lock::Lock;
use crate::sys::process::Tool;
use crate::sys::{ns, sock};

/// How a guest with a kernel of its own begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Begin {
    /// It runs.
    #[default]
    Run,
    /// It stands still until somebody lets it go on.
    Paused,
    /// It is where it was when it was saved.
    Restored {
        /// The file.
        state: PathBuf,
        /// Where in it QEMU's stream begins.
        at: u64,
        /// Whether it stands still.
        paused: bool,
    },
}

impl Begin {
    /// The memory that it begins with, where QEMU's stream begins. Errors: as open(2), with the path.
    pub fn state(&self) -> io::Result<Option<File>> {
        let Begin::Restored { state, at, .. } = self else { return Ok(None) };
        let opened = File::open(state).and_then(|mut file| file.seek(SeekFrom::Start(*at)).map(|_| file));
        opened.map(Some).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", state.display())))
    }

    /// Whether it stands still until somebody lets it go on.
    pub fn stands_still(&self) -> bool {
        matches!(self, Begin::Paused | Begin::Restored { paused: true, .. })
    }

    /// As a word for the monitor.
    fn word(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The starter's side of a monitor. While it is held unreleased, the domain ends (and is discarded) with this process.
#[derive(Debug)]
pub struct Starter {
    reader: BufReader<UnixStream>,
    child: Child,
    /// The monitor's end can be waited for even after it has become nobody's child.
    pidfd: Option<OwnedFd>,
}

/// Starts the monitor of a domain and hands it the domain's lock. `begin` is for guests with a kernel of their own. Errors: the program could not be started.
pub fn spawn(
    store: &Store,
    root: Option<&Path>,
    name: &Name,
    uuid: &str,
    lock: &Lock,
    begin: &Begin,
) -> Result<Starter> {
    let failed = |e: std::io::Error| Error::new(Kind::Create, "cannot start the domain's monitor").because(e);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let output = store.run_dir(uuid).join("monitor.log");
    let output = std::fs::File::create(&output).map_err(failed)?;
    let words: [OsString; 6] = [
        "__monitor".into(),
        root.map(|r| r.as_os_str().to_owned()).unwrap_or_default(),
        name.as_str().into(),
        lock.as_raw_fd().to_string().into(),
        theirs.as_raw_fd().to_string().into(),
        begin.word().into(),
    ];
    let own = std::env::current_exe().map_err(failed)?;
    let mut tool = if systemd_runs() { in_scope(uuid, &own) } else { Tool::new(&own) }.args(&words);
    let inherited = [lock.as_raw_fd(), theirs.as_raw_fd()];
    let command = tool.command();
    command.stdin(Stdio::null()).stdout(output.try_clone().map_err(failed)?).stderr(output).current_dir("/");
    ns::detach(command, inherited);
    let child = tool.spawn().map_err(|e| Error::new(Kind::Create, "cannot start the domain's monitor").because(e))?;
    drop(theirs);
    let pidfd = ns::pidfd(child.id() as i32).ok();
    Ok(Starter { reader: BufReader::new(ours), child, pidfd })
}

/// Whether systemd is this host's PID 1 (sd_booted(3)).
fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// A scope of its own for the monitor. Its name holds this command's PID: systemd hears of the end of a domain's last scope a
/// little later than we do, and a start at that moment must not find its name taken.
fn in_scope(uuid: &str, own: &Path) -> Tool {
    Tool::new("systemd-run")
        .args(["--scope", "--quiet", "--collect", "--slice=machine.slice", "--property=Delegate=yes"])
        // As many as nspawn's own scopes allow: systemd's default is a share of what the host can have, far too few on a small one.
        .arg("--property=TasksMax=16384")
        // Whoever stops the scope (systemd does, when the host goes down) stops the monitor alone, which has the guest power off: the
        // signal goes to every process in the scope, and everybody else ignores this one.
        .arg(format!("--property=KillSignal={}", crate::monitor::HOST_STOPS.as_str()))
        .arg(format!("--unit=pronto-{}-{}.scope", &uuid[..uuid.len().min(8)], std::process::id()))
        .arg("--")
        .arg(own)
}

impl Starter {
    /// The next thing that happens, waited for until `deadline`. `Ok(None)`: time is up.
    /// Errors: the monitor died without a word, or this command was told to end.
    pub fn next(&mut self, deadline: Option<Instant>, interrupt: &mut crate::ops::Interrupt) -> Result<Option<Event>> {
        use std::os::fd::AsFd;
        loop {
            let left = deadline.map_or(-1, |d| {
                i32::try_from(d.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i32::MAX)
            });
            if self.reader.buffer().is_empty() {
                let fds = [(self.reader.get_ref().as_fd(), false), (interrupt.as_fd(), false)];
                let ready = sock::poll(&fds, left).map_err(|e| Error::general("cannot wait").because(e))?;
                interrupt.check()?;
                if !ready[0] {
                    if deadline.is_some_and(|d| Instant::now() >= d) {
                        return Ok(None);
                    }
                    continue;
                }
            }
            return match protocol::next_event(&mut self.reader) {
                Ok(Some(event)) => Ok(Some(event)),
                Ok(None) => Err(Error::new(Kind::Create, "the domain's monitor ended without a word")),
                Err(e) => Err(Error::new(Kind::Create, "cannot hear the domain's monitor").because(e)),
            };
        }
    }

    /// The domain is the user's now and goes on without this command.
    pub fn release(&mut self) -> Result<()> {
        let sent = protocol::send(self.reader.get_mut(), &Request::Release);
        let mut answer = sent.and_then(|()| protocol::next_event(&mut self.reader));
        // What happened meanwhile (the guest got ready, it reboots) was on its way before the answer.
        while matches!(answer, Ok(Some(Event::Ready | Event::Started { .. } | Event::Rebooting))) {
            answer = protocol::next_event(&mut self.reader);
        }
        match answer {
            Ok(Some(Event::Ok { .. })) => Ok(()),
            Ok(Some(Event::Refused { why } | Event::Failed { why })) => {
                Err(Error::new(Kind::Create, "the domain could not be handed over").because(why))
            }
            Ok(_) => Err(Error::new(Kind::Create, "the domain ended while it was handed over")),
            Err(e) => Err(Error::new(Kind::Create, "cannot hand the domain over").because(e)),
        }
    }

    /// Ends the domain and waits until everything of it is gone.
    pub fn abandon(mut self) {
        let request = Request::Stop { how: How::Kill, millis: 0 };
        let _ = protocol::send(self.reader.get_mut(), &request);
        let _ = self.reader.get_ref().shutdown(std::net::Shutdown::Write);
        self.wait_gone(Duration::from_secs(30));
    }

    /// Waits for the monitor's own end, at most `limit`.
    pub fn wait_gone(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|s| s.is_some()) {
                return;
            }
            match &self.pidfd {
                Some(fd) => {
                    use std::os::fd::AsFd;
                    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
                    let _ = sock::poll(&[(fd.as_fd(), false)], i32::try_from(left).unwrap_or(i32::MAX));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}
