//! `network-attach`: brings a network interface to a running guest. What a newcomer would get wrong: the words are xl's
//! (xl-network-configuration(5)), each one by itself.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops::hexagon::devices;

/// Bring a network interface to a running domain with a kernel of its own
#[derive(Debug, Args)]
pub struct NetworkAttach {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
    /// The interface in xl's words: bridge=br0 mac=00:16:3e:01:02:03
    #[arg(value_name = "KEY=VALUE")]
    words: Vec<String>,
}

impl Verb for NetworkAttach {
    const NAME: &'static str = "network-attach";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        devices::attach_nic(&ctx, &self.domain, &self.words)?;
        Ok(0)
    }
}
