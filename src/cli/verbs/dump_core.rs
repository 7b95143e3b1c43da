//! `dump-core`: a guest's memory as an ELF core, for gdb and crash. What a newcomer would get wrong: the guest stands still meanwhile.

use std::path::PathBuf;

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::DomainRef;
use crate::ops::hexagon::verbs;

/// Write the memory of a domain with a kernel of its own as an ELF core
#[derive(Debug, Args)]
pub struct DumpCore {
    /// The domain's name or domid
    #[arg(value_name = "NAME", value_parser = guest::domain())]
    domain: DomainRef,
    /// Where to
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Verb for DumpCore {
    const NAME: &'static str = "dump-core";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        verbs::dump_core(&ctx, &self.domain, &self.file)?;
        Ok(0)
    }
}
