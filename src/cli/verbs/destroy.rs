//! `destroy`: ends a domain now. What a newcomer would get wrong: its disk outlives it; `delete` removes that.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops;

/// End a running domain now, paused or wedged as it may be
///
/// Its disk stays, unless it was made with --rm: 'pronto start' starts it again, 'pronto delete' removes it.
#[derive(Debug, Args)]
pub struct Destroy {
    /// In xl: permit domain 0, which does not exist here
    #[arg(short, hide = true)]
    force: bool,
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
}

impl Verb for Destroy {
    const NAME: &'static str = "destroy";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        ops::lifecycle::destroy(&ctx, &self.domain)?;
        Ok(0)
    }
}
