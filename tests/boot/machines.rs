//! Guests with a kernel of their own, on the real QEMU: one image as the others have it, with the same verbs. What a newcomer would get wrong: the first
//! domain of the image installs a kernel in it, which takes minutes under emulation; it stays in the shared store for all, so every case uses that.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::fixtures::{BARE_AMD64, BOOKWORM_AMD64, BOOKWORM_ARM64};
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, parent, pids, scratch, shared};
use crate::common::pty::Pty;
use crate::common::run::{Out, Run};
use crate::common::snapshot::Snapshot;
use crate::common::{eventually, have, secs, skip};

cases! {
    Together: a_machine_has_xls_verbs, a_guest_goes_on_where_it_was_saved, ends_are_told_apart, what_machines_cannot;
    Alone: a_create_that_fails_leaves_nothing;
}

/// How long a boot may take on a busy machine.
const BOOT: Duration = Duration::from_secs(300);

fn create(name: &str, options: &[&str]) -> &'static Pronto {
    if !have("qemu-system-aarch64") {
        skip!("qemu-system-aarch64 is not installed (contrib/install-deps.sh test)");
    }
    let words = ["create", "--name", name, "--backend", "hx", "--arch", "arm64"];
    let out = shared().cmd(words).args(options).arg(BOOKWORM_ARM64.tree()).limit(secs(900)).run().ok().silent();
    assert!(!out.err().contains("failed"), "no unit failed: {out}");
    shared()
}

fn exec(pronto: &Pronto, name: &str, script: &str) -> Out {
    pronto.cmd(["exec", name, "--", "sh", "-c", script]).limit(secs(120)).run()
}

fn end(pronto: &Pronto, name: &str) {
    pronto.run(["destroy", name]).ok();
    pronto.run(["delete", name]).ok();
    assert_eq!(pronto.state(name), "absent");
}

/// How many QEMUs run a guest of this name.
fn qemus(name: &str) -> usize {
    let wanted = format!("guest={name}\0");
    let words = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids().filter(|pid| String::from_utf8_lossy(&words(*pid)).contains(&wanted)).count()
}

/// PID on the host of a domain's QEMU.
fn qemu(pronto: &Pronto, name: &str) -> i32 {
    pronto.leader(name)
}

fn a_machine_has_xls_verbs() {
    let pronto = create("m", &["memory=512", "vcpus=2"]);
    let row = pronto.row("m").unwrap();
    assert_eq!(
        (row["backend"].as_str(), row["vcpus"].as_u64(), row["memory_mib"].as_u64()),
        (Some("qemu"), Some(2), Some(512))
    );
    let said =
        exec(pronto, "m", "uname -m; nproc; systemctl is-system-running; systemctl --failed --no-legend; hostname")
            .ok();
    assert_eq!(said.text(), "aarch64\n2\nrunning\nm\n");
    exec(pronto, "m", "echo out; echo err >&2; exit 7").exits(7).prints("out").says("err");
    pronto.run(["exec", "m", "--", "no-such-program"]).exits(127);
    let as_user = ["exec", "-u", "tester", "-w", "/tmp", "-e", "K=a b", "m", "--", "sh", "-c", "id -un; pwd; echo $K"];
    pronto.run(as_user).ok().prints("tester\n/tmp\na b");
    pronto.run(["exec", "-t", "m", "--", "true"]).exits(125).says("pronto console m");

    // What goes by a guest's processes on this host would reach QEMU's.
    pronto
        .run(["cp", "m:/etc/hostname", "/tmp/hostname"])
        .exits(1)
        .says("a kernel of its own")
        .says("pronto exec m -- cat");
    pronto.run(["profile", "m", "--", "true"]).exits(125).says("a kernel of its own");
    pronto.run(["export", "m", "/tmp/m.tar"]).exits(1).says("disk.img");
    let room = PathBuf::from(format!("/proc/{}/root", qemu(pronto, "m")));
    let outside: Vec<_> =
        ["root", "home", "etc/passwd", "proc", "srv"].iter().filter(|p| room.join(p).exists()).collect();
    assert!(room.join("usr/bin").exists() && outside.is_empty(), "QEMU sees {outside:?} of the host");
    let status = crate::common::read(format!("/proc/{}/status", qemu(pronto, "m")));
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("NoNewPrivs:\t1"), "{status}");

    // A person at the console.
    let mut pty = Pty::start(pronto.cmd(["console", "m"]), 30, 90);
    pty.send("\r");
    pty.expect("login: ", secs(60));
    pty.send("root\r");
    pty.expect("# ", secs(60));
    pty.send("echo a$((1+1))b\r");
    pty.expect("a2b", secs(30));
    pty.send(b"\x1d");
    assert_eq!(pty.wait(secs(5)), 0, "^] detaches");

    // Its time stands still while it is paused.
    let count = "cat /run/count";
    exec(pronto, "m", "nohup sh -c 'i=0; while :; do echo $((i+=1)) >/run/count; sleep 0.1; done' >/dev/null 2>&1 &")
        .ok();
    pronto.run(["pause", "m"]).ok();
    assert_eq!((pronto.state("m"), pronto.row("m").unwrap()["columns"].as_str()), ("paused".into(), Some("--p---")));
    pronto.run(["exec", "m", "--", "true"]).exits(125).says("pronto unpause m");
    pronto.run(["pause", "m"]).ok();
    pronto.run(["unpause", "m"]).ok();
    assert_eq!(pronto.state("m"), "running");
    assert!(exec(pronto, "m", count).ok().text().trim().parse::<u32>().is_ok());

    let cpus = pronto.run(["vcpu-list", "m"]).ok().text();
    assert!(
        cpus.lines().count() == 3
            && cpus.starts_with("Name                                ID  VCPU   CPU State   Time(s)"),
        "{cpus}"
    );
    disks(pronto);
    pronto.run(["qemu-monitor-command", "m", "info", "name"]).ok().prints("m");
    let links = pronto.run(["network-list", "m"]).ok().text();
    assert!(links.lines().count() == 2 && links.trim().ends_with("user"), "{links}");

    let before = pronto.domid("m");
    pronto.cmd(["reboot", "-w", "m"]).limit(BOOT).run().ok();
    assert!(pronto.domid("m") > before, "a reboot gives a new domid");
    exec(pronto, "m", "cat /dev/vdb | head -c 5").ok().prints("hello");
    pronto.run(["block-detach", "m", "xvdb"]).ok();
    pronto.cmd(["shutdown", "-w", "m"]).limit(secs(120)).run().ok();
    assert_eq!(pronto.state("m"), "shut-off");
    pronto.cmd(["start", "m"]).limit(BOOT).run().ok();
    exec(pronto, "m", "cat /etc/hostname; ls /dev/vdb").exits(2).prints("m");
    end(pronto, "m");
}

