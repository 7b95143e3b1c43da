//! `doctor`: what is wrong with this host, and the cure. What a newcomer would get wrong: it needs no root, and changes nothing.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::output::{self, Format, FormatOption};
use crate::ops::doctor::{self, Finding, Level};

/// Check this host, and say what to do
///
/// Each line starts with what it came to: ok, warn (something does not work, or not well), bad (guests cannot run), or unknown.
/// The exit code is 1 if anything is bad.
#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    format: FormatOption,
}

impl Verb for Doctor {
    const NAME: &'static str = "doctor";

    fn run(self, front: &Front) -> Outcome {
        let findings = doctor::run(&front.ctx_unopened()?);
        match self.format.format {
            Format::Json => output::json(&findings)?,
            Format::Table => output::lines(findings.iter().flat_map(lines))?,
        }
        Ok(u8::from(findings.iter().any(|f| f.level == Level::Bad)))
    }
}

fn lines(finding: &Finding) -> Vec<String> {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Bad => "bad",
        Level::Unknown => "unknown",
    };
    let mut lines = vec![format!("{level:<8}{:<13} {}", finding.area, finding.what)];
    lines.extend(finding.cure.iter().map(|cure| format!("  try: {cure}")));
    lines
}
