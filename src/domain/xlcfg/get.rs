//! Values as what they are needed as: text, number, truth, list. What a newcomer would get wrong: where xl only warns and goes on as if the
//! key were not there (a list where a text is needed, a number that is none), pronto refuses: a guest that silently lacks its disk is worse
//! than an error. Source: Xen, tools/libs/util/libxlu_cfg.c.

use std::ops::RangeInclusive;

use super::config::{Config, Entry};
use super::error::{Error, Place, shown};
use super::hint::in_quotes;
use super::value::{Kind, Value};

impl Config {
    /// A key's text; a number's is what was written. Errors: it is a list.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        self.get(key).map(|entry| entry.atom()).transpose()
    }

    /// A key's text, of which there must be some: a path, a name. Errors: it is a list or empty.
    pub fn filled(&self, key: &str) -> Result<Option<&str>, Error> {
        match self.text(key)? {
            Some("") => Err(self.wrong(key, format!("{key} = \"\" has no value")).hint(format!("leave {key} out"))),
            text => Ok(text),
        }
    }

    /// A key's number: decimal, octal with a `0` before it, or hexadecimal with `0x`; with quotes it may have a sign. Errors: it is a list,
    /// no number, too large, or made with `+=`.
    pub fn number(&self, key: &str) -> Result<Option<i64>, Error> {
        let Some(entry) = self.get(key) else { return Ok(None) };
        let text = entry.atom()?;
        if entry.added {
            return Err(Error::new(&entry.place, format!("{key}: a number cannot be made with +="))
                .hint(format!("write {key} = NUMBER")));
        }
        match number(text) {
            Some(number) => Ok(Some(number)),
            None => Err(Error::new(entry.value.place(), format!("{key}: expected a number, found {}", shown(text)))),
        }
    }

    /// A key's number within bounds. Errors: as [`Config::number`], and outside of them.
    pub fn number_in(&self, key: &str, bounds: RangeInclusive<i64>) -> Result<Option<i64>, Error> {
        match self.number(key)? {
            Some(number) if !bounds.contains(&number) => {
                let what = format!("{key}: expected {} to {}, found {number}", bounds.start(), bounds.end());
                Err(self.wrong(key, what))
            }
            number => Ok(number),
        }
    }

    /// A key's truth: 0 is false, every other number is true, as in xl. pronto reads yes, no, true and false as well. Errors: anything else.
    pub fn truth(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.text(key)? {
            Some("yes" | "true") => Ok(Some(true)),
            Some("no" | "false") => Ok(Some(false)),
            Some(text) if number(text).is_none() => {
                Err(self.wrong(key, format!("{key}: expected 1 or 0, found {}", shown(text))))
            }
            _ => Ok(self.number(key)?.map(|number| number != 0)),
        }
    }

    /// A key's list. Errors: it is a text.
    pub fn list(&self, key: &str) -> Result<Option<&[Value]>, Error> {
        match self.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value { kind: Kind::List(values), .. }) => Ok(Some(values)),
            Some(value) => {
                let text = value.atom().unwrap_or_default();
                let what = format!("{key}: expected a list, found {}", shown(text));
                Err(Error::new(value.place(), what).hint(format!("write {key} = [ {} ]", in_quotes(text))))
            }
        }
    }

    /// The texts of a key's list, with where each stands; none when there is no such key. Errors: it is a text, or holds a list.
    pub fn texts(&self, key: &str) -> Result<Vec<(&str, &Place)>, Error> {
        let values = self.list(key)?.unwrap_or_default();
        values.iter().map(|value| self.item(key, value)).collect()
    }

    /// As [`Config::texts`], but a text alone counts as a list of it, as xl has it for some keys.
    pub fn text_or_texts(&self, key: &str) -> Result<Vec<(&str, &Place)>, Error> {
        match self.get(key) {
            Some(Entry { value, .. }) if value.atom().is_some() => {
                Ok(value.atom().map(|text| (text, value.place())).into_iter().collect())
            }
            _ => self.texts(key),
        }
    }

    fn item<'a>(&self, key: &str, value: &'a Value) -> Result<(&'a str, &'a Place), Error> {
        let wrong = || Error::new(value.place(), format!("{key}: expected a text in this list, found a list"));
        value.atom().map(|text| (text, value.place())).ok_or_else(wrong)
    }

    /// A message about a key's value.
    pub(super) fn wrong(&self, key: &str, what: impl Into<String>) -> Error {
        let program = Place::program();
        Error::new(self.get(key).map_or(&program, |entry| entry.value.place()), what)
    }
}

impl Entry {
    fn atom(&self) -> Result<&str, Error> {
        let wrong = || Error::new(self.value.place(), format!("{}: expected one value, found a list", self.key));
        self.value.atom().ok_or_else(wrong)
    }
}

/// What C's strtol makes of a text in base 0, all of which must be a number.
pub(super) fn number(text: &str) -> Option<i64> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (base, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None if digits.len() > 1 && digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    let number = i128::from(u64::from_str_radix(digits, base).ok()?);
    i64::try_from(if negative { -number } else { number }).ok()
}
