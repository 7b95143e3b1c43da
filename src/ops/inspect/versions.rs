//! Versions of systemd and glibc, told by names and bytes of files. What a newcomer would get wrong: asking the programs
//! themselves would run a stranger's code, and for a foreign tree before an interpreter is chosen.

use crate::elf::{self, Header};
use crate::sys::root::Root;

/// Enough for every libc.so.6 there is (2 MiB).
const LIBC_MAX: u64 = 16 << 20;

/// systemd's major version, from the names of its private libraries (`libsystemd-shared-252.so`,
/// `libsystemd-core-256.7-1.fc41.so`), which carry it since version 231.
pub(super) fn systemd(root: &Root) -> Option<u32> {
    let names = library_dirs(root).into_iter().map(|dir| format!("{dir}/systemd")).flat_map(|dir| root.read_dir(dir));
    names.flatten().filter_map(|name| systemd_version(&name.to_string_lossy())).max()
}

fn systemd_version(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("libsystemd-shared-").or_else(|| name.strip_prefix("libsystemd-core-"))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    // Development versions are called 257~rc1; what follows the digits does not matter.
    rest[..digits].parse().ok().filter(|_| rest.contains(".so"))
}

/// glibc's version, from the `libc.so.6` of the same class and machine as `like`; musl has none.
pub(super) fn glibc(root: &Root, like: Option<&Header>) -> Option<(u32, u32)> {
    library_dirs(root).into_iter().find_map(|dir| {
        let path = format!("{dir}/libc.so.6");
        let bytes = root.read(&path, LIBC_MAX).ok()?;
        let header = elf::parse(&bytes).ok()?;
        let fits = like.is_none_or(|l| (l.class, l.machine) == (header.class, header.machine));
        glibc_version(&bytes).filter(|_| fits)
    })
}

/// Finds the banner that `libc.so.6` prints when it is run: `… stable release version 2.36.` (`development` before a release).
fn glibc_version(bytes: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b" release version ";
    let at = bytes.windows(MARK.len()).position(|w| w == MARK)? + MARK.len();
    let text: String = bytes[at..].iter().take(16).map(|b| char::from(*b)).collect();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Where libraries lie: lib64 and lib, and the multiarch directories in them.
fn library_dirs(root: &Root) -> Vec<String> {
    let bases = ["/usr/lib", "/usr/lib64", "/lib", "/lib64"];
    let mut dirs: Vec<String> = bases.map(str::to_owned).into();
    for base in ["/usr/lib", "/lib"] {
        let names = root.read_dir(base).unwrap_or_default();
        let names = names.iter().map(|n| n.to_string_lossy()).filter(|n| n.contains("-linux-"));
        dirs.extend(names.map(|name| format!("{base}/{name}")));
    }
    dirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_private_libraries() {
        for (name, want) in [
            ("libsystemd-shared-252.so", Some(252)),
            ("libsystemd-core-256.7-1.fc41.so", Some(256)),
            ("libsystemd-shared-257~rc1.so", Some(257)),
            ("libsystemd-shared-.so", None),
            ("libsystemd-shared-99999999999.so", None),
            ("libsystemd.so.0", None),
            ("libsystemd-shared-252.txt", None),
        ] {
            assert_eq!(systemd_version(name), want, "{name}");
        }
    }

    #[test]
    fn the_banner_of_libc() {
        let banner = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u13) stable release version 2.36.\nCopyright";
        assert_eq!(glibc_version(banner), Some((2, 36)));
        assert_eq!(glibc_version(b"development release version 2.41.9000."), Some((2, 41)));
        assert_eq!(glibc_version(b" release version "), None);
        assert_eq!(glibc_version(b" release version two"), None);
    }
}
