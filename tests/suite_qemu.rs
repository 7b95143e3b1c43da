//! QEMU itself, started by the words that the driver makes and spoken to over its sockets. What a newcomer would get wrong: no guest
//! boots here. A few instructions in the place of a firmware do what a test needs (count, panic, power off), so each test takes a
//! second; what needs a kernel is in the boot ring.

mod common;

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use common::run::Run;
use common::{have, secs, write};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pronto::arch::{Profile, Profiles};
use pronto::backend::hexagon::qemu::abilities::Abilities;
use pronto::backend::hexagon::qemu::agent::{Agent, Exec, How};
use pronto::backend::hexagon::qemu::qmp::{PATIENCE, Qmp};
use pronto::backend::hexagon::qemu::verbs::{End, Status};
use pronto::backend::hexagon::qemu::{CONSOLE_ROOM, Channel, Error, Kind, Ports, Setup, argv, kvm};
use pronto::backend::hexagon::{Boot, Disk, Format, Link, Machine, Nic, Publish};
use pronto::sys::process::{Tool, find_program};

const MIB: u64 = 1 << 20;

fn profile(arch: &str) -> Profile {
    Profiles::embedded().find(arch).unwrap().clone()
}

/// `None`, with a word about it, where this architecture's QEMU is missing.
fn program(arch: &str) -> Option<PathBuf> {
    let system = profile(arch).qemu_system;
    let found = find_program(&system.program);
    if found.is_none() {
        let text = format!("skipped: {} is missing (contrib/install-deps.sh test)\n", system.program);
        std::io::stderr().write_all(text.as_bytes()).unwrap();
    }
    found
}

fn machine(arch: &str, boot: Boot) -> Machine {
    Machine {
        name: "a, guest".into(),
        uuid: "6ba7b810-9dad-41d1-80b4-00c04fd430c8".into(),
        arch: arch.into(),
        memory: 64 * MIB,
        max_memory: None,
        vcpus: 1,
        max_vcpus: None,
        boot,
        disks: Vec::new(),
        nics: Vec::new(),
    }
}

fn disk(path: &Path, vdev: &str) -> Disk {
    std::fs::File::create(path).unwrap().set_len(MIB).unwrap();
    let source = Some(path.to_owned());
    Disk { source, block: false, format: Format::Raw, base: None, vdev: vdev.into(), read_only: false, cdrom: false }
}

fn nic(last: u8) -> Nic {
    Nic { mac: [0x52, 0x54, 0, 0, 0, last], link: Link::User { publish: Vec::new() } }
}

/// A running QEMU, killed at the end.
struct Guest {
    qemu: Child,
    qmp: Qmp,
    console: UnixStream,
    dir: tempfile::TempDir,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// What becomes of a guest when its control socket has been greeted.
#[derive(Clone, Copy, PartialEq)]
enum Start {
    /// It runs.
    Runs,
    /// Nothing yet.
    Waits,
    /// Its state will come.
    Restored,
}

impl Guest {
    fn start(program: PathBuf, machine: &Machine, how: Start) -> Guest {
        let profile = profile(&machine.arch);
        let kind = Kind::of(&profile).unwrap();
        let abilities = Abilities::of(&program).unwrap();
        let (qmp, theirs) = UnixStream::pair().unwrap();
        let (console, serial) = pronto::sys::sock::roomy_pair(CONSOLE_ROOM).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (theirs, serial) = (OwnedFd::from(theirs), OwnedFd::from(serial));
        let accel = abilities.emulation(kind);
        let setup = Setup {
            machine: abilities.newest(&program, kind).unwrap(),
            program,
            kind,
            accel,
            cpu: abilities.cpu(&profile, accel),
            sandbox: abilities.sandbox,
            ports: Ports::of(machine).unwrap(),
            incoming: how == Start::Restored,
            throw_away: false,
            qmp: Channel::Connected(theirs.as_raw_fd()),
            verbs: None,
            console: Channel::Connected(serial.as_raw_fd()),
            agent: Some(Channel::Path(dir.path().join("agent"))),
            files: Vec::new(),
            taps: Vec::new(),
        };
        let launch = argv::launch(machine, &profile, &setup).unwrap();
        let mut tool = Tool::new(&launch.words[0]).args(&launch.words[1..]).inherit(theirs).inherit(serial).tied();
        let said = std::fs::File::create(dir.path().join("said")).unwrap();
        tool.command().env_clear().envs(launch.env).stdout(said.try_clone().unwrap()).stderr(said);
        let mut qemu = tool.spawn().unwrap();
        let mut qmp = Qmp::greeted(qmp, secs(30)).unwrap_or_else(|e| {
            let _ = qemu.kill();
            panic!("{e}: {}", common::read(dir.path().join("said")));
        });
        if how == Start::Runs {
            qmp.cont().unwrap();
        }
        Guest { qemu, qmp, console, dir }
    }

