//! `doctor`: what is wrong with this host, and the cure. What a newcomer would get wrong: it needs no root, and changes nothing.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::output::Format;
use crate::ops;

/// Check this host, and say what to do
///
/// The exit code is 1 if something is broken that guests need.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Columns or JSON
    #[arg(
        long,
        value_name = "table|json",
        hide_possible_values = true,
        hide_default_value = true,
        default_value = "table"
    )]
    format: Format,
}

impl Verb for Doctor {
    const NAME: &'static str = "doctor";

    fn run(self, front: &Front) -> Outcome {
        let _ = (front, self.format);
        Err(ops::Error::general("doctor is not built yet").into())
    }
}
