//! Domains on disk: what was asked (`domain.json`, outlives a run) and what runs (`run.json` under /run, gone with it).
//! What a newcomer would get wrong: whether a domain runs is not written anywhere; it is whether somebody holds the lock in
//! its run directory, so a killed monitor can never leave a domain that only looks alive.

mod remains;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Result, Store};
use crate::domain::full::Executor;
use crate::domain::{Artifact, DomainRef, Hardware, InitKind, Name, Native, Spec, State};
use crate::sys::cgroup::Cage;
use crate::sys::fs;
use crate::sys::lock::Lock;
use crate::sys::userns::Range;

/// What persists of a domain: `domains/<name>/domain.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Identity that outlives renames and reboots.
    pub uuid: String,
    /// What was asked.
    pub spec: Spec,
    /// What it is made of.
    pub artifact: Artifact,
    /// The architecture's profile name, as the ELF files say; empty while it is not known yet.
    #[serde(default)]
    pub arch: String,
    /// How its programs are run, when not by this CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulated: Option<Emulated>,
    /// The machine that it was given, when it has a kernel of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// What its init is.
    #[serde(default)]
    pub init: InitKind,
    /// Whether it runs in a user namespace with ids of its own.
    #[serde(default)]
    pub userns: bool,
    /// Its creator is not done: whoever finds it so without a holder removes it.
    #[serde(default)]
    pub building: bool,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// Which file holds its memory, when it was saved and has not run since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<String>,
    /// How its last run ended, if it has had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

impl Record {
    /// Whether its programs are translated, so that everything takes longer.
    pub fn is_translated(&self) -> bool {
        let translated = |hardware: &Hardware| hardware.executor != Executor::Kvm;
        self.emulated.is_some() || self.hardware.as_ref().is_some_and(translated)
    }
}

/// How a foreign domain's programs are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulated {
    /// The interpreter binfmt_misc runs.
    pub interpreter: PathBuf,
    /// Its version, `11.1.3`.
    pub version: String,
    /// Whether an emulation layer lies in the domain's directory.
    pub layer: bool,
    /// The lines for the guest's own registry of interpreters (binfmt.d(5)); none: the host's registry is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private: Vec<String>,
    /// The CPU model that it is told to be; none: its own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Interpreters of the guest's own registry, each with the copy that stands in for it there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<(PathBuf, PathBuf)>,
    /// Whether the interpreter looks for native programs (`binfmt/dispatch.rs`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dispatches: bool,
    /// The programs that are not emulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<Native>,
    /// The guest's init, which cannot be found by running anything before the interpreter is registered.
    #[serde(default)]
    pub init: PathBuf,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When, in seconds since 1970.
    pub when: u64,
    /// `poweroff`, `reboot`, `destroyed`, `crashed`.
    pub how: String,
}

/// What is known of a run: `<run>/domains/<uuid>/run.json`, written by the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    /// Its domid; 0 as long as only work for it is done in these cgroups (its creator installs an init).
    pub domid: u32,
    /// nspawn's `--machine`.
    pub machine: String,
    /// The monitor's PID.
    pub monitor: i32,
    /// PID of the guest's init, as the host sees it, or of the QEMU that runs its machine; 0 before it is known.
    pub leader: i32,
    /// The leader's start time in clock ticks since boot: with the PID it names one process for good.
    pub leader_start: u64,
    /// When it was started, in seconds since 1970.
    pub started: u64,
    /// Its cgroups.
    pub cage: Cage,
    /// The ids of its user namespace, if it has one.
    pub ids: Option<Range>,
    /// Whether the guest said that it is up.
    pub ready: bool,
    /// Whether it was asked to stop.
    pub stopping: bool,
    /// Which backend runs it.
    pub backend: String,
    /// Whether its CPUs stand still; a guest that shares the host's kernel is frozen instead.
    pub paused: bool,
    /// Whether its kernel has panicked, and it stays to be looked at.
    pub crashed: bool,
    /// Whether something in it answers for it (a guest agent).
    pub agent: bool,
    /// Whether nothing of it will be left, so that nothing in it has to wait for the disk.
    #[serde(default)]
    pub forgetful: bool,
}

/// One domain as it is now.
#[derive(Debug, Clone)]
pub struct Domain {
    /// Its name.
    pub name: Name,
    /// What persists.
    pub record: Record,
    /// What runs, if anything does.
    pub run: Option<Run>,
    /// Where it is in its life.
    pub state: State,
}

/// What persists of a domain, in its directory.
const RECORD: &str = "domain.json";
/// The ends of the names of directories that are being made, and removed.
const NEW: &str = ".new";
const REMOVED: &str = ".removed";

