//! Native programs from the guest's own release: fetched once, made into a directory of the cache, shared by all domains. What a newcomer would
//! get wrong: both architectures are fetched, the guest's own too: its files are what the native ones are told apart by, so that
//! packages are native as soon as they are installed in a guest, not only when they are in its image.

use std::path::{Path, PathBuf};

use crate::accel::catalogue::Catalogue;
use crate::accel::dpkg::Package;
use crate::accel::make::{self, Release, Side};
use crate::accel::packages;
use crate::ops::provision::bootstrap::{self, Packages};
use crate::ops::{Ctx, Error, Result};
use crate::store::domains::now;
use crate::store::layers::{self, Claimed};
use crate::sys::fs;
use crate::sys::process::Tool;

/// Counts up when what is made changes in a way that its name does not show.
const RECIPE: u32 = 3;

/// A directory of native programs, and what is in it. Errors: no mmdebstrap, no mirror; a release that the mirror does not have; nothing
/// is left half-made.
pub fn obtain(ctx: &Ctx, release: &Release, mirror: Option<&str>) -> Result<(PathBuf, Catalogue)> {
    let name = format!("accel-{}-{}-{}-{RECIPE}", release.suite, release.arch, std::env::consts::ARCH);
    let home = ctx.store.cache().join("accel");
    let dir = home.join(&name);
    let there = || Ok(Catalogue::read(&dir).ok());
    let waiting = || ctx.report.note("another pronto is fetching these native programs: waiting for it");
    let claim = match layers::claim(&ctx.store, &name, there, waiting)? {
        Claimed::There(catalogue) => return Ok((dir, catalogue)),
        Claimed::Mine(claim) => claim,
    };
    let cannot = |e: std::io::Error| Error::general("cannot make the native programs").because(e);
    fs::private_dir(&home).map_err(cannot)?;
    let work = Work::begin(home.join(format!(".{name}.new"))).map_err(cannot)?;
    let work = &work.0;
    let (guest, native) = (work.join("guest"), work.join("native"));
    let fetch = |arch: &str, include: Vec<String>, into: &Path| {
        let packages = Packages { suite: &release.suite, arch, include: &include, mirror };
        bootstrap::unpack(ctx, &packages, into)
    };
    let tools = || {
        let interpreters = packages::INTERPRETERS.iter().chain(packages::PERL);
        packages::TOOLS.iter().chain(packages::PRELOADED).chain(interpreters).map(|&name| name.to_owned())
    };
    let host = bootstrap::host_architecture()?;
    fetch(&release.arch, tools().chain(packages::COMPILER.iter().map(|&n| n.to_owned())).collect(), &guest)?;
    let guest = side(guest)?;
    let major = packages::compiler(&guest.packages);
    let cross = major.map(|major| packages::cross(&release.triplet, major)).unwrap_or_default();
    fetch(&host, tools().chain(cross).collect(), &native)?;
    let native = side(native)?;
    let made = work.join("made");
    let job = make::Job { release, guest: &guest, native: &native, major, now: now() };
    let step = ctx.report.begin(&format!("making native programs for {} {}", release.suite, release.arch), None);
    let catalogue = make::make(&job, &made).map_err(cannot)?;
    step.done("");
    fs::remove_tree(&dir).and_then(|()| std::fs::rename(&made, &dir)).map_err(cannot)?;
    drop(claim);
    Ok((dir, catalogue))
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
