//! `block-list`: the disks of a domain with a kernel of its own, in xl's columns. What a newcomer would get wrong: what Xen has and QEMU
//! has not (event channels, rings) is -1.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{guest, output};
use crate::domain::DomainRef;
use crate::ops::hexagon::devices;

/// List the disks of a domain with a kernel of its own
#[derive(Debug, Args)]
pub struct BlockList {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
}

impl Verb for BlockList {
    const NAME: &'static str = "block-list";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let header = "Vdev  BE  handle state evt-ch ring-ref BE-path                       ".to_owned();
        let rows = devices::blocks(&ctx, &self.domain)?.into_iter().enumerate().map(|(n, block)| {
            let source = block.source.unwrap_or_default();
            format!("{:<5} {:<3} {:<6} {:<5} {:<6} {:<8} {source}", block.id, 0, n + 1, 4, -1, -1)
        });
        output::lines(std::iter::once(header).chain(rows))?;
        Ok(0)
    }
}
