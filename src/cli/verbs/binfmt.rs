//! wip
use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::ops;
use clap::Args;
/// wip
#[derive(Debug, Args)]
pub struct Binfmt {}
impl Verb for Binfmt {
    const NAME: &'static str = "binfmt";
    fn run(self, _front: &Front) -> Outcome {
        Err(ops::Error::general("binfmt is not built yet").into())
    }
}
