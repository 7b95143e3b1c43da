//! What a configuration holds: its keys in the order in which they first stood. What a newcomer would get wrong: each key is there once, with
//! the value that counts in the end; `+=` has been done already.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::{Error, Place, Source};
use super::parse;
use super::value::{Kind, Value};

/// The keys of an xl.cfg file and of the words after it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    entries: Vec<Entry>,
    /// Where each key is among them.
    index: HashMap<String, usize>,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Where the key stands: of several times the last.
    pub place: Place,
    /// Whether the last word was `+=`, after which a number is no number to xl.
    pub(super) added: bool,
}

/// Equal when they say the same, wherever it stands.
impl PartialEq for Config {
    fn eq(&self, other: &Config) -> bool {
        let same = |(a, b): (&Entry, &Entry)| a.key == b.key && a.value == b.value;
        self.entries.len() == other.entries.len() && self.entries.iter().zip(&other.entries).all(same)
    }
}

impl Eq for Config {}

impl Config {
    /// Reads an xl.cfg file; `name` is what messages call it. Errors: the first thing that is wrong, with line and column.
    pub fn parse(name: &str, text: &[u8]) -> Result<Config, Error> {
        let mut config = Config::default();
        parse::read(&mut config, Arc::new(Source::File(name.to_owned())), text)?;
        Ok(config)
    }

    /// All keys, in the order in which they first stood.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A key's entry.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.index.get(key).map(|&at| &self.entries[at])
    }

    /// Sets a key, in the place of what it was. Errors: `key` cannot be a key: small letters, digits, `.` and `_`, a letter first.
    pub fn set(&mut self, key: &str, value: Value) -> Result<(), Error> {
        if !is_key(key) {
            let what = format!("{} is no key: expected small letters, digits and _", super::error::shown(key));
            return Err(Error::new(&Place::program(), what));
        }
        self.store(key, false, value, &Place::program())
    }

    /// Takes a key out, and gives what it was.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        let at = self.index.remove(key)?;
        for other in self.index.values_mut().filter(|other| **other > at) {
            *other -= 1;
        }
        Some(self.entries.remove(at))
    }

    /// Does one statement. Errors: a list is added to a text, or a text to a list.
    pub(super) fn store(&mut self, key: &str, added: bool, value: Value, place: &Place) -> Result<(), Error> {
        let Some(&at) = self.index.get(key) else {
            self.index.insert(key.to_owned(), self.entries.len());
            self.entries.push(Entry { key: key.to_owned(), value, place: place.clone(), added });
            return Ok(());
        };
        let entry = &mut self.entries[at];
        match added {
            true => add(entry, value)?,
            false => entry.value = value,
        }
        entry.place = place.clone();
        entry.added = added;
        Ok(())
    }
}

/// Whether a text can be a key.
pub(super) fn is_key(text: &str) -> bool {
    let inside = |b: u8| matches!(b, b'.' | b'_' | b'0'..=b'9' | b'a'..=b'z');
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(inside)
}

fn add(entry: &mut Entry, more: Value) -> Result<(), Error> {
    let (before, key) = (&entry.place, &entry.key);
    match (&mut entry.value.kind, more.kind) {
        (Kind::List(list), Kind::List(more)) => list.extend(more),
        (Kind::List(_), _) => {
            let what = format!("{key}: expected a list after +=, since it is a list at {before}");
            return Err(Error::new(&more.place, what).hint(format!("write {key} += [ … ]")));
        }
        (_, Kind::List(_)) => {
            let what = format!("{key}: expected a text after +=, since it is one at {before}");
            return Err(Error::new(&more.place, what).hint(format!("make both lists: {key} = [ … ]")));
        }
        // A number that something was added to is text.
        (kind @ (Kind::Text(_) | Kind::Number(_)), Kind::Text(more) | Kind::Number(more)) => {
            let (Kind::Text(text) | Kind::Number(text)) = std::mem::replace(kind, Kind::List(Vec::new())) else {
                return Ok(());
            };
            *kind = Kind::Text(text + &more);
        }
    }
    Ok(())
}
