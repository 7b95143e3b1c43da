//! Perl and Python, native for scripts that are known ([`scripts`]). What a newcomer would get wrong: only what this machine's instructions are in
//! is native. Modules, `Config.pm` and `_sysconfigdata…` are the guest's own files, so that whatever a script asks is answered as
//! ever; an interpreter sees native libraries where it looks for the guest's. Perl looks below its compiled-in directories: those lie here,
//! file by file a link to the guest's, a native library in each library's place. Python looks for libraries whose names say the
//! machine: it is given one more directory, and does not see the guest's.
//! Sources: perlrun(1), XSLoader(3perl), DynaLoader(3perl); Modules/getpath.py and Lib/sysconfig.py of Python.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::catalogue::{Catalogue, Kind, LeftOut};
use super::dpkg::Package;
use super::make::{self, Job, Names, directory};
use super::patch::Rules;
use super::patched::{self, PREFIXES, With};
use super::scripts::{self, Scripts};
use crate::domain::accel::PLACE;
use crate::sys::fs;

/// Where Python finds its own libraries.
const MODULES: &str = "/run/accel/py";
/// What Perl executes as itself, `$^X`: a link to the guest's, in the place of `/proc/self/exe`, which would be the native one.
const ITSELF: &str = "/run/accel/prl";
/// Perl's directories below [`LIBRARIES`].
const PERL: &[&str] = &["perl-base", "perl"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// How [`native.pl`](LOADS) is found.
const LOADER: &str = "/run/accel/lib/native.pl";
/// What loads the machine code of modules.
const LOADS: &str = include_str!("native.pl");

/// Adds the interpreters to the directory. Errors: as of files.
pub(super) fn make(job: &Job<'_>, names: &Names, into: &Path, all: &mut Catalogue) -> io::Result<()> {
    let triplet = &job.release.triplet;
    let mut prefixes = PREFIXES.to_vec();
    let local = format!("{:/<32}", "/run/accel/local");
    prefixes.extend([("/usr/local/lib/x86_64-linux-gnu/", local.as_str()), ("/proc/self/exe", ITSELF)]);
    let with = With { prefixes: &prefixes, ..With::default() };
    if interpreter(job, ("perl-base", "usr/bin/perl", "perl"), &with, scripts::PERL, (names, into, all))? {
        symlink("/usr/bin/perl", into.join(ITSELF.trim_start_matches("/run/accel/")))?;
        symlink(format!("/usr/local/lib/{triplet}"), into.join("local"))?;
        symlink(format!("/usr/lib/{triplet}/perl5"), into.join("lib/perl5"))?;
        fs::write_volatile(&into.join("lib/native.pl"), LOADS.replace("@TRIPLET@", triplet).as_bytes(), 0o644)?;
        for dir in PERL {
            perl(job, &Path::new(LIBRARIES).join(dir), &into.join("lib").join(dir))?;
        }
        for package in super::packages::PERL {
            if let (Some(native), Some(guest)) = (job.native.package(package), job.guest.package(package)) {
                twins(job, (native, guest), into)?;
            }
        }
    }
    let with = With { prefixes: PREFIXES, modules: Some(MODULES), ..With::default() };
    let version = |package: &Package| Some(package.name.strip_suffix("-minimal")?.to_owned());
    let is_python = |name: &String| name.starts_with("python3.");
    for name in job.native.packages.iter().filter_map(version).filter(is_python) {
        let which = (format!("{name}-minimal"), format!("usr/bin/{name}"));
        if interpreter(job, (&which.0, &which.1, "python3"), &with, scripts::PYTHON, (names, into, all))? {
            python(job, &name, into)?;
        }
    }
    Ok(())
}

/// Takes an interpreter, by its package, path and name, for its scripts. Whether it could be taken.
fn interpreter(
    job: &Job<'_>,
    (package, file, name): (&str, &str, &str),
    with: &With<'_>,
    scripts: &[Scripts],
    (names, into, all): (&Names, &Path, &mut Catalogue),
) -> io::Result<bool> {
    let (Some(native), Some(guest)) = (job.native.package(package), job.guest.package(package)) else {
        return Ok(false);
    };
    let before = all.programs.len();
    make::add(job, (Kind::Tool, with), (file, file), (native, guest), names, into, all)?;
    let Some(program) = all.programs.get_mut(before) else { return Ok(false) };
    program.scripts = scripts::paths(scripts);
    if !program.names.iter().any(|n| n == name) && program.name() != name {
        program.names.push(name.to_owned());
    }
    all.left_out.push(LeftOut { what: name.to_owned(), why: scripts::only_for(scripts) });
    Ok(true)
}

/// A directory of Perl's: libraries are this machine's, everything else is a link to the guest's at the same place. What is for compilers
/// and readers is left out.
fn perl(job: &Job<'_>, dir: &Path, into: &Path) -> io::Result<()> {
    let from = job.native.tree.join(dir);
    if !from.is_dir() {
        return Ok(());
    }
    directory(into)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, name) = (dir.join(entry.file_name()), entry.file_name());
        let (target, kind) = (into.join(&name), entry.file_type()?);
        let ending = Path::new(&name).extension().and_then(|ending| ending.to_str());
        if kind.is_dir() {
            perl(job, &path, &target)?;
        } else if kind.is_symlink() {
            symlink(std::fs::read_link(entry.path())?, target)?;
        } else if ending == Some("so") {
            library(&entry.path(), &target)?;
        } else if ending == Some("ph") {
            // Numbers of system calls.
            fs::write_volatile(&target, &std::fs::read(entry.path())?, 0o644)?;
        } else if name == "XSLoader.pm" || name == "DynaLoader.pm" {
            let own = own(&path, &job.release.triplet);
            let name = name.to_string_lossy();
            let package = name.trim_end_matches(".pm");
            let text = format!("package {package};\nrequire '{LOADER}';\nrequire '{}';\n1;\n", own.display());
            fs::write_volatile(&target, text.as_bytes(), 0o644)?;
        } else if !matches!(ending, Some("a" | "h" | "pod")) {
            symlink(own(&path, &job.release.triplet), target)?;
        }
    }
    Ok(())
}

