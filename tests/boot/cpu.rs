//! The CPU that an emulated guest sees: the same in each of its processes, whatever they do to their environment, and another one in the
//! guest beside it. What a newcomer would get wrong: a variable would pass half of these, so every way that loses it is tried.

use crate::common::fixtures::{BARE_ARM64, BOOKWORM_AMD64, BOOKWORM_ARM64, BOOKWORM_ARMHF};
use crate::common::harness::cases;
use crate::common::pronto::Pronto;

cases! {
    Together: every_process_has_the_model, the_programs_say_which, a_model_that_cannot_be, a_setuid_program_is_not_told, real_time_signals_arrive;
}

/// A service, an empty environment, sudo, a chroot in the guest, a process of its own session: `/proc/cpuinfo` of each, in one word.
const LOOK: &str = r#"
part='/bin/grep -m1 part /proc/cpuinfo'
printf '[Service]\nType=oneshot\nExecStart=/bin/sh -c "%s >/run/answer"\n' "$part" >/run/systemd/system/part.service
systemctl start part.service
mkdir -p /run/other && mount --rbind / /run/other
{ cat /run/answer; $part; env -i $part; sudo -i $part; chroot /run/other $part; setsid -w $part; su tester -c "$part"; } | sed 's/.*: //' | sort | uniq -c"#;

fn every_process_has_the_model() {
    let pronto = Pronto::fresh();
    let out = pronto.create("three", BOOKWORM_ARM64.tree(), &["--arch", "arm64", "--cpu", "cortex-a53"]);
    assert!(out.err().contains(" as cortex-a53"), "{out}");
    // The board says the architecture, too.
    pronto.create("four", BOOKWORM_ARM64.tree(), &["--board", "rpi4"]);
    for (name, part) in [("three", "0xd03"), ("four", "0xd08")] {
        let seen = pronto.exec(name, &["sh", "-c", LOOK]);
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["7", part], "{name}");
        let left = pronto.exec(name, &["sh", "-c", "tr '\\0' '\\n' </proc/1/environ; env"]);
        assert!(!left.contains("QEMU_"), "no variable is left to say it: {left}");
        assert_eq!(
            pronto.exec(name, &["sh", "-c", "tr '\\0' ' ' </proc/self/cmdline; exit"]).split(' ').next(),
            Some("sh")
        );
    }
    // The cache may be emptied at any time.
    std::fs::remove_dir_all(pronto.root().join("cache")).unwrap();
    pronto.run(["reboot", "-w", "three"]).ok();
    assert!(pronto.exec("three", &["grep", "-m1", "part", "/proc/cpuinfo"]).ends_with("0xd03"), "after a reboot");
    pronto.run(["destroy", "four"]).ok();
    pronto.cmd(["shutdown", "-w", "three"]).run().ok();
    pronto.run(["start", "three"]).ok();
    assert!(pronto.exec("three", &["grep", "-m1", "part", "/proc/cpuinfo"]).ends_with("0xd03"), "after a start");
    pronto.run(["destroy", "three"]).ok();
}

/// Without an option it is what the image's programs were built for.
fn the_programs_say_which() {
    let pronto = Pronto::fresh();
    let run = |arch: &str, options: &[&str], script: &str| {
        let tree = if arch == "armhf" { BOOKWORM_ARMHF.tree() } else { BARE_ARM64.tree() };
        let run = pronto.cmd(["run", "--arch", arch]).args(options).arg(tree);
        run.args(["--", "sh", "-c", script]).run().ok().text().trim().to_owned()
    };
    let all = "uname -m; getconf LONG_BIT; grep -m1 part /proc/cpuinfo | sed 's/.*: //'";
    assert_eq!(run("armhf", &[], all), "armv7l\n32\n0xc07", "cortex-a7, as on a Raspberry Pi 2");
    assert_eq!(run("armhf", &["--board", "rpi2"], all), "armv7l\n32\n0xc07");
    assert_eq!(
        run("armhf", &["--board", "rpi3"], "uname -m; getconf LONG_BIT"),
        "armv7l\n32",
        "a 32-bit system on a 64-bit board"
    );
    assert_eq!(run("arm64", &["--board", "rpi3"], all), "aarch64\n64\n0xd03");
    assert_eq!(run("arm64", &["--board", "rpi5"], all), "aarch64\n64\n0xd0b");
}

