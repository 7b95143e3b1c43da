//! `pause`: freezes a domain. What a newcomer would get wrong: pausing twice is fine, as in xl.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops;

/// Freeze a running domain
#[derive(Debug, Args)]
pub struct Pause {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
}

impl Verb for Pause {
    const NAME: &'static str = "pause";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        ops::lifecycle::pause(&ctx, &self.domain)?;
        Ok(0)
    }
}
