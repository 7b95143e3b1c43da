//! The verbs that move a domain from state to state, against xl's exit codes and words. What a newcomer would get wrong: a
//! domain's disk outlives its run; `destroy` does not delete, `delete` does not destroy.

use std::path::Path;

use crate::common::fixtures::{BOOKWORM_AMD64, BOOKWORM_ARM64, light};
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, scratch};
use crate::common::run::Out;
use crate::common::{eventually, read, secs, write};

cases! {
    Together: pause_and_unpause, paused_answers_at_once, shutdown_waits, reboot_gives_a_new_domid, destroy_works_on_all_that_runs,
           a_disk_outlives_its_run, replace, new_start_rename_delete, rm_discards, names, unknown_domains, copies,
           what_follows_a_poweroff, all_at_once, create_paused, exec_follows_at_once, in_time_or_not_at_all;
}

/// The light guest: enough wherever no systemd is asked anything.
fn guest(options: &[&str]) -> Pronto {
    guest_of(&light(), options)
}

fn guest_of(tree: &Path, options: &[&str]) -> Pronto {
    let pronto = Pronto::fresh();
    pronto.create("guest", tree, options);
    pronto
}

/// The State column of `list NAME`, found from the right as a script of xl's does.
fn columns(pronto: &Pronto, name: &str) -> String {
    let out = pronto.run(["list", name]).ok();
    out.text().lines().nth(1).and_then(|l| l.split_whitespace().rev().nth(1)).unwrap_or("?").to_owned()
}

fn pause_and_unpause() {
    let pronto = guest(&[]);
    pronto.exec(
        "guest",
        &["sh", "-c", "nohup sh -c 'while :; do date +%s%N >/run/beat; sleep 0.1; done' >/dev/null 2>&1 &"],
    );
    let beat = || pronto.leader("guest");
    let file = format!("/proc/{}/root/run/beat", beat());
    eventually(secs(10), "the guest beats", || Path::new(&file).exists().then_some(()));
    pronto.run(["pause", "guest"]).ok().silent();
    assert_eq!(columns(&pronto, "guest"), "--p---");
    assert_eq!(pronto.state("guest"), "paused");
    pronto.run(["pause", "guest"]).ok().silent();
    let (first, _) = (read(&file), std::thread::sleep(secs(1)));
    assert_eq!(read(&file), first, "nothing runs in a paused domain");
    pronto.run(["unpause", "guest"]).ok().silent();
    eventually(secs(5), "the guest beats again", || (read(&file) != first).then_some(()));
    assert!(["-b----", "r-----"].contains(&columns(&pronto, "guest").as_str()));
    pronto.run(["destroy", "guest"]).ok();
}

fn paused_answers_at_once() {
    let pronto = guest(&[]);
    pronto.run(["pause", "guest"]).ok();
    let words: [(&[&str], &str); 5] = [
        (&["exec", "guest", "--", "true"], "no command can be run in it"),
        (&["shutdown", "-w", "guest"], "it cannot be shut down"),
        (&["reboot", "guest"], "it cannot be rebooted"),
        (&["console", "guest"], "its console cannot be attached to"),
        (&["cp", "guest:/etc/hostname", "-"], "its files cannot be streamed"),
    ];
    for (verb, cannot) in words {
        let out = pronto.cmd(verb).limit(secs(10)).run();
        let said = format!("domain 'guest' is paused: {cannot}\n");
        assert!(out.code() != 0 && out.err().contains(&said), "it says what is the matter: {out}");
        assert!(out.err().contains("unpause"), "it says what to do: {out}");
        assert!(out.took < secs(2), "at once: {out}");
    }
    pronto.run(["logs", "guest"]).ok();
    pronto.run(["unpause", "guest"]).ok();
    pronto.exec("guest", &["true"]);
    pronto.run(["destroy", "guest"]).ok();
}

