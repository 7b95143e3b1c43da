//! A guest with a kernel of its own as the monitor drives it, on QEMU. What a newcomer would get wrong: nothing here may wait for an answer of
//! QEMU's, for an ARM machine whose console nobody reads stands still, its control socket too; so commands are sent, and what comes of
//! them is heard as events. And QEMU never ends by itself when its guest does: it tells, and is told to quit.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::child::{self, Child};
use super::guest::{Text, text};
use super::held::Held;
use super::spawn::Begin;
use crate::arch::Profile;
use crate::backend::hexagon::qemu::qmp::{Event, Qmp};
use crate::backend::hexagon::qemu::verbs::{End, PANIC};
use crate::backend::hexagon::qemu::{self, CONSOLE_ROOM, Channel, argv};
use crate::domain::full::Executor;
use crate::domain::{Action, Name};
use crate::monitor::{Guest, How, Outcome, Started};
use crate::ops::hexagon::{self, AGENT, VERBS};
use crate::ops::registry;
use crate::store::Store;
use crate::store::domains::Record;
use crate::sys::cgroup::Limits;
use crate::sys::lock::Lock;
use crate::sys::{devices, fail, ns, sock};

/// How long QEMU may take to say that it is there: it has to map the guest's memory and read its kernel.
const GREETING: Duration = Duration::from_secs(60);
/// How long the disk may take for a guest's memory.
const RESTORING: Duration = Duration::from_secs(3600);
/// How much of what the console showed last is looked at for words that stand at an end.
const TAIL: usize = 256;

/// A domain that runs on QEMU.
#[derive(Debug)]
pub struct Full {
    held: Held,
    profile: Profile,
    /// How the first run begins.
    begin: Begin,
    qmp: Option<Qmp>,
    /// How the guest ended by itself, when it has.
    end: Option<End>,
    /// The last bytes of the console.
    tail: Vec<u8>,
    /// The line to the agent on which it was asked something: what was said on one that is closed is lost.
    asking: Option<UnixStream>,
}

impl Full {
    /// Takes a domain over. Errors: its directory is gone, or its architecture is not known any more.
    pub fn new(store: Store, name: &Name, record: Record, lock: Lock, begin: Begin) -> Text<Full> {
        let profiles = registry::profiles().map_err(text)?;
        let profile = profiles.find(&record.arch).map_err(text)?.clone();
        let held = Held::new(store, name, record, lock)?;
        Ok(Full { held, profile, begin, qmp: None, end: None, tail: Vec::new(), asking: None })
    }

    fn launch(&mut self) -> Text<Started> {
        let hardware = self.held.record.hardware.as_ref().ok_or("it was given no machine")?;
        let run_dir = self.held.store.run_dir(&self.held.record.uuid);
        let listen = |name: &str| sock::listen(&run_dir, name).map(OwnedFd::from).map_err(text);
        let (verbs, agent) = (listen(VERBS)?, listen(AGENT)?);
        fail::point("console").map_err(text)?;
        let (qmp, theirs) = UnixStream::pair().map_err(text)?;
        let (console, serial) = sock::roomy_pair(CONSOLE_ROOM).map_err(text)?;
        let (theirs, serial) = (OwnedFd::from(theirs), OwnedFd::from(serial));
        let machine = hexagon::machine::describe(&self.held.record, &self.held.name()?, &self.held.path()?)?;
        let mut setup = hexagon::machine::setup(&self.held.record, hardware, &self.profile)?;
        setup.qmp = Channel::Connected(theirs.as_raw_fd());
        setup.verbs = Some(Channel::Listening(verbs.as_raw_fd()));
        setup.agent = Some(Channel::Listening(agent.as_raw_fd()));
        setup.console = Channel::Connected(serial.as_raw_fd());
        let mut inherited = vec![theirs, serial, verbs, agent];
        for (n, nic) in machine.nics.iter().enumerate() {
            let tap = hexagon::machine::tap(self.held.run.domid, n, nic)?;
            setup.taps.push(tap.as_ref().map(AsRawFd::as_raw_fd));
            inherited.extend(tap);
        }
        for (path, file) in hexagon::machine::open(&machine.disks)? {
            setup.files.push((path, file.as_raw_fd()));
            inherited.push(file);
        }
        let room = child::room(&hardware.program, &machine.boot, hardware.executor).map_err(text)?;
        let begin = std::mem::take(&mut self.begin);
        let state = begin.state().map_err(text)?;
        setup.incoming = state.is_some();
        let launch = argv::launch(&machine, &self.profile, &setup).map_err(text)?;
        fail::point("guest-start").map_err(text)?;
        let said = File::create(run_dir.join("qemu.log")).map_err(text)?;
        let child = Child { launch, room, inherited, said, cage: self.held.run.cage.clone() };
        let process = child.spawn().map_err(|e| format!("cannot start {}: {e}", hardware.program.display()))?;
        // Nothing has been written to the console yet, for no CPU runs: this once it is safe to wait.
        let said = |e: qemu::Error| last_words(&run_dir.join("qemu.log")).unwrap_or(text(e));
        let mut greeted = Qmp::greeted(qmp, GREETING).map_err(said)?;
        if let Some(state) = state {
            greeted.restore(&state, RESTORING).map_err(said)?;
        }
        self.qmp = Some(greeted);
        self.held.run.paused = begin.stands_still();
        if !self.held.run.paused {
            self.forget_saved()?;
            self.send("cont", Value::Null)?;
        }
        self.held.run.leader = process.pid.as_raw();
        self.held.run.leader_start = ns::start_time(process.pid.as_raw()).unwrap_or_default();
        self.held.write_run()?;
        Ok(Started { process, pty: console.into(), notify: None, domid: self.held.run.domid })
    }

