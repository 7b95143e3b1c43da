//! The floor of the house: processes, namespaces, mounts, files, sockets, terminals; the only room with `unsafe` and the only
//! one that starts programs. A newcomer would get wrong that nothing here knows what a domain or an image is: this room
//! wraps the kernel and says nothing about pronto.

#![allow(unsafe_code, reason = "the one room that talks to the kernel directly; every block says why it is sound")]

pub mod acct;
pub mod caps;
pub mod cgroup;
pub mod clock;
pub mod deadline;
pub mod devices;
pub mod disk;
pub mod fail;
pub mod fs;
pub mod gate;
pub mod host;
pub mod jail;
pub mod kvm;
pub mod lock;
pub mod mount;
pub mod ns;
pub mod overlay;
pub mod process;
pub mod pty;
pub mod remove;
pub mod root;
pub mod seccomp;
pub mod signal;
pub mod sock;
pub mod systemd_bus;
pub mod tag;
pub mod tap;
mod tiny;
pub mod unfinished;
pub mod unpack;
pub mod userns;
pub mod xattr;
pub mod xen;
