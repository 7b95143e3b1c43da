//! `binfmt`: what runs programs of other architectures on this host. What a newcomer would get wrong: only entries named
//! `pronto-…` are ever changed; the distribution's stay as they are.

use clap::{Args, Subcommand};

use super::Verb;
use crate::binfmt::{Made, Pinned, Row};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::output::{self, Format, FormatOption};
use crate::ops::{self, Ctx};

/// Show or change what runs programs of other architectures
#[derive(Debug, Args)]
pub struct Binfmt {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show which interpreter runs each architecture, and what is wrong
    ///
    /// PINNED says whether the file at the interpreter's path is still the one that the kernel holds: "changed" means that
    /// the entry must be registered anew to use the new file.
    Status {
        #[command(flatten)]
        format: FormatOption,
        /// Only these architectures
        #[arg(value_name = "ARCH")]
        archs: Vec<String>,
    },
    /// Register interpreters for this boot and all that follow
    ///
    /// Without ARCH: every architecture that needs an interpreter here and whose interpreter is installed.
    Register {
        /// Leave setuid programs in guests without their privilege (no C flag)
        #[arg(long)]
        no_credentials: bool,
        /// The architectures
        #[arg(value_name = "ARCH")]
        archs: Vec<String>,
    },
    /// Remove what 'register' and 'create' have registered
    ///
    /// Without ARCH: all of ours.
    Unregister {
        /// The architectures
        #[arg(value_name = "ARCH")]
        archs: Vec<String>,
    },
}

impl Verb for Binfmt {
    const NAME: &'static str = "binfmt";

    fn run(self, front: &Front) -> Outcome {
        match self.what {
            What::Status { format, archs } => {
                show(&ops::registry::status(&front.ctx_unopened()?, &archs)?, format.format)?;
            }
            What::Register { no_credentials, archs } => {
                let ctx = front.ctx("binfmt register")?;
                let made = ops::registry::register(&ctx, &archs, !no_credentials)?;
                tell(&ctx, &made, "is registered, now and at every boot", "was registered already");
            }
            What::Unregister { archs } => {
                let ctx = front.ctx("binfmt unregister")?;
                let made = ops::registry::unregister(&ctx, &archs)?;
                tell(&ctx, &made, "is removed", "was not there");
            }
        }
        Ok(0)
    }
}

/// A line per entry on stderr: what was done, or that there was nothing to do.
fn tell(ctx: &Ctx, made: &[Made], done: &str, nothing: &str) {
    for one in made {
        let file = one.file.display();
        let what =
            if one.changed { format!("{} {done} ({file})", one.entry) } else { format!("{} {nothing}", one.entry) };
        ctx.report.note(&what);
    }
    if made.is_empty() {
        ctx.report.note("no architecture needs an interpreter that is installed here");
    }
}

fn show(rows: &[Row], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json(&rows);
    }
    let header = ["ARCH", "RUNS BY", "INTERPRETER", "VERSION", "FLAGS", "SETUID", "PINNED"];
    output::table(&header, &rows.iter().map(cells).collect::<Vec<_>>())?;
    for row in rows {
        for problem in &row.problems {
            output::lines([format!("{}: {}", row.arch, problem.text), format!("  try: {}", problem.cure)])?;
        }
    }
    Ok(())
}

fn cells(row: &Row) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let by = match (row.native, &row.entry) {
        (Some(true), None) => "the host itself".to_owned(),
        (_, Some(entry)) if row.durable => format!("{entry} (durable)"),
        (_, Some(entry)) => entry.clone(),
        _ => "nothing".to_owned(),
    };
    let pinned = row.pinned.map(|p| match p {
        Pinned::No => "no",
        Pinned::Same => "same",
        Pinned::Changed => "changed",
        Pinned::Unknown => "unknown",
    });
    vec![
        row.arch.clone(),
        by,
        or_dash(row.interpreter.as_ref().map(|p| p.display().to_string())),
        or_dash(row.version.clone()),
        or_dash(row.flags.clone()),
        if row.entry.is_none() {
            "-"
        } else if row.setuid {
            "yes"
        } else {
            "no"
        }
        .to_owned(),
        or_dash(pinned.map(str::to_owned)),
    ]
}
