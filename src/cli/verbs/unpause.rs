//! `unpause`: thaws a domain. What a newcomer would get wrong: one that runs is fine, as in xl.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops;

/// Go on with a paused domain
#[derive(Debug, Args)]
pub struct Unpause {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
}

impl Verb for Unpause {
    const NAME: &'static str = "unpause";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        ops::lifecycle::unpause(&ctx, &self.domain)?;
        Ok(0)
    }
}
