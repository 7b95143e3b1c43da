//! The whole command line as clap sees it: for the help, the completions and docs/cli/. What a newcomer would get wrong: words
//! are not parsed with this tree, since the first word may be an image or a prefix; each verb parses its own.

use clap::{Args, Command};

use super::front::Globals;
use super::verbs;

/// What stands below the list of verbs.
const AFTER: &str = "\
The first word may also be an image (it contains '/', ':' or '@', or is a label of the catalogue): \
'pronto [--arch ARCH] IMAGE COMMAND [ARG…]' boots a throw-away domain, runs COMMAND in it and stops it. \
Verbs may be shortened as in xl, as long as they are unambiguous. 'pronto help VERB' tells more of each.";

/// `pronto` with its global options only; what follows is left to the caller.
pub fn globals() -> Command {
    Globals::augment_args(Command::new("pronto"))
        .about("Boots any Linux, for any CPU, on the machine in front of you, with xl's verbs")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
}

/// `pronto` with all its verbs.
pub fn whole() -> Command {
    globals()
        .override_usage("pronto [OPTIONS] VERB [ARG…]\n       pronto [OPTIONS] IMAGE COMMAND [ARG…]")
        .subcommand_help_heading("Verbs")
        .subcommands(verbs::ALL.iter().map(verbs::Entry::command))
        .after_help(AFTER)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definitions_agree_with_themselves() {
        super::whole().debug_assert();
        for verb in super::verbs::ALL {
            verb.command().debug_assert();
        }
    }
}
