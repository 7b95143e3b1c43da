//! One emulated Xen host per CPU, started when the first of its tests asks, and serving all of them: a script runs in its dom0 and keeps what
//! each command printed in a directory that both sides see; each test waits for the part of the script that it is about. What a newcomer
//! would get wrong: tests judge here, outside; the script only records, so that it can be run with another program in xl's place.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::common::harness::{Skip, say};
use crate::common::pronto::scratch;
use crate::common::run::command;
use crate::common::{read, secs, skip, write};
use crate::host::Host;
use crate::{bytes, configs, program};

/// No machine may live longer, and none may be silent longer.
const LIFE: u64 = 10 * 60;
const SILENCE: u64 = 3 * 60;

/// What is run inside.
const INSIDE: [(&str, &str); 2] =
    [("run.sh", include_str!("inside/run.sh")), ("verbs.sh", include_str!("inside/verbs.sh"))];

/// A running machine.
#[derive(Debug)]
struct Machine {
    host: Host,
    qemu: Child,
    dir: PathBuf,
    begun: Instant,
    heard: (usize, Instant),
    told: bool,
}

/// One command that ran in dom0.
#[derive(Debug)]
pub struct Record {
    /// Its words.
    pub line: String,
    /// Its exit code; 124 when it was stopped.
    pub code: i32,
    /// All of stdout.
    pub out: Vec<u8>,
    /// All of stderr.
    pub err: Vec<u8>,
}

impl Record {
    /// Stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Stderr as text.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }

    /// Itself, when it ended with 0.
    pub fn ok(self) -> Record {
        assert_eq!(self.code, 0, "{self}");
        self
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}\nstdout: {}\nstderr: {}", self.line, self.code, self.text(), self.said())
    }
}

impl Machine {
    fn start(host: Host) -> Machine {
        let (disks, dir) = (host.built(), scratch(&format!("xen-{}", host.arch)));
        let share = dir.join("share");
        ::pronto::sys::fs::private_dir(&share).expect("a directory");
        INSIDE.iter().for_each(|(name, text)| write(share.join(name), text));
        for sub in ["records", "configs"] {
            std::fs::create_dir(share.join(sub)).expect("a directory");
        }
        for (name, text) in configs::texts(host) {
            write(share.join("configs").join(name), text);
        }
        write(share.join("host"), format!("TYPE={}\n", host.guest));
        match program::built(host) {
            Ok(programs) => {
                std::fs::copy(&programs.pronto, share.join("pronto")).expect("the program under test is copied");
                std::fs::copy(&programs.inside, share.join("inside")).expect("the tests' own program is copied");
            }
            Err(why) => write(share.join("no-programs"), why),
        }
        write(share.join("results"), "");
        let mut qemu = emulator(host, &disks, &share);
        qemu.arg("-serial").arg(format!("file:{}", dir.join("console").display()));
        let said = std::fs::File::create(dir.join("qemu")).expect("a file for QEMU's words");
        qemu.stdin(Stdio::null()).stdout(said.try_clone().expect("a descriptor")).stderr(said);
        let (qemu, now) = (tied(qemu), Instant::now());
        Machine { host, qemu, dir, begun: now, heard: (0, now), told: false }
    }

    /// The results so far, if the script is through with `part`. Panics when the machine is gone or silent.
    fn look(&mut self, part: &str) -> Option<PathBuf> {
        let ended = self.qemu.try_wait().expect("waitpid").is_some();
        let results = read(self.dir.join("share/results"));
        if results.split_terminator('\n').any(|line| line == format!("done {part}")) {
            return Some(self.dir.join("share"));
        }
        if results.len() != self.heard.0 {
            self.heard = (results.len(), Instant::now());
        }
        let why = if ended {
            "it ended before this part of its script did"
        } else if self.begun.elapsed() > secs(LIFE) {
            "it lived too long and was killed"
        } else if self.heard.1.elapsed() > secs(SILENCE) {
            "it was silent too long and was killed"
        } else {
            return None;
        };
        self.kill();
        let console = if self.told { String::new() } else { self.last_words() };
        self.told = true;
        panic!("the {} Xen host: {why}\nlast result: {:?}\n{console}", self.host.arch, results.lines().last())
    }

    fn last_words(&self) -> String {
        let console = read(self.dir.join("console"));
        let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n  ");
        format!("its console's end:\n  {end}\nQEMU: {}", read(self.dir.join("qemu")).trim())
    }