/// Also an emulated guest hears it, though its real-time signals have other numbers.
fn shutdown_waits() {
    for (tree, arch) in [(BOOKWORM_AMD64.tree(), "amd64"), (BOOKWORM_ARM64.tree(), "arm64")] {
        let pronto = Pronto::fresh();
        pronto.create("guest", &tree, &["--arch", arch]);
        let script = "printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStop=/bin/sh -c \"echo clean >/farewell\"\\n' \
                      >/run/systemd/system/bye.service; systemctl start bye";
        pronto.exec("guest", &["sh", "-c", script]);
        let leader = pronto.leader("guest");
        let out = pronto.cmd(["shutdown", "-w", "guest"]).run().ok().silent();
        assert!(out.took < secs(30), "it was asked, not killed: {out}");
        assert!(!Path::new(&format!("/proc/{leader}")).exists(), "everything is gone when it returns");
        assert_eq!(pronto.state("guest"), "shut-off");
        assert!(!pronto.run(["list"]).ok().text().contains("guest"));
        assert!(pronto.run(["list", "--all"]).ok().text().contains("guest"));
        assert_eq!(read(pronto.root().join("domains/guest/upper/farewell")), "clean\n", "its services were stopped");
        pronto.run(["shutdown", "guest"]).exits(1);
    }
}

fn reboot_gives_a_new_domid() {
    let pronto = guest_of(&BOOKWORM_AMD64.tree(), &[]);
    let before = pronto.row("guest").unwrap();
    pronto.exec("guest", &["touch", "/kept"]);
    pronto.run(["reboot", "-w", "guest"]).ok().silent();
    let after = pronto.row("guest").unwrap();
    assert_ne!(after["domid"], before["domid"], "as in xl");
    assert_eq!(after["uuid"], before["uuid"]);
    assert_eq!(pronto.exec("guest", &["ls", "/kept"]), "/kept");
    // From the inside: exit status 133 of nspawn's.
    let _ = pronto.cmd(["exec", "guest", "--", "systemctl", "reboot"]).limit(secs(30)).run();
    let old = after["domid"].clone();
    eventually(secs(60), "a third domid", || {
        pronto.row("guest").filter(|row| row["domid"].is_number() && row["domid"] != old && row["state"] == "running")
    });
    eventually(secs(60), "it runs again", || {
        (pronto.run(["exec", "guest", "--", "systemctl", "is-system-running", "--wait"]).code() == 0).then_some(())
    });
    pronto.run(["destroy", "guest"]).ok();
}

fn destroy_works_on_all_that_runs() {
    let pronto = guest(&[]);
    pronto.run(["destroy", "guest"]).ok().silent();
    assert_eq!(pronto.state("guest"), "shut-off");
    pronto.run(["destroy", "guest"]).exits(1).says("guest is an invalid domain identifier");
    pronto.run(["start", "guest"]).ok();
    pronto.run(["pause", "guest"]).ok();
    let out = pronto.run(["destroy", "guest"]).ok().silent();
    assert!(out.took < secs(5), "{out}");
    // Wedged: its init does not answer any more.
    pronto.run(["start", "guest"]).ok();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pronto.leader("guest")), nix::sys::signal::Signal::SIGSTOP)
        .unwrap();
    let domid = pronto.domid("guest").to_string();
    pronto.run(["destroy", &domid]).ok().silent();
    assert_eq!(pronto.state("guest"), "shut-off");
}

fn a_disk_outlives_its_run() {
    let pronto = guest(&[]);
    let id = pronto.exec("guest", &["cat", "/etc/machine-id"]);
    assert_eq!(id.len(), 32, "a machine-id of its own: {id}");
    pronto.exec("guest", &["sh", "-c", "echo mine >/root/note; sync"]);
    pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
    let tree = light();
    let again = pronto.cmd(["create", "--name", "guest"]).arg(&tree).run().exits(3);
    for word in ["start", "delete", "--replace"] {
        assert!(again.err().contains(word), "it names {word}: {again}");
    }
    pronto.run(["start", "guest"]).ok().silent();
    assert_eq!(pronto.exec("guest", &["cat", "/root/note"]), "mine");
    assert_eq!(pronto.exec("guest", &["cat", "/etc/machine-id"]), id);
    pronto.cmd(["create", "--name", "guest"]).arg(&tree).run().exits(3);
    pronto.cmd(["create", "--replace", "--name", "guest"]).arg(&tree).run().exits(3);
    pronto.run(["start", "guest"]).exits(1);
    assert_eq!(pronto.exec("guest", &["cat", "/root/note"]), "mine", "what runs was not touched");
    pronto.run(["destroy", "guest"]).ok();
}

