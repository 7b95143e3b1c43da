//! What programs say of the machine in words of their own, compiled in: what a native one is told to say instead. What a newcomer would
//! get wrong: only few programs do, and each means something else by it (a name of the CPU, of the architecture, directories that it
//! searches *for others*); those that it searches for itself are [`patched::PREFIXES`](super::patched::PREFIXES). Where the text
//! is a list, it is not made up but read in the guest's own program. Sources: what `strings` prints of both; pkgconf(1).

use std::io;
use std::path::Path;

use super::dpkg::Package;
use super::make::Job;

/// A text, and what stands in its place.
pub(super) type Text = (String, String);

/// Lists of directories of libpkgconf's: how they begin natively, and in the guest's own behind its triplet's directory.
const LISTS: &[(&str, &str)] = &[
    ("/usr/local/lib/x86_64-linux-gnu/pkgconfig:", "/usr/local/lib/{triplet}/pkgconfig:"),
    ("/lib:/lib/i386-linux-gnu:/lib/x86_64-linux-gnu:", "/lib:/lib/{triplet}:"),
];

/// Those of a package's program; it need not hold them. Errors: as read(2).
pub(super) fn of(job: &Job<'_>, package: &Package, file: &str) -> io::Result<Vec<Text>> {
    // As the guest's own were configured: by the triplet, not by uname(2).
    let triplet = job.release.triplet.as_str();
    let (cpu, system) = triplet.split_once('-').unwrap_or((triplet, "linux-gnu"));
    let text = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let machine = || ("x86_64-pc-linux-gnu".to_owned(), format!("{cpu}-unknown-{system}"));
    Ok(match package.name.as_str() {
        "bash" => vec![machine(), text("x86_64", cpu)],
        "git" => vec![text("x86_64", cpu)],
        // Where make looks for a library that is a prerequisite (`-lm`): the guest's.
        "make" => vec![machine(), ("/usr/lib/x86_64-linux-gnu".into(), format!("/usr/lib/{triplet}"))],
        "dpkg" => architecture(&std::fs::read(job.native.path(file))?, &job.release.arch),
        "pkgconf" | "pkgconf-bin" => lists(&job.native.path(file), &job.guest.path(file), triplet)?,
        _ => Vec::new(),
    })
}

/// Those of a library; `file` is the native one. Errors: as read(2).
pub(super) fn of_library(job: &Job<'_>, file: &Path, name: &str) -> io::Result<Vec<Text>> {
    if !name.starts_with("libpkgconf.so") {
        return Ok(Vec::new());
    }
    let triplet = job.release.triplet.as_str();
    lists(file, &job.guest.path(&format!("usr/lib/{triplet}/{name}")), triplet)
}

/// dpkg's name of the architecture, alone and behind its version.
fn architecture(program: &[u8], arch: &str) -> Vec<Text> {
    const OWN: &str = "amd64";
    let behind = format!("({OWN})");
    let version = strings(program).find_map(|text| text.strip_suffix(&behind).filter(|_| text.len() < 80));
    let version = version.map(|version| (format!("{version}{behind}"), format!("{version}({arch})")));
    version.into_iter().chain([(OWN.to_owned(), arch.to_owned())]).collect()
}

/// The lists that both hold. One that the guest's own lacks stays: then nothing is to be taken for it.
fn lists(native: &Path, guest: &Path, triplet: &str) -> io::Result<Vec<Text>> {
    let (native, guest) = (std::fs::read(native)?, std::fs::read(guest)?);
    let find = |program, begin: &str| strings(program).find(|text| text.starts_with(begin)).map(str::to_owned);
    let both = LISTS
        .iter()
        .filter_map(|(from, to)| Some((find(&native, from)?, find(&guest, &to.replace("{triplet}", triplet))?)));
    Ok(both.collect())
}

/// All that could be a C string.
fn strings(program: &[u8]) -> impl Iterator<Item = &str> {
    program.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dpkg_says() {
        let program = b"\x7fELF\0amd64\0i386\x001.21.22 (amd64)\0x(amd64)y\0";
        let said = architecture(program, "riscv64");
        assert_eq!(said, [("1.21.22 (amd64)".into(), "1.21.22 (riscv64)".into()), ("amd64".into(), "riscv64".into())]);
        assert_eq!(architecture(b"amd64\0", "arm64"), [("amd64".to_owned(), "arm64".to_owned())]);
    }

    #[test]
    fn what_pkgconf_searches_is_the_guests_own() {
        let dir = tempfile::tempdir().unwrap();
        let (native, guest) = (dir.path().join("native"), dir.path().join("guest"));
        let search = "/usr/local/lib/x86_64-linux-gnu/pkgconfig:/usr/share/pkgconfig";
        let put = |path: &Path, text: &str| crate::sys::fs::write_volatile(path, text.as_bytes(), 0o644).unwrap();
        put(&native, &format!("x\0{search}\0/lib:/lib/i386-linux-gnu:/lib/x86_64-linux-gnu:/lib32\0"));
        let own = "/usr/local/lib/arm-linux-gnueabihf/pkgconfig:/opt";
        put(&guest, &format!("\0{own}\0/lib:/lib64\0"));
        let found = lists(&native, &guest, "arm-linux-gnueabihf").unwrap();
        assert_eq!(found, [(search.to_owned(), own.to_owned())], "no list is made up");
        put(&guest, "/lib:/lib/arm-linux-gnueabihf:/usr/lib\0");
        let found = lists(&native, &guest, "arm-linux-gnueabihf").unwrap();
        assert_eq!(found[0].1, "/lib:/lib/arm-linux-gnueabihf:/usr/lib");
    }
}