impl Store {
    /// Takes the store's lock: for milliseconds only.
    pub fn hold(&self) -> Result<Lock> {
        let path = self.lock();
        Lock::wait(&path).map_err(Error::io(&path))
    }

    /// Makes a domain's directories and takes its lock, in one step that no other process can see half of: it gets its name when it
    /// is whole, and what a killed process has not finished is [`Store::remove_unfinished`]'s. Errors: the name is in use; as
    /// mkdir(2), with nothing left.
    pub fn reserve(&self, name: &Name, record: &Record) -> Result<Lock> {
        let _held = self.hold()?;
        let dir = self.domain(name.as_str());
        match std::fs::symlink_metadata(&dir) {
            Ok(_) => return Err(Error::NameInUse(name.to_string())),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(&dir)(e)),
        }
        let half = self.domains().join(format!(".{}{NEW}", record.uuid));
        let made = (|| {
            fs::private_dir(&half).map_err(Error::io(&half))?;
            let lock = self.try_lock_run(&record.uuid)?.ok_or_else(|| Error::Busy(name.to_string()))?;
            write_json(&half.join(RECORD), record, !record.spec.rm)?;
            std::fs::rename(&half, &dir).map_err(Error::io(&dir))?;
            Ok(lock)
        })();
        if made.is_err() {
            let _ = fs::remove_tree(&half);
            let _ = fs::remove_tree(&self.run_dir(&record.uuid));
        }
        made
    }

    /// Takes the lock of a domain that does not run. Errors: [`Error::Busy`] when somebody else has it.
    pub fn lock_run(&self, name: &Name, record: &Record) -> Result<Lock> {
        // Never in a directory that is half gone: see `remove_run`.
        let _held = self.hold()?;
        self.try_lock_run(&record.uuid)?.ok_or_else(|| Error::Busy(name.to_string()))
    }

    fn try_lock_run(&self, uuid: &str) -> Result<Option<Lock>> {
        let run = self.run_dir(uuid);
        fs::private_dir(&run).map_err(Error::io(&run))?;
        let path = run.join("lock");
        Lock::try_take(&path).map_err(Error::io(&path))
    }

    /// Writes what persists.
    pub fn write_record(&self, name: &Name, record: &Record) -> Result<()> {
        write_json(&self.domain(name.as_str()).join(RECORD), record, !record.spec.rm)
    }

    /// Writes what is known of a run.
    pub fn write_run(&self, uuid: &str, run: &Run) -> Result<()> {
        write_json(&self.run_dir(uuid).join("run.json"), run, false)
    }

    /// Reads what is known of a run, if it says anything yet.
    pub fn read_run(&self, uuid: &str) -> Option<Run> {
        serde_json::from_slice(&std::fs::read(self.run_dir(uuid).join("run.json")).ok()?).ok()
    }

    /// One domain by its name. `None` when there is none.
    pub fn load(&self, name: &str) -> Result<Option<Domain>> {
        let Ok(name) = Name::new(name) else { return Ok(None) };
        let path = self.domain(name.as_str()).join(RECORD);
        let bytes = match std::fs::read(&path) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            other => other.map_err(Error::io(&path))?,
        };
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|e| Error::Damaged { path: path.clone(), why: e.to_string() })?;
        let run_dir = self.run_dir(&record.uuid);
        let lock = run_dir.join("lock");
        let held = Lock::is_held(&lock).map_err(Error::io(&lock))?;
        let run = self.read_run(&record.uuid);
        let state = state_of(&record, run.as_ref(), held, || run_dir.exists());
        Ok(Some(Domain { name, record, run: run.filter(|_| state.is_active()), state }))
    }

    /// Every domain, by name. One that cannot be read is left out and given to `damaged`.
    pub fn all_domains(&self, mut damaged: impl FnMut(Error)) -> Result<Vec<Domain>> {
        let dir = self.domains();
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(found),
            other => other.map_err(Error::io(&dir))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io(&dir))?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            match self.load(&name) {
                Ok(Some(domain)) => found.push(domain),
                Ok(None) => {}
                Err(e) => damaged(e),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The domain that a user means: a name, or the domid of a running one.
    pub fn resolve(&self, which: &DomainRef) -> Result<Option<Domain>> {
        match which {
            DomainRef::Name(name) => self.load(name),
            DomainRef::Id(id) => Ok(self.all_domains(|_| ())?.into_iter().find(|d| d.domid() == Some(*id))),
        }
    }

    /// Removes a domain's directories. The caller holds its lock.
    pub fn remove_domain(&self, name: &Name, uuid: &str) -> Result<()> {
        let dir = self.domain(name.as_str());
        // Renamed first: from then on the name is free, however long the tree takes to go.
        let doomed = self.domains().join(format!(".{uuid}{REMOVED}"));
        match std::fs::rename(&dir, &doomed) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => other.map_err(Error::io(&dir))?,
        }
        fs::remove_tree(&doomed).map_err(Error::io(&doomed))?;
        self.remove_run(uuid)
    }

    /// Removes what belongs to a run. The caller holds its lock, and not the store's: under that one it is done, so that nobody who
    /// finishes the work of the dead takes a lock in a directory that is half gone.
    pub fn remove_run(&self, uuid: &str) -> Result<()> {
        let _held = self.hold()?;
        let run = self.run_dir(uuid);
        fs::remove_tree(&run).map_err(Error::io(&run))
    }
}

