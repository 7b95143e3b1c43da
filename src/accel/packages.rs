//! Which programs may be native. What a newcomer would get wrong: a program that tells what machine it was built for, or works with files
//! of its own architecture, answers for the wrong machine when it is native; so this is a list of what may be, not of what may not,
//! with exceptions by name, each with its reason. Sources: the packages' own lists of files; for the machine strings what they print.

use super::dpkg::Package;

/// Packages of a Debian release whose programs are native with `tools`, as far as both architectures have them.
pub const TOOLS: &[&str] = &[
    "bash",
    "bison",
    "bzip2",
    "ccache",
    "cmake",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "dwz",
    "fakeroot",
    "file",
    "findutils",
    "flex",
    "gawk",
    "gettext",
    "gettext-base",
    "git",
    "grep",
    "gzip",
    "libc-bin",
    "m4",
    "make",
    "mawk",
    "ninja-build",
    "patch",
    "pkgconf",
    "sed",
    "tar",
    "util-linux",
    "xz-utils",
    "zstd",
];

/// Packages with programs of the same kind that come with those, for these need them; some releases have not got them.
pub const BROUGHT: &[&str] = &["pkgconf-bin"];

/// Of these packages nothing is native but what is named: the rest administers the system, asks the machine, or gains nothing.
const ONLY: &[(&str, &[&str])] =
    &[("dpkg", &["dpkg-deb"]), ("libc-bin", &["iconv"]), ("util-linux", &["flock", "getopt"])];

/// Packages that are fetched for their libraries alone: what native programs are made to load by their environment.
pub const PRELOADED: &[&str] = &["libfakeroot", "libeatmydata1"];

/// Interpreters, native for what `accel::scripts` lists.
pub const INTERPRETERS: &[&str] = &["perl", "python3"];

/// Packages with machine code that those scripts of Perl's load, themselves or by what they depend on.
pub const PERL: &[&str] = &["libfile-fcntllock-perl", "liblocale-gettext-perl", "texinfo"];

/// The guest's compiler: packages that its own are in. `gcc` and `g++` lead to those of the release's version.
pub const COMPILER: &[&str] = &["binutils", "cpp", "g++", "gcc"];

/// What stays emulated although its package is in the list, and why.
pub const NEVER: &[(&str, &str)] = &[("stdbuf", "it has programs load a library of its own architecture")];

/// The cross compiler's packages for a triplet (`aarch64-linux-gnu`) and gcc's major version.
pub fn cross(triplet: &str, major: u32) -> Vec<String> {
    let of = |what: &str| format!("{what}-{major}-{triplet}");
    vec![format!("binutils-{triplet}"), of("cpp"), of("g++"), of("gcc")]
}

/// gcc's major version among a guest's packages: `gcc-12` is there, as `gcc` wants it.
pub fn compiler(packages: &[Package]) -> Option<u32> {
    packages.iter().filter_map(|package| package.name.strip_prefix("gcc-")?.parse().ok()).max()
}

/// Whether a program of a package's comes into question.
pub fn is_considered(package: &str, program: &str) -> bool {
    ONLY.iter().find(|(name, _)| *name == package).is_none_or(|(_, programs)| programs.contains(&program))
}

/// Whether programs of a guest's package of this name can be native: one of the tools, or of its compiler.
pub fn is_known(package: &str) -> bool {
    let base = package.split('-').next().unwrap_or(package);
    let version = package.split('-').nth(1).is_none_or(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    let tool = TOOLS.contains(&package) || BROUGHT.contains(&package);
    tool || package.starts_with("binutils") || COMPILER.contains(&base) && version
}

/// Why a program stays emulated; `None` for one that may be native. `mode` is the twin's st_mode.
pub fn never(name: &str, mode: u32) -> Option<&'static str> {
    const SET_ID: u32 = 0o6000;
    if mode & SET_ID != 0 {
        return Some("it runs with more rights than its caller");
    }
    NEVER.iter().find(|(program, _)| *program == name).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        assert_eq!(never("sed", 0o100755), None);
        assert!(never("stdbuf", 0o100755).unwrap().contains("library"));
        assert!(never("su", 0o104755).unwrap().contains("rights"));
        assert_eq!(cross("aarch64-linux-gnu", 12)[2], "g++-12-aarch64-linux-gnu");
        assert!(
            is_considered("dpkg", "dpkg-deb") && !is_considered("dpkg", "dpkg-query") && is_considered("sed", "sed")
        );
        assert!(ONLY.iter().all(|(package, _)| TOOLS.contains(package)));
        for known in ["sed", "gcc", "gcc-12", "cpp-14-aarch64-linux-gnu", "binutils-arm-linux-gnueabihf", "xz-utils"] {
            assert!(is_known(known), "{known}");
        }
        assert!(!is_known("gcc-base") && !is_known("systemd") && !is_known("libc6"));
        assert!(TOOLS.is_sorted() && COMPILER.is_sorted());
    }
}