    /// Something from the console.
    fn heard(&mut self) -> Vec<u8> {
        self.console.set_read_timeout(Some(secs(20))).unwrap();
        let mut bytes = [0; 4096];
        let n = self.console.read(&mut bytes).expect("nothing comes from the console");
        bytes[..n].to_vec()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.qemu.id() as i32), signal).unwrap();
    }

    /// Quits in order.
    fn quit(mut self) {
        self.qmp.quit(PATIENCE).unwrap();
        assert_eq!(self.qemu.wait().unwrap().code(), Some(0), "{}", common::read(self.path("said")));
    }
}

/// Instructions in the place of a firmware.
fn arm64(dir: &Path, words: &[u32]) -> Boot {
    let code = dir.join("arm64.bin");
    write(&code, words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>());
    Boot::Firmware { code, variables: None }
}

/// Counts in its memory, and says where it is by a letter: 27 comes after 26, whatever happens in between.
const COUNTER: [u32; 14] = [
    0xd2a1_2001, // mov x1, #0x09000000     the serial port
    0xd2a8_0002, // mov x2, #0x40000000     memory
    0x5280_0346, // mov w6, #26
    0xb940_0040, // 1: ldr w0, [x2]
    0x1100_0403, // add w3, w0, #1
    0xb900_0043, // str w3, [x2]
    0x1ac6_0804, // udiv w4, w0, w6
    0x1b06_8084, // msub w4, w4, w6, w0
    0x1101_0484, // add w4, w4, #'A'
    0xb900_0024, // str w4, [x1]
    0x52a0_0105, // mov w5, #0x80000        not too fast
    0x7100_04a5, // 2: subs w5, w5, #1
    0x54ff_ffe1, // b.ne 2b
    0x17ff_fff6, // b 1b
];
/// Says `A` four thousand times, and then nothing.
const TALKER: [u32; 8] = [
    0xd2a1_2001, // mov x1, #0x09000000
    0x5281_f405, // mov w5, #4000
    0x5280_0824, // mov w4, #'A'
    0xb900_0024, // 1: str w4, [x1]
    0x7100_04a5, // subs w5, w5, #1
    0x54ff_ffc1, // b.ne 1b
    0xd503_207f, // 2: wfi
    0x17ff_ffff, // b 2b
];
/// PSCI: SYSTEM_OFF, and SYSTEM_RESET.
const OFF: [u32; 3] = [0x5280_0100, 0x72b0_8000, 0xd400_0002];
const RESET: [u32; 3] = [0x5280_0120, 0x72b0_8000, 0xd400_0002];

/// A PC's firmware that tells pvpanic of a panic, by port 0x505.
fn panicking(dir: &Path) -> Boot {
    let mut rom = vec![0xf4; 0x1_0000];
    rom[..9].copy_from_slice(&[0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfd]);
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0]);
    let code = dir.join("pc.bin");
    write(&code, rom);
    Boot::Firmware { code, variables: None }
}

