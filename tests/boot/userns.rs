//! User namespaces and private registries of interpreters: a guest's root is nobody on the host, and a foreign guest leaves no
//! trace in the host's registry. What a newcomer would get wrong: what is tried here from inside must fail by the *host's* doing, so
//! each attempt is one that works for the root of a plain nspawn container (see `fence`), or that shows ids on disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::guest::is_healthy;
use crate::common::fixtures::{BARE_AMD64, BOOKWORM_AMD64, BOOKWORM_ARM64, Recipe};
use crate::common::harness::cases;
use crate::common::pronto::{Pronto, handlers, scratch, shared, shared_arm64, shared_native};
use crate::common::read;
use crate::common::run::Run;
use crate::common::secs;
use crate::common::snapshot::Snapshot;

cases! {
    Together: root_is_nobody_outside, setuid_programs_work_inside, the_hosts_levers_are_out_of_reach, two_guests_share_no_id,
              without_user_namespaces, files_keep_plain_ids_on_disk, shared_directories_keep_their_owners, shared_things_get_a_place;
    Alone: no_trace_on_the_host, a_file_system_that_cannot_map, an_interpreter_that_the_guest_may_not_run;
}

const FIRST: u32 = 0x8_0000;

/// The uids of a process, as the host sees them.
fn host_uid(pid: i32) -> u32 {
    let status = read(format!("/proc/{pid}/status"));
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap_or_else(|| panic!("{status}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn root_is_nobody_outside() {
    for name in [shared_native(), shared_arm64()] {
        let pronto = shared();
        let first = host_uid(pronto.leader(name));
        assert!(first >= FIRST && first % 0x1_0000 == 0, "{first}");
        assert_eq!(pronto.exec(name, &["id", "-u"]), "0");
        let map = pronto.exec(name, &["cat", "/proc/self/uid_map"]);
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &first.to_string(), "65536"]);
        // A command without an init has them too.
        let map = pronto.run([
            "run",
            "--arch",
            BOOKWORM_AMD64.arch,
            BOOKWORM_AMD64.tree().to_str().unwrap(),
            "--",
            "cat",
            "/proc/self/uid_map",
        ]);
        let outside: u32 = map.ok().text().split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(outside >= FIRST && outside != first);
    }
}

fn setuid_programs_work_inside() {
    for name in [shared_native(), shared_arm64()] {
        let script = "install -m 4755 /usr/bin/id /usr/local/bin/setuid-id; echo 'tester ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/tester";
        shared().exec(name, &["sh", "-c", script]);
        let as_tester = |words: &[&str]| {
            shared().cmd(["exec", "-u", "tester", name, "--"]).args(words).run().ok().text().trim().to_owned()
        };
        assert_eq!(as_tester(&["/usr/local/bin/setuid-id", "-u"]), "0");
        assert_eq!(as_tester(&["sudo", "-n", "id", "-u"]), "0");
        assert_eq!(as_tester(&["sudo", "-n", "-i", "uname", "-m"]), shared().exec(name, &["uname", "-m"]));
        let gid = as_tester(&["id", "-u"]);
        assert_eq!(gid, "1000");
        shared().exec(name, &["rm", "-f", "/usr/local/bin/setuid-id", "/etc/sudoers.d/tester"]);
    }
}

