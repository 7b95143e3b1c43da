//! `rename`: another name for a domain. What a newcomer would get wrong: the guest's hostname stays as it is until it boots anew.

use clap::Args;

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::guest;
use crate::domain::{DomainRef, Name};
use crate::ops;

/// Give a domain another name
#[derive(Debug, Args)]
pub struct Rename {
    /// The domain's name or domid
    #[arg(value_name = "OLD", value_parser = guest::domain())]
    domain: DomainRef,
    /// Its new name
    #[arg(value_name = "NEW")]
    to: String,
}

impl Verb for Rename {
    const NAME: &'static str = "rename";

    fn run(self, front: &Front) -> Outcome {
        let to = Name::new(&self.to).map_err(|why| Failure::usage(format!("pronto: {why}")))?;
        let ctx = front.ctx(Self::NAME)?;
        ops::lifecycle::rename(&ctx, &self.domain, &to)?;
        Ok(0)
    }
}
