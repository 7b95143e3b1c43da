//! A registry of interpreters that belongs to one user namespace: what is registered there the host never sees, and it ends
//! with whoever holds it. What a newcomer would get wrong: once a namespace has one, the host's no longer counts in it, even
//! when the own one is empty; so it is mounted and filled in one go. It is mounted nowhere: the mount's descriptor is all that
//! keeps it, so that no guest's init can unmount it on its way down. Source: Linux 6.7, "binfmt_misc: enable sandboxed
//! mounts"; Documentation/admin-guide/binfmt-misc.rst.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::sys::mount;

/// Makes the registry of the calling process's user namespace and registers these lines (binfmt.d(5)) in it; interpreters
/// with flag F are opened now, as this process sees them. Errors: EPERM without CAP_SYS_ADMIN in that namespace or before Linux
/// 6.7, ENOENT or EACCES for an interpreter that its root may not execute, EINVAL for a line that the kernel does not take.
pub fn private(lines: &[String]) -> io::Result<OwnedFd> {
    let registry = mount::detached(c"binfmt_misc")?;
    let flags = nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_CLOEXEC;
    let register = nix::fcntl::openat(&registry, "register", flags, nix::sys::stat::Mode::empty())?;
    let mut register = std::fs::File::from(register);
    for line in lines {
        // One write(2) is one command.
        register.write_all(line.as_bytes())?;
    }
    Ok(registry)
}

/// The interpreter that a line of binfmt.d(5) names: `:name:M:offset:magic:mask:interpreter:flags`, with any separator.
pub fn interpreter_of(line: &str) -> Option<PathBuf> {
    let separator = line.chars().next()?;
    line.split(separator).nth(6).filter(|path| path.starts_with('/')).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_in_a_line() {
        assert_eq!(
            interpreter_of(":a:M::x:y:/usr/bin/qemu-arm:POCF").as_deref(),
            Some(std::path::Path::new("/usr/bin/qemu-arm"))
        );
        assert_eq!(interpreter_of(""), None);
        assert_eq!(interpreter_of(":a:M:"), None);
    }
}
