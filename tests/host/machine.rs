//! One emulated machine per host, started when the first of its tests asks, and serving all of them: the checks run inside, one
//! after the other, and each test waits for the line of its own check. What a newcomer would get wrong: results come over a port of
//! their own, never from the console, whose text is only for people; and a test's time is how long it waited, not how long its check
//! took, which is in the summary line at the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::common::harness::{Skip, say};
use crate::common::pronto::{BINARY, scratch};
use crate::common::run::command;
use crate::common::{read, secs, skip, write};
use crate::image::{self, Host};
use crate::layers;

/// No machine may live longer, and none may be silent longer.
const LIFE: u64 = 20 * 60;
const SILENCE: u64 = 5 * 60;

/// What is run inside.
pub const INSIDE: [(&str, &str); 8] = [
    ("run.sh", include_str!("inside/run.sh")),
    ("lib.sh", include_str!("inside/lib.sh")),
    ("picture.pl", include_str!("inside/picture.pl")),
    ("house.sh", include_str!("inside/house.sh")),
    ("domain.sh", include_str!("inside/domain.sh")),
    ("single.sh", include_str!("inside/single.sh")),
    ("crash.sh", include_str!("inside/crash.sh")),
    ("foreign.sh", include_str!("inside/foreign.sh")),
];

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    name: &'static str,
    qemu: Child,
    dir: PathBuf,
    begun: Instant,
    heard: (usize, Instant),
    /// Its console was shown already.
    told: bool,
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Ok,
    /// It could not run there, and why.
    Skipped(String),
    /// With these words.
    Failed(String),
}

