//! Making systems that boot: a whole one from a package mirror ([`bootstrap`]). What a newcomer would get wrong: this runs
//! programs of the guest's architecture, so what interprets them must be registered first.

pub mod bootstrap;

use super::inspect::Facts;
use super::{Ctx, Interrupt, Result};
use crate::arch::Profiles;
use crate::domain::{Artifact, Layer};

/// What is wished for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Where packages come from instead of the image's own sources.
    pub mirror: Option<&'a str>,
    /// Register the interpreter with the C flag.
    pub credentials: bool,
}

/// Gives an image without an init systemd and dbus, by its own package manager, as a stored layer keyed by its parents.
/// `None`: this image cannot be given one (no package manager that is known).
pub fn provision(
    _ctx: &Ctx,
    _artifact: &Artifact,
    _facts: &Facts,
    _profiles: &Profiles,
    _wish: &Wish<'_>,
    _interrupt: &mut Interrupt,
) -> Result<Option<Layer>> {
    Ok(None)
}
