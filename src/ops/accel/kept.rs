//! What is kept of native programs in the cache, and leaves it. What a newcomer would get wrong: a guest has its directory mounted, so one that
//! a domain names stays; and who has just been given one writes that down a moment later, so one that was just asked for stays, too.
//!
//! ```text
//! cache/accel/NAME/          the programs of a release, tried
//! cache/accel/.NAME.new/     being made by whoever holds the claim NAME, or being removed
//! cache/accel/NAME.none      why there can be none: for a day, and for one mirror
//! ```

use std::collections::BTreeSet;
use std::fs::FileTimes;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::fetch;
use crate::accel::catalogue;
use crate::ops::provision::clean;
use crate::ops::{Ctx, Error, Result};
use crate::store::domains::now;
use crate::store::{Store, layers};
use crate::sys::fs;

/// How long a release is not tried again, in seconds.
const REFUSED: u64 = 24 * 3600;
/// How long a directory stays that somebody has just asked for.
const YOUNG: Duration = Duration::from_secs(60);
/// The ending of a note.
const NONE: &str = ".none";

/// Where all of it is.
pub(super) fn home(store: &Store) -> PathBuf {
    store.cache().join("accel")
}

/// Where a directory is until it is whole, or when it goes.
pub(super) fn unfinished(home: &Path, name: &str) -> PathBuf {
    home.join(format!(".{name}.new"))
}

/// Says that a directory is wanted now.
pub(super) fn in_use(dir: &Path) {
    if let Ok(file) = std::fs::File::open(dir.join(catalogue::FILE)) {
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
    }
}

/// Why there are no programs for a release.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// What was said.
    why: String,
    /// When, in seconds since 1970.
    when: u64,
    /// The mirror that was named.
    mirror: Option<String>,
}

/// Keeps in mind that there can be none. That it cannot is no harm: then it is tried again.
pub(super) fn refuse(home: &Path, name: &str, mirror: Option<&str>, error: &Error) {
    let note = Note { why: error.in_short(), when: now(), mirror: mirror.map(str::to_owned) };
    if let Ok(text) = serde_json::to_vec(&note) {
        let _ = fs::write_volatile(&home.join(format!("{name}{NONE}")), &text, 0o600);
    }
}

/// Errors: there could be none less than a day ago, from this mirror.
pub(super) fn refused(home: &Path, name: &str, mirror: Option<&str>) -> Result<()> {
    let Ok(text) = std::fs::read(home.join(format!("{name}{NONE}"))) else { return Ok(()) };
    let note: Option<Note> = serde_json::from_slice(&text).ok();
    let age = |note: &Note| now().checked_sub(note.when).filter(|age| *age < REFUSED);
    match note.and_then(|note| age(&note).filter(|_| note.mirror.as_deref() == mirror).map(|age| (note, age))) {
        Some((note, age)) => {
            let ago = format!("tried {} minutes ago; 'pronto prune' has it tried anew", age / 60);
            Err(Error::general(format!("{} ({ago})", note.why)))
        }
        None => Ok(()),
    }
}

/// Removes what an older version made or a killed process left, and notes; with `all` what no domain uses, too; with `dry` it only tells.
/// Returns the names of directories, and how many bytes all of it had.
pub fn prune(ctx: &Ctx, all: bool, dry: bool) -> Result<(Vec<String>, u64)> {
    let home = home(&ctx.store);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |e: std::io::Error| Error::from(crate::store::Error::io(&path)(e))
    };
    let entries = match std::fs::read_dir(&home) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        other => other.map_err(io(&home))?,
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for entry in names {
        let path = home.join(&entry);
        if entry.ends_with(NONE) {
            if !dry {
                fs::remove_file(&path).map_err(io(&path))?;
            }
            continue;
        }
        let half_made = entry.strip_prefix('.').and_then(|name| name.strip_suffix(".new"));
        let name = half_made.unwrap_or(&entry);
        // Somebody works on it; or it is none of ours.
        let Ok(Some(_claim)) = layers::try_claim(&ctx.store, name) else { continue };
        if half_made.is_none() && !is_free(ctx, &path, all)? {
            continue;
        }
        bytes += clean::measure(&path).map_or(0, |(size, _)| size);
        if !dry {
            let aside = unfinished(&home, name);
            if half_made.is_none() {
                fs::remove_tree(&aside).and_then(|()| std::fs::rename(&path, &aside)).map_err(io(&path))?;
            }
            fs::remove_tree(&aside).map_err(io(&aside))?;
        }
        gone.push(if half_made.is_some() { format!("{name}, half-made") } else { name.to_owned() });
    }
    Ok((gone, bytes))
}

