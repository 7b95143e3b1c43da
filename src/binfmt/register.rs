//! Registering: for this boot (`ensure`, what create does) and durable (`pronto binfmt register`), and the way back. What a
//! newcomer would get wrong: the registry belongs to the whole machine and others write to it at the same time, so everything
//! here compares first, changes only entries of our names, and asks the kernel afterwards who wins.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::status::{Pinned, pinned};
use super::{
    Entry, Error, Interpreter, Registered, Registry, Result, Version, copies, for_profile, ident, interpreter,
};
use crate::arch::{Profile, Profiles};
use crate::sys::fs::write_atomic;
use crate::sys::host;
use crate::sys::process::Tool;

/// Where registering happens: the host's own places, or a test's.
#[derive(Debug, Clone)]
pub struct Host {
    /// The kernel's registry.
    pub registry: Registry,
    /// Where durable entries lie. Source: binfmt.d(5).
    pub conf_dir: PathBuf,
    /// Where entries for this boot lie, where systemd-binfmt may be started again. Source: binfmt.d(5).
    pub boot_dir: Option<PathBuf>,
    /// The program that applies a binfmt.d file, where there is one.
    pub systemd_binfmt: Option<PathBuf>,
    /// What is remembered about interpreters.
    pub cache: Option<PathBuf>,
    /// Where copies of interpreters lie that look for native programs (`binfmt::dispatch`); none: there are none.
    pub copies: Option<PathBuf>,
    /// The architectures there are.
    pub profiles: Profiles,
}

/// What runs an architecture's programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Emulator {
    /// The interpreter in force.
    pub interpreter: PathBuf,
    /// Its version.
    pub version: Version,
    /// Whether it is position independent.
    pub pie: bool,
    /// Our entry.
    pub entry: String,
    /// Whether setuid programs keep their privilege.
    pub credentials: bool,
    /// Whether this call registered it (worth one line to the user).
    pub registered_now: bool,
    /// Whether what is in force looks for native programs.
    pub native: bool,
}

/// What shall be in force.
struct Wanted {
    entry: Entry,
    /// The end of an interpreter's path that will do as well: a copy, in whichever store it lies.
    or: Option<PathBuf>,
}

impl Wanted {
    fn is(&self, there: &Entry) -> bool {
        let copy = self.or.as_ref().is_some_and(|or| there.interpreter.ends_with(or));
        *there == self.entry || copy && *there == self.entry.clone().with_interpreter(&there.interpreter)
    }
}

impl From<Entry> for Wanted {
    fn from(entry: Entry) -> Wanted {
        Wanted { entry, or: None }
    }
}

/// What a durable registration or its removal changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// Our entry.
    pub entry: String,
    /// The file in binfmt.d.
    pub file: PathBuf,
    /// Whether anything was changed.
    pub changed: bool,
}

/// What was registered for an architecture at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    file: PathBuf,
    text: Option<Vec<u8>>,
    name: String,
    entry: Option<Registered>,
}

impl Host {
    /// The host's own places. `state_dir` is private to root and cleared at boot.
    pub fn system(state_dir: &Path) -> Host {
        let programs = ["/usr/lib/systemd/systemd-binfmt", "/lib/systemd/systemd-binfmt"];
        Host {
            registry: Registry::system(),
            conf_dir: PathBuf::from("/etc/binfmt.d"),
            boot_dir: host::systemd_is_init().then(|| PathBuf::from("/run/binfmt.d")),
            systemd_binfmt: programs.iter().map(PathBuf::from).find(|p| p.is_file()),
            cache: Some(state_dir.join("interpreters.json")),
            copies: None,
            profiles: Profiles::embedded(),
        }
    }

