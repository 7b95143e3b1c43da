//! A guest that shares the host's kernel as the monitor drives it: puts together layers, console and program for each run, and takes
//! them apart again. What a newcomer would get wrong: the guest's first process may wait for what only we can give it (see
//! [`super::foreign`]), so nothing of it runs before `leader`.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::calm::Calm;
use super::foreign::{self, Foreign};
use super::held::Held;
use super::{machined, personal, stage};
use crate::backend::{self, Backend, Plan, Shared, nspawn::Nspawn};
use crate::binfmt;
use crate::domain::accel::PLACE;
use crate::domain::{Action, InitKind, Name, Request};
use crate::monitor::{Guest, How, Outcome, Started};
use crate::ops::{accel, ids, tree};
use crate::store::Store;
use crate::store::domains::{Emulated, Record};
use crate::sys::cgroup::Limits;
use crate::sys::gate;
use crate::sys::lock::Lock;
use crate::sys::overlay::Mapping;
use crate::sys::process::Tool;
use crate::sys::root::Root;
use crate::sys::seccomp::Filter;
use crate::sys::userns::ActAs;
use crate::sys::{fail, ns, pty, sock};

pub(super) type Text<T> = Result<T, String>;
/// The sources of bind mounts, detached (and whether each is a directory), and what the backend is told of them.
type Binds = (Vec<(OwnedFd, bool)>, Vec<Shared>);

