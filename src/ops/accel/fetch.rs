//! Native programs from the guest's own release: fetched once, made into a directory of the cache, shared by all domains. What a newcomer would
//! get wrong: both architectures are fetched, the guest's own too: its files are what the native ones are told apart by, so that
//! packages are native as soon as they are installed in a guest, not only when they are in its image.

use std::path::{Path, PathBuf};

use super::kept;
use super::probe::{Bench, probe};
use crate::accel::catalogue::Catalogue;
use crate::accel::dpkg::Package;
use crate::accel::make::{self, Release, Side};
use crate::accel::packages;
use crate::ops::provision::bootstrap::{self, Packages};
use crate::ops::{Ctx, Error, Kind, Result};
use crate::store::domains::{Emulated, now};
use crate::store::layers::{self, Claimed};
use crate::sys::process::Tool;
use crate::sys::{fail, fs};

/// Counts up when what is made changes in a way that its name does not show.
const RECIPE: u32 = 5;

/// The name of a release's directory. Another recipe's is another.
fn name_of(release: &Release) -> String {
    let Release { suite, arch, machine, .. } = release;
    format!("accel-{suite}-{arch}-{machine}{}", ending())
}

/// How the names of directories end that this program makes on this machine.
pub(super) fn ending() -> String {
    format!("-{}-{RECIPE}", std::env::consts::ARCH)
}

/// A directory of native programs, and what is in it; one that is made now is tried in a guest that is emulated like this. Errors:
/// no mmdebstrap, no mirror; a release that the mirror does not have; what went wrong with this release less than a day ago. Nothing
/// is left half-made.
pub fn obtain(ctx: &Ctx, release: &Release, mirror: Option<&str>, by: &Emulated) -> Result<(PathBuf, Catalogue)> {
    let name = name_of(release);
    let home = kept::home(&ctx.store);
    let dir = home.join(&name);
    let there = || Ok(Catalogue::read(&dir).ok());
    let waiting = || ctx.report.note("another pronto is fetching these native programs: waiting for it");
    kept::refused(&home, &name, mirror)?;
    let claim = match layers::claim(&ctx.store, &name, there, waiting)? {
        Claimed::There(catalogue) => {
            kept::in_use(&dir);
            return Ok((dir, catalogue));
        }
        Claimed::Mine(claim) => claim,
    };
    // Whom we have waited for may have failed.
    kept::refused(&home, &name, mirror)?;
    fs::private_dir(&home).map_err(cannot)?;
    let work = Work::begin(kept::unfinished(&home, &name)).map_err(cannot)?;
    let made = work.0.join("made");
    let catalogue = build(ctx, release, mirror, by, &work.0).inspect_err(|(error, lasting)| {
        if *lasting {
            kept::refuse(&home, &name, mirror, error);
        }
    });
    let catalogue = catalogue.map_err(|(error, _)| error)?;
    fs::remove_tree(&dir).and_then(|()| std::fs::rename(&made, &dir)).map_err(cannot)?;
    drop(claim);
    Ok((dir, catalogue))
}

fn cannot(e: std::io::Error) -> Error {
    Error::general("cannot make the native programs").because(e)
}

