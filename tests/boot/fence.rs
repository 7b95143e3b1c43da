//! No guest of pronto's is fenced in less than nspawn's defaults fence it: one probe runs under plain nspawn and under every
//! start of pronto's, and the answers are compared; where pronto is meant to be stricter, that is asked too. What a newcomer
//! would get wrong: the answers are the kernel's error numbers; a call that an interpreter does not know fails, too, so
//! emulated starts are compared with emulated nspawn.

use std::collections::BTreeMap;
use std::path::Path;

use super::guest::marker;
use crate::common::fixtures::{BOOKWORM_AMD64, BOOKWORM_ARM64, Interpreter, Recipe};
use crate::common::harness::cases;
use crate::common::pronto::Pronto;
use crate::common::run::Run;
use crate::common::secs;
use crate::common::snapshot::cgroup_roots;

cases! {
    Together: native_starts_are_fenced, emulated_starts_are_fenced;
}

/// Perl is in every Debian. Calls have the numbers of the guest's CPU; each line is `name answer`.
const PROBE: &str = r#"
$| = 1;
my $arm = (`uname -m` =~ /aarch64/);
my %n = $arm ? (kexec_load=>104, add_key=>217, keyctl=>219, bpf=>280, open_by_handle_at=>265, clock_settime=>112,
    init_module=>105, delete_module=>106, swapon=>224, reboot=>142, mount=>40, mknodat=>33, perf_event_open=>241, userfaultfd=>282,
    setns=>268, unshare=>97, pivot_root=>41, acct=>89, syslog=>116, iopl=>0, ioctl=>29)
  : (kexec_load=>246, add_key=>248, keyctl=>250, bpf=>321, open_by_handle_at=>304, clock_settime=>227,
    init_module=>175, delete_module=>176, swapon=>167, reboot=>169, mount=>165, mknodat=>259, perf_event_open=>298, userfaultfd=>323,
    setns=>308, unshare=>272, pivot_root=>155, acct=>163, syslog=>103, iopl=>172, ioctl=>16);
sub answer { my ($name, $r) = @_; printf "%s %s\n", $name, $r == -1 ? 'errno ' . ($!+0) : 'done'; }
my $b = "\0" x 512;
answer('kexec_load', syscall($n{kexec_load}, 0, 0, 0, 0));
answer('add_key', syscall($n{add_key}, my $a1 = 'user', my $a2 = 'x', my $a3 = 'y', 1, -3));
answer('keyctl', syscall($n{keyctl}, 0, -3, 0));
answer('bpf', syscall($n{bpf}, 0, $b, 64));
answer('open_by_handle_at', syscall($n{open_by_handle_at}, -100, my $h = pack('II', 8, 1) . "\0" x 8, 0));
answer('clock_settime', syscall($n{clock_settime}, 99, $b));
answer('init_module', syscall($n{init_module}, 0, 0, my $e1 = ''));
answer('delete_module', syscall($n{delete_module}, my $e2 = 'no_such_module', 0));
answer('swapon', syscall($n{swapon}, my $e3 = '/no/such', 0));
answer('reboot', syscall($n{reboot}, 1, 2, 3, 0));
answer('perf_event_open', syscall($n{perf_event_open}, my $p = $b, 0, -1, -1, 0));
answer('userfaultfd', syscall($n{userfaultfd}, 0));
answer('acct', syscall($n{acct}, my $e4 = '/no/such'));
answer('syslog', syscall($n{syslog}, 10, 0, 0));
answer('iopl', syscall($n{iopl}, 3)) unless $arm;
open(my $terminal, '+<', '/dev/ptmx') or die "no terminal: $!";
answer('type TIOCSTI', syscall($n{ioctl}, fileno($terminal), 0x5412, my $t1 = 'x'));
answer('type TIOCSTI above', syscall($n{ioctl}, fileno($terminal), 0x100005412, my $t2 = 'x'));
answer('type TIOCLINUX', syscall($n{ioctl}, fileno($terminal), 0x541C, my $t3 = "\3"));
mkdir '/tmp/probe';
answer('mount proc', syscall($n{mount}, my $m1 = 'proc', my $m2 = '/tmp/probe', my $m3 = 'proc', 0, 0));
answer('remount /proc/sys', syscall($n{mount}, my $r1 = 'none', my $r2 = '/proc/sys', my $r3 = '', 32 | 4096, 0));
for my $file ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/kcore', '/proc/kmsg', '/proc/keys', '/proc/timer_list',
    '/sys/kernel/uevent_helper', '/proc/sys/kernel/modprobe', '/sys/fs/cgroup/release_agent', '/sys/fs/cgroup/systemd/release_agent',
    '/dev/mem', '/dev/kmsg', '/dev/fuse', '/dev/net/tun') {
  for my $how ('<', '+<') { answer("open $how $file", open(my $f, $how, $file) ? 0 : -1); }
}
for my $d ([7, 0], [8, 0], [253, 0], [254, 0], [1, 1], [10, 200]) {
  my $path = "/tmp/device-$d->[0]-$d->[1]";
  for my $kind (0060600, 0020600) {
    my $r = syscall($n{mknodat}, -100, $path, $kind, $d->[0] << 8 | $d->[1]);
    answer(sprintf('mknod %o %d:%d', $kind, @$d), $r);
    answer(sprintf('open %o %d:%d', $kind, @$d), open(my $f, '<', $path) ? 0 : -1) if $r == 0;
    unlink $path;
  }
}
open(my $s, '<', '/proc/self/status'); while (<$s>) { print "status $1 $2\n" if /^(Cap\w+|NoNewPrivs|Seccomp):\s+(\w+)/; }
open(my $m, '<', '/proc/self/mountinfo');
while (<$m>) { my @f = split; print "masked $f[4] ", ($f[5] =~ /^ro/ ? 'ro' : 'rw'), "\n" if $f[4] =~ m{^/(proc|sys)(/|$)} && $f[4] !~ m{cgroup|binfmt}; }
"#;

