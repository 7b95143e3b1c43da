//! `completions`: a script that teaches a shell our words. What a newcomer would get wrong: it is made from the same definitions
//! that parse them, so there is nothing to keep in step.

use clap::{Args, ValueEnum};

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{output, tree};

/// The shells we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Print a completion script for a shell
///
/// For example: pronto completions bash > /usr/share/bash-completion/completions/pronto
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "bash|zsh|fish", hide_possible_values = true)]
    shell: Shell,
}

impl Verb for Completions {
    const NAME: &'static str = "completions";

    fn run(self, _front: &Front) -> Outcome {
        let mut script = Vec::new();
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        clap_complete::generate(shell, &mut tree::whole(), "pronto", &mut script);
        output::bytes(&script)?;
        Ok(0)
    }
}
