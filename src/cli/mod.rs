//! The front: the only room that prints or picks an exit code. What a newcomer would get wrong: stdout is data, stderr is talk.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with its words (argv[0] first).
pub fn main(_words: Vec<OsString>) -> ExitCode {
    ExitCode::from(1)
}
