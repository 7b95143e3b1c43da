//! What people see of the registry: one row per architecture. What a newcomer would get wrong: the kernel does not say which
//! file an F entry holds open. But a file that took the interpreter's place later has a later ctime than the entry (renaming
//! and writing both set it), and an entry's own time is that of its registration; so the two are compared, for anybody's
//! entries, without root and without notes of our own.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Entry, Error, Host, Interpreter, Level, Problem, Registered, Result, copies, demands, ident, interpreter};
use crate::arch::Profile;
use crate::sys;

/// Whether the file at the interpreter's path is the one that the entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pinned {
    /// The entry holds none (no F): the file is looked up at each start, in the root of whoever starts.
    No,
    /// It is the same file.
    Same,
    /// The file was replaced or changed after the registration, or is gone: the entry runs what was there before.
    Changed,
    /// It cannot be told: the clock was set back, or the file cannot be looked at.
    Unknown,
}

/// One architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The profile's name.
    pub arch: String,
    /// Whether the host runs its programs itself; `None`: it could not be found out.
    pub native: Option<bool>,
    /// The entry that wins.
    pub entry: Option<String>,
    /// Whether it is ours.
    pub ours: bool,
    /// Whether ours is registered for the boots to come.
    pub durable: bool,
    /// The interpreter in force.
    pub interpreter: Option<PathBuf>,
    /// Its version, `11.1.3`, where the file is QEMU's and is the one in force.
    pub version: Option<String>,
    /// Its flags as the kernel shows them.
    pub flags: Option<String>,
    /// Whether setuid programs keep their privilege.
    pub setuid: bool,
    /// Whether the file at that path is the one in force.
    pub pinned: Option<Pinned>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl Host {
    /// The row of one architecture. Needs no root. Errors: the registry cannot be read.
    pub fn status(&self, profile: &Profile) -> Result<Row> {
        let native = super::runs_itself(profile).ok();
        let mounted = self.registry.is_mounted();
        let all = if mounted { self.registry.entries()? } else { Vec::new() };
        let winner = if mounted { self.registry.winner(&ident(profile))? } else { None };
        let mut row = Row {
            arch: profile.name.clone(),
            native,
            entry: None,
            ours: false,
            durable: self.durable(profile).is_some(),
            interpreter: None,
            version: None,
            flags: None,
            setuid: false,
            pinned: None,
            problems: Vec::new(),
        };
        match &winner {
            Some(winner) => self.describe(profile, winner, &mut row),
            None if native == Some(true) => {}
            None => self.nothing_wins(profile, mounted, &all, &mut row),
        }
        if native == Some(true) && winner.is_some() {
            row.problems.push(warning(
                "this host runs these programs itself, but the entry puts an emulator before it",
                || match &row.entry {
                    Some(entry) => format!("remove it: echo -1 > {}", self.registry.dir().join(entry).display()),
                    None => String::new(),
                },
            ));
        }
        Ok(row)
    }

    fn describe(&self, profile: &Profile, winner: &Registered, row: &mut Row) {
        let Entry { name, interpreter: path, flags, .. } = &winner.entry;
        row.ours = *name == profile.binfmt;
        row.entry = Some(name.clone());
        row.interpreter = Some(path.clone());
        row.flags = Some(flags.to_string());
        row.setuid = flags.credentials;
        let held = pinned(winner);
        row.pinned = Some(held);
        let register = || format!("pronto binfmt register {}", profile.name);
        if !flags.fix_binary {
            row.problems
                .push(warning("without flag F it is looked up in each guest's root and not found there", register));
        }
        if !flags.credentials {
            row.problems.push(warning("without flag C setuid programs (sudo, su) have no privilege", register));
        }
        if !flags.open_binary {
            row.problems.push(warning("without flag O programs that may be run but not read fail", register));
        }
        if !flags.preserve_argv0 {
            row.problems.push(warning("without flag P programs do not see the name they were called by", register));
        }
        if !winner.entry.knows_appimages() {
            row.problems.push(warning("AppImages do not match it", register));
        }
        match held {
            Pinned::Changed => row.problems.push(warning(
                "the file at its path was replaced after it was registered; the old one still runs",
                register,
            )),
            Pinned::Unknown => {}
            Pinned::Same | Pinned::No => self.versions(profile, path, row),
        }
    }

    /// Version, known failures and better files at hand; only for a file that is in force.
    fn versions(&self, profile: &Profile, path: &std::path::Path, row: &mut Row) {
        let found = interpreter::candidates(profile, &self.profiles, self.cache.as_deref());
        let file = |path: &std::path::Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
        let copy = |of: &std::path::Path| copies::lasting_name(of).is_ok_and(|copy| path.ends_with(copy));
        let in_force = found
            .iter()
            .find(|(candidate, _)| file(candidate).is_some() && file(candidate) == file(path) || copy(candidate));
        let best = found.iter().filter_map(|(_, fit)| fit.as_ref().ok()).max_by_key(|i| i.version);
        match in_force {
            Some((_, Ok(Interpreter { version, pie, .. }))) => {
                row.version = Some(format!("{}.{}.{}", version.0, version.1, version.2));
                row.problems.extend(demands(*version, *pie, sys::host::kernel_version(), None, None));
                if let Some(better) = best.filter(|b| b.version > *version) {
                    let what = format!("{} is newer", super::entry::shown(&better.path));
                    row.problems.push(warning(what, || format!("pronto binfmt register {}", profile.name)));
                }
            }
            Some((_, Err(why))) => {
                let what = format!("{} {why}", super::entry::shown(path));
                row.problems.push(warning(what, || format!("install {}", profile.qemu_user.package)));
            }
            // A file that is not where qemu-user's are: a box64, a wrapper; nothing is known of it, and it is not started.
            None => {}
        }
    }

    fn nothing_wins(&self, profile: &Profile, mounted: bool, all: &[Registered], row: &mut Row) {
        let register = || format!("pronto binfmt register {} (guests need none: they have their own)", profile.name);
        if mounted && !self.registry.is_enabled() {
            let enable = format!("echo 1 > {}", self.registry.dir().join("status").display());
            row.problems.push(warning("binfmt_misc is disabled as a whole", || enable));
        } else if let Some(off) = all.iter().find(|r| !r.enabled && r.entry.matches(&ident(profile))) {
            let enable = format!("echo 1 > {}", self.registry.dir().join(&off.entry.name).display());
            row.problems.push(warning(format!("entry {} is disabled", off.entry.name.escape_debug()), || enable));
        } else if row.durable {
            row.problems
                .push(warning("its file in binfmt.d is not in force (something flushed the entries)", register));
        }
        match interpreter::best(profile, &self.profiles, self.cache.as_deref()) {
            Ok(_) if row.problems.is_empty() => row.problems.push(warning("not registered on this host", register)),
            Ok(_) => {}
            Err(error) => {
                let package = error.package().map(|p| format!("install {p}")).unwrap_or_default();
                row.problems.push(warning(error.to_string(), || package));
            }
        }
    }
}

