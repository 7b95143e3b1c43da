//! Programs that must answer in time: some wait for ever, for a daemon that is not there or a guest that does not listen. What a newcomer
//! would get wrong: the end of the program counts, not the end of its pipes, which a daemon that it left behind may hold for days.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use super::process::{Tool, ToolError, end_of};
use super::{ns, sock};

/// Runs a program to its end, without a terminal or input, and returns all of it, whatever its status. Errors: not started, as
/// read(2), or [`ToolError::TooLong`]: then it was killed, and it alone.
pub fn answer(mut tool: Tool, limit: Duration) -> Result<Output, ToolError> {
    let program = tool.program();
    tool.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tool.spawn()?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    match gather(&mut child, &mut [&mut stdout, &mut stderr], limit) {
        Ok(true) => {
            let status = child.wait().map_err(|source| ToolError::Start { program, source })?;
            Ok(Output { status, stdout, stderr })
        }
        ended => {
            let _ = child.kill();
            let _ = child.wait();
            Err(match ended {
                Err(source) => ToolError::Start { program, source },
                Ok(_) => ToolError::TooLong { program, seconds: limit.as_secs(), stderr: end_of(&stderr) },
            })
        }
    }
}

/// Reads stdout and stderr until the child has ended; false: time is up.
fn gather(child: &mut Child, into: &mut [&mut Vec<u8>; 2], limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    let ended = ns::pidfd(i32::try_from(child.id()).map_err(io::Error::other)?)?;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("no pipes"));
    };
    for fd in [stdout.as_raw_fd(), stderr.as_raw_fd()] {
        // SAFETY: a flag of a descriptor that is ours.
        if unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let mut open = [true; 2];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let pipes = [stdout.as_fd(), stderr.as_fd()];
        let mut fds = vec![(ended.as_fd(), false)];
        fds.extend(pipes.iter().zip(open).filter(|(_, open)| *open).map(|(fd, _)| (*fd, false)));
        let over = sock::poll(&fds, i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1))?[0];
        open[0] = open[0] && drain(&mut stdout, into[0])?;
        open[1] = open[1] && drain(&mut stderr, into[1])?;
        if over {
            return Ok(true);
        }
    }
}

/// Reads what is there; false: that was all.
fn drain(pipe: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    match pipe.read_to_end(into) {
        Ok(_) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Tool {
        Tool::new("sh").args(["-c", script])
    }

    #[test]
    fn all_of_it_whatever_the_status() {
        let out = answer(shell("echo a; echo b >&2; exit 3"), Duration::from_secs(20)).unwrap();
        assert_eq!((out.status.code(), &out.stdout[..], &out.stderr[..]), (Some(3), &b"a\n"[..], &b"b\n"[..]));
        // More than a pipe holds.
        let out = answer(shell("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"), Duration::from_secs(20));
        assert_eq!(out.map(|o| (o.stdout.len(), o.stderr.len())).unwrap(), (300_000, 300_000));
        assert!(matches!(answer(Tool::new("/nonexistent"), Duration::from_secs(1)), Err(ToolError::Start { .. })));
    }

    #[test]
    fn one_that_does_not_end_is_killed() {
        let begun = Instant::now();
        let error = answer(shell("echo $$; echo why >&2; exec sleep 60"), Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "sh did not answer within 1 s and was killed: why");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn what_it_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        let out = answer(shell("sleep 5 & echo done"), Duration::from_secs(60)).unwrap();
        assert_eq!(out.stdout, b"done\n");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}
