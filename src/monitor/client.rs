//! One connection to the monitor. What a newcomer would get wrong: a client that does not read must never stop the guest or
//! grow the monitor: what it may have pending is bounded, and then it is dropped.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::protocol::{self, Event, Request};

/// What may wait for a slow client, in bytes.
const PENDING: usize = 256 << 10;

/// What a connection has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has not asked for anything that lasts.
    Fresh,
    /// It is attached to the console.
    Console,
    /// It is told what happens.
    Watcher,
    /// It started the domain: the domain dies with it until it releases it.
    Starter,
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// What it has become.
    pub role: Role,
    /// It has gone, or was dropped.
    pub gone: bool,
}

impl Client {
    /// Takes a connection over.
    pub fn new(stream: UnixStream, role: Role) -> io::Result<Client> {
        stream.set_nonblocking(true)?;
        Ok(Client { stream, incoming: Vec::new(), outgoing: Vec::new(), role, gone: false })
    }

    /// Whether something waits to be sent.
    pub fn wants_to_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Reads what there is.
    pub fn receive(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.gone = true;
                    return;
                }
                Ok(n) => self.incoming.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
            if self.incoming.len() > PENDING {
                self.gone = true;
                return;
            }
        }
    }

    /// The next request, when a whole line has come. `Some(Err)` for a line that is none.
    pub fn next_request(&mut self) -> Option<Result<Request, String>> {
        let end = self.incoming.iter().position(|&b| b == b'\n')?;
        let line: Vec<u8> = self.incoming.drain(..=end).collect();
        Some(serde_json::from_slice(&line).map_err(|e| e.to_string()))
    }

    /// The next frame of a console client.
    pub fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        protocol::take_frame(&mut self.incoming)
    }

    /// Tells it something.
    pub fn tell(&mut self, event: &Event) {
        self.send(&protocol::line(event));
    }

    /// Sends bytes, now or when it can take them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
        self.flush();
        if self.outgoing.len() > PENDING {
            self.gone = true;
        }
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        while !self.outgoing.is_empty() && !self.gone {
            match self.stream.write(&self.outgoing) {
                Ok(n) => {
                    self.outgoing.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.gone = true,
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