#[test]
fn every_architecture_takes_its_words() {
    for arch in ["amd64", "arm64", "armhf", "riscv64"] {
        let Some(program) = program(arch) else { continue };
        let dir = tempfile::tempdir().unwrap();
        let mut machine = machine(arch, Boot::Itself);
        machine.vcpus = 2;
        machine.max_memory = Some(128 * MIB);
        machine.max_vcpus = Some(4);
        machine.disks = vec![disk(&dir.path().join("a, disk"), "xvda"), disk(&dir.path().join("c"), "xvde")];
        machine.disks.push(Disk { cdrom: true, source: None, ..disk(&dir.path().join("b"), "hdc") });
        machine.disks.push(Disk { cdrom: true, ..disk(&dir.path().join("d"), "hdd") });
        let image = dir.path().join("e");
        Run::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&image).arg("1M").run().ok();
        let source = Some(image);
        machine.disks.push(Disk { source, format: Format::Qcow2, ..disk(&dir.path().join("f"), "xvdf") });
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let publish = Publish { address: Some(free.ip()), host: free.port(), guest: 22, udp: false };
        machine.nics = vec![Nic { link: Link::User { publish: vec![publish] }, ..nic(1) }, nic(2)];
        let mut guest = Guest::start(program, &machine, Start::Waits);
        assert_eq!(guest.qmp.status().unwrap(), Status::Paused, "{arch}");
        assert_eq!(guest.qmp.cpus().unwrap().iter().map(|c| c.index).collect::<Vec<_>>(), [0, 1]);
        guest.qmp.cont().unwrap();
        assert_eq!(guest.qmp.status().unwrap(), Status::Running);
        guest.qmp.stop().unwrap();
        assert_eq!(guest.qmp.status().unwrap(), Status::Paused);
        assert!(guest.qmp.monitor("info name").unwrap().contains("a, guest"), "{arch}");
        let blocks = guest.qmp.monitor("info block").unwrap();
        for name in ["disk-xvda", "disk-xvde", "disk-hdd", "disk-xvdf"] {
            assert!(blocks.contains(name), "{arch}: {blocks}");
        }
        let devices = guest.qmp.monitor("info qtree").unwrap();
        for name in ["org.qemu.guest_agent.0", "virtio-rng", "pvpanic", "52:54:00:00:00:02"] {
            assert!(devices.contains(name), "{arch}: {name}");
        }
        assert!(guest.qmp.memory().unwrap() == 128 * MIB);
        guest.qmp.balloon(64 * MIB).unwrap();
        guest.qmp.powerdown().unwrap();
        guest.qmp.reset().unwrap();
        let said = common::read(guest.path("said"));
        assert!(said.is_empty(), "{arch}: {said}");
        guest.quit();
    }
}

#[test]
fn a_guests_end_is_an_event_and_qemu_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut cases = Vec::new();
    if let Some(program) = program("arm64") {
        for (code, end, status) in [(OFF, End::PowerOff, Status::Shutdown), (RESET, End::Reboot, Status::Shutdown)] {
            let name = dir.path().join(format!("{end:?}"));
            std::fs::create_dir(&name).unwrap();
            cases.push((program.clone(), machine("arm64", arm64(&name, &code)), end, status));
        }
    }
    if let Some(program) = program("amd64") {
        cases.push((program, machine("amd64", panicking(dir.path())), End::Panic, Status::Panicked));
    }
    for (program, machine, end, status) in cases {
        let mut guest = Guest::start(program, &machine, Start::Runs);
        assert_eq!(guest.qmp.await_end(secs(20)).unwrap(), Some(end));
        assert_eq!(guest.qmp.status().unwrap(), status, "{end}");
        if end == End::Panic {
            // What on_crash=coredump-… asks for.
            let core = std::fs::File::create(guest.path("core")).unwrap();
            guest.qmp.dump(std::os::fd::AsFd::as_fd(&core), secs(60)).unwrap();
            assert!(std::fs::read(guest.path("core")).unwrap().starts_with(b"\x7fELF"));
        }
        assert!(guest.qemu.try_wait().unwrap().is_none(), "{end}: QEMU has ended");
        guest.quit();
    }
}

