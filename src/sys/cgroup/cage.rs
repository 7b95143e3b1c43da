//! The cgroups of one domain: made, limited, frozen, killed, asked and removed as one. What a newcomer would get wrong: it is
//! plain data that any command reads from the run record; nothing is released when it is dropped.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::files::{each_below, field, first_line, make_dir, remove_below, write};
use super::{Error, Hierarchies};
use crate::sys::{devices, ns};

/// What a domain may use at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// CPUs' worth of time.
    pub cpus: Option<u32>,
    /// The CPUs it may run on, `0-1,3`.
    pub cpuset: Option<String>,
    /// Devices that it may open besides those of every guest; for a v1 tree, where they cannot be added later.
    pub devices: Vec<devices::Rule>,
}

/// The cgroups of one domain. It is stored in the run record, so any command can find them again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cage {
    /// `<base>` in the v2 tree.
    pub base: Option<PathBuf>,
    /// Directories in v1 hierarchies, by controller.
    pub v1: BTreeMap<String, PathBuf>,
    /// Whether systemd owns the base (a scope): it removes it itself.
    pub scope: bool,
}

/// This process, away from its own v1 cgroups.
#[derive(Debug)]
pub struct Borrowed(Vec<PathBuf>);

impl Drop for Borrowed {
    fn drop(&mut self) {
        for home in &self.0 {
            let _ = write(home, "0");
        }
    }
}

const CONTROLLERS: [&str; 3] = ["memory", "cpu", "cpuset"];
/// The v1 hierarchy that keeps guests from the host's devices where there is no v2 tree for an eBPF program.
pub(super) const DEVICES: &str = "devices";

/// Where in a v1 directory of ours the guest's processes are. A group of `devices` may widen its own list up to its parent's,
/// so the parent has the list, and the guest's root, whose cgroup namespace begins at the leaf, never sees it.
pub(super) fn leaf(controller: &str, dir: &Path) -> PathBuf {
    if controller == DEVICES { dir.join("guest") } else { dir.to_owned() }
}

impl Cage {
    /// Makes the cgroups of `machine`, with limits. `scope` is the cgroup that systemd delegated to us, if it did.
    /// Errors: see [`Error`]; what was made is removed again.
    pub fn make(here: &Hierarchies, scope: Option<&Path>, machine: &str, limits: &Limits) -> Result<Cage, Error> {
        let mut cage = Cage::default();
        let made = cage.build(here, scope, machine, limits);
        if made.is_err() {
            cage.remove();
        }
        made.map(|()| cage)
    }

    /// As [`Cage::make`] for a single command: no scope, and v1 only where a limit needs it (joining a v1 cgroup costs
    /// milliseconds).
    pub fn light(here: &Hierarchies, machine: &str, limits: &Limits) -> Result<Cage, Error> {
        let mut here = here.clone();
        here.v1.retain(|controller, _| match controller.as_str() {
            "memory" => limits.memory.is_some(),
            "cpu" => limits.cpus.is_some(),
            "cpuset" => limits.cpuset.is_some(),
            _ => here.v2.is_none(),
        });
        Cage::make(&here, None, machine, limits)
    }

    /// Moves this process into the v1 cgroups until the result is dropped: what it starts meanwhile is born there.
    pub fn borrow_v1(&self) -> Result<Borrowed, Error> {
        let mut homes = Vec::new();
        let mine = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        for (controller, dir) in &self.v1 {
            let path = mine.lines().find_map(|l| {
                let mut parts = l.splitn(3, ':').skip(1);
                parts.next()?.split(',').any(|c| c == controller).then(|| parts.next().unwrap_or("/").to_owned())
            });
            let mount = dir.parent().and_then(Path::parent).unwrap_or(dir);
            homes.push(mount.join(path.unwrap_or_default().trim_start_matches('/')).join("cgroup.procs"));
        }
        let borrowed = Borrowed(homes);
        for (controller, dir) in &self.v1 {
            write(&leaf(controller, dir).join("cgroup.procs"), "0")?;
        }
        Ok(borrowed)
    }

    fn build(&mut self, here: &Hierarchies, scope: Option<&Path>, machine: &str, limits: &Limits) -> Result<(), Error> {
        if let Some(scope) = scope {
            self.scope = true;
            self.base = Some(scope.to_owned());
        } else if let Some(v2) = &here.v2 {
            let base = v2.join("pronto").join(machine);
            // A host whose tree cannot be written (a container's) has no cgroup for us: pause and limits are refused then.
            if make_dir(&base).is_ok() {
                self.base = Some(base);
            }
        }
        if let Some(base) = self.base.clone() {
            for leaf in ["monitor", "guest"] {
                make_dir(&base.join(leaf))?;
            }
            if !self.scope && here.v1.contains_key("name=systemd") {
                // On a hybrid host nspawn mirrors its v2 path there: made by us, so that it is removed by us.
                self.add_v1(here, "name=systemd", machine, &[])?;
            }
        } else {
            for controller in ["freezer", DEVICES] {
                self.add_v1(here, controller, machine, &limits.devices)?;
            }
        }
        self.apply(here, machine, limits)
    }

