//! The one door for programs: every external tool is started through [`Tool`], which fixes the locale, logs the shell-quoted
//! line and keeps the end of stderr for the error. What a newcomer would get wrong: a program that must become our child in
//! new namespaces is not started here but by `sys::ns`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// Whether one of the standard streams of this process is a file or a disk, which keeps what is written to it.
pub fn streams_are_stored() -> bool {
    use nix::sys::stat::{SFlag, fstat};
    let streams = [fstat(std::io::stdin()), fstat(std::io::stdout()), fstat(std::io::stderr())];
    streams.iter().flatten().any(|s| {
        let kind = SFlag::from_bits_truncate(s.st_mode & SFlag::S_IFMT.bits());
        kind == SFlag::S_IFREG || kind == SFlag::S_IFBLK
    })
}

/// A program about to be run, with its words.
#[derive(Debug)]
pub struct Tool {
    command: Command,
    line: Vec<OsString>,
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program's name.
        program: String,
        /// As execve(2).
        source: io::Error,
    },
    /// It ended badly; `stderr` holds the last lines it said.
    #[error("{program} failed ({status}){}", tail(.stderr))]
    Failed {
        /// The program's name.
        program: String,
        /// Its exit status.
        status: ExitStatus,
        /// The end of what it wrote to stderr, at most 2 KiB.
        stderr: String,
    },
    /// It did not end in time and was killed.
    #[error("{program} did not answer within {seconds} s and was killed{}", tail(.stderr))]
    TooLong {
        /// The program's name.
        program: String,
        /// How long it had.
        seconds: u64,
        /// The end of what it wrote to stderr, at most 2 KiB.
        stderr: String,
    },
}

fn tail(stderr: &str) -> String {
    if stderr.trim().is_empty() { String::new() } else { format!(": {}", stderr.trim()) }
}

impl Tool {
    /// A tool by its name (looked up on PATH) or path.
    pub fn new(program: impl AsRef<OsStr>) -> Tool {
        #[expect(clippy::disallowed_methods, reason = "this is the door")]
        let mut command = Command::new(program.as_ref());
        command.env("LC_ALL", "C").stdin(Stdio::null());
        Tool { command, line: vec![program.as_ref().to_owned()] }
    }

