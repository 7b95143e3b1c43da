//! `domname`: from a domid to a name. What a newcomer would get wrong: a name instead of a number is another error than a number
//! that no domain has, as in xl.

use clap::Args;

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::output;
use crate::domain::DomainRef;
use crate::ops::{self, Kind};

/// Print the name of the domain that has a domid
#[derive(Debug, Args)]
pub struct Domname {
    /// The domid
    #[arg(value_name = "ID")]
    id: String,
}

impl Verb for Domname {
    const NAME: &'static str = "domname";

    fn run(self, front: &Front) -> Outcome {
        let missing = || {
            Failure::said(
                format!("Can't get domain name of domain id '{}', maybe this domain does not exist.", self.id),
                1,
            )
        };
        if self.id.is_empty() || !self.id.bytes().all(|b| b.is_ascii_digit()) {
            // xl ends this one with an empty line.
            return Err(Failure::said("Invalid domain id.\n", 1));
        }
        let DomainRef::Id(id) = DomainRef::from(self.id.as_str()) else { return Err(missing()) };
        let ctx = front.ctx(Self::NAME)?;
        let rows = match ops::list::list(&ctx, false, &[DomainRef::Id(id)]) {
            Err(error) if error.kind() == Kind::NoDomain => return Err(missing()),
            other => other?,
        };
        let row = rows.iter().find(|row| row.domid == Some(id)).ok_or_else(missing)?;
        output::lines([&row.name])?;
        Ok(0)
    }
}
