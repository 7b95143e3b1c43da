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
/// Where packages have libraries that Perl loads.
const MODULES_OF_PERL: &[&str] = &["/perl5/", "/texinfo/"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// This machine, as a triplet.
const OURS: &str = "x86_64-linux-gnu";
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
        for native in &job.native.packages {
            if let Some(guest) = job.guest.package(&native.name) {
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
    Path::new("/").join(file.to_string_lossy().replacen(&format!("/{OURS}/"), &format!("/{triplet}/"), 1))
}

/// Libraries of a package that Perl's modules load, at the guest's paths, each with the head of the guest's own: only in that one's place
/// does it stand.
fn twins(job: &Job<'_>, (native, guest): (&Package, &Package), into: &Path) -> io::Result<()> {
    let is_module = |file: &&String| file.ends_with(".so") && MODULES_OF_PERL.iter().any(|dir| file.contains(dir));
    for file in native.files.iter().filter(is_module) {
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
    let stdlib = format!("usr/lib/{name}");
    for entry in std::fs::read_dir(job.native.tree.join(&stdlib))? {
        let data = entry?.file_name().to_string_lossy().into_owned();
        if data.starts_with("_sysconfigdata_") && data.ends_with(&format!("{OURS}.py")) {
            let own = data.replace(OURS, &job.release.triplet);
            symlink(format!("/{stdlib}/{own}"), modules.join(data))?;
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::make::{Release, Side};
    use super::*;

    /// A shared library of x86-64's.
    const OURS_SO: &[u8] = include_bytes!("../../fuzz/corpus/accel_patch/library");

    /// Writes files below a directory.
    fn tree(at: &Path, files: &[(&str, &[u8])]) -> PathBuf {
        for (file, bytes) in files {
            std::fs::create_dir_all(at.join(file).parent().unwrap()).unwrap();
            fs::write_volatile(&at.join(file), bytes, 0o644).unwrap();
        }
        at.to_owned()
    }

    fn package(name: &str, files: &[&str]) -> Package {
        Package { name: name.into(), version: "1".into(), files: files.iter().map(|&f| f.to_owned()).collect() }
    }

    fn with_job((native, guest): &(Side, Side), work: impl FnOnce(&Job<'_>)) {
        let release = Release {
            suite: "bookworm".into(),
            arch: "arm64".into(),
            triplet: "aarch64-linux-gnu".into(),
            machine: "aarch64".into(),
            is_debian: true,
        };
        work(&Job { release: &release, guest, native, major: None, now: 0 });
    }

    fn link(path: impl AsRef<Path>) -> String {
        let path = path.as_ref();
        std::fs::read_link(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).to_str().unwrap().to_owned()
    }

    #[test]
    fn perl_is_the_guests_but_for_its_libraries() {
        let dir = tempfile::tempdir().unwrap();
        let at = "usr/lib/x86_64-linux-gnu/perl/5.36.0";
        let files = [
            "Config.pm",
            "XSLoader.pm",
            "syscall.ph",
            "CORE/perl.h",
            "a.pod",
            "List/Util.pm",
            "auto/List/Util/Util.so",
        ];
        let files = files.map(|file| format!("{at}/{file}"));
        let files: Vec<(&str, &[u8])> = files.iter().map(|f| (f.as_str(), OURS_SO)).collect();
        let native = tree(&dir.path().join("native"), &files);
        symlink("5.36.0", native.join("usr/lib/x86_64-linux-gnu/perl/5.36")).unwrap();
        let sides = |tree| Side { tree, packages: Vec::new() };
        let into = dir.path().join("lib/perl");
        std::fs::create_dir(dir.path().join("lib")).unwrap();
        with_job(&(sides(native), sides(dir.path().join("none"))), |job| {
            perl(job, Path::new("usr/lib/x86_64-linux-gnu/perl"), &into).unwrap();
            perl(job, Path::new("usr/lib/x86_64-linux-gnu/perl-none"), &dir.path().join("none")).unwrap();
        });
        assert_eq!(link(into.join("5.36")), "5.36.0");
        for own in ["Config.pm", "List/Util.pm"] {
            let wanted = format!("/usr/lib/aarch64-linux-gnu/perl/5.36.0/{own}");
            assert_eq!(link(into.join("5.36.0").join(own)), wanted);
        }
        let text = std::fs::read_to_string(into.join("5.36/XSLoader.pm")).unwrap();
        assert!(text.contains("require '/usr/lib/aarch64-linux-gnu/perl/5.36.0/XSLoader.pm'"), "{text}");
        let library = std::fs::read(into.join("5.36/auto/List/Util/Util.so")).unwrap();
        assert!(library != OURS_SO && library.len() == OURS_SO.len(), "its paths are others");
        assert!(into.join("5.36/syscall.ph").is_file());
        for none in ["CORE/perl.h", "a.pod"] {
            assert!(!into.join("5.36").join(none).exists());
        }
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn modules_stand_for_those_of_their_own_build() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) =
            ("usr/lib/x86_64-linux-gnu/perl5/5.36/auto/X/X.so", "usr/lib/aarch64-linux-gnu/perl5/5.36/auto/X/X.so");
        let foreign = [7; 5000];
        let native = tree(&dir.path().join("native"), &[(ours, OURS_SO), ("usr/lib/x.so", OURS_SO)]);
        let guest = tree(&dir.path().join("guest"), &[(theirs, &foreign), ("usr/lib/x.so", &foreign)]);
        let packages = (package("x", &[ours, "usr/lib/x.so"]), package("x", &[theirs, "usr/lib/x.so"]));
        let sides = |tree, package: &Package| Side { tree, packages: vec![package.clone()] };
        with_job(&(sides(native, &packages.0), sides(guest, &packages.1)), |job| {
            twins(job, (&packages.0, &packages.1), dir.path()).unwrap();
            twins(job, (&packages.0, &package("x", &[])), &dir.path().join("none")).unwrap();
        });
        let twin = dir.path().join("twins").join(theirs);
        assert!(twin.is_file());
        assert_eq!(std::fs::read(twin.with_extension("so.head")).unwrap(), [7; 2048]);
        assert!(!dir.path().join("twins/usr/lib/x.so").exists(), "no module of Perl's");
        assert!(!dir.path().join("none").exists());
    }

    #[test]
    fn python_has_the_guests_data() {
        let dir = tempfile::tempdir().unwrap();
        let files: &[(&str, &[u8])] = &[
            ("usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so", OURS_SO),
            ("usr/lib/python3.11/_sysconfigdata__linux_x86_64-linux-gnu.py", b""),
            ("usr/lib/python3.11/os.py", b""),
        ];
        let native = tree(&dir.path().join("native"), files);
        let sides = |tree| Side { tree, packages: Vec::new() };
        with_job(&(sides(native), sides(PathBuf::new())), |job| python(job, "python3.11", dir.path()).unwrap());
        let modules = dir.path().join("py");
        assert!(modules.join("_ssl.cpython-311-x86_64-linux-gnu.so").is_file());
        assert_eq!(
            link(modules.join("_sysconfigdata__linux_x86_64-linux-gnu.py")),
            "/usr/lib/python3.11/_sysconfigdata__linux_aarch64-linux-gnu.py"
        );
        assert_eq!(std::fs::read_dir(modules).unwrap().count(), 2);
    }

    #[test]
    fn what_loads_modules_knows_the_directory() {
        for text in [ITSELF, MODULES, LOADER] {
            assert!(text.starts_with(&format!("{PLACE}/")), "{text}");
        }
        assert_eq!(ITSELF.len(), "/proc/self/exe".len());
        assert!(LOADS.contains(&format!("{PLACE}/twins")) && LOADS.contains("@TRIPLET@"));
    }
}
