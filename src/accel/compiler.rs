//! The compiler: this machine's cross compiler, made to be the guest's own. What a newcomer would get wrong: only programs are native. A native
//! driver looks for compilers, headers, start files and libraries where the guest's own driver would, and finds the guest's: when it
//! starts the guest's `cc1`, the interpreter runs the native one in its stead. So whatever a build sees, prints or writes down are the
//! guest's own paths. What has to be changed for that are the few places where a cross compiler is configured otherwise.
//! Sources: gcc/gcc.cc ("exec_prefixes"), gcc/cppdefault.cc, gcc/collect2.cc of GCC.

use std::io;
use std::path::Path;

use super::catalogue::{Catalogue, Kind, LeftOut};
use super::make::{Job, Names, add};
use super::patch::{Part, Rules, Toolchain};
use super::{packages, patched};

/// Where a cross compiler keeps what the guest's own has without `-cross`.
const PRIVATE: &[(&str, &str)] =
    &[("/usr/lib/gcc-cross/", "/usr/lib/gcc///////"), ("/usr/libexec/gcc-cross/", "/usr/libexec/gcc///////")];

/// Programs of a cross compiler that look for others in its own places alone, where the guest's go by `PATH`; they only start those.
const WRAPPERS: &[&str] = &["gcc-ar", "gcc-nm", "gcc-ranlib"];

/// Revisions, this machine's and the guest's, between which only arm64's code was changed: 12.2.0-14+deb12u1 mends CVE-2023-4039 in
/// gcc/config/aarch64 and nothing else (its debian/changelog).
const MENDED_FOR_ARM64: &[(&str, &str)] = &[("Debian 12.2.0-14", "Debian 12.2.0-14+deb12u1")];

/// Adds the compiler to the directory. Errors: as of files.
pub(super) fn make(job: &Job<'_>, major: u32, names: &Names, into: &Path, all: &mut Catalogue) -> io::Result<()> {
    let rules = Prefixes::of(&job.release.triplet, major);
    let prefixes = rules.all();
    for name in packages::cross(&job.release.triplet, major) {
        let Some(native) = job.native.package(&name) else { continue };
        for file in &native.files {
            let twin = twin(file);
            let Some(guest) = job.guest.packages.iter().find(|package| package.files.contains(&twin)) else { continue };
            if WRAPPERS.iter().any(|name| file.ends_with(&format!("-{name}-{major}"))) {
                continue;
            }
            if file.ends_with("/liblto_plugin.so") {
                // No program, so no interpreter stands before it: the C library leads there (`patch::dlopen`).
                let rules = Rules { prefixes: &prefixes, ..Rules::default() };
                let to = into.join("lib/liblto_plugin.so");
                if let Err(why) = patched::write(&std::fs::read(job.native.path(file))?, &to, &rules)? {
                    all.left_out.push(LeftOut { what: "liblto_plugin.so".into(), why: why.to_string() });
                }
                continue;
            }
            let toolchain = part(&twin, major).map(|part| Toolchain { part, triplet: &job.release.triplet, major });
            let with = patched::With { prefixes: &prefixes, toolchain, ..patched::With::default() };
            add(job, (Kind::Compiler, &with), (file, &twin), (native, guest), names, into, all)?;
        }
    }
    all.skew = skew(job, major)?;
    all.offload = offload(job, major)?;
    if all.offload {
        let why = "the guest's compiler, which is built for graphics processors, does more with it";
        all.left_out.push(LeftOut { what: "code with -fopenmp or -fopenacc".into(), why: why.into() });
    }
    all.compiler = all
        .programs
        .iter()
        .find(|program| program.kind == Kind::Compiler && program.name().ends_with(&format!("gcc-{major}")))
        .map(|gcc| format!("gcc {}", super::dpkg::upstream(&gcc.version)));
    Ok(())
}

/// Whether the guest's driver links what a program for graphics processors needs.
fn offload(job: &Job<'_>, major: u32) -> io::Result<bool> {
    const PART: &[u8] = b"crtoffloadbegin";
    let driver = job.guest.path(&format!("usr/bin/{}-gcc-{major}", job.release.triplet));
    let program = if driver.exists() { std::fs::read(driver)? } else { Vec::new() };
    Ok(program.windows(PART.len()).any(|window| window == PART))
}