/// What the kernel and the files say together.
fn state_of(record: &Record, run: Option<&Run>, held: bool, run_dir_exists: impl Fn() -> bool) -> State {
    match (held, run) {
        (true, None | Some(Run { domid: 0, .. })) => State::Building,
        (true, Some(run)) if run.stopping => State::Stopping,
        (true, Some(run)) if run.crashed => State::Crashed,
        (true, Some(run)) if run.paused || run.cage.is_frozen() => State::Paused,
        (true, Some(_)) => State::Running,
        (false, _) if record.building || run_dir_exists() => State::Crashed,
        (false, _) => State::ShutOff,
    }
}

impl Domain {
    /// Its domid, while it has one.
    pub fn domid(&self) -> Option<u32> {
        self.run.as_ref().map(|r| r.domid)
    }
}

/// A new identity.
pub fn new_uuid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default().trim().to_owned()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn write_json(path: &Path, value: &impl Serialize, sync: bool) -> Result<()> {
    let text =
        serde_json::to_vec_pretty(value).map_err(|e| Error::Damaged { path: path.to_owned(), why: e.to_string() })?;
    let written = if sync { fs::write_atomic(path, &text, 0o600) } else { fs::write_volatile(path, &text, 0o600) };
    written.map_err(Error::io(path))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::Layer;

    /// A record of nothing in particular.
    pub fn record() -> Record {
        Record {
            uuid: new_uuid(),
            spec: Spec { image: "x".into(), ..Spec::default() },
            artifact: Artifact {
                label: "x".into(),
                layers: vec![Layer::Directory("/x".into())],
                digest: None,
                platform: None,
                config: Default::default(),
            },
            arch: "arm64".into(),
            emulated: None,
            hardware: None,
            saved: None,
            init: InitKind::default(),
            userns: false,
            building: true,
            created: 1,
            ended: None,
        }
    }

    #[test]
    fn a_domain_lives_as_long_as_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(&dir.path().join("s")));
        store.open().unwrap();
        let name = Name::new("web").unwrap();
        let mut record = record();
        let lock = store.reserve(&name, &record).unwrap();
        assert!(matches!(store.reserve(&name, &record), Err(Error::NameInUse(_))));
        assert_eq!(store.load("web").unwrap().unwrap().state, State::Building);
        record.building = false;
        store.write_record(&name, &record).unwrap();
        store.write_run(&record.uuid, &Run::default()).unwrap();
        assert_eq!(store.load("web").unwrap().unwrap().state, State::Building, "a run without a domid is none yet");
        store.write_run(&record.uuid, &Run { domid: 7, ..Run::default() }).unwrap();
        let running = store.resolve(&DomainRef::Id(7)).unwrap().unwrap();
        assert_eq!((running.state, running.record), (State::Running, record.clone()));
        drop(lock);
        assert_eq!(store.load("web").unwrap().unwrap().state, State::Crashed);
        store.remove_run(&record.uuid).unwrap();
        let off = store.load("web").unwrap().unwrap();
        assert_eq!((off.state, off.domid()), (State::ShutOff, None));
        store.remove_domain(&name, &record.uuid).unwrap();
        assert!(store.load("web").unwrap().is_none());
        assert_eq!(std::fs::read_dir(store.domains()).unwrap().count(), 0);
    }

    #[test]
    fn odd_names_and_damaged_files() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(&dir.path().join("s")));
        store.open().unwrap();
        assert!(store.load("../../etc").unwrap().is_none());
        fs::private_dir(&store.domain("bad")).unwrap();
        fs::write_volatile(&store.domain("bad").join("domain.json"), b"{", 0o600).unwrap();
        assert!(matches!(store.load("bad"), Err(Error::Damaged { .. })));
        let mut damaged = 0;
        assert!(store.all_domains(|_| damaged += 1).unwrap().is_empty());
        assert_eq!(damaged, 1);
    }
}