pub(super) fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// A domain that runs.
#[derive(Debug)]
pub struct Running {
    held: Held,
    backend: Nspawn,
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
        let held = Held::new(store, name, record, lock)?;
        let (ids, foreign, calm) = (None, Foreign::default(), Calm::default());
        Ok(Running { held, backend: Nspawn, ids, foreign, calm })
    }

    fn limits(&self) -> Limits {
        let spec = &self.held.record.spec;
        Limits { memory: spec.memory, cpus: spec.vcpus, cpuset: spec.cpus.clone(), ..Limits::default() }
    }

    /// The domain's tree, with its own identity in it.
    fn make_root(&self, binds: &Binds) -> Text<OwnedFd> {
        fail::point("overlay").map_err(text)?;
        let dir = self.held.path()?;
        let mapping = self.ids.as_ref().map(|(_, mapping)| mapping.clone());
        let (tree, first) = tree::writable(&self.held.store, &self.held.record, &dir, mapping)?;
        let root = Root::from_fd(tree.try_clone().map_err(text)?, &dir);
        let _acting = self.held.run.ids.map(ActAs::root_of).transpose().map_err(text)?;
        if first {
            personal::first_start(&root, &self.hostname()?, &self.held.record.uuid.replace('-', "")).map_err(text)?;
        }
        if self.held.record.spec.network == crate::domain::Network::Host {
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
        Ok(self.held.record.spec.hostname.clone().unwrap_or(self.held.name()?.hostname()))
    }

    fn open_binds(&self, base: &Path, dir: &Path) -> Text<Binds> {
        let ids = self.ids.as_ref().map(|(_, mapping)| mapping);
        let mut opened = Vec::new();
        let mut shared = Vec::new();
        for (n, bind) in self.held.record.spec.binds.iter().enumerate() {
            let named = |e: std::io::Error| format!("cannot share {}: {e}", bind.source.display());
            let is_dir = std::fs::metadata(&bind.source).map_err(named)?.is_dir();
            opened.push((tree::shown(&bind.source, ids).map_err(named)?, is_dir));
            let staged = stage::bind_path(base, n);
            shared.push(Shared { staged, target: bind.target.clone(), read_only: bind.read_only });
        }
        let native = self.held.record.emulated.as_ref().and_then(|by| by.native.as_ref());
        for (source, target) in native.map(|native| accel::mounts(native, dir)).unwrap_or_default() {
            let staged = stage::bind_path(base, opened.len());
            let shown = tree::shown(&source, ids).map_err(|e| format!("cannot show {}: {e}", source.display()))?;
            opened.push((shown, true));
            shared.push(Shared { staged, target, read_only: true });
        }
        Ok((opened, shared))
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let mut env = self.held.record.spec.env.clone();
        // What is not baked into a copy of the interpreter (see `binfmt::copy`) reaches at least the guest's init.
        if let Some(by) = self.held.record.emulated.as_ref().filter(|by| by.copies.is_empty()) {
            // qemu-user renumbers real-time signals unless it is told not to: the guest would never hear "power off".
            env.push(("QEMU_RTSIG_MAP".into(), binfmt::SIGNALS.into()));
            env.extend(by.cpu.as_ref().map(|cpu| ("QEMU_CPU".into(), cpu.into())));
        }
        env
    }

    fn plan(&self, base: &Path, shared: Vec<Shared>, notify: &str, fenced: bool) -> Text<Plan> {
        Ok(Plan {
            machine: self.held.run.machine.clone(),
            hostname: self.hostname()?,
            machine_id: self.held.record.uuid.replace('-', ""),
            root: stage::root_path(base),
            network: self.held.record.spec.network,
            shared,
            env: self.environment(),
            notify: format!("@{notify}"),
            unified_cgroup: self.held.hierarchies.v2.is_some(),
            ids: self.held.run.ids.map(|ids| ids.first),
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
        let binds = self.open_binds(&base, &self.held.path()?)?;
        let root = self.make_root(&binds)?;
        let (binds, shared) = binds;
        fail::point("console").map_err(text)?;
        let (pty, terminal) = pty::open().map_err(text)?;
        pty::set_size(std::os::fd::AsFd::as_fd(&pty), 24, 80).map_err(text)?;
        let address = format!("pronto/{}/{}", self.held.record.uuid, self.held.run.domid);
        let notify = sock::abstract_datagrams(&address).map_err(text)?;
        // nspawn lets a guest with a private network have CAP_NET_ADMIN; the system calls are the same.
        let filter = Filter::of(self.held.run.forgetful);
        let launch = self.backend.launch(&self.plan(&base, shared, &address, filter.is_some())?);
        fail::point("guest-start").map_err(text)?;
        let cage = self.held.run.cage.clone();
        let gate = if self.private().is_some() { Some(self.foreign.make_gate()?) } else { None };
        let stage = stage::Stage { base, root, binds, terminal, cage, filter, program, gate, launch };
        let process = stage.spawn().map_err(|e| format!("cannot start systemd-nspawn: {e}"))?;
        Ok(Started { process, pty, notify: Some(notify), domid: self.held.run.domid })
    }

    /// How the guest is emulated, when its interpreter is to be registered for it alone.
    fn private(&self) -> Option<&Emulated> {
        self.held.record.emulated.as_ref().filter(|by| !by.private.is_empty())
    }

    fn take_ids(&mut self) -> Text<()> {
        if self.held.record.userns && self.ids.is_none() {
            let claim = ids::take(&self.held.record.uuid).map_err(text)?;
            let mapping = Mapping::of(claim.range).map_err(|e| format!("cannot make a user namespace: {e}"))?;
            self.ids = Some((claim, mapping));
        }
        self.held.run.ids = self.ids.as_ref().map(|(claim, _)| claim.range);
        Ok(())
    }

    /// Whether the interpreter renumbers real-time signals and cannot be told not to: its program is asked, not its version.
    fn loses_realtime_signals(&self) -> bool {
        let Some(by) = &self.held.record.emulated else { return false };
        !binfmt::knows_signals(&std::fs::read(&by.interpreter).unwrap_or_default())
    }

    /// Asks the guest's init by a command in it, started as any `exec` is. It is not waited for.
    fn ask_inside(&self, command: &[&str]) -> Text<()> {
        let own = std::env::current_exe().map_err(text)?;
        let mut words: Vec<OsString> = vec!["--root".into(), self.held.store.root().into(), "exec".into()];
        words.extend([self.held.name()?.as_str(), "--"].map(OsString::from));
        words.extend(command.iter().map(OsString::from));
        if self.held.store.root() == Store::at(None).root() {
            words.drain(..2);
        }
        Tool::new(own).args(words).spawn().map(drop).map_err(text)
    }

    /// Whether there is a machined that guests are made known to.
    fn registered(&self) -> bool {
        self.held.scope.is_some() && machined::runs()
    }
}

impl Guest for Running {
    fn start(&mut self) -> Text<Started> {
        self.held.begin(self.backend.name())?;
        self.calm = Calm::default();
        self.take_ids()?;
        let limits = self.limits();
        self.held.make_cage(&limits, &[])?;
        self.held.write_run()?;
        let started = self.launch()?;
        Ok(started)
    }

    fn leader(&mut self, inner: i32) -> Text<()> {
        fail::point("leader").map_err(text)?;
        let leader = self.held.run.cage.init_of(inner).ok_or("the guest's init cannot be found")?;
        self.held.run.leader = leader;
        self.held.run.leader_start = ns::start_time(leader).unwrap_or_default();
        if let Some(by) = &self.held.record.emulated {
            foreign::show_cpuinfo(
                &self.held.run,
                by,
                &self.held.path()?,
                self.ids.as_ref().map(|(_, mapping)| mapping),
            );
        }
        if let Some(by) = self.private().cloned() {
            self.foreign.open_gate(
                &self.held.store,
                &by,
                &self.held.run,
                self.held.record.init == InitKind::Systemd,
            )?;
        }
        fail::point("run-record").map_err(text)?;
        if self.registered() {
            machined::register(&self.held.run.machine, &self.held.record.uuid, self.held.run.leader);
        }
        self.held.write_run()
    }

    fn looks_up(&mut self) -> Option<bool> {
        if self.held.record.init.tells() {
            return None;
        }
        Some(self.calm.look(&self.held.run.cage.pids(), self.held.run.leader))
    }

    fn ready(&mut self) -> Text<()> {
        fail::point("ready").map_err(text)?;
        self.foreign.is_up(&self.held.run);
        self.held.run.ready = true;
        self.held.write_run()
    }

    fn ask(&mut self, how: How) -> Text<()> {
        if self.held.run.leader == 0 {
            return Err("the guest's init does not run yet".into());
        }
        let mut request = self.held.record.init.request(how == How::Reboot);
        if matches!(request, Request::Signal(n) if n >= libc::SIGRTMIN()) && self.loses_realtime_signals() {
            request = Request::Command(&["systemctl", "--no-block", "poweroff"]);
        }
        // Verbs do not ask a paused guest, but the host's shutdown does, and it must hear that.
        if self.held.run.cage.is_frozen() {
            self.held.run.cage.freeze(false).map_err(text)?;
        }
        match request {
            Request::Command(words) => self.ask_inside(words)?,
            Request::Signal(signal) => {
                let pidfd = ns::pidfd(self.held.run.leader).map_err(text)?;
                ns::signal_pidfd(&pidfd, signal).map_err(text)?;
            }
        }
        self.held.run.stopping = true;
        self.held.write_run()
    }

    fn kill(&mut self) {
        self.held.kill();
    }

    fn ended(&mut self, status: i32, asked: Option<How>) -> Outcome {
        self.held.clear();
        self.foreign = Foreign::default();
        // systemd-nspawn(1), "EXIT STATUS"; 133 is the guest's request for a reboot.
        let how = match (status, asked) {
            (_, Some(How::Kill)) => "destroyed",
            (133, _) => "reboot",
            (0, _) => "poweroff",
            (_, Some(_)) => "destroyed",
            _ => "crashed",
        };
        if self.held.action(how) != Action::Restart {
            return Outcome::Over(how);
        }
        if self.registered() {
            machined::forget(&self.held.run.machine);
        }
        Outcome::Again
    }

    fn handed_over(&mut self) -> Text<()> {
        self.held.handed_over()
    }

    fn finish(&mut self, how: &str, orphan: bool) {
        self.foreign = Foreign::default();
        self.held.finish(how, orphan);
    }
}