/// What makes a container's root the host's: a helper that the kernel runs as root outside, and the host's disks.
fn the_hosts_levers_are_out_of_reach() {
    let script = r#"
mount -o remount,rw,bind /proc/sys 2>/dev/null
echo '|/tmp/evil' >/proc/sys/kernel/core_pattern && echo REACHED core_pattern
echo /tmp/evil >/proc/sys/kernel/modprobe && echo REACHED modprobe
mkdir -p /tmp/v1
for options in memory none,name=probe; do
  # A hierarchy that is there already may be mounted: it shows the guest's own part, where it may change nothing.
  mount -t cgroup -o $options none /tmp/v1 2>/dev/null || continue
  for f in $(find /tmp/v1 -name release_agent); do echo /tmp/evil >$f && echo REACHED $f; done 2>/dev/null
  mkdir /tmp/v1/probe 2>/dev/null && echo REACHED cgroup v1 $options
  umount /tmp/v1
done
find /sys/fs/cgroup -name release_agent -writable 2>/dev/null | sed 's/^/REACHED /'
for d in "b 254 0" "b 8 0" "c 1 1"; do mknod /tmp/node $d 2>/dev/null && head -c 1 /tmp/node >/dev/null 2>&1 && echo REACHED device $d; rm -f /tmp/node; done
mount -t devtmpfs none /tmp/v1 2>/dev/null && echo REACHED devtmpfs
echo b >/proc/sysrq-trigger 2>/dev/null && echo REACHED sysrq
nsenter -t 1 -m true 2>/dev/null; unshare -m true 2>/dev/null
echo done
"#;
    let before = read("/proc/sys/kernel/core_pattern");
    for name in [shared_native(), shared_arm64()] {
        let out = shared().cmd(["exec", name, "--", "sh", "-c", script]).run().ok();
        assert_eq!(out.text().trim(), "done");
    }
    assert_eq!(read("/proc/sys/kernel/core_pattern"), before);
}

fn two_guests_share_no_id() {
    let (a, b) = (host_uid(shared().leader(shared_native())), host_uid(shared().leader(shared_arm64())));
    assert_ne!(a, b);
}