type Answers = BTreeMap<String, String>;

fn answers(text: &str) -> Answers {
    let parse = |line: &str| {
        let (name, answer) = match line.strip_prefix("status ") {
            Some(rest) => rest.split_once(' ')?,
            None if line.ends_with(" done") => line.rsplit_once(' ')?,
            None if line.starts_with("masked ") => line.rsplit_once(' ')?,
            None => line.split_once(" errno ")?,
        };
        Some((name.to_owned(), answer.to_owned()))
    };
    let answers: Answers = text.lines().filter_map(parse).collect();
    assert!(answers.len() > 30, "the probe ran to its end:\n{text}");
    answers
}

/// Not allowed, not known, not there, read-only: the call had no effect because somebody stands before it. An EINVAL, in contrast,
/// comes from behind the fence. The probe did not get so far when there is no answer.
fn is_refusal(answer: &str) -> bool {
    let numbers = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ENOENT, libc::EROFS, libc::ENXIO, libc::ENODEV];
    answer == "(missing)" || numbers.iter().any(|n| answer == n.to_string())
}

/// What the host's root can have at most, here.
fn host_bounding() -> u64 {
    let status = crate::common::read("/proc/self/status");
    let set = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).expect("CapBnd");
    u64::from_str_radix(set.trim(), 16).expect("a mask")
}

/// Everything that plain nspawn refuses and a start of pronto's allows.
fn weaker(plain: &Answers, ours: &Answers) -> Vec<String> {
    let mut found = Vec::new();
    for (name, answer) in plain {
        let mine = ours.get(name).map_or("(missing)", String::as_str);
        let worse = if name.starts_with("Cap") {
            let bits = |text: &str| u64::from_str_radix(text, 16).unwrap_or(u64::MAX);
            // What this host's own root has not been given, plain nspawn cannot give; in a user namespace the same number
            // is a right over that namespace alone.
            bits(mine) & !bits(answer) & host_bounding() != 0
        } else if name == "Seccomp" || name == "NoNewPrivs" {
            mine < answer.as_str()
        } else if name.starts_with("masked ") {
            // What is read-only there, to protect it or to hide it, must be so here, too.
            answer == "ro" && mine != "ro"
        } else {
            is_refusal(answer) && !is_refusal(mine) || answer != "done" && mine == "done"
        };
        if worse {
            found.push(format!("{name}: nspawn says {answer}, pronto {mine}"));
        }
    }
    found
}

