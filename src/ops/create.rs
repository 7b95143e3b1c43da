//! `create`: from an image to a running domain.

use std::time::Duration;

use super::{Ctx, Error, Result};
use crate::domain::{Name, Spec};

/// What was asked of `create`.
#[derive(Debug, Clone)]
pub struct Create {
    /// The domain's name; made from the image when none was given.
    pub name: Option<Name>,
    /// What it shall be.
    pub spec: Spec,
    /// Replace a shut-off domain of this name.
    pub replace: bool,
    /// Wait until the guest is ready.
    pub wait: bool,
    /// How long to wait; 120 s native and 600 s emulated when it is none.
    pub timeout: Option<Duration>,
    /// Keep a domain that was not ready in time.
    pub keep: bool,
    /// Leave it paused.
    pub paused: bool,
    /// Where Debian and Ubuntu packages come from (`--mirror`, `PRONTO_MIRROR`).
    pub mirror: Option<String>,
    /// Register the interpreter without the C flag (setuid programs lose their privilege).
    pub no_credentials: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Created {
    /// The domain.
    pub name: Name,
    /// Its domid.
    pub domid: u32,
    /// Units that failed in the guest (empty when it was not waited for).
    pub failed_units: Vec<String>,
}

/// Makes and starts a domain. Errors: [`super::Kind::Create`] in general; nothing is left behind.
pub fn create(_ctx: &Ctx, _what: Create) -> Result<Created> {
    Err(Error::general("create is not built yet"))
}
