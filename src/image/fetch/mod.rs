//! A download as a reader: it goes on after breaks, and what arrives is spooled to a file at the same time, so that hashing,
//! decompressing and unpacking run while it arrives, and the successor of a killed process replays the file and asks only for
//! the rest. What a newcomer would get wrong: what was handed on cannot be taken back. When the server begins anew in the
//! middle, its bytes are compared with the spool; if they differ, the stream fails as [`Stream::changed`], and the whole work is
//! begun again by the caller.

pub mod cached;
pub mod spool;
pub mod web;

use std::io::{self, Read};
use std::time::Duration;

pub use spool::Spool;
pub use web::{Url, Web};

use super::{Error, Result, net};

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub silence: Duration,
    /// Before the first repetition; each further one waits twice as long.
    pub pause: Duration,
    /// The longest wait that a server may ask for (`Retry-After`).
    pub longest: Duration,
    /// How often it is tried again without a single new byte.
    pub retries: u32,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: net::CONNECT,
            silence: net::silence(),
            pause: Duration::from_millis(400),
            longest: Duration::from_secs(120),
            retries: net::RETRIES,
        }
    }
}

impl Patience {
    /// Waits before repetition `count` (1 is the first). Errors: a signal has come.
    fn wait(&self, count: u32, asked: Option<Duration>) -> Result<()> {
        let own = self.pause * (1 << count.clamp(1, 6) >> 1);
        net::sleep(asked.map_or(own, |asked| asked.max(own)))
    }
}

/// Why a request stopped: for good, or worth another try.
#[derive(Debug)]
pub enum Stop {
    /// Another try would come to the same.
    Fatal(Error),
    /// It may be better next time.
    Again {
        /// What happened.
        why: String,
        /// When the server wants to be asked again.
        after: Option<Duration>,
    },
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Fatal(error)
    }
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The first byte that comes: where it was asked to go on, or 0.
    pub from: u64,
    /// The size of the whole in bytes, where the server says it.
    pub total: Option<u64>,
    /// What tells this content from a later one: a strong ETag or a date (RFC 9110, 13.1.5).
    pub validator: Option<String>,
}

/// Where one file's bytes come from: an URL, or a blob of a registry.
pub trait Server: Send {
    /// Whom an error names.
    fn place(&self) -> String;
    /// Asks for everything from byte `from` on, if the content is still the one of `validator`, else for all of it.
    fn ask(&mut self, from: u64, validator: Option<&str>) -> std::result::Result<Begun, Stop>;
    /// Puts the next bytes into `piece`, in the place of what is there; `false` at the end.
    fn next(&mut self, piece: &mut Vec<u8>) -> std::result::Result<bool, Stop>;
    /// Turns to another place that has the same file, now that this one has failed too often; `false` when there is none.
    fn elsewhere(&mut self, _failed: &Error) -> bool {
        false
    }
}

/// One file as it arrives.
#[derive(Debug)]
pub struct Stream<S> {
    server: S,
    spool: Spool,
    patience: Patience,
    total: Option<u64>,
    validator: Option<String>,
    /// Bytes handed on.
    at: u64,
    /// Bytes known: handed on, or waiting in the spool or in `piece`.
    have: u64,
    /// Where the connection's next byte stands; below `have` while a server that began anew repeats itself.
    live: u64,
    connected: bool,
    piece: Vec<u8>,
    piece_at: usize,
    failures: u32,
    /// `have` when it failed last.
    progress: u64,
    changed: bool,
}

impl<S: Server> Stream<S> {
    /// Asks the server, for the rest if the spool holds something that it may go on from. Errors: what the server answered; the
    /// spool is kept only if that can help next time.
    pub fn open(server: S, spool: Spool, patience: Patience) -> Result<Stream<S>> {
        let mut stream = Stream {
            server,
            total: None,
            validator: spool.validator().map(str::to_owned),
            at: 0,
            have: spool.have(),
            live: 0,
            spool,
            patience,
            connected: false,
            piece: Vec::new(),
            piece_at: 0,
            failures: 0,
            progress: 0,
            changed: false,
        };
        stream.progress = stream.have;
        match stream.connect() {
            Ok(()) => Ok(stream),
            Err(error) => {
                stream.close(Some(&error));
                Err(error)
            }
        }
    }

