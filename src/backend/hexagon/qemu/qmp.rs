//! QEMU's control socket: greeting, commands with numbers, events in between. What a newcomer would get wrong: an answer that comes
//! after its caller has given up must not be taken for the next one's (hence the numbers), and events come at any time, also in
//! front of the answer that is waited for: they are kept, in order, for who asks. Two users: a command that waits
//! ([`Qmp::call`]), and a poll loop that never does ([`Qmp::fd`], [`Qmp::look`], [`Qmp::send`], [`Qmp::take`]).
//! Source: QEMU's docs/interop/qmp-spec.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::error::{Error, Peer};
use super::wire::{Deadline, Wire};

/// How long an ordinary command may take. They take milliseconds, but the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How many events are kept for somebody who does not fetch them; a guest can cause as many as it likes.
const EVENTS: usize = 1024;

/// The number of a command that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name: `SHUTDOWN`, `STOP`, `GUEST_PANICKED` …
    pub name: String,
    /// What belongs to it.
    pub data: Value,
    /// When, in microseconds since 1970 (the host's clock).
    pub micros: i64,
}

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Version(pub u32, pub u32, pub u32);

/// A connection that has been greeted.
#[derive(Debug)]
pub struct Qmp {
    wire: Wire,
    version: Version,
    sent: u64,
    /// Commands whose answers somebody wants, by their numbers.
    awaited: BTreeMap<Ticket, Awaited>,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Awaited {
    command: String,
    answer: Option<Result<Value, Error>>,
}

impl Qmp {
    /// Takes a connected socket, hears QEMU's greeting and agrees on how to talk. Errors: none came within `patience`.
    pub fn greeted(stream: UnixStream, patience: Duration) -> Result<Qmp, Error> {
        let mut wire = Wire::new(stream, Peer::Qemu)?;
        let end = Deadline::after(patience);
        let greeting = wire.receive("greeting", end)?.ok_or_else(|| wire.silent("greeting", end))?;
        let number = |what: &str| greeting["QMP"]["version"]["qemu"][what].as_u64().map(|n| n as u32);
        let (Some(major), Some(minor), Some(micro)) = (number("major"), number("minor"), number("micro")) else {
            return Err(Error::Garbled { peer: Peer::Qemu, why: format!("a greeting without a version: {greeting}") });
        };
        let version = Version(major, minor, micro);
        let mut qmp = Qmp { wire, version, sent: 0, awaited: BTreeMap::new(), events: VecDeque::new() };
        qmp.call_within("qmp_capabilities", json!({}), end.left())?;
        Ok(qmp)
    }

    /// Which QEMU it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// For poll(2): readable when [`Qmp::look`] has something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wire.fd()
    }

