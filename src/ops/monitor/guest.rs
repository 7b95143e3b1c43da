//! One domain's guest as the monitor drives it: puts together cgroup, layers, console and program for each run, and takes
//! them apart again. What a newcomer would get wrong: the domain may be renamed while it runs, so its directory is held by
//! a descriptor and its name is asked of the kernel.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::calm::Calm;
use super::foreign::{self, Foreign};
use super::{machined, personal, stage};
use crate::backend::{self, Backend, Plan, Shared, nspawn::Nspawn};
use crate::binfmt;
use crate::domain::accel::PLACE;
use crate::domain::{Action, InitKind, Name, Request};
use crate::monitor::{Guest, How, Outcome, Started};
use crate::ops::{accel, ids, tree};
use crate::store::Store;
use crate::store::domains::{Emulated, Ended, Record, Run, now};
use crate::sys::cgroup::{self, Cage, Hierarchies, Limits};
use crate::sys::gate;
use crate::sys::lock::Lock;
use crate::sys::overlay::Mapping;
use crate::sys::process::Tool;
use crate::sys::root::Root;
use crate::sys::seccomp::Filter;
use crate::sys::userns::ActAs;
use crate::sys::{devices, fail, ns, pty, sock};

pub(super) type Text<T> = Result<T, String>;
/// The sources of bind mounts, detached (and whether each is a directory), and what the backend is told of them.
type Binds = (Vec<(OwnedFd, bool)>, Vec<Shared>);

pub(super) fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// A domain that runs.
#[derive(Debug)]
pub struct Running {
    store: Store,
    dir: OwnedFd,
    record: Record,
    lock: Option<Lock>,
    hierarchies: Hierarchies,
    run: Run,
    backend: Nspawn,
    /// Whether the cgroup of the first run is the one that systemd gave us.
    scope: Option<PathBuf>,
    /// The ids of its user namespace: the same ones over all its reboots.
    ids: Option<(ids::Claim, Mapping)>,
    /// What a guest of another architecture needs.
    foreign: Foreign,
    /// What was seen of a guest that never says that it is up.
    calm: Calm,
}

impl Running {
    /// Takes a domain over. Errors: its directory is gone.
    pub fn new(store: Store, name: &Name, record: Record, lock: Lock) -> Text<Running> {
        let dir = File::open(store.domain(name.as_str())).map_err(text)?.into();
        let hierarchies = Hierarchies::here();
        let scope = if Path::new("/run/systemd/system").is_dir() { cgroup::own_v2(&hierarchies) } else { None };
        let run = Run { started: now(), monitor: std::process::id() as i32, ..Run::default() };
        let lock = Some(lock);
        let (ids, foreign, calm) = (None, Foreign::default(), Calm::default());
        Ok(Running { store, dir, record, lock, hierarchies, run, backend: Nspawn, scope, ids, foreign, calm })
    }

