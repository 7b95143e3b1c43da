//! `pronto __apart LINES PROGRAM WORD…`: runs a program of the host's, as root, where foreign programs can be started without
//! the host's registry knowing: in a user namespace that has the host's own ids, and a registry of its own. A bootstrap of a
//! foreign Debian runs like this. What a newcomer would get wrong: this is no fence. Its root is the host's root for files;
//! what it lacks are rights over the kernel (device nodes, the host's mounts). All of it ends with this process.
//! Source: user_namespaces(7), pid_namespaces(7).

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sched::CloneFlags;

use crate::binfmt;
use crate::sys::process;
use crate::sys::userns::{self, Range};
use crate::sys::{mount, ns};

/// All ids there are, as they are.
const EVERYBODY: Range = Range { first: 0, count: u32::MAX };

/// Runs it; the exit status is the program's, 125 when it could not be started.
pub fn main(words: &[OsString]) -> u8 {
    match run(words) {
        Ok(status) => u8::try_from(status).unwrap_or(255),
        Err(why) => {
            tracing::error!("{why}");
            let _ = io::Write::write_all(&mut io::stderr(), format!("E: {why}\n").as_bytes());
            125
        }
    }
}

fn run(words: &[OsString]) -> io::Result<i32> {
    let [lines, command @ ..] = words else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
    let lines: Vec<String> = serde_json::from_slice(lines.as_bytes())?;
    let (mapped, tell) = process::pipe()?;
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    let held = process::above(tell.as_fd(), 3)?;
    drop(tell);
    let child = ns::spawn(flags, || {
        let error = inside(mapped, &lines, command);
        let _ = io::Write::write_all(&mut io::stderr(), format!("E: {error}\n").as_bytes());
        125
    })?;
    userns::map(child.pid.as_raw(), EVERYBODY)?;
    nix::unistd::write(&held, b"m")?;
    Ok(ns::shell_status(child.wait()?))
}

/// In the child; returns only what went wrong.
fn inside(mut mapped: std::fs::File, lines: &[String], command: &[OsString]) -> io::Error {
    let prepared = (|| -> io::Result<Vec<CString>> {
        io::Read::read_exact(&mut mapped, &mut [0])?;
        mount::make_slave()?;
        mount::proc(Path::new("/proc"))?;
        // Mounted where everybody looks for it, and so held as long as this mount namespace is there.
        let registry = binfmt::private(lines)?;
        mount::attach(registry.as_fd(), Path::new("/proc/sys/fs/binfmt_misc"))?;
        let nul = |_| io::Error::from(io::ErrorKind::InvalidInput);
        command.iter().map(|w| CString::new(w.as_bytes()).map_err(nul)).collect()
    })();
    let words = match prepared {
        Ok(words) if !words.is_empty() => words,
        Ok(_) => return io::Error::from(io::ErrorKind::InvalidInput),
        Err(error) => return error,
    };
    match nix::unistd::execvp(&words[0], &words) {
        Err(error) => error.into(),
        Ok(never) => match never {},
    }
}
