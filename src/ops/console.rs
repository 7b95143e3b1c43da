//! `console` and `logs`: what a guest's console shows. What a newcomer would get wrong: the backlog comes from the log file,
//! the rest from the monitor, and the monitor says how long the log was at the joint, so that no byte is missing or double.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::control::Line;
use super::exec::write_all;
use super::{Ctx, Error, Interrupt, Kind, Result};
use crate::domain::{DomainRef, State};
use crate::monitor::log::{last_lines, seek_to_kept};
use crate::monitor::protocol::{encode_frame, frame};
use crate::monitor::{Event, Request};
use crate::sys::{pty, sock};

/// `^]`: leaves the console, as in xl.
const ESCAPE: u8 = 0x1d;

/// Attaches the terminal to a domain's console until `^]` or its end. With a stdin that is no terminal it prints the backlog
/// and follows, and ends with the domain.
pub fn console(ctx: &Ctx, which: &DomainRef) -> Result<()> {
    super::need_root("console")?;
    super::sweep::sweep(ctx)?;
    let mut interrupt = Interrupt::collect()?;
    let domain = ctx.store.resolve(which)?.filter(|d| d.state != State::ShutOff);
    let domain = domain.ok_or_else(|| Error::no_domain(which))?;
    let name = domain.name.as_str();
    if domain.state == State::Paused {
        let hint = format!("let it go on first: pronto unpause {name}; what it has said: pronto logs {name}");
        return Err(Error::state(name, domain.state, "its console cannot be attached to", &hint));
    }
    let mut line = Line::open(ctx, &domain)?;
    let mut log = File::open(ctx.store.domain(name).join("console.log")).ok();
    let terminal = pty::is_terminal(io::stdin());
    let (rows, columns) = pty::size(io::stdin().as_fd()).filter(|_| terminal).unwrap_or((0, 0));
    let Event::Ok { log: length } = line.ask(&Request::Console { rows, columns })? else {
        return Err(Error::general("the monitor did not understand"));
    };
    let backlog = log.as_mut().map(|log| read_up_to(log, length)).unwrap_or_default();
    let shown = if terminal { last_lines(&backlog, 10) } else { &backlog };
    let lost = |e: io::Error| Error::general("cannot write the console's output").because(e);
    write_all(io::stdout().as_fd(), shown).map_err(lost)?;
    let raw = if terminal { pty::Raw::enter(io::stdin().as_fd()).ok() } else { None };
    let ended = relay(&line.into_stream(), terminal, (rows, columns), &mut interrupt);
    drop(raw);
    match ended {
        // A follower that is told to stop has done its work.
        Err(e) if !terminal && matches!(e.kind(), Kind::Interrupted(_)) => Err(e),
        other => other,
    }
}

fn read_up_to(log: &mut File, length: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if seek_to_kept(log, length).is_err() {
        return bytes;
    }
    let done = log.stream_position().unwrap_or_default();
    let _ = log.take(length.saturating_sub(done)).read_to_end(&mut bytes);
    bytes
}

fn relay(
    stream: &std::os::unix::net::UnixStream,
    terminal: bool,
    mut size: (u16, u16),
    interrupt: &mut Interrupt,
) -> Result<()> {
    let lost = |e: io::Error| Error::general("lost the console").because(e);
    let stdin = io::stdin();
    let mut buffer = [0; 16 << 10];
    loop {
        let mut fds = vec![(stream.as_fd(), false), (interrupt.as_fd(), false)];
        if terminal {
            fds.push((stdin.as_fd(), false));
        }
        let ready = sock::poll(&fds, if terminal { 250 } else { -1 }).map_err(lost)?;
        if ready[0] {
            let mut reader = stream;
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => write_all(io::stdout().as_fd(), &buffer[..n]).map_err(lost)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(()),
            }
        }
        interrupt.check()?;
        if ready.get(2) == Some(&true) {
            let n = nix::unistd::read(stdin.as_fd(), &mut buffer).unwrap_or(0);
            // xenconsole(1): the escape counts when it comes alone.
            if n == 0 || buffer[..n] == [ESCAPE] {
                return Ok(());
            }
            write_all(stream.as_fd(), &encode_frame(frame::INPUT, &buffer[..n])).map_err(lost)?;
        }
        let now = pty::size(stdin.as_fd()).filter(|_| terminal).unwrap_or(size);
        if now != size {
            size = now;
            let bytes = [size.0.to_be_bytes(), size.1.to_be_bytes()].concat();
            write_all(stream.as_fd(), &encode_frame(frame::SIZE, &bytes)).map_err(lost)?;
        }
    }
}

/// Writes the console's log to stdout, and goes on as it grows with `follow` until the domain ends.
pub fn logs(ctx: &Ctx, which: &DomainRef, follow: bool) -> Result<()> {
    super::need_root("logs")?;
    super::sweep::sweep(ctx)?;
    let mut interrupt = Interrupt::collect()?;
    let domain = ctx.store.resolve(which)?.ok_or_else(|| Error::no_domain(which))?;
    let path = ctx.store.domain(domain.name.as_str()).join("console.log");
    let failed = |e: io::Error| Error::general(format!("cannot read {}", path.display())).because(e);
    let mut log = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    let length = log.metadata().map_err(failed)?.len();
    seek_to_kept(&mut log, length).map_err(failed)?;
    loop {
        // Asked before reading: what is written until the end is still read after it.
        let over = !follow || !ctx.store.load(domain.name.as_str())?.is_some_and(|d| d.state.is_active());
        copy_rest(&mut log).map_err(failed)?;
        if over {
            return Ok(());
        }
        if replaced(&log, &path) {
            log = File::open(&path).map_err(failed)?;
            skip_what_was_shown(&mut log).map_err(failed)?;
        }
        let _ = sock::poll(&[(interrupt.as_fd(), false)], 100);
        interrupt.check()?;
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn copy_rest(log: &mut File) -> io::Result<()> {
    let mut buffer = [0; 64 << 10];
    loop {
        match log.read(&mut buffer)? {
            0 => return Ok(()),
            n => write_all(io::stdout().as_fd(), &buffer[..n])?,
        }
    }
}

fn replaced(log: &File, path: &Path) -> bool {
    match (log.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(now)) => ours.ino() != now.ino(),
        _ => false,
    }
}

/// A log that was cut holds lines that were shown already: it is followed from its end.
fn skip_what_was_shown(log: &mut File) -> io::Result<()> {
    log.seek(SeekFrom::End(0)).map(|_| ())
}
