//! Making the directory of native programs out of two trees of packages. What a newcomer would get wrong: the packages are unpacked and were never
//! configured, so what their scripts would make (alternatives, caches) is not there; and nothing is taken that has no twin in the
//! guest's packages at the same path.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::catalogue::{Catalogue, Kind, LeftOut, Program};
use super::dpkg::Package;
use super::{compiler, interpreters, packages, patched, texts};
use crate::elf::identity;

/// A release of Debian's or of a derivative's, for an architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its codename: `bookworm`.
    pub suite: String,
    /// The guest's architecture, by Debian's name.
    pub arch: String,
    /// The same as a triplet: `aarch64-linux-gnu`.
    pub triplet: String,
    /// What uname(2) shall say.
    pub machine: String,
    /// Whether it is Debian itself.
    pub is_debian: bool,
}

/// What is to be made of what.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// For which guests.
    pub release: &'a Release,
    /// The guest's packages.
    pub guest: &'a Side,
    /// This machine's.
    pub native: &'a Side,
    /// gcc's major version, where there is a cross compiler.
    pub major: Option<u32>,
    /// Now, in seconds since 1970.
    pub now: u64,
}

/// The packages of one architecture, unpacked.
#[derive(Debug)]
pub struct Side {
    /// Where.
    pub tree: PathBuf,
    /// Which.
    pub packages: Vec<Package>,
}

impl Side {
    pub(super) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// The host's path of a file of these packages; links in the tree are not followed but for those that merge /usr.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.tree.join(file)
    }
}

/// Makes the directory `into`. Errors: as of files; `InvalidData` for a program that cannot be patched and without which nothing works.
pub fn make(job: &Job<'_>, into: &Path) -> io::Result<Catalogue> {
    directory(into)?;
    directory(&into.join("x"))?;
    patched::libraries(job, into)?;
    let names = names(job.guest);
    let Release { suite, arch, .. } = job.release.clone();
    let mut all = Catalogue { suite, guest: arch, made: job.now, ..Catalogue::default() };
    for name in packages::TOOLS.iter().chain(packages::BROUGHT) {
        if let (Some(native), Some(guest)) = (job.native.package(name), job.guest.package(name)) {
            tools(job, (native, guest), &names, into, &mut all)?;
        }
    }
    interpreters::make(job, &names, into, &mut all)?;
    if let Some(major) = job.major {
        compiler::make(job, major, &names, into, &mut all)?;
    }
    all.programs.sort();
    all.left_out.sort();
    all.left_out.dedup();
    all.write(into)?;
    Ok(all)
}

/// A directory that everybody may look into, with those above it below `/`.
pub(super) fn directory(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

fn tools(
    job: &Job<'_>,
    (native, guest): (&Package, &Package),
    names: &Names,
    into: &Path,
    all: &mut Catalogue,
) -> io::Result<()> {
    let name = native.name.as_str();
    let there: BTreeSet<&str> = guest.files.iter().map(String::as_str).collect();
    let considered = |file: &&String| packages::is_considered(name, file.rsplit('/').next().unwrap_or(file));
    let programs = native.files.iter().filter(|file| is_program(file) && there.contains(file.as_str()));
    for file in programs.filter(considered) {
        let texts = texts::of(job, native, file)?;
        let strings: Vec<_> = texts.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
        let with = patched::With { prefixes: patched::PREFIXES, strings: &strings, ..patched::With::default() };
        add(job, (Kind::Tool, &with), (file, file), (native, guest), names, into, all)?;
    }
    Ok(())
}

/// Takes one program, if it may be native: `files` are its paths in the native and in the guest's tree.
pub(super) fn add(
    job: &Job<'_>,
    (kind, with): (Kind, &patched::With<'_>),
    files: (&str, &str),
    (native, guest): (&Package, &Package),
    names: &Names,
    into: &Path,
    all: &mut Catalogue,
) -> io::Result<()> {
    let (ours, twin) = (job.native.path(files.0), job.guest.path(files.1));
    let (Ok(meta), Ok(_)) = (std::fs::symlink_metadata(&twin), std::fs::symlink_metadata(&ours)) else { return Ok(()) };
    if !meta.is_file() || meta.mode() & 0o111 == 0 {
        return Ok(());
    }
    let head = head(std::fs::File::open(&twin)?)?;
    if !head.starts_with(b"\x7fELF") {
        return Ok(());
    }
    let name = files.1.rsplit('/').next().unwrap_or(files.1);
    let mut leave = |why: String| all.left_out.push(LeftOut { what: name.to_owned(), why });
    if let Some(why) = packages::never(name, meta.mode()) {
        leave(why.to_owned());
        return Ok(());
    }
    let Some(identity) = identity::text(&head) else {
        leave("nothing tells the guest's own from others".into());
        return Ok(());
    };
    let to = into.join("bin").join(files.1);
    if let Err(why) = patched::program(&ours, &to, with)? {
        leave(why.to_string());
        return Ok(());
    }
    all.programs.push(Program {
        path: files.1.to_owned(),
        package: guest.name.clone(),
        version: native.version.clone(),
        kind,
        names: names.of(files.1),
        identity,
        scripts: Vec::new(),
    });
    Ok(())
}

/// Whether a file lies where programs are looked for.
fn is_program(file: &str) -> bool {
    let dir = file.rsplit_once('/').map_or("", |(dir, _)| dir);
    matches!(dir, "bin" | "sbin" | "usr/bin" | "usr/sbin" | "usr/lib/git-core")
}

/// The first bytes of a file, which have its identity. Errors: as read(2).
pub fn head(file: impl io::Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(identity::HEAD);
    file.take(identity::HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Under which further names the guest's programs are called: by links in its packages, and by what its alternatives usually lead to.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, BTreeSet<String>>);

impl Names {
    /// Of the program at `file`.
    fn of(&self, file: &str) -> Vec<String> {
        let own = file.rsplit('/').next().unwrap_or(file);
        let mut names = self.0.get(merged(file)).cloned().unwrap_or_default();
        names.extend(ALTERNATIVES.iter().filter(|(program, _)| *program == own).map(|(_, name)| (*name).to_owned()));
        names.remove(own);
        names.into_iter().collect()
    }
}

/// Names that update-alternatives(1) makes, and diversions.
pub const ALTERNATIVES: &[(&str, &str)] =
    &[("dash", "sh"), ("gawk", "awk"), ("gawk", "nawk"), ("mawk", "awk"), ("mawk", "nawk")];

/// A path with /usr merged: `bin/sed` and `usr/bin/sed` are one.
fn merged(file: &str) -> &str {
    file.strip_prefix("usr/").unwrap_or(file)
}

/// Follows the links among the programs of a side's packages.
fn names(side: &Side) -> Names {
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    for file in side.packages.iter().flat_map(|package| &package.files).filter(|file| is_program(file)) {
        let Ok(target) = std::fs::read_link(side.path(file)) else { continue };
        let Some(target) = target.to_str() else { continue };
        let dir = file.rsplit_once('/').map_or("", |(dir, _)| dir);
        let target =
            if target.starts_with('/') { target.trim_start_matches('/').into() } else { format!("{dir}/{target}") };
        links.insert(merged(file).to_owned(), merged(&target).to_owned());
    }
    let mut names = Names::default();
    for link in links.keys() {
        let mut at = link;
        // No chain is longer than that, unless it is a loop.
        for _ in 0..8 {
            match links.get(at) {
                Some(next) => at = next,
                None => break,
            }
        }
        let name = link.rsplit('/').next().unwrap_or(link).to_owned();
        names.0.entry(at.clone()).or_default().insert(name);
    }
    names
}
