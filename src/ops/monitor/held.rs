//! What a monitor holds of its domain, whatever runs it: the records, the lock, the cgroups. What a newcomer would get wrong: the domain may
//! be renamed while it runs, so its directory is held by a descriptor and its name is asked of the kernel.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::guest::{Text, text};
use crate::domain::{Action, Name};
use crate::store::Store;
use crate::store::domains::{Ended, Record, Run, now};
use crate::sys::cgroup::{self, Cage, Hierarchies, Limits};
use crate::sys::lock::Lock;
use crate::sys::{devices, fail};

/// A domain that is this monitor's.
#[derive(Debug)]
pub struct Held {
    /// Its store.
    pub store: Store,
    dir: OwnedFd,
    /// What persists of it.
    pub record: Record,
    lock: Option<Lock>,
    /// The host's cgroup trees.
    pub hierarchies: Hierarchies,
    /// What is known of this run.
    pub run: Run,
    /// The cgroup that systemd gave us, where it did.
    pub scope: Option<PathBuf>,
}

impl Held {
    /// Takes a domain over. Errors: its directory is gone.
    pub fn new(store: Store, name: &Name, record: Record, lock: Lock) -> Text<Held> {
        let dir = File::open(store.domain(name.as_str())).map_err(text)?.into();
        let hierarchies = Hierarchies::here();
        let scope = if Path::new("/run/systemd/system").is_dir() { cgroup::own_v2(&hierarchies) } else { None };
        let run = Run { started: now(), monitor: std::process::id() as i32, ..Run::default() };
        Ok(Held { store, dir, record, lock: Some(lock), hierarchies, run, scope })
    }

    /// The domain's directory, whatever it is called now.
    pub fn path(&self) -> Text<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.dir.as_raw_fd())).map_err(text)
    }

    /// The domain's name now.
    pub fn name(&self) -> Text<Name> {
        let path = self.path()?;
        Name::new(&path.file_name().unwrap_or_default().to_string_lossy()).map_err(text)
    }

    /// A new run: its domid and what follows from it.
    pub fn begin(&mut self, backend: &str) -> Text<()> {
        let held = self.store.hold().map_err(text)?;
        self.run.domid = self.store.next_domid().map_err(text)?;
        drop(held);
        self.run.machine = format!("pronto-{}-{}", self.store.tag(), self.run.domid);
        self.run.backend = backend.into();
        self.run.ready = false;
        self.run.stopping = false;
        self.run.paused = false;
        self.run.crashed = false;
        self.run.agent = false;
        self.run.forgetful = self.record.spec.forgets();
        self.run.started = now();
        Ok(())
    }

    /// Its cgroups, with these limits; of the host's devices it may use only what everybody may, and `more`.
    pub fn make_cage(&mut self, limits: &Limits, more: &[devices::Rule]) -> Text<()> {
        fail::point("cgroup").map_err(text)?;
        let cage = Cage::make(&self.hierarchies, self.scope.as_deref(), &self.run.machine, limits).map_err(text)?;
        self.run.cage = cage;
        self.run.cage.join_monitor(std::process::id()).map_err(text)?;
        if let Some(guest) = self.run.cage.guest() {
            let dir = File::open(&guest).map_err(text)?;
            devices::restrict_v2(dir.as_fd(), more)
                .map_err(|e| format!("cannot close the host's devices for {}: {e}", guest.display()))?;
        }
        Ok(())
    }

    /// Writes what is known of the run.
    pub fn write_run(&self) -> Text<()> {
        self.store.write_run(&self.record.uuid, &self.run).map_err(text)
    }

    /// What is left of a run when its program has ended: nothing.
    pub fn clear(&mut self) {
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
    }

    /// Kills everything of the guest, now.
    pub fn kill(&mut self) {
        self.run.stopping = true;
        let _ = self.write_run();
        self.run.cage.kill();
    }

    /// What was asked for when a run ends so.
    pub fn action(&self, how: &str) -> Action {
        let spec = &self.record.spec;
        match how {
            "poweroff" => spec.on_poweroff,
            "reboot" => spec.on_reboot(),
            "crashed" => spec.on_crash,
            _ => Action::Destroy,
        }
    }

    /// The domain is the user's now.
    pub fn handed_over(&mut self) -> Text<()> {
        fail::point("handover").map_err(text)?;
        self.record.building = false;
        self.store.write_record(&self.name()?, &self.record).map_err(text)
    }

    /// The domain is over for good. `orphan`: the command that started it never handed it over.
    pub fn finish(&mut self, how: &str, orphan: bool) {
        self.clear();
        let Ok(name) = self.name() else { return };
        let uuid = self.record.uuid.clone();
        let current = self.store.load(name.as_str()).ok().flatten().map(|d| d.record).unwrap_or(self.record.clone());
        // A create that was never done leaves nothing; a start that was never done leaves the domain as it was.
        if (orphan && current.building) || current.spec.rm {
            let _ = self.store.remove_domain(&name, &uuid);
        } else {
            let how = if current.saved.is_some() && how == "destroyed" { "saved" } else { how };
            let ended = Some(Ended { when: now(), how: how.into() });
            let _ = self.store.write_record(&name, &Record { ended, ..current });
            let _ = self.store.remove_run(&uuid);
        }
        // The lock goes last: until then nobody may think that this domain is free.
        self.lock = None;
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
