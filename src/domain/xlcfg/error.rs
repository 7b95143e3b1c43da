//! What is wrong with a configuration, and where. What a newcomer would get wrong: a message is one line, whatever the file holds:
//! control characters of it are shown as escapes, and long texts are cut.

use std::fmt;
use std::sync::Arc;

/// What a text was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, by the name that messages shall give it.
    File(String),
    /// A word of the command line.
    Word(String),
    /// The program itself.
    Program,
}

/// Where something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it was read from.
    pub source: Arc<Source>,
    /// The line, from 1.
    pub line: u32,
    /// The character of the line, from 1; a tab is one.
    pub column: u32,
}

impl Place {
    /// The place of what the program itself has set.
    pub fn program() -> Place {
        Place { source: Arc::new(Source::Program), line: 1, column: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.source {
            Source::File(name) => write!(f, "{}:{}:{}", plain(name), self.line, self.column),
            Source::Word(word) => write!(f, "{}", shown(word)),
            Source::Program => f.write_str("pronto's own setting"),
        }
    }
}

/// What is wrong. It is shown in one line: `web.cfg:3:8: expected a value, found 'web'; text needs quotes: name = "web"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Where.
    pub place: Place,
    /// What was found, and what was expected.
    pub what: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

impl Error {
    pub(super) fn new(place: &Place, what: impl Into<String>) -> Error {
        Error { place: place.clone(), what: what.into(), hint: None }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Error {
        Error { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for Error {}

/// Whether a character would do something to the line that it stands in: a control character, or one that turns its direction around.
pub(super) fn awkward(c: char) -> bool {
    let unseen = matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    c.is_control() || unseen
}

/// A text whose awkward characters are escapes.
fn plain(text: &str) -> String {
    text.chars().map(|c| if awkward(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// A text of the user's in a message: in quotes, on one line, not endless.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("'{}{more}'", plain(&short))
}