/// What to say when the guest's compiler and ours are two revisions of one version, which may make other code.
fn skew(job: &Job<'_>, major: u32) -> io::Result<Option<String>> {
    let revision = |program: &Path| std::fs::read(program).map(|program| revision(&program).unwrap_or_default());
    for (private, _) in PRIVATE {
        let cc1 = format!("{}{}/{major}/cc1", private.trim_start_matches('/'), job.release.triplet);
        let (ours, twin) = (job.native.path(&cc1), job.guest.path(&twin(&cc1)));
        if !(ours.exists() && twin.exists()) {
            continue;
        }
        let (ours, twin) = (revision(&ours)?, revision(&twin)?);
        let mended = job.release.arch != "arm64" && MENDED_FOR_ARM64.contains(&(ours.as_str(), twin.as_str()));
        return Ok((ours != twin && !mended).then(|| {
            format!("code with -fstack-protector: the guest's compiler ({twin}) and the native one ({ours}) may guard it in different ways")
        }));
    }
    Ok(None)
}

/// What a compiler calls itself, `Debian 12.2.0-14`: the text in parentheses behind its version.
fn revision(program: &[u8]) -> Option<String> {
    const BEGIN: &[u8] = b"(Debian ";
    program.windows(BEGIN.len()).enumerate().filter(|(_, window)| *window == BEGIN).find_map(|(at, _)| {
        let text = program.get(at + 1..)?.split(|&b| b == b')').next()?;
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() < 60)?;
        text.as_bytes().get(7).filter(|b| b.is_ascii_digit()).map(|_| text.to_owned())
    })
}

/// What a program is of the compiler.
fn part(file: &str, major: u32) -> Option<Part> {
    let name = file.rsplit('/').next().unwrap_or(file);
    match name {
        "cc1" | "cc1plus" => Some(Part::Compiler),
        "collect2" => Some(Part::Linker),
        name => ["gcc", "g++", "cpp"].iter().any(|d| name.ends_with(&format!("-{d}-{major}"))).then_some(Part::Driver),
    }
}

/// The path of the guest's own.
fn twin(file: &str) -> String {
    file.replacen("/gcc-cross/", "/gcc/", 1)
}

/// Paths of equal length, each longer one before those that it begins with.
struct Prefixes(Vec<(String, String)>);

impl Prefixes {
    fn of(triplet: &str, major: u32) -> Prefixes {
        let mut all = Vec::new();
        // A cross compiler has its C++ headers apart; the guest's are in /usr/include, and those of its architecture in Debian's own place.
        for private in ["/usr/lib/gcc-cross", "/usr/libexec/gcc-cross"] {
            let apart = format!("{private}/{triplet}/{major}/../../../../{triplet}/include");
            all.push((format!("{apart}/c++/{major}/{triplet}"), format!("/usr/include/{triplet}/c++/{major}")));
            all.push((format!("{apart}/c++/{major}"), format!("/usr/include/c++/{major}")));
            // It does not search /usr/local/include, but its own directory at just that place. (Where its table of directories is known, that
            // becomes a native compiler's instead: `patch::toolchain`.)
            all.push((apart, "/usr/local/include".into()));
        }
        all.extend(PRIVATE.iter().map(|&(from, to)| (from.to_owned(), to.to_owned())));
        all.iter_mut().for_each(|(from, to)| *to = to_length(to, from.len()));
        Prefixes(all)
    }

    fn all(&self) -> Vec<(&str, &str)> {
        let ours = self.0.iter().map(|(from, to)| (from.as_str(), to.as_str()));
        ours.chain(patched::PREFIXES.iter().copied()).collect()
    }
}

/// A path as long as wanted: slashes in the place of its first one.
fn to_length(path: &str, length: usize) -> String {
    format!("{}{path}", "/".repeat(length.saturating_sub(path.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_their_lengths() {
        let rules = Prefixes::of("aarch64-linux-gnu", 12);
        for (from, to) in rules.all() {
            assert_eq!(from.len(), to.len(), "{from}");
        }
        assert!(rules.0[0].1.ends_with("//usr/include/aarch64-linux-gnu/c++/12"));
        assert_eq!(
            revision(b"x(Debian y)\0GCC (Debian 12.2.0-14+deb12u1) \0").as_deref(),
            Some("Debian 12.2.0-14+deb12u1")
        );
        assert_eq!(revision(b"(Debian "), None);
        assert_eq!(twin("usr/lib/gcc-cross/aarch64-linux-gnu/12/cc1"), "usr/lib/gcc/aarch64-linux-gnu/12/cc1");
    }
}
