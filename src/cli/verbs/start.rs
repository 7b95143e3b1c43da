//! `start`: a shut-off domain runs again, as xm had it. What a newcomer would get wrong: it gets a new domid.

use std::time::Duration;

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{choices, guest, words};
use crate::domain::{Accel, DomainRef};
use crate::ops;

/// Start a shut-off domain
#[derive(Debug, Args)]
pub struct Start {
    /// Wait until the guest is ready (the default)
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// Return as soon as the guest's init runs
    #[arg(long)]
    no_wait: bool,
    /// How long to wait: 90, 90s, 2m, 1h; 120s if it is not given, 600s for an emulated guest
    #[arg(long, value_name = "D", value_parser = words::duration)]
    timeout: Option<Duration>,
    /// Attach to the console at once
    #[arg(short, long)]
    console: bool,
    /// Leave the domain paused
    #[arg(short, long)]
    paused: bool,
    /// From now on, run native programs in the place of a foreign Debian's own, or none
    #[arg(long, value_name = "off|tools|build", value_parser = choices::native)]
    accel: Option<Accel>,
    /// The domain's name
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
}

impl Verb for Start {
    const NAME: &'static str = "start";

    fn run(self, front: &Front) -> Outcome {
        let wait = self.wait || !(self.no_wait || self.console || self.paused);
        let ctx = front.ctx(Self::NAME)?;
        let how = ops::lifecycle::Start { wait, timeout: self.timeout, paused: self.paused, accel: self.accel };
        let started = ops::lifecycle::start(&ctx, &self.domain, how)?;
        guest::tell_failed_units(&ctx, &started);
        if self.console {
            ops::console::console(&ctx, &guest::by_name(&started.name))?;
        }
        Ok(0)
    }
}
