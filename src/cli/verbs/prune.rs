//! `prune`: what nobody uses goes. What a newcomer would get wrong: without --all no image goes that a reference still names.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::output;
use crate::domain::size;
use crate::ops;

/// Remove what neither an image nor a domain uses
///
/// Layers of images that have been replaced, an init that was installed in them, downloads that were not finished, native programs
/// (--accel) that another version of pronto made, or began to make. A release for which none could be made is tried again. What was
/// removed is printed.
#[derive(Debug, Args)]
pub struct Prune {
    /// Images and native programs that no domain uses, too
    #[arg(short, long)]
    all: bool,
    /// Print what would be removed, and remove nothing
    #[arg(short = 'n', long = "dry-run")]
    dry_run: bool,
}

impl Verb for Prune {
    const NAME: &'static str = "prune";
    const DRY_RUN: bool = true;

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let dry = self.dry_run || front.globals.dry_run;
        let pruned = ops::images::prune(&ctx, self.all, dry)?;
        output::lines(&pruned.images)?;
        output::lines(pruned.native.iter().map(|name| format!("{name} (native programs)")))?;
        let (did, layers) = (if dry { "would free" } else { "freed" }, pruned.layers);
        let what = if layers == 1 { "1 layer".to_owned() } else { format!("{layers} layers") };
        ctx.report.note(&format!("{did} {} in {what}", size::human(pruned.bytes)));
        Ok(0)
    }
}
