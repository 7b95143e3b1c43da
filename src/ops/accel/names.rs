//! What a process was, by its program's name: emulated, native, or emulated without need. What a newcomer would get wrong: nobody notes which
//! file a process ran. The name tells whether there is a native program; the size of its address space whether it was that one, for an
//! emulator has a hundred megabytes more.

use std::collections::BTreeSet;
use std::path::Path;

use crate::accel::catalogue::{Catalogue, Kind, Program};
use crate::accel::{make, packages};
use crate::domain::Accel;
use crate::domain::accounts::Process;
use crate::ops::profile::By;
use crate::store::domains::Domain;
use crate::sys::root::Root;

/// The kernel keeps so many bytes of a program's name. Source: proc(5), comm.
const LONGEST: usize = 15;
/// Above this an address space is an emulator's, unless it is a compiler's: its code buffer alone is 128 MiB.
const EMULATOR: u64 = 100 << 10;

/// The names of one domain's programs.
#[derive(Debug, Default)]
pub struct Names {
    /// Nothing of the guest is emulated.
    all_native: bool,
    /// Programs that are native in it.
    native: BTreeSet<String>,
    /// Those of them whose address space may be large.
    large: BTreeSet<String>,
    /// Programs that would be.
    avoidable: BTreeSet<String>,
}

impl Names {
    /// Of a domain that runs; with `emulated` nothing of it is native for now.
    pub fn of(domain: &Domain, emulated: bool) -> Names {
        let Some(by) = &domain.record.emulated else { return Names { all_native: true, ..Names::default() } };
        let spec = &domain.record.spec;
        let Some(all) = by.native.as_ref().and_then(|native| Catalogue::read(&native.from).ok()) else {
            let leader = domain.run.as_ref().map_or(0, |run| run.leader);
            let avoidable = Root::open(Path::new(&format!("/proc/{leader}/root"))).map(|root| installed(&root));
            return Names { avoidable: avoidable.unwrap_or_default(), ..Names::default() };
        };
        let chosen = if emulated { Vec::new() } else { all.chosen(spec.accel, &spec.accel_exclude) };
        let compilers = chosen.iter().copied().filter(|program| program.kind == Kind::Compiler);
        Names {
            all_native: false,
            large: compilers.flat_map(names).collect(),
            native: chosen.iter().copied().flat_map(names).collect(),
            avoidable: all.chosen(Accel::Build, &[]).into_iter().flat_map(names).collect(),
        }
    }

    /// Who ran this process.
    pub fn by(&self, process: &Process) -> By {
        let name = &process.name;
        if self.all_native || self.native.contains(name) && (process.kib < EMULATOR || self.large.contains(name)) {
            By::Native
        } else if self.avoidable.contains(name) {
            By::Avoidable
        } else {
            By::Emulated
        }
    }
}

/// All names of a program, as the kernel keeps them.
fn names(program: &Program) -> impl Iterator<Item = String> + '_ {
    program.names.iter().map(String::as_str).chain([program.name()]).map(short)
}

fn short(name: &str) -> String {
    let end = (0..=name.len().min(LONGEST)).rfind(|n| name.is_char_boundary(*n)).unwrap_or_default();
    name[..end].to_owned()
}

/// What a guest has of the programs that can be native, by the lists of its packages (dpkg-query(1), `/var/lib/dpkg/info`).
fn installed(root: &Root) -> BTreeSet<String> {
    let lists = root.read_dir("var/lib/dpkg/info").unwrap_or_default();
    let mut found: BTreeSet<String> = BTreeSet::new();
    for list in lists.iter().filter_map(|name| name.to_str()) {
        let Some(package) = list.strip_suffix(".list").map(|name| name.split(':').next().unwrap_or(name)) else {
            continue;
        };
        if packages::is_known(package) {
            let text = root.read_text(Path::new("var/lib/dpkg/info").join(list)).unwrap_or_default();
            let programs = text.lines().filter(|file| is_program(file)).filter_map(|file| file.rsplit('/').next());
            found.extend(programs.filter(|name| packages::never(name, 0).is_none()).map(short));
        }
    }
    let more =
        make::ALTERNATIVES.iter().filter(|(program, _)| found.contains(*program)).map(|(_, name)| (*name).to_owned());
    found.extend(more.collect::<Vec<_>>());
    found
}

/// Whether a file of a package is a program that somebody starts by its path or the compiler.
fn is_program(file: &str) -> bool {
    let dir = file.rsplit_once('/').map_or("", |(dir, _)| dir);
    let private = ["/usr/lib/gcc/", "/usr/libexec/gcc/"].iter().any(|private| dir.starts_with(private));
    matches!(dir, "/bin" | "/sbin" | "/usr/bin" | "/usr/sbin" | "/usr/lib/git-core")
        || private
            && !file.contains(".so")
            && !file.contains("/include")
            && !file.ends_with(".o")
            && !file.ends_with(".a")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ran_it() {
        let set = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<BTreeSet<_>>();
        let names = Names {
            all_native: false,
            native: set(&["sed", "cc1"]),
            large: set(&["cc1"]),
            avoidable: set(&["sed", "cc1", "awk"]),
        };
        let process = |name: &str, kib| Process { name: name.into(), pid: 1, parent: 0, forked: false, micros: 0, kib };
        assert_eq!(names.by(&process("sed", 4000)), By::Native);
        assert_eq!(names.by(&process("sed", 150_000)), By::Avoidable, "another version");
        assert_eq!(names.by(&process("cc1", 150_000)), By::Native);
        assert_eq!(names.by(&process("awk", 4000)), By::Avoidable);
        assert_eq!(names.by(&process("conftest", 150_000)), By::Emulated);
        let here = Names { all_native: true, ..Names::default() };
        assert_eq!(here.by(&process("conftest", 1)), By::Native);
    }

    #[test]
    fn what_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        let info = dir.path().join("var/lib/dpkg/info");
        std::fs::create_dir_all(&info).unwrap();
        let put =
            |name: &str, text: &str| crate::sys::fs::write_volatile(&info.join(name), text.as_bytes(), 0o644).unwrap();
        put("sed.list", "/.\n/bin\n/bin/sed\n/usr/share/doc/sed\n");
        put("mawk.list", "/usr/bin/mawk\n");
        put("cpp-12.list", "/usr/lib/gcc/aarch64-linux-gnu/12/cc1\n/usr/bin/aarch64-linux-gnu-cpp-12\n");
        put("systemd.list", "/bin/systemctl\n");
        put("libc6:arm64.list", "/sbin/ldconfig\n");
        let found = installed(&Root::open(dir.path()).unwrap());
        assert_eq!(
            found.iter().map(String::as_str).collect::<Vec<_>>(),
            ["aarch64-linux-g", "awk", "cc1", "mawk", "nawk", "sed"]
        );
    }
}
