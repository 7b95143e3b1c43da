//! The child that becomes QEMU. What a newcomer would get wrong: all that it needs of the host is opened before the fork, for in its room there is nothing
//! of it any more.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::CloneFlags;

use super::room::Room;
use crate::backend::Launch;
use crate::backend::hexagon::Boot;
use crate::domain::full::Executor;
use crate::sys::cgroup::Cage;
use crate::sys::process::Tool;
use crate::sys::{ns, process, signal};

/// What QEMU may see: itself, and what its machine starts.
pub fn room(program: &Path, boot: &Boot, executor: Executor) -> std::io::Result<Room> {
    let mut room = Room::new()?;
    room.show(program, true)?;
    if executor == Executor::Kvm {
        room.show(Path::new("/dev/kvm"), false)?;
    }
    match boot {
        Boot::Kernel { kernel, ramdisk, .. } => {
            room.show(kernel, true)?;
            ramdisk.as_deref().map_or(Ok(()), |path| room.show(path, true))?;
        }
        Boot::Firmware { code, variables } => {
            room.show(code, true)?;
            variables.as_deref().map_or(Ok(()), |path| room.show(path, false))?;
        }
        Boot::Itself => {}
    }
    Ok(room)
}

/// The child that becomes QEMU.
#[derive(Debug)]
pub struct Child {
    /// Its words.
    pub launch: Launch,
    /// What it sees of the host.
    pub room: Room,
    /// What it inherits.
    pub inherited: Vec<OwnedFd>,
    /// Where what it says goes.
    pub said: File,
    /// The domain's cgroups.
    pub cage: Cage,
}

impl Child {
    /// Starts it in the domain's cgroups, with nothing open but what it inherits. Errors: what went wrong before it was QEMU.
    pub fn spawn(self) -> std::io::Result<ns::Process> {
        let apart = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
        process::spawn_reporting(apart, move || self.execute())
    }

    fn execute(self) -> std::io::Error {
        match self.replace() {
            Ok(never) => match never {},
            Err(e) => e,
        }
    }

    fn replace(self) -> std::io::Result<std::convert::Infallible> {
        // "0" is the writing process itself.
        self.cage.join_guest(0).map_err(|e| std::io::Error::other(e.to_string()))?;
        self.room.enter()?;
        // What the monitor waits for is blocked in it.
        signal::reset();
        let mut tool = Tool::new(&self.launch.words[0]).args(&self.launch.words[1..]);
        for fd in self.inherited {
            tool = tool.inherit(fd);
        }
        let command = tool.command();
        command.env_clear().envs(self.launch.env).current_dir("/");
        command.stdin(std::process::Stdio::null()).stdout(self.said.try_clone()?).stderr(self.said);
        Err(tool.execute())
    }
}
