//! What a directory of native programs holds, and what of it one domain gets. What a newcomer would get wrong: a program is found by the
//! *identity* of its foreign twin, not by its path; the same twin may have many names (`sh`, `dash`), and one native program may
//! stand for several twins (the version in the image and the one in the archive).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::Accel;
use crate::domain::accel::{Class, PLACE};
use crate::sys::fs;

/// The catalogue's file in the directory.
pub const FILE: &str = "catalogue.json";
/// Under this name a program is found whose own is not known.
const ANY: &str = "@";

/// What a program belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A shell, make, a small tool.
    Tool,
    /// Compiler, assembler, linker.
    Compiler,
}

/// A native program and its foreign twin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Program {
    /// Where it lies below the directory's `bin`, and the twin in the guest: `usr/bin/sed`.
    pub path: String,
    /// The guest's package that the twin is of.
    pub package: String,
    /// The native program's version, as its package has it.
    #[serde(default)]
    pub version: String,
    /// What it belongs to.
    pub kind: Kind,
    /// Further names of the twin: links to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The twin's identity ([`crate::elf::identity`]), as 16 hex digits.
    pub identity: String,
    /// For an interpreter that is native for some scripts alone: their absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<String>,
}

/// Something that stays emulated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftOut {
    /// A program or package.
    pub what: String,
    /// Why, as the end of a sentence: `its machine is compiled in`.
    pub why: String,
}

/// All that is in a directory of native programs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Catalogue {
    /// The guest's release: `bookworm`.
    pub suite: String,
    /// The guest's architecture, by Debian's name.
    pub guest: String,
    /// When it was made, in seconds since 1970.
    pub made: u64,
    /// The guest's compiler and the native one, when they are two revisions of one version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew: Option<String>,
    /// Whether the guest's compiler is built for graphics processors, which none of ours is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offload: bool,
    /// The compiler, `gcc 12.2.0`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiler: Option<String>,
    /// What it holds.
    pub programs: Vec<Program>,
    /// What it does not, and why.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// What of it did not stand its trial ([`super::trial`]), and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<LeftOut>,
    /// The paths of these programs: it holds them, and nobody gets them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unfit: BTreeSet<String>,
}

impl Catalogue {
    /// Reads a directory's catalogue. Errors: as read(2); `InvalidData` for a damaged one.
    pub fn read(dir: &Path) -> io::Result<Catalogue> {
        Ok(serde_json::from_slice(&std::fs::read(dir.join(FILE))?)?)
    }

    /// Writes it. Errors: as write(2).
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::write_atomic(&dir.join(FILE), &serde_json::to_vec(self)?, 0o644)
    }

    /// The programs that a domain gets; `exclude` names programs (the last part of their path, or a further name) and packages.
    pub fn chosen(&self, accel: Accel, exclude: &[String]) -> Vec<&Program> {
        let wanted = |program: &&Program| match program.kind {
            Kind::Tool => accel >= Accel::Tools,
            Kind::Compiler => accel >= Accel::Build,
        };
        let excluded = |program: &&Program| exclude.iter().any(|word| program.is_called(word));
        // A compiler goes as a whole: its parts hand each other files.
        let no_compiler = self.programs.iter().any(|program| program.kind == Kind::Compiler && excluded(&program));
        let stays = |program: &&Program| !(excluded(program) || no_compiler && program.kind == Kind::Compiler);
        self.programs.iter().filter(|p| !self.unfit.contains(&p.path)).filter(wanted).filter(stays).collect()
    }

    /// In what its compiler is not as the guest's.
    pub fn differences(&self) -> Differences {
        Differences { skew: self.skew.is_some(), offload: self.offload }
    }

    /// Which of these words name nothing here.
    pub fn unknown<'e>(&self, exclude: &'e [String]) -> Vec<&'e str> {
        let known = |word: &&str| {
            let here = self.programs.iter().any(|program| program.is_called(word));
            here || self.left_out.iter().any(|left| left.what == **word)
        };
        exclude.iter().map(String::as_str).filter(|word| !known(word)).collect()
    }
}

