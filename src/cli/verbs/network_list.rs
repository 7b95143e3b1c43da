//! `network-list`: the network interfaces of a domain with a kernel of its own, in xl's columns. What a newcomer would get wrong: what Xen has and QEMU
//! has not is -1; the last column is the bridge, or `user` behind this host's address.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{guest, output};
use crate::domain::DomainRef;
use crate::ops::hexagon::devices;

/// List the network interfaces of a domain with a kernel of its own
#[derive(Debug, Args)]
pub struct NetworkList {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
}

impl Verb for NetworkList {
    const NAME: &'static str = "network-list";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let header =
            "Idx BE Mac Addr.         handle state evt-ch   tx-/rx-ring-ref BE-path                       ".to_owned();
        let rows = devices::interfaces(&ctx, &self.domain)?.into_iter().map(|row| {
            let index = row.index;
            format!(
                "{index:<3} {:<2} {:<17} {index:<6} {:<5} {:<6}   {:>5}/{:<9} {}",
                0, row.mac, 4, -1, -1, -1, row.link
            )
        });
        output::lines(std::iter::once(header).chain(rows))?;
        Ok(0)
    }
}
