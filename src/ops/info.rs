//! `info`: the host, in xl's `name : value` lines.

use super::{Ctx, Error, Result};

/// Names and values in the order to print them.
pub fn info(_ctx: &Ctx) -> Result<Vec<(String, String)>> {
    Err(Error::general("info is not built yet"))
}