    /// A command and its answer, within [`PATIENCE`].
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        self.call_within(command, arguments, PATIENCE)
    }

    /// A command and its answer. Errors: gone, silent, or refused.
    pub fn call_within(&mut self, command: &str, arguments: Value, patience: Duration) -> Result<Value, Error> {
        self.ask(command, arguments, None, Deadline::after(patience))
    }

    /// A command that takes an open file along (`getfd`, `add-fd`).
    pub fn call_with(&mut self, command: &str, arguments: Value, fd: BorrowedFd<'_>) -> Result<Value, Error> {
        self.ask(command, arguments, Some(fd), Deadline::after(PATIENCE))
    }

    fn ask(
        &mut self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
        end: Deadline,
    ) -> Result<Value, Error> {
        let ticket = self.start(command, arguments, fd, end)?;
        loop {
            if let Some(answer) = self.take(ticket) {
                return answer;
            }
            match self.wire.receive(command, end) {
                Ok(Some(message)) => self.hear(&message)?,
                Ok(None) => {
                    self.awaited.remove(&ticket);
                    return Err(self.wire.silent(command, end));
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends a command without waiting for its answer, which [`Qmp::take`] gives later. Errors: QEMU does not even read.
    pub fn send(&mut self, command: &str, arguments: Value) -> Result<Ticket, Error> {
        self.start(command, arguments, None, Deadline::after(Duration::from_secs(1)))
    }

    /// As [`Qmp::send`], with an open file along.
    pub fn send_with(&mut self, command: &str, arguments: Value, fd: BorrowedFd<'_>) -> Result<Ticket, Error> {
        self.start(command, arguments, Some(fd), Deadline::after(Duration::from_secs(1)))
    }

    fn start(
        &mut self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
        end: Deadline,
    ) -> Result<Ticket, Error> {
        self.sent += 1;
        let ticket = Ticket(self.sent);
        let mut message = Map::new();
        message.insert("execute".to_owned(), command.into());
        if arguments.as_object().is_some_and(|a| !a.is_empty()) {
            message.insert("arguments".to_owned(), arguments);
        }
        message.insert("id".to_owned(), self.sent.into());
        let line = format!("{}\n", Value::Object(message));
        tracing::debug!(target: "pronto::qmp", "-> {}", line.trim_end());
        self.wire.send(line.as_bytes(), fd, command, end)?;
        self.awaited.insert(ticket, Awaited { command: command.to_owned(), answer: None });
        Ok(ticket)
    }

    /// The answer to a command that was sent, once it is there.
    pub fn take(&mut self, ticket: Ticket) -> Option<Result<Value, Error>> {
        self.awaited.get(&ticket)?.answer.as_ref()?;
        self.awaited.remove(&ticket)?.answer
    }

    /// Hears all that has come, without waiting. Errors: gone, or garbled.
    pub fn look(&mut self) -> Result<(), Error> {
        while let Some(message) = self.wire.receive("", Deadline::after(Duration::ZERO))? {
            self.hear(&message)?;
        }
        Ok(())
    }

    /// The oldest event that nobody has taken.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Waits for an event that `wanted` makes something of; the others are kept. `None` when it does not come in time.
    pub fn await_event<T>(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(&Event) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let end = Deadline::after(patience);
        let mut from = 0;
        loop {
            while let Some(event) = self.events.get(from) {
                if let Some(made) = wanted(event) {
                    self.events.remove(from);
                    return Ok(Some(made));
                }
                from += 1;
            }
            let before = self.events.len();
            match self.wire.receive("", end)? {
                Some(message) => self.hear(&message)?,
                None => return Ok(None),
            }
            // One that was dropped in front moves all others.
            from = from.min(self.events.len().saturating_sub(usize::from(self.events.len() == before)));
        }
    }

    fn hear(&mut self, message: &Value) -> Result<(), Error> {
        let text = || message.to_string().chars().take(200).collect::<String>();
        tracing::debug!(target: "pronto::qmp", "<- {}", text());
        if let Some(name) = message["event"].as_str() {
            let time = &message["timestamp"];
            let part = |what: &str| time[what].as_i64().unwrap_or_default();
            let micros = part("seconds").saturating_mul(1_000_000).saturating_add(part("microseconds"));
            let event = Event { name: name.to_owned(), data: message["data"].clone(), micros };
            if self.events.len() == EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(event);
            return Ok(());
        }
        let (result, error) = (message.get("return"), message.get("error"));
        if result.is_none() && error.is_none() {
            return Err(Error::Garbled { peer: Peer::Qemu, why: text() });
        }
        // Whoever has given up waiting has taken its number along.
        let Some(ticket) = message["id"].as_u64().map(Ticket) else { return Ok(()) };
        let Some(awaited) = self.awaited.get_mut(&ticket) else { return Ok(()) };
        awaited.answer = Some(match error {
            None => Ok(result.cloned().unwrap_or_default()),
            Some(error) => Err(refused(Peer::Qemu, &awaited.command, error)),
        });
        Ok(())
    }
}

pub(super) fn refused(peer: Peer, command: &str, error: &Value) -> Error {
    let text = |what: &str| error[what].as_str().unwrap_or("it does not say why").to_owned();
    Error::Refused { peer, command: command.to_owned(), class: text("class"), why: text("desc") }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 18, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}}"#;

    /// A QEMU that answers line by line with what `answer` makes of it.
    fn qemu(mut answer: impl FnMut(&Value) -> String + Send + 'static) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut write = theirs.try_clone().unwrap();
            writeln!(write, "{GREETING}").unwrap();
            for line in BufReader::new(theirs).lines() {
                let Ok(message) = serde_json::from_str::<Value>(&line.unwrap()) else { return };
                if message["execute"] == "qmp_capabilities" {
                    writeln!(write, r#"{{"return": {{}}, "id": {}}}"#, message["id"]).unwrap();
                } else if write.write_all(answer(&message).as_bytes()).is_err() {
                    return;
                }
            }
        });
        ours
    }

    #[test]
    fn events_in_front_of_an_answer_are_kept() {
        let stream = qemu(|m| {
            let id = &m["id"];
            format!(
                "{{\"event\": \"STOP\", \"timestamp\": {{\"seconds\": 2, \"microseconds\": 5}}}}\n\
                 {{\"return\": {{\"status\": \"paused\"}}, \"id\": {id}}}\n{{\"event\": \"RESUME\", \"data\": {{\"a\": 1}}}}\n"
            )
        });
        let mut qmp = Qmp::greeted(stream, PATIENCE).unwrap();
        assert_eq!(qmp.version(), Version(7, 2, 18));
        assert_eq!(qmp.call("query-status", Value::Null).unwrap()["status"], "paused");
        let resumed = qmp.await_event(PATIENCE, |e| (e.name == "RESUME").then(|| e.data["a"].as_i64())).unwrap();
        assert_eq!(resumed, Some(Some(1)));
        let stop = qmp.event().unwrap();
        assert_eq!((stop.name.as_str(), stop.micros), ("STOP", 2_000_005));
        assert_eq!(qmp.event(), None);
    }

    #[test]
    fn a_late_answer_is_nobodys() {
        let mut kept = None;
        let stream = qemu(move |m| match (&mut kept, m["execute"].as_str().unwrap()) {
            (kept, "slow") => {
                *kept = Some(m["id"].clone());
                String::new()
            }
            (Some(id), _) => format!("{{\"return\": 1, \"id\": {id}}}\n{{\"return\": 2, \"id\": {}}}\n", m["id"]),
            (None, _) => unreachable!(),
        });
        let mut qmp = Qmp::greeted(stream, PATIENCE).unwrap();
        let error = qmp.call_within("slow", Value::Null, Duration::from_millis(50)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "QEMU did not answer 'slow' within 0.05 s: it hangs or was stopped; destroy ends it"
        );
        assert_eq!(qmp.call("next", Value::Null).unwrap(), 2);
    }

    #[test]
    fn refusals_and_nonsense_are_told() {
        let stream = qemu(|m| match m["execute"].as_str().unwrap() {
            "odd" => "[1]\n".to_owned(),
            _ => {
                let id = &m["id"];
                format!("{{\"id\": {id}, \"error\": {{\"class\": \"DeviceNotFound\", \"desc\": \"no 'x'\"}}}}\n")
            }
        });
        let mut qmp = Qmp::greeted(stream, PATIENCE).unwrap();
        let error = qmp.call("device_del", json!({"id": "x"})).unwrap_err();
        assert!(error.is_unknown());
        assert_eq!(error.to_string(), "QEMU refuses 'device_del': no 'x'");
        let error = qmp.call("odd", Value::Null).unwrap_err();
        assert_eq!(error.to_string(), "QEMU sent something that is no answer: [1]");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        writeln!(theirs, "SSH-2.0-OpenSSH").unwrap();
        assert!(matches!(Qmp::greeted(ours, PATIENCE), Err(Error::Garbled { .. })));
    }

    #[test]
    fn a_flood_of_events_is_bounded() {
        let stream = qemu(|m| {
            let flood: String = (0..5000).map(|n| format!("{{\"event\": \"E\", \"data\": {n}}}\n")).collect();
            format!("{flood}{{\"return\": {{}}, \"id\": {}}}\n", m["id"])
        });
        let mut qmp = Qmp::greeted(stream, PATIENCE).unwrap();
        qmp.call("x", Value::Null).unwrap();
        assert_eq!(qmp.events.len(), EVENTS);
        assert_eq!(qmp.event().unwrap().data, 5000 - EVENTS as u64);
        assert_eq!(qmp.await_event(Duration::from_millis(1), |e| (e.data == 4999).then_some(())).unwrap(), Some(()));
    }

    #[test]
    fn a_loop_that_never_waits() {
        let stream = qemu(|m| format!("{{\"return\": 7, \"id\": {}}}\n", m["id"]));
        let mut qmp = Qmp::greeted(stream, PATIENCE).unwrap();
        let ticket = qmp.send("x", Value::Null).unwrap();
        while qmp.take(ticket).map(Result::unwrap) != Some(7.into()) {
            crate::sys::sock::poll(&[(qmp.fd(), false)], 5000).unwrap();
            qmp.look().unwrap();
        }
        assert!(qmp.awaited.is_empty());
    }
}