    /// Makes sure that programs of `profile` run here for this boot: the best interpreter is in force under our own entry. With
    /// `credentials`, setuid programs keep their privilege (flag C), unless a durable registration of ours says no. With `native`
    /// it is a copy that looks for native programs, where there can be one; without, such a copy will do, too, for it does nothing
    /// else where a guest has none. Doing it again, also by many at once, changes nothing.
    /// Errors: no fit interpreter, no registry; nothing is left registered or mounted by this call then.
    pub fn ensure(&self, profile: &Profile, credentials: bool, native: bool) -> Result<Emulator> {
        let interpreter = self.interpreter_for(profile)?;
        // An administrator's durable "no credentials" is not overruled by a create that says nothing.
        let credentials = credentials && self.durable(profile).is_none_or(|e| e.flags.credentials);
        let plain = for_profile(profile, &interpreter.path, credentials);
        let copy =
            self.copies.as_deref().filter(|_| native).and_then(|dir| copies::lasting(&interpreter.path, dir).ok());
        let native = copy.is_some();
        let entry = copy.map_or(plain.clone(), |copy| plain.clone().with_interpreter(&copy));
        let wanted = Wanted { entry, or: copies::lasting_name(&interpreter.path).ok() };
        let registered_now = self.put_in_force(profile, &wanted, |registry| registry.replace(&wanted.entry))?;
        // A cache may be emptied, so what is registered again by itself is the interpreter as it is.
        self.keep_for_this_boot(profile, &plain);
        let Interpreter { path, version, pie } = interpreter;
        Ok(Emulator { interpreter: path, version, pie, entry: plain.name, credentials, registered_now, native })
    }

    /// Registers for this boot and all that follow: a file in binfmt.d, applied at once. Errors: as [`Host::ensure`]; the file
    /// and the entry are as before then.
    pub fn register(&self, profile: &Profile, credentials: bool) -> Result<Made> {
        let interpreter = self.interpreter_for(profile)?;
        let wanted = Wanted::from(for_profile(profile, &interpreter.path, credentials));
        let file = self.conf_file(profile);
        let before = self.snapshot(profile)?;
        let text = conf_text(&wanted.entry)?;
        let new_file = before.text.as_deref() != Some(text.as_slice());
        if new_file {
            self.write_conf(&file, &text)?;
        }
        match self.put_in_force(profile, &wanted, |registry| self.apply(registry, &file, &wanted.entry)) {
            Ok(changed) => Ok(Made { entry: wanted.entry.name, file, changed: changed || new_file }),
            Err(error) => {
                self.go_back(&before);
                Err(error)
            }
        }
    }

