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

    /// A name for a domain of this image: what a person would call it (`debian-bookworm` for
    /// `registry.example:5000/library/debian:bookworm`, `sid` for `/srv/trees/sid.tar.xz`).
    pub fn for_image(image: &str) -> Name {
        if let Some(name) = of_streams(image) {
            return Name::from_text(&name);
        }
        // A pin behind a URL (`#sha256=…`) is no part of its name.
        let image = image.split_once("://").map_or(image, |(_, rest)| rest.split('#').next().unwrap_or(rest));
        let kinds = ["oci:", "oci-archive:", "docker-archive:"];
        let image = kinds.iter().find_map(|kind| image.strip_prefix(kind)).unwrap_or(image);
        let image = image.split('@').next().unwrap_or(image).trim_end_matches('/');
        let is_path = image.starts_with(['/', '.']);
        let last = image.rsplit('/').next().unwrap_or(image);
        let mut base = match image.split_once('/') {
            Some((_, rest)) if !is_path && !rest.contains('/') && !last.contains(['.', ':']) => image,
            _ => last,
        };
        for end in [".xz", ".gz", ".zst", ".zip", ".tgz", ".tar", ".img", ".raw", ".qcow2"] {
            base = base.strip_suffix(end).unwrap_or(base);
        }
        Name::from_text(base)
    }

    /// The hostname that goes with it: labels of letters, digits and hyphens, which neither begin nor end with a hyphen
    /// (hostname(7)); what a name may hold beyond that becomes a hyphen.
    pub fn hostname(&self) -> String {
        let labels = self.0.split('.').map(|label| {
            let words: Vec<&str> =
                label.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
            words.join("-")
        });
        let labels: Vec<String> = labels.filter(|l| !l.is_empty()).collect();
        labels.join(".")
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

/// `debian-bookworm` of `images:debian/bookworm/arm64` and of `images+https://server/debian/bookworm`.
fn of_streams(image: &str) -> Option<String> {
    let path = match image.strip_prefix("images:") {
        Some(path) => path,
        None => image.strip_prefix("images+")?.split_once("://")?.1.split_once('/')?.1,
    };
    Some(path.split('/').take(2).collect::<Vec<_>>().join("-"))
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
    fn images_give_names() {
        for (image, name) in [
            ("debian/bookworm", "debian-bookworm"),
            ("debian:bookworm", "debian-bookworm"),
            ("127.0.0.1:5000/debian:gz", "debian-gz"),
            ("docker.io/library/debian:12@sha256:00", "debian-12"),
            ("quay.io/centos/centos:stream9", "centos-stream9"),
            ("/root/.cache/trees/a1", "a1"),
            ("./my tree/", "my-tree"),
            ("https://h.example/x/root.tar.xz", "root"),
            ("./2024-raspios.img.xz", "2024-raspios"),
            ("/srv/debian-12-generic-arm64.qcow2", "debian-12-generic-arm64"),
            ("oci:/srv/layout:tag", "layout-tag"),
            ("oci-archive:/srv/layout.tar:tag", "layout.tar-tag"),
            ("docker-archive:/srv/save.tar", "save"),
            ("docker-archive:/srv/save.tar:library/debian:12", "debian-12"),
            ("images:debian/bookworm/arm64", "debian-bookworm"),
            ("images+http://127.0.0.1:8000/debian/bookworm", "debian-bookworm"),
            ("raspios/bookworm-lite", "raspios-bookworm-lite"),
            ("https://h.example/x/root.tar.xz#sha256=00", "root"),
            ("https://h.example/x/disk.img.xz", "disk"),
            ("/srv/12", "d12"),
            ("/", "d"),
        ] {
            assert_eq!(Name::for_image(image).as_str(), name, "{image}");
        }
    }

    #[test]
    fn hostnames_are_valid() {
        for (name, hostname) in
            [("demo", "demo"), ("a_b+c", "a-b-c"), ("x.-y", "x.y"), ("web-1.2", "web-1.2"), ("a-", "a")]
        {
            assert_eq!(Name::new(name).unwrap().hostname(), hostname);
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
