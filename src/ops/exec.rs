//! `exec`: one more command in a running domain.

use std::ffi::OsString;

use super::{Ctx, Error, Result};
use crate::domain::DomainRef;

/// A command to run inside.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// The program and its words; never empty.
    pub words: Vec<OsString>,
    /// Keep stdin open (`-i`; stdin is passed when it is not a terminal, too).
    pub interactive: bool,
    /// Use a terminal (`-t`); decided by stdin and stdout when it is none.
    pub tty: Option<bool>,
    /// `user[:group]`, the guest's names or numbers; root when none.
    pub user: Option<String>,
    /// Where it starts; the user's home when none.
    pub workdir: Option<String>,
    /// More variables.
    pub env: Vec<(OsString, OsString)>,
}

/// Runs a command in a running domain; returns its exit status (128+N for signal N). Errors: no such domain, its state,
/// command not found (127) or not executable (126).
pub fn exec(_ctx: &Ctx, _domain: &DomainRef, _command: Command) -> Result<u8> {
    Err(Error::general("exec is not built yet"))
}