fn a_model_that_cannot_be() {
    let pronto = Pronto::fresh();
    let refused = |options: &[&str], tree: std::path::PathBuf| {
        let out = pronto.cmd(["create", "--name", "guest"]).args(options).arg(tree).run().exits(3);
        assert!(pronto.rows().is_empty(), "{out}");
        out
    };
    refused(&["--arch", "arm64", "--cpu", "cortex-a54"], BARE_ARM64.tree())
        .says("no CPU 'cortex-a54'")
        .says("cortex-a53");
    refused(&["--arch", "armhf", "--board", "rpi0"], BOOKWORM_ARMHF.tree()).says("built for ARMv7").says("ARMv6");
    refused(&["--arch", "armhf", "--cpu", "arm926"], BOOKWORM_ARMHF.tree()).says("arm926");
    refused(&["--arch", "arm64", "--board", "rpi2"], BARE_ARM64.tree()).says("for armhf");
    refused(&["--cpu", "max"], BOOKWORM_AMD64.tree()).says("emulated");
    pronto.cmd(["create", "--board", "rpi9"]).arg(BARE_ARM64.tree()).run().exits(2).says("rpi4");
    pronto.cmd(["create", "--cpu", "max", "--board", "rpi4"]).arg(BARE_ARM64.tree()).run().exits(2);
}

/// QEMU obeys `QEMU_*` also in a program that runs with more rights than its caller, and would write its log as root. What stands before
/// it in a guest's own registry keeps these variables from it.
fn a_setuid_program_is_not_told() {
    let pronto = Pronto::fresh();
    let attack = "env QEMU_LOG=strace QEMU_LOG_FILENAME=/root/written su --version >/dev/null 2>&1; \
                  env QEMU_STRACE=1 sh -c : 2>&1 | grep -c exit_group";
    for registry in ["private", "host"] {
        pronto.create("guest", BOOKWORM_ARM64.tree(), &["--arch", "arm64", "--binfmt", registry]);
        let out = pronto.cmd(["exec", "-u", "tester", "guest", "--", "sh", "-c", attack]).run().ok();
        out.prints("1");
        // What the host's registry holds may be the interpreter as it came, which obeys, or a copy of ours, which does not.
        if registry == "private" {
            pronto.run(["exec", "guest", "--", "test", "-e", "/root/written"]).exits(1);
        }
        pronto.run(["destroy", "guest"]).ok();
        pronto.run(["delete", "guest"]).ok();
    }
}

/// All that an emulated program can have: 34 to 60 under their own numbers also on the host, where nspawn and a guest's systemd look at
/// them, and the two that the C library ends threads with.
fn real_time_signals_arrive() {
    let script = r#"
$| = 1;
for my $n (34 .. 60) { my $got = 0; local $SIG{$n == 34 ? 'RTMIN' : "NUM$n"} = sub { $got++ }; kill $n, $$; print "lost $n\n" unless $got; }
for my $n (32, 33) { my $pid = fork // die; if (!$pid) { sleep 20; exit } syscall(129, $pid, $n); waitpid $pid, 0; print "lost $n\n" unless ($? & 127) == $n; }
$SIG{NUM59} = sub {}; open my $f, '<', '/proc/self/status'; /^SigCgt:\s*(\S+)/ and print hex($1) >> 58 & 1 ? "caught\n" : "hidden\n" while <$f>;"#;
    let pronto = Pronto::fresh();
    let run = pronto.cmd(["run", "--arch", "arm64"]).arg(BARE_ARM64.tree()).args(["--", "perl", "-e", script]);
    run.run().ok().prints("caught");
}