/// The guest's path of a file of this machine's.
fn own(file: &Path, triplet: &str) -> PathBuf {
    Path::new("/").join(file.to_string_lossy().replacen("/x86_64-linux-gnu/", &format!("/{triplet}/"), 1))
}

/// Libraries of a package that Perl's modules load, at the guest's paths, each with the head of the guest's own: only in that one's place
/// does it stand.
fn twins(job: &Job<'_>, (native, guest): (&Package, &Package), into: &Path) -> io::Result<()> {
    for file in native.files.iter().filter(|file| file.ends_with(".so")) {
        let own = own(Path::new(file), &job.release.triplet);
        let own = own.strip_prefix("/").unwrap_or(&own);
        if !guest.files.iter().any(|file| Path::new(file) == own) {
            continue;
        }
        let to = into.join("twins").join(own);
        if library(&job.native.path(file), &to)? {
            let head = make::head(std::fs::File::open(job.guest.tree.join(own))?)?;
            fs::write_volatile(&to.with_extension("so.head"), &head, 0o644)?;
        }
    }
    Ok(())
}

/// Python's own libraries, and its data about the machine: the guest's, under the name that a native Python looks for.
fn python(job: &Job<'_>, name: &str, into: &Path) -> io::Result<()> {
    let modules = into.join(MODULES.trim_start_matches(PLACE).trim_start_matches('/'));
    directory(&modules)?;
    let from = job.native.tree.join(format!("usr/lib/{name}/lib-dynload"));
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        library(&entry.path(), &modules.join(entry.file_name()))?;
    }
    let data = |machine: &str| format!("_sysconfigdata__{machine}.py");
    symlink(format!("/usr/lib/{name}/{}", data(&job.release.triplet)), modules.join(data("x86_64-linux-gnu")))
}

/// Puts a library in its place. Whether it could be.
fn library(from: &Path, to: &Path) -> io::Result<bool> {
    let rules = Rules { prefixes: PREFIXES, ..Rules::default() };
    let done = patched::write(&std::fs::read(from)?, to, &rules)?;
    if let Err(unfit) = &done {
        tracing::info!(library = %to.display(), "left out: {unfit}");
    }
    Ok(done.is_ok())
}
