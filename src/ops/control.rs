//! How verbs talk to a running domain's monitor, and wait for its end. What a newcomer would get wrong: a monitor that does
//! not answer must not make a verb hang; whoever wants the domain gone kills the monitor then, and the sweep does the rest.

use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Ctx, Error, Interrupt, Result};
use crate::monitor::protocol::{self, Event, Request, SOCKET};
use crate::store::domains::Domain;
use crate::sys::{ns, sock};

/// A connection to a monitor.
#[derive(Debug)]
pub struct Line {
    reader: BufReader<UnixStream>,
    monitor: Option<OwnedFd>,
}

impl Line {
    /// Connects to the monitor of a running domain. Errors: it has no control socket (a `run` has none), or has just ended.
    pub fn open(ctx: &Ctx, domain: &Domain) -> Result<Line> {
        let pid = domain.run.as_ref().map_or(0, |r| r.monitor);
        let monitor = ns::pidfd(pid).ok();
        let stream = sock::connect(&ctx.store.run_dir(&domain.record.uuid), SOCKET)
            .map_err(|e| Error::general(format!("cannot reach the monitor of domain '{}'", domain.name)).because(e))?;
        Ok(Line { reader: BufReader::new(stream), monitor })
    }

    /// Asks something and returns the answer, waited for at most 10 s. Errors: refused, with why.
    pub fn ask(&mut self, request: &Request) -> Result<Event> {
        let lost = |e: std::io::Error| Error::general("lost the domain's monitor").because(e);
        protocol::send(self.reader.get_mut(), request).map_err(lost)?;
        let ready = sock::poll(&[(self.reader.get_ref().as_fd(), false)], 10_000).map_err(lost)?;
        if !ready[0] {
            return Err(Error::general("the domain's monitor does not answer"));
        }
        match protocol::next_event(&mut self.reader).map_err(lost)? {
            Some(Event::Refused { why }) => Err(Error::general(why)),
            Some(event) => Ok(event),
            None => Err(Error::general("the domain's monitor has ended")),
        }
    }

    /// The next event, until `deadline`. `None`: time is up or the monitor has ended.
    pub fn next(&mut self, deadline: Instant, interrupt: &mut Interrupt) -> Result<Option<Event>> {
        while self.reader.buffer().is_empty() {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let fds = [(self.reader.get_ref().as_fd(), false), (interrupt.as_fd(), false)];
            let ready = sock::poll(&fds, i32::try_from(left).unwrap_or(i32::MAX))
                .map_err(|e| Error::general("cannot wait").because(e))?;
            interrupt.check()?;
            if ready[0] {
                break;
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
        protocol::next_event(&mut self.reader).map_err(|e| Error::general("lost the domain's monitor").because(e))
    }

    /// Waits for the monitor's end, which is the end of everything of the domain. Returns whether it came in time.
    pub fn wait_gone(&self, limit: Duration, interrupt: &mut Interrupt) -> Result<bool> {
        let Some(monitor) = &self.monitor else { return Ok(true) };
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let fds = [(monitor.as_fd(), false), (interrupt.as_fd(), false)];
            let ready = sock::poll(&fds, i32::try_from(left).unwrap_or(i32::MAX))
                .map_err(|e| Error::general("cannot wait").because(e))?;
            interrupt.check()?;
            if ready[0] {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }

    /// The socket, for the console.
    pub fn into_stream(self) -> UnixStream {
        self.reader.into_inner()
    }
}
