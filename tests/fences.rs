//! What a guest may not do. One probe (`fixtures/fence-probe.c`) is run under plain systemd-nspawn, under nspawn with our
//! filter instead of its own, and under the start without nspawn; none of ours may let through what plain nspawn stops.
//! Then: that a start without nspawn is also a good `docker run` (statuses, signals, bytes, users, and nothing left).
//!
//! Needs root, systemd-nspawn, a C compiler with a static libc; for the emulated half aarch64-linux-gnu-gcc and a binfmt
//! handler for arm64. What is missing is said, and only that part is left out. What a newcomer would get wrong: the test
//! process itself cannot lend its standard streams, so what is about them runs in [`helper`], a process of its own.

#![allow(clippy::print_stderr, reason = "a test that leaves something out says so")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pronto::backend::direct::{self, Bind, Error, Plan};
use pronto::sys::caps::Mask;
use pronto::sys::fs::write_atomic;
use pronto::sys::jail::{self, Jail};
use pronto::sys::mount::clone_tree as detached;
use pronto::sys::process::{Tool, find_program};
use pronto::sys::{devices, seccomp};

/// Whether this can run here; the reason is said when it cannot.
fn possible(programs: &[&str]) -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: needs root");
        return false;
    }
    let missing = programs.iter().find(|p| find_program(p).is_none());
    missing.iter().for_each(|p| eprintln!("left out: {p} is not installed"));
    missing.is_none()
}

/// A cgroup v2 directory of our own, removed at the end.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Group> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].iter().find_map(|top| {
            if !devices::is_v2(&File::open(top).ok()?) {
                return None;
            }
            let dir = Path::new(top).join(format!("pronto-test-fences-{}-{count}", std::process::id()));
            std::fs::create_dir(&dir).ok().map(|()| Group(dir))
        })
    }

    fn open(&self) -> OwnedFd {
        File::open(&self.0).unwrap().into()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // nspawn makes groups of its own below the one that it finds itself in.
        for below in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(below.path());
        }
        let removed = std::fs::remove_dir(&self.0);
        assert!(removed.is_ok() || std::thread::panicking(), "{}: {removed:?}", self.0.display());
    }
}

fn plan(tree: &Path, words: &[&str]) -> Plan {
    Plan {
        ids: None,
        private: Vec::new(),
        copies: Vec::new(),
        root: detached(tree, false).unwrap(),
        hostname: "fenced".to_owned(),
        words: words.iter().map(OsString::from).collect(),
        env: Vec::new(),
        user: None,
        workdir: None,
        binds: Vec::new(),
        private_network: false,
        tty: false,
        resolv_conf: None,
        cgroup: None,
    }
}

/// A guest that borrows the host's programs, read-only.
fn borrowed(words: &[&str]) -> (tempfile::TempDir, Plan) {
    let tree = tempfile::tempdir().unwrap();
    for name in ["bin", "lib", "lib64", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), tree.path().join(name)).unwrap();
    }
    std::fs::create_dir(tree.path().join("etc")).unwrap();
    let passwd = b"root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
    write_atomic(&tree.path().join("etc/passwd"), passwd, 0o644).unwrap();
    write_atomic(&tree.path().join("etc/group"), b"ann:x:1000:\ncrew:x:77:ann\n", 0o644).unwrap();
    let mut plan = plan(tree.path(), words);
    plan.binds.push(Bind {
        source: detached(Path::new("/usr"), false).unwrap(),
        target: "/usr".into(),
        read_only: true,
    });
    (tree, plan)
}

/// Runs a script in such a guest; returns its status and what it wrote to `/said`.
fn script(script: &str, change: impl FnOnce(&mut Plan)) -> (ExitStatus, String) {
    let (tree, mut plan) = borrowed(&["sh", "-c", &format!("exec > /said; {script}")]);
    change(&mut plan);
    write_atomic(&tree.path().join("said"), b"", 0o666).unwrap();
    std::fs::set_permissions(tree.path().join("said"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let status = direct::start(plan).unwrap().wait().unwrap();
    (status, std::fs::read_to_string(tree.path().join("said")).unwrap())
}

// ---- the probe

/// The probe's lines: what was tried, and what came of it.
type Lines = Vec<(String, String)>;

fn compiled(compiler: &str) -> Option<&'static Path> {
    static DONE: OnceLock<(tempfile::TempDir, BTreeMap<&str, PathBuf>)> = OnceLock::new();
    let (_, probes) = DONE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/fence-probe.c");
        let mut probes = BTreeMap::new();
        for compiler in ["cc", "aarch64-linux-gnu-gcc"] {
            let probe = dir.path().join(compiler);
            match Tool::new(compiler).args(["-O1", "-static", "-o"]).arg(&probe).arg(source).output() {
                Ok(_) => drop(probes.insert(compiler, probe)),
                Err(error) => eprintln!("no probe by {compiler}: {error}"),
            }
        }
        (dir, probes)
    });
    probes.get(compiler).map(PathBuf::as_path)
}

