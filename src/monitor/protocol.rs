//! What commands and monitors say to each other: one JSON object a line, both ways. What a newcomer would get wrong: after
//! `console` the connection is no longer lines: the monitor sends the console's bytes as they are, and the client sends
//! frames (a type byte, a big-endian length of two bytes, the payload).

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

/// The name of the control socket in a domain's run directory.
pub const SOCKET: &str = "control";

/// How a guest shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It is asked to power off, and killed when it has not done so in time.
    Poweroff,
    /// It is asked to reboot.
    Reboot,
    /// It is killed now.
    Kill,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Attach to the console; `rows` of 0 means no terminal.
    Console {
        /// Rows of the client's terminal.
        rows: u16,
        /// Its columns.
        columns: u16,
    },
    /// Stop the guest; for `poweroff` it is killed after `millis`.
    Stop {
        /// How.
        how: How,
        /// Time for the guest to do it, in milliseconds.
        millis: u64,
    },
    /// Tell this connection when the guest is ready again, or has ended.
    Watch,
    /// Only the starter: the domain is the user's now, and goes on when this connection ends.
    Release,
}

/// What the monitor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// Done as asked. For a console: `log` bytes of the console's log come before what is sent now.
    Ok {
        /// Size of the console's log, in bytes.
        log: u64,
    },
    /// Not done, because.
    Refused {
        /// Why.
        why: String,
    },
    /// The guest's init runs.
    Started {
        /// The domid.
        domid: u32,
    },
    /// The guest is up.
    Ready,
    /// The guest reboots: a `Started` follows.
    Rebooting,
    /// The domain could not be started; everything is cleaned up.
    Failed {
        /// Why.
        why: String,
    },
    /// The domain has ended; everything is cleaned up.
    Ended {
        /// `poweroff`, `destroyed`, `crashed`.
        how: String,
    },
}

/// Frame types from a console client.
pub mod frame {
    /// Bytes typed.
    pub const INPUT: u8 = b'i';
    /// Rows and columns, two bytes each, big-endian.
    pub const SIZE: u8 = b's';
}

/// Makes one frame. `payload` is at most 65535 bytes.
pub fn encode_frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut out = vec![kind];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&payload[..usize::from(length)]);
    out
}

/// Takes one whole frame from the front of `buffer`.
pub fn take_frame(buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let length = usize::from(u16::from_be_bytes([*buffer.get(1)?, *buffer.get(2)?]));
    if buffer.len() < 3 + length {
        return None;
    }
    let kind = buffer[0];
    let payload = buffer[3..3 + length].to_vec();
    buffer.drain(..3 + length);
    Some((kind, payload))
}

/// One object as a line.
pub fn line(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Sends one request.
pub fn send(stream: &mut impl Write, request: &Request) -> io::Result<()> {
    stream.write_all(&line(request))
}

/// Reads the next event. `None` at the end of the connection.
pub fn next_event(reader: &mut impl BufRead) -> io::Result<Option<Event>> {
    let mut text = String::new();
    if reader.read_line(&mut text)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&text).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut() {
        let mut wire = encode_frame(frame::INPUT, b"ls\r");
        wire.extend(encode_frame(frame::SIZE, &[0, 24, 0, 80]));
        let mut buffer = Vec::new();
        let mut got = Vec::new();
        for byte in wire {
            buffer.push(byte);
            got.extend(take_frame(&mut buffer));
        }
        assert_eq!(got, [(frame::INPUT, b"ls\r".to_vec()), (frame::SIZE, vec![0, 24, 0, 80])]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn events_are_lines() {
        let wire = [line(&Event::Started { domid: 3 }), line(&Event::Ready)].concat();
        let mut reader = wire.as_slice();
        assert_eq!(next_event(&mut reader).unwrap(), Some(Event::Started { domid: 3 }));
        assert_eq!(next_event(&mut reader).unwrap(), Some(Event::Ready));
        assert_eq!(next_event(&mut reader).unwrap(), None);
    }
}
