//! `pronto IMAGE COMMAND…`: boots a throw-away domain, runs one command in it, stops it. What a newcomer would get wrong: it has
//! no options of its own; those before the image are the global ones, and everything behind it belongs to the command.

use std::ffi::OsString;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::guest::{self, CommandOptions, GuestOptions};
use crate::cli::request;
use crate::ops;

/// Runs the short form; `words` starts with the image.
pub fn short_form(front: &Front, mut words: Vec<OsString>) -> Outcome {
    let image = words.remove(0);
    let words = guest::command_words(words);
    if words.is_empty() {
        let shown = image.to_string_lossy().into_owned();
        return Err(Failure::Usage {
            line: format!("pronto: '{shown}' is an image, and no command follows it"),
            more: vec![format!("  try: pronto create {shown}, or pronto {shown} COMMAND")],
            help: None,
        });
    }
    let mut what = request::one_command(&image, None, GuestOptions::default(), front)?;
    what.spec.rm = true;
    let command = CommandOptions::default().command(words, Vec::new());
    let ctx = front.ctx("IMAGE COMMAND")?;
    Ok(ops::oneshot::oneshot(&ctx, what, command)?)
}
