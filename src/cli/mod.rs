//! The front: the only room that prints or picks an exit code. What a newcomer would get wrong: stdout is data, stderr is talk;
//! and a verb's words are defined once, in its `Args` struct, from which help, completions and docs/cli/ are made.
//!
//! ```text
//! dispatch   words → verb → exit code        grammar   what the first word is      foreign         xl's verbs, mistyped ones
//! front      global options, Ctx             verbs/    one file each               tree            the whole for help and docs
//! guest      create's, new's and run's part  request   options, keys → a request   words, choices  readers of single words
//! gather     file, image, key=value words    described what keys say               which           whose kernel, the backend
//! usage      xl's sentences                  failure   exit codes, error lines     output, text    stdout, escaping
//! progress   the voice on stderr, bars       trace     --verbose, --debug          details         xl's JSON
//! access     logins, certificates
//! ```

mod access;
mod choices;
mod described;
mod details;
mod dispatch;
mod failure;
mod foreign;
mod front;
mod gather;
mod grammar;
mod guest;
mod output;
mod progress;
pub mod reference;
mod request;
mod text;
mod trace;
mod tree;
mod usage;
mod verbs;
mod which;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::domain::near;

/// Runs the program with its words (the program's own first).
pub fn main(words: Vec<OsString>) -> ExitCode {
    ExitCode::from(dispatch::run(words))
}