/// Fetches the packages and makes and tries the programs in `work/made`. Errors, and whether they will be the same the next time.
fn build(
    ctx: &Ctx,
    release: &Release,
    mirror: Option<&str>,
    by: &Emulated,
    work: &Path,
) -> std::result::Result<Catalogue, (Error, bool)> {
    let (guest, native) = (work.join("guest"), work.join("native"));
    let fetch = |arch: &str, include: Vec<String>, into: &Path| {
        let packages = Packages { suite: &release.suite, arch, include: &include, mirror };
        bootstrap::unpack(ctx, &packages, into).map_err(|error| {
            let lasting = lacks_packages(&error.in_short());
            (error, lasting)
        })
    };
    let passing = |error: Error| (error, false);
    let tools = || {
        let interpreters = packages::INTERPRETERS.iter().chain(packages::PERL);
        packages::TOOLS.iter().chain(packages::PRELOADED).chain(interpreters).map(|&name| name.to_owned())
    };
    let host = bootstrap::host_architecture().map_err(passing)?;
    let more = packages::COMPILER.iter().map(|&n| n.to_owned());
    fetch(&release.arch, tools().chain(more).collect(), &guest)?;
    let guest = side(guest).map_err(passing)?;
    let major = packages::compiler(&guest.packages);
    let cross = major.map(|major| packages::cross(&release.triplet, major)).unwrap_or_default();
    fetch(&host, tools().chain(cross).collect(), &native)?;
    let native = side(native).map_err(passing)?;
    let made = work.join("made");
    let job = make::Job { release, guest: &guest, native: &native, major, now: now() };
    let step = ctx.report.begin(&format!("making native programs for {} {}", release.suite, release.arch), None);
    // A full disk is not the release's fault; a file that is not as it must be is.
    let of_files = |e: std::io::Error| {
        let lasting = e.kind() == std::io::ErrorKind::InvalidData;
        (cannot(e), lasting)
    };
    let mut catalogue = make::make(&job, &made).map_err(of_files)?;
    step.done("");
    fail::spoil(&made).map_err(of_files)?;
    let bench = Bench { by, guest: &guest.tree, made: &made, work: &work.join("probe") };
    probe(ctx, &bench, &mut catalogue).map_err(|error| {
        let lasting = !matches!(error.kind(), Kind::Interrupted(_));
        (error, lasting)
    })?;
    catalogue.write(&made).map_err(of_files)?;
    Ok(catalogue)
}

/// Whether a mirror was reached and has not got what is needed, by what apt says.
fn lacks_packages(text: &str) -> bool {
    ["Unable to locate package", "no installation candidate", "unmet dependencies"]
        .iter()
        .any(|said| text.contains(said))
}

/// What the packages are that were unpacked in `tree`, by the archives that apt has left there.
fn side(tree: PathBuf) -> Result<Side> {
    let cannot =
        |e: &dyn std::fmt::Display| Error::general("cannot read the packages that were fetched").because(e.to_string());
    let archives = std::fs::read_dir(tree.join("var/cache/apt/archives")).map_err(|e| cannot(&e))?;
    let mut packages = Vec::new();
    for archive in
        archives.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "deb"))
    {
        let ask = |words: &[&str], fields: &[&str]| {
            let said = Tool::new("dpkg-deb").env("LC_ALL", "C").args(words).arg(&archive).args(fields).output();
            said.map(|said| String::from_utf8_lossy(&said).into_owned()).map_err(|e| cannot(&e))
        };
        packages.extend(Package::parse(&ask(&["--field"], &["Package", "Version"])?, &ask(&["--contents"], &[])?));
    }
    Ok(Side { tree, packages })
}

/// A directory that goes when the work is done, or has failed; what a killed process left is removed first.
struct Work(PathBuf);

impl Work {
    fn begin(path: PathBuf) -> std::io::Result<Work> {
        fs::remove_tree(&path)?;
        std::fs::create_dir(&path)?;
        Ok(Work(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_tree(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_that_lacks_packages_is_no_broken_network() {
        assert!(lacks_packages("mmdebstrap cannot make x: E: Unable to locate package ninja-build"));
        assert!(!lacks_packages("mmdebstrap cannot make x: E: Failed to fetch http://x  Could not connect"));
    }

    #[test]
    fn no_half_of_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".accel-x.new");
        // As a killed process leaves it.
        std::fs::create_dir_all(path.join("guest/usr")).unwrap();
        let work = Work::begin(path.clone()).unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        std::fs::create_dir(path.join("native")).unwrap();
        drop(work);
        assert!(!path.exists());
    }
}