    /// The size of the whole in bytes, if the server has said it.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// The server's name for this content.
    pub fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    /// Whether the content became another in the middle: what was handed on is worthless, and a new download may succeed.
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Ends the download. The spool is removed, unless it failed for a reason after which the next try may go on with it.
    pub fn close(self, failed: Option<&Error>) {
        let again = failed.is_some_and(|e| {
            let interrupted = matches!(e, Error::Store(crate::store::Error::Interrupted(_)));
            interrupted || matches!(e, Error::Unreachable { .. })
        });
        if !(again && self.have > 0 && !self.changed && self.spool.can_go_on()) {
            self.spool.remove();
        }
    }

    /// Asks until there is an answer that fits, with pauses.
    fn connect(&mut self) -> Result<()> {
        loop {
            let stop = match self.server.ask(self.have, self.validator.as_deref()) {
                Ok(begun) => return self.begin(begun),
                Err(stop) => stop,
            };
            self.again(stop)?;
        }
    }

    /// Waits before another try, a few times; a try that brought something does not count.
    fn again(&mut self, stop: Stop) -> Result<()> {
        self.connected = false;
        let (why, after) = match stop {
            Stop::Fatal(error) => return Err(error),
            Stop::Again { why, after } => (why, after),
        };
        if self.have > self.progress {
            (self.progress, self.failures) = (self.have, 0);
        }
        self.failures += 1;
        if self.failures > self.patience.retries {
            let error = Error::Unreachable { place: self.server.place(), why };
            self.failures = 0;
            return if self.server.elsewhere(&error) { Ok(()) } else { Err(error) };
        }
        tracing::info!(place = %self.server.place(), at = self.have, "the download broke off ({why}), going on");
        self.patience.wait(self.failures, after)
    }

    fn begin(&mut self, begun: Begun) -> Result<()> {
        let other = self.validator.is_some() && begun.validator.is_some() && self.validator != begun.validator;
        if begun.from != self.have && begun.from == 0 && self.at == 0 {
            // Nothing has been handed on yet: what is in the spool is another content, or cannot be gone on with.
            self.have = 0;
        }
        if (begun.from != self.have && begun.from != 0) || (self.have > 0 && other) {
            return Err(self.has_changed());
        }
        if self.have == 0 {
            self.spool.restart(begun.validator.clone());
            self.validator = begun.validator;
        }
        if self.total.is_some_and(|total| begun.total.is_some_and(|now| now != total)) && self.at > 0 {
            return Err(self.has_changed());
        }
        self.total = begun.total.or(self.total);
        self.live = begun.from;
        self.connected = true;
        Ok(())
    }

    fn has_changed(&mut self) -> Error {
        self.changed = true;
        let why = "its content changed while it was fetched".to_owned();
        Error::Refused { what: "to go on".into(), place: self.server.place(), why }
    }

    /// Puts the next live bytes into `piece`; false at the end.
    fn fill(&mut self) -> Result<bool> {
        loop {
            if !self.connected {
                self.connect()?;
            }
            match self.server.next(&mut self.piece) {
                Ok(true) => {}
                Ok(false) => match self.total {
                    Some(total) if self.live < total => {
                        self.again(Stop::Again { why: "it ended too early".into(), after: None })?;
                        continue;
                    }
                    _ => return Ok(false),
                },
                Err(stop) => {
                    self.again(stop)?;
                    continue;
                }
            }
            let known = usize::try_from(self.have - self.live).unwrap_or(usize::MAX).min(self.piece.len());
            if !self.spool.holds(self.live, &self.piece[..known]) {
                return Err(self.has_changed());
            }
            self.live += self.piece.len() as u64;
            if known < self.piece.len() {
                self.spool.append(&self.piece[known..]);
                self.have = self.live;
                self.piece_at = known;
                return Ok(true);
            }
        }
    }
}

impl<S: Server> Read for Stream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waiting = (self.piece.len() - self.piece_at) as u64;
        if self.at + waiting < self.have {
            // What an earlier process left. It is this process's own file: a failing disk is no reason to ask again.
            let left = usize::try_from(self.have - waiting - self.at).unwrap_or(usize::MAX).min(buffer.len());
            let n = self.spool.read_at(&mut buffer[..left], self.at)?;
            self.at += n as u64;
            return Ok(n);
        }
        if waiting == 0 && !self.fill().map_err(io::Error::other)? {
            self.piece.clear();
            self.piece_at = 0;
            return Ok(0);
        }
        let n = buffer.len().min(self.piece.len() - self.piece_at);
        buffer[..n].copy_from_slice(&self.piece[self.piece_at..self.piece_at + n]);
        self.piece_at += n;
        self.at += n as u64;
        Ok(n)
    }
}