    /// systemd's scope still holds the monitor in its root when this runs: controllers come down once it has moved.
    fn apply(&mut self, here: &Hierarchies, machine: &str, limits: &Limits) -> Result<(), Error> {
        for controller in CONTROLLERS {
            if let (true, Some(base)) = (here.v2_has(controller), self.base.clone()) {
                if self.scope {
                    let me = std::process::id();
                    let _ = write(&base.join("monitor/cgroup.procs"), &me.to_string());
                }
                let v2 = here.v2.clone().unwrap_or_default();
                let between = [v2.clone(), v2.join("pronto"), base];
                for dir in between.iter().skip(if self.scope { 2 } else { 0 }) {
                    let _ = write(&dir.join("cgroup.subtree_control"), &format!("+{controller}"));
                }
            } else if here.v1.contains_key(controller) && self.wants_v1(controller, limits) {
                self.add_v1(here, controller, machine, &[])?;
            }
        }
        self.limit(limits)
    }

    /// v1 memory is always joined where v2 does not account memory: summing up the Pss of every process instead would make
    /// `list` a hundred times slower. The others only for a limit.
    fn wants_v1(&self, controller: &str, limits: &Limits) -> bool {
        match controller {
            "memory" => true,
            "cpu" => limits.cpus.is_some(),
            _ => limits.cpuset.is_some(),
        }
    }

