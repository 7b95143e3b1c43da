//! `run`: one command in a throw-away domain, as `docker run --rm`. What a newcomer would get wrong: options end at the image;
//! everything after it is the command's, `-i` and `-t` too.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use clap::builder::OsStringValueParser;

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::{guest, request, words};
use crate::ops::{self, Ctx};

/// Run one command in an image, without an init
///
/// The domain is discarded afterwards. The exit status is the command's, 128+N if signal N ended it, 127 if there is no such
/// command, 126 if it cannot be run, and 125 if pronto itself failed. Without a command the image's own is run.
#[derive(Debug, Args)]
#[command(override_usage = "pronto run [OPTIONS] IMAGE [--] [COMMAND [ARG…]]")]
pub struct Run {
    /// Boot the image's init first, and run the command when the guest is ready
    #[arg(long)]
    boot: bool,
    /// The domain's name; made from the image if it is not given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    options: guest::GuestOptions,
    #[command(flatten)]
    how: guest::CommandOptions,
    /// With --boot, how long to wait until the guest is ready: 90, 90s, 2m, 1h
    #[arg(long, value_name = "D", value_parser = words::duration, requires = "boot")]
    timeout: Option<Duration>,
    /// The domain is always discarded; this is for words made for docker
    #[arg(long, hide = true)]
    rm: bool,
    /// The image, then the command and its words
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true, value_parser = OsStringValueParser::new())]
    words: Vec<OsString>,
}

impl Verb for Run {
    const NAME: &'static str = "run";
    const AROUND: bool = true;

    fn run(mut self, front: &Front) -> Outcome {
        let image = self.words.remove(0);
        let words = guest::command_words(self.words);
        if self.boot && words.is_empty() {
            return Err(Failure::usage("pronto: run --boot needs a command: pronto run --boot IMAGE COMMAND…"));
        }
        let env = std::mem::take(&mut self.options.env);
        let access = std::mem::take(&mut self.options.access);
        let mut what = request::one_command(&image, self.name, self.options, front)?;
        what.timeout = self.timeout;
        what.spec.rm = true;
        let command = self.how.command(words, env);
        let ctx = Ctx { access: access.access()?, ..front.ctx(Self::NAME)? };
        if self.boot {
            Ok(ops::oneshot::oneshot(&ctx, what, command)?)
        } else {
            Ok(ops::run::run(&ctx, what, command)?)
        }
    }
}
