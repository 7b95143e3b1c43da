//! `version`: ours. What a newcomer would get wrong: it comes from Cargo.toml and stands nowhere else.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::output;

/// Print the version
#[derive(Debug, Args)]
pub struct Version {}

impl Verb for Version {
    const NAME: &'static str = "version";

    fn run(self, _front: &Front) -> Outcome {
        output::own(concat!("pronto ", env!("CARGO_PKG_VERSION"), "\n"))?;
        Ok(0)
    }
}
