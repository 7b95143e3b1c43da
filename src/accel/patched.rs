//! Native programs and libraries as they lie in the directory: they look for their loader and libraries there. What a newcomer would get wrong:
//! paths are changed in place, by others of the same length (`//` in a path means `/`), so that nothing in a file moves.

use std::io;
use std::path::{Path, PathBuf};

use super::make::{Job, directory};
use super::patch::{Rules, Toolchain, Unfit, patch};
use super::texts;
use crate::sys::fs;

/// The loader in the directory.
pub const LOADER: &str = "/run/accel/ld.so";
/// Directories that are compiled in, and what stands in their place. Of the same length each.
pub(super) const PREFIXES: &[(&str, &str)] = &[
    ("/usr/lib/x86_64-linux-gnu/", "/run/accel/lib////////////"),
    ("/lib/x86_64-linux-gnu/", "/run/accel/lib////////"),
    ("/usr/lib/x86_64-linux-gnu", "/run/accel/lib///////////"),
    ("/etc/ld.so.cache", "/run/accel/cache"),
    ("/etc/ld.so.preload", "/run/accel/preload"),
];
/// Of the loader alone: it searches the other two directories of each Linux, too, where the guest's own libraries lie. Nobody puts any there.
const ELSEWHERE: &[(&str, &str)] = &[("/usr/lib/", "/run/////"), ("/lib/", "/run/")];
/// The compiler's plugin for the linker.
pub(super) const PLUGIN: &str = "/run/accel/lib/liblto_plugin.so";
/// Where a package has its libraries.
const LIBRARIES: &[&str] = &["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// What is changed in a program besides its loader.
#[derive(Debug, Default)]
pub(super) struct With<'a> {
    /// As [`Rules::prefixes`].
    pub prefixes: &'a [(&'a str, &'a str)],
    /// As [`Rules::strings`], but a program need not hold them.
    pub strings: &'a [(&'a str, &'a str)],
    /// As [`Rules::toolchain`].
    pub toolchain: Option<Toolchain<'a>>,
    /// As [`Rules::modules`].
    pub modules: Option<&'a str>,
}

/// Puts a program in its place, patched. The inner error: why it cannot be.
pub(super) fn program(from: &Path, to: &Path, with: &With<'_>) -> io::Result<Result<(), Unfit>> {
    let bytes = std::fs::read(from)?;
    let holds =
        |text: &str| bytes.windows(text.len() + 1).any(|window| window.strip_suffix(&[0]) == Some(text.as_bytes()));
    let strings: Vec<_> = with.strings.iter().copied().filter(|(text, _)| holds(text)).collect();
    let (prefixes, modules, toolchain) = (with.prefixes, with.modules, with.toolchain);
    let rules =
        Rules { interpreter: Some(LOADER), prefixes, strings: &strings, modules, toolchain, ..Rules::default() };
    write(&bytes, to, &rules)
}

/// Puts a file in its place, patched by these rules. The inner error: why it cannot be.
pub(super) fn write(bytes: &[u8], to: &Path, rules: &Rules<'_>) -> io::Result<Result<(), Unfit>> {
    let patched = match patch(bytes, rules) {
        Ok(patched) => patched,
        Err(unfit) => return Ok(Err(unfit)),
    };
    to.parent().map(directory).transpose()?;
    fs::write_volatile(to, &patched.bytes, 0o755)?;
    Ok(Ok(()))
}