/// Whether nobody needs a directory. Its claim is held.
fn is_free(ctx: &Ctx, dir: &Path, all: bool) -> Result<bool> {
    let current = dir.to_string_lossy().ends_with(&fetch::ending());
    let asked = std::fs::metadata(dir.join(catalogue::FILE)).and_then(|meta| meta.modified());
    let young = asked.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < YOUNG));
    if current && (young || !all) {
        return Ok(false);
    }
    let domains = ctx.store.all_domains(|_| ())?;
    let used: BTreeSet<PathBuf> =
        domains.into_iter().filter_map(|domain| Some(domain.record.emulated?.native?.from)).collect();
    Ok(!used.contains(dir))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::Quiet;

    fn ctx() -> (tempfile::TempDir, Ctx) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(&dir.path().join("s")));
        store.open().unwrap();
        let ctx = Ctx { store, root: None, report: Arc::new(Quiet), access: crate::image::oci::Access::default() };
        (dir, ctx)
    }

    fn put(home: &Path, name: &str, asked: Duration) -> PathBuf {
        let dir = home.join(name);
        std::fs::create_dir_all(dir.join("bin")).unwrap();
        let text = serde_json::to_vec(&catalogue::Catalogue::default()).unwrap();
        fs::write_volatile(&dir.join(catalogue::FILE), &text, 0o644).unwrap();
        let file = std::fs::File::open(dir.join(catalogue::FILE)).unwrap();
        file.set_times(FileTimes::new().set_modified(SystemTime::now() - asked)).unwrap();
        dir
    }

    #[test]
    fn what_nobody_needs_goes() {
        let (_dir, ctx) = ctx();
        let home = home(&ctx.store);
        let old = Duration::from_secs(3600);
        let kept = put(&home, &format!("accel-a-arm64{}", fetch::ending()), old);
        let young = put(&home, &format!("accel-b-arm64{}", fetch::ending()), Duration::ZERO);
        let before = put(&home, "accel-c-arm64-x86_64-0", old);
        let dead = unfinished(&home, "accel-d-arm64-x86_64-3");
        std::fs::create_dir_all(dead.join("guest")).unwrap();
        let alive = unfinished(&home, "accel-e-arm64-x86_64-3");
        std::fs::create_dir_all(alive.join("guest")).unwrap();
        let claim = layers::try_claim(&ctx.store, "accel-e-arm64-x86_64-3").unwrap().unwrap();
        refuse(&home, "accel-f-arm64-x86_64-3", None, &Error::general("why"));
        let (would, bytes) = prune(&ctx, false, true).unwrap();
        assert_eq!(would, ["accel-d-arm64-x86_64-3, half-made", "accel-c-arm64-x86_64-0"]);
        assert!(bytes > 0 && before.exists() && dead.exists(), "only told");
        assert_eq!(prune(&ctx, false, false).unwrap(), (would, bytes));
        assert!(!before.exists() && !dead.exists() && alive.exists() && kept.exists() && young.exists());
        drop(claim);
        prune(&ctx, true, false).unwrap();
        assert!(!alive.exists() && !kept.exists() && young.exists());
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 1, "no note, no half of anything");
    }

    #[test]
    fn a_release_without_programs_is_remembered_for_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let told = |mirror| refused(dir.path(), "n", mirror).map_err(|error| error.to_string());
        assert!(told(None).is_ok());
        refuse(dir.path(), "n", Some("http://a"), &Error::general("no such release"));
        let why = told(Some("http://a")).unwrap_err();
        assert!(why.starts_with("no such release (tried 0 minutes ago; "), "{why}");
        assert!(told(None).is_ok() && told(Some("http://b")).is_ok(), "another mirror may have it");
        let old = Note { why: "x".into(), when: now() - REFUSED, mirror: None };
        fs::write_volatile(&dir.path().join("n.none"), &serde_json::to_vec(&old).unwrap(), 0o600).unwrap();
        assert!(told(None).is_ok());
        fs::write_volatile(&dir.path().join("n.none"), b"damaged", 0o600).unwrap();
        assert!(told(None).is_ok());
    }
}
