//! os-release, as os-release(5) has it: shell-like assignments. What a newcomer would get wrong: it is a stranger's text, so
//! values are data that must be escaped where they are shown, and never sourced by a shell.

use serde::{Deserialize, Serialize};

use crate::sys::root::Root;

/// The fields pronto looks at; empty where the file does not have them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OsRelease {
    /// `Debian GNU/Linux`.
    pub name: String,
    /// `debian`.
    pub id: String,
    /// `12`.
    pub version_id: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub pretty_name: String,
    /// `rhel fedora`: what it is made from.
    pub id_like: String,
    /// `bookworm`.
    pub version_codename: String,
}

/// The tree's file: /etc/os-release, else /usr/lib/os-release.
pub(super) fn read(root: &Root) -> Option<OsRelease> {
    let text = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| root.read_text(path).ok())?;
    Some(parse(&text))
}

fn parse(text: &str) -> OsRelease {
    let mut found = OsRelease::default();
    for line in text.lines() {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        let field = match key {
            "NAME" => &mut found.name,
            "ID" => &mut found.id,
            "VERSION_ID" => &mut found.version_id,
            "PRETTY_NAME" => &mut found.pretty_name,
            "ID_LIKE" => &mut found.id_like,
            "VERSION_CODENAME" => &mut found.version_codename,
            _ => continue,
        };
        *field = unquote(value);
    }
    found
}

/// Removes the quotes a shell would remove; a backslash keeps the character after it.
fn unquote(value: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut letters = value.chars();
    while let Some(c) = letters.next() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None | Some('"'), '\\') => out.extend(letters.next()),
            (None, c) if c.is_whitespace() => break,
            (_, c) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_shells_read_it() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME='it'\\''s'\n# ID=no\nVERSION_ID=12 # gone\n\
            ID=debian\r\nID_LIKE=\"rhel \\\"fedora\\\"\"\nbroken\nUNKNOWN=1\nVERSION_CODENAME=\n";
        let got = parse(text);
        assert_eq!(got.pretty_name, "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(got.name, "it's");
        assert_eq!(got.version_id, "12");
        assert_eq!(got.id, "debian");
        assert_eq!(got.id_like, "rhel \"fedora\"");
        assert_eq!(got.version_codename, "");
        assert_eq!(parse(""), OsRelease::default());
    }
}
