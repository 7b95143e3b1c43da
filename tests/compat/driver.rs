//! pronto's driver in a real dom0: this program runs there, makes guests by `create -F` and sees how they end. What a newcomer would get wrong: the
//! first half runs outside and reads what the second half, inside, has printed: one line for each step.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ::pronto::backend::hexagon::xen::config;
use ::pronto::backend::hexagon::xen::failure::{Kind, Notice};
use ::pronto::backend::hexagon::xen::output::{Domain, Reason, vdev};
use ::pronto::backend::hexagon::xen::xl::{Error, Verb, Xl};
use ::pronto::backend::hexagon::{Boot, Machine};
use ::pronto::sys::xen;

use crate::common::{read, skip, write};
use crate::configs::{disk, kind, nic, small};
use crate::host::Host;
use crate::machine::{record, share};

fn needs_programs(host: Host) {
    let why = share(host, "own_programs").join("no-programs");
    if why.exists() {
        skip!("{}", read(why));
    }
}

pub fn pronto_starts_there(host: Host) {
    needs_programs(host);
    let record = record(host, "own_programs", "own-version").ok();
    assert_eq!(record.text().trim(), format!("pronto {}", env!("CARGO_PKG_VERSION")));
}

pub fn a_life_by_the_driver(host: Host) {
    needs_programs(host);
    let record = record(host, "own_programs", "own-driver").ok();
    let steps: Vec<&str> = record.out.split(|b| *b == b'\n').filter_map(|l| std::str::from_utf8(l).ok()).collect();
    for step in ["place", "refused", "run", "paused", "shutdown", "reboot", "crash", "killed", "end"] {
        assert!(steps.contains(&step), "no step {step:?}: {record}");
    }
}

/// What runs in dom0.
pub fn inside() -> ExitCode {
    let host = crate::HOSTS.into_iter().find(|h| h.target.starts_with(std::env::consts::ARCH)).expect("a known CPU");
    assert_eq!(xen::place(), xen::Place::Dom0);
    let info = xen::info(Duration::from_secs(20)).expect("a Xen host that works");
    assert!(String::from_utf8_lossy(&info).contains("xen_major"));
    step("place");
    let xl = Xl::new("/usr/sbin/xl");
    refusals(&xl, host);
    step("refused");
    let guest = run(&xl, host);
    end_in_order(&xl, guest);
    let mut guest = Guest::make(&xl, host, "reboot", "", false);
    guest.ready();
    xl.act(&Verb::Reboot(guest.domid)).expect("xl asks it");
    guest.ends_with(&xl, Reason::Reboot);
    step("reboot");
    // Nobody tells Xen of an ARM kernel's panic; it starts again after a second.
    let reason = if host.guest == "pv" { Reason::Crash } else { Reason::Reboot };
    Guest::make(&xl, host, "crash", " panic=1 crash", false).ends_with(&xl, reason);
    step("crash");
    // Killing the one who waits does not touch the guest; destroying the guest ends the one who waits.
    let mut guest = Guest::make(&xl, host, "killed", "", true);
    guest.waiter.kill().expect("a signal");
    guest.waiter.wait().expect("its end");
    assert!(guest.row(&xl).is_some_and(|row| row.state.paused), "it stays as it was");
    xl.act(&Verb::Destroy(guest.domid)).expect("it is destroyed");
    assert!(guest.row(&xl).is_none());
    let mut guest = Guest::make(&xl, host, "destroyed", "", true);
    xl.act(&Verb::Destroy(guest.domid)).expect("it is destroyed");
    assert_eq!(guest.notice(), Notice::Destroyed(guest.domid));
    guest.waiter.wait().expect("its end");
    step("killed");
    assert_eq!(xl.list().expect("a list").len(), 1, "only domain 0 is left");
    step("end");
    ExitCode::SUCCESS
}

fn refusals(xl: &Xl, host: Host) {
    assert_eq!(xl.domid("nosuch").expect("an answer"), None);
    assert_eq!(xl.domid("-x").expect("an answer"), None);
    assert_eq!(xl.domid("Domain-0").expect("an answer"), Some(0));
    assert!(xl.info().expect("info").architectures().contains(&host.arch));
    assert!(matches!(xl.act(&Verb::Destroy(0)), Err(Error::Zero("destroy"))));
    for error in [xl.pause(4242).unwrap_err(), xl.act(&Verb::Destroy(4242)).unwrap_err()] {
        assert!(matches!(&error, Error::Failed { failure, .. } if failure.kind == Kind::Missing), "{error}");
    }
    write("/run/broken.cfg", "name = 1 2\n");
    let error = xl.dry_run(Path::new("/run/broken.cfg")).unwrap_err().to_string();
    assert!(error.contains("broken.cfg:"), "{error}");
}

