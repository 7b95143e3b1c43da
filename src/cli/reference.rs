//! docs/cli/, made from the definitions of the verbs. What a newcomer would get wrong: those pages are never edited; a test
//! compares them, and writes them anew with `PRONTO_BLESS=1`.

use std::fmt::Write;

use clap::{Arg, Command};

use super::{tree, verbs};

/// The pages: file name and text. The first is the index.
pub fn pages() -> Vec<(String, String)> {
    let mut pages = vec![("README.md".to_owned(), index())];
    for entry in verbs::ALL {
        pages.push((format!("{}.md", entry.name), page(&mut entry.command())));
    }
    pages
}

fn index() -> String {
    let mut out =
        String::from("# pronto's commands\n\nMade from the program's own definitions; not edited by hand.\n\n");
    let _ = writeln!(out, "```text\npronto [OPTIONS] VERB [ARG…]\npronto [OPTIONS] IMAGE COMMAND [ARG…]\n```\n");
    options(&mut out, "Options before the verb", &mut tree::globals());
    let _ = writeln!(out, "## Verbs\n");
    for entry in verbs::ALL {
        let about = entry.command().get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, "- [{0}]({0}.md): {about}", entry.name);
    }
    out
}

fn page(command: &mut Command) -> String {
    let name = command.get_name().to_owned();
    let mut out = format!("# pronto {name}\n\n");
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(out, "{about}\n");
    body(&mut out, command);
    for sub in command.get_subcommands_mut() {
        let about = sub.get_long_about().or(sub.get_about()).map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, "## pronto {name} {}\n\n{about}\n", sub.get_name());
        body(&mut out, sub);
    }
    format!("{}\n", out.trim_end())
}

fn body(out: &mut String, command: &mut Command) {
    let usage = command.render_usage().to_string();
    let usage: Vec<&str> = usage.trim_start_matches("Usage:").lines().map(str::trim).collect();
    let _ = writeln!(out, "```text\n{}\n```\n", usage.join("\n"));
    arguments(out, command);
    options(out, "Options", command);
}

fn arguments(out: &mut String, command: &Command) {
    let shown: Vec<&Arg> = command.get_positionals().filter(|a| !a.is_hide_set()).collect();
    if shown.is_empty() {
        return;
    }
    let _ = writeln!(out, "**Arguments**\n");
    for arg in shown {
        let _ = writeln!(out, "- `{}`: {}", value_names(arg), help(arg));
    }
    out.push('\n');
}

fn options(out: &mut String, title: &str, command: &mut Command) {
    let _ = writeln!(out, "**{title}**\n");
    command.build();
    for arg in command.get_arguments().filter(|a| !a.is_positional() && !a.is_hide_set()) {
        let short = arg.get_short().map(|c| format!("-{c}"));
        let long = arg.get_long().map(|l| format!("--{l}"));
        let mut names = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
        if arg.get_action().takes_values() {
            names = format!("{names} {}", value_names(arg));
        }
        let _ = writeln!(out, "- `{names}`: {}", help(arg));
    }
    out.push('\n');
}

fn value_names(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn help(arg: &Arg) -> String {
    arg.get_long_help().or(arg.get_help()).map(|h| h.to_string().replace('\n', " ")).unwrap_or_default()
}
