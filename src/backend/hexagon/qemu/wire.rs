//! One JSON document a line over a socket, each way: what QMP and the guest agent's protocol have in common. What a newcomer would get
//! wrong: the agent's end is the *guest's*, which may send endless lines, bytes that are no UTF-8, or nothing; so a line has a
//! longest length and every wait an end. Sources: QEMU's docs/interop/qmp-spec, qemu-ga-ref.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::error::{Error, Peer};
use crate::sys::sock;

/// The longest line, in bytes. QEMU's longest answer (its whole schema) has a quarter of a megabyte; the agent's is the end of a command,
/// with 16 MiB each of what it wrote to stdout and stderr, in base64.
fn longest(peer: Peer) -> usize {
    match peer {
        Peer::Qemu => 8 << 20,
        Peer::Agent => 48 << 20,
    }
}

#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    peer: Peer,
    read: Vec<u8>,
    /// How much of `read` is known to hold no end of a line.
    looked: usize,
}

impl Wire {
    pub(super) fn new(stream: UnixStream, peer: Peer) -> Result<Wire, Error> {
        stream.set_nonblocking(true).map_err(|source| Error::Io { peer, source })?;
        Ok(Wire { stream, peer, read: Vec::new(), looked: 0 })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends bytes; `fd` goes along with the first of them. `what` names the command in errors.
    pub(super) fn send(
        &mut self,
        mut bytes: &[u8],
        mut fd: Option<BorrowedFd<'_>>,
        what: &str,
        end: Deadline,
    ) -> Result<(), Error> {
        while !bytes.is_empty() {
            match sock::send(&self.stream, bytes, fd) {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    fd = None;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait(true, end)? {
                        return Err(self.silent(what, end));
                    }
                }
                Err(source) => return Err(self.failed(source, what)),
            }
        }
        Ok(())
    }

    /// The next line as JSON, `None` when none came in time. Empty lines are passed over.
    pub(super) fn receive(&mut self, what: &str, end: Deadline) -> Result<Option<Value>, Error> {
        loop {
            while let Some(line) = self.line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let peer = self.peer;
                let value = serde_json::from_slice(&line);
                return value.map(Some).map_err(|e| Error::Garbled { peer, why: e.to_string() });
            }
            if !self.fill(what, end)? {
                return Ok(None);
            }
        }
    }

    /// Throws away what has come up to this byte and waits for it; whether it came in time.
    pub(super) fn skip_past(&mut self, byte: u8, what: &str, end: Deadline) -> Result<bool, Error> {
        loop {
            if let Some(at) = self.read.iter().position(|b| *b == byte) {
                self.read.drain(..=at);
                self.looked = 0;
                return Ok(true);
            }
            self.read.clear();
            self.looked = 0;
            if !self.fill(what, end)? {
                return Ok(false);
            }
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let Some(at) = self.read[self.looked..].iter().position(|b| *b == b'\n') else {
            self.looked = self.read.len();
            return None;
        };
        let line = self.read.drain(..=self.looked + at).collect();
        self.looked = 0;
        Some(line)
    }

    /// Takes what has come, or waits for something; whether anything came.
    fn fill(&mut self, what: &str, end: Deadline) -> Result<bool, Error> {
        let longest = longest(self.peer);
        if self.read.len() > longest {
            let why = format!("a line of more than {} MiB", longest >> 20);
            return Err(Error::Garbled { peer: self.peer, why });
        }
        let mut buffer = [0; 16384];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Error::Gone { peer: self.peer, command: what.to_owned() }),
                Ok(n) => {
                    self.read.extend_from_slice(&buffer[..n]);
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait(false, end)? {
                        return Ok(false);
                    }
                }
                Err(source) => return Err(self.failed(source, what)),
            }
        }
    }

    /// Waits until the socket can be read or written; whether it can before the deadline.
    fn wait(&self, write: bool, end: Deadline) -> Result<bool, Error> {
        loop {
            let left = end.left();
            let millis = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            let ready = sock::poll(&[(self.stream.as_fd(), write)], millis);
            if ready.map_err(|source| Error::Io { peer: self.peer, source })?[0] {
                return Ok(true);
            }
            if end.left().is_zero() {
                return Ok(false);
            }
        }
    }

    pub(super) fn silent(&self, what: &str, end: Deadline) -> Error {
        Error::Silent { peer: self.peer, command: what.to_owned(), waited: end.given }
    }

    fn failed(&self, source: io::Error, what: &str) -> Error {
        match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                Error::Gone { peer: self.peer, command: what.to_owned() }
            }
            _ => Error::Io { peer: self.peer, source },
        }
    }
}

/// When a wait ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    given: Duration,
}

impl Deadline {
    pub(super) fn after(given: Duration) -> Deadline {
        Deadline { at: Instant::now() + given, given }
    }

    pub(super) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Wire::new(ours, Peer::Agent).unwrap(), theirs)
    }

    #[test]
    fn lines_come_whole_and_in_order() {
        let (mut wire, mut other) = pair();
        other.write_all(b"\n{\"a\":1}\r\n{\"b\"").unwrap();
        let end = Deadline::after(Duration::from_millis(50));
        assert_eq!(wire.receive("x", end).unwrap().unwrap()["a"], 1);
        assert!(wire.receive("x", end).unwrap().is_none(), "half a line is none");
        other.write_all(b":2}\n").unwrap();
        assert_eq!(wire.receive("x", Deadline::after(Duration::from_secs(5))).unwrap().unwrap()["b"], 2);
    }

    #[test]
    fn an_endless_line_and_what_is_no_json_are_told() {
        let (mut wire, mut other) = pair();
        let writer = std::thread::spawn(move || while other.write_all(&[b'x'; 65536]).is_ok() {});
        let error = wire.receive("x", Deadline::after(Duration::from_secs(30))).unwrap_err();
        assert_eq!(error.to_string(), "the guest agent sent something that is no answer: a line of more than 48 MiB");
        drop(wire);
        writer.join().unwrap();
        let (mut wire, mut other) = pair();
        other.write_all(b"\xff\xfe nonsense\n").unwrap();
        let error = wire.receive("x", Deadline::after(Duration::from_secs(5))).unwrap_err();
        assert!(matches!(error, Error::Garbled { .. }), "{error}");
    }

    #[test]
    fn who_does_not_read_is_silent_and_who_closes_is_gone() {
        let (mut wire, other) = pair();
        let end = Deadline::after(Duration::from_millis(100));
        let error = wire.send(&vec![b' '; 4 << 20], None, "guest-ping", end).unwrap_err();
        assert!(error.to_string().starts_with("the guest agent did not answer 'guest-ping' within 0.1 s"), "{error}");
        drop(other);
        let error = wire.send(b"x", None, "guest-ping", end).unwrap_err();
        assert_eq!(error.to_string(), "the guest agent has ended while it was asked 'guest-ping'");
    }
}
