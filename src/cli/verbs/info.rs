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
    /// Only the value of this line; or, of a domain of this name, what it is and how it is run
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Verb for Info {
    const NAME: &'static str = "info";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let all = ops::info::info(&ctx)?;
        if let Some(name) = &self.name {
            match all.iter().find(|(key, _)| key == name) {
                Some((_, value)) => output::lines([value])?,
                None => self.domain(&ctx, name)?,
            }
        } else if self.format.is_json() {
            output::json(&all.into_iter().map(|(key, value)| (key, Value::from(value))).collect::<Map<_, _>>())?;
        } else {
            output::lines(all.iter().map(|(key, value)| format!("{key:<23}: {value}")))?;
        }
        Ok(0)
    }
}

impl Info {
    fn domain(&self, ctx: &ops::Ctx, name: &str) -> Result<(), Failure> {
        let rows = ops::list::list(ctx, true, &[])?;
        let Some(row) = rows.iter().find(|row| row.name == name) else {
            let what = format!("info has no line '{name}', and there is no such domain");
            return Err(Failure::from(ops::Error::general(what).hint("pronto info, pronto list --all")));
        };
        if self.format.is_json() {
            return output::json(row);
        }
        let mut lines = vec![
            ("name", row.name.clone()),
            ("uuid", row.uuid.clone()),
            ("state", row.state.to_string()),
            ("image", row.image.clone()),
            ("arch", row.arch.clone()),
            ("emulated", if row.emulated { "yes" } else { "no" }.to_owned()),
        ];
        if let Some(native) = &row.native {
            lines.push(("native", ops::accel::told(native)));
            lines.extend(native.failed.iter().map(|failed| ("failed its trial", failed.clone())));
            lines.extend(native.left_out.iter().map(|left| ("not native", left.clone())));
        }
        output::lines(lines.into_iter().map(|(key, value)| format!("{key:<23}: {value}")))
    }
}