/// The loader and all libraries of this machine's packages. Errors: as of files; `InvalidData` when the loader or the C library is none
/// that is known.
pub(super) fn libraries(job: &Job<'_>, into: &Path) -> io::Result<()> {
    let lib = into.join("lib");
    directory(&lib)?;
    for from in LIBRARIES {
        let from = job.native.path(from);
        // With /usr merged they are one.
        if from.is_dir() && !from.parent().is_some_and(Path::is_symlink) {
            take(job, &from, &lib)?;
        }
    }
    let loader = lib.join("ld-linux-x86-64.so.2");
    if loader.is_symlink() || lib.join("libc.so.6").is_symlink() {
        let why = "the release's C library is older than 2.34";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    std::fs::rename(&loader, into.join("ld.so"))?;
    // Libraries name it as one that they need.
    std::os::unix::fs::symlink("../ld.so", &loader)?;
    // Programs load it by its name alone (fakeroot(1), LD_PRELOAD).
    for name in ["libfakeroot-sysv.so", "libfakeroot-tcp.so"] {
        if lib.join("libfakeroot").join(name).exists() {
            std::os::unix::fs::symlink(Path::new("libfakeroot").join(name), lib.join(name))?;
        }
    }
    Ok(())
}

/// What of a directory of libraries is not for running programs.
fn is_wanted(name: &str) -> bool {
    let path = Path::new(name);
    // A cache of character sets names its directory; without it that one is read.
    let ending = path.extension().and_then(|ending| ending.to_str());
    !matches!(ending, Some("a" | "o" | "la" | "cache"))
        && !matches!(name, "pkgconfig" | "cmake" | "girepository-1.0" | "perl" | "perl-base" | "perl5")
}

/// Takes a directory of libraries, patched; links lead where they led, among themselves.
fn take(job: &Job<'_>, from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let Some(name) = entry.file_name().to_str().filter(|name| is_wanted(name)).map(str::to_owned) else { continue };
        let target = to.join(&name);
        if kind.is_dir() {
            directory(&target)?;
            take(job, &path, &target)?;
        } else if kind.is_symlink() {
            let link = std::fs::read_link(&path)?;
            // The other of the two directories is here, too.
            let near = link
                .file_name()
                .filter(|_| link.components().count() > 1 && link.to_string_lossy().contains("x86_64-linux-gnu/"));
            let _ = std::os::unix::fs::symlink(near.map_or(link.clone(), PathBuf::from), &target);
        } else if kind.is_file() {
            library(job, &path, &target, &name)?;
        }
    }
    Ok(())
}

fn library(job: &Job<'_>, from: &Path, to: &Path, name: &str) -> io::Result<()> {
    let bytes = std::fs::read(from)?;
    if !bytes.starts_with(b"\x7fELF") {
        return fs::write_volatile(to, &bytes, 0o644);
    }
    if name.starts_with("ld-linux") {
        return loader(&bytes, to);
    }
    let c_library = name == "libc.so.6";
    let (machine, plugin) = (c_library.then_some(job.release.machine.as_str()), c_library.then_some(PLUGIN));
    let texts = texts::of_library(job, from, name)?;
    let strings: Vec<_> = texts.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let rules = Rules { prefixes: PREFIXES, strings: &strings, machine, plugin, ..Rules::default() };
    match write(&bytes, to, &rules)? {
        Ok(()) => Ok(()),
        // Without it nothing runs; another one is missed by those who need it.
        Err(unfit) if c_library => Err(invalid(name, &unfit)),
        Err(unfit) => {
            tracing::info!(library = name, "left out: {unfit}");
            Ok(())
        }
    }
}

/// The loader. One whose ear cannot be found is taken as it is: only a guest that has this machine's own libraries would notice.
fn loader(bytes: &[u8], to: &Path) -> io::Result<()> {
    let prefixes: Vec<_> = PREFIXES.iter().chain(ELSEWHERE).copied().collect();
    let rules = Rules { prefixes: &prefixes, deaf: true, ..Rules::default() };
    let done = match write(bytes, to, &rules)? {
        Err(unfit @ Unfit::Loader(_)) => {
            tracing::warn!("the loader of native programs: {unfit}");
            write(bytes, to, &Rules { deaf: false, ..rules })?
        }
        done => done,
    };
    done.map_err(|unfit| invalid("the loader", &unfit))
}

fn invalid(name: &str, unfit: &Unfit) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {unfit}"))
}