#[test]
fn a_guest_that_is_saved_goes_on_where_it_was() {
    let Some(program) = program("arm64") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut machine = machine("arm64", arm64(dir.path(), &COUNTER));
    machine.disks = vec![disk(&dir.path().join("disk"), "xvda")];
    machine.nics = vec![nic(1)];
    let mut guest = Guest::start(program.clone(), &machine, Start::Runs);
    let mut before = guest.heard();
    guest.qmp.stop().unwrap();
    let path = dir.path().join("state");
    let mut file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"our own header, 32 bytes long...").unwrap();
    let mut seen = 0;
    guest
        .qmp
        .save(&file, secs(60), |progress| {
            seen = seen.max(progress.total);
            true
        })
        .unwrap();
    assert!(seen >= 64 * MIB, "{seen}");
    assert_eq!(guest.qmp.status().unwrap(), Status::Saving);
    // All that it said until it stopped.
    guest.console.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let _ = guest.console.read_to_end(&mut before);
    guest.quit();
    assert!(std::fs::read(&path).unwrap().starts_with(b"our own header, 32 bytes long..."));

    let mut file = std::fs::File::open(&path).unwrap();
    file.read_exact(&mut [0; 32]).unwrap();
    let mut guest = Guest::start(program.clone(), &machine, Start::Restored);
    assert_eq!(guest.qmp.status().unwrap(), Status::Restoring);
    guest.qmp.restore(&file, secs(60)).unwrap();
    assert_eq!(guest.qmp.status().unwrap(), Status::Paused);
    guest.qmp.cont().unwrap();
    let after = guest.heard()[0];
    let last = *before.last().expect("it was heard before it stopped");
    assert_eq!(after, b'A' + (last - b'A' + 1) % 26, "it said {} last", last as char);
    guest.quit();

    // A state that is cut off, and one that is none.
    for damage in [0, 40_000u64] {
        let bad = dir.path().join("bad");
        std::fs::copy(&path, &bad).unwrap();
        std::fs::OpenOptions::new().write(true).open(&bad).unwrap().set_len(32 + damage).unwrap();
        let mut file = std::fs::File::open(&bad).unwrap();
        file.read_exact(&mut [0; 32]).unwrap();
        let mut guest = Guest::start(program.clone(), &machine, Start::Restored);
        let error = guest.qmp.restore(&file, secs(60)).unwrap_err();
        assert!(matches!(error, Error::State { .. }), "{error}");
        assert!(error.to_string().starts_with("the guest's state could not be restored: "), "{error}");
    }
}

#[test]
fn a_save_that_fails_harms_nobody() {
    let Some(program) = program("arm64") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut guest = Guest::start(program, &machine("arm64", arm64(dir.path(), &COUNTER)), Start::Runs);
    guest.heard();
    guest.qmp.stop().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = guest.qmp.save(&full, secs(60), |_| true).unwrap_err();
    // A QEMU that knows files sees at once that this is none.
    let told = error.to_string();
    assert!(
        told.starts_with("the guest's state could not be saved: ") || told.starts_with("QEMU refuses 'migrate': "),
        "{told}"
    );
    let file = std::fs::File::create(dir.path().join("state")).unwrap();
    // One that is called off has either not come to its end, or was too fast for it.
    if let Err(error) = guest.qmp.save(&file, secs(60), |_| false) {
        assert_eq!(error.to_string(), "the guest's state could not be saved: it was cancelled");
    }
    // And again, to where there is room: what the first try left does not stand in its way.
    let file = std::fs::File::create(dir.path().join("state")).unwrap();
    guest.qmp.save(&file, secs(60), |_| true).unwrap();
    guest.qmp.cont().unwrap();
    guest.heard();
    assert_eq!(guest.qmp.status().unwrap(), Status::Running);
    guest.quit();
}