    /// Adds one word.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Tool {
        self.command.arg(word.as_ref());
        self.line.push(word.as_ref().to_owned());
        self
    }

    /// Adds words.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Tool {
        for word in words {
            self = self.arg(word);
        }
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Tool {
        self.command.env(name.as_ref(), value.as_ref());
        self
    }

    /// The command beneath, for what is not wrapped here (descriptors, pre_exec).
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Runs it to its end; stdout is returned. Errors: not started, or a status other than 0.
    pub fn output(mut self) -> Result<Vec<u8>, ToolError> {
        self.log();
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.command.output().map_err(|source| self.start_error(source))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(ToolError::Failed { program: self.program(), status: output.status, stderr: end_of(&output.stderr) })
    }

    /// Runs it to its end with `input` on stdin and returns all of it, whatever its status. Errors: not started, or as read(2).
    pub fn answer(mut self, input: &[u8]) -> Result<Output, ToolError> {
        self.log();
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().map_err(|source| self.start_error(source))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not want to hear it closes its end: its status says what it thinks of it.
            let _ = io::Write::write_all(&mut stdin, input);
        }
        child.wait_with_output().map_err(|source| self.start_error(source))
    }

    /// Has the program killed when the thread that starts it ends, however that ends, and lets it hear every signal. What it
    /// starts itself is not covered: give it a pid namespace of its own (`unshare --kill-child`) where that matters.
    #[must_use]
    pub fn tied(mut self) -> Tool {
        let parent = std::process::id() as libc::pid_t;
        let tie = move || {
            // SAFETY: numbers only; both calls are async-signal-safe.
            let alone = unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) != 0
                    || libc::getppid() != parent
            };
            super::signal::unblock_all();
            if alone { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
        };
        // SAFETY: the closure allocates nothing and takes no lock; it makes plain system calls.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut self.command, tie) };
        self
    }

    /// Lets the program have an open file, under the number that it has here; it is closed here when the tool is.
    #[must_use]
    pub fn inherit(mut self, fd: OwnedFd) -> Tool {
        let keep = move || {
            // SAFETY: numbers only; fcntl(2) is async-signal-safe, and the closure holds the file open.
            let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) };
            if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: the closure allocates nothing and takes no lock; it makes one plain system call, in the child alone.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut self.command, keep) };
        self
    }

    /// Runs it to its end with each line of stdout and stderr given to `line` as it comes (carriage returns end lines too).
    pub fn stream(self, line: impl FnMut(&str)) -> Result<(), ToolError> {
        self.stream_until(None, line).map(|_| ())
    }

    /// As [`Tool::stream`]; when `stop` can be read before it ends, it is killed. Returns whether it ended by itself.
    pub fn stream_until(mut self, stop: Option<BorrowedFd<'_>>, mut line: impl FnMut(&str)) -> Result<bool, ToolError> {
        self.log();
        let (mut reader, writer) = pipe().map_err(|e| self.start_error(e))?;
        let copy = writer.try_clone().map_err(|e| self.start_error(e))?;
        self.command.stdout(copy).stderr(writer);
        let mut child = self.command.spawn().map_err(|source| self.start_error(source))?;
        // The command keeps its own copies of the pipe's end: they must go, or the reader never sees the end.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut kept = Vec::new();
        let mut pending = Vec::new();
        let mut buffer = [0; 4096];
        let mut stopped = false;
        loop {
            if let Some(stop) = stop.filter(|_| !stopped) {
                // A signal of another kind ends the wait with nothing ready: the read below waits then.
                if super::sock::poll(&[(stop, false), (reader.as_fd(), false)], -1).is_ok_and(|ready| ready[0]) {
                    // What it says from now on is read all the same: the end of the pipe means that nobody is left.
                    let _ = child.kill();
                    stopped = true;
                }
            }
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
                Ok(n) => {
                    kept.extend_from_slice(&buffer[..n]);
                    let excess = kept.len().saturating_sub(8192);
                    kept.drain(..excess);
                    for &byte in &buffer[..n] {
                        if byte == b'\n' || byte == b'\r' {
                            line(&String::from_utf8_lossy(&pending));
                            pending.clear();
                        } else {
                            pending.push(byte);
                        }
                    }
                }
            }
        }
        if !pending.is_empty() {
            line(&String::from_utf8_lossy(&pending));
        }
        let status = child.wait().map_err(|source| self.start_error(source))?;
        if stopped || status.success() {
            return Ok(!stopped);
        }
        Err(ToolError::Failed { program: self.program(), status, stderr: end_of(&kept) })
    }

    /// Starts it and returns the child; stdio is as set by [`Tool::command`].
    pub fn spawn(mut self) -> Result<Child, ToolError> {
        self.log();
        self.command.spawn().map_err(|source| self.start_error(source))
    }

    /// Becomes the program; returns only why it could not. Errors: as execve(2).
    pub fn execute(mut self) -> io::Error {
        self.log();
        std::os::unix::process::CommandExt::exec(&mut self.command)
    }

    /// The program, as it was named.
    pub fn program(&self) -> String {
        self.line[0].to_string_lossy().into_owned()
    }

    fn start_error(&self, source: io::Error) -> ToolError {
        ToolError::Start { program: self.program(), source }
    }

    fn log(&self) {
        tracing::info!(target: "pronto::run", "{}", shell_line(&self.line));
    }
}

/// A pipe, both ends close-on-exec: (reader, writer). `std::io::pipe` is younger than our oldest compiler.
pub fn pipe() -> io::Result<(std::fs::File, std::fs::File)> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((reader.into(), writer.into()))
}

/// The same open file under a number of at least `lowest`, close-on-exec. Source: fcntl(2), F_DUPFD_CLOEXEC.
pub fn above(fd: BorrowedFd<'_>, lowest: i32) -> io::Result<OwnedFd> {
    let raw = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Forks into new namespaces a child that becomes another program by `child`, which returns only why it could not. Errors: that; nothing
/// is left of the child then. The caller has one thread ([`spawn`](super::ns::spawn)).
pub fn spawn_reporting(
    flags: nix::sched::CloneFlags,
    child: impl FnOnce() -> io::Error,
) -> io::Result<super::ns::Process> {
    let (mut reader, low) = pipe()?;
    // Out of the way of what the child puts at low numbers.
    let writer = std::fs::File::from(above(low.as_fd(), 16)?);
    drop(low);
    let process = super::ns::spawn(flags, move || {
        let mut writer = writer;
        let error = child();
        let _ = io::Write::write_all(&mut writer, error.to_string().as_bytes());
        127
    })?;
    // The pipe closes with the exec, or carries why there was none.
    let mut why = String::new();
    io::Read::read_to_string(&mut reader, &mut why)?;
    if why.is_empty() {
        return Ok(process);
    }
    let _ = process.wait();
    Err(io::Error::other(why))
}

/// The last 2 KiB, as text.
pub(super) fn end_of(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(2048);
    String::from_utf8_lossy(&bytes[start..]).into_owned()
}

/// Words as one line that a shell would split into the same words.
pub fn shell_line<S: AsRef<OsStr>>(words: &[S]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| shell_quote(w.as_ref())).collect();
    quoted.join(" ")
}

