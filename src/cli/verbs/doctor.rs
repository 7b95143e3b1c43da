//! wip
use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::ops;
use clap::Args;
/// wip
#[derive(Debug, Args)]
pub struct Doctor {}
impl Verb for Doctor {
    const NAME: &'static str = "doctor";
    fn run(self, _front: &Front) -> Outcome {
        Err(ops::Error::general("doctor is not built yet").into())
    }
}
