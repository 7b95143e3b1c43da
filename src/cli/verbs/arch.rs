//! wip
use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::ops;
use clap::Args;
/// wip
#[derive(Debug, Args)]
pub struct Arch {}
impl Verb for Arch {
    const NAME: &'static str = "arch";
    fn run(self, _front: &Front) -> Outcome {
        Err(ops::Error::general("arch is not built yet").into())
    }
}
