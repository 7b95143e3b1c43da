//! `console` and `logs`: what a person sees of a guest. What a newcomer would get wrong: any number of clients look at one
//! console at once, and the guest must not notice when they come and go.

use crate::common::fixtures::{BOOKWORM_AMD64, TRIXIE_ARM64};
use crate::common::harness::cases;
use crate::common::pronto::Pronto;
use crate::common::pty::Pty;
use crate::common::{eventually, read, secs};

cases! {
    Together: a_person_logs_in, an_emulated_console, several_clients, stdin_is_no_terminal, the_log_is_bounded_and_whole,
           logs_follow, create_with_console;
}

const DETACH: &[u8] = b"\x1d";

fn guest() -> Pronto {
    let pronto = Pronto::fresh();
    pronto.create("guest", BOOKWORM_AMD64.tree(), &[]);
    pronto
}

fn log_in(pty: &mut Pty) {
    pty.send("\r");
    pty.expect("login:", secs(60));
    pty.send("root\r");
    pty.expect("# ", secs(60));
}

fn a_person_logs_in() {
    let pronto = guest();
    let mut pty = Pty::start(pronto.cmd(["console", "guest"]), 30, 90);
    log_in(&mut pty);
    pty.send("stty size; echo a$((1+1))b\r");
    let shown = pty.expect("a2b", secs(20));
    assert!(shown.contains("30 90"), "the guest knows the window's size: {shown}");
    pty.resize(41, 121);
    pty.send("sleep 0.3; stty size\r");
    pty.expect("41 121", secs(20));
    pty.send("exit\r");
    pty.expect("login:", secs(30));
    pty.send(DETACH);
    assert_eq!(pty.wait(secs(5)), 0, "^] detaches");
    assert_eq!(pty.settings(), pty.initial, "the terminal is as it was");
    assert_eq!(pronto.state("guest"), "running");
    let mut again = Pty::start(pronto.cmd(["console", "guest"]), 24, 80);
    again.send("\r");
    again.expect("login:", secs(30));
    pronto.run(["destroy", "guest"]).ok();
    assert_eq!(again.wait(secs(10)), 0, "a console ends with its domain");
}

fn an_emulated_console() {
    let pronto = Pronto::fresh();
    pronto.create("guest", TRIXIE_ARM64.tree(), &["--arch", "arm64"]);
    let mut pty = Pty::start(pronto.cmd(["console", "guest"]), 24, 80);
    log_in(&mut pty);
    pty.send("uname -m; echo a$((1+1))b\r");
    let shown = pty.expect("a2b", secs(30));
    assert!(shown.contains("aarch64"), "{shown}");
    pty.send("poweroff\r");
    assert_eq!(pty.wait(secs(60)), 0);
    pronto.until_state("guest", "shut-off", secs(10));
}

fn several_clients() {
    let pronto = guest();
    let mut clients: Vec<Pty> = (0..4).map(|_| Pty::start(pronto.cmd(["console", "guest"]), 24, 80)).collect();
    log_in(&mut clients[0]);
    clients[0].send("echo t$((2+2))t\r");
    for client in &mut clients {
        client.expect("t4t", secs(20));
    }
    clients[1].send(DETACH);
    assert_eq!(clients[1].wait(secs(5)), 0);
    clients[2].send("echo u$((3+3))u\r");
    for at in [0, 2, 3] {
        clients[at].expect("u6u", secs(20));
    }
    // One that is stopped and reads nothing must not stop the others.
    clients[3].signal(nix::sys::signal::Signal::SIGSTOP);
    clients[0].send("seq 1 60000; echo v$((4+4))v\r");
    clients[0].expect("v8v", secs(60));
    clients[3].signal(nix::sys::signal::Signal::SIGCONT);
    pronto.run(["destroy", "guest"]).ok();
}

fn stdin_is_no_terminal() {
    let pronto = guest();
    let mut running = pronto.cmd(["console", "guest"]).start();
    running.expect_stdout("login:", secs(20));
    pronto.exec("guest", &["sh", "-c", "echo fresh news >/dev/console"]);
    running.expect_stdout("fresh news", secs(20));
    assert!(!running.is_over(), "the end of stdin does not end it");
    pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
    running.wait(secs(60)).ok();
    pronto.run(["console", "guest"]).exits(1);
    pronto.run(["console", "nobody"]).exits(1).says("nobody is an invalid domain identifier");
}

/// The log keeps the last MiB in whole lines, and the monitor stays small.
fn the_log_is_bounded_and_whole() {
    let pronto = guest();
    let mut client = Pty::start(pronto.cmd(["console", "guest"]), 24, 80);
    pronto.exec(
        "guest",
        &["sh", "-c", "seq -f 'line %08g of the flood, padded to be a little longer' 1 200000 >/dev/console"],
    );
    client.expect("line 00200000", secs(60));
    let out = pronto.run(["logs", "guest"]).ok();
    assert!(out.stdout.len() <= 1 << 20, "{} bytes are more than a MiB", out.stdout.len());
    assert!(out.stdout.len() > 1 << 19, "{} bytes are hardly a MiB", out.stdout.len());
    let (text, flood) = (out.text(), "of the flood, padded to be a little longer");
    assert!(text.contains("line 00200000"), "the end is there");
    assert!(
        text.starts_with("line ") && text.lines().next().is_some_and(|l| l.trim_end().ends_with(flood)),
        "it begins with a whole line: {}",
        &text[..80]
    );
    for pid in pronto.monitors() {
        let status = read(format!("/proc/{pid}/status"));
        let field = |name: &str| {
            status
                .lines()
                .find_map(|l| l.strip_prefix(name))
                .and_then(|v| v.trim().split(' ').next()?.parse::<u64>().ok())
        };
        let cmdline = read(format!("/proc/{pid}/cmdline"));
        // The bar is for the release binary; the debug one has no thin LTO and carries its tables.
        let bar = if cfg!(debug_assertions) { 24 << 10 } else { 5 << 10 };
        assert!(
            cmdline.contains("console") || field("VmRSS:").is_none_or(|kb| kb < bar),
            "the monitor holds {:?} kB",
            field("VmRSS:")
        );
    }
    pronto.run(["destroy", "guest"]).ok();
}

fn logs_follow() {
    let pronto = guest();
    // The prompt comes a moment after the guest is ready.
    eventually(secs(20), "the prompt in the log", || {
        pronto.run(["logs", "guest"]).ok().text().contains("login:").then_some(())
    });
    let mut running = pronto.cmd(["logs", "-f", "guest"]).start();
    pronto.exec("guest", &["sh", "-c", "echo seen by logs >/dev/console"]);
    running.expect_stdout("seen by logs", secs(20));
    pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
    running.wait(secs(60)).ok();
    let out = pronto.run(["logs", "guest"]).ok();
    assert!(out.text().contains("seen by logs"), "a shut-off domain keeps its log: {out}");
    pronto.run(["logs", "nobody"]).exits(1).says("nobody is an invalid domain identifier");
}

fn create_with_console() {
    let pronto = Pronto::fresh();
    let mut pty = Pty::start(pronto.cmd(["create", "-c", "--name", "guest"]).arg(BOOKWORM_AMD64.tree()), 24, 80);
    pty.expect("login:", secs(60));
    pty.send(DETACH);
    assert_eq!(pty.wait(secs(5)), 0);
    assert_eq!(pronto.state("guest"), "running");
    pronto.run(["destroy", "guest"]).ok();
}
