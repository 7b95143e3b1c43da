//! The monitor: the process that owns one running domain. Its pty, its console log, its clients, the guest's readiness and
//! the end of it. What a newcomer would get wrong: there is no daemon; each domain has its own monitor, which ends with it,
//! and this room knows nothing of nspawn: [`guest::Guest`] is what it drives.
//!
//! ```text
//! starter ──socketpair──▶ monitor ◀──control socket── console, shutdown, reboot, destroy …
//!                            │ pty, notify socket, pidfd
//!                            ▼
//!                          guest
//! ```

pub mod client;
pub mod guest;
pub mod log;
pub mod protocol;
pub mod server;

pub use guest::{Guest, Outcome, Started};
pub use protocol::{Event, How, Request};
pub use server::HOST_STOPS;