#[test]
fn disks_and_networks_come_and_go() {
    for arch in ["amd64", "arm64"] {
        let Some(program) = program(arch) else { continue };
        let dir = tempfile::tempdir().unwrap();
        let mut guest = Guest::start(program, &machine(arch, Boot::Itself), Start::Waits);
        let second = disk(&dir.path().join("disk"), "xvdb");
        guest.qmp.attach_disk(&second, false, None).unwrap();
        assert!(guest.qmp.monitor("info block").unwrap().contains("disk-xvdb"), "{arch}");
        // Twice the same, and one whose port is taken: refused, and nothing of them is left.
        let error = guest.qmp.attach_disk(&second, false, None).unwrap_err().to_string();
        assert!(error.contains("blockdev-add"), "{error}");
        let other = Disk { vdev: "sdb".into(), ..disk(&dir.path().join("other"), "sdb") };
        let error = guest.qmp.attach_disk(&other, false, None).unwrap_err().to_string();
        assert!(error.contains("device_add"), "{error}");
        assert!(!guest.qmp.monitor("info block").unwrap().contains("disk-sdb"), "{arch}");
        let missing = Disk { source: Some("/nowhere".into()), ..other };
        let error = guest.qmp.attach_disk(&missing, false, None).unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
        guest.qmp.attach_nic(&nic(7), 1, None).unwrap();
        assert!(guest.qmp.monitor("info network").unwrap().contains("nic1"));
        if arch == "arm64" {
            // A port that no kernel has switched on lets go at once.
            guest.qmp.detach_nic(1, secs(15)).unwrap();
            assert!(!guest.qmp.monitor("info network").unwrap().contains("net1"));
            guest.qmp.detach_disk(&second, secs(15)).unwrap();
            assert!(!guest.qmp.monitor("info block").unwrap().contains("disk-xvdb"));
        } else {
            // On a PC the firmware's tables ask the kernel, and there is none. Asked again it is the same question.
            for _ in 0..2 {
                let error = guest.qmp.detach_nic(1, Duration::from_millis(300)).unwrap_err();
                assert!(matches!(error, Error::Kept { waited: Some(_), .. }), "{arch}: {error}");
                assert!(error.to_string().starts_with("the guest does not let go of 'nic1' (asked "), "{error}");
            }
            assert!(guest.qmp.monitor("info network").unwrap().contains("net1"));
        }
        let error = guest.qmp.detach_disk(&disk(&dir.path().join("no"), "xvdc"), secs(1)).unwrap_err();
        assert!(error.is_unknown() && error.to_string().contains("xvdc"), "{error}");
        guest.quit();
    }
}

#[test]
fn a_dead_and_a_hanging_qemu_are_told_apart() {
    let Some(program) = program("amd64") else { return };
    let machine = machine("amd64", Boot::Itself);
    let mut guest = Guest::start(program, &machine, Start::Waits);
    guest.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let error = guest.qmp.call_within("query-status", serde_json::Value::Null, Duration::from_millis(300)).unwrap_err();
    assert!(error.to_string().starts_with("QEMU did not answer 'query-status' within 0.3 s: it hangs"), "{error}");
    assert!(begun.elapsed() < secs(5));
    guest.signal(Signal::SIGCONT);
    // The late answer is not taken for this one's.
    assert_eq!(guest.qmp.status().unwrap(), Status::Paused);
    guest.signal(Signal::SIGKILL);
    let error = guest.qmp.status().unwrap_err();
    assert_eq!(error.to_string(), "QEMU has ended while it was asked 'query-status'");
    assert!(matches!(guest.qmp.look(), Err(Error::Gone { .. })));
    assert_eq!(guest.qemu.wait().unwrap().code(), None);
}