    fn end(&mut self) {
        let end = Instant::now() + secs(20);
        let over = || read(self.dir.join("share/results")).lines().any(|l| l == "end");
        while over() && self.qemu.try_wait().expect("waitpid").is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(200));
        }
        let how = if self.qemu.try_wait().expect("waitpid").is_some() { "powered off" } else { "was ended" };
        self.kill();
        let results = read(self.dir.join("share/results"));
        let times: Vec<&str> = results.lines().filter_map(|l| l.strip_prefix("at ")).collect();
        let (name, took) = (self.host.arch, self.begun.elapsed().as_secs_f64());
        say(&format!("the {name} Xen host {how} after {took:.0} s; seconds by part: {}", times.join(", ")));
    }

    fn kill(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// QEMU with Xen, its kernel and its file system. One CPU: nothing here gains by two, and the other host has the other core.
fn emulator(host: Host, disks: &Path, share: &Path) -> Command {
    let file = |name: &str| disks.join(name).display().to_string();
    let mut qemu = command("setpriv");
    qemu.args(["--pdeathsig", "KILL", host.qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    qemu.args(["-accel", "tcg", "-smp", "1", "-m", "1024"]);
    qemu.arg("-fsdev").arg(format!("local,id=share,path={},security_model=none", share.display()));
    let (xen, linux) = ("dom0_mem=384M dom0_max_vcpus=1 loglvl=error guest_loglvl=error", "console=hvc0 loglevel=4");
    if host.arch == "arm64" {
        qemu.args(["-machine", "virt,virtualization=on,gic-version=3", "-cpu", "cortex-a57"]);
        qemu.args(["-device", "virtio-9p-device,fsdev=share,mount_tag=share"]);
        qemu.arg("-kernel").arg(file("xen")).args(["-append", xen]);
        let kernel = format!("guest-loader,addr=0x50000000,kernel={},bootargs={linux}", file("vmlinuz"));
        let initrd = format!("guest-loader,addr=0x54000000,initrd={}", file("initrd"));
        qemu.args(["-device", &kernel, "-device", &initrd]);
    } else {
        // QEMU's newer models make Xen or dom0 fall over; this old one does not.
        qemu.args(["-machine", "pc", "-cpu", "qemu64", "-vga", "none"]);
        qemu.args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]);
        qemu.arg("-kernel").arg(file("xen")).arg("-append").arg(format!("{xen} com1=115200,8n1 console=com1"));
        qemu.arg("-initrd").arg(format!("{} {linux},{}", file("vmlinuz"), file("initrd")));
    }
    qemu
}

/// A host and its machine, or why there is none: `Ok` is a reason to skip, `Err` to fail.
type Place = (Host, Result<Mutex<Machine>, Result<String, String>>);

static MACHINES: OnceLock<Vec<Place>> = OnceLock::new();

/// Starts every host of which a test was chosen, all at once.
fn machines() -> &'static [Place] {
    MACHINES.get_or_init(|| {
        let wanted = crate::HOSTS.into_iter().filter(|host| crate::is_wanted(*host));
        wanted.map(|host| (host, guarded(|| Mutex::new(Machine::start(host))))).collect()
    })
}

fn guarded<T>(what: impl FnOnce() -> T) -> Result<T, Result<String, String>> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|payload| match payload.downcast_ref::<Skip>() {
        Some(Skip(why)) => Ok(why.clone()),
        None => Err(payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "it could not be started".to_owned())),
    })
}

/// What the dom0 of a host shares, once its script is through with `part`.
pub fn share(host: Host, part: &str) -> PathBuf {
    let (_, machine) = machines().iter().find(|(of, _)| *of == host).expect("the host of a chosen test");
    let machine = match machine {
        Ok(machine) => machine,
        Err(Ok(why)) => skip!("{why}"),
        Err(Err(why)) => panic!("the {} Xen host: {why}", host.arch),
    };
    loop {
        // The lock is not held while waiting: tests of other parts look as well.
        if let Some(share) = machine.lock().unwrap_or_else(PoisonError::into_inner).look(part) {
            return share;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What one command of a part printed.
pub fn record(host: Host, part: &str, name: &str) -> Record {
    let records = share(host, part).join("records");
    let file = |end: &str| records.join(format!("{name}.{end}"));
    assert!(file("code").exists(), "the script recorded no command '{name}' in '{part}'");
    let code = read(file("code")).trim().parse().expect("an exit code");
    Record { line: read(file("line")).trim().to_owned(), code, out: bytes(&file("out")), err: bytes(&file("err")) }
}

/// Ends all machines.
pub fn end() {
    for (_, machine) in MACHINES.get().into_iter().flatten() {
        if let Ok(machine) = machine {
            machine.lock().unwrap_or_else(PoisonError::into_inner).end();
        }
    }
}

/// Starts a program that dies with this one. The kernel ties it to the *thread* that started it, so that is one that waits for ever.
fn tied(mut program: Command) -> Child {
    let (answer, child) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = answer.send(program.spawn());
        loop {
            std::thread::park();
        }
    });
    child.recv().expect("an answer").unwrap_or_else(|e| panic!("cannot start QEMU: {e}"))
}
