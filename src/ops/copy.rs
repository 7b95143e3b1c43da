//! `cp`: files in and out of a domain.

use std::ffi::OsStr;

use super::{Ctx, Error, Result};

/// Copies `NAME:PATH` to a host path or the other way round (a side without `NAME:` is the host's; `-` is a tar stream).
pub fn copy(_ctx: &Ctx, _from: &OsStr, _to: &OsStr) -> Result<()> {
    Err(Error::general("cp is not built yet"))
}
