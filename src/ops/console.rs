//! `console` and `logs`: what a guest's console shows.

use super::{Ctx, Error, Result};
use crate::domain::DomainRef;

/// Attaches the terminal to a domain's console until `^]` or its end. With a stdin that is no terminal it prints the backlog
/// and follows, and ends with the domain.
pub fn console(_ctx: &Ctx, _domain: &DomainRef) -> Result<()> {
    Err(Error::general("console is not built yet"))
}

/// Writes the console's log to stdout, and goes on as it grows with `follow`.
pub fn logs(_ctx: &Ctx, _domain: &DomainRef, _follow: bool) -> Result<()> {
    Err(Error::general("logs is not built yet"))
}