    /// The domain's directory, whatever it is called now.
    fn path(&self) -> Text<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.dir.as_raw_fd())).map_err(text)
    }

    fn name(&self) -> Text<Name> {
        let path = self.path()?;
        Name::new(&path.file_name().unwrap_or_default().to_string_lossy()).map_err(text)
    }

    fn limits(&self) -> Limits {
        let spec = &self.record.spec;
        Limits { memory: spec.memory, cpus: spec.vcpus, cpuset: spec.cpus.clone() }
    }

    fn make_cage(&mut self) -> Text<()> {
        fail::point("cgroup").map_err(text)?;
        let limits = self.limits();
        let cage = Cage::make(&self.hierarchies, self.scope.as_deref(), &self.run.machine, &limits).map_err(text)?;
        self.run.cage = cage;
        self.run.cage.join_monitor(std::process::id()).map_err(text)?;
        if let Some(guest) = self.run.cage.guest() {
            let dir = File::open(&guest).map_err(text)?;
            devices::restrict_v2(std::os::fd::AsFd::as_fd(&dir), &[])
                .map_err(|e| format!("cannot close the host's devices for {}: {e}", guest.display()))?;
        }
        Ok(())
    }

    /// The domain's tree, with its own identity in it.
    fn make_root(&self, binds: &Binds) -> Text<OwnedFd> {
        fail::point("overlay").map_err(text)?;
        let dir = self.path()?;
        let mapping = self.ids.as_ref().map(|(_, mapping)| mapping.clone());
        let (tree, first) = tree::writable(&self.store, &self.record, &dir, mapping)?;
        let root = Root::from_fd(tree.try_clone().map_err(text)?, &dir);
        let _acting = self.run.ids.map(ActAs::root_of).transpose().map_err(text)?;
        if first {
            personal::first_start(&root, &self.hostname()?, &self.record.uuid.replace('-', "")).map_err(text)?;
        }
        if self.record.spec.network == crate::domain::Network::Host {
            personal::resolver(&root).map_err(text)?;
        }
        // nspawn makes what lies in the guest's /run itself, on the tmpfs there.
        let ours = |shared: &Shared| shared.target.starts_with(PLACE);
        for ((_, is_dir), shared) in binds.0.iter().zip(&binds.1).filter(|(_, shared)| !ours(shared)) {
            personal::mount_point(&root, &shared.target, *is_dir).map_err(text)?;
        }
        Ok(tree)
    }

    fn hostname(&self) -> Text<String> {
        Ok(self.record.spec.hostname.clone().unwrap_or(self.name()?.hostname()))
    }

    fn open_binds(&self, base: &Path, dir: &Path) -> Text<Binds> {
        let ids = self.ids.as_ref().map(|(_, mapping)| mapping);
        let mut opened = Vec::new();
        let mut shared = Vec::new();
        for (n, bind) in self.record.spec.binds.iter().enumerate() {
            let named = |e: std::io::Error| format!("cannot share {}: {e}", bind.source.display());
            let is_dir = std::fs::metadata(&bind.source).map_err(named)?.is_dir();
            opened.push((tree::shown(&bind.source, ids).map_err(named)?, is_dir));
            let staged = stage::bind_path(base, n);
            shared.push(Shared { staged, target: bind.target.clone(), read_only: bind.read_only });
        }
        let native = self.record.emulated.as_ref().and_then(|by| by.native.as_ref());
        for (source, target) in native.map(|native| accel::mounts(native, dir)).unwrap_or_default() {
            let staged = stage::bind_path(base, opened.len());
            let shown = tree::shown(&source, ids).map_err(|e| format!("cannot show {}: {e}", source.display()))?;
            opened.push((shown, true));
            shared.push(Shared { staged, target, read_only: true });
        }
        Ok((opened, shared))
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut env = self.record.spec.env.clone();
        // What is not baked into a copy of the interpreter (see `binfmt::copy`) reaches at least the guest's init.
        if let Some(by) = self.record.emulated.as_ref().filter(|by| by.copies.is_empty()) {
            // qemu-user renumbers real-time signals unless it is told not to: the guest would never hear "power off".
            env.push(("QEMU_RTSIG_MAP".into(), binfmt::SIGNALS.into()));
            env.extend(by.cpu.as_ref().map(|cpu| ("QEMU_CPU".into(), cpu.into())));
        }
        env
    }

    fn plan(&self, base: &Path, shared: Vec<Shared>, notify: &str, fenced: bool) -> Text<Plan> {
        Ok(Plan {
            machine: self.run.machine.clone(),
            hostname: self.hostname()?,
            machine_id: self.record.uuid.replace('-', ""),
            root: stage::root_path(base),
            network: self.record.spec.network,
            shared,
            env: self.environment(),
            notify: format!("@{notify}"),
            unified_cgroup: self.hierarchies.v2.is_some(),
            ids: self.run.ids.map(|ids| ids.first),
            gate: self.private().map(|by| backend::Gate {
                program: gate::PROGRAM.into(),
                init: by.init.clone(),
                descriptors: gate::DESCRIPTORS,
            }),
            fenced,
        })
    }

    fn launch(&mut self) -> Text<Started> {
        let program = crate::sys::process::find_program("systemd-nspawn")
            .ok_or("systemd-nspawn is not installed: apt-get install systemd-container")?;
        let base = stage::base();
        let binds = self.open_binds(&base, &self.path()?)?;
        let root = self.make_root(&binds)?;
        let (binds, shared) = binds;
        fail::point("console").map_err(text)?;
        let (pty, terminal) = pty::open().map_err(text)?;
        pty::set_size(std::os::fd::AsFd::as_fd(&pty), 24, 80).map_err(text)?;
        let address = format!("pronto/{}/{}", self.record.uuid, self.run.domid);
        let notify = sock::abstract_datagrams(&address).map_err(text)?;
        // nspawn lets a guest with a private network have CAP_NET_ADMIN; the system calls are the same.
        let filter = Filter::of(self.run.forgetful);
        let launch = self.backend.launch(&self.plan(&base, shared, &address, filter.is_some())?);
        fail::point("guest-start").map_err(text)?;
        let cage = self.run.cage.clone();
        let gate = if self.private().is_some() { Some(self.foreign.make_gate()?) } else { None };
        let stage = stage::Stage { base, root, binds, terminal, cage, filter, program, gate, launch };
        let process = stage.spawn().map_err(|e| format!("cannot start systemd-nspawn: {e}"))?;
        Ok(Started { process, pty, notify, domid: self.run.domid })
    }

    /// How the guest is emulated, when its interpreter is to be registered for it alone.
    fn private(&self) -> Option<&Emulated> {
        self.record.emulated.as_ref().filter(|by| !by.private.is_empty())
    }

    fn take_ids(&mut self) -> Text<()> {
        if self.record.userns && self.ids.is_none() {
            let claim = ids::take(&self.record.uuid).map_err(text)?;
            let mapping = Mapping::of(claim.range).map_err(|e| format!("cannot make a user namespace: {e}"))?;
            self.ids = Some((claim, mapping));
        }
        self.run.ids = self.ids.as_ref().map(|(claim, _)| claim.range);
        Ok(())
    }

    /// Whether the interpreter renumbers real-time signals and cannot be told not to: its program is asked, not its version.
    fn loses_realtime_signals(&self) -> bool {
        let Some(by) = &self.record.emulated else { return false };
        !binfmt::knows_signals(&std::fs::read(&by.interpreter).unwrap_or_default())
    }

    /// Asks the guest's init by a command in it, started as any `exec` is. It is not waited for.
    fn ask_inside(&self, command: &[&str]) -> Text<()> {
        let own = std::env::current_exe().map_err(text)?;
        let mut words: Vec<OsString> = vec!["--root".into(), self.store.root().into(), "exec".into()];
        words.extend([self.name()?.as_str(), "--"].map(OsString::from));
        words.extend(command.iter().map(OsString::from));
        if self.store.root() == Store::at(None).root() {
            words.drain(..2);
        }
        Tool::new(own).args(words).spawn().map(drop).map_err(text)
    }

    /// Whether there is a machined that guests are made known to.
    fn registered(&self) -> bool {
        self.scope.is_some() && machined::runs()
    }

    fn write_run(&self) -> Text<()> {
        self.store.write_run(&self.record.uuid, &self.run).map_err(text)
    }

    /// What is left of a run when its program has ended: nothing.
    fn clear(&mut self) {
        self.run.cage.kill();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !self.run.cage.is_empty() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        if self.scope.is_none() {
            // This process sits in the cgroup that is to go: back to the top of the tree.
            leave_cage(&self.hierarchies);
        }
        self.run.cage.remove();
        self.run.cage = Cage::default();
        self.run.leader = 0;
        self.foreign = Foreign::default();
    }

    fn action(&self, how: &str) -> Action {
        let spec = &self.record.spec;
        match how {
            "poweroff" => spec.on_poweroff,
            "reboot" => spec.on_reboot(),
            "crashed" => spec.on_crash,
            _ => Action::Destroy,
        }
    }
}

