//! A terminal with a program in it, driven as a person would: wait for text, type, change the window. What a newcomer would get
//! wrong: text is only looked for behind the last text that was found, and what is typed is echoed, so wait for the program's
//! answer, not for one's own words.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::run::{Run, command};

/// A program in a terminal of its own.
#[derive(Debug)]
pub struct Pty {
    child: Child,
    master: File,
    slave: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
    at: usize,
    over: Option<i32>,
    /// The terminal's settings before the program was started.
    pub initial: String,
}

impl Pty {
    /// Starts `run` in a terminal of so many rows and columns; it is the terminal's controlling process.
    pub fn start(run: Run, rows: u16, cols: u16) -> Pty {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).expect("a pty");
        let copy = || Stdio::from(pair.slave.try_clone().expect("dup"));
        let initial = settings_of(&pair.slave);
        // setsid(1) makes the terminal the controlling one; it execs in place, since it leads no process group here.
        let child = command("setsid")
            .args(["--ctty", "--wait"])
            .args(run.into_words())
            .env("TERM", "vt100")
            .stdin(copy())
            .stdout(copy())
            .stderr(copy())
            .spawn()
            .expect("setsid starts");
        let master = File::from(pair.master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (master.try_clone().expect("dup"), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = reader.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Pty { child, master, slave: pair.slave, seen, at: 0, over: None, initial }
    }

    /// Everything on the screen so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// Waits for `text` behind what was found before; returns what stood between. Panics with the screen otherwise.
    pub fn expect(&mut self, text: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            let found = {
                let seen = self.seen.lock().unwrap();
                let rest = &seen[self.at..];
                rest.windows(text.len())
                    .position(|w| w == text.as_bytes())
                    .map(|i| (i, String::from_utf8_lossy(&rest[..i]).into_owned()))
            };
            if let Some((at, before)) = found {
                self.at += at + text.len();
                return before;
            }
            assert!(
                Instant::now() < end,
                "no '{text}' on the terminal within {} s; it shows:\n{}",
                limit.as_secs(),
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types.
    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.master.write_all(text.as_ref()).expect("the terminal takes it");
    }

    /// Changes the window's size; the program gets SIGWINCH.
    pub fn resize(&self, rows: u16, cols: u16) {
        let status = command("stty")
            .args(["rows", &rows.to_string(), "cols", &cols.to_string()])
            .stdin(Stdio::from(self.slave.as_fd().try_clone_to_owned().expect("dup")))
            .status();
        assert!(status.is_ok_and(|s| s.success()), "stty changes the window's size");
    }

    /// The terminal's settings as stty(1) prints them: to see that a program put them back.
    pub fn settings(&self) -> String {
        settings_of(&self.slave)
    }

    /// The program's PID.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a PID fits")
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// Waits for the program's end; returns its exit status as a shell shows it.
    pub fn wait(&mut self, limit: Duration) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("waitpid") {
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                self.over = Some(code);
                return code;
            }
            assert!(
                Instant::now() < end,
                "it did not end within {} s; the terminal shows:\n{}",
                limit.as_secs(),
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn settings_of(terminal: &OwnedFd) -> String {
    let stdin = Stdio::from(terminal.try_clone().expect("dup"));
    let out = command("stty").arg("-g").stdin(stdin).output().expect("stty runs");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

impl Drop for Pty {
    fn drop(&mut self) {
        if self.over.is_none() {
            let _ = nix::sys::signal::killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
