//! What is said of a file that does not parse: what was expected, what was found, and what people who write that mean most often: text
//! without quotes, xm's configurations (which were Python), other tools' formats. What a newcomer would get wrong: a hint is a guess, so it
//! stands behind the facts, never in their place.

use super::error::{Error, awkward, shown};
use super::lex::{Token, Word};
use super::value::{Kind, Value};
use super::write::quoted;

/// What could have stood there.
#[derive(Debug)]
pub(super) enum Expected<'a> {
    /// A key.
    Statement,
    /// `=` or `+=`.
    Operator { key: &'a str, begin: usize },
    /// A key's value.
    Value { key: &'a str },
    /// A value of the list that begins in this line, or its end.
    Item { key: &'a str, line: u32 },
    /// A comma in that list, or its end.
    Comma { key: &'a str, line: u32 },
    /// The end of the statement.
    StatementEnd { key: &'a str, value: &'a Value },
}

const PYTHON: &str =
    "xm's configurations were Python, xl's are not: only KEY = VALUE lines are read, nothing is computed";
const WINDOWS: &str = "the line ends as on Windows (CR LF), and xl wants LF alone: sed -i 's/\\r$//' FILE";

/// The message about a word that may not stand where it does.
pub(super) fn unexpected(text: &[u8], token: &Token<'_>, expected: &Expected<'_>) -> Error {
    let rest = text.get(token.start..).unwrap_or_default();
    let line = String::from_utf8_lossy(rest.split(|b| *b == b'\n').next().unwrap_or_default()).into_owned();
    let wanted = match expected {
        Expected::Statement => "a key".to_owned(),
        Expected::Operator { key, .. } => format!("= or += after '{}'", clip(key)),
        Expected::Value { key } => format!("a value of '{}': a text in quotes, a number or a list", clip(key)),
        Expected::Item { key, line } => {
            format!("a value or ] in the list of '{}' that begins in line {line}", clip(key))
        }
        Expected::Comma { key, line } => {
            format!("a comma or ] in the list of '{}' that begins in line {line}", clip(key))
        }
        Expected::StatementEnd { key, .. } => format!("the end of the line or ; after the value of '{}'", clip(key)),
    };
    let error = Error::new(&token.place, format!("expected {wanted}, found {}", found(token, &line, expected)));
    let hint = match token.what {
        Word::Bad('\r') => Some(WINDOWS.to_owned()),
        Word::Bad('“' | '”' | '„' | '‘' | '’') => Some("write plain quotes, \" or '".to_owned()),
        Word::Bad('\u{feff}') => Some("save the file without a byte order mark".to_owned()),
        Word::Bad('\u{a0}') => Some("this blank is a no-break space: write a plain one".to_owned()),
        _ => match expected {
            Expected::Statement => at_statement(token, &line),
            Expected::Operator { key, begin } => at_operator(text, token, key, *begin, &line),
            Expected::Value { key } => at_value(key, &line),
            Expected::Item { key, .. } => at_item(token, key, &line),
            Expected::Comma { key, .. } => at_comma(token, key, &line),
            Expected::StatementEnd { key, value } => at_end(text, token, key, value, &line),
        },
    };
    Error { hint, ..error }
}

fn clip(key: &str) -> &str {
    key.get(..40).unwrap_or(key)
}

fn found(token: &Token<'_>, line: &str, expected: &Expected<'_>) -> String {
    match &token.what {
        Word::End => "the end of the file".to_owned(),
        Word::Newline => "the end of the line".to_owned(),
        Word::Text(text) => format!("the string {}", shown(text)),
        Word::Comma => "a comma".to_owned(),
        Word::Key(_) | Word::Bad(_) | Word::Number(_) => match expected {
            Expected::Value { .. } | Expected::Item { .. } => {
                shown(bare(line, matches!(expected, Expected::Item { .. })))
            }
            _ => shown(first_word(line)),
        },
        Word::Open => "'['".to_owned(),
        Word::Close => "']'".to_owned(),
        Word::Assign => "'='".to_owned(),
        Word::Add => "'+='".to_owned(),
        Word::Semicolon => "';'".to_owned(),
    }
}

/// What was meant as one value: up to the end of the line or statement, in a list up to a comma.
fn bare(line: &str, in_list: bool) -> &str {
    let ends = |c: char| matches!(c, ';' | '#' | '\r') || (in_list && matches!(c, ',' | ']'));
    let text = line.split(ends).next().unwrap_or(line).trim();
    if text.is_empty() { first_word(line) } else { text }
}

fn first_word(line: &str) -> &str {
    let word = line.split([' ', '\t', '\r', '=', ',', ';', '#', '[', ']', '"', '\'']).next().unwrap_or_default();
    if word.is_empty() { line.get(..line.chars().next().map_or(0, char::len_utf8)).unwrap_or(line) } else { word }
}

fn is_python(word: &str) -> bool {
    let words = [
        "import", "from", "def", "if", "elif", "else", "for", "while", "print", "try", "except", "class", "return",
        "with",
    ];
    words.contains(&word.trim_end_matches(':'))
}

fn computes(text: &str) -> bool {
    text.starts_with(['(', '{'])
        || ["(", "\" +", "' +", "+ \"", "+ '", "\" %", "' %", " % "].iter().any(|sign| text.contains(sign))
}

fn at_statement(token: &Token<'_>, line: &str) -> Option<String> {
    let word = first_word(line);
    let hint = match token.what {
        _ if is_python(word) => PYTHON.to_owned(),
        Word::Open => "xl.cfg has no [sections]: only KEY = VALUE lines".to_owned(),
        Word::Close => "no list is open here".to_owned(),
        Word::Bad('/' | '%' | '!') => "a comment begins with #".to_owned(),
        Word::Bad(c) if c.is_ascii_uppercase() && line.contains('=') => {
            format!("keys are in small letters: {}", shown(&word.to_ascii_lowercase()).trim_matches('\''))
        }
        _ => "a line is KEY = VALUE, and a comment begins with #".to_owned(),
    };
    Some(hint)
}

fn at_operator(text: &[u8], token: &Token<'_>, key: &str, begin: usize, line: &str) -> Option<String> {
    let whole = String::from_utf8_lossy(text.get(begin..).unwrap_or_default()).into_owned();
    let whole = whole.lines().next().unwrap_or_default();
    let meant: String =
        whole.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
    let hint = match token.what {
        _ if is_python(key) => PYTHON.to_owned(),
        Word::Bad('(') => PYTHON.to_owned(),
        Word::Bad(':') => format!("write {key} = VALUE, not {key}: VALUE"),
        Word::Bad('-') if meant.len() > key.len() + 1 => {
            format!("keys have _ and small letters: {}", meant.replace('-', "_").to_ascii_lowercase())
        }
        Word::Bad(c) if c.is_ascii_uppercase() && meant.len() > key.len() => {
            format!("keys are in small letters: {}", meant.to_ascii_lowercase())
        }
        Word::Text(_) | Word::Number(_) | Word::Open => format!("write {key} = {}", clip_line(line)),
        _ => "a line is KEY = VALUE".to_owned(),
    };
    Some(hint)
}

fn clip_line(line: &str) -> String {
    let plain: String = line.trim().chars().filter(|c| !awkward(*c)).take(60).collect();
    plain
}

/// The text in quotes, as it should have been written; for a message, so without what would break its line.
pub(super) fn in_quotes(text: &str) -> String {
    let text: String = text.trim_matches(['"', '\'', ' ', '\t']).chars().filter(|c| !awkward(*c)).take(60).collect();
    quoted(&text)
}

fn truth(text: &str) -> Option<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some("1"),
        "false" | "no" | "off" | "none" => Some("0"),
        _ => None,
    }
}

fn at_value(key: &str, line: &str) -> Option<String> {
    let text = bare(line, false);
    let signed = text.strip_prefix(['-', '+']).is_some_and(|digits| digits.starts_with(|c: char| c.is_ascii_digit()));
    let hint = if line.is_empty() || matches!(text, "\n" | ";" | "#" | ",") {
        format!("write {key} = VALUE in one line")
    } else if let Some(number) = truth(text) {
        format!("write {key} = {number}")
    } else if signed {
        format!("a number with a sign needs quotes: {key} = {}", in_quotes(text))
    } else if computes(text) {
        PYTHON.to_owned()
    } else if text.starts_with('=') {
        format!("one = is enough: {key} = VALUE")
    } else {
        format!("text needs quotes: {key} = {}", in_quotes(text))
    };
    Some(hint)
}

fn at_item(token: &Token<'_>, key: &str, line: &str) -> Option<String> {
    let text = bare(line, true);
    let hint = match token.what {
        Word::Comma => "there is a value before each comma: '' is an empty one".to_owned(),
        Word::End | Word::Semicolon => "a ] is missing".to_owned(),
        Word::Assign | Word::Add => format!("put each entry in quotes: {key} = [ 'NAME=VALUE' ]"),
        _ if text.contains(" = [") || text.contains("=[") => "the list before has no ]".to_owned(),
        _ if text.contains('=') && text.ends_with(['\'', '"']) => {
            format!("quotes go around a whole entry: [ {} ]", in_quotes(&text.replace(['\'', '"'], "")))
        }
        _ if computes(text) => PYTHON.to_owned(),
        _ => {
            let whole = line.split([']', '#', ';']).next().unwrap_or(line);
            // Commas are within an entry where it is a disk's or an interface's words.
            let entry =
                if matches!(key, "disk" | "vif" | "p9" | "vfb") { whole.trim_end_matches([',', ' ']) } else { text };
            format!("put each entry in quotes: [ {} ]", in_quotes(entry))
        }
    };
    Some(hint)
}

fn at_comma(token: &Token<'_>, key: &str, line: &str) -> Option<String> {
    let hint = match token.what {
        Word::Text(_) | Word::Number(_) | Word::Open => "there is a comma between two values".to_owned(),
        Word::Semicolon => "values are separated by commas".to_owned(),
        Word::Bad('+' | '%' | '.' | '(') => PYTHON.to_owned(),
        Word::Key(other) if line[other.len()..].trim_start().starts_with(['=', '+']) => {
            format!("the list of '{}' has no ], or an entry of it no quotes", clip(key))
        }
        Word::End => "a ] is missing".to_owned(),
        _ => format!("text needs quotes: [ {} ]", in_quotes(bare(line, true))),
    };
    Some(hint)
}

fn at_end(text: &[u8], token: &Token<'_>, key: &str, value: &Value, line: &str) -> Option<String> {
    let touches = token.start > 0 && !matches!(text.get(token.start - 1), Some(b' ' | b'\t'));
    let hint = match (&token.what, value.kind()) {
        (Word::Bad('+' | '%' | '.' | '(' | '*'), _) if !touches || !matches!(value.kind(), Kind::Number(_)) => {
            PYTHON.to_owned()
        }
        (Word::Close, _) => "no list is open here".to_owned(),
        (Word::Comma, _) => format!("several values are a list: {key} = [ …, … ]"),
        (Word::Bad(_) | Word::Key(_), Kind::Number(number)) if touches => {
            let all = format!("{number}{}", first_word(line));
            match number.starts_with("0x") && all[2..].bytes().all(|b| b.is_ascii_hexdigit()) {
                true => format!("hexadecimal digits are small letters: {}", all.to_ascii_lowercase()),
                false => format!("text needs quotes: {key} = {}", in_quotes(&format!("{number}{}", bare(line, false)))),
            }
        }
        (Word::Bad(_) | Word::Key(_) | Word::Number(_) | Word::Text(_), Kind::Text(_)) if touches => {
            "a quote within a text is written \\\" or \\'".to_owned()
        }
        (Word::Text(_), Kind::Text(_)) => "a value is one string".to_owned(),
        (Word::Key(_), _) if line.contains('=') => "each setting needs a line of its own, or a ; before it".to_owned(),
        (Word::Key(_) | Word::Number(_) | Word::Bad(_), Kind::Number(number)) => {
            format!("text needs quotes: {key} = {}", in_quotes(&format!("{number} {}", bare(line, false))))
        }
        _ => return None,
    };
    Some(hint)
}