fn leave_cage(here: &Hierarchies) {
    if let Some(v2) = &here.v2 {
        let procs = v2.join("cgroup.procs");
        let _ = std::fs::OpenOptions::new()
            .write(true)
            .open(procs)
            .and_then(|mut f| std::io::Write::write_all(&mut f, b"0"));
    }
}

impl Guest for Running {
    fn start(&mut self) -> Text<Started> {
        let held = self.store.hold().map_err(text)?;
        self.run.domid = self.store.next_domid().map_err(text)?;
        drop(held);
        self.run.machine = format!("pronto-{}-{}", self.store.tag(), self.run.domid);
        self.run.backend = self.backend.name().into();
        self.run.ready = false;
        self.run.stopping = false;
        self.run.forgetful = self.record.spec.forgets();
        self.calm = Calm::default();
        self.run.started = now();
        self.take_ids()?;
        self.make_cage()?;
        self.write_run()?;
        let started = self.launch()?;
        Ok(started)
    }

    fn leader(&mut self, inner: i32) -> Text<()> {
        fail::point("leader").map_err(text)?;
        let leader = self.run.cage.init_of(inner).ok_or("the guest's init cannot be found")?;
        self.run.leader = leader;
        self.run.leader_start = ns::start_time(leader).unwrap_or_default();
        if let Some(by) = &self.record.emulated {
            foreign::show_cpuinfo(&self.run, by, &self.path()?, self.ids.as_ref().map(|(_, mapping)| mapping));
        }
        if let Some(by) = self.private().cloned() {
            self.foreign.open_gate(&self.store, &by, &self.run, self.record.init == InitKind::Systemd)?;
        }
        fail::point("run-record").map_err(text)?;
        if self.registered() {
            machined::register(&self.run.machine, &self.record.uuid, self.run.leader);
        }
        self.write_run()
    }

