//! Whether native programs do what the guest's own do: what is tried, and what is concluded from it. Pure. What a newcomer would get
//! wrong: nothing is compared with what *ought* to come out. The same commands run twice in the same tree, once emulated and once
//! with native programs, and the two must agree; so the trial needs no knowledge of releases and versions.

use std::collections::BTreeMap;

use super::catalogue::{Catalogue, Kind, LeftOut, Program};
use crate::elf;

/// What is at fault when the two do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The program of this name.
    One(&'static str),
    /// The compiler with assembler and linker: its parts hand each other files.
    Compiler,
    /// All tools: what they have in common is wrong.
    Tools,
}

/// A command that is run both ways.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// What people call it.
    pub name: &'static str,
    /// What the shell runs, in a directory that has the files of [`SOURCES`].
    pub command: &'static str,
    /// What goes if the two differ.
    pub blame: Blame,
    /// The ELF file that it makes; what it prints is compared in any case.
    pub makes: Option<&'static str>,
}

const fn says(name: &'static str, command: &'static str, blame: Blame) -> Check {
    Check { name, command, blame, makes: None }
}

const fn makes(name: &'static str, command: &'static str, file: &'static str) -> Check {
    Check { name, command, blame: Blame::Compiler, makes: Some(file) }
}

/// What root runs: names of the machine, and the compiler. Object files are made and linked apart, since some releases' compilers write
/// down in the debug information what the linker was told.
pub const CHECKS: &[Check] = &[
    says("uname -m", "uname -m", Blame::One("uname")),
    says("arch", "arch", Blame::One("arch")),
    says("bash's HOSTTYPE and MACHTYPE", "bash -c 'echo $HOSTTYPE $MACHTYPE'", Blame::One("bash")),
    says("make's MAKE_HOST", "printf '$(info $(MAKE_HOST))\\nall:;\\n' | make -sf -", Blame::One("make")),
    says(
        "pkgconf's directories",
        "pkgconf --variable pc_path pkg-config; pkgconf --dump-personality",
        Blame::One("pkgconf"),
    ),
    says("dpkg-deb's machine", "dpkg-deb --version | sed q", Blame::One("dpkg-deb")),
    says(
        "cmake's place",
        "printf 'message(\"${CMAKE_COMMAND} ${CMAKE_ROOT}\")' >c.cmake; cmake -P c.cmake",
        Blame::One("cmake"),
    ),
    says("gcc -dumpmachine", "gcc -dumpmachine", Blame::Compiler),
    makes("a C object", "gcc -g -O2 -c c.c -o c.o", "c.o"),
    makes("a guarded C object", "gcc -O2 -fstack-protector-strong -c c.c -o guarded.o", "guarded.o"),
    makes("a C program", "gcc c.o -lm -o c", "c"),
    makes("a shared library", "gcc -O2 -fPIC -shared c.c -o c.so", "c.so"),
    makes("a static program", "gcc -static c.o -lm -o static", "static"),
    makes("a program of -flto", "gcc -O2 -flto c.c -lm -o lto", "lto"),
    makes("a C++ object", "g++ -g -O2 -c d.cc -o d.o", "d.o"),
    makes("a C++ program", "g++ d.o -o d", "d"),
];

/// What an ordinary user runs in addition: fakeroot without its script, of which not all packages are at hand.
pub const AS_USER: &[Check] = &[says(
    "fakeroot",
    "key=$(faked-sysv); export FAKEROOTKEY=${key%%:*}; \
     lib=$(echo /usr/lib/*/libfakeroot); export LD_LIBRARY_PATH=$lib LD_PRELOAD=libfakeroot-sysv.so; \
     touch f; chown 5:6 f; id -u; stat -c %u:%g f; ls -ln f | cut -c1-12; unset LD_PRELOAD; kill ${key##*:}",
    Blame::Tools,
)];

