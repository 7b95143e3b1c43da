//! `pronto IMAGE COMMAND…` and `run --boot`: boot a throw-away domain, run one command in it when it is ready, stop it.

use super::create::Create;
use super::exec::Command;
use super::{Ctx, Error, Result};

/// Boots, runs, stops; returns the command's exit status. Errors: as create and exec; nothing is left behind.
pub fn oneshot(_ctx: &Ctx, _create: Create, _command: Command) -> Result<u8> {
    Err(Error::general("one-off commands are not built yet"))
}