    /// The guest goes on, and its disk may change: no memory that was saved fits it any more.
    fn forget_saved(&mut self) -> Text<()> {
        let name = self.held.name()?;
        let saved = self.held.store.load(name.as_str()).map_err(text)?.filter(|domain| domain.record.saved.is_some());
        let Some(domain) = saved else { return Ok(()) };
        self.held.record = Record { saved: None, ..domain.record };
        self.held.store.write_record(&name, &self.held.record).map_err(text)
    }

    fn send(&mut self, command: &str, arguments: Value) -> Text<()> {
        let qmp = self.qmp.as_mut().ok_or("QEMU has closed its control socket")?;
        qmp.send(command, arguments).map(drop).map_err(text)
    }

    /// Hears all that QEMU says. Whether the guest has just come up.
    fn events(&mut self) -> Text<bool> {
        let Some(qmp) = &mut self.qmp else { return Ok(false) };
        if qmp.look().is_err() {
            // It is ending, which its process tells.
            self.qmp = None;
            return Ok(false);
        }
        let mut up = false;
        while let Some(event) = self.qmp.as_mut().and_then(Qmp::event) {
            up |= self.happened(&event)?;
        }
        Ok(up)
    }

    fn happened(&mut self, event: &Event) -> Text<bool> {
        match event.name.as_str() {
            "STOP" if self.end.is_none() => self.held.run.paused = true,
            "RESUME" => {
                self.held.run.paused = false;
                self.forget_saved()?;
            }
            "VSERPORT_CHANGE" if event.data["id"] == "agent0" => {
                self.held.run.agent = event.data["open"].as_bool() == Some(true);
                self.held.write_run()?;
                return Ok(self.held.run.agent);
            }
            _ => return End::of(event).map_or(Ok(()), |end| self.over(end)).map(|()| false),
        }
        self.held.write_run().map(|()| false)
    }

    /// The guest has ended by itself.
    fn over(&mut self, end: End) -> Text<()> {
        if self.end.is_some() {
            return Ok(());
        }
        self.end = Some(end);
        if end == End::Host {
            return Ok(());
        }
        match (end, self.held.action(how(end))) {
            (_, Action::Preserve) => {
                self.held.run.crashed = true;
                self.held.write_run()?;
                // A kernel that panicked without a word to QEMU spins.
                self.send("stop", Value::Null)
            }
            (_, Action::CoredumpDestroy | Action::CoredumpRestart) => self.dump(),
            _ => self.send("quit", Value::Null),
        }
    }

    /// Has QEMU write the guest's memory to a file and then quit: commands are done in their order.
    fn dump(&mut self) -> Text<()> {
        let path = self.held.path()?.join("core");
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(text)?;
        self.send("stop", Value::Null)?;
        let qmp = self.qmp.as_mut().ok_or("QEMU has closed its control socket")?;
        qmp.send_with("getfd", json!({"fdname": "core"}), file.as_fd()).map_err(text)?;
        self.send("dump-guest-memory", json!({"paging": false, "protocol": "fd:core"}))?;
        self.send("quit", Value::Null)
    }

