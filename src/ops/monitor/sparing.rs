//! Spares an emulated guest what it would do to no effect on its way up (see [`inspect::idle`]): a generator is masked and a service has
//! a condition, both in the guest's /run, written while its init still waits.
//!
//! What a newcomer would get wrong: generators run again at every `systemctl daemon-reload`, when there may be something to do for them,
//! so their masks are gone as soon as the guest is up. The conditions stay: such services start at boot only, and whoever reloads
//! systemd would be told otherwise that their files have changed. /run ends with the guest.
//!
//! [`inspect::idle`]: crate::ops::inspect::idle

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::personal;
use crate::ops::inspect::Idle;
use crate::sys::root::Root;

const GENERATORS: &str = "/run/systemd/system-generators";
const CONDITION: &str = "# Written by pronto: in this guest, as it was started, the service has nothing to do. Its CPU is emulated,\n\
    # where every program that starts costs much. Gone with /run.\n\
    [Unit]\nConditionVirtualization=!container\n";

/// What was masked, and where: a directory that is held, because a guest that runs may put anything in the place of its path.
#[derive(Debug)]
pub struct Spared {
    generators: Vec<&'static str>,
    dir: OwnedFd,
}

/// Writes them below a guest's root, before the guest runs. Errors: as mkdirat(2), symlinkat(2), openat(2); what was masked before is
/// unmasked.
pub fn put(root: &Root, idle: Idle) -> io::Result<Spared> {
    let spared = Spared { generators: idle.generators, dir: directory(root, GENERATORS)? };
    match spared.put(root, &idle.units, idle.console_getty.as_deref()) {
        Ok(()) => Ok(spared),
        Err(e) => spared.take_back().and(Err(e)),
    }
}

impl Spared {
    fn put(&self, root: &Root, units: &[&str], console_getty: Option<&str>) -> io::Result<()> {
        for name in &self.generators {
            symlinkat("/dev/null", &self.dir, *name)?;
        }
        if let Some(unit) = console_getty {
            symlinkat(unit, &directory(root, "/run/systemd/system/getty.target.wants")?, "console-getty.service")?;
        }
        for unit in units {
            let dir = directory(root, &format!("/run/systemd/system/{unit}.d"))?;
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = nix::fcntl::openat(&dir, "50-pronto.conf", flags, Mode::from_bits_truncate(0o644))?;
            File::from(file).write_all(CONDITION.as_bytes())?;
        }
        Ok(())
    }

    /// Takes the masks away: from here on generators run as ever. What the guest has put in their place is its own. Errors: as unlinkat(2).
    pub fn take_back(&self) -> io::Result<()> {
        for name in &self.generators {
            if nix::fcntl::readlinkat(&self.dir, *name).is_ok_and(|target| target == "/dev/null") {
                unlinkat(&self.dir, *name, UnlinkatFlags::NoRemoveDir)?;
            }
        }
        Ok(())
    }
}

/// A directory of the guest's, made where it is not there.
fn directory(root: &Root, path: &str) -> io::Result<OwnedFd> {
    let path = Path::new(path);
    personal::mount_point(root, path, true)?;
    root.open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let idle = Idle {
            generators: vec!["one-generator", "two-generator"],
            units: vec!["some.service"],
            console_getty: None,
        };
        let spared = put(&root, idle).unwrap();
        let generators = dir.path().join("run/systemd/system-generators");
        assert_eq!(std::fs::read_link(generators.join("one-generator")).unwrap(), Path::new("/dev/null"));
        let text =
            std::fs::read_to_string(dir.path().join("run/systemd/system/some.service.d/50-pronto.conf")).unwrap();
        assert!(text.ends_with("\n[Unit]\nConditionVirtualization=!container\n"), "{text}");
        // What the guest has made of it since is left alone.
        std::fs::remove_file(generators.join("two-generator")).unwrap();
        std::fs::create_dir(generators.join("two-generator")).unwrap();
        spared.take_back().unwrap();
        assert!(std::fs::symlink_metadata(generators.join("one-generator")).is_err());
        assert!(generators.join("two-generator").is_dir());
    }
}
