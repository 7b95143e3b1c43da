//! `console`: a domain's console. What a newcomer would get wrong: it is the guest's console, not a new shell; that is `exec`.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops;

/// Attach to a domain's console; ^] detaches
#[derive(Debug, Args)]
pub struct Console {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
}

impl Verb for Console {
    const NAME: &'static str = "console";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        ops::console::console(&ctx, &self.domain)?;
        Ok(0)
    }
}
