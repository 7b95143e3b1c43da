//! What a tree really holds, read from its files without running any of them: architecture, init, versions of what decides
//! whether it boots. What a newcomer would get wrong: labels lie and `uname` knows nothing of it; the ELF headers of
//! `/sbin/init`, `/bin/sh` and their loader decide, found through links that are resolved *inside* the tree.

mod check;
mod idle;
mod os_release;
mod units;
mod versions;

pub use check::check;
pub use idle::{Idle, idle};
pub use os_release::OsRelease;
pub use units::Need;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Result};
use crate::arch::{Model, Profiles};
use crate::backend::nspawn::emulation;
use crate::domain::InitKind;
use crate::elf;
use crate::sys::root::Root;

/// 32-bit ARM files are read whole up to this size, since their attributes stand at the end, and files whose beginning is not enough.
const WHOLE: u64 = 8 << 20;

/// What a tree holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Name of the architecture's profile; `None` when nothing was found that says one, or no profile describes it.
    pub profile: Option<String>,
    /// What would run as PID 1.
    pub init: Option<Init>,
    /// systemd's major version.
    pub systemd: Option<u32>,
    /// glibc's version, as (2, 36).
    pub glibc: Option<(u32, u32)>,
    /// What it calls itself.
    pub os_release: Option<OsRelease>,
    /// Whether it is an operating system at all: it has an os-release file, an init or a shell. `run` needs none of them.
    pub has_os: bool,
    /// The files that were read.
    pub files: Vec<Found>,
    /// Services that need namespaces of their own; looked for in foreign trees, whose emulator cannot give them.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// When directories that the emulation layer has, too, were last changed: path, seconds, nanoseconds. Looked for in foreign trees.
    #[serde(default)]
    pub changed: Vec<(String, i64, i64)>,
    /// A program whose loader is not in the tree, and that loader.
    pub missing_loader: Option<(String, String)>,
}

/// PID 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Its absolute path in the tree.
    pub path: PathBuf,
    /// What it is.
    pub kind: InitKind,
}

/// One ELF file of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The path it was asked for by, in the tree.
    pub path: String,
    /// Name of its architecture's profile, if one describes it.
    pub profile: Option<String>,
    /// Its header.
    pub header: elf::Header,
}

impl Facts {
    /// The CPU model that the tree was built for, where the architecture knows several (32-bit ARM: the greatest demand of
    /// the files read).
    pub fn model<'a>(&self, profiles: &'a Profiles) -> Option<&'a Model> {
        let profile = profiles.find(self.profile.as_deref()?).ok()?;
        let tags = self.files.iter().filter_map(|f| f.header.arm?.cpu_arch);
        profile.model(tags.max())
    }
}

/// Reads a tree. Errors: it cannot be read, a file in it is damaged, or its files are of two architectures (both are named).
pub fn tree(root: &Root, profiles: &Profiles) -> Result<Facts> {
    let init = find_init(root);
    let mut facts = Facts { init, ..Facts::default() };
    let programs = facts.init.iter().map(|i| i.path.to_string_lossy().into_owned()).chain(["/bin/sh".to_owned()]);
    for path in programs.collect::<Vec<_>>() {
        let Some(found) = file(root, &path, profiles)? else { continue };
        if let Some(loader) = found.header.interpreter.clone() {
            match file(root, &loader, profiles)? {
                Some(loader) => facts.add(loader)?,
                None => facts.missing_loader = facts.missing_loader.or(Some((path.clone(), loader))),
            }
        }
        facts.add(found)?;
    }
    facts.profile = facts.files.first().and_then(|f| f.profile.clone());
    facts.os_release = os_release::read(root);
    facts.has_os = facts.os_release.is_some() || facts.init.is_some() || root.exists("/bin/sh");
    facts.systemd = versions::systemd(root);
    if facts.systemd.is_some() && facts.profile != profiles.by_uname(std::env::consts::ARCH).map(|p| p.name.clone()) {
        facts.needs = units::needs(root);
        facts.changed = changed(root, &emulation::DIRECTORIES);
    }
    facts.glibc = versions::glibc(root, facts.files.first().map(|f| &f.header));
    Ok(facts)
}