    fn add_v1(
        &mut self,
        here: &Hierarchies,
        controller: &str,
        machine: &str,
        open: &[devices::Rule],
    ) -> Result<(), Error> {
        let Some(mount) = here.v1.get(controller) else { return Ok(()) };
        let dir = mount.join("pronto").join(machine);
        make_dir(&dir)?;
        if controller == "cpuset" {
            // A v1 cpuset is unusable until it names its CPUs and memory nodes, and so is its parent.
            for dir in [mount.join("pronto"), dir.clone()] {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let above = dir.parent().map(|p| first_line(&p.join(file))).unwrap_or_default();
                    if first_line(&dir.join(file)).is_empty() {
                        write(&dir.join(file), &above)?;
                    }
                }
            }
        }
        self.v1.insert(controller.to_owned(), dir.clone());
        if controller == DEVICES {
            // Before there is anything below it: the kernel refuses to take rights away from a group that has children.
            devices::restrict_v1(&dir, open).map_err(|source| Error::Io { path: dir.clone(), source })?;
            make_dir(&leaf(controller, &dir))?;
        }
        Ok(())
    }

    /// Sets limits on the guest's part. Errors: [`Error::NoController`] where a limit could not be enforced.
    pub fn limit(&self, limits: &Limits) -> Result<(), Error> {
        const PERIOD: u64 = 100_000; // microseconds, the kernel's default
        if let Some(bytes) = limits.memory {
            self.set("memory", &[("memory.max", bytes.to_string())], &[("memory.limit_in_bytes", bytes.to_string())])?;
        }
        if let Some(cpus) = limits.cpus {
            let quota = PERIOD * u64::from(cpus);
            let v1 = [("cpu.cfs_period_us", PERIOD.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
            self.set("cpu", &[("cpu.max", format!("{quota} {PERIOD}"))], &v1)?;
        }
        if let Some(list) = &limits.cpuset {
            self.set("cpuset", &[("cpuset.cpus", list.clone())], &[("cpuset.cpus", list.clone())])?;
        }
        Ok(())
    }

    fn set(&self, controller: &'static str, v2: &[(&str, String)], v1: &[(&str, String)]) -> Result<(), Error> {
        let (dir, files) = match (self.guest(), self.v1.get(controller)) {
            (Some(guest), _) if guest.join(v2[0].0).exists() => (guest, v2),
            (_, Some(dir)) => (dir.clone(), v1),
            _ => return Err(Error::NoController(controller)),
        };
        files.iter().try_for_each(|(file, value)| write(&dir.join(file), value))
    }

    /// The guest's part in the v2 tree.
    pub fn guest(&self) -> Option<PathBuf> {
        self.base.as_ref().map(|b| b.join("guest"))
    }

    /// Moves the calling monitor (`pid`) into its own leaf.
    pub fn join_monitor(&self, pid: u32) -> Result<(), Error> {
        self.base.as_ref().map_or(Ok(()), |base| write(&base.join("monitor/cgroup.procs"), &pid.to_string()))
    }

    /// Moves a process into the guest's part, in every hierarchy.
    pub fn join_guest(&self, pid: u32) -> Result<(), Error> {
        let v1 = self.v1.iter().map(|(controller, dir)| leaf(controller, dir));
        let mut dirs = self.guest().into_iter().chain(v1);
        dirs.try_for_each(|dir| write(&dir.join("cgroup.procs"), &pid.to_string()))
    }

    /// Whether it can be paused at all.
    pub fn can_freeze(&self) -> bool {
        self.base.is_some() || self.v1.contains_key("freezer")
    }

    /// Freezes or thaws the guest, and waits until the kernel says that it is so (at most 10 s).
    pub fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let deadline = Instant::now() + Duration::from_secs(10);
        if let Some(guest) = self.guest() {
            write(&guest.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
        } else if let Some(dir) = self.v1.get("freezer") {
            write(&dir.join("freezer.state"), if frozen { "FROZEN" } else { "THAWED" })?;
        } else {
            return Err(Error::NoController("freezer"));
        }
        while self.is_frozen() != frozen {
            if Instant::now() > deadline {
                let source = io::Error::from(io::ErrorKind::TimedOut);
                return Err(Error::Io { path: self.guest().unwrap_or_default(), source });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether the guest is frozen now.
    pub fn is_frozen(&self) -> bool {
        match (self.guest(), self.v1.get("freezer")) {
            (Some(guest), _) => field(&guest.join("cgroup.events"), "frozen") == Some(1),
            (None, Some(dir)) => first_line(&dir.join("freezer.state")) == "FROZEN",
            _ => false,
        }
    }

    /// Kills everything in the guest's part, frozen or not. cgroup.kill needs Linux 5.14; before that, one by one.
    pub fn kill(&self) {
        let Some(guest) = self.guest() else { return };
        if write(&guest.join("cgroup.kill"), "1").is_err() {
            for pid in self.pids() {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
        let _ = write(&guest.join("cgroup.freeze"), "0");
    }

    /// The guest's init: the PID here of the process that is `inner` in the pid namespace of its program, and 1 in its own.
    pub fn init_of(&self, inner: i32) -> Option<i32> {
        self.pids().into_iter().find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let pids = ns::parse_nspid(&status);
            pids.len() >= 3 && pids[pids.len() - 1] == 1 && pids[pids.len() - 2] == inner
        })
    }

    /// Every process of the guest, as PIDs of our namespace.
    pub fn pids(&self) -> Vec<i32> {
        let mut found = Vec::new();
        if let Some(top) = self.guest().or_else(|| self.v1.values().next().cloned()) {
            each_below(&top, &mut |dir| {
                let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
            });
        }
        found
    }

    /// Whether no process is left in the guest's part.
    pub fn is_empty(&self) -> bool {
        self.guest().is_none_or(|guest| field(&guest.join("cgroup.events"), "populated") != Some(1))
    }

    /// CPU time used, in microseconds.
    pub fn cpu_micros(&self) -> u64 {
        self.guest().and_then(|g| field(&g.join("cpu.stat"), "usage_usec")).unwrap_or(0)
    }

    /// Bytes in use, where something accounts them.
    pub fn memory_used(&self) -> Option<u64> {
        let v2 = self.guest().map(|g| g.join("memory.current"));
        let v1 = self.v1.get("memory").map(|d| d.join("memory.usage_in_bytes"));
        v2.into_iter().chain(v1).find_map(|file| first_line(&file).parse().ok())
    }

    /// The memory limit in bytes, if there is one.
    pub fn memory_limit(&self) -> Option<u64> {
        let v2 = self.guest().map(|g| g.join("memory.max"));
        let v1 = self.v1.get("memory").map(|d| d.join("memory.limit_in_bytes"));
        let limit = v2.into_iter().chain(v1).find_map(|file| first_line(&file).parse::<u64>().ok())?;
        // v1 writes "no limit" as a huge number, rounded to pages.
        (limit < 1 << 60).then_some(limit)
    }

    /// Removes the cgroups; what is still in use is retried for a second, then left for the next command to remove.
    pub fn remove(&self) {
        let base = self.base.iter().map(|b| (b.clone(), !self.scope));
        let v1 = self.v1.values().map(|d| (d.clone(), true));
        for (dir, itself) in base.chain(v1) {
            for _ in 0..100 {
                remove_below(&dir);
                if !itself || fs::remove_dir(&dir).is_ok() || !dir.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            if itself {
                // The common parent goes with its last domain; another domain's keeps it.
                let _ = dir.parent().map(fs::remove_dir);
            }
        }
    }
}
