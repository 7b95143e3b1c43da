//! `mem-set`: how much memory a guest keeps. What a newcomer would get wrong: the guest is asked, and gives back what it can.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::{DomainRef, size};
use crate::ops::hexagon::verbs;

/// Have a domain with a kernel of its own keep so much memory
#[derive(Debug, Args)]
pub struct MemSet {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
    /// How much: MiB without a unit, as in xl
    #[arg(value_name = "MEM", value_parser = size::parse)]
    memory: u64,
}

impl Verb for MemSet {
    const NAME: &'static str = "mem-set";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        verbs::set_memory(&ctx, &self.domain, self.memory)?;
        Ok(0)
    }
}
