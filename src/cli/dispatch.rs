//! From words to a verb and back to an exit code. What a newcomer would get wrong: the first word is not looked up by clap, since
//! it may be a prefix, a verb of xl's or an image; each verb then reads its own words.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::builder::OsStringValueParser;
use clap::{Arg, FromArgMatches};

use super::failure::{Failure, Outcome};
use super::front::{Front, Globals};
use super::grammar::{self, First};
use super::progress::Talk;
use super::usage::{self, Answer};
use super::verbs::{self, Entry};
use super::{output, trace, tree};
use crate::domain::xlcfg::BackendChoice;
use crate::image::catalogue;

const WORDS: &str = "words";

/// Runs the words (the program's own first) to their exit code.
pub fn run(words: Vec<OsString>) -> u8 {
    let called = called_as(&words);
    if let Some(code) = internal(&words) {
        return code;
    }
    let (globals, words) = match split(words) {
        Ok((globals, words)) => (Globals { called, ..globals }, words),
        Err(outcome) => return finish(outcome, false, &Talk::new(false)),
    };
    let talk = Talk::new(globals.quiet);
    trace::start(globals.verbose, globals.debug, &talk);
    let front = Front { globals, talk: talk.clone() };
    let (outcome, around) = first(&front, words);
    finish(outcome, around, &talk)
}

/// What the program's name says of the backend: `hx create` is `pronto --backend hexagon create`, and `kx` is nspawn's.
fn called_as(words: &[OsString]) -> Option<BackendChoice> {
    match words.first().and_then(|word| Path::new(word).file_name())?.to_str()? {
        "hx" => Some(BackendChoice::Hexagon),
        "kx" => Some(BackendChoice::Kaxon),
        _ => None,
    }
}

/// Verbs that pronto calls itself with; they start with two underscores and are no part of the command line.
fn internal(words: &[OsString]) -> Option<u8> {
    let word = words.get(1)?;
    if word == "__fail-points" {
        // For the tests: every step of a create that can be made to fail.
        let list: String = crate::sys::fail::POINTS.iter().map(|p| format!("{p}\n")).collect();
        return Some(u8::from(output::own(&list).is_err()));
    }
    if word.as_encoded_bytes().starts_with(b"__") { crate::ops::internal(&words[1..]) } else { None }
}

/// The global options, and what follows them.
fn split(words: Vec<OsString>) -> Result<(Globals, Vec<OsString>), Outcome> {
    let rest = Arg::new(WORDS).num_args(0..).trailing_var_arg(true).value_parser(OsStringValueParser::new());
    let asked = tree::globals().arg(rest).try_get_matches_from(words);
    let matches = asked.map_err(|error| match usage::translate(&error, "", &mut tree::whole()) {
        // Its help would lack the verbs.
        Answer::Show(_) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            output::own(&verbs::brief()).map(|()| 0)
        }
        Answer::Show(text) => output::own(&text).map(|()| 0),
        // xl says so, with the exit code of a general error.
        Answer::Wrong(Failure::Usage { .. }) if error.kind() == clap::error::ErrorKind::UnknownArgument => {
            let option = error.get(clap::error::ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
            Err(Failure::said(format!("pronto: invalid option {option}\nunknown global option"), 1))
        }
        Answer::Wrong(failure) => Err(failure),
    })?;
    let globals = Globals::from_arg_matches(&matches).map_err(|e| Err(Failure::usage(format!("pronto: {e}"))))?;
    let rest = matches.get_many::<OsString>(WORDS).unwrap_or_default().cloned().collect();
    Ok((globals, rest))
}

