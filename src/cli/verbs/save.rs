//! `save`: a guest's memory to a file. What a newcomer would get wrong: the guest's disk stays where it is, so the file is good for that disk alone.

use std::path::PathBuf;

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops::hexagon::saving;

/// Write the memory of a domain with a kernel of its own to a file, and end it
#[derive(Debug, Args)]
pub struct Save {
    /// Leave it paused
    #[arg(short)]
    paused: bool,
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
    /// Where to
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Verb for Save {
    const NAME: &'static str = "save";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        saving::save(&ctx, &self.domain, &self.file, self.paused)?;
        Ok(0)
    }
}