/// Where pronto must be stricter than nspawn: nobody types into a terminal that was handed in. An emulator that does not know
/// the command refuses it by ENOTTY itself.
fn types(ours: &Answers, emulated: bool) -> Vec<String> {
    let refused = |answer: &str| answer == libc::EPERM.to_string() || emulated && answer == libc::ENOTTY.to_string();
    let tried = ["type TIOCSTI", "type TIOCSTI above", "type TIOCLINUX"];
    let said = tried.map(|name| (name, ours.get(name).map_or("(missing)", String::as_str)));
    said.iter().filter(|(_, answer)| !refused(answer)).map(|(name, answer)| format!("{name}: {answer}")).collect()
}

/// The probe as the first process of plain nspawn, in a copy of the tree that is thrown away and a cgroup of its own (it would
/// take `/payload`, which all such containers of a host share, and leave it there).
fn plain(recipe: Recipe) -> Answers {
    let machine = format!("ring-{}", marker().replace('.', "-"));
    let roots = cgroup_roots();
    let group =
        roots.iter().find(|r| r.join("cgroup.controllers").exists()).expect("a cgroup v2 hierarchy").join(&machine);
    std::fs::create_dir(&group).expect("a cgroup");
    let script = "echo $$ >\"$1/cgroup.procs\" && shift && exec \"$@\"";
    let run = Run::new("sh").args(["-c", script, "sh"]).arg(&group).args([
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
    ]);
    let run =
        run.args(["--volatile=overlay", "--pipe"]).arg(format!("--machine={machine}")).arg("-D").arg(recipe.tree());
    let out = run.args(["--", "perl", "-e", PROBE]).limit(secs(120)).run();
    // nspawn mirrors the group in the hierarchy of systemd's own, and keeps a directory where /run is a disk.
    for group in roots.iter().map(|r| r.join(&machine)) {
        for left in [group.join("payload"), group.join("supervisor"), group] {
            let _ = std::fs::remove_dir(left);
        }
    }
    let _ = std::fs::remove_dir(Path::new("/run/systemd/nspawn/propagate").join(&machine));
    answers(&out.ok().text())
}

fn compare(recipe: Recipe, options: &[&str]) {
    let emulated = recipe.arch == "arm64";
    let interpreter = emulated.then(Interpreter::needed);
    let plain = plain(recipe);
    let check = |what: &str, ours: &Answers| {
        assert_eq!(weaker(&plain, ours), Vec::<String>::new(), "{what}");
        assert_eq!(types(ours, emulated), Vec::<String>::new(), "{what}");
    };
    drop(interpreter);
    let (pronto, tree) = (Pronto::fresh(), recipe.tree());
    let run = pronto
        .cmd(["run", "--arch", recipe.arch])
        .args(options)
        .arg(&tree)
        .args(["--", "perl", "-e", PROBE])
        .limit(secs(120))
        .run()
        .ok();
    check("run", &answers(&run.text()));
    pronto.create("guest", &tree, &[&["--arch", recipe.arch], options].concat());
    let exec = pronto.cmd(["exec", "guest", "--", "perl", "-e", PROBE]).limit(secs(120)).run().ok();
    check("exec", &answers(&exec.text()));
    pronto.cmd(["exec", "-i", "guest", "--", "sh", "-c", "cat >/root/probe.pl"]).stdin(PROBE).run().ok();
    let script = "printf '[Service]\\nType=oneshot\\nExecStart=/bin/sh -c \"perl /root/probe.pl >/root/answers\"\\n' >/run/systemd/system/probe.service; \
                  systemctl start probe.service; cat /root/answers";
    let inside = pronto.exec("guest", &["sh", "-c", script]);
    check("a service of the guest's", &answers(&inside));
    pronto.run(["destroy", "guest"]).ok();
}

fn native_starts_are_fenced() {
    compare(BOOKWORM_AMD64, &[]);
    compare(BOOKWORM_AMD64, &["--no-userns"]);
}

fn emulated_starts_are_fenced() {
    compare(BOOKWORM_ARM64, &[]);
    compare(BOOKWORM_ARM64, &["--no-userns"]);
}
