//! The guest agent (qemu-ga), for exec, cp and a shutdown where nobody listens to the power button. What a newcomer would get wrong: the
//! channel outlives whoever reads it on either side, so what is in it may be an answer to a question of yesterday's: every talk
//! begins with a number that must come back (`guest-sync-delimited`). And all that comes is the guest's word.
//! Source: QEMU's docs/interop/qemu-ga-ref.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::error::{Error, Peer};
use super::qmp::refused;
use super::wire::{Deadline, Wire};

/// What an agent that is there needs at most, on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a file is read or written in one message; the agent refuses more than 48 MiB.
pub const PIECE: usize = 1 << 20;
/// A byte that is in no JSON: what stands before it is thrown away (by the agent too).
const SENTINEL: u8 = 0xff;

/// A talk with an agent.
#[derive(Debug)]
pub struct Agent {
    wire: Wire,
}

/// A command to run in a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exec {
    /// The program's path in the guest.
    pub program: String,
    /// Its words, without the program.
    pub words: Vec<String>,
    /// Its variables (`NAME=value`), instead of the agent's.
    pub env: Vec<String>,
    /// What it reads from stdin.
    pub input: Vec<u8>,
}

/// How a command in a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, or the signal that ended it.
    pub how: How,
    /// What it wrote.
    pub out: Vec<u8>,
    /// What it wrote to stderr.
    pub err: Vec<u8>,
    /// Whether the agent left something out (it keeps 16 MiB of each).
    pub cut: bool,
}

/// The end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It exited.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
}

/// What a guest is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// To power off.
    Off,
    /// To start anew.
    Reboot,
}

/// An open file of the guest's. It stays open in the agent until it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(i64);

impl Agent {
    /// Begins a talk. Errors: nobody answers within `patience`: no agent is running in the guest.
    pub fn greeted(stream: UnixStream, patience: Duration) -> Result<Agent, Error> {
        let mut agent = Agent { wire: Wire::new(stream, Peer::Agent)? };
        let end = Deadline::after(patience);
        let command = "guest-sync-delimited";
        // Any number that the last talk is unlikely to have used.
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let number = clock.as_nanos() as u64 & 0x7fff_ffff_ffff;
        let mut line = vec![SENTINEL];
        line.extend_from_slice(format!("{}\n", json!({"execute": command, "arguments": {"id": number}})).as_bytes());
        agent.wire.send(&line, None, command, end)?;
        loop {
            if !agent.wire.skip_past(SENTINEL, command, end)? {
                return Err(agent.wire.silent(command, end));
            }
            match agent.wire.receive(command, end)? {
                Some(answer) if answer["return"].as_u64() == Some(number) => return Ok(agent),
                // The answer to an earlier talk's number.
                Some(_) => {}
                None => return Err(agent.wire.silent(command, end)),
            }
        }
    }

    /// A command and its answer. Errors: gone, silent, refused; after `Silent` this talk is of no use any more.
    pub fn call(&mut self, command: &str, arguments: Value, patience: Duration) -> Result<Value, Error> {
        let end = Deadline::after(patience);
        self.say(command, arguments, end)?;
        let answer = self.wire.receive(command, end)?.ok_or_else(|| self.wire.silent(command, end))?;
        match (answer.get("return"), answer.get("error")) {
            (Some(value), None) => Ok(value.clone()),
            (_, Some(error)) => Err(refused(Peer::Agent, command, error)),
            (None, None) => Err(garbled(command, &answer)),
        }
    }

    fn say(&mut self, command: &str, arguments: Value, end: Deadline) -> Result<(), Error> {
        let mut message = Map::new();
        message.insert("execute".to_owned(), command.into());
        if !arguments.is_null() {
            message.insert("arguments".to_owned(), arguments);
        }
        tracing::debug!(target: "pronto::agent", "-> {command}");
        self.wire.send(format!("{}\n", Value::Object(message)).as_bytes(), None, command, end)
    }

    /// Whether somebody is there.
    pub fn ping(&mut self) -> Result<(), Error> {
        self.call("guest-ping", Value::Null, PATIENCE).map(drop)
    }