    /// Removes what is ours: the file, and the entry. Others' stay.
    pub fn unregister(&self, profile: &Profile) -> Result<Made> {
        let file = self.conf_file(profile);
        self.forget_this_boot(profile);
        let had_file = match std::fs::remove_file(&file) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(Error::io(format!("cannot remove {}", file.display()))(e)),
        };
        let mut had_entry = false;
        if self.registry.is_mounted() {
            let _lock = self.registry.lock()?;
            for name in [profile.binfmt.clone(), format!("{}.new", profile.binfmt)] {
                had_entry |= self.registry.dir().join(&name).exists();
                self.registry.remove(&name)?;
            }
        }
        Ok(Made { entry: profile.binfmt.clone(), file, changed: had_file || had_entry })
    }

    /// What is registered for an architecture now, to go back to with [`Host::go_back`].
    pub fn snapshot(&self, profile: &Profile) -> Result<Snapshot> {
        let file = self.conf_file(profile);
        let text = read_if_there(&file)?;
        Ok(Snapshot { file, text, name: profile.binfmt.clone(), entry: self.registry.read(&profile.binfmt) })
    }

    /// Undoes what was done since `before` was taken. Best effort: it is for the way out of a failure.
    pub fn go_back(&self, before: &Snapshot) {
        let _ = match &before.text {
            Some(text) if read_if_there(&before.file).ok().flatten().as_ref() == Some(text) => Ok(()),
            Some(text) => write_atomic(&before.file, text, 0o644),
            None => std::fs::remove_file(&before.file),
        };
        if self.registry.is_mounted() {
            let lock = self.registry.lock();
            self.restore(&before.name, before.entry.as_ref());
            drop(lock);
        }
    }

    /// Our durable entry for an architecture, if there is one that can be read.
    pub fn durable(&self, profile: &Profile) -> Option<Entry> {
        let text = std::fs::read_to_string(self.conf_file(profile)).ok()?;
        Entry::parse_file(&text).ok()?.into_iter().find(|e| e.name == profile.binfmt)
    }

    /// Files of binfmt.d are applied in the order of their names and the newest entry wins, so ours must come after `qemu-…`.
    pub fn conf_file(&self, profile: &Profile) -> PathBuf {
        self.conf_dir.join(format!("zz-{}.conf", profile.binfmt))
    }

    fn interpreter_for(&self, profile: &Profile) -> Result<Interpreter> {
        if super::runs_itself(profile)? {
            return Err(Error::Native(profile.name.clone()));
        }
        interpreter::best(profile, &self.profiles, self.cache.as_deref())
    }

    /// Brings `wanted` in force by `change`, unless it is already. Says whether anything was changed. When anything fails after
    /// the first change, our entry and our mount are removed again.
    fn put_in_force(
        &self,
        profile: &Profile,
        wanted: &Wanted,
        change: impl Fn(&Registry) -> Result<()>,
    ) -> Result<bool> {
        let mounted = self.registry.mount()?;
        let done = (|| {
            if self.in_force(profile, wanted)?.is_ok() {
                return Ok(false);
            }
            let _lock = self.registry.lock()?;
            // Another process may have done it while we waited.
            if self.in_force(profile, wanted)?.is_ok() {
                return Ok(false);
            }
            let name = &wanted.entry.name;
            let before = self.registry.read(name);
            let changed = change(&self.registry).and_then(|()| self.verify(profile, wanted));
            if changed.is_err() {
                self.restore(name, before.as_ref());
            }
            changed.map(|()| true)
        })();
        if done.is_err() && mounted {
            let _ = self.registry.unmount();
        }
        done
    }

    /// After a failure: the entry of our name as it was before, or none.
    fn restore(&self, name: &str, before: Option<&Registered>) {
        let now = self.registry.read(name);
        let _ = match before {
            Some(old) if now.as_ref().is_some_and(|now| now.entry == old.entry) => Ok(()),
            Some(old) => self.registry.replace(&old.entry),
            None => self.registry.remove(name),
        };
    }

    /// Whether programs of `profile` are run as `wanted`, with the file that is at its path now; otherwise, what wins.
    fn in_force(&self, profile: &Profile, wanted: &Wanted) -> Result<std::result::Result<(), String>> {
        let winner = self.registry.winner(&ident(profile))?;
        Ok(match winner {
            Some(w) if wanted.is(&w.entry) && pinned(&w) != Pinned::Changed => Ok(()),
            Some(w) if wanted.is(&w.entry) => Err("a file that is gone".to_owned()),
            Some(w) => Err(format!("{} ({})", w.entry.name.escape_debug(), super::entry::shown(&w.entry.interpreter))),
            None if !self.registry.is_enabled() => Err("nothing: binfmt_misc is disabled as a whole".to_owned()),
            None => Err("nothing".to_owned()),
        })
    }

    fn verify(&self, profile: &Profile, wanted: &Wanted) -> Result<()> {
        self.in_force(profile, wanted)?.map_err(|winner| Error::NotInForce {
            entry: wanted.entry.name.clone(),
            arch: profile.name.clone(),
            winner,
        })
    }

    /// systemd-binfmt applies one file alone when it is named, and leaves other entries as they are. It silently does nothing
    /// where it finds binfmt_misc missing or read-only, so the kernel is asked afterwards and told directly if need be.
    fn apply(&self, registry: &Registry, file: &Path, wanted: &Entry) -> Result<()> {
        if let Some(program) = &self.systemd_binfmt {
            registry.bridged(wanted, || Ok(Tool::new(program).arg(file).output().map(|_| ())?))?;
            if registry.read(&wanted.name).is_some_and(|now| now.entry == *wanted) {
                return Ok(());
            }
        }
        registry.replace(wanted)
    }

    fn write_conf(&self, file: &Path, text: &[u8]) -> Result<()> {
        let made = std::fs::create_dir_all(&self.conf_dir).and_then(|()| write_atomic(file, text, 0o644));
        made.map_err(Error::io(format!("cannot write {}", file.display())))
    }
}

/// The same for every architecture that shares the entry, so that they do not write over one another.
pub(super) fn conf_text(entry: &Entry) -> Result<Vec<u8>> {
    let mut text = b"# Written by pronto, removed by pronto binfmt unregister.\n".to_vec();
    text.extend(entry.line()?);
    text.push(b'\n');
    Ok(text)
}

fn read_if_there(file: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(Error::io(format!("cannot read {}", file.display()))),
    }
}