/// A disk comes, is there under its name, and goes; it is there after a reboot when it has not gone.
fn disks(pronto: &Pronto) {
    let image = scratch("disk").join("data.img");
    crate::common::write(&image, [b"hello".to_vec(), vec![0; 1 << 20]].concat());
    let words = format!("{},raw,xvdb,rw", image.display());
    pronto.run(["block-attach", "m", "/no/such.img,raw,xvdb,rw"]).exits(1).says("/no/such.img");
    pronto.run(["block-attach", "m", &words]).ok();
    pronto.run(["block-attach", "m", &words]).exits(1).says("has a disk 'xvdb' already");
    exec(pronto, "m", "for i in 1 2 3 4 5 6 7 8 9; do test -b /dev/vdb && break; sleep 1; done; head -c 5 /dev/vdb")
        .ok()
        .prints("hello");
    let listed = pronto.run(["block-list", "m"]).ok().text();
    assert!(listed.contains("\n51712 ") && listed.contains("\n51728 "), "{listed}");
    pronto.run(["block-detach", "m", "xvda"]).exits(1).says("is the root");
    pronto.cmd(["block-detach", "m", "51728"]).limit(secs(60)).run().ok();
    exec(pronto, "m", "test -e /dev/vdb").exits(1);
    pronto.run(["block-attach", "m", &words]).ok();
}

fn a_guest_goes_on_where_it_was_saved() {
    let pronto = create("s", &["memory=512"]);
    let file = scratch("saved").join("s.save");
    exec(
        pronto,
        "s",
        "nohup sh -c 'i=0; while :; do i=$((i+1)); echo $i >/run/count; sleep 0.1; done' >/dev/null 2>&1 & sleep 3",
    )
    .ok();
    let number = || exec(pronto, "s", "cat /run/count").ok().text().trim().parse::<u64>().unwrap();
    let (before, id) = (number(), pronto.domid("s"));
    // A full disk harms nobody.
    if PathBuf::from("/dev/full").exists() {
        pronto.run(["save", "s", "/dev/full/x"]).exits(1);
        assert_eq!(pronto.state("s"), "running");
    }
    pronto.cmd(["save", "-c", "s"]).arg(&file).run().exits(2).says("would go on without it");
    // One that is only stopped fits until it goes on.
    pronto.cmd(["save", "-p", "s"]).arg(&file).limit(secs(120)).run().ok();
    assert_eq!(pronto.state("s"), "paused");
    pronto.run(["unpause", "s"]).ok();
    let record = || crate::common::read(pronto.root().join("domains/s/domain.json"));
    eventually(secs(5), "the file fits no more", || (!record().contains("\"saved\"")).then_some(()));
    pronto.cmd(["save", "s"]).arg(&file).limit(secs(120)).run().ok();
    assert_eq!(pronto.state("s"), "shut-off");
    // A damaged one harms nobody.
    let damaged = file.with_extension("damaged");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4096..8192].fill(0xa5);
    crate::common::write(&damaged, bytes);
    pronto.cmd(["restore"]).arg(&damaged).limit(secs(120)).run().exits(3).says("cannot start domain 's'");
    assert_eq!((pronto.state("s"), qemus("s")), ("shut-off".into(), 0));
    pronto.cmd(["restore"]).arg(&file).limit(secs(120)).run().ok();
    let after = number();
    assert!(pronto.domid("s") > id && after >= before && after < before + 600, "{before} {after}");
    assert!(exec(pronto, "s", "cat /proc/uptime").ok().text().split('.').next().unwrap().parse::<u64>().unwrap() > 5);
    // Its disk has changed since.
    pronto.cmd(["restore"]).arg(&file).run().exits(1).says("is running");
    pronto.run(["destroy", "s"]).ok();
    pronto.cmd(["restore"]).arg(&file).run().exits(3).says("has run since");
    crate::common::write(&file, b"no such thing");
    pronto.cmd(["restore"]).arg(&file).run().exits(3).says("is no saved guest");
    pronto.run(["delete", "s"]).ok();
}

