//! Domain names and what a user may write where a domain is wanted. What a newcomer would get wrong: a word of digits only is
//! always a domid, as in xl (`libxl_domain_qualifier_to_domid`), so a name must hold something else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A valid domain name: `[a-zA-Z0-9][a-zA-Z0-9_.+-]{0,62}` with a non-digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a word is no domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a domain's name may not be empty")]
    Empty,
    /// Longer than 63 bytes.
    #[error("'{0}' is too long for a domain's name: at most 63 characters")]
    TooLong(String),
    /// Digits only.
    #[error("'{0}' is no name but a domid: a domain's name needs a character that is not a digit")]
    Digits(String),
    /// A character that is not allowed where it stands.
    #[error("'{}' cannot be a domain's name: letters, digits, '_', '.', '+' and '-' only, a letter or digit first", .0.escape_default())]
    Malformed(String),
}

impl Name {
    /// Checks a word. Errors: see [`NameError`].
    pub fn new(word: &str) -> Result<Name, NameError> {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b"_.+-".contains(&b);
        let bytes = word.as_bytes();
        match bytes.first() {
            None => Err(NameError::Empty),
            Some(first) if !first.is_ascii_alphanumeric() || !bytes.iter().all(|&b| inside(b)) => {
                Err(NameError::Malformed(word.to_owned()))
            }
            _ if bytes.len() > 63 => Err(NameError::TooLong(word.to_owned())),
            _ if bytes.iter().all(u8::is_ascii_digit) => Err(NameError::Digits(word.to_owned())),
            _ => Ok(Name(word.to_owned())),
        }
    }

    /// The nearest valid name to a text: other characters become `-`.
    pub fn from_text(text: &str) -> Name {
        let mapped: String =
            text.chars().map(|c| if c.is_ascii_alphanumeric() || "_.+-".contains(c) { c } else { '-' }).collect();
        let mut trimmed: String = mapped.trim_matches(|c: char| !c.is_ascii_alphanumeric()).chars().take(50).collect();
        if trimmed.bytes().all(|b| b.is_ascii_digit()) {
            trimmed = format!("d{trimmed}");
        }
        Name(trimmed)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(word: &str) -> Result<Name, NameError> {
        Name::new(word)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(word: String) -> Result<Name, NameError> {
        Name::new(&word)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

/// What stands on the command line where a domain is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainRef {
    /// All digits: the domid of a running domain.
    Id(u32),
    /// Anything else, valid name or not: an invalid one simply names no domain.
    Name(String),
}

impl From<&str> for DomainRef {
    fn from(word: &str) -> DomainRef {
        match word.parse() {
            Ok(id) if word.bytes().all(|b| b.is_ascii_digit()) => DomainRef::Id(id),
            _ => DomainRef::Name(word.to_owned()),
        }
    }
}

impl fmt::Display for DomainRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DomainRef::Id(id) => id.fmt(f),
            DomainRef::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "demo", "0a", "web-1.2_x+y", &"a".repeat(63)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "12", "-a", ".a", "a/b", "a b", "ä", "a\n", "..", &"a".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn digits_are_domids() {
        assert_eq!(DomainRef::from("7"), DomainRef::Id(7));
        assert_eq!(DomainRef::from("7a"), DomainRef::Name("7a".into()));
        assert_eq!(DomainRef::from("99999999999"), DomainRef::Name("99999999999".into()));
        assert_eq!(DomainRef::from("+7"), DomainRef::Name("+7".into()));
    }

    #[test]
    fn any_text_makes_a_name() {
        for (text, name) in [("debian/bookworm", "debian-bookworm"), ("./x y/", "x-y"), ("12", "d12"), ("//", "d")] {
            let made = Name::from_text(text);
            assert_eq!(made.as_str(), name);
            assert_eq!(Name::new(made.as_str()).unwrap(), made);
        }
    }
}
