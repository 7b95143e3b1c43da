//! Writes a configuration as xl.cfg text that reads back as the same. What a newcomer would get wrong: xl knows no numeric escapes, so what
//! has no escape of its own (a bell has, an ESC has not) stands as it is; only a newline must never. A text has no NUL: see [`Value::text`].

use std::fmt::{self, Write};

use super::config::Config;
use super::value::{Kind, Value};

/// Lists longer than this stand on several lines.
const WIDTH: usize = 100;

/// One line per key, in order; lists of several long values have a line for each value.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in self.entries() {
            let line = format!("{} = {}", entry.key, entry.value);
            match entry.value.kind() {
                Kind::List(values) if values.len() > 1 && line.len() > WIDTH => {
                    writeln!(f, "{} = [", entry.key)?;
                    values.iter().try_for_each(|value| writeln!(f, "    {value},"))?;
                    writeln!(f, "]")?;
                }
                _ => writeln!(f, "{line}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Kind::Text(text) => f.write_str(&quoted(text)),
            Kind::Number(number) => f.write_str(number),
            Kind::List(values) if values.is_empty() => f.write_str("[ ]"),
            Kind::List(values) => {
                let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "[ {} ]", texts.join(", "))
            }
        }
    }
}

/// A text in quotes, as xl reads it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        let escape = match c {
            '"' => '"',
            '\\' => '\\',
            '\u{7}' => 'a',
            '\u{8}' => 'b',
            '\u{b}' => 'v',
            '\u{c}' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            other => {
                out.push(other);
                continue;
            }
        };
        let _ = write!(out, "\\{escape}");
    }
    out.push('"');
    out
}
