//! `run` without `--boot`: one command in an image, without an init.

use super::create::Create;
use super::exec::Command;
use super::{Ctx, Error, Result};

/// Runs one command in a throw-away domain; an empty command means the image's own. Returns its exit status.
pub fn run(_ctx: &Ctx, _create: Create, _command: Command) -> Result<u8> {
    Err(Error::general("run is not built yet"))
}
