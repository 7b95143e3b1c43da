//! `cp`: files into and out of a domain. What a newcomer would get wrong: paths are bytes, so they are not read as text here.

use std::ffi::OsString;

use clap::Args;
use clap::builder::OsStringValueParser;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::ops;

/// Copy files into or out of a domain
///
/// One side is NAME:PATH, the other a path of the host's. The rules are docker's: into an existing directory, DIR/. for what
/// is in it, links stay links.
#[derive(Debug, Args)]
#[command(override_usage = "pronto cp NAME:PATH PATH\n       pronto cp PATH NAME:PATH")]
pub struct Cp {
    /// What is copied
    #[arg(value_name = "FROM", value_parser = OsStringValueParser::new())]
    from: OsString,
    /// Where it goes
    #[arg(value_name = "TO", value_parser = OsStringValueParser::new())]
    to: OsString,
}

impl Verb for Cp {
    const NAME: &'static str = "cp";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        ops::copy::copy(&ctx, &self.from, &self.to)?;
        Ok(0)
    }
}
