//! One-off commands: `pronto IMAGE COMMAND` boots a throw-away domain, `pronto run` runs without an init. What a newcomer would
//! get wrong: nothing of either may be left when the command is over, however it ended; the runner looks after each test.

use nix::sys::signal::Signal;

use super::guest::{field, marker, until_awake, until_sleeping};
use crate::common::elf::{Cpu, program};
use crate::common::fixtures::{self, BOOKWORM_AMD64, BOOKWORM_ARM64};
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, scratch};
use crate::common::{eventually, secs};

cases! {
    Together: hostnamectl_of_an_emulated_guest, options_belong_to_the_command, statuses_pass_through, bytes_pass_through,
           run_without_an_init, a_single_static_program_runs, signals_end_a_booted_one_off, signals_end_a_run,
           volumes_and_variables, who_forgets_does_not_wait_for_the_disk;
}

/// What systemd and its kin write on a console.
const CHATTER: [&str; 5] = ["[  OK  ]", "Welcome to", "systemd[1]", "login:", "Started "];

fn hostnamectl_of_an_emulated_guest() {
    let (pronto, tree) = (Pronto::fresh(), BOOKWORM_ARM64.tree());
    let out = pronto.cmd(["--arch", "arm64"]).arg(&tree).arg("hostnamectl").limit(secs(400)).run().ok();
    assert_eq!(field(&out.text(), "Virtualization"), "systemd-nspawn", "{out}");
    assert!(field(&out.text(), "Operating System").starts_with("Debian GNU/Linux 12"), "{out}");
    assert_eq!(field(&out.text(), "Architecture"), "arm64", "{out}");
    for word in CHATTER {
        assert!(!out.err().contains(word), "stderr is free of guest chatter: {out}");
    }
    let out = pronto
        .cmd(["--quiet", "--arch", "arm64"])
        .arg(&tree)
        .args(["systemctl", "is-system-running"])
        .limit(secs(400))
        .run();
    let out = out.ok().prints("running");
    assert!(out.stderr.is_empty(), "--quiet says nothing: {out}");
    assert!(pronto.rows().is_empty(), "nothing stays in the list");
}

fn options_belong_to_the_command() {
    let (pronto, tree) = (Pronto::fresh(), BOOKWORM_AMD64.tree());
    let out = pronto.cmd([&tree]).args(["hostnamectl", "--version"]).run().ok();
    assert!(out.text().starts_with("systemd 252"), "hostnamectl's version, not pronto's: {out}");
    pronto.cmd([&tree]).args(["--", "echo", "--", "--help"]).run().ok().prints("-- --help");
}

fn statuses_pass_through() {
    let (pronto, tree) = (Pronto::fresh(), BOOKWORM_AMD64.tree());
    let run = |words: &[&str]| pronto.cmd(["run"]).arg(&tree).arg("--").args(words).run();
    run(&["sh", "-c", "exit 7"]).exits(7);
    run(&["sh", "-c", "kill -TERM $$"]).exits(128 + 15);
    run(&["no-such-program"]).exits(127).says("no-such-program");
    run(&["/etc/passwd"]).exits(126).says("/etc/passwd");
    pronto
        .cmd([&tree])
        .args(["sh", "-c", "echo out; echo err >&2; kill -KILL $$"])
        .run()
        .exits(128 + 9)
        .prints("out")
        .says("err");
    pronto.cmd([&tree]).arg("no-such-program").run().exits(127);
    pronto.cmd(["run", "/no/such/tree", "--", "true"]).run().exits(125);
}