/// An image without an OS: the probe, and what nspawn wants to see.
fn image(probe: &Path) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    std::fs::copy(probe, tree.path().join("probe")).unwrap();
    std::fs::create_dir_all(tree.path().join("usr/lib")).unwrap();
    std::fs::create_dir(tree.path().join("etc")).unwrap();
    write_atomic(&tree.path().join("usr/lib/os-release"), b"ID=probe\n", 0o644).unwrap();
    tree
}

fn lines(tree: &Path) -> Lines {
    let text = std::fs::read_to_string(tree.join("result")).expect("the probe wrote its result");
    text.lines().filter_map(|l| l.split_once(": ")).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

fn outside() -> String {
    std::process::id().to_string()
}

fn nspawn_words(tree: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        ["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--pipe", "-M"].map(Into::into).into();
    words.push(tree.file_name().unwrap().to_string_lossy().replace('.', "t").into());
    words.extend(["-D".into(), tree.into(), "/probe".into(), "/result".into(), outside().into()]);
    words
}

/// nspawn leaves two directories under /run where that is no tmpfs.
fn sweep(tree: &Path) {
    let machine = tree.file_name().unwrap().to_string_lossy().replace('.', "t");
    let _ = std::fs::remove_dir(Path::new("/run/systemd/nspawn/propagate").join(&machine));
    let _ = std::fs::remove_dir_all(Path::new("/run/systemd/nspawn/unix-export").join(&machine));
}

fn under_nspawn(probe: &Path) -> Lines {
    let tree = image(probe);
    let words = nspawn_words(tree.path());
    Tool::new(&words[0]).args(&words[1..]).output().unwrap();
    sweep(tree.path());
    lines(tree.path())
}

fn under_nspawn_with_our_filter(probe: &Path) -> Lines {
    let tree = image(probe);
    let group = Group::new();
    let mut tool = helper_tool("filter").args(nspawn_words(tree.path()).into_iter().map(|w| w.into_string().unwrap()));
    if let Some(group) = &group {
        devices::restrict_v2(group.open().as_fd(), &[]).unwrap();
        tool = tool.env("FENCES_GROUP", &group.0);
    }
    let status = run_helper(tool);
    assert!(status.success(), "{status}");
    sweep(tree.path());
    lines(tree.path())
}

fn under_direct(probe: &Path) -> Lines {
    let tree = image(probe);
    let group = Group::new();
    let mut plan = plan(tree.path(), &["/probe", "/result", &outside()]);
    plan.cgroup = group.as_ref().map(Group::open);
    let status = direct::start(plan).unwrap().wait().unwrap();
    assert!(status.success(), "{status}");
    lines(tree.path())
}

/// Nothing that plain nspawn stops may go through, and no capability may be left that it takes.
fn compare(what: &str, nspawn: &Lines, ours: &Lines) {
    assert!(nspawn.len() > 60, "the probe ran to its end: {nspawn:?}");
    for (name, theirs) in nspawn.iter().filter(|(name, _)| !name.starts_with("first-") && name != "own-pid") {
        let (_, own) = ours.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{what}: no line {name}"));
        if let (Some(theirs), Some(own)) = (theirs.strip_prefix('='), own.strip_prefix('=')) {
            let mask = |hex| Mask(u64::from_str_radix(hex, 16).unwrap());
            assert!(mask(own).within(mask(theirs)), "{what}: {name} {own} has more than {theirs}");
        } else {
            assert!(theirs == "ok" || own != "ok", "{what}: {name} is {theirs} under nspawn, but ok");
        }
    }
}

/// What must be refused whatever nspawn does here: without systemd as process 1 it closes no devices, for example.
fn absolute(what: &str, ours: &Lines, with_group: bool) {
    let of = |name: &str| ours.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let refused = [
        "kexec_load",
        "kexec_file_load",
        "add_key",
        "request_key",
        "keyctl",
        "bpf",
        "open_by_handle_at",
        "clock_settime",
        "settimeofday",
        "clock_adjtime",
        "adjtimex",
        "perf_event_open",
        "init_module",
        "finit_module",
        "delete_module",
        "swapon",
        "swapoff",
        "acct",
        "syslog",
        "quotactl",
        "fanotify_init",
        "mlockall",
        "pidfd_getfd",
        "network-admin",
        "int80-kexec_load",
        "int80-bpf",
        "int80-clock_settime",
        "int80-add_key",
        "x32-bpf",
        "x32-kexec_load",
        "x32-add_key",
        "iopl",
        "ioperm",
    ];
    for name in refused {
        assert!(matches!(of(name), Some("EPERM" | "ENOSYS") | None), "{what}: {name} is {:?}", of(name));
    }
    assert_eq!(of("audit-socket"), Some("EAFNOSUPPORT"), "{what}");
    assert_eq!(of("write-core_pattern"), Some("EROFS"), "{what}");
    for name in ["signal-outside", "foreign-processes"] {
        assert_eq!(of(name), Some("ESRCH"), "{what}: {name}");
    }
    for name in ["mknod-null", "open-null"] {
        assert_eq!(of(name), Some("ok"), "{what}: {name} is for everybody");
    }
    if with_group {
        for name in
            ["mknod-mem", "open-mem", "mknod-kmsg", "open-kmsg", "mknod-loop-control", "open-loop-control", "mknod-pts"]
        {
            assert_eq!(of(name), Some("EPERM"), "{what}: {name}");
        }
        for name in ["mknod-disk", "open-disk", "open-devtmpfs-disk"] {
            assert!(matches!(of(name), Some("EPERM") | None), "{what}: {name} is {:?}", of(name));
        }
    }
}

/// Here we are stricter than nspawn, which lets a guest's root type into a terminal that was handed in. A natural EPERM cannot
/// come, since the probe has CAP_SYS_ADMIN; an emulator may not know a command at all.
fn nobody_types(what: &str, ours: &Lines, native: bool) {
    let tries: Vec<_> = ours.iter().filter(|(name, _)| name.contains("type-tioc")).collect();
    assert!(tries.len() >= 3, "{what}: {tries:?}");
    for (name, said) in tries {
        assert!(said == "EPERM" || !native && said == "ENOTTY", "{what}: {name} is {said}");
    }
    assert!(ours.contains(&("window-size".to_owned(), "ok".to_owned())), "{what}: other commands go through");
}

fn fences_hold(compiler: &str) {
    let Some(probe) = compiled(compiler) else { return eprintln!("left out: {compiler} made no probe") };
    let with_group = Group::new().is_some();
    if !with_group {
        eprintln!("no cgroup v2 tree can be written here: the device policy is not tried");
    }
    let nspawn = under_nspawn(probe);
    let filtered = under_nspawn_with_our_filter(probe);
    let direct = under_direct(probe);
    compare("nspawn with our filter", &nspawn, &filtered);
    compare("direct", &nspawn, &direct);
    absolute("nspawn with our filter", &filtered, with_group);
    absolute("direct", &direct, with_group);
    nobody_types("nspawn with our filter", &filtered, compiler == "cc");
    nobody_types("direct", &direct, compiler == "cc");
    for name in ["read-kmsg", "read-kallsyms", "read-kcore", "read-keys", "read-timer_list"] {
        let (_, got) = direct.iter().find(|(n, _)| n == name).unwrap();
        assert!(matches!(&**got, "EMPTY" | "ENOENT"), "{name} is {got}");
    }
    // Process 1 leads to nothing of the host's.
    let first: Vec<_> = direct.iter().filter(|(n, _)| n.starts_with("first-")).collect();
    assert!(first.len() >= 2 && first.iter().all(|(_, v)| v == "=/dev/jail-init (deleted)"), "{first:?}");
    assert!(direct.contains(&("own-pid".to_owned(), "=2".to_owned())));
}

#[test]
fn the_fences_hold_natively() {
    if possible(&["systemd-nspawn", "cc"]) {
        fences_hold("cc");
    }
}

#[test]
fn the_fences_hold_under_emulation() {
    if !possible(&["systemd-nspawn", "aarch64-linux-gnu-gcc"]) {
        return;
    }
    let Some(probe) = compiled("aarch64-linux-gnu-gcc") else { return eprintln!("left out: no arm64 probe") };
    // The probe without its words says 99, if somebody can run it.
    match Tool::new(probe).output() {
        Err(pronto::sys::process::ToolError::Failed { status, .. }) if status.code() == Some(99) => {
            fences_hold("aarch64-linux-gnu-gcc");
        }
        other => eprintln!("left out: this host cannot run arm64 programs: {other:?}"),
    }
}

// ---- a process of its own for what is about standard streams and about dying

fn helper_tool(mode: &str) -> Tool {
    Tool::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper", "--ignored", "--nocapture", "--test-threads=1", "--"])
        .env("FENCES_HELPER", mode)
}

/// The words after `--` go by a variable, since the test harness would take them for its own.
fn run_helper(mut tool: Tool) -> ExitStatus {
    tool.command().stdout(Stdio::null()).stderr(Stdio::null());
    tool.spawn().unwrap().wait().unwrap()
}

#[test]
#[ignore = "not a test: the other tests start it"]
fn helper() {
    let Some(mode) = std::env::var_os("FENCES_HELPER") else { return };
    let words: Vec<String> = std::env::args().skip_while(|w| w != "--").skip(1).collect();
    if mode == "filter" {
        if let Some(group) = std::env::var_os("FENCES_GROUP") {
            std::fs::OpenOptions::new()
                .write(true)
                .open(Path::new(&group).join("cgroup.procs"))
                .unwrap()
                .write_all(b"0")
                .unwrap();
        }
        jail::fresh_keyring();
        seccomp::Filter::for_host().unwrap().install().unwrap();
        panic!("{}", Tool::new(&words[0]).args(&words[1..]).env("SYSTEMD_SECCOMP", "0").command().exec());
    }
    let files = ["FENCES_IN", "FENCES_OUT", "FENCES_ERR"].map(|n| std::env::var_os(n).unwrap_or("/dev/null".into()));
    nix::unistd::dup2_stdin(File::open(&files[0]).unwrap()).unwrap();
    nix::unistd::dup2_stdout(File::create(&files[1]).unwrap()).unwrap();
    nix::unistd::dup2_stderr(File::create(&files[2]).unwrap()).unwrap();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (tree, plan) = borrowed(&words);
    let status = direct::start(plan).unwrap().wait().unwrap();
    drop(tree);
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
    #[expect(clippy::disallowed_methods, reason = "the harness must not write to the streams that were lent")]
    std::process::exit(code);
}

#[test]
fn bytes_pass_through_as_they_are() {
    if !possible(&["sh"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [input, output, error] = ["in", "out", "err"].map(|n| dir.path().join(n));
    let mut bytes = vec![0; 1 << 20];
    File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    write_atomic(&input, &bytes, 0o600).unwrap();
    let tool = helper_tool("run")
        .args(["sh", "-c", "cat; printf 'only here' >&2; exit 42"])
        .env("FENCES_IN", &input)
        .env("FENCES_OUT", &output)
        .env("FENCES_ERR", &error);
    assert_eq!(run_helper(tool).code(), Some(42));
    assert!(std::fs::read(&output).unwrap() == bytes, "stdin came out of stdout, unchanged");
    assert_eq!(std::fs::read(&error).unwrap(), b"only here");
}

/// Processes whose command line holds `mark`, by their numbers here.
fn marked(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if name.parse::<u32>().is_ok() && String::from_utf8_lossy(&line).split('\0').any(|w| w == mark) {
            found.push(name);
        }
    }
    found
}

fn within(seconds: u64, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(seconds), "{what} did not happen within {seconds} s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn killing_the_starter_ends_everything() {
    if !possible(&["sh"]) {
        return;
    }
    let mark = format!("{}.5", 100_000 + std::process::id());
    // One that ignores what it can, in a session of its own, beside the command.
    let script = format!("setsid sh -c 'trap \"\" TERM HUP INT; sleep {mark} & wait' & trap '' TERM; sleep {mark}");
    let mut tool = helper_tool("run").args(["sh", "-c", &script]);
    tool.command().stdout(Stdio::null()).stderr(Stdio::null());
    let mut helper = tool.spawn().unwrap();
    within(20, "the start", || marked(&mark).len() == 2);
    helper.kill().unwrap();
    helper.wait().unwrap();
    within(2, "the end of everything", || marked(&mark).is_empty());
}

// ---- as docker run

#[test]
fn statuses_are_exact() {
    if !possible(&["sh"]) {
        return;
    }
    assert_eq!(script("exit 42", |_| ()).0.code(), Some(42));
    assert_eq!(script("kill -TERM $$", |_| ()).0.signal(), Some(libc::SIGTERM), "it is not process 1");
    assert_eq!(script("kill -SEGV $$", |_| ()).0.signal(), Some(libc::SIGSEGV));
    let (status, said) = script("kill -KILL 1; kill -STOP 1; echo alive $$", |_| ());
    assert_eq!((status.code(), &*said), (Some(0), "alive 2\n"));
    let failed = |words: &[&str]| direct::start(borrowed(words).1).map(drop).unwrap_err();
    assert!(matches!(failed(&["no-such-program"]), Error::NotFound(w) if w == "no-such-program"));
    assert!(matches!(failed(&["/no/such/file"]), Error::NotFound(_)));
    assert!(matches!(failed(&["/etc/passwd"]), Error::NotExecutable { .. }));
    assert!(matches!(failed(&["/etc"]), Error::NotExecutable { .. }));
    let (_tree, mut plan) = borrowed(&["true"]);
    plan.user = Some("eve".to_owned());
    assert_eq!(direct::start(plan).unwrap_err().to_string(), "the guest has no user 'eve'");
}

fn started(words: &[&str]) -> (tempfile::TempDir, Jail) {
    let (tree, plan) = borrowed(words);
    (tree, direct::start(plan).unwrap())
}

#[test]
fn signals_reach_the_command() {
    if !possible(&["sh"]) {
        return;
    }
    let (tree, jail) = started(&["sh", "-c", "trap 'exit 9' USR1; : > /ready; while :; do sleep 0.05; done"]);
    within(20, "the trap", || tree.path().join("ready").exists());
    jail.signal(libc::SIGUSR1).unwrap();
    assert_eq!(jail.wait().unwrap().code(), Some(9));
    let (_tree, jail) = started(&["sleep", "1000"]);
    jail.signal(libc::SIGTERM).unwrap();
    assert_eq!(jail.wait().unwrap().signal(), Some(libc::SIGTERM));
    let (_tree, jail) = started(&["sh", "-c", "trap '' TERM; sleep 1000"]);
    jail.signal(libc::SIGKILL).unwrap();
    assert_eq!(jail.wait().unwrap().signal(), Some(libc::SIGKILL));
    let (_tree, jail) = started(&["sleep", "1000"]);
    let pid = jail.pid();
    drop(jail);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "one that nobody waits for is ended");
}

#[test]
fn orphans_are_reaped_and_end_with_the_command() {
    if !possible(&["sh"]) {
        return;
    }
    let count = "n=0; for p in /proc/[0-9]*; do n=$((n + 1)); done; echo $n";
    let (_, said) = script(&format!("(sleep 0.1 & sleep 0.2 &); sleep 0.5; {count}"), |_| ());
    assert_eq!(said, "2\n", "process 1 and the shell");
    let start = Instant::now();
    let (status, _) = script("(setsid sleep 1000 &); exit 0", |_| ());
    assert!(status.success() && start.elapsed() < Duration::from_secs(2));
}

#[test]
fn users_directories_and_variables() {
    if !possible(&["sh"]) {
        return;
    }
    let (_, said) =
        script("id -u; id -g; id -G; echo $HOME; pwd; echo $A; echo $PATH; umask; hostname; env | wc -l", |plan| {
            plan.user = Some("ann".to_owned());
            plan.workdir = Some("/new/place".into());
            plan.env = vec![("A".into(), "1 2".into())];
        });
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(said, format!("1000\n1000\n1000 77\n/home/ann\n/new/place\n1 2\n{path}\n0022\nfenced\n6\n"));
    let (_, said) =
        script("grep -E '^Cap(Eff|Prm|Inh|Amb)|^NoNew|^Sig(Ign|Blk)|^Seccomp:' /proc/self/status", |plan| {
            plan.user = Some("1234:5".to_owned());
        });
    let values: Vec<&str> = said.lines().filter_map(|l| l.split_once('\t')).map(|(_, v)| v).collect();
    let none = "0000000000000000";
    // SigBlk, SigIgn, four sets of capabilities, NoNewPrivs (setuid programs work), Seccomp with a filter.
    assert_eq!(values, [none, none, none, none, none, none, "0", "2"], "{said}");
    let (_, said) = script("ls /proc/self/fd", |_| ());
    assert_eq!(said, "0\n1\n2\n3\n", "3 is ls's own");
}

#[test]
fn binds_are_as_asked() {
    if !possible(&["sh"]) {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    write_atomic(&host.path().join("file"), b"held\n", 0o644).unwrap();
    let (_, said) = script(
        "cat /a/b/file; echo new > /a/b/new && echo wrote; echo no > /c/file 2>/dev/null || echo refused",
        |plan| {
            let bind = |source: &Path, target: &str, read_only| Bind {
                source: detached(source, true).unwrap(),
                target: target.into(),
                read_only,
            };
            plan.binds.push(bind(host.path(), "/a/b", false));
            plan.binds.push(bind(&host.path().join("file"), "/c/file", true));
        },
    );
    assert_eq!(said, "held\nwrote\nrefused\n");
    assert_eq!(std::fs::read(host.path().join("new")).unwrap(), b"new\n");
}

#[test]
fn a_network_of_its_own_is_one() {
    if !possible(&["sh"]) {
        return;
    }
    let look = "ls /sys/class/net; cat /sys/class/net/lo/flags; echo 1 > /proc/sys/net/ipv4/ip_forward && echo tuned; \
                (echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo closed";
    let (_, said) = script(look, |plan| plan.private_network = true);
    assert_eq!(said, "lo\n0x9\ntuned\nclosed\n");
    let (_, said) = script("ls -l /proc/self/ns/net | sed 's/.*-> //'", |_| ());
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(said.trim(), ours.to_str().unwrap(), "otherwise it has the host's");
}

#[test]
fn nothing_of_the_host_is_seen() {
    if !possible(&["sh"]) {
        return;
    }
    let (_, said) = script("cut -d' ' -f5 /proc/self/mountinfo; ls /", |_| ());
    let (mounts, names): (Vec<&str>, Vec<&str>) = said.lines().partition(|l| l.starts_with('/'));
    assert_eq!(names, ["bin", "dev", "etc", "lib", "lib64", "proc", "run", "said", "sbin", "sys", "tmp", "usr"]);
    let known = ["/", "/usr"];
    let strange =
        |m: &&&str| !known.contains(m) && !["/dev", "/proc", "/sys", "/run", "/tmp"].iter().any(|d| m.starts_with(d));
    assert_eq!(mounts.iter().find(strange), None);
    assert_eq!(mounts.iter().filter(|m| **m == "/").count(), 1, "no host tree below: {mounts:?}");
    let (_, said) =
        script("readlink /proc/1/exe; ls -l /proc/1/fd | sed 's/.*-> //' | grep -v -e null -e pipe -e total", |_| ());
    assert_eq!(said, "/dev/jail-init (deleted)\n");
}

#[test]
fn a_terminal_is_the_guests_own() {
    if !possible(&["sh"]) {
        return;
    }
    let (_tree, mut plan) =
        borrowed(&["sh", "-c", "tty; test -t 2 && test -c /dev/console; echo $?; read x; echo got $x > /dev/tty"]);
    plan.tty = true;
    let mut jail = direct::start(plan).unwrap();
    let mut master = File::from(jail.take_terminal().unwrap());
    master.write_all(b"words\n").unwrap();
    let mut said = Vec::new();
    // The end of a terminal reads as EIO.
    let _ = master.read_to_end(&mut said);
    assert!(jail.wait().unwrap().success());
    let said = String::from_utf8(said).unwrap();
    // The terminal echoes what was typed at any point before it is read.
    let lines: Vec<&str> = said.lines().filter(|l| *l != "words").collect();
    assert_eq!(lines, ["/dev/pts/0", "0", "got words"], "{said:?}");
}

#[test]
fn an_image_without_an_os_works_and_a_bad_one_is_an_error() {
    if !possible(&["cc"]) {
        return;
    }
    let Some(probe) = compiled("cc") else { return };
    let tree = tempfile::tempdir().unwrap();
    std::fs::copy(probe, tree.path().join("only")).unwrap();
    let status = direct::start(plan(tree.path(), &["/only"])).unwrap().wait().unwrap();
    assert_eq!(status.code(), Some(99), "the probe without its words");
    write_atomic(&tree.path().join("file"), b"", 0o644).unwrap();
    std::fs::remove_dir(tree.path().join("proc")).unwrap();
    std::os::unix::fs::symlink("file", tree.path().join("proc")).unwrap();
    let error = direct::start(plan(tree.path(), &["/only"])).unwrap_err();
    assert_eq!(error.to_string(), "cannot set up /proc: Not a directory (os error 20)");
}
