//! Programs started by tests: always with a time limit, in a process group of their own that is killed at the end, with stdout
//! and stderr kept apart. What a newcomer would get wrong: when a command has ended but its stdout stays open, something that
//! it left in the background holds it; a shell pipe around `pronto` would hang there, so that is a failure, not a wait.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::secs;

/// A program about to be run.
#[derive(Debug)]
pub struct Run {
    command: Command,
    line: Vec<OsString>,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

/// How a program ended, and what it said.
#[derive(Debug, Clone)]
pub struct Out {
    /// Its exit status.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: Vec<u8>,
    /// All of stderr.
    pub stderr: Vec<u8>,
    /// From its start to its end.
    pub took: Duration,
    line: String,
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    line: String,
    begin: Instant,
    stdout: Gather,
    stderr: Gather,
    ended: bool,
}

#[derive(Debug)]
struct Gather {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

/// A command by its name or path, in the C locale. The one door for programs in the tests.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "the door of the tests: the crate's own must not hide its faults from them"
    )]
    let mut command = Command::new(program);
    command.env("LC_ALL", "C");
    command
}

impl Run {
    /// A program by its name or path.
    pub fn new(program: impl AsRef<OsStr>) -> Run {
        let line = vec![program.as_ref().to_owned()];
        Run { command: command(program), line, stdin: None, limit: secs(60) }
    }

    /// One more word.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Run {
        self.command.arg(word.as_ref());
        self.line.push(word.as_ref().to_owned());
        self
    }

    /// More words.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(self, words: impl IntoIterator<Item = S>) -> Run {
        words.into_iter().fold(self, |run, word| run.arg(word))
    }

    /// A variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    /// Where it starts.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Run {
        self.command.current_dir(dir);
        self
    }

    /// What it reads; nothing when this is not called.
    #[must_use]
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Run {
        self.stdin = Some(bytes.as_ref().to_vec());
        self
    }

    /// How long it may take (a minute when this is not called).
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Run {
        self.limit = limit;
        self
    }

    /// The same as the last words of another program, which executes them.
    #[must_use]
    pub fn below<'a>(self, words: impl IntoIterator<Item = &'a str>) -> Run {
        let mut words = words.into_iter();
        let mut outer = Run::new(words.next().unwrap_or_default()).args(words).args(&self.line).limit(self.limit);
        for (name, value) in self.command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
            outer.command.env(name, value);
        }
        outer
    }

    /// The words, for a terminal to start.
    pub(super) fn into_words(self) -> Vec<OsString> {
        self.line
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let line = ::pronto::sys::process::shell_line(&self.line);
        self.command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("cannot run {line}: {e}"));
        if let Some(bytes) = self.stdin.take() {
            let mut pipe = child.stdin.take().expect("stdin is a pipe");
            // A program that does not read what it is given is not the writer's business: EPIPE is fine.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        let stdout = Gather::from(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Gather::from(child.stderr.take().expect("stderr is a pipe"));
        Running { child, line, begin: Instant::now(), stdout, stderr, ended: false }
    }

    /// Runs it to its end. Panics when that takes longer than the limit.
    pub fn run(self) -> Out {
        let limit = self.limit;
        self.start().wait(limit)
    }
}

impl Gather {
    fn from(mut pipe: impl Read + Send + 'static) -> Gather {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(n) = pipe.read(&mut buffer) {
                if n == 0 {
                    break;
                }
                sink.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        Gather { bytes, thread: Some(thread) }
    }

    fn so_far(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    /// Whether the pipe was closed by everybody within `limit`.
    fn closed(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.thread.as_ref().is_some_and(|t| !t.is_finished()) {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.thread.take().is_none_or(|t| t.join().is_ok())
    }
}

impl Running {
    /// Its PID.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a PID fits")
    }

    /// Sends a signal to the program alone, not to its children.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// What it wrote to stdout until now.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.so_far()).into_owned()
    }

    /// What it wrote to stderr until now.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("waitpid").is_some()
    }

    /// Waits until stdout holds `text`.
    pub fn expect_stdout(&mut self, text: &str, limit: Duration) {
        super::eventually(limit, &format!("'{text}' on stdout of {}", self.line), || {
            self.stdout().contains(text).then_some(())
        });
    }

    /// Waits for its end. Panics with what it said when `limit` passes first, or when somebody keeps its stdout open.
    pub fn wait(mut self, limit: Duration) -> Out {
        let end = self.begin + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waitpid") {
                break status;
            }
            if Instant::now() > end {
                self.kill_group();
                panic!(
                    "{} took longer than {} s\nstdout: {}\nstderr: {}",
                    self.line,
                    limit.as_secs(),
                    self.stdout(),
                    self.stderr()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = self.begin.elapsed();
        self.ended = true;
        let closed = self.stdout.closed(secs(5)) & self.stderr.closed(secs(5));
        let (stdout, stderr) = (self.stdout.so_far(), self.stderr.so_far());
        let out = Out { status, stdout, stderr, took, line: self.line.clone() };
        self.kill_group();
        assert!(closed, "something that it started keeps stdout or stderr open: {out}");
        out
    }

    fn kill_group(&mut self) {
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.kill_group();
        }
    }
}

impl Out {
    /// Stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The exit status as a shell shows it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Panics unless it ended with 0.
    #[track_caller]
    pub fn ok(self) -> Out {
        self.exits(0)
    }

    /// Panics unless it ended with `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Out {
        assert!(self.code() == code, "wanted exit status {code}: {self}");
        self
    }

    /// Panics unless stderr holds `text` (case is not looked at).
    #[track_caller]
    pub fn says(self, text: &str) -> Out {
        assert!(self.err().to_lowercase().contains(&text.to_lowercase()), "wanted '{text}' on stderr: {self}");
        self
    }

    /// Panics unless stdout, without the white space around it, is `text`.
    #[track_caller]
    pub fn prints(self, text: &str) -> Out {
        assert!(self.text().trim() == text, "wanted '{text}' on stdout: {self}");
        self
    }

    /// Panics unless stdout is empty.
    #[track_caller]
    pub fn silent(self) -> Out {
        assert!(self.stdout.is_empty(), "wanted nothing on stdout: {self}");
        self
    }
}

impl std::fmt::Display for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = |text: String| {
            if text.len() > 6000 { format!("…{}", &text[text.floor_char(text.len() - 6000)..]) } else { text }
        };
        write!(
            f,
            "{}\n  exit status {} after {:.1} s\n  stdout: {}\n  stderr: {}",
            self.line,
            self.code(),
            self.took.as_secs_f64(),
            cut(self.text()),
            cut(self.err())
        )
    }
}

/// The nearest start of a character at or below a byte index (std's own is newer than our oldest compiler).
trait FloorChar {
    fn floor_char(&self, index: usize) -> usize;
}

impl FloorChar for String {
    fn floor_char(&self, index: usize) -> usize {
        (0..=index).rev().find(|&i| self.is_char_boundary(i)).unwrap_or(0)
    }
}
