//! Guests with a kernel of their own: what an image becomes for them, which machine they get, and the verbs that reach QEMU. What a newcomer would get
//! wrong: a guest's disk is made once, when the domain is made; the image is not looked at again.
//!
//! ```text
//! domains/<name>/disk.img, kernel, ramdisk    made of the image
//! <run>/domains/<uuid>/verbs, agent           QEMU's sockets, for verbs: one at a time is served
//! <run>/domains/<uuid>/qemu.log               what QEMU itself says
//! ```

pub mod agent;
pub mod devices;
pub mod disk;
pub mod machine;
pub mod prepare;
pub mod saving;
pub mod verbs;

use super::Error;

/// An error of a verb's with somebody else's reason: QEMU's, the agent's, the kernel's.
fn because<E: std::fmt::Display>(what: impl FnOnce() -> String) -> impl FnOnce(E) -> Error {
    move |why| Error::general(what()).because(why.to_string())
}

/// The name of QEMU's control socket for verbs.
pub const VERBS: &str = "verbs";
/// The name of the guest agent's channel.
pub const AGENT: &str = "agent";
/// The root disk's file in the domain's directory.
pub const DISK: &str = "disk.img";
/// What it has when nothing is said, in bytes.
pub const MEMORY: u64 = 1 << 30;
