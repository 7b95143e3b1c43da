//! `exec`: one more command in a running domain. Most of it runs on the shared guests, native and emulated. What a newcomer
//! would get wrong: a command entered into a guest must look as if the guest had started it; its users, its cgroup, its clean
//! environment, no descriptor of ours.

use nix::sys::signal::Signal;

use super::guest::{marker, processes_with, until_awake, until_sleeping};
use crate::common::fixtures::BOOKWORM_AMD64;
use crate::common::harness::cases;
use crate::common::pronto::{BINARY, Pronto, shared, shared_arm64, shared_native};
use crate::common::pty::Pty;
use crate::common::run::Run;
use crate::common::secs;
use crate::common::snapshot::cgroup_roots;

cases! {
    Together: users, places_and_variables, statuses, bytes, nothing_of_ours_goes_in, a_terminal, no_terminal,
            the_domains_cgroup, signals_end_it, our_binary_is_out_of_reach, by_domid, without_dbus;
}

fn both(test: impl Fn(&Pronto, &str)) {
    for name in [shared_native(), shared_arm64()] {
        test(shared(), name);
    }
}

fn users() {
    both(|pronto, name| {
        let id =
            |user: &str| pronto.run(["exec", "-u", user, name, "--", "sh", "-c", "id -un; id -u; id -g; echo $HOME"]);
        id("tester").ok().prints("tester\n1000\n1000\n/home/tester");
        id("1000").ok().prints("tester\n1000\n1000\n/home/tester");
        id("tester:daemon").ok().prints("tester\n1000\n1\n/home/tester");
        id("root").ok().prints("root\n0\n0\n/root");
        let out = id("nobody-at-all");
        assert!(out.code() != 0 && out.err().contains("nobody-at-all"), "{out}");
    });
}

fn places_and_variables() {
    both(|pronto, name| {
        pronto.run(["exec", "-w", "/usr/share", name, "--", "pwd"]).ok().prints("/usr/share");
        pronto.run(["exec", "-e", "A=1 2", "-e", "B=", name, "--", "sh", "-c", "echo \"$A|$B|\""]).ok().prints("1 2||");
        let out =
            pronto.cmd(["exec", name, "--", "env"]).env("PRONTO_TEST_LEAK", "yes").env("LD_PRELOAD", "").run().ok();
        assert!(!out.text().contains("LEAK") && !out.text().contains("LD_PRELOAD"), "the environment is clean: {out}");
        assert!(out.text().lines().any(|l| l.starts_with("PATH=")), "{out}");
        let out = pronto.run(["exec", "-w", "/no/such/place", name, "--", "pwd"]);
        assert!(out.code() != 0 && out.err().contains("/no/such/place"), "{out}");
    });
}

fn statuses() {
    both(|pronto, name| {
        let sh = |script: &str| pronto.run(["exec", name, "--", "sh", "-c", script]);
        sh("exit 0").ok();
        sh("exit 42").exits(42);
        sh("kill -SEGV $$").exits(128 + 11);
        pronto.run(["exec", name, "--", "no-such-program"]).exits(127).says("no-such-program");
        pronto.run(["exec", name, "--", "/etc/passwd"]).exits(126).says("/etc/passwd");
        pronto.run(["exec", name, "--", "/usr"]).exits(126);
        pronto.run(["exec", name, "echo", "--", "-x", "--help"]).ok().prints("-- -x --help");
        pronto.run(["exec", name]).exits(125);
    });
}

fn bytes() {
    let bytes: Vec<u8> = (0..1_000_000u32).flat_map(|n| n.wrapping_mul(2_246_822_519).to_le_bytes()).collect();
    both(|pronto, name| {
        let out = pronto.cmd(["exec", "-i", name, "--", "cat"]).stdin(&bytes).run().ok();
        assert!(out.stdout == bytes, "{} bytes of {} came back", out.stdout.len(), bytes.len());
        pronto.run(["exec", name, "--", "sh", "-c", "printf out; printf err >&2"]).ok().prints("out").says("err");
        // A reader that goes away ends the writer, as in any pipe.
        let script = format!("{BINARY} --root {} exec {name} -- yes | head -n 1", pronto.root().display());
        Run::new("sh").args(["-c", &script]).limit(secs(20)).run().ok().prints("y");
    });
}

