//! `exec`: one more command in a running domain. What a newcomer would get wrong: options end at the domain's name.

use std::ffi::OsString;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::words::{self, Variable};
use crate::cli::{choices, guest};
use crate::domain::{Accel, DomainRef};
use crate::ops::{self, exec::Command};

/// Run a command in a running domain
///
/// A terminal of the guest's is used when stdin and stdout are terminals, or with -t. The exit status is the command's, 128+N
/// if signal N ended it, 127 if there is no such command, 126 if it cannot be run, and 125 if pronto itself failed.
#[derive(Debug, Args)]
#[command(override_usage = "pronto exec [OPTIONS] NAME [--] COMMAND [ARG…]")]
pub struct Exec {
    #[command(flatten)]
    how: guest::CommandOptions,
    /// Set a variable; without a value it is taken from this command's environment
    #[arg(short, long = "env", value_name = "K=V", value_parser = OsStringValueParser::new().try_map(words::variable))]
    env: Vec<Variable>,
    /// Run nothing native: the command and all that it starts are emulated, whatever the domain was started with
    #[arg(long, value_name = "off", value_parser = choices::no_accel)]
    accel: Option<Accel>,
    /// The domain, then the command and its words
    #[arg(value_name = "NAME", required = true, trailing_var_arg = true, value_parser = OsStringValueParser::new())]
    words: Vec<OsString>,
}

impl Verb for Exec {
    const NAME: &'static str = "exec";
    const AROUND: bool = true;

    fn run(mut self, front: &Front) -> Outcome {
        let domain = DomainRef::from(self.words.remove(0).to_string_lossy().as_ref());
        let words = guest::command_words(self.words);
        if words.is_empty() {
            return Err(Failure::usage("'pronto exec' requires at least 2 arguments."));
        }
        let command = Command { emulated: self.accel.is_some(), ..self.how.command(words, self.env) };
        let ctx = front.ctx(Self::NAME)?;
        Ok(ops::exec::exec(&ctx, &domain, command)?)
    }
}
