//! `key=value` words of a command line, which come after the file as lines of it. What a newcomer would get wrong: the shell has taken the
//! quotes off `name="web"` before we see it, so here, and only here, text may stand without quotes.

use std::sync::Arc;

use super::config::{Config, is_key};
use super::error::{Error, Place, Source, shown};
use super::parse;
use super::value::{Kind, Value};

/// Whether a word is `key=value` or `key += value`: a name, perhaps blanks, an equals sign. `./a=b` is a path.
pub fn is_assignment(word: &[u8]) -> bool {
    let name = word.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    if name == 0 || word[0].is_ascii_digit() {
        return false;
    }
    let rest = word[name..].trim_ascii_start();
    rest.starts_with(b"=") || rest.starts_with(b"+=")
}

impl Config {
    /// Does what one word says, after all that is there: `memory=512`, `name="web"`, `name=web`, `disk+=['a.img,raw,xvdb']`. A word may hold
    /// several settings, with `;` or newlines between them, then quoted as in a file. Errors: name the word; nothing was done then.
    pub fn add_word(&mut self, word: &[u8]) -> Result<(), Error> {
        let source = Arc::new(Source::Word(String::from_utf8_lossy(word).into_owned()));
        let mut read = Config::clone(self);
        match parse::read(&mut read, Arc::clone(&source), word) {
            Ok(()) => {
                *self = read;
                Ok(())
            }
            Err(error) => match bare(word) {
                Some((key, adds, text)) => {
                    let place = Place { source, line: 1, column: 1 };
                    self.store(key, adds, Value { kind: Kind::Text(text.to_owned()), place: place.clone() }, &place)
                }
                None => Err(told(error, word)),
            },
        }
    }
}

/// The parts of `key=text without quotes`; none when it is no such thing.
fn bare(word: &[u8]) -> Option<(&str, bool, &str)> {
    let word = std::str::from_utf8(word).ok()?;
    let (key, text) = word.split_once('=')?;
    let (key, text) = (key.trim_matches([' ', '\t']), text.trim_matches([' ', '\t']));
    let (key, adds) = key.strip_suffix('+').map_or((key, false), |key| (key.trim_end_matches([' ', '\t']), true));
    let is_bare = !text.is_empty()
        && !text.starts_with(['"', '\'', '[', '='])
        && !text.contains(|c: char| c == ';' || c.is_control());
    (is_key(key) && is_bare).then_some((key, adds, text))
}

/// A message about a word, where the file's grammar says too little.
fn told(error: Error, word: &[u8]) -> Error {
    let text = String::from_utf8_lossy(word);
    match text.split_once('=') {
        Some((key, value)) if value.trim().is_empty() && is_key(key.trim()) => Error {
            hint: Some(format!("write {}=VALUE", key.trim())),
            what: "expected a value after =".into(),
            ..error
        },
        None => Error { what: format!("{} is no key=value", shown(&text)), hint: None, ..error },
        Some(_) => error,
    }
}