#[test]
fn a_console_that_is_not_read_yet_stops_nobody() {
    let Some(program) = program("arm64") else { return };
    if !nix::unistd::geteuid().is_root() {
        std::io::stderr().write_all(b"skipped: only root may give a socket so much room\n").unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut guest = Guest::start(program, &machine("arm64", arm64(dir.path(), &TALKER)), Start::Runs);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(guest.qmp.status().unwrap(), Status::Running);
    let mut heard = vec![0; 4000];
    guest.console.set_read_timeout(Some(secs(20))).unwrap();
    guest.console.read_exact(&mut heard).unwrap();
    assert!(heard.iter().all(|b| *b == b'A'));
    guest.quit();
}

#[test]
fn sigterm_ends_it_though_a_power_off_does_not() {
    let Some(program) = program("arm64") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut guest = Guest::start(program, &machine("arm64", arm64(dir.path(), &OFF)), Start::Runs);
    assert_eq!(guest.qmp.await_end(secs(20)).unwrap(), Some(End::PowerOff));
    guest.signal(Signal::SIGTERM);
    assert_eq!(guest.qemu.wait().unwrap().code(), Some(0));
    assert!(matches!(guest.qmp.await_end(secs(5)), Ok(Some(End::Host)) | Err(Error::Gone { .. })));
}

#[test]
fn kvm_is_tried_by_running_something() {
    for (arch, host) in [("amd64", cfg!(target_arch = "x86_64")), ("arm64", cfg!(target_arch = "aarch64"))] {
        let Some(program) = program(arch) else { continue };
        // The trial's own firmware does what it says, on the CPU that QEMU emulates, and does not when that has no long mode.
        kvm::trial(&program, arch, "tcg", "max", secs(30)).unwrap();
        if arch == "amd64" {
            let why = kvm::trial(&program, arch, "tcg", "qemu32", secs(2)).unwrap_err();
            assert!(why.starts_with("a trial guest did not run"), "{why}");
        }
        let why = kvm::trial(&program, arch, "tcg", "nonsense", secs(10)).unwrap_err();
        assert!(why.contains("ended with exit status: 1: ") && why.contains("nonsense"), "{why}");
        if host {
            let begun = Instant::now();
            match kvm::probe(&program, arch, arch, kvm::PATIENCE) {
                Ok(()) => assert!(Path::new("/dev/kvm").exists()),
                Err(why) => {
                    assert!(!why.is_empty());
                    std::io::stderr().write_all(format!("no KVM here: {why}\n").as_bytes()).unwrap();
                }
            }
            assert!(begun.elapsed() < secs(5));
        }
    }
}

#[test]
fn a_real_agent_runs_commands_and_moves_files() {
    if !have("qemu-ga") {
        std::io::stderr().write_all(b"skipped: qemu-ga is missing (contrib/install-deps.sh test)\n").unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let mut tool = Tool::new(find_program("qemu-ga").unwrap()).args(["--method", "unix-listen", "--path"]).arg(&socket);
    tool = tool.arg("--statedir").arg(dir.path()).tied();
    tool.command().stderr(std::process::Stdio::null());
    let mut ga = tool.spawn().unwrap();
    let stream = common::eventually(secs(10), "the agent listens", || UnixStream::connect(&socket).ok());
    let mut agent = Agent::greeted(stream, secs(10)).unwrap();
    agent.ping().unwrap();
    let exec = |words: &[&str], input: &[u8]| Exec {
        program: "/bin/sh".into(),
        words: words.iter().map(|w| (*w).to_owned()).collect(),
        env: vec!["NAME=value".into()],
        input: input.to_vec(),
    };
    let mut run = |exec: &Exec| {
        let pid = agent.exec(exec).unwrap();
        common::eventually(secs(20), "the command ends", || agent.ended(pid).unwrap())
    };
    let ended = run(&exec(&["-c", "cat; echo $NAME; echo err >&2; exit 7"], b"input\0"));
    assert_eq!(ended.how, How::Exit(7));
    assert_eq!((ended.out.as_slice(), ended.err.as_slice()), (&b"input\0value\n"[..], &b"err\n"[..]));
    assert_eq!(run(&exec(&["-c", "kill -9 $$"], b"")).how, How::Signal(9));
    let much = run(&exec(&["-c", "head -c 12000000 /dev/zero"], b""));
    assert_eq!((much.out.len(), much.cut), (12_000_000, false));
    let error = agent.exec(&Exec { program: "/nowhere".into(), ..Exec::default() }).unwrap_err().to_string();
    assert!(error.contains("/nowhere"), "{error}");

    let path = dir.path().join("file").to_str().unwrap().to_owned();
    let data: Vec<u8> = (0..3 * MIB + 5).map(|n| (n % 251) as u8).collect();
    let file = agent.open(&path, "w").unwrap();
    agent.write(file, &data).unwrap();
    agent.close(file).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), data);
    let file = agent.open(&path, "r").unwrap();
    let mut back = Vec::new();
    loop {
        let piece = agent.read(file).unwrap();
        if piece.is_empty() {
            break;
        }
        back.extend(piece);
    }
    agent.close(file).unwrap();
    assert_eq!(back, data);
    let error = agent.open("/nowhere/at/all", "r").unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");
    ga.kill().unwrap();
    ga.wait().unwrap();
    assert!(matches!(agent.ping(), Err(Error::Gone { .. })));
}