/// A guest with everything, made paused, looked at, and let go.
fn run(xl: &Xl, host: Host) -> Guest {
    let mut machine = small(host, "driven");
    (machine.vcpus, machine.max_vcpus) = (1, Some(2));
    machine.disks = vec![disk("/run/disk.img", "xvda")];
    machine.nics = vec![nic(9, "xenbr0", Some("driven.0"))];
    let guest = Guest::start(xl, host, &machine, true);
    assert_eq!(xl.domid("driven").expect("an answer"), Some(guest.domid));
    let row = guest.row(xl).expect("a row");
    assert!(row.state.paused && row.uuid.as_deref() == Some(&machine.uuid) && row.memory == 96, "{row:?}");
    xl.unpause(guest.domid).expect("it is let go");
    guest.ready();
    let details = xl.details().expect("details");
    let details = details.iter().find(|d| d.domid == Some(guest.domid)).expect("its details");
    assert_eq!((details.max_vcpus, details.disks.len(), details.nics.len()), (2, 1, 1));
    assert_eq!(details.nics[0].name.as_deref(), Some("driven.0"));
    let cpus = xl.vcpus(Some(guest.domid)).expect("CPUs");
    assert_eq!(cpus.iter().map(|c| c.cpu.is_some()).collect::<Vec<_>>(), [true, false]);
    assert!(xl.uptime(guest.domid).expect("uptime") < Duration::from_secs(200));
    let blocks = xl.blocks(guest.domid).expect("disks");
    assert_eq!(blocks.iter().map(|b| (vdev(b.device), b.state)).collect::<Vec<_>>(), [(Some("xvda".to_owned()), 4)]);
    assert_eq!(xl.interfaces(guest.domid).expect("interfaces").len(), 1);
    step("run");
    xl.pause(guest.domid).expect("it is paused");
    xl.pause(guest.domid).expect("it is paused already");
    assert!(guest.row(xl).expect("a row").state.paused);
    xl.act(&Verb::Pause(guest.domid)).expect("Xen counts this one");
    xl.unpause(guest.domid).expect("it is let go");
    xl.unpause(guest.domid).expect("it runs already");
    assert!(!guest.row(xl).expect("a row").state.paused);
    step("paused");
    guest
}

fn end_in_order(xl: &Xl, mut guest: Guest) {
    xl.act(&Verb::Shutdown(guest.domid)).expect("xl asks it");
    guest.ends_with(xl, Reason::Poweroff);
    step("shutdown");
}

/// A guest and the `xl create -F` that waits for its end.
struct Guest {
    name: String,
    domid: u32,
    waiter: Child,
    said: Receiver<String>,
}

impl Guest {
    /// A small one, with words for its kernel.
    fn make(xl: &Xl, host: Host, name: &str, words: &str, paused: bool) -> Guest {
        let mut machine = small(host, name);
        if let Boot::Kernel { cmdline, .. } = &mut machine.boot {
            cmdline.push_str(words);
        }
        Guest::start(xl, host, &machine, paused)
    }

    fn start(xl: &Xl, host: Host, machine: &Machine, paused: bool) -> Guest {
        let file = PathBuf::from(format!("/run/{}=driver.cfg", machine.name));
        write(&file, config::text(machine, kind(host)).expect("a text"));
        let mut tool = xl.tool(&Verb::Create { file, paused }).expect("words");
        tool.command().stdout(Stdio::null()).stderr(Stdio::piped());
        let mut waiter = tool.spawn().expect("xl starts");
        let stderr = BufReader::new(waiter.stderr.take().expect("a pipe"));
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut guest = Guest { name: machine.name.clone(), domid: 0, waiter, said };
        let Notice::Made(domid) = guest.notice() else { panic!("it was not made first") };
        guest.domid = domid;
        guest
    }

    /// The next notice.
    fn notice(&mut self) -> Notice {
        let mut all = Vec::new();
        while let Ok(line) = self.said.recv_timeout(Duration::from_secs(60)) {
            if let Some(notice) = Notice::read(&line) {
                return notice;
            }
            all.push(line);
        }
        panic!("{}: no notice, but {all:?}", self.name);
    }

    fn row(&self, xl: &Xl) -> Option<Domain> {
        xl.row(self.domid).expect("a list")
    }

    /// Waits until its console says so.
    fn ready(&self) {
        let (log, end) =
            (format!("/var/log/xen/console/guest-{}.log", self.name), Instant::now() + Duration::from_secs(90));
        while !std::fs::read_to_string(&log).unwrap_or_default().contains("GUEST-READY") {
            assert!(Instant::now() < end, "{} is not ready", self.name);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// It ends for this reason, is told, stays as it is, and can be taken away.
    fn ends_with(&mut self, xl: &Xl, reason: Reason) {
        assert_eq!(self.notice(), Notice::ShutDown(self.domid, reason));
        assert!(self.waiter.wait().expect("its end").success());
        let row = self.row(xl).expect("it is left as it is");
        assert_eq!(row.state.shutdown, Some(reason), "{row:?}");
        xl.act(&Verb::Destroy(self.domid)).expect("it is destroyed");
        assert!(self.row(xl).is_none());
    }
}

fn step(name: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{name}");
    let _ = out.flush();
}