fn ends_are_told_apart() {
    let pronto = create("e", &["memory=512", "on_crash=preserve"]);
    // Its kernel panics: it stays to be looked at.
    exec(
        pronto,
        "e",
        "echo 1 >/proc/sys/kernel/sysrq; nohup sh -c 'sleep 1; echo c >/proc/sysrq-trigger' >/dev/null 2>&1 &",
    )
    .ok();
    pronto.until_state("e", "crashed", secs(60));
    assert_eq!(pronto.row("e").unwrap()["columns"], "---sc-");
    pronto.run(["destroy", "e"]).ok();
    // QEMU is killed.
    let pronto = restart("e");
    kill(Pid::from_raw(qemu(pronto, "e")), Signal::SIGKILL).unwrap();
    pronto.until_state("e", "shut-off", secs(20));
    assert_eq!(pronto.row("e").unwrap()["columns"], "---sc-", "it crashed");
    // The monitor is killed: QEMU does not outlive it.
    let pronto = restart("e");
    let (qemu, monitor) = (qemu(pronto, "e"), parent(pronto.leader("e")).unwrap());
    kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
    eventually(secs(10), "QEMU has ended", || (!PathBuf::from(format!("/proc/{qemu}/exe")).exists()).then_some(()));
    pronto.until_state("e", "shut-off", secs(20));
    // It does not listen.
    let pronto = restart("e");
    let deaf = "systemd-run --no-block --collect -- systemctl mask --now --runtime systemd-logind.service qemu-guest-agent.service";
    exec(pronto, "e", deaf).ok();
    eventually(secs(60), "the guest agent has gone", || (exec(pronto, "e", "true").code() == 125).then_some(()));
    std::thread::sleep(secs(3));
    let begun = std::time::Instant::now();
    pronto.cmd(["shutdown", "-w", "--timeout", "5", "e"]).limit(secs(60)).run().ok();
    assert!(begun.elapsed() >= secs(5), "it was killed when its time was up");
    assert_eq!(pronto.state("e"), "shut-off");
    pronto.run(["delete", "e"]).ok();
}

fn restart(name: &str) -> &'static Pronto {
    shared().cmd(["start", name]).limit(BOOT).run().ok();
    shared()
}

/// Every step that a machine's create goes through fails once. The image has its kernel already, so each takes seconds.
fn a_create_that_fails_leaves_nothing() {
    let pronto = create("f", &["memory=512"]);
    end(pronto, "f");
    let words = ["create", "--name", "f", "--backend", "hx", "--arch", "arm64", "memory=512"];
    for point in ["disk", "record", "monitor-start", "cgroup", "console", "guest-start", "ready", "handover"] {
        let before = Snapshot::take();
        let create = pronto.cmd(words).arg(BOOKWORM_ARM64.tree()).env("PRONTO_FAIL_AT", point);
        create.limit(BOOT).run().exits(3).says(point);
        assert_eq!((pronto.state("f"), qemus("f")), ("absent".into(), 0), "after '{point}'");
        for dir in ["domains", "run/domains"] {
            let left = std::fs::read_dir(pronto.root().join(dir)).unwrap().count();
            assert_eq!(left, 0, "'{point}' leaves something in {dir}");
        }
        assert_eq!(before.same_again(secs(10)), None, "'{point}' leaves nothing on the host");
    }
}

fn what_machines_cannot() {
    let pronto = Pronto::fresh();
    pronto.create("n", BOOKWORM_AMD64.tree(), &[]);
    let file = scratch("none").join("n.save");
    pronto.cmd(["save", "n"]).arg(&file).run().exits(1).says("shares this host's kernel").says("--backend hexagon");
    assert!(!file.exists());
    pronto.run(["block-list", "n"]).exits(1).says("shares this host's kernel");
    pronto.run(["save", "absent", "x"]).exits(1).says("absent is an invalid domain identifier");
    let machine = ["create", "--backend", "hx", "--arch", "amd64", "--kernel", "/no/kernel"];
    pronto.cmd(machine).arg(BARE_AMD64.tree()).run().exits(3).says("/no/kernel");
    assert_eq!(pronto.rows().len(), 1, "nothing is left of it");
    let host = Run::new("sh").args(["-c", "ls /sys/class/net"]).run().ok().text();
    assert!(!host.contains("vif"), "{host}");
}