impl Machine {
    /// Starts a host that will run `checks` and power itself off.
    pub fn start(host: Host, checks: &[&str]) -> Machine {
        let (disks, trees, dir) = (host.built(), image::trees(), scratch(host.suite));
        let input = dir.join("in");
        ::pronto::sys::fs::private_dir(&input).expect("a directory");
        INSIDE.iter().for_each(|(name, text)| write(input.join(name), text));
        write(input.join("checks"), format!("{}\n", checks.join("\n")));
        write(input.join("host"), format!("KERNEL={}\nSYSTEMD={}\nSUITE={}\n", host.kernel, host.systemd, host.suite));
        std::fs::copy(BINARY, input.join("pronto")).expect("the program under test is copied");
        layers::write(&input.join("layers"));
        if host.brings_qemu {
            let qemu = ::pronto::sys::process::find_program("qemu-aarch64").expect("qemu-aarch64");
            std::fs::copy(qemu, input.join("qemu-aarch64")).expect("the interpreter is copied");
        }
        image::file_system(&input, &dir.join("in.img"), "in", 32);
        write(dir.join("results"), "");
        let mut qemu = command("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"]);
        // One thread for both CPUs: a kernel changes its own code while it runs, and QEMU 7.2 with a thread for each CPU executed half of
        // such a change, once in some runs. The other host has the other core. The CPU has no AVX: emulating it costs more than the
        // programs gain that use it when it is there.
        qemu.args(["-accel", "tcg,thread=single,tb-size=512", "-cpu", "Nehalem", "-smp", "2", "-m", "2048"]);
        qemu.arg("-kernel").arg(disks.join("vmlinuz")).arg("-initrd").arg(disks.join("initrd"));
        qemu.args([
            "-append",
            "root=/dev/vda rw console=ttyS0 panic=-1 loglevel=4 systemd.show_status=1 fsck.mode=skip",
        ]);
        for (n, file) in [disks.join("root.img"), dir.join("in.img"), trees].iter().enumerate() {
            let access = if n == 0 { "snapshot=on" } else { "readonly=on" };
            qemu.arg("-drive").arg(format!("if=none,id=d{n},format=raw,{access},file={}", file.display()));
            qemu.arg("-device").arg(format!("virtio-blk-pci,drive=d{n}"));
        }
        qemu.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
        qemu.arg("-serial").arg(format!("file:{}", dir.join("console").display()));
        qemu.arg("-chardev").arg(format!("file,id=results,path={}", dir.join("results").display()));
        qemu.args(["-device", "virtserialport,chardev=results,name=results"]);
        // Where QEMU keeps the layer that it throws away.
        qemu.env("TMPDIR", &dir);
        let said = std::fs::File::create(dir.join("qemu")).expect("a file for QEMU's words");
        qemu.stdin(Stdio::null()).stdout(said.try_clone().expect("a descriptor")).stderr(said);
        let qemu = tied(qemu);
        let now = Instant::now();
        Machine { name: host.suite, qemu, dir, begun: now, heard: (0, now), told: false }
    }

    /// What a check came to, if that is known. Panics when the machine is gone or silent.
    fn look(&mut self, check: &str) -> Option<Verdict> {
        let ended = self.qemu.try_wait().expect("waitpid").is_some();
        let results = read(self.dir.join("results"));
        if let Some(verdict) = verdict(&results, check) {
            return Some(verdict);
        }
        if results.len() != self.heard.0 {
            self.heard = (results.len(), Instant::now());
        }
        if let Some(why) = results.lines().find_map(|l| l.strip_prefix("refused ")) {
            return Some(Verdict::Skipped(why.to_owned()));
        }
        let why = if ended {
            "it ended before this check did"
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
        panic!(
            "the {} machine: {why}\nresults so far: {}\n{console}",
            self.name,
            results.lines().last().unwrap_or("none")
        )
    }

    /// The end of its console, and what QEMU itself said.
    fn last_words(&self) -> String {
        let console = read(self.dir.join("console"));
        let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n  ");
        format!("its console's end:\n  {end}\nQEMU: {}", read(self.dir.join("qemu")).trim())
    }

    /// Lets it power off, for a moment, and says how long everything took.
    fn end(&mut self) {
        let end = Instant::now() + secs(60);
        while self.qemu.try_wait().expect("waitpid").is_none() && Instant::now() < end {
            // Somebody who ran only some of the tests does not wait for the others.
            if !read(self.dir.join("results")).lines().any(|l| l == "end") {
                break;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let off = self.qemu.try_wait().expect("waitpid").is_some();
        self.kill();
        let results = read(self.dir.join("results"));
        let took = results.lines().filter_map(|l| l.strip_prefix("ok ").or(l.strip_prefix("FAILED ")));
        let how = if off { "powered off" } else { "was killed" };
        let all = took.collect::<Vec<_>>().join(", ");
        say(&format!(
            "the {} machine {how} after {:.0} s; seconds by check: {all}",
            self.name,
            self.begun.elapsed().as_secs_f64()
        ));
    }

    fn kill(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Reads the results: `begin NAME`, lines that start with `| `, then `ok NAME SECONDS`, `FAILED NAME SECONDS` or `skipped NAME WHY`.
pub fn verdict(results: &str, check: &str) -> Option<Verdict> {
    let mut said = Vec::new();
    // A line without its end is still being written.
    for line in results.split_inclusive('\n').filter_map(|l| l.strip_suffix('\n')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "|" => said.push(line.trim_start_matches("| ").to_owned()),
            "begin" => said.clear(),
            "ok" if name == check => return Some(Verdict::Ok),
            "skipped" if name == check => return Some(Verdict::Skipped(rest.to_owned())),
            "FAILED" if name == check => return Some(Verdict::Failed(said.join("\n"))),
            _ => {}
        }
    }
    None
}

/// A host and its machine, or why there is none.
type Place = (Host, Result<Mutex<Machine>, Verdict>);

/// The machines of this run.
static MACHINES: OnceLock<Vec<Place>> = OnceLock::new();

/// Starts every host of which a test was chosen, all at once: each is busy for minutes, and there are two cores.
fn machines() -> &'static [Place] {
    MACHINES.get_or_init(|| {
        let hosts = crate::HOSTS.into_iter().map(|host| (host, crate::chosen(host)));
        let wanted = hosts.filter(|(_, checks)| !checks.is_empty());
        wanted.map(|(host, checks)| (host, guarded(|| Mutex::new(Machine::start(host, &checks))))).collect()
    })
}

/// Why `what` panicked, when it did: one machine that cannot be had must not take the other with it.
fn guarded<T>(what: impl FnOnce() -> T) -> Result<T, Verdict> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|payload| match payload.downcast_ref::<Skip>() {
        Some(Skip(why)) => Verdict::Skipped(why.clone()),
        None => {
            let text = payload.downcast_ref::<String>().cloned();
            Verdict::Failed(text.unwrap_or_else(|| "its machine could not be started".to_owned()))
        }
    })
}

/// Waits for one check of a host and fails, or skips, as it did.
pub fn check(host: Host, name: &str) {
    let (_, machine) = machines().iter().find(|(of, _)| *of == host).expect("the host of a chosen test");
    loop {
        let seen = match machine {
            Ok(machine) => machine.lock().unwrap_or_else(PoisonError::into_inner).look(name),
            Err(verdict) => Some(verdict.clone()),
        };
        match seen {
            Some(Verdict::Ok) => return,
            Some(Verdict::Skipped(why)) => skip!("{why}"),
            Some(Verdict::Failed(text)) => panic!("on the {} machine:\n{text}", host.suite),
            None => std::thread::sleep(Duration::from_millis(300)),
        }
    }
}

/// Ends all machines.
pub fn end() {
    for (_, machine) in MACHINES.get().into_iter().flatten() {
        let Ok(machine) = machine else { continue };
        machine.lock().unwrap_or_else(PoisonError::into_inner).end();
    }
}

/// Starts a program that dies with this one, even when it is killed. The kernel ties it to the *thread* that started it, so that
/// is one that waits for ever; a test's own thread ends with the test.
fn tied(mut program: std::process::Command) -> Child {
    let (answer, child) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = answer.send(program.spawn());
        loop {
            std::thread::park();
        }
    });
    child.recv().expect("an answer").unwrap_or_else(|e| panic!("cannot start QEMU: {e}"))
}
