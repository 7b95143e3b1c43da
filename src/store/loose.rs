//! What a layer's archive left open. What a newcomer would get wrong: a layer is unpacked alone and shared by images whose other layers
//! differ, so what it says of the layers below cannot be carried out in it; it is written down, and each image's own *seam*
//! (`image::oci::seam`), a small layer right above this one, carries it out.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What only the layers below can say. Paths are real ones in this layer, without a slash at either end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loose {
    /// Directories in which it makes something, but which it does not name: they are what they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Name>,
    /// Hard links to files that it does not hold, in the archive's order: the link, and what it leads to. This layer has a whiteout there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(Name, Name)>,
}

impl Loose {
    /// Whether there is nothing of the kind, as in nearly every layer.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty() && self.links.is_empty()
    }
}

/// A path in a record: bytes, escaped as in Rust's byte strings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub Vec<u8>);

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.escape_ascii())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        let text = String::deserialize(deserializer)?;
        unescape(&text).map(Name).ok_or_else(|| D::Error::custom("it is no escaped path"))
    }
}

/// The way back from [`slice::escape_ascii`]; `None` for what never came of it.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        out.push(match b {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                other => other,
            },
            b => b,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_comes_back() {
        let every: Vec<u8> = (1..=255).collect();
        let loose = Loose {
            parents: vec![Name(every.clone()), Name(b"etc/\"q\"".to_vec())],
            links: vec![(Name(every), Name(b"a".to_vec()))],
        };
        let text = serde_json::to_string(&loose).unwrap();
        assert_eq!(serde_json::from_str::<Loose>(&text).unwrap(), loose);
        assert!(serde_json::from_str::<Loose>("{}").unwrap().is_empty());
        assert!(serde_json::from_str::<Loose>(r#"{"parents":["a\\x4"]}"#).is_err());
    }
}