    /// Asks the guest agent to have the guest powered off or started anew. Nobody waits for it: whoever has the channel is served first.
    fn ask_agent(&mut self, mode: &str) -> Text<()> {
        let dir = self.held.store.run_dir(&self.held.record.uuid);
        let mut stream = sock::connect(&dir, AGENT).map_err(text)?;
        let line = json!({"execute": "guest-shutdown", "arguments": {"mode": mode}});
        // A byte that is in no JSON ends whatever stood before it.
        stream.write_all(&[b"\xff", line.to_string().as_bytes(), b"\n"].concat()).map_err(text)?;
        self.asking = Some(stream);
        Ok(())
    }
}

fn how(end: End) -> &'static str {
    match end {
        End::PowerOff => "poweroff",
        End::Reboot => "reboot",
        End::Panic => "crashed",
        End::Host => "destroyed",
    }
}

/// QEMU says why it does not start on its stderr.
fn last_words(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().rev().find(|l| !l.trim().is_empty() && !l.contains("warning:"))?;
    Some(line.trim().to_owned())
}

impl Guest for Full {
    fn start(&mut self) -> Text<Started> {
        (self.qmp, self.end, self.asking) = (None, None, None);
        self.tail.clear();
        self.held.begin("qemu")?;
        // What was plugged in or out meanwhile stays so.
        if let Some(current) = self.held.name().ok().and_then(|name| self.held.store.load(name.as_str()).ok().flatten())
        {
            self.held.record = current.record;
        }
        let kvm = self.held.record.hardware.as_ref().is_some_and(|h| h.executor == Executor::Kvm);
        let more = if kvm { vec![devices::Rule::open(devices::Kind::Char, 10, 232, false)] } else { Vec::new() };
        self.held.make_cage(&Limits { devices: more.clone(), ..Limits::default() }, &more)?;
        self.held.write_run()?;
        self.launch()
    }

    fn control(&self) -> Option<BorrowedFd<'_>> {
        self.qmp.as_ref().map(Qmp::fd)
    }

    fn heard(&mut self) -> Text<bool> {
        self.events()
    }

    fn saw(&mut self, console: &[u8]) -> bool {
        self.tail.extend_from_slice(console);
        let within = |words: &[u8]| self.tail.windows(words.len()).any(|w| w == words);
        let (panics, asks) = (within(PANIC), within(b"login: "));
        let keep = self.tail.len().min(if panics || asks { 0 } else { TAIL });
        self.tail.drain(..self.tail.len() - keep);
        if panics {
            // Where the kernel tells QEMU as well, that came first.
            let _ = self.over(End::Panic);
        }
        asks
    }

    fn leader(&mut self, _inner: i32) -> Text<()> {
        Ok(())
    }

    fn looks_up(&mut self) -> Option<bool> {
        None
    }

    fn ready(&mut self) -> Text<()> {
        fail::point("ready").map_err(text)?;
        // One that may get more memory began with all of it.
        let spec = &self.held.record.spec;
        if let Some(memory) = spec.memory.filter(|memory| spec.maxmem.is_some_and(|most| most > *memory)) {
            self.send("balloon", json!({"value": memory}))?;
        }
        self.held.run.ready = true;
        self.held.write_run()
    }

    fn ask(&mut self, how: How) -> Text<()> {
        if self.held.run.paused {
            // Verbs do not ask a paused guest, but the host's shutdown does, and it must hear that.
            self.send("cont", Value::Null)?;
        }
        match how {
            How::Reboot if !self.held.run.agent => {
                return Err("nothing in the guest can be asked to reboot it (it runs no guest agent)".into());
            }
            How::Reboot => self.ask_agent("reboot")?,
            _ => {
                self.send("system_powerdown", Value::Null)?;
                if self.held.run.agent {
                    self.ask_agent("powerdown")?;
                }
            }
        }
        self.held.run.stopping = true;
        self.held.write_run()
    }

    fn kill(&mut self) {
        self.held.kill();
    }

    fn ended(&mut self, _status: i32, asked: Option<How>) -> Outcome {
        self.qmp = None;
        self.held.clear();
        let how = match (self.end, asked) {
            (Some(end), _) => how(end),
            (None, Some(_)) => "destroyed",
            // Killed, or it crashed.
            (None, None) => "crashed",
        };
        match self.held.action(how) {
            Action::Restart | Action::CoredumpRestart => Outcome::Again,
            _ => Outcome::Over(how),
        }
    }

    fn handed_over(&mut self) -> Text<()> {
        self.held.handed_over()
    }

    fn finish(&mut self, how: &str, orphan: bool) {
        self.qmp = None;
        self.held.finish(how, orphan);
    }
}