    fn looks_up(&mut self) -> Option<bool> {
        if self.record.init.tells() {
            return None;
        }
        Some(self.calm.look(&self.run.cage.pids(), self.run.leader))
    }

    fn ready(&mut self) -> Text<()> {
        fail::point("ready").map_err(text)?;
        self.foreign.is_up(&self.run);
        self.run.ready = true;
        self.write_run()
    }

    fn ask(&mut self, how: How) -> Text<()> {
        if self.run.leader == 0 {
            return Err("the guest's init does not run yet".into());
        }
        let mut request = self.record.init.request(how == How::Reboot);
        if matches!(request, Request::Signal(n) if n >= libc::SIGRTMIN()) && self.loses_realtime_signals() {
            request = Request::Command(&["systemctl", "--no-block", "poweroff"]);
        }
        // Verbs do not ask a paused guest, but the host's shutdown does, and it must hear that.
        if self.run.cage.is_frozen() {
            self.run.cage.freeze(false).map_err(text)?;
        }
        match request {
            Request::Command(words) => self.ask_inside(words)?,
            Request::Signal(signal) => {
                let pidfd = ns::pidfd(self.run.leader).map_err(text)?;
                ns::signal_pidfd(&pidfd, signal).map_err(text)?;
            }
        }
        self.run.stopping = true;
        self.write_run()
    }

    fn kill(&mut self) {
        self.run.stopping = true;
        let _ = self.write_run();
        self.run.cage.kill();
    }

    fn ended(&mut self, status: i32, asked: Option<How>) -> Outcome {
        self.clear();
        // systemd-nspawn(1), "EXIT STATUS"; 133 is the guest's request for a reboot.
        let how = match (status, asked) {
            (_, Some(How::Kill)) => "destroyed",
            (133, _) => "reboot",
            (0, _) => "poweroff",
            (_, Some(_)) => "destroyed",
            _ => "crashed",
        };
        if self.action(how) != Action::Restart {
            return Outcome::Over(how);
        }
        if self.registered() {
            machined::forget(&self.run.machine);
        }
        Outcome::Again
    }

    fn handed_over(&mut self) -> Text<()> {
        fail::point("handover").map_err(text)?;
        self.record.building = false;
        self.store.write_record(&self.name()?, &self.record).map_err(text)
    }

    fn finish(&mut self, how: &str, orphan: bool) {
        self.clear();
        let Ok(name) = self.name() else { return };
        let uuid = self.record.uuid.clone();
        let current = self.store.load(name.as_str()).ok().flatten().map(|d| d.record).unwrap_or(self.record.clone());
        // A create that was never done leaves nothing; a start that was never done leaves the domain as it was.
        if (orphan && current.building) || current.spec.rm {
            let _ = self.store.remove_domain(&name, &uuid);
        } else {
            let ended = Some(Ended { when: now(), how: how.into() });
            let _ = self.store.write_record(&name, &Record { ended, ..current });
            let _ = self.store.remove_run(&uuid);
        }
        // The lock goes last: until then nobody may think that this domain is free.
        self.lock = None;
    }
}
