//! Values of keys. What a newcomer would get wrong: two values are equal when they say the same, wherever they stand.

use super::error::{Error, Place};

/// A value with its place.
#[derive(Debug, Clone)]
pub struct Value {
    pub(super) kind: Kind,
    pub(super) place: Place,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A text that stood in quotes.
    Text(String),
    /// A number as it was written: `512`, `0x10`. xl makes a number of it when it needs one.
    Number(String),
    /// A list, which may hold lists.
    List(Vec<Value>),
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.kind == other.kind
    }
}

impl Eq for Value {}

impl Value {
    /// A text. Errors: it holds a NUL, which no xl.cfg can.
    pub fn text(text: impl Into<String>) -> Result<Value, Error> {
        let (text, place) = (text.into(), Place::program());
        match text.contains('\0') {
            true => Err(Error::new(&place, "a text of an xl.cfg file cannot hold a NUL")),
            false => Ok(Value { kind: Kind::Text(text), place }),
        }
    }

    /// A number.
    pub fn number(number: u64) -> Value {
        Value { kind: Kind::Number(number.to_string()), place: Place::program() }
    }

    /// A list.
    pub fn list(values: Vec<Value>) -> Value {
        Value { kind: Kind::List(values), place: Place::program() }
    }

    /// What it is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its text: of a string or of a number, which xl treats alike; none of a list.
    pub fn atom(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) | Kind::Number(text) => Some(text),
            Kind::List(_) => None,
        }
    }
}
