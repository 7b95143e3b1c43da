//! `help`: all verbs, or one. What a newcomer would get wrong: it resolves prefixes, and knows xl's verbs, as the first word does.

use clap::Args;

use super::Verb;
use crate::cli::dispatch;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::grammar::{self, First};
use crate::cli::{output, tree};

/// Print this, or more of one verb
#[derive(Debug, Args)]
pub struct Help {
    /// The verb
    #[arg(value_name = "VERB")]
    verb: Option<String>,
}

impl Verb for Help {
    const NAME: &'static str = "help";

    fn run(self, _front: &Front) -> Outcome {
        let Some(word) = self.verb else {
            output::own(&brief())?;
            return Ok(0);
        };
        match grammar::resolve(&word, dispatch::labels) {
            First::Verb(name) => {
                let mut command = super::find(name).map(super::Entry::command).unwrap_or_default();
                output::own(&command.render_long_help().to_string())?;
                Ok(0)
            }
            other => {
                Err(dispatch::no_verb(&word, &other).unwrap_or_else(|| Failure::usage("pronto: an image has no help")))
            }
        }
    }
}

/// The help of the whole.
pub fn brief() -> String {
    tree::whole().render_help().to_string()
}