/// In what the native compiler is not as the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Differences {
    /// They are two revisions of one version.
    pub skew: bool,
    /// The guest's alone is built for graphics processors.
    pub offload: bool,
}

impl Program {
    /// Whether it does what the guest's own would do with words of this class.
    fn obeys(&self, class: Class, differences: Differences) -> bool {
        let guards = !(differences.skew && matches!(self.name(), "cc1" | "cc1plus" | "lto1"));
        match class {
            Class::Plain => true,
            Class::Own => self.kind == Kind::Tool,
            Class::Stack => guards,
            Class::Offload => guards && !(differences.offload && self.kind == Kind::Compiler),
        }
    }

    /// Whether a word of the user's means it: its name, a further one, its package's.
    fn is_called(&self, word: &str) -> bool {
        self.name() == word || self.package == word || self.names.iter().any(|name| name == word)
    }

    /// The last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// Fills the empty directory `dir` with what the interpreter looks for: `<class><identity>/<name>`, and for an
/// interpreter `i<identity><path of the script>`, links into [`PLACE`]. Errors: as symlink(2).
pub fn lay_out(dir: &Path, programs: &[&Program], differences: Differences) -> io::Result<()> {
    for program in programs.iter().filter(|program| !program.scripts.is_empty()) {
        lay_out_scripts(dir, program)?;
    }
    let whole = programs.iter().filter(|program| program.scripts.is_empty());
    let all = whole.flat_map(|program| Class::ALL.map(|class| (program, class)));
    for (program, class) in all.filter(|(program, class)| program.obeys(*class, differences)) {
        let home = dir.join(format!("{}{}", class.letter(), program.identity));
        directory(&home)?;
        let target: PathBuf = [PLACE, "bin", &program.path].iter().collect();
        let names: BTreeSet<&str> = program.names.iter().map(String::as_str).chain([program.name(), ANY]).collect();
        for name in names {
            link(&target, &home.join(name))?;
        }
    }
    Ok(())
}

/// An interpreter for its scripts alone: `i<identity><path of the script>`.
fn lay_out_scripts(dir: &Path, program: &Program) -> io::Result<()> {
    let home = dir.join(format!("i{}", program.identity));
    let target: PathBuf = [PLACE, "bin", &program.path].iter().collect();
    directory(&home)?;
    // With /usr merged a script has a second path.
    link(Path::new("usr/bin"), &home.join("bin"))?;
    for script in &program.scripts {
        let path = home.join(script.trim_start_matches('/'));
        for above in path.ancestors().skip(1).take_while(|above| *above != home) {
            directory(above)?;
        }
        link(&target, &path)?;
    }
    Ok(())
}

/// A directory that everybody may look into.
fn directory(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

fn link(target: &Path, path: &Path) -> io::Result<()> {
    match std::os::unix::fs::symlink(target, path) {
        // Two paths of the guest's with one content (hard links): the first one serves for both.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &str, package: &str, kind: Kind, names: &[&str], identity: &str) -> Program {
        let names = names.iter().map(|&n| n.to_owned()).collect();
        Program {
            path: path.into(),
            package: package.into(),
            version: "1".into(),
            kind,
            names,
            identity: identity.into(),
            scripts: Vec::new(),
        }
    }

    fn catalogue() -> Catalogue {
        let programs = vec![
            program("usr/bin/dash", "dash", Kind::Tool, &["sh"], "00000000000000aa"),
            program("usr/bin/sed", "sed", Kind::Tool, &[], "00000000000000bb"),
            program("usr/bin/x-gcc-12", "gcc-12", Kind::Compiler, &["gcc", "cc"], "00000000000000cc"),
        ];
        let left_out = vec![LeftOut { what: "perl".into(), why: "it is not tried yet".into() }];
        Catalogue { suite: "bookworm".into(), guest: "arm64".into(), programs, left_out, ..Catalogue::default() }
    }

    #[test]
    fn what_a_domain_gets() {
        let all = catalogue();
        let names = |accel, exclude: &[&str]| {
            let exclude: Vec<String> = exclude.iter().map(|&e| e.to_owned()).collect();
            all.chosen(accel, &exclude).iter().map(|p| p.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(Accel::Off, &[]), [""; 0]);
        assert_eq!(names(Accel::Tools, &[]), ["dash", "sed"]);
        assert_eq!(names(Accel::Build, &[]), ["dash", "sed", "x-gcc-12"]);
        assert_eq!(names(Accel::Build, &["sh", "gcc-12"]), ["sed"], "by another name, by the package");
        assert_eq!(all.unknown(&["sed".into(), "perl".into(), "nothing".into(), "cc".into()]), ["nothing"]);
    }

    #[test]
    fn an_interpreter_for_some_scripts() {
        let dir = tempfile::tempdir().unwrap();
        let mut perl = program("usr/bin/perl", "perl-base", Kind::Tool, &[], "00000000000000ee");
        perl.scripts = vec!["/usr/bin/dh".into(), "/usr/share/x/y/script".into()];
        let all = Catalogue { programs: vec![perl], ..catalogue() };
        for _ in 0..2 {
            // An image may have two builds of one program.
            lay_out(dir.path(), &all.chosen(Accel::Tools, &[]), Differences::default()).unwrap();
        }
        let entries: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(entries, ["i00000000000000ee"], "for nothing else");
        let home = dir.path().join("i00000000000000ee");
        for script in ["usr/bin/dh", "usr/share/x/y/script", "bin/dh"] {
            let target = std::fs::read_link(home.join(script)).unwrap();
            assert_eq!(target, Path::new("/run/accel/bin/usr/bin/perl"), "{script}");
        }
        let mode = |path: &str| std::fs::metadata(home.join(path)).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode("usr/share/x")) & 0o777, 0o755);
        assert!(all.chosen(Accel::Build, &["perl".into()]).is_empty());
        assert!(all.unknown(&["perl".into()]).is_empty());
    }

    #[test]
    fn what_the_interpreter_finds() {
        let dir = tempfile::tempdir().unwrap();
        let all = catalogue();
        lay_out(dir.path(), &all.chosen(Accel::Tools, &[]), Differences::default()).unwrap();
        lay_out(dir.path(), &all.chosen(Accel::Tools, &[]), Differences { skew: true, offload: true }).unwrap();
        let target = |path: &str| std::fs::read_link(dir.path().join(path)).unwrap();
        for name in ["dash", "sh", "@"] {
            assert_eq!(target(&format!("n00000000000000aa/{name}")), Path::new("/run/accel/bin/usr/bin/dash"));
        }
        assert!(!dir.path().join("n00000000000000cc").exists());
        let dir = tempfile::tempdir().unwrap();
        let mut all = catalogue();
        all.programs.push(program("usr/lib/gcc/x/12/cc1", "cpp-12", Kind::Compiler, &[], "00000000000000dd"));
        for (skew, offload) in [(false, false), (false, true), (true, false), (true, true)] {
            let dir = dir.path().join(format!("{skew}-{offload}"));
            std::fs::create_dir(&dir).unwrap();
            lay_out(&dir, &all.chosen(Accel::Build, &[]), Differences { skew, offload }).unwrap();
            let there = |class: &str, program: &str| dir.join(format!("{class}00000000000000{program}")).exists();
            assert!(there("p", "aa") && !there("p", "cc") && !there("p", "dd"), "the guest's own compiler");
            assert!(there("s", "cc") && there("n", "dd"));
            assert_eq!(there("s", "dd"), !skew);
            assert_eq!((there("o", "cc"), there("o", "dd"), there("o", "aa")), (!offload, !(skew || offload), true));
        }
        all.write(dir.path()).unwrap();
        assert_eq!(Catalogue::read(dir.path()).unwrap(), all);
    }
}
