//! The machine beneath: its kernel, its init, its file systems of one kind, and which programs it runs by itself. What a
//! newcomer would get wrong: "exec worked" does not mean that the CPU ran it; a binfmt_misc entry may have handed the file to
//! an emulator. [`who_runs`] looks at what the kernel really loaded.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::process::{Tool, ToolError};

/// `uname -m`. A 32-bit personality (setarch(8)) changes what it says.
pub fn machine() -> String {
    let uname = nix::sys::utsname::uname();
    uname.map(|u| u.machine().to_string_lossy().into_owned()).unwrap_or_default()
}

/// `uname -r`.
pub fn kernel_release() -> String {
    let uname = nix::sys::utsname::uname();
    uname.map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The kernel's version as (6, 1, 129); missing or unreadable parts are 0.
pub fn kernel_version() -> (u32, u32, u32) {
    version(&kernel_release())
}

/// The first three numbers of a version: `6.1.0-32-amd64` is (6, 1, 0), `6.18` is (6, 18, 0).
pub fn version(text: &str) -> (u32, u32, u32) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let mut parts = text[..end].split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Whether systemd is PID 1. Source: sd_booted(3).
pub fn systemd_is_init() -> bool {
    std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|m| m.is_dir())
}

/// Source: linux/magic.h.
const BINFMTFS_MAGIC: nix::libc::__fsword_t = 0x4249_4e4d;

/// Whether `path` is the root of a binfmt_misc file system (an automount is set off by looking).
pub fn is_binfmt_misc(path: &Path) -> bool {
    // Opening, not just asking, is what triggers systemd's automount.
    let Ok(dir) = std::fs::File::open(path) else { return false };
    nix::sys::statfs::fstatfs(&dir).is_ok_and(|s| s.filesystem_type().0 == BINFMTFS_MAGIC)
}

/// Mounts binfmt_misc at `path`; one that is mounted already is fine. Errors: as mount(2).
pub fn mount_binfmt_misc(path: &Path) -> io::Result<()> {
    use nix::mount::MsFlags;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match nix::mount::mount(Some("binfmt_misc"), path, Some("binfmt_misc"), flags, None::<&str>) {
        Err(nix::errno::Errno::EBUSY) if is_binfmt_misc(path) => Ok(()),
        other => Ok(other?),
    }
}

/// Unmounts what [`mount_binfmt_misc`] mounted. Errors: as umount2(2).
pub fn unmount(path: &Path) -> io::Result<()> {
    Ok(nix::mount::umount2(path, nix::mount::MntFlags::UMOUNT_NOFOLLOW)?)
}

/// Who runs a program here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runner {
    /// The kernel and the CPU, by themselves.
    Host,
    /// Another program that the kernel hands it to, if it could still be seen.
    Interpreter(Option<PathBuf>),
    /// Nobody: exec fails.
    Nobody,
}

/// What a program in memory is called.
const IN_MEMORY: &str = "pronto-who-runs";

/// A program that is in no file system, to be executed by its descriptor. Errors: as memfd_create(2).
pub fn in_memory(image: &[u8]) -> io::Result<std::fs::File> {
    let name = CString::new(IN_MEMORY)?;
    // MFD_EXEC is only known to kernels from 6.3 on; before it every memfd can be executed.
    let flags = MFdFlags::MFD_CLOEXEC;
    let fd = memfd_create(name.as_c_str(), flags | MFdFlags::from_bits_retain(libc::MFD_EXEC))
        .or_else(|_| memfd_create(name.as_c_str(), flags))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(image)?;
    // A file that is open for writing cannot be executed (ETXTBSY), so it is opened again.
    std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Finds out who runs the program `image` by running it. It must be a static ELF file that reads one byte of stdin and then
/// exits with `status`; while it waits, `/proc/PID/exe` tells what the kernel loaded: the file, or an interpreter.
/// Errors: as memfd_create(2), or the program could not be started for other reasons than its format.
pub fn who_runs(image: &[u8], status: i32) -> io::Result<Runner> {
    let reading = in_memory(image)?;
    let mut tool = Tool::new(format!("/proc/self/fd/{}", reading.as_raw_fd()));
    tool.command().env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = match tool.spawn() {
        Ok(child) => child,
        Err(ToolError::Start { source, .. }) => return refused(source),
        Err(other) => return Err(io::Error::other(other)),
    };
    // spawn() returns when exec has happened, so this is the new program's.
    let loaded = std::fs::read_link(format!("/proc/{}/exe", child.id())).ok();
    drop(child.stdin.take());
    let ended = child.wait()?;
    let ours = format!("/memfd:{IN_MEMORY}");
    Ok(match loaded {
        Some(path) if path.to_string_lossy().starts_with(&ours) && ended.code() == Some(status) => Runner::Host,
        // The kernel took it as its own, and the CPU did not: nobody runs it.
        Some(path) if path.to_string_lossy().starts_with(&ours) => Runner::Nobody,
        other => Runner::Interpreter(other),
    })
}

fn refused(error: io::Error) -> io::Result<Runner> {
    match error.raw_os_error() {
        // ENOENT: an entry names an interpreter that is gone. ELIBBAD, EINVAL: an emulated-ABI kernel refused it.
        Some(libc::ENOEXEC | libc::ENOENT | libc::ELIBBAD | libc::EINVAL) => Ok(Runner::Nobody),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, want) in [
            ("6.1.0-32-amd64", (6, 1, 0)),
            ("6.18.44-fc-v509", (6, 18, 44)),
            ("5.10", (5, 10, 0)),
            ("6.7-rc1", (6, 7, 0)),
            ("", (0, 0, 0)),
            ("x", (0, 0, 0)),
        ] {
            assert_eq!(version(text), want, "{text}");
        }
        assert!(kernel_version() >= (4, 0, 0));
        assert!(!machine().is_empty());
    }

    #[test]
    fn a_format_that_nobody_knows() {
        assert_eq!(who_runs(b"no program at all", 0).unwrap(), Runner::Nobody);
    }
}
