//! QEMU as a driver: a pure function from a description to words ([`argv`]), and what is said to the running program over its
//! sockets ([`qmp`], [`agent`]). What a newcomer would get wrong: QEMU never ends by itself when the guest does. It is started so
//! that a power-off, a reboot and a kernel's panic are *events*, after which it stands still until it is told to quit
//! (docs/architecture.md, "Guests with a kernel of their own").

pub mod abilities;
pub mod agent;
pub mod argv;
mod error;
#[cfg(test)]
mod golden;
pub mod kvm;
pub mod parts;
pub mod plug;
pub mod qmp;
pub mod saving;
pub mod verbs;
mod wire;

pub use crate::domain::full::{Executor as Accel, Ports};
pub use error::{Error, Peer};

use std::os::fd::RawFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The machines that are driven. Others (boards) have no bus to plug anything into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A PC with PCI Express.
    Q35,
    /// The machine without a model in the world, which ARM and RISC-V guests get.
    Virt,
}

/// A byte stream of QEMU's: who is at its other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// A connected socket that the program inherits.
    Connected(RawFd),
    /// A listening socket that the program inherits.
    Listening(RawFd),
    /// A path where the program listens, as it sees it.
    Path(PathBuf),
}

/// What a guest's console may write before anybody reads it, in bytes of the kernel's memory ([`crate::sys::sock::roomy_pair`]): ten thousand
/// characters. **An ARM machine whose console is full stands still as a whole**, its control socket too: QEMU's model of that serial port
/// writes with its big lock held. So whoever holds the console must read it at all times, and must not wait for an answer of QEMU's
/// meanwhile ([`qmp::Qmp::send`] and [`qmp::Qmp::take`] do not). Source: QEMU's hw/char/pl011.c.
pub const CONSOLE_ROOM: usize = 8 << 20;

/// All that is decided about one run besides what the guest is. What is `Serialize`d of it by callers (machine, CPU, ports) must be
/// the same when a saved guest is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// Which kind of machine.
    pub kind: Kind,
    /// The machine with its version, as this QEMU names it: `virt-7.2`, `pc-q35-7.2`.
    pub machine: String,
    /// Who executes.
    pub accel: Accel,
    /// QEMU's name of the CPU model.
    pub cpu: String,
    /// Whether this QEMU can forbid itself system calls.
    pub sandbox: bool,
    /// What can be plugged in.
    pub ports: Ports,
    /// Whether the guest's state comes later, by [`qmp::Qmp::restore`].
    pub incoming: bool,
    /// Whether nobody needs the disks after this run: then nothing waits for the host's disk.
    pub throw_away: bool,
    /// The control socket of who started it.
    pub qmp: Channel,
    /// Another one, for verbs: one at a time is served.
    pub verbs: Option<Channel>,
    /// The serial console; see [`CONSOLE_ROOM`].
    pub console: Channel,
    /// The guest agent's channel.
    pub agent: Option<Channel>,
    /// Files of disks that the program inherits, instead of opening them by their paths.
    pub files: Vec<(PathBuf, RawFd)>,
    /// For each network interface on a bridge, in the order of the description: the tap device, open.
    pub taps: Vec<Option<RawFd>>,
}
