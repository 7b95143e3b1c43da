//! Wrong words, said as xl says it. What a newcomer would get wrong: xl's sentences are compared by scripts, so they are exact:
//! "option `x' not supported." and "'pronto destroy' requires at least 1 argument." (Xen, tools/xl/xl_utils.c, `def_getopt`).

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::failure::Failure;

/// What clap's answer means.
#[derive(Debug)]
pub enum Answer {
    /// Help or the version was asked for: text for stdout, exit 0.
    Show(String),
    /// The words were wrong.
    Wrong(Failure),
}

/// Options of xl's that we know and do not have, with the reason. (verb, option, why)
const REFUSED: &[(&str, &str, &str)] = &[
    ("create", "-F", "the domain has a monitor of its own; 'pronto logs -f NAME' follows it until its end"),
    ("create", "-e", "every domain has a monitor, which cleans up after it"),
    ("create", "-d", "'pronto --debug create' shows what is going on inside"),
    ("create", "-V", "no guest has a display here"),
    ("create", "-A", "no guest has a display here"),
    ("create", "--vncviewer", "no guest has a display here"),
    ("create", "--vncviewer-autopass", "no guest has a display here"),
    ("list", "-Z", "security labels need a Xen host"),
    ("list", "--context", "security labels need a Xen host"),
    ("list", "-c", "CPU pools need a Xen host"),
    ("list", "--cpupool", "CPU pools need a Xen host"),
    ("list", "-n", "NUMA affinity is not here yet"),
    ("list", "--numa", "NUMA affinity is not here yet"),
    ("run", "--backend", "one command runs in a guest that shares this host's kernel; 'pronto create' makes others"),
    ("save", "-c", "the domain's disk is not in the file, and would go on without it"),
    ("console", "-t", "a domain that shares the kernel has one console"),
    ("console", "-n", "a domain that shares the kernel has one console"),
    ("info", "-n", "NUMA details are not here yet"),
    ("info", "--numa", "NUMA details are not here yet"),
];

/// Translates clap's error about `verb`, whose definition is `command`.
pub fn translate(error: &clap::Error, verb: &str, command: &mut Command) -> Answer {
    let argument = context(error, ContextKind::InvalidArg);
    Answer::Wrong(match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Answer::Show(error.render().to_string()),
        ErrorKind::UnknownArgument => unknown(&argument.unwrap_or_default(), verb, command),
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => missing(verb, command),
        ErrorKind::InvalidSubcommand => {
            let known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            let word = context(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            Failure::Usage {
                line: format!("pronto: 'pronto {verb}' has no command '{word}'"),
                more: vec![format!("  try: {}", known.join(", "))],
                help: None,
            }
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let option = argument.unwrap_or_default();
            let name = option.split([' ', '=']).next().unwrap_or_default();
            let value = context(error, ContextKind::InvalidValue).unwrap_or_default();
            if value.is_empty() && error.kind() == ErrorKind::InvalidValue {
                Failure::usage(format!("option `{}' needs a value.", bare(name)))
            } else {
                Failure::Usage {
                    line: format!("pronto: {name}: {}", reason(error, &value)),
                    more: hints(error),
                    help: None,
                }
            }
        }
        _ => Failure::usage(format!("pronto: {}", first_line(error))),
    })
}

fn unknown(argument: &str, verb: &str, command: &Command) -> Failure {
    if argument.starts_with('-') && argument.len() > 1 {
        let because = REFUSED.iter().find(|r| r.0 == verb && r.1 == argument).map(|r| format!("  because: {}", r.2));
        let line = format!("option `{}' not supported.", bare(argument));
        return Failure::Usage { line, more: because.into_iter().collect(), help: None };
    }
    let most = command.get_positionals().count();
    let plural = if most == 1 { "" } else { "s" };
    Failure::usage(match most {
        0 => format!("'pronto {verb}' takes no arguments, but '{argument}' was given."),
        _ => format!("'pronto {verb}' takes at most {most} argument{plural}: '{argument}' is one too many."),
    })
}

/// xl's sentence, and the verb's help.
pub fn missing(verb: &str, command: &mut Command) -> Failure {
    let least = command.get_positionals().filter(|p| p.is_required_set()).count().max(1);
    let plural = if least == 1 { "" } else { "s" };
    Failure::Usage {
        line: format!("'pronto {verb}' requires at least {least} argument{plural}."),
        more: Vec::new(),
        help: Some(command.render_help().to_string()),
    }
}

/// `-x` as xl names it: `x`. A long one keeps its dashes, which xl cannot name at all.
fn bare(option: &str) -> &str {
    if option.starts_with("--") { option } else { option.strip_prefix('-').unwrap_or(option) }
}

fn reason(error: &clap::Error, value: &str) -> String {
    match std::error::Error::source(error) {
        Some(why) => why.to_string(),
        None => format!("'{value}' is not possible"),
    }
}

fn hints(error: &clap::Error) -> Vec<String> {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(possible)) if !possible.is_empty() => {
            vec![format!("  try: {}", possible.join(", "))]
        }
        _ => Vec::new(),
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(" ")),
        _ => None,
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
