//! `shutdown`: asks a domain to power off. What a newcomer would get wrong: without `-w` it returns as soon as the guest was asked, as xl.

use std::time::Duration;

use clap::Args;

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::{guest, words};
use crate::domain::DomainRef;
use crate::ops;
use crate::ops::lifecycle::Which;

/// Ask a domain to power off
#[derive(Debug, Args)]
#[command(override_usage = "pronto shutdown [OPTIONS] <-a|NAME>")]
pub struct Shutdown {
    /// All domains
    #[arg(short, long, conflicts_with = "domain")]
    all: bool,
    /// Return when everything of it is gone
    #[arg(short, long, action = clap::ArgAction::Count)]
    wait: u8,
    /// How long to wait before it is killed: 90, 90s, 2m, 1h
    #[arg(long, value_name = "D", value_parser = words::duration)]
    timeout: Option<Duration>,
    /// In xl: fall back to ACPI for guests without PV drivers
    #[arg(short = 'F', hide = true)]
    fallback: bool,
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: Option<DomainRef>,
}

impl Verb for Shutdown {
    const NAME: &'static str = "shutdown";

    fn run(self, front: &Front) -> Outcome {
        let which = match self.domain {
            Some(domain) => Which::These(vec![domain]),
            None if self.all => Which::All,
            None => return Err(Failure::said("You must specify -a or a domain id.", 1)),
        };
        let ctx = front.ctx(Self::NAME)?;
        ops::lifecycle::shutdown(&ctx, &which, self.wait > 0, self.timeout)?;
        Ok(0)
    }
}
