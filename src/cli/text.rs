//! Makes text harmless: the one place where what comes from outside (registries, tar names, os-release, a guest) is escaped.
//! What a newcomer would get wrong: C1 controls (U+0080–9F) steer a terminal as ESC does, and bidirectional overrides can make
//! a line read as something else.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character can change more than its own cell on a terminal.
pub fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// One line: every dangerous character is written as an escape, line ends too.
pub fn line(text: &str) -> Cow<'_, str> {
    if text.contains(is_dangerous) { Cow::Owned(escape(text)) } else { Cow::Borrowed(text) }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_dangerous(c) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Text that may have several lines, behind a head: the following ones stand further right, so that no text from outside can
/// pass for a line of ours.
pub fn block(head: &str, text: &str) -> String {
    let mut lines = text.trim_end().split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l));
    let mut out = format!("{head}{}", line(lines.next().unwrap_or_default()));
    for more in lines {
        let _ = write!(out, "\n      {}", line(more));
    }
    out
}

/// JSON with dangerous characters inside strings as `\uXXXX`: the same data, and safe to show.
pub fn json(text: &str) -> Cow<'_, str> {
    let inside = |c: char| is_dangerous(c) && c != '\n';
    if !text.contains(inside) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if inside(c) {
            let _ = write!(out, "\\u{:04x}", c as u32);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_dangerous_is_left() {
        let nasty = "a\u{1b}[2Jb\u{9b}31mc\u{202e}d\u{7f}e\nf\tg\rh";
        assert_eq!(line(nasty), r"a\u{1b}[2Jb\u{9b}31mc\u{202e}d\u{7f}e\nf\tg\rh");
        assert_eq!(line("plain ünïcode 語"), "plain ünïcode 語");
        assert_eq!(block("x: ", "a\nb\u{1b}\n"), "x: a\n      b\\u{1b}");
    }

    #[test]
    fn json_is_the_same_data() {
        let data = serde_json::json!({"k": "a\u{1b}\u{9b}\u{202e}\u{7f}\nz"});
        let text = serde_json::to_string_pretty(&data).unwrap();
        let safe = json(&text);
        assert!(!safe.contains(|c| is_dangerous(c) && c != '\n'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), data);
    }
}
