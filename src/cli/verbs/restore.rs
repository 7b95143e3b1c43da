//! `restore`: a saved guest goes on. What a newcomer would get wrong: the domain is still there, shut off, with its disk; it is not made anew.

use std::path::PathBuf;

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::ops::hexagon::saving;

/// Let a saved domain go on where it stopped
#[derive(Debug, Args)]
pub struct Restore {
    /// Leave it paused
    #[arg(short)]
    paused: bool,
    /// What `save` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Verb for Restore {
    const NAME: &'static str = "restore";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        saving::restore(&ctx, &self.file, self.paused)?;
        Ok(0)
    }
}