fn nothing_of_ours_goes_in() {
    both(|pronto, name| {
        let fds = pronto.exec(name, &["sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"]);
        assert_eq!(fds, "0 1 2 3", "3 is ls's own");
        let out = pronto.exec(name, &["sh", "-c", "cat /proc/self/attr/current 2>/dev/null; grep -E '^(Seccomp|CapBnd|NoNewPrivs)' /proc/1/status /proc/self/status | cut -d: -f2-"]);
        let lines: Vec<&str> = out.lines().collect();
        let (init, own) = lines.split_at(lines.len() / 2);
        assert_eq!(own, init, "as fenced in as the guest's init");
    });
}

fn a_terminal() {
    both(|pronto, name| {
        let mut pty = Pty::start(pronto.cmd(["exec", "-it", name, "--", "sh"]), 33, 99);
        pty.send("stty size; tty; echo do''ne\r");
        let shown = pty.expect("done", secs(30));
        assert!(shown.contains("33 99"), "the window's size is known inside: {shown}");
        assert!(shown.contains("/dev/pts/"), "a terminal of the guest's own: {shown}");
        assert_ne!(pty.settings(), pty.initial, "the terminal is raw meanwhile");
        pty.resize(44, 111);
        pty.send("stty size\r");
        pty.expect("44 111", secs(30));
        pty.send("exit 5\r");
        assert_eq!(pty.wait(secs(30)), 5);
        assert_eq!(pty.settings(), pty.initial, "the terminal is as it was");
    });
}

fn no_terminal() {
    both(|pronto, name| {
        pronto.run(["exec", name, "--", "tty"]).exits(1).prints("not a tty");
    });
}

/// On the host, the command is a member of the domain's cgroup, so that limits, pause and destroy reach it.
fn the_domains_cgroup() {
    both(|pronto, name| {
        let word = marker();
        let mut running = pronto.cmd(["exec", name, "--", "sleep", &word]).start();
        until_sleeping(&mut running, &word);
        let group = pronto.cgroup(name, "").expect("a cgroup in the v2 hierarchy");
        let root = cgroup_roots()
            .into_iter()
            .find(|r| group.starts_with(r) && r.join("cgroup.procs").exists())
            .expect("its root");
        for pid in processes_with(&word) {
            let text = crate::common::read(format!("/proc/{pid}/cgroup"));
            let path = text.lines().find_map(|l| l.strip_prefix("0::/")).expect("a place in v2");
            assert!(root.join(path).starts_with(&group), "/{path} is not below {}", group.display());
        }
        running.signal(Signal::SIGTERM);
        until_awake(&word);
    });
}

fn signals_end_it() {
    both(|pronto, name| {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
            let word = marker();
            let script = format!("sleep {word} & wait");
            let mut running = pronto.cmd(["exec", name, "--", "sh", "-c", &script]).start();
            until_sleeping(&mut running, &word);
            running.signal(signal);
            until_awake(&word);
            running.wait(secs(10)).exits(128 + signal as i32);
        }
    });
}

/// A guest's root that looks through /proc while commands are entered must never find a way to our file.
fn our_binary_is_out_of_reach() {
    let (pronto, name) = (shared(), shared_native());
    let before = std::fs::metadata(BINARY).unwrap();
    let script = "for i in $(seq 400); do for e in /proc/[0-9]*/exe; do case $(readlink $e) in *pronto*) \
                  (: >>$e) 2>/dev/null && echo \"can write $e\";; esac; done; done; echo watched";
    let mut watcher = pronto.cmd(["exec", name, "--", "sh", "-c", script]).start();
    while !watcher.is_over() {
        pronto.run(["exec", name, "--", "true"]).ok();
    }
    watcher.wait(secs(120)).ok().prints("watched");
    let after = std::fs::metadata(BINARY).unwrap();
    assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
}

fn by_domid() {
    both(|pronto, name| {
        let domid = pronto.domid(name).to_string();
        pronto.run(["exec", &domid, "--", "hostname"]).ok().prints(name);
        pronto.run(["domname", &domid]).ok().prints(name);
    });
}

fn without_dbus() {
    let pronto = Pronto::fresh();
    pronto.create("guest", BOOKWORM_AMD64.tree(), &[]);
    pronto.exec(
        "guest",
        &["sh", "-c", "systemctl stop dbus.socket dbus.service; systemctl mask --runtime dbus.socket dbus.service"],
    );
    pronto.run(["exec", "-u", "tester", "guest", "--", "id", "-un"]).ok().prints("tester");
    pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
}