fn registry() -> Vec<String> {
    let dir = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    let mut names: Vec<String> = dir.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// `ls /proc/sys/fs/binfmt_misc` on the host is the same before, during and after, whatever is done.
fn no_trace_on_the_host() {
    for arch in ["arm64", "arm"] {
        let _ = Run::new(crate::common::pronto::BINARY).args(["binfmt", "unregister", arch]).run();
    }
    let (pronto, before) = (Pronto::fresh(), registry());
    assert!(!before.iter().any(|n| n == "pronto-arm64"));
    let tree = BOOKWORM_ARM64.tree();
    let out = pronto.create("guest", &tree, &["--arch", "arm64"]);
    assert!(!out.err().contains("registered"), "{out}");
    assert_eq!(registry(), before, "while it runs");
    is_healthy(&pronto, "guest", &tree);
    // In the guest: a service, an empty environment, a chroot in the guest, all by the same interpreter.
    let script = "printf '[Service]\\nType=oneshot\\nExecStart=/bin/sh -c \"uname -m >/run/answer\"\\n' >/run/systemd/system/probe.service; \
                  systemctl start probe.service; cat /run/answer; env -i /bin/uname -m; chroot / uname -m; setsid uname -m";
    let words = pronto.exec("guest", &["sh", "-c", script]);
    assert_eq!(words.split_whitespace().collect::<Vec<_>>(), ["aarch64"; 4]);
    pronto.run(["reboot", "-w", "guest"]).ok();
    assert_eq!(pronto.exec("guest", &["uname", "-m"]), "aarch64", "after a reboot");
    assert_eq!(registry(), before, "after its reboot");
    pronto.cmd(["run", "--arch", "arm64"]).arg(&tree).args(["--", "uname", "-m"]).run().ok().prints("aarch64");
    assert_eq!(registry(), before);
    pronto.run(["shutdown", "-w", "guest"]).ok();
    assert_eq!(registry(), before, "after it");
}

/// Both are a matter of choice.
fn without_user_namespaces() {
    let pronto = Pronto::fresh();
    let tree = BOOKWORM_ARM64.tree();
    let out = pronto.create("plain", &tree, &["--arch", "arm64", "--no-userns"]);
    assert_eq!(host_uid(pronto.leader("plain")), 0, "{out}");
    assert!(handlers().contains(&"pronto-arm64".to_owned()), "it needs the host's registry");
    is_healthy(&pronto, "plain", &tree);
    pronto.run(["destroy", "plain"]).ok();
    // The same disk, now with ids of its own: they are not written down in it.
    pronto.run(["delete", "plain"]).ok();
    pronto.create("mapped", &tree, &["--arch", "arm64", "--binfmt", "host"]);
    assert!(host_uid(pronto.leader("mapped")) >= FIRST);
    is_healthy(&pronto, "mapped", &tree);
    pronto.run(["destroy", "mapped"]).ok();
    let refused = pronto.cmd(["create", "--arch", "arm64", "--no-userns", "--binfmt", "private"]).arg(&tree).run();
    assert_eq!(refused.code(), 3, "{refused}");
    pronto.cmd(["create", "--userns", "--no-userns"]).arg(&tree).run().exits(2);
}

/// What a guest writes has ids from 0 on disk, so it may run with other ids next time; `cp` goes through them.
fn files_keep_plain_ids_on_disk() {
    let pronto = Pronto::fresh();
    pronto.create("guest", BOOKWORM_AMD64.tree(), &[]);
    let script = "touch /srv/roots; install -o tester -g tester /dev/null /srv/testers; chmod 4755 /srv/roots";
    pronto.exec("guest", &["sh", "-c", script]);
    let upper = pronto.root().join("domains/guest/upper");
    let on_disk = |path: &str| {
        let meta = std::fs::symlink_metadata(upper.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(on_disk("srv/roots"), (0, 0, 0o4755));
    assert_eq!((on_disk("srv/testers").0, on_disk("srv/testers").1), (1000, 1000));
    assert_eq!((on_disk("etc/hostname").0, on_disk("etc/machine-id").0), (0, 0));
    // In and out while it runs.
    let dir = scratch("copies");
    crate::common::write(dir.join("in"), "from outside");
    pronto.cmd(["cp"]).arg(dir.join("in")).arg("guest:/srv/in").run().ok();
    assert_eq!(pronto.exec("guest", &["stat", "-c", "%u %g", "/srv/in"]), "0 0");
    assert_eq!(on_disk("srv/in").0, 0);
    pronto.cmd(["cp", "guest:/srv/testers"]).arg(&dir).run().ok();
    let out = std::fs::metadata(dir.join("testers")).unwrap();
    assert_eq!((out.uid(), out.gid()), (0, 0), "what comes out belongs to the caller");
    pronto.run(["shutdown", "-w", "guest"]).ok();
    // And while it is off.
    pronto.cmd(["cp"]).arg(dir.join("in")).arg("guest:/srv/in2").run().ok();
    pronto.run(["start", "guest"]).ok();
    assert_eq!(pronto.exec("guest", &["stat", "-c", "%u %g %a", "/srv/roots", "/srv/in2"]).lines().count(), 2);
    assert_eq!(pronto.exec("guest", &["stat", "-c", "%u", "/srv/testers"]), "1000");
    pronto.run(["destroy", "guest"]).ok();
}

/// `-v` shows owners as they are on the host, to guests with an init and to single commands alike.
fn shared_directories_keep_their_owners() {
    let (pronto, dir) = (Pronto::fresh(), scratch("shared-dir"));
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    crate::common::write(dir.join("root"), "");
    crate::common::write(dir.join("ann"), "");
    std::os::unix::fs::chown(dir.join("ann"), Some(1000), Some(1000)).unwrap();
    let volume = format!("{}:/mnt", dir.display());
    let script = "stat -c '%n %u' /mnt/root /mnt/ann; touch /mnt/made; chown 1000 /mnt/made";
    let want = "/mnt/root 0\n/mnt/ann 1000";
    let run = pronto.cmd(["run", "-v", &volume]).arg(BARE_AMD64.tree()).args(["--", "sh", "-c", script]).run();
    assert_eq!(run.ok().text().trim(), want);
    assert_eq!(std::fs::metadata(dir.join("made")).unwrap().uid(), 1000);
    pronto.create("guest", BOOKWORM_AMD64.tree(), &["-v", &volume]);
    assert_eq!(pronto.exec("guest", &["sh", "-c", script]), want);
    pronto.run(["destroy", "guest"]).ok();
}

/// Places that the image does not have are made, in the guest's own tree, on a link of the image's and on what is mounted there.
fn shared_things_get_a_place() {
    let (pronto, dir) = (Pronto::fresh(), scratch("places"));
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    crate::common::write(dir.join("file"), "of the host");
    let (dir, file) = (dir.display(), dir.join("file"));
    let places = ["/new/deep/place", "/var/run/place", "/tmp/place", "/dev/shm/place"];
    let mut volumes: Vec<String> = places.iter().map(|p| format!("{dir}:{p}")).collect();
    volumes.push(format!("{}:/etc/new/file", file.display()));
    let options: Vec<&str> = volumes.iter().flat_map(|v| ["-v", v]).collect();
    let script = "cat /new/deep/place/file /run/place/file /tmp/place/file /dev/shm/place/file /etc/new/file; stat -c %u /new /new/deep /etc/new";
    let want = format!("{}0\n0\n0", "of the host".repeat(5));
    let run = pronto.cmd(["run"]).args(&options).arg(BARE_AMD64.tree()).args(["--", "sh", "-c", script]).run();
    assert_eq!(run.ok().text().trim(), want);
    for more in ["--userns", "--no-userns"] {
        pronto.create("guest", BOOKWORM_AMD64.tree(), &[&options[..], &[more, "--rm"]].concat());
        assert_eq!(pronto.exec("guest", &["sh", "-c", script]), want, "{more}");
        pronto.run(["destroy", "guest"]).ok();
    }
}

/// A tree on a file system that cannot show its files under other ids (an overlay, here): said in one line, and the guest runs
/// behind the fences alone; who asks for ids of its own by name gets an error, and nothing is left.
fn a_file_system_that_cannot_map() {
    let (pronto, dir) = (Pronto::fresh(), scratch("overlay"));
    let lower = dir.join("empty");
    std::fs::create_dir(&lower).unwrap();
    let merged = dir.join("merged");
    std::fs::create_dir(&merged).unwrap();
    let mounted = Mounted::overlay(&[BOOKWORM_AMD64.tree().as_path(), &lower], &merged);
    let before = Snapshot::take();
    let refused = pronto.cmd(["create", "--userns", "--name", "guest"]).arg(&merged).run();
    assert_eq!(refused.code(), 3, "{refused}");
    refused.says("cannot show files under other ids").says("--no-userns");
    assert!(pronto.rows().is_empty());
    assert_eq!(before.same_again(secs(10)), None);
    let out = pronto.create("guest", &merged, &[]);
    assert!(out.err().contains("no user namespace for this guest") && out.err().contains("host's root"), "{out}");
    assert_eq!(host_uid(pronto.leader("guest")), 0);
    assert_eq!(pronto.exec("guest", &["systemctl", "is-system-running"]), "running");
    pronto.run(["destroy", "guest"]).ok();
    drop(mounted);
}

/// An overlay mount of the test's own, gone when dropped.
struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    fn overlay<'a>(lowers: &[&Path], at: &'a Path) -> Mounted<'a> {
        let lowers: Vec<String> = lowers.iter().map(|p| p.display().to_string()).collect();
        let options = format!("lowerdir={}", lowers.join(":"));
        Run::new("mount").args(["-t", "overlay", "-o", &options, "overlay"]).arg(at).run().ok();
        Mounted(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Run::new("umount").arg(self.0).run();
    }
}

/// The guest's root opens the interpreter itself: one that lies where others may not go is an error that names it, and nothing
/// of the guest is left.
fn an_interpreter_that_the_guest_may_not_run() {
    let recipe: Recipe = BOOKWORM_ARM64;
    let qemu = ::pronto::sys::process::find_program("qemu-aarch64").expect("qemu-aarch64");
    let dir = scratch("interpreter");
    std::fs::copy(&qemu, dir.join("qemu-aarch64")).unwrap();
    let before = Snapshot::take();
    let pronto = Pronto::fresh();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
    let out = pronto.cmd(["create", "--name", "guest", "--arch", "arm64"]).arg(recipe.tree()).env("PATH", &path).run();
    if out.code() == 0 {
        // Another interpreter was thought better: that one runs.
        pronto.run(["destroy", "guest"]).ok();
    } else {
        assert_eq!(out.code(), 3, "{out}");
        out.says("qemu-aarch64");
        assert!(pronto.rows().is_empty());
    }
    assert_eq!(before.same_again(secs(10)), None);
}
