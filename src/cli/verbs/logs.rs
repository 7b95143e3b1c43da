//! `logs`: what a domain's console has shown. What a newcomer would get wrong: it works for a shut-off domain too.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops;

/// Print what a domain's console has shown
#[derive(Debug, Args)]
pub struct Logs {
    /// Go on as it grows, until the domain ends
    #[arg(short, long)]
    follow: bool,
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
}

impl Verb for Logs {
    const NAME: &'static str = "logs";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        ops::console::logs(&ctx, &self.domain, self.follow)?;
        Ok(0)
    }
}