fn replace() {
    let pronto = guest(&[]);
    pronto.exec("guest", &["touch", "/old"]);
    pronto.run(["destroy", "guest"]).ok();
    let uuid = pronto.row("guest").unwrap()["uuid"].clone();
    pronto.create("guest", light(), &["--replace"]);
    pronto.run(["exec", "guest", "--", "test", "-e", "/old"]).exits(1);
    assert_ne!(pronto.row("guest").unwrap()["uuid"], uuid);
    pronto.run(["destroy", "guest"]).ok();
}

fn new_start_rename_delete() {
    let pronto = Pronto::fresh();
    pronto.cmd(["new", "--name", "first"]).arg(light()).run().ok();
    assert_eq!(pronto.state("first"), "shut-off");
    assert_eq!(pronto.row("first").unwrap()["domid"], serde_json::Value::Null);
    assert!(
        pronto.run(["list", "--all"]).ok().text().lines().any(|l| l.split_whitespace().nth(1) == Some("-")),
        "a dash for a domid"
    );
    pronto.run(["start", "first"]).ok().silent();
    pronto.run(["delete", "first"]).exits(1);
    assert_eq!(pronto.state("first"), "running", "delete of a running domain is refused");
    pronto.run(["rename", "first", "second"]).ok().silent();
    assert_eq!((pronto.state("first").as_str(), pronto.state("second").as_str()), ("absent", "running"));
    pronto.exec("second", &["true"]);
    pronto.cmd(["shutdown", "-w", "second"]).run().ok();
    pronto.run(["rename", "second", "third"]).ok().silent();
    pronto.cmd(["new", "--name", "other"]).arg(light()).run().ok();
    pronto.run(["rename", "third", "other"]).exits(3);
    pronto.run(["rename", "third", "12"]).exits(2);
    pronto.run(["delete", "third"]).ok().silent();
    pronto.run(["delete", "other"]).ok().silent();
    assert!(pronto.rows().is_empty());
    assert_eq!(std::fs::read_dir(pronto.root().join("domains")).unwrap().count(), 0, "name and disk are free");
    pronto.run(["start", "third"]).exits(1);
}

fn rm_discards() {
    let pronto = guest(&["--rm"]);
    pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
    assert_eq!(pronto.state("guest"), "absent");
    pronto.create("guest", BOOKWORM_AMD64.tree(), &["--rm"]);
    let _ = pronto.cmd(["exec", "guest", "--", "systemctl", "poweroff"]).limit(secs(30)).run();
    eventually(secs(30), "a power-off from the inside discards it", || {
        (pronto.state("guest") == "absent").then_some(())
    });
    pronto.create("guest", light(), &["--rm"]);
    pronto.run(["destroy", "guest"]).ok().silent();
    assert_eq!(pronto.state("guest"), "absent");
    assert_eq!(std::fs::read_dir(pronto.root().join("domains")).unwrap().count(), 0);
}

fn names() {
    let (pronto, tree) = (Pronto::fresh(), light());
    for bad in ["", "12", "-x", ".x", "a/b", "a b", "a\nb", "ä", &"x".repeat(64)] {
        let out = pronto.cmd(["create", &format!("--name={bad}")]).arg(&tree).run();
        assert!([2, 3].contains(&out.code()) && out.err().contains("name"), "{out}");
        assert!(!out.err().contains('\u{1b}') && !out.err().trim_end().contains("a\nb"), "escaped: {out}");
    }
    assert!(pronto.rows().is_empty());
    let long = "x".repeat(63);
    pronto.create(&long, &tree, &["--no-wait"]);
    pronto.run(["list", &long]).ok();
    pronto.run(["destroy", &long]).ok();
    // A name of pronto's own making, and key=value words as xl has them, in any order.
    pronto.cmd(["create"]).arg(&tree).arg("name=\"keyed\"").args(["--hostname", "inside"]).run().ok().silent();
    assert_eq!(pronto.exec("keyed", &["hostname"]), "inside");
    pronto.run(["destroy", "keyed"]).ok();
    pronto.cmd(["create", "--no-wait"]).arg(&tree).run().ok().silent();
    let named = pronto.rows().into_iter().find(|r| r["state"] == "running").expect("a running domain");
    pronto.run(["destroy", named["name"].as_str().unwrap()]).ok();
}