fn shell_quote(word: &OsStr) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"@%_+=:,./-".contains(b);
    let text = word.to_string_lossy();
    if !word.is_empty() && word.as_bytes().iter().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The program's path, when `name` is an executable file on PATH (a name with a slash is taken as it is).
/// `sbin` directories are looked at too: a user's PATH often lacks them.
pub fn find_program(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return is_executable(Path::new(name)).then(|| PathBuf::from(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|p| is_executable(p))
}

/// Gives back the pages of programs and libraries that this process has touched so far: a monitor has read in most of the
/// program to start, and then needs little of it for hours. They are clean, so whatever is needed again is simply mapped
/// again from the page cache. Source: madvise(2), MADV_DONTNEED on private file mappings.
pub fn drop_text_pages() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(clean_mapping) {
        // SAFETY: the range is a mapping of a file that nobody has written to: code, or the read-only data at the start of
        // a file (relocated data, which is private and dirty, comes later in the file and is left alone).
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Start and length of a mapping that holds only what is in its file: `start-end perms offset dev inode path` (proc(5)).
fn clean_mapping(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (perms, offset) = (words.next()?, words.next()?);
    let (_device, _inode) = (words.next()?, words.next()?);
    let file = words.next()?.starts_with('/');
    let start = usize::from_str_radix(start, 16).ok()?;
    let length = usize::from_str_radix(end, 16).ok()? - start;
    let clean = perms == "r-xp" || (perms == "r--p" && offset.bytes().all(|b| b == b'0'));
    (file && clean).then_some((start, length))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_the_program_said() {
        let error = Tool::new("sh").args(["-c", "echo why >&2; exit 3"]).output().unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status: 3): why");
        let error = Tool::new("/nonexistent/tool").output().unwrap_err();
        assert!(error.to_string().starts_with("cannot run /nonexistent/tool: No such file"), "{error}");
    }

    #[test]
    fn streaming_gives_lines_and_ends() {
        let mut lines = Vec::new();
        Tool::new("sh").args(["-c", "echo a; echo b >&2; printf c"]).stream(|l| lines.push(l.to_owned())).unwrap();
        lines.sort();
        assert_eq!(lines, ["a", "b", "c"]);
    }

    #[test]
    fn only_clean_pages_are_given_back() {
        let map = |line| clean_mapping(line);
        assert_eq!(map("1000-3000 r-xp 00005000 fd:00 12 /bin/x"), Some((0x1000, 0x2000)));
        assert_eq!(map("1000-3000 r--p 00000000 fd:00 12 /bin/x"), Some((0x1000, 0x2000)));
        for other in [
            "1000-3000 r--p 00007000 fd:00 12 /bin/x",
            "1000-3000 rw-p 00000000 fd:00 12 /bin/x",
            "1000-3000 r-xp 00000000 00:00 0 [vdso]",
        ] {
            assert_eq!(map(other), None, "{other}");
        }
        drop_text_pages();
        assert_eq!(shell_line(&["still here"]), "'still here'");
    }

    #[test]
    fn a_tool_is_stopped_with_all_that_it_holds() {
        let (stop, mut tell) = pipe().unwrap();
        let teller = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            io::Write::write_all(&mut tell, b"x").unwrap();
            tell
        });
        let begun = std::time::Instant::now();
        let ended = Tool::new("sleep").arg("30").tied().stream_until(Some(stop.as_fd()), |_| ()).unwrap();
        assert!(!ended && begun.elapsed().as_secs() < 10);
        let _ = teller.join();
    }

    #[test]
    fn a_file_is_inherited_by_one_program_alone() {
        let (mut reader, writer) = pipe().unwrap();
        let writer = OwnedFd::from(writer);
        let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
        let without = Tool::new("sh").args(["-c", "test ! -e \"$1\"", "sh", &path]).output();
        assert!(without.is_ok(), "{without:?}");
        Tool::new("sh").args(["-c", "echo here >\"$1\"", "sh", &path]).inherit(writer).output().unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "here\n");
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(shell_line(&["a b", "c", "it's", ""]), r"'a b' c 'it'\''s' ''");
    }
}
