//! `verify`: is the store what it was? What a newcomer would get wrong: without --repair nothing is changed; damage that stays is exit code 1.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::output::{self, FormatOption};
use crate::ops::{self, images::Damaged};

/// Check everything in the store, and repair it
///
/// Every file of every layer is read and compared with what was unpacked, every manifest and config with its digest. Damage is printed;
/// the exit code is 1 if any is left. A layer on which a domain runs is not repaired.
#[derive(Debug, Args)]
pub struct Verify {
    /// Fetch again what is damaged, by the digest that was stored
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    format: FormatOption,
}

impl Verb for Verify {
    const NAME: &'static str = "verify";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let found = ops::images::verify(&ctx, self.repair)?;
        if self.format.is_json() {
            output::json(&found)?;
        } else {
            output::lines(found.damaged.iter().flat_map(lines))?;
            if !found.unknown.is_empty() {
                let count = found.unknown.len();
                ctx.report.note(&format!("{count} of the layers cannot be checked: nothing was written down of them"));
            }
            let what = if found.sound == 1 { "1 layer is".to_owned() } else { format!("{} layers are", found.sound) };
            ctx.report.note(&format!("{what} sound"));
            if found.is_bad() && !self.repair {
                ctx.report.note("to repair: pronto verify --repair");
            }
        }
        Ok(u8::from(found.is_bad()))
    }
}

fn lines(damaged: &Damaged) -> Vec<String> {
    let what = match damaged.what.starts_with("sha256:") {
        true => format!("document {}", damaged.what),
        false => format!("layer {}", damaged.what.chars().take(24).collect::<String>()),
    };
    let of = if damaged.of.is_empty() { String::new() } else { format!(" of {}", damaged.of.join(", ")) };
    let state = match (&damaged.why, damaged.repaired) {
        (_, true) => "was damaged and is repaired".to_owned(),
        (Some(why), _) => format!("is damaged and stays so: {why}"),
        (None, _) => "is damaged".to_owned(),
    };
    std::iter::once(format!("{what}{of} {state}")).chain(damaged.how.iter().map(|how| format!("  {how}"))).collect()
}