/// Exit status and words of xl's for a domain that is not there.
fn unknown_domains() {
    let pronto = Pronto::fresh();
    let words: [&[&str]; 12] = [
        &["list", "ghost"],
        &["pause", "ghost"],
        &["unpause", "ghost"],
        &["shutdown", "ghost"],
        &["reboot", "ghost"],
        &["destroy", "ghost"],
        &["console", "ghost"],
        &["uptime", "ghost"],
        &["rename", "ghost", "spook"],
        &["exec", "ghost", "true"],
        &["start", "ghost"],
        &["delete", "ghost"],
    ];
    for verb in words {
        pronto.run(verb).exits(1).says("ghost is an invalid domain identifier (rc=-6)");
    }
    pronto.run(["list", "99"]).exits(1).says("Error: Domain '99' does not exist.");
    pronto
        .run(["domid", "ghost"])
        .exits(1)
        .says("Can't get domid of domain name 'ghost', maybe this domain does not exist.");
    pronto
        .run(["domname", "77"])
        .exits(1)
        .says("Can't get domain name of domain id '77', maybe this domain does not exist.");
    pronto.run(["domname", "xyz"]).exits(1).says("Invalid domain id.");
    pronto.run(["cp", "ghost:/etc/passwd", "/dev/null"]).exits(1).says("ghost");
}

fn copies() {
    let (pronto, dir) = (guest(&[]), scratch("copies"));
    let bytes: Vec<u8> = (0..500_000u32).flat_map(u32::to_le_bytes).collect();
    write(dir.join("there"), &bytes);
    pronto.cmd(["cp"]).arg(dir.join("there")).arg("guest:/root/there").run().ok();
    assert_eq!(pronto.exec("guest", &["stat", "-c", "%s %u:%g", "/root/there"]), format!("{} 0:0", bytes.len()));
    pronto.cmd(["cp", "guest:/root/there"]).arg(dir.join("back")).run().ok();
    assert!(std::fs::read(dir.join("back")).unwrap() == bytes);
    std::fs::create_dir_all(dir.join("tree/deep")).unwrap();
    write(dir.join("tree/deep/file"), "deep\n");
    pronto.cmd(["cp"]).arg(dir.join("tree")).arg("guest:/srv").run().ok();
    assert_eq!(pronto.exec("guest", &["cat", "/srv/tree/deep/file"]), "deep");
    // A link of the guest's is copied as a link, never followed to what the host has at that path.
    write(dir.join("secret"), "the host's\n");
    pronto.exec("guest", &["ln", "-s", &dir.join("secret").to_string_lossy(), "/root/trap"]);
    let out = pronto.cmd(["cp", "guest:/root/trap"]).arg(dir.join("caught")).run();
    assert_eq!(std::fs::read_link(dir.join("caught")).ok(), Some(dir.join("secret")), "{out}");
    pronto.exec("guest", &["mkdir", "/root/way"]);
    pronto.exec("guest", &["ln", "-s", &dir.to_string_lossy(), "/root/way/out"]);
    let out = pronto.cmd(["cp", "guest:/root/way/out/secret"]).arg(dir.join("fetched")).run();
    assert!(out.code() != 0 && !dir.join("fetched").exists(), "never through a link out of the guest: {out}");
    let out = pronto.cmd(["cp", "guest:/no/such", "x"]).dir(&dir).run();
    assert!(out.code() != 0 && out.err().contains("/no/such"), "{out}");
    pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
    let out: Out = pronto.cmd(["cp", "guest:/root/there"]).arg(dir.join("off")).run();
    assert!(
        out.code() == 0 || out.err().contains("start"),
        "a shut-off domain gives its file, or says what to do: {out}"
    );
}

