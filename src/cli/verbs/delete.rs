//! `delete`: removes a shut-off domain. What a newcomer would get wrong: a running one is refused; `destroy` it first.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops;

/// Remove a shut-off domain, its name and its disk
#[derive(Debug, Args)]
pub struct Delete {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
}

impl Verb for Delete {
    const NAME: &'static str = "delete";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        ops::lifecycle::delete(&ctx, &self.domain)?;
        Ok(0)
    }
}
