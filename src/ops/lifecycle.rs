//! The verbs that move a domain from state to state.

use std::time::Duration;

use super::{Ctx, Error, Result};
use crate::domain::{DomainRef, Name};

fn unbuilt<T>(what: &str) -> Result<T> {
    Err(Error::general(format!("{what} is not built yet")))
}

/// Which domains a verb is for.
#[derive(Debug, Clone)]
pub enum Which {
    /// `-a`.
    All,
    /// By name or domid.
    These(Vec<DomainRef>),
}

/// Asks guests to power off; with `wait` returns when everything of them is gone (killed after the time-out).
/// `note` gets xl's progress lines ("Shutting down domain 2").
pub fn shutdown(_ctx: &Ctx, _which: &Which, _wait: bool, _timeout: Option<Duration>) -> Result<()> {
    unbuilt("shutdown")
}
/// Asks guests to reboot; with `wait` returns when they are ready again.
pub fn reboot(_ctx: &Ctx, _which: &Which, _wait: bool, _timeout: Option<Duration>) -> Result<()> {
    unbuilt("reboot")
}
/// Ends a running domain now, paused or wedged. A shut-off one is an error, as for a missing one.
pub fn destroy(_ctx: &Ctx, _domain: &DomainRef) -> Result<()> {
    unbuilt("destroy")
}
/// Freezes a domain.
pub fn pause(_ctx: &Ctx, _domain: &DomainRef) -> Result<()> {
    unbuilt("pause")
}
/// Thaws a domain.
pub fn unpause(_ctx: &Ctx, _domain: &DomainRef) -> Result<()> {
    unbuilt("unpause")
}
/// Makes a domain without starting it (xm's `new`).
pub fn new(_ctx: &Ctx, _what: super::create::Create) -> Result<Name> {
    unbuilt("new")
}
/// Starts a shut-off domain.
pub fn start(
    _ctx: &Ctx,
    _domain: &DomainRef,
    _wait: bool,
    _timeout: Option<Duration>,
    _paused: bool,
) -> Result<super::create::Created> {
    unbuilt("start")
}
/// Removes a shut-off domain, its name and its disk.
pub fn delete(_ctx: &Ctx, _domain: &DomainRef) -> Result<()> {
    unbuilt("delete")
}
/// Gives a domain another name.
pub fn rename(_ctx: &Ctx, _domain: &DomainRef, _to: &Name) -> Result<()> {
    unbuilt("rename")
}
