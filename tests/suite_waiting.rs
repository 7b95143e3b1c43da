//! Real processes that want an image which does not come: one fetches, another waits for it, and either may give up. What a
//! newcomer would get wrong: the verbs that undo what they began collect signals instead of dying of them, so a wait that does
//! not look at them would go on until the download ends. No guest is started: nobody gets the image in time.

#[path = "common/http.rs"]
mod http;
#[path = "common/images.rs"]
mod images;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pronto::sys::process::Tool;

/// A gate that is closed until somebody opens it: the server answers only then.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn pass(&self) {
        let open = self.0.lock().unwrap();
        drop(self.1.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

/// A process of ours, killed with the test when it fails in between.
struct Pronto(Child);

impl Pronto {
    fn start(store: &Path, words: &[&str]) -> Pronto {
        let mut tool = Tool::new(env!("CARGO_BIN_EXE_pronto")).args(words);
        let command = tool.command();
        command.env("PRONTO_ROOT", store).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Pronto(command.spawn().unwrap())
    }

    /// What it ended with, and how long that took.
    fn end(&mut self, patience: Duration) -> (ExitStatus, Duration) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return (status, start.elapsed());
            }
            assert!(start.elapsed() < patience, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Pronto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir)
        .map(|dir| dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default()
}

#[test]
fn a_signal_ends_the_wait_and_leaves_the_other_alone() {
    if !nix::unistd::geteuid().is_root() {
        let _ = std::io::stderr().write_all(b"left out: only root has a store\n");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let (gate, tar) = (Arc::new(Gate::default()), images::Tar::new().dir("etc").file("etc/name", b"waited for").end());
    let server = {
        let gate = Arc::clone(&gate);
        http::Server::start(move |request| {
            gate.pass();
            if request.path == "/system.tar" {
                http::Response::ok(tar.clone())
            } else {
                http::Response::status(404, &[], "no checksums stand beside it")
            }
        })
    };
    let url = server.url("system.tar");
    let mut first = Pronto::start(&store, &["pull", &url]);
    let begin = Instant::now();
    while server.requests().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the first one asks for it");
        std::thread::sleep(Duration::from_millis(5));
    }
    let claims = names(&store.join("run/claims"));
    assert_eq!(claims.len(), 1, "{claims:?}");

    let cases: [(&[&str], Signal); 5] = [
        (&["create", &url], Signal::SIGINT),
        (&["create", "--name", "other", &url], Signal::SIGTERM),
        (&["new", &url], Signal::SIGHUP),
        (&["run", &url, "--", "true"], Signal::SIGINT),
        (&["pull", &url], Signal::SIGTERM),
    ];
    for (words, signal) in cases {
        let mut second = Pronto::start(&store, words);
        let mut said = BufReader::new(second.0.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, format!("another pronto is fetching {url}: waiting for it\n"), "{words:?}");
        kill(Pid::from_raw(second.0.id() as i32), signal).unwrap();
        let (status, took) = second.end(Duration::from_secs(20));
        // What a shell shows for a process that a signal ended, too.
        let code = status.code().or(status.signal().map(|n| 128 + n));
        assert_eq!(code, Some(128 + signal as i32), "{words:?}: {status}");
        assert!(took < Duration::from_secs(2), "{words:?}: {took:?}");
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        let interrupted = format!("pronto: interrupted by signal {}\n", signal as i32);
        assert_eq!(rest, if words[0] == "pull" { String::new() } else { interrupted }, "{words:?}");
        assert_eq!(first.0.try_wait().unwrap(), None, "the other one works on");
        assert_eq!(names(&store.join("run/claims")), claims, "{words:?}");
        assert_eq!(names(&store.join("domains")), [""; 0], "{words:?}");
    }

    gate.open();
    let (status, _) = first.end(Duration::from_secs(60));
    assert!(status.success(), "{status}");
    let asked = server.requests().iter().filter(|r| r.path == "/system.tar").count();
    assert_eq!(asked, 1, "nobody else has asked for it");
    assert_eq!(names(&store.join("layers")).len(), 3, "a layer, its record, and what it holds");
    assert_eq!(names(&store.join("run/claims")), [""; 0]);
}

#[test]
fn a_signal_ends_ones_own_fetch() {
    if !nix::unistd::geteuid().is_root() {
        let _ = std::io::stderr().write_all(b"left out: only root has a store\n");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let gate = Arc::new(Gate::default());
    let server = {
        let gate = Arc::clone(&gate);
        http::Server::start(move |_| {
            gate.pass();
            http::Response::ok("")
        })
    };
    for (n, (image, signal)) in
        [(server.url("system.tar"), Signal::SIGINT), (format!("{}/x:t", server.host()), Signal::SIGTERM)]
            .into_iter()
            .enumerate()
    {
        let mut only = Pronto::start(&store, &["create", &image]);
        let begin = Instant::now();
        while server.requests().len() <= n {
            assert!(begin.elapsed() < Duration::from_secs(60), "it asks for it");
            std::thread::sleep(Duration::from_millis(5));
        }
        kill(Pid::from_raw(only.0.id() as i32), signal).unwrap();
        let (status, took) = only.end(Duration::from_secs(20));
        assert_eq!(status.code(), Some(128 + signal as i32), "{image}: {status}");
        assert!(took < Duration::from_secs(2), "{image}: {took:?}");
        let mut said = String::new();
        only.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.ends_with(&format!("pronto: interrupted by signal {}\n", signal as i32)), "{image}: {said}");
        for place in ["run/claims", "domains", "layers"] {
            assert_eq!(names(&store.join(place)), [""; 0], "{image}: {place}");
        }
    }
    gate.open();
}
