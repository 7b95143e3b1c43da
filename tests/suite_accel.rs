//! This host's own amd64 programs, libraries and loader, changed and run: a directory of their own, another machine's names. What a
//! newcomer would get wrong: that a changed file looks right proves nothing; the kernel and the dynamic linker must take it, and what it
//! says must be right. Needs a Debian of amd64's, where the paths are that are changed; what is missing is said, and only that left out.

#![allow(clippy::print_stderr, reason = "a test that leaves something out says so")]

use std::path::{Path, PathBuf};
use std::process::Output;

use pronto::accel::patch::{Changes, Rules, Unfit, patch};
use pronto::sys::fs::write_volatile;
use pronto::sys::process::{Tool, find_program};
use tempfile::TempDir;

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
const MULTIARCH: &str = "/usr/lib/x86_64-linux-gnu/";

/// The files that are needed. What is missing is said.
fn there(test: &str, files: &[&str]) -> bool {
    let missing: Vec<&&str> = files.iter().filter(|f| !Path::new(f).exists()).collect();
    if !missing.is_empty() {
        eprintln!("{test}: not tested, for it needs a Debian of amd64's with {missing:?}");
    }
    missing.is_empty()
}

/// A directory with a loader and libraries of its own.
struct Private {
    dir: TempDir,
    /// Old and new texts of equal length.
    rules: Vec<(&'static str, String)>,
    machine: Option<&'static str>,
}

impl Private {
    /// With the host's loader. Its name is short, since the new paths must not be longer than the old.
    fn new(machine: Option<&'static str>) -> Private {
        let dir = tempfile::Builder::new().prefix("p").rand_bytes(5).tempdir_in("/tmp").unwrap();
        let at = dir.path().to_str().unwrap();
        let padded = |old: &str, new: String, with: &str| {
            assert!(new.len() <= old.len(), "{new} is longer than {old}");
            let missing = old.len() - new.len();
            new + &with.repeat(missing)
        };
        let rules = [
            ("/lib/x86_64-linux-gnu/", format!("{at}/l/"), "/"),
            (MULTIARCH, format!("{at}/l/"), "/"),
            ("/etc/ld.so.cache", format!("{at}/c"), "c"),
            ("/etc/ld.so.preload", format!("{at}/p"), "p"),
        ];
        let rules = rules.map(|(old, new, with)| (old, padded(old, new, with))).into();
        let private = Private { dir, rules, machine };
        std::fs::create_dir(private.path("l")).unwrap();
        let changes = private.put(Path::new(LOADER), "ld.so", &Rules::default());
        assert!(changes.prefixes.iter().all(|n| *n > 0), "{changes:?}");
        private
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A changed copy under a name; the paths are changed in each.
    fn put(&self, from: &Path, name: &str, rules: &Rules<'_>) -> Changes {
        let prefixes: Vec<(&str, &str)> = self.rules.iter().map(|(old, new)| (*old, new.as_str())).collect();
        let done = patch(&std::fs::read(from).unwrap(), &Rules { prefixes: &prefixes, ..*rules });
        let done = done.unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        write_volatile(&self.path(name), &done.bytes, 0o755).unwrap();
        done.changes
    }

    /// A program with all libraries that it needs; what it is told beside its loader.
    fn program(&self, from: &str, strings: &[(&str, &str)]) -> PathBuf {
        let list = String::from_utf8(Tool::new(LOADER).args(["--list", from]).output().unwrap()).unwrap();
        for line in list.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, "=>", path, ..] = words[..] else { continue };
            if !name.starts_with("ld-linux") && !self.path("l").join(name).exists() {
                let machine = self.machine.filter(|_| name == "libc.so.6");
                self.put(Path::new(path), &format!("l/{name}"), &Rules { machine, ..Rules::default() });
            }
        }
        std::fs::copy(self.path("ld.so"), self.path("l/ld-linux-x86-64.so.2")).unwrap();
        let loader = self.path("ld.so");
        let name = Path::new(from).file_name().unwrap().to_str().unwrap();
        let rules = Rules { interpreter: loader.to_str(), strings, ..Rules::default() };
        let changes = self.put(Path::new(from), name, &rules);
        assert!(changes.interpreter && changes.strings.len() == strings.len(), "{changes:?}");
        self.path(name)
    }