/// The first word decides. The second value says whether docker's exit codes apply.
fn first(front: &Front, words: Vec<OsString>) -> (Outcome, bool) {
    let Some(word) = words.first() else {
        return (output::own(&verbs::brief()).map(|()| 1), false);
    };
    // A word that is not UTF-8 and holds a slash can only be a path.
    let what = match word.to_str() {
        Some(text) => grammar::resolve(text, labels),
        None if word.as_encoded_bytes().contains(&b'/') => First::Image,
        None => First::Unknown(Vec::new()),
    };
    match &what {
        First::Verb(name) => match verbs::find(name) {
            Some(entry) => (verb(entry, front, &words[1..]), entry.around),
            None => (Err(Failure::usage(format!("pronto: there is no verb '{name}'"))), false),
        },
        First::Image => (verbs::short_form(front, words), true),
        other => {
            let shown = word.to_string_lossy().into_owned();
            let failure =
                no_verb(&shown, other).unwrap_or_else(|| Failure::usage(format!("pronto: '{shown}' is no verb")));
            (Err(failure), false)
        }
    }
}

fn verb(entry: &Entry, front: &Front, words: &[OsString]) -> Outcome {
    if front.globals.dry_run && !entry.dry_run {
        return Err(Failure::said("command does not implement -N (dryrun) option", 1));
    }
    let mut command = entry.command();
    let argv = std::iter::once(OsStr::new(entry.name)).chain(words.iter().map(OsString::as_os_str));
    match command.try_get_matches_from_mut(argv) {
        Ok(matches) => entry.run(front, &matches),
        Err(error) => match of_verb_or_below(&error, entry.name, &mut command, words) {
            Answer::Show(text) => output::own(&text).map(|()| 0),
            Answer::Wrong(failure) => Err(failure),
        },
    }
}

/// `arch show` is spoken of as such, with its own words.
fn of_verb_or_below(error: &clap::Error, verb: &str, command: &mut clap::Command, words: &[OsString]) -> Answer {
    let below = words.first().and_then(|w| command.find_subcommand_mut(w));
    match below {
        Some(sub) => {
            let name = format!("{verb} {}", sub.get_name());
            usage::translate(error, &name, sub)
        }
        None => usage::translate(error, verb, command),
    }
}

/// What to say of a first word that is neither a verb of ours nor an image.
pub fn no_verb(word: &str, what: &First) -> Option<Failure> {
    let (line, more) = match what {
        First::Verb(_) | First::Image => return None,
        First::Foreign(foreign) => (format!("pronto: {}", foreign.line()), None),
        First::Ambiguous(verbs) => {
            (format!("pronto: '{word}' is the beginning of several verbs: {}", verbs.join(", ")), None)
        }
        First::Unknown(near) => (format!("pronto: unknown command or image '{word}'"), Some(advice(word, near))),
    };
    let line = more.map_or_else(|| line.clone(), |more| format!("{line}\n  try: {more}"));
    Some(Failure::said(line, 1))
}

fn advice(word: &str, near: &[String]) -> String {
    if let [first, others @ ..] = near {
        let others: String = others.iter().map(|o| format!(", or 'pronto {o}'")).collect();
        return format!("'pronto {first}'{others}");
    }
    if !word.is_empty() && Path::new(word).exists() {
        return format!("'./{word}', if you mean the file or directory of that name");
    }
    "'pronto help'; an image has a '/', ':' or '@' in it, as debian/bookworm".to_owned()
}

/// The catalogue's labels in every spelling, the main ones first.
pub fn labels() -> Vec<&'static str> {
    let aliases = catalogue::rows().iter().flat_map(|row| row.aliases.iter().map(String::as_str));
    catalogue::labels().chain(aliases).collect()
}

/// Prints what is to be said of an outcome; its exit code.
fn finish(outcome: Outcome, around: bool, talk: &Talk) -> u8 {
    talk.clear();
    let failure = match outcome {
        Ok(code) => return code,
        Err(failure) => failure,
    };
    for line in failure.lines() {
        talk.say(&line);
    }
    if let Some(help) = failure.help() {
        if let Err(lost) = output::own(help) {
            return lost.code(around);
        }
    }
    failure.code(around)
}
