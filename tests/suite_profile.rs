//! Accounts of a pid namespace, with the real kernel: what is written down, of whom, and that it ends with who wanted it. What a newcomer
//! would get wrong: nobody turns an account off; that the kernel does it is what is shown here. Needs root, for an account of
//! the host's kernel, and unshare(1).

#![allow(clippy::print_stderr, reason = "a test that leaves something out says so")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use pronto::domain::accounts::{self, Process};
use pronto::sys::acct::Account;
use pronto::sys::process::{Tool, find_program};
use pronto::sys::{mount, ns};

/// A pid namespace whose init runs a line of shell for each line that it is told.
struct Space {
    outer: Child,
    init: i32,
}

impl Space {
    fn new() -> Option<Space> {
        let unshare = find_program("unshare").filter(|_| nix::unistd::geteuid().is_root());
        let Some(unshare) = unshare else {
            eprintln!("not tested, for it needs root and unshare(1)");
            return None;
        };
        let words = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"];
        let mut tool = Tool::new(unshare).args(words).arg("while read -r line; do eval \"$line\"; echo; done");
        tool.command().stdin(Stdio::piped()).stdout(Stdio::piped());
        let outer = tool.spawn().unwrap();
        let mut space = Space { outer, init: 0 };
        space.does("true");
        let children = format!("/proc/{0}/task/{0}/children", space.outer.id());
        space.init = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
        Some(space)
    }

    /// Runs a line to its end.
    fn does(&mut self, line: &str) {
        writeln!(self.outer.stdin.as_mut().unwrap(), "{line}").unwrap();
        self.outer.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }

    /// Begins an account of it.
    fn begin(&self, place: std::os::fd::BorrowedFd<'_>) -> Result<Vec<u8>, pronto::sys::process::ToolError> {
        let start = ns::start_time(self.init).unwrap();
        let words = [self.init.to_string(), start.to_string(), place.as_raw_fd().to_string()];
        let mut tool = Tool::new(env!("CARGO_BIN_EXE_pronto")).arg("__account").args(words);
        ns::keep_for_child(tool.command(), place.as_raw_fd());
        tool.output()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}

/// The account when it has a program of this name; the kernel may write it a moment later.
fn until(account: &mut Account, name: &str) -> Vec<Process> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let (bytes, whole) = account.read().unwrap();
        let all = accounts::parse(&bytes).unwrap();
        assert!(whole && Instant::now() < end, "no {name} in {all:?}");
        if all.iter().any(|process| process.name == name) {
            return all;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_ends_in_a_namespace_is_written_down() {
    let Some(mut space) = Space::new() else { return };
    let mut account = Account::new().unwrap();
    space.begin(account.place()).unwrap();
    space.does("sh -c 'i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; true & wait'");
    space.does("sed --version >/dev/null");
    let all = until(&mut account, "sed");
    let busy = all.iter().find(|process| process.name == "sh" && !process.forked).unwrap();
    assert!(busy.micros > 20_000 && busy.parent == 1, "{busy:?}");
    let family = accounts::descendants(&all, busy.pid);
    let chosen: Vec<&Process> = all.iter().zip(&family).filter(|(_, is)| **is).map(|(process, _)| process).collect();
    assert!(chosen.len() == 2 && chosen[0].parent == busy.pid, "a subshell and its parent: {chosen:?}");
    let sed = all.iter().find(|process| process.name == "sed").unwrap();
    assert!(sed.kib > 0 && sed.kib < 100 << 10, "{sed:?}");
}

#[test]
fn an_account_ends_with_who_wanted_it() {
    let Some(mut space) = Space::new() else { return };
    let mut account = Account::new().unwrap();
    // The same file system by another mount, which stays when ours goes.
    let other = match mount::clone_tree_at(Some(account.place()), Path::new(""), false) {
        Ok(other) => other,
        Err(error) => {
            eprintln!("not tested: this kernel clones no mount that is attached nowhere ({error})");
            return;
        }
    };
    let other = Path::new("/proc/self/fd").join(other.as_fd().as_raw_fd().to_string());
    space.begin(account.place()).unwrap();
    space.does("sed --version >/dev/null");
    until(&mut account, "sed");
    let length = || File::open(other.join("account")).unwrap().metadata().unwrap().len();
    let before = length();
    assert!(before > 0);
    space.does("sed --version >/dev/null");
    assert!(length() > before, "it is the same file");
    drop(account);
    let after = length();
    space.does("sed --version >/dev/null; sed --version >/dev/null");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(length(), after, "nothing is written down any more");
}

#[test]
fn whose_account_it_is_must_be_sure() {
    let Some(space) = Space::new() else { return };
    let account = Account::new().unwrap();
    let words = [space.init.to_string(), "1".to_owned(), account.place().as_raw_fd().to_string()];
    let mut tool = Tool::new(env!("CARGO_BIN_EXE_pronto")).arg("__account").args(words);
    ns::keep_for_child(tool.command(), account.place().as_raw_fd());
    let error = tool.output().unwrap_err().to_string();
    assert!(error.contains("the guest has ended"), "another process with its PID: {error}");
}
