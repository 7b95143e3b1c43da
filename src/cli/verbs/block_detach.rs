//! `block-detach`: takes a disk from a running guest. What a newcomer would get wrong: the guest is asked, and keeps a disk that it uses.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops::hexagon::devices;

/// Take a disk from a running domain with a kernel of its own
#[derive(Debug, Args)]
pub struct BlockDetach {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
    /// The disk: xvdb, or its number in block-list
    #[arg(value_name = "DISK")]
    disk: String,
}

impl Verb for BlockDetach {
    const NAME: &'static str = "block-detach";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        devices::detach_block(&ctx, &self.domain, &self.disk)?;
        Ok(0)
    }
}
