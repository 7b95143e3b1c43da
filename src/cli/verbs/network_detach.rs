//! `network-detach`: takes a network interface from a running guest. What a newcomer would get wrong: only the last one can go.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops::hexagon::devices;

/// Take a network interface from a running domain with a kernel of its own
#[derive(Debug, Args)]
pub struct NetworkDetach {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
    /// The interface: its number or address
    #[arg(value_name = "INTERFACE")]
    interface: String,
}

impl Verb for NetworkDetach {
    const NAME: &'static str = "network-detach";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        devices::detach_nic(&ctx, &self.domain, &self.interface)?;
        Ok(0)
    }
}