impl Error {
    /// A line for the user that says what to do, where that is known.
    pub fn cure(&self) -> Option<String> {
        match self {
            Error::Missing { package, .. } | Error::Unfit { package, .. } => Some(format!("install {package}")),
            Error::NoRegistry { .. } => {
                Some("the kernel needs CONFIG_BINFMT_MISC; in a container, mount binfmt_misc outside".to_owned())
            }
            _ => None,
        }
    }
}

fn warning(text: impl Into<String>, cure: impl FnOnce() -> String) -> Problem {
    Problem { level: Level::Warning, text: text.into(), cure: cure() }
}

/// Compares an entry's time with its interpreter's ctime.
pub(super) fn pinned(registered: &Registered) -> Pinned {
    if !registered.entry.flags.fix_binary {
        return Pinned::No;
    }
    let path = &registered.entry.interpreter;
    // The link itself counts too: it may have been pointed elsewhere.
    match (std::fs::symlink_metadata(path), std::fs::metadata(path)) {
        (Ok(link), Ok(file)) => compare(registered.since, ctime(&link).max(ctime(&file)), SystemTime::now()),
        (Err(e), _) | (_, Err(e)) if e.kind() == std::io::ErrorKind::NotFound => Pinned::Changed,
        _ => Pinned::Unknown,
    }
}

fn ctime(meta: &std::fs::Metadata) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(meta.ctime().max(0) as u64, meta.ctime_nsec() as u32)
}

/// Entries are stamped with the time of the last tick (at most 10 ms ago), files on newer kernels with the exact one.
const TICK: Duration = Duration::from_millis(20);

fn compare(since: Option<SystemTime>, changed: SystemTime, now: SystemTime) -> Pinned {
    match since {
        // A file or an entry from the future: the clock was set back, and the order means nothing.
        Some(since) if changed > now || since > now => Pinned::Unknown,
        Some(since) if changed > since + TICK => Pinned::Changed,
        Some(_) => Pinned::Same,
        None => Pinned::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_file_is_another_file() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(compare(Some(at(100)), at(50), at(200)), Pinned::Same);
        assert_eq!(compare(Some(at(100)), at(100), at(200)), Pinned::Same);
        assert_eq!(compare(Some(at(100)), at(150), at(200)), Pinned::Changed);
        assert_eq!(compare(Some(at(100)), at(250), at(200)), Pinned::Unknown);
        assert_eq!(compare(Some(at(300)), at(250), at(200)), Pinned::Unknown);
        assert_eq!(compare(None, at(50), at(200)), Pinned::Unknown);
    }
}
