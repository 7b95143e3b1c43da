//! What a domain is: its name, what was asked for it, and the states it may be in. Pure types: nothing here touches a file.
//! What a newcomer would get wrong: "domain" is Xen's word for a guest, running or not; it has nothing to do with DNS.

pub mod accel;
pub mod accounts;
pub mod artifact;
pub mod full;
pub mod init;
pub mod kernel;
pub mod name;
pub mod near;
pub mod passwd;
pub mod report;
pub mod size;
pub mod spec;
pub mod state;
pub mod xlcfg;

pub use accel::{Accel, Native};
pub use artifact::{Artifact, ImageConfig, Layer, Platform};
pub use full::{Backend, Full, Hardware};
pub use init::{InitKind, Request};
pub use name::{DomainRef, Name, NameError};
pub use report::{Quiet, Report, Step};
pub use spec::{Action, Bind, Network, Registry, Spec};
pub use state::State;
