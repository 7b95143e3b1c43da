//! `domid`: from a name to a domid. What a newcomer would get wrong: it takes names only; `xl domid 1` fails as well.

use clap::Args;

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::output;
use crate::domain::DomainRef;
use crate::ops::{self, Kind};

/// Print the domid of a running domain
#[derive(Debug, Args)]
pub struct Domid {
    /// The domain's name
    #[arg(value_name = "NAME")]
    name: String,
}

impl Verb for Domid {
    const NAME: &'static str = "domid";

    fn run(self, front: &Front) -> Outcome {
        let missing = || {
            Failure::said(
                format!("Can't get domid of domain name '{}', maybe this domain does not exist.", self.name),
                1,
            )
        };
        let ctx = front.ctx(Self::NAME)?;
        let rows = match ops::list::list(&ctx, false, &[DomainRef::Name(self.name.clone())]) {
            Err(error) if error.kind() == Kind::NoDomain => return Err(missing()),
            other => other?,
        };
        let domid = rows.iter().find(|row| row.name == self.name).and_then(|row| row.domid).ok_or_else(missing)?;
        output::lines([domid.to_string()])?;
        Ok(0)
    }
}