    /// Starts a command; its PID in the guest. What it writes is kept for [`Agent::ended`].
    pub fn exec(&mut self, exec: &Exec) -> Result<i64, Error> {
        let mut arguments = json!({"path": exec.program, "arg": exec.words, "capture-output": true});
        if !exec.env.is_empty() {
            arguments["env"] = json!(exec.env);
        }
        if !exec.input.is_empty() {
            arguments["input-data"] = STANDARD.encode(&exec.input).into();
        }
        let answer = self.call("guest-exec", arguments, PATIENCE)?;
        answer["pid"].as_i64().ok_or_else(|| garbled("guest-exec", &answer))
    }

    /// How a command ended, `None` while it runs. It can be asked once: the agent forgets it then.
    pub fn ended(&mut self, pid: i64) -> Result<Option<Ended>, Error> {
        let command = "guest-exec-status";
        let answer = self.call(command, json!({"pid": pid}), PATIENCE)?;
        if answer["exited"].as_bool() != Some(true) {
            return Ok(None);
        }
        let number = |what: &str| answer[what].as_i64().and_then(|n| i32::try_from(n).ok());
        let how = match (number("exitcode"), number("signal")) {
            (_, Some(signal)) => How::Signal(signal),
            (Some(code), None) => How::Exit(code),
            (None, None) => return Err(garbled(command, &answer)),
        };
        let flag = |what: &str| answer[what].as_bool().unwrap_or_default();
        let cut = flag("out-truncated") || flag("err-truncated");
        let data = |what: &str| decoded(command, &answer[what]);
        Ok(Some(Ended { how, out: data("out-data")?, err: data("err-data")?, cut }))
    }

