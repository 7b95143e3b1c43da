//! `info`: the host, in xl's `name : value` lines. What a newcomer would get wrong: with a name only the value is printed, for
//! scripts.

use clap::Args;
use serde_json::{Map, Value};

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::output::{self, FormatOption};
use crate::ops;

/// Print what is known of the host
#[derive(Debug, Args)]
pub struct Info {
    #[command(flatten)]
    format: FormatOption,
    /// Only the value of this line
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Verb for Info {
    const NAME: &'static str = "info";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let all = ops::info::info(&ctx)?;
        if let Some(name) = &self.name {
            let (_, value) = all.iter().find(|(key, _)| key == name).ok_or_else(|| {
                Failure::from(ops::Error::general(format!("info has no line '{name}'")).hint("pronto info"))
            })?;
            output::lines([value])?;
        } else if self.format.is_json() {
            output::json(&all.into_iter().map(|(key, value)| (key, Value::from(value))).collect::<Map<_, _>>())?;
        } else {
            output::lines(all.iter().map(|(key, value)| format!("{key:<23}: {value}")))?;
        }
        Ok(0)
    }
}