fn changed(root: &Root, paths: &[&str]) -> Vec<(String, i64, i64)> {
    let stat = |path: &&str| root.stat(Path::new(path)).ok().map(|s| ((*path).to_owned(), s.st_mtime, s.st_mtime_nsec));
    paths.iter().filter_map(stat).collect()
}

impl Facts {
    /// Adds a file, unless it contradicts the ones before.
    fn add(&mut self, found: Found) -> Result<()> {
        if let Some(other) = self.files.iter().find(|other| !same(other, &found)) {
            return Err(Error::general(format!(
                "the image holds programs of two architectures: {} is {}, but {} is {}",
                shown(&other.path),
                described(other),
                shown(&found.path),
                described(&found)
            ))
            .hint("take another image, or unpack this one afresh into an empty directory"));
        }
        if !self.files.iter().any(|f| f.path == found.path) {
            self.files.push(found);
        }
        Ok(())
    }
}

fn same(one: &Found, two: &Found) -> bool {
    let (class, data, machine, _) = one.header.ident();
    let (class2, data2, machine2, _) = two.header.ident();
    one.profile == two.profile && (class, data, machine) == (class2, data2, machine2)
}

/// Reads one file of the tree; `None` when it is missing or no ELF file (a script). Errors: it cannot be read or is damaged.
pub fn file(root: &Root, path: &str, profiles: &Profiles) -> Result<Option<Found>> {
    let failed =
        |e: io::Error| Error::general(format!("cannot read {} in {}", shown(path), root.origin().display())).because(e);
    let mut bytes = match root.read(path, elf::PREFIX) {
        Ok(bytes) => bytes,
        Err(e) if is_absent(&e) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    const EM_ARM: u8 = 40;
    // Linkers for MIPS put the loader's name behind the code.
    let too_short = bytes.len() as u64 == elf::PREFIX && matches!(elf::parse(&bytes), Err(elf::Error::Damaged(_)));
    if elf::is_elf(&bytes) && (bytes.get(18) == Some(&EM_ARM) || too_short) {
        bytes = root.read(path, WHOLE).map_err(failed)?;
    }
    match elf::parse(&bytes) {
        Err(elf::Error::NotElf) => Ok(None),
        Err(error) => Err(Error::general(format!("{} in {}", shown(path), root.origin().display())).because(error)),
        Ok(header) => {
            let (class, data, machine, flags) = header.ident();
            let profile = profiles.by_elf(class, data, machine, flags).map(|p| p.name.clone());
            Ok(Some(Found { path: path.to_owned(), profile, header }))
        }
    }
}

/// Not there, behind a file that is no directory, a link to nowhere or in a circle, or no regular file.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EINVAL | libc::ENXIO))
}

/// systemd under its own name comes first: `/sbin/init` may be missing although it is installed (Debian: systemd-sysv).
fn find_init(root: &Root) -> Option<Init> {
    let candidates =
        ["/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/usr/sbin/init", "/etc/init", "/init"];
    let path = candidates.into_iter().find(|path| root.open_file(path).is_ok())?;
    Some(Init { path: PathBuf::from(path), kind: init_kind(root, path) })
}

fn init_kind(root: &Root, path: &str) -> InitKind {
    // Two steps are enough: Alpine's is one link, alternatives' are two.
    let mut name = path.to_owned();
    for _ in 0..4 {
        let Ok(target) = root.read_link(&name) else { break };
        name = Path::new(&name).parent().unwrap_or(Path::new("/")).join(target).to_string_lossy().into_owned();
    }
    let last = Path::new(&name).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match last.as_str() {
        "systemd" => InitKind::Systemd,
        "openrc-init" => InitKind::OpenRc,
        "busybox" => InitKind::Busybox,
        _ if root.exists("/etc/inittab") => InitKind::SysV,
        _ => InitKind::Other,
    }
}

/// A path of the tree as it may be shown.
fn shown(path: &str) -> String {
    path.escape_debug().to_string()
}

/// `arm64`, or what is known of an architecture without a profile.
fn described(found: &Found) -> String {
    found.profile.clone().unwrap_or_else(|| found.header.to_string())
}

#[cfg(test)]
mod tests;
