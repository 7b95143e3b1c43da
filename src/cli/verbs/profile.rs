//! `profile`: a command in a running domain, and which programs cost how much. What a newcomer would get wrong: stdout is the command's; the
//! table goes to stderr, as time(1) does it, or into a file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::output::{self, FormatOption};
use crate::cli::words::{self, Variable};
use crate::cli::{choices, guest};
use crate::domain::{Accel, DomainRef};
use crate::ops::exec::Command;
use crate::ops::profile::{By, Profile as Told, Row};
use crate::ops::{self};

/// Run a command in a running domain, and tell which programs cost how much
///
/// Each program with how often it was started, its CPU time, and who ran it: 'emulated*' is what --accel build would have this machine run
/// itself. Counted is what the command started and waited for; what else ended in the guest meanwhile is told in one line. The kernel
/// counts in ticks of 10 ms and rounds down, process by process. The table goes to stderr when the command has ended, whose exit status
/// is this one's.
#[derive(Debug, Args)]
#[command(override_usage = "pronto profile [OPTIONS] NAME [--] COMMAND [ARG…]")]
pub struct Profile {
    #[command(flatten)]
    how: guest::CommandOptions,
    /// Set a variable; without a value it is taken from this command's environment
    #[arg(short, long = "env", value_name = "K=V", value_parser = OsStringValueParser::new().try_map(words::variable))]
    env: Vec<Variable>,
    /// Run nothing native: the command and all that it starts are emulated, whatever the domain was started with
    #[arg(long, value_name = "off", value_parser = choices::no_accel)]
    accel: Option<Accel>,
    #[command(flatten)]
    format: FormatOption,
    /// Write the table to this file instead of stderr
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The domain, then the command and its words
    #[arg(value_name = "NAME", required = true, trailing_var_arg = true, value_parser = OsStringValueParser::new())]
    words: Vec<OsString>,
}

impl Verb for Profile {
    const NAME: &'static str = "profile";
    const AROUND: bool = true;

    fn run(mut self, front: &Front) -> Outcome {
        let domain = DomainRef::from(self.words.remove(0).to_string_lossy().as_ref());
        let words = guest::command_words(self.words);
        if words.is_empty() {
            return Err(Failure::usage("'pronto profile' requires at least 2 arguments."));
        }
        let command = Command { emulated: self.accel.is_some(), ..self.how.command(words, self.env) };
        let ctx = front.ctx(Self::NAME)?;
        // Before the work of hours.
        let file = self.output.as_ref().map(|path| std::fs::File::create(path).map_err(|e| unwritten(path, e)));
        let file = file.transpose()?;
        let told = ops::profile::profile(&ctx, &domain, command)?;
        let text = if self.format.is_json() {
            output::json_text(&told)?
        } else {
            output::table_text(HEADER, &rows(&told)) + &sums(&told)
        };
        match (file, &self.output) {
            (Some(mut file), Some(path)) => {
                std::io::Write::write_all(&mut file, text.as_bytes()).map_err(|e| unwritten(path, e))?;
            }
            _ => front.talk.say(text.trim_end()),
        }
        Ok(told.status)
    }
}

fn unwritten(path: &std::path::Path, error: std::io::Error) -> Failure {
    Failure::from(ops::Error::general(format!("cannot write {}", path.display())).because(error))
}

const HEADER: &[&str] = &["PROGRAM", "STARTED", "FORKS", "CPU s", "SHARE", "EACH ms", "RUN BY"];

fn rows(told: &Told) -> Vec<Vec<String>> {
    let row = |row: &Row| {
        let each = 1000.0 * row.cpu_seconds / (row.execs + row.forks).max(1) as f64;
        let by = match row.by {
            By::Native => "this machine",
            By::Emulated => "emulated",
            By::Avoidable => "emulated*",
        };
        vec![
            row.program.clone(),
            format!("{:>7}", row.execs),
            format!("{:>5}", row.forks),
            format!("{:>8.2}", row.cpu_seconds),
            format!("{:>5.1}%", 100.0 * row.share),
            format!("{each:>7.0}"),
            by.to_owned(),
        ]
    };
    told.programs.iter().map(row).collect()
}

/// What it comes to.
fn sums(told: &Told) -> String {
    let part = |seconds: f64| {
        let share = if told.accounted_seconds > 0.0 { 100.0 * seconds / told.accounted_seconds } else { 0.0 };
        format!("{seconds:.2} s ({share:.0}%)")
    };
    let mut lines = vec![format!(
        "{} processes used {:.2} s of CPU, of which the kernel put {:.2} s down to programs (in ticks of 10 ms)",
        told.processes, told.cpu_seconds, told.accounted_seconds
    )];
    if told.native_seconds > 0.0 && told.native_seconds < told.accounted_seconds {
        lines.push(format!("{} this machine ran itself", part(told.native_seconds)));
    }
    if told.avoidable_seconds > 0.0 {
        lines.push(format!("* {} are emulated and would be native with --accel build", part(told.avoidable_seconds)));
    }
    if told.other_processes > 0 {
        lines.push(format!(
            "not counted: {} processes of services, other commands, or left behind; {:.2} s",
            told.other_processes, told.other_seconds
        ));
    }
    if !told.whole {
        lines.push("the kernel stopped counting before the end: there were too many processes".into());
    }
    lines.join("\n") + "\n"
}