fn what_follows_a_poweroff() {
    let pronto = Pronto::fresh();
    let tree = BOOKWORM_AMD64.tree();
    pronto.cmd(["create", "--name", "a"]).arg(&tree).arg("on_reboot=\"destroy\"").run().ok();
    let _ = pronto.cmd(["exec", "a", "--", "systemctl", "reboot"]).limit(secs(30)).run();
    pronto.until_state("a", "shut-off", secs(30));
    pronto.cmd(["create", "--name", "b"]).arg(&tree).arg("on_poweroff=\"restart\"").run().ok();
    let first = pronto.domid("b");
    let _ = pronto.cmd(["exec", "b", "--", "systemctl", "poweroff"]).limit(secs(30)).run();
    eventually(secs(60), "it is started again", || {
        pronto
            .row("b")
            .filter(|r| r["state"] == "running" && r["domid"].as_u64().is_some_and(|d| d != u64::from(first)))
    });
    pronto.run(["destroy", "b"]).ok();
    pronto.until_state("b", "shut-off", secs(10));
}

fn all_at_once() {
    let pronto = Pronto::fresh();
    for name in ["a", "b", "c"] {
        pronto.create(name, light(), &["--no-wait"]);
    }
    for name in ["a", "b", "c"] {
        pronto.until_state(name, "running", secs(30));
    }
    std::thread::sleep(secs(3));
    pronto.cmd(["shutdown", "-a", "-w"]).run().ok();
    for name in ["a", "b", "c"] {
        assert_eq!(pronto.state(name), "shut-off");
    }
}

/// A script does not have to know that an init takes some milliseconds to begin.
fn exec_follows_at_once() {
    let pronto = Pronto::fresh();
    for n in 0..8 {
        pronto.create("guest", light(), &["--no-wait", "--rm"]);
        pronto.run(["exec", "guest", "--", "echo", "in"]).ok().prints("in");
        pronto.run(["destroy", "guest"]).ok();
        assert!(pronto.rows().is_empty(), "round {n}");
    }
}

fn create_paused() {
    let pronto = guest(&["-p"]);
    assert_eq!(pronto.state("guest"), "paused");
    pronto.run(["unpause", "guest"]).ok().silent();
    eventually(secs(60), "it comes up", || (pronto.run(["exec", "guest", "true"]).code() == 0).then_some(()));
    pronto.run(["destroy", "guest"]).ok();
}

/// Not ready in time: the last console lines, exit status 3, nothing left, unless it is to be kept.
fn in_time_or_not_at_all() {
    let (pronto, tree) = (guest_of(&BOOKWORM_AMD64.tree(), &[]), BOOKWORM_AMD64.tree());
    let script = "printf '[Service]\\nType=oneshot\\nExecStart=/bin/sleep 60\\n[Install]\\nWantedBy=multi-user.target\\n' \
                  >/etc/systemd/system/slow.service; systemctl enable slow.service";
    pronto.exec("guest", &["sh", "-c", script]);
    pronto.cmd(["shutdown", "-w", "guest"]).run().ok();
    let out = pronto.run(["start", "--timeout", "4s", "guest"]).exits(3);
    assert!(out.took < secs(20) && out.err().contains("slow.service"), "the last lines of the console: {out}");
    let out =
        pronto.cmd(["create", "--name", "hasty", "--timeout", "100ms", "--arch", "amd64"]).arg(&tree).run().exits(3);
    assert!(out.took < secs(20), "{out}");
    assert_eq!(pronto.state("hasty"), "absent");
    pronto.cmd(["create", "--name", "kept", "--keep", "--timeout", "100ms"]).arg(&tree).run().exits(3);
    assert_eq!(pronto.state("kept"), "running");
    pronto.run(["destroy", "kept"]).ok();
}