    /// All that is mapped from files is of this directory.
    fn all_ours(&self, maps: &str) {
        let files: Vec<&str> = maps.lines().filter_map(|l| l.find('/').map(|at| &l[at..])).collect();
        assert!(files.iter().any(|f| f.ends_with("libc.so.6")), "{maps}");
        assert!(files.iter().all(|f| Path::new(f).starts_with(self.dir.path())), "{maps}");
    }
}

fn run(program: &Path, words: &[&str]) -> Output {
    let mut tool = Tool::new(program).args(words);
    tool.command().env_clear().env("LC_ALL", "C").output().unwrap()
}

/// What it writes, when it ends well and complains of nothing.
#[track_caller]
fn said(program: &Path, words: &[&str]) -> String {
    let out = run(program, words);
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn programs_run_from_a_directory_of_their_own() {
    if !there("programs_run_from_a_directory_of_their_own", &[LOADER, MULTIARCH, "/bin/dash", "/bin/sed"]) {
        return;
    }
    let private = Private::new(None);
    let sed = private.program("/bin/sed", &[]);
    private.all_ours(&said(&sed, &["", "/proc/self/maps"]));
    assert_eq!(said(&sed, &["-n", "s/root:\\(x\\).*/\\1/p", "/etc/passwd"]), "x\n");
    let dash = private.program("/bin/dash", &[]);
    private.all_ours(&said(&dash, &["-c", "while read -r line; do echo \"$line\"; done </proc/self/maps"]));
    assert_eq!(said(&dash, &["-c", "x=$(echo a | cat); echo $x$((6 * 7))"]), "a42\n");
    // Without its own libraries it finds no others.
    std::fs::remove_file(private.path("l/libc.so.6")).unwrap();
    let out = run(&dash, &["-c", "echo alive"]);
    assert!(!out.status.success() && out.stdout.is_empty(), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("libc.so.6"), "{out:?}");
}

#[test]
fn the_loader_obeys_no_ld_library_path() {
    if !there("the_loader_obeys_no_ld_library_path", &[LOADER, MULTIARCH, "/bin/sed"]) {
        return;
    }
    let private = Private::new(None);
    let sed = private.program("/bin/sed", &[]);
    // A file of that name that is no library: the loader that finds it gives up.
    std::fs::create_dir(private.path("other")).unwrap();
    write_volatile(&private.path("other/libc.so.6"), b"", 0o755).unwrap();
    let with = |words: &[&str]| {
        let mut tool = Tool::new(&sed).args(words);
        tool.command().env("LD_LIBRARY_PATH", private.path("other")).output().unwrap()
    };
    let heard = with(&["", "/proc/self/maps"]);
    assert!(String::from_utf8_lossy(&heard.stderr).contains("other/libc.so.6"), "{heard:?}");
    private.put(Path::new(LOADER), "ld.so", &Rules { deaf: true, ..Rules::default() });
    let out = with(&["", "/proc/self/maps"]);
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    private.all_ours(&String::from_utf8(out.stdout).unwrap());
    // The variable is still there, for what it starts.
    let out = with(&["s/.*LD_LIBRARY_PATH=[^\\x00]*other\\x00.*/kept/", "/proc/self/environ"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "kept");
}

#[test]
fn uname_speaks_of_another_machine() {
    if !there("uname_speaks_of_another_machine", &[LOADER, MULTIARCH, "/bin/uname", "/usr/bin/arch"]) {
        return;
    }
    for machine in ["aarch64", "armv8l", "riscv64", "a-very-long-name-of-a-machine"] {
        let private = Private::new(Some(machine));
        let uname = private.program("/bin/uname", &[]);
        assert_eq!(said(&uname, &["-m"]), format!("{machine}\n"));
        assert_eq!(said(&private.program("/usr/bin/arch", &[]), &[]), format!("{machine}\n"));
        let host = Path::new("/bin/uname");
        assert_eq!(said(&uname, &["-snrv"]), said(host, &["-snrv"]));
        assert_eq!(said(&uname, &["-a"]), said(host, &["-a"]).replace("x86_64", machine));
    }
}

/// All fields, then what a bad pointer gives, then what a second call gives.
const FIELDS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
int main(void) {
    struct { struct utsname of; char behind[8]; } it;
    memset(&it, '#', sizeof it);
    int made = uname(&it.of);
    printf("%d %.8s\n%s|%s|%s|%s|%s\n%s\n", made, it.behind, it.of.sysname, it.of.nodename, it.of.release, it.of.version, it.of.domainname, it.of.machine);
    for (int n = 0; n < 2; n++) {
        errno = 0;
        int bad = uname((struct utsname *)(n ? 8L : 0L));
        printf("%d %d\n", bad, errno == EFAULT);
    }
    return 0;
}
"#;

#[test]
fn uname_fails_as_before_and_leaves_the_rest_alone() {
    let test = "uname_fails_as_before_and_leaves_the_rest_alone";
    if !there(test, &[LOADER, MULTIARCH]) || find_program("cc").is_none() {
        eprintln!("{test}: not tested, for it needs a C compiler");
        return;
    }
    let private = Private::new(Some("aarch64"));
    let (source, built) = (private.path("fields.c"), private.path("built"));
    write_volatile(&source, FIELDS.as_bytes(), 0o644).unwrap();
    Tool::new("cc").arg("-o").arg(&built).arg(&source).output().unwrap();
    let before = said(&built, &[]);
    std::fs::create_dir(private.path("in")).unwrap();
    std::fs::rename(&built, private.path("in/fields")).unwrap();
    let fields = private.program(private.path("in/fields").to_str().unwrap(), &[]);
    let after = said(&fields, &[]);
    assert!(before.starts_with("0 ########\nLinux|") && before.ends_with("\nx86_64\n-1 1\n-1 1\n"), "{before}");
    assert_eq!(after, before.replace("x86_64\n-1", "aarch64\n-1"));
}

#[test]
fn python_is_told_too() {
    let test = "python_is_told_too";
    let Some(python) = find_program("python3").filter(|_| there(test, &[LOADER, MULTIARCH])) else {
        eprintln!("{test}: not tested, for it needs python3");
        return;
    };
    let where_from = "import os, sys; print(os.path.realpath(sys.executable)); print(sys.base_prefix)";
    let told = String::from_utf8(Tool::new(python).args(["-c", where_from]).output().unwrap()).unwrap();
    let (program, home) = told.trim().split_once('\n').unwrap();
    let private = Private::new(Some("aarch64"));
    let copy = private.program(program, &[]);
    let tool = Tool::new(&copy).args(["-c", "import platform; print(platform.machine(), *platform.uname()[:3])"]);
    let out = tool.env("PYTHONHOME", home).output().unwrap();
    let names = said(Path::new("/bin/uname"), &["-snr"]);
    assert_eq!(String::from_utf8(out).unwrap(), format!("aarch64 {names}"));
}

#[test]
fn python_finds_its_libraries_elsewhere() {
    let test = "python_finds_its_libraries_elsewhere";
    // Debian's: others have it all in a library.
    let python = "/usr/bin/python3";
    if !there(test, &[LOADER, MULTIARCH, python]) {
        return;
    }
    let where_from = "import os, sys, _ctypes; print(os.path.realpath(sys.executable)); print(sys.base_prefix); print(os.path.dirname(_ctypes.__file__))";
    let told = String::from_utf8(Tool::new(python).args(["-c", where_from]).output().unwrap()).unwrap();
    let [program, home, from] = told.lines().collect::<Vec<_>>()[..] else { panic!("{told}") };
    let private = Private::new(None);
    private.program(program, &[]);
    let own = private.path("m");
    std::fs::create_dir(&own).unwrap();
    let entries =
        std::fs::read_dir(from).unwrap().flatten().filter(|e| e.file_name().to_string_lossy().contains(".so"));
    for library in entries.filter(|e| !e.file_name().to_string_lossy().starts_with("_ctypes.")) {
        std::fs::copy(library.path(), own.join(library.file_name())).unwrap();
    }
    let (name, loader) = (Path::new(program).file_name().unwrap().to_str().unwrap(), private.path("ld.so"));
    let rules = Rules { interpreter: loader.to_str(), modules: own.to_str(), ..Rules::default() };
    private.put(Path::new(program), name, &rules);
    let asked = "import sys, _json; print(_json.__file__)\ntry:\n import _ctypes\nexcept ImportError: print(sys.path)";
    let out = Tool::new(private.path(name)).args(["-c", asked]).env("PYTHONHOME", home).output().unwrap();
    let out = String::from_utf8(out).unwrap();
    let [json, path] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}") };
    assert!(Path::new(json).starts_with(&own) && path.contains(own.to_str().unwrap()), "{out}");
    assert!(!path.contains("lib-dynload"), "it sees no others: {out}");
}

#[test]
fn bash_and_make_name_another_machine() {
    if !there("bash_and_make_name_another_machine", &[LOADER, MULTIARCH, "/bin/bash"]) {
        return;
    }
    let private = Private::new(None);
    let names = [("x86_64", "aarch64"), ("x86_64-pc-linux-gnu", "aarch64-unknown-linux-gnu")];
    let script = ["-c", "echo $HOSTTYPE $MACHTYPE $OSTYPE $BASH_VERSION ${BASH_VERSINFO[5]}; printf '%s\\n' {a..c}"];
    let before = said(Path::new("/bin/bash"), &script);
    let bash = private.program("/bin/bash", &names);
    let wanted = before.replace("x86_64-pc-linux-gnu", "aarch64-unknown-linux-gnu").replace("x86_64", "aarch64");
    assert_eq!(said(&bash, &script), wanted);
    assert!(wanted.starts_with("aarch64 aarch64-unknown-linux-gnu linux-gnu "), "{wanted}");
    assert!(said(&bash, &["--version"]).contains("(aarch64-unknown-linux-gnu)"));
    if there("bash_and_make_name_another_machine, its half of make", &["/usr/bin/make"]) {
        let make = private.program("/usr/bin/make", &names[1..]);
        let told = said(&make, &["-v"]);
        assert!(told.contains("\nBuilt for aarch64-unknown-linux-gnu\n"), "{told}");
    }
}

#[test]
fn every_library_of_the_host_is_changed_or_refused_with_a_reason() {
    if !there("every_library_of_the_host_is_changed_or_refused_with_a_reason", &[LOADER, MULTIARCH]) {
        return;
    }
    let (mut done, mut refused) = (0, Vec::new());
    for entry in std::fs::read_dir(MULTIARCH).unwrap().flatten() {
        let path = entry.path();
        let name = path.to_string_lossy().into_owned();
        if !name.contains(".so") || path.is_symlink() || entry.metadata().unwrap().len() > 16 << 20 {
            continue;
        }
        let rules = [(MULTIARCH, "/run/accel/lib////////////")];
        let file = std::fs::read(&path).unwrap();
        match patch(&file, &Rules { prefixes: &rules, ..Rules::default() }) {
            Ok(_) => done += 1,
            // A linker script, which is text.
            Err(Unfit::Foreign) if !file.starts_with(b"\x7fELF") => {}
            Err(why) => refused.push(format!("{name}: {why}")),
        }
    }
    assert!(done > 20, "{done}");
    assert!(refused.is_empty(), "{refused:?}");
}
