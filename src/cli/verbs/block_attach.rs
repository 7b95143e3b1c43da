//! `block-attach`: brings a disk to a running guest. What a newcomer would get wrong: the words are xl's (xl-disk-configuration(5)), and several words are
//! one description.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops::hexagon::devices;

/// Bring a disk to a running domain with a kernel of its own
#[derive(Debug, Args)]
pub struct BlockAttach {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
    /// The disk in xl's words: /srv/data.img,qcow2,xvdb,rw
    #[arg(value_name = "DISK", required = true)]
    disk: Vec<String>,
}

impl Verb for BlockAttach {
    const NAME: &'static str = "block-attach";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        devices::attach_block(&ctx, &self.domain, &self.disk)?;
        Ok(0)
    }
}