fn bytes_pass_through() {
    let (pronto, tree) = (Pronto::fresh(), BOOKWORM_ARM64.tree());
    let bytes: Vec<u8> = (0..1_500_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let out = pronto.cmd(["run", "-i", "--arch", "arm64"]).arg(&tree).args(["--", "cat"]).stdin(&bytes).run().ok();
    assert!(out.stdout == bytes, "run: {} bytes of {} came back", out.stdout.len(), bytes.len());
    let script = "cat; echo end >&2";
    let out = pronto.cmd([BOOKWORM_AMD64.tree()]).args(["sh", "-c", script]).stdin(&bytes).run().ok().says("end");
    assert!(out.stdout == bytes, "one-off: {} bytes of {} came back", out.stdout.len(), bytes.len());
}

fn run_without_an_init() {
    let (pronto, tree) = (Pronto::fresh(), BOOKWORM_ARM64.tree());
    let run = |words: &[&str]| {
        pronto.cmd(["run", "--arch", "arm64"]).args(&words[..words.len() - 1]).run_in(&tree, words[words.len() - 1])
    };
    run(&["uname -m"]).ok().prints("aarch64");
    run(&["-u", "tester", "id -un; id -u"]).ok().prints("tester\n1000");
    run(&["-w", "/usr/share", "pwd"]).ok().prints("/usr/share");
    run(&["-e", "COLOUR=deep blue", "echo $COLOUR"]).ok().prints("deep blue");
    run(&["--network", "none", "ip -o link show | wc -l"]).ok().prints("1");
    run(&["touch /written; ls /written"]).ok().prints("/written");
    assert!(!tree.join("written").exists(), "the image is never written to");
    pronto
        .cmd(["run", "--boot", "--arch", "arm64"])
        .arg(&tree)
        .args(["--", "systemctl", "is-system-running"])
        .limit(secs(400))
        .run()
        .ok()
        .prints("running");
}

/// `SHELL -c SCRIPT` in an image.
trait RunIn {
    fn run_in(self, tree: &std::path::Path, script: &str) -> crate::common::run::Out;
}

impl RunIn for crate::common::run::Run {
    fn run_in(self, tree: &std::path::Path, script: &str) -> crate::common::run::Out {
        self.arg(tree).args(["--", "sh", "-c", script]).run()
    }
}

fn a_single_static_program_runs() {
    let pronto = Pronto::fresh();
    for (cpu, arch) in [(Cpu::Arm64, "arm64"), (Cpu::Amd64, "amd64")] {
        let tree = scratch("static");
        ::pronto::sys::fs::write_volatile(&tree.join("hello"), &program(cpu, b"hello\n", 3), 0o755).unwrap();
        pronto.cmd(["run", "--arch", arch]).arg(&tree).arg("/hello").run().exits(3).prints("hello");
        assert_eq!(std::fs::read_dir(&tree).unwrap().count(), 1, "the image is never written to");
    }
}

/// INT, TERM, HUP and KILL of the client end what it started within two seconds.
fn signals_end_a_booted_one_off() {
    let (pronto, tree) = (Pronto::fresh(), BOOKWORM_AMD64.tree());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
        let word = marker();
        let mut running = pronto.cmd([&tree]).args(["sleep", &word]).start();
        until_sleeping(&mut running, &word);
        running.signal(signal);
        until_awake(&word);
        running.wait(secs(30)).exits(128 + signal as i32);
        eventually(secs(10), "the list is empty", || pronto.rows().is_empty().then_some(()));
    }
}

fn signals_end_a_run() {
    let (pronto, tree) = (Pronto::fresh(), fixtures::BARE_ARM64.tree());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
        let word = marker();
        let mut running = pronto.cmd(["run", "--arch", "arm64"]).arg(&tree).args(["--", "sleep", &word]).start();
        until_sleeping(&mut running, &word);
        running.signal(signal);
        until_awake(&word);
        running.wait(secs(30)).exits(128 + signal as i32);
    }
    eventually(secs(10), "the list is empty", || pronto.rows().is_empty().then_some(()));
}

fn volumes_and_variables() {
    let (pronto, tree, share) = (Pronto::fresh(), BOOKWORM_AMD64.tree(), scratch("share"));
    crate::common::write(share.join("in"), "from the host\n");
    let at = |flags: &str| format!("{}:/mnt/share{flags}", share.display());
    let run = |volume: &str, script: &str| {
        pronto.cmd(["run", "-v", volume]).arg(&tree).args(["--", "sh", "-c", script]).run()
    };
    run(&at(""), "cat /mnt/share/in; echo back >/mnt/share/out").ok().prints("from the host");
    assert_eq!(crate::common::read(share.join("out")), "back\n");
    let out = run(&at(":ro"), "echo no >/mnt/share/refused");
    assert_ne!(out.code(), 0, "a read-only volume takes nothing: {out}");
    assert!(!share.join("refused").exists());
    run("/no/such/place:/mnt/x", "true").exits(125).says("/no/such/place");
}

/// fsync(2) on /dev/null is EINVAL; where it is not done at all it succeeds.
fn who_forgets_does_not_wait_for_the_disk() {
    let (pronto, tree, share) = (Pronto::fresh(), BOOKWORM_AMD64.tree(), scratch("share"));
    let volume = format!("{}:/mnt/share", share.display());
    let read_only = format!("{volume}:ro");
    for (name, options, waits) in [
        ("kept", &[][..], true),
        ("shares", &["--rm", "-v", &volume], true),
        ("reads", &["--rm", "-v", &read_only], false),
        ("lost", &["--rm"], false),
    ] {
        pronto.create(name, &tree, options);
        let refused = |who: &str, code: i32| assert_eq!(code != 0, waits, "{who} in a domain that is {name}");
        let sync = ["sync", "/dev/null"];
        refused("exec", pronto.cmd(["exec", name, "--"]).args(sync).run().code());
        let unit = ["systemd-run", "--quiet", "--wait"];
        refused("a service", pronto.cmd(["exec", name, "--"]).args(unit).args(sync).run().code());
        pronto.run(["destroy", name]).ok();
    }
    let run =
        |volume: &[&str]| pronto.cmd(["run"]).args(volume).arg(&tree).args(["--", "sync", "/dev/null"]).run().code();
    assert_eq!([run(&[]), run(&["-v", &read_only])], [0, 0]);
    assert_ne!(run(&["-v", &volume]), 0, "a database on a volume is not lost");
}