    /// Asks the guest to power off or to start anew. There is no answer when it does: the guest's end tells.
    pub fn power(&mut self, power: Power) -> Result<(), Error> {
        let (command, end) = ("guest-shutdown", Deadline::after(Duration::from_secs(2)));
        let mode = if power == Power::Off { "powerdown" } else { "reboot" };
        self.say(command, json!({"mode": mode}), end)?;
        match self.wire.receive(command, end) {
            Ok(Some(answer)) if answer.get("error").is_some() => Err(refused(Peer::Agent, command, &answer["error"])),
            Ok(_) | Err(Error::Gone { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Opens a file of the guest's in a mode of fopen(3): `r`, `w`, `a` …
    pub fn open(&mut self, path: &str, mode: &str) -> Result<Handle, Error> {
        let answer = self.call("guest-file-open", json!({"path": path, "mode": mode}), PATIENCE)?;
        answer.as_i64().map(Handle).ok_or_else(|| garbled("guest-file-open", &answer))
    }

    /// The next piece of a file, of at most [`PIECE`] bytes; empty at its end.
    pub fn read(&mut self, file: Handle) -> Result<Vec<u8>, Error> {
        let command = "guest-file-read";
        let answer = self.call(command, json!({"handle": file.0, "count": PIECE}), PATIENCE)?;
        let data = decoded(command, &answer["buf-b64"])?;
        if data.len() > PIECE || (data.is_empty() && answer["eof"].as_bool() != Some(true)) {
            return Err(garbled(command, &answer));
        }
        Ok(data)
    }

    /// Writes bytes to a file, all of them.
    pub fn write(&mut self, file: Handle, mut bytes: &[u8]) -> Result<(), Error> {
        let command = "guest-file-write";
        while !bytes.is_empty() {
            let piece = &bytes[..bytes.len().min(PIECE)];
            let answer = self.call(command, json!({"handle": file.0, "buf-b64": STANDARD.encode(piece)}), PATIENCE)?;
            let count = answer["count"].as_u64().and_then(|n| usize::try_from(n).ok());
            let count = count.filter(|n| (1..=piece.len()).contains(n)).ok_or_else(|| garbled(command, &answer))?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Closes a file; what could not be written is told here.
    pub fn close(&mut self, file: Handle) -> Result<(), Error> {
        self.call("guest-file-close", json!({"handle": file.0}), PATIENCE).map(drop)
    }
}

fn garbled(command: &str, answer: &Value) -> Error {
    let answer: String = answer.to_string().chars().take(200).collect();
    Error::Garbled { peer: Peer::Agent, why: format!("{answer} to '{command}'") }
}

fn decoded(command: &str, value: &Value) -> Result<Vec<u8>, Error> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => STANDARD.decode(text).map_err(|_| garbled(command, value)),
        other => Err(garbled(command, other)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use super::*;

    /// An agent with something old in its channel, that answers by `answer`.
    fn agent(answer: impl Fn(&Value) -> String + Send + 'static) -> Agent {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut write = theirs.try_clone().unwrap();
            write.write_all(b"{\"return\": \"of yesterday\"}\n\xff{\"return\": 12}\n").unwrap();
            let mut reader = BufReader::new(theirs);
            loop {
                let mut line = Vec::new();
                if reader.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
                    return;
                }
                let text = line.strip_prefix(b"\xff").unwrap_or(&line);
                let message: Value = serde_json::from_slice(text).unwrap();
                let answer = match message["execute"].as_str().unwrap() {
                    "guest-sync-delimited" => {
                        assert_eq!(line[0], SENTINEL);
                        write.write_all(&[SENTINEL]).unwrap();
                        format!("{{\"return\": {}}}", message["arguments"]["id"])
                    }
                    _ => answer(&message),
                };
                if !answer.is_empty() {
                    writeln!(write, "{answer}").unwrap();
                }
            }
        });
        Agent::greeted(ours, PATIENCE).unwrap()
    }

    #[test]
    fn a_talk_begins_behind_what_is_old() {
        let mut agent = agent(|m| format!("{{\"return\": {}}}", if m["execute"] == "guest-ping" { "{}" } else { "1" }));
        agent.ping().unwrap();
    }

    #[test]
    fn commands_and_their_ends() {
        let mut agent = agent(|m| match m["execute"].as_str().unwrap() {
            "guest-exec" => {
                assert_eq!(m["arguments"]["path"], "/bin/cat");
                assert_eq!(m["arguments"]["input-data"], "aGk=");
                "{\"return\": {\"pid\": 44}}".to_owned()
            }
            _ if m["arguments"]["pid"] == 44 => {
                r#"{"return": {"exited": true, "exitcode": 3, "out-data": "aGk=", "out-truncated": true}}"#.to_owned()
            }
            _ => r#"{"error": {"class": "GenericError", "desc": "PID 5 does not exist"}}"#.to_owned(),
        });
        let exec = Exec { program: "/bin/cat".into(), input: b"hi".to_vec(), ..Exec::default() };
        assert_eq!(agent.exec(&exec).unwrap(), 44);
        let ended = Ended { how: How::Exit(3), out: b"hi".to_vec(), err: Vec::new(), cut: true };
        assert_eq!(agent.ended(44).unwrap(), Some(ended));
        let error = agent.ended(5).unwrap_err().to_string();
        assert_eq!(error, "the guest agent refuses 'guest-exec-status': PID 5 does not exist");
    }

    #[test]
    fn a_guest_that_lies_is_told() {
        let mut agent = agent(|m| match m["execute"].as_str().unwrap() {
            "guest-file-read" => r#"{"return": {"count": 0, "buf-b64": "", "eof": false}}"#.to_owned(),
            "guest-file-write" => r#"{"return": {"count": 99, "eof": false}}"#.to_owned(),
            "guest-file-open" => r#"{"return": "nine"}"#.to_owned(),
            _ => r#"{"return": {"exited": true, "exitcode": 0, "out-data": "%%%"}}"#.to_owned(),
        });
        let lies = [
            agent.read(Handle(1)).map(drop),
            agent.write(Handle(1), b"ab"),
            agent.open("/x", "r").map(drop),
            agent.ended(1).map(drop),
        ];
        for lie in lies {
            assert!(matches!(lie, Err(Error::Garbled { .. })), "{lie:?}");
        }
    }

    #[test]
    fn nobody_there() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Agent::greeted(ours, Duration::from_millis(50)).unwrap_err().to_string();
        let asks = "the guest agent did not answer 'guest-sync-delimited' within 0.05 s: \
                    is qemu-guest-agent installed and running in the guest?";
        assert_eq!(error, asks);
    }
}