/// The files that the commands find.
pub const SOURCES: &[(&str, &str)] = &[
    (
        "c.c",
        "#include <math.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
         struct pair { char name[24]; double value; };\n\
         static int by_name(const void *a, const void *b) { return strcmp(((const struct pair *)a)->name, ((const struct pair *)b)->name); }\n\
         double sum(struct pair *all, int n) { double s = 0; for (int i = 0; i < n; i++) { char b[64]; snprintf(b, sizeof b, \"%s!\", all[i].name); s += sqrt(all[i].value) * b[0]; } qsort(all, n, sizeof *all, by_name); return s; }\n\
         int main(int n, char **words) { struct pair all[] = { { \"b\", n }, { \"a\", 2.5 } }; printf(\"%s %.3f %s\\n\", __FILE__, sum(all, 2), all[0].name); return words[0] == 0; }\n",
    ),
    (
        "d.cc",
        "#include <cstdio>\n#include <stdexcept>\n#include <string>\n#include <vector>\n\
         struct Base { virtual ~Base() {} virtual int weight() const = 0; };\n\
         template <int N> struct Leaf : Base { int weight() const override { if (N > 2) throw std::runtime_error(\"too heavy\"); return N; } };\n\
         int main() { std::vector<Base *> all { new Leaf<1>, new Leaf<3> }; std::string said; try { for (auto one : all) said += std::to_string(one->weight()); } catch (const std::exception &e) { said += e.what(); } std::puts(said.c_str()); return 0; }\n",
    ),
];

/// What the shell is given to run these: each prints into a file of its number, and its status is noted.
pub fn script(checks: &[Check]) -> String {
    let one =
        |(n, check): (usize, &Check)| format!("({}) </dev/null >said.{n} 2>&1; echo $? >status.{n}\n", check.command);
    std::iter::once("exec >/dev/null 2>&1\n".to_owned()).chain(checks.iter().enumerate().map(one)).collect()
}

/// What came of one command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Came {
    /// Its status as the shell wrote it; `None` when it did not get so far.
    pub status: Option<String>,
    /// What it printed.
    pub said: Vec<u8>,
    /// The file that it made.
    pub made: Vec<u8>,
}

/// What is wrong with a check, the end of a sentence; `None`: the two agree.
pub fn judge(check: &Check, emulated: &Came, native: &Came) -> Option<String> {
    let name = check.name;
    let last = |came: &Came| {
        let text = String::from_utf8_lossy(&came.said);
        text.lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("nothing")
            .trim()
            .chars()
            .take(120)
            .collect::<String>()
    };
    match (&emulated.status, &native.status) {
        (None, _) => return Some(format!("{name}: the guest's own could not be tried")),
        (_, None) => return Some(format!("{name}: it does not end")),
        (Some(own), _) if own != "0" => {
            return Some(format!("{name}: the guest's own could not be tried ({})", last(emulated)));
        }
        (own, other) if own != other => return Some(format!("{name} fails ({})", last(native))),
        _ => {}
    }
    if emulated.said != native.said {
        return Some(format!("{name}: it says '{}', the guest's own '{}'", last(native), last(emulated)));
    }
    check.makes?;
    match elf::difference(&emulated.made, &native.made) {
        Ok(None) => None,
        Ok(Some(how)) => Some(format!("{name} {how}")),
        Err(why) => Some(format!("{name} cannot be compared: {why}")),
    }
}

/// The script that starts each of these programs, one after the other: their paths are lines on its stdin. Whether all libraries and
/// symbols are there is asked of the loader, then each is asked for its version, whatever it answers. The shell itself is the guest's own.
pub fn starts(place: &str) -> String {
    format!(
        "while read -r p; do echo \"> $p\"; LD_WARN=yes LD_BIND_NOW=1 {place}/ld.so --list {place}/bin/$p 2>&1 </dev/null; echo \"= $?\"; \
         {place}/bin/$p --version </dev/null >/dev/null 2>&1; echo \"+ $?\"; done <paths >starts\n"
    )
}

/// What a shell shows for a program that did wrong: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGSEGV, SIGSYS. Source: signal(7).
const FATAL: [u32; 8] = [132, 133, 134, 135, 136, 137, 139, 159];

/// What is wrong with the programs that were started, by path. `whole`: the script came to its end; else what was started last is at
/// fault, too.
pub fn not_starting(said: &str, whole: bool) -> BTreeMap<String, String> {
    let mut bad = BTreeMap::new();
    let mut at = "";
    let mut ended = true;
    for line in said.lines() {
        let mut fails = |why: String| _ = bad.entry(at.to_owned()).or_insert(why);
        let status = |text: &str| text.trim().parse::<u32>().ok();
        if let Some(path) = line.strip_prefix("> ") {
            (at, ended) = (path, false);
        } else if let Some(text) = line.strip_prefix("+ ") {
            ended = true;
            // A program may know no --version, but it must not be killed or be no program at all. (git ends with 129 by itself.)
            match status(text) {
                Some(n) if FATAL.contains(&n) => fails(format!("signal {} ends it at its start", n - 128)),
                Some(126 | 127) | None => fails("it does not start".into()),
                Some(_) => {}
            }
        } else if let Some(text) = line.strip_prefix("= ") {
            if status(text) != Some(0) {
                fails("its libraries cannot be loaded".into());
            }
        } else if line.contains("undefined symbol")
            || line.contains("not found")
            || line.contains("error while loading")
        {
            let why = line.rsplit_once("error while loading shared libraries: ").map_or(line, |(_, why)| why);
            fails(why.trim().chars().take(120).collect());
        }
    }
    if !(whole || ended) {
        bad.entry(at.to_owned()).or_insert_with(|| "it does not end".into());
    }
    bad
}

impl Catalogue {
    /// Takes what is at fault out of what domains get, and says why.
    pub fn leave_out(&mut self, blame: Blame, why: &str) {
        let (what, guilty): (String, Vec<&Program>) = match blame {
            Blame::One(name) => (name.to_owned(), self.programs.iter().filter(|p| p.name() == name).collect()),
            Blame::Compiler => {
                let name = self.compiler.take().unwrap_or_else(|| "the compiler".into());
                (name, self.programs.iter().filter(|p| p.kind == Kind::Compiler).collect())
            }
            Blame::Tools => ("all tools".into(), self.programs.iter().filter(|p| p.kind == Kind::Tool).collect()),
        };
        let fresh: Vec<String> =
            guilty.iter().map(|p| p.path.clone()).filter(|path| !self.unfit.contains(path)).collect();
        // The compiler has several checks: the first that fails is the reason.
        if !fresh.is_empty() {
            self.unfit.extend(fresh);
            self.failed.push(LeftOut { what, why: why.to_owned() });
        }
    }

    /// The same for programs that do not start, by path; a part of the compiler takes all of it along.
    pub fn leave_out_unfit(&mut self, bad: &BTreeMap<String, String>) {
        for (path, why) in bad {
            let Some(program) = self.programs.iter().find(|p| p.path == *path).cloned() else { continue };
            match program.kind {
                Kind::Compiler => self.leave_out(Blame::Compiler, &format!("{}: {why}", program.name())),
                Kind::Tool if self.unfit.insert(path.clone()) => {
                    self.failed.push(LeftOut { what: program.name().to_owned(), why: why.clone() });
                }
                Kind::Tool => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(status: &str, said: &str) -> Came {
        Came { status: Some(status.into()), said: said.into(), made: Vec::new() }
    }

    #[test]
    fn both_must_agree() {
        let check = &CHECKS[0];
        assert_eq!(judge(check, &came("0", "aarch64\n"), &came("0", "aarch64\n")), None);
        let told = |own: &Came, other: &Came| judge(check, own, other).unwrap();
        let own = came("0", "aarch64\n");
        assert_eq!(told(&own, &came("0", "x86_64\n")), "uname -m: it says 'x86_64', the guest's own 'aarch64'");
        assert_eq!(told(&own, &came("1", "a\nno such\n\n")), "uname -m fails (no such)");
        assert_eq!(told(&own, &Came::default()), "uname -m: it does not end");
        assert!(told(&Came::default(), &own).ends_with("could not be tried"));
        assert!(told(&came("2", "broken"), &came("2", "broken")).ends_with("tried (broken)"));
        let object = CHECKS.iter().find(|check| check.makes.is_some()).unwrap();
        assert!(judge(object, &came("0", ""), &came("0", "")).is_none(), "the same bytes");
        let other = Came { made: b"no ELF".to_vec(), ..came("0", "") };
        assert_eq!(judge(object, &came("0", ""), &other).unwrap(), "a C object cannot be compared: not an ELF file");
    }

    #[test]
    fn scripts_are_shells() {
        let text = script(CHECKS);
        let n = CHECKS.iter().position(|check| check.command == "gcc -dumpmachine").unwrap();
        let line = format!("(gcc -dumpmachine) </dev/null >said.{n} 2>&1; echo $? >status.{n}\n");
        assert!(text.contains(&line), "{text}");
        for text in [text, script(AS_USER), starts("/run/accel")] {
            let read = crate::sys::process::Tool::new("sh").args(["-n", "-c"]).arg(&text).output();
            assert!(read.is_ok(), "{text}: {read:?}");
        }
    }

    #[test]
    fn who_does_not_start() {
        let said = "> bin/a\n\tlibc.so.6 => /run/accel/lib/libc.so.6 (0x1)\n= 0\n+ 0\n> bin/b\n= 0\n+ 129\n\
                    > bin/c\nbin/c: error while loading shared libraries: libx.so.1: file too short\n= 127\n+ 127\n\
                    > bin/d\n= 0\n+ 139\n> bin/e\nundefined symbol: f\t(bin/e)\n= 0\n+ 0\n> bin/f\n= 0\n";
        let bad = not_starting(said, false);
        assert_eq!(bad["bin/c"], "libx.so.1: file too short");
        assert_eq!(bad["bin/d"], "signal 11 ends it at its start");
        assert!(bad["bin/e"].starts_with("undefined symbol: f"));
        assert_eq!(bad["bin/f"], "it does not end");
        assert_eq!(bad.len(), 4);
        assert!(!not_starting(said, true).contains_key("bin/f"));
    }

    #[test]
    fn a_compiler_goes_as_a_whole() {
        let program = |path: &str, kind| Program {
            path: path.into(),
            package: "p".into(),
            version: "1".into(),
            kind,
            scripts: Vec::new(),
            names: vec![],
            identity: "00".into(),
        };
        let programs = vec![
            program("usr/bin/sed", Kind::Tool),
            program("usr/bin/gcc-12", Kind::Compiler),
            program("usr/lib/cc1", Kind::Compiler),
        ];
        let all = Catalogue { programs, compiler: Some("gcc 12".into()), ..Catalogue::default() };
        let chosen = |all: &Catalogue| all.chosen(crate::domain::Accel::Build, &[]).len();
        assert_eq!(chosen(&all), 3);
        let mut one = all.clone();
        one.leave_out_unfit(&BTreeMap::from([("usr/lib/cc1".into(), "it does not start".into())]));
        one.leave_out(Blame::Compiler, "a C object differs in .text");
        assert_eq!((chosen(&one), one.compiler.clone()), (1, None));
        assert_eq!(one.failed, [LeftOut { what: "gcc 12".into(), why: "cc1: it does not start".into() }]);
        assert!(one.unknown(&["gcc-12".into()]).is_empty(), "a word that names it is still good");
        let mut none = all;
        none.leave_out(Blame::Tools, "fakeroot fails");
        none.leave_out(Blame::One("sed"), "again");
        assert_eq!((chosen(&none), none.failed.len()), (2, 1));
    }
}
