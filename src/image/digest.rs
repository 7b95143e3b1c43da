//! Digests of OCI (`sha256:…`, image-spec descriptor.md) and the hashing behind them. What a newcomer would get wrong: a
//! [`Digest`] is sha256 and nothing else; a digest in another algorithm is an error and never "not checked". [`Sha512`] is for
//! checksum files that come with nothing better, and names nothing in the store.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256, SHA512};
use serde::{Deserialize, Serialize};

/// A checked `sha256:` digest: 64 lower-case hex digits, so it is safe as a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Of its hex digits, in either case; `None` when they are not 64 of them.
    pub fn from_hex(hex: &str) -> Option<Digest> {
        let hex = hex.to_ascii_lowercase();
        is_hex(&hex, 64).then_some(Digest(hex))
    }

    /// The hex digits alone.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// The first twelve hex digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl FromStr for Digest {
    type Err = String;
    fn from_str(text: &str) -> Result<Digest, String> {
        let hex = match text.split_once(':') {
            Some(("sha256", hex)) => hex,
            Some((other, _)) => return Err(format!("digest algorithm '{}' is not supported", other.escape_debug())),
            None => return Err(format!("'{}' is no digest", text.escape_debug())),
        };
        if is_hex(hex, 64) {
            return Ok(Digest(hex.to_owned()));
        }
        Err(format!("'{}' is no sha256 digest: 64 lower-case hex digits are", text.escape_debug()))
    }
}

/// Whether a text is that many lower-case hex digits.
fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A checked SHA-512: 128 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sha512(String);

impl Sha512 {
    /// Of its hex digits, in either case; `None` when they are not 128 of them.
    pub fn from_hex(hex: &str) -> Option<Sha512> {
        let hex = hex.to_ascii_lowercase();
        is_hex(&hex, 128).then_some(Sha512(hex))
    }
}

impl fmt::Display for Sha512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha512:{}", self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Digest, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Hashes as bytes go by.
pub struct Hasher(Context);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Hasher::new()
    }
}

impl Hasher {
    /// Nothing hashed yet.
    pub fn new() -> Hasher {
        Hasher(Context::new(&SHA256))
    }
    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// The digest of all of them.
    pub fn finish(self) -> Digest {
        Digest(hex_of(self.0))
    }
}

/// As [`Hasher`], for SHA-512.
pub struct Hasher512(Context);

impl fmt::Debug for Hasher512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher512")
    }
}

impl Default for Hasher512 {
    fn default() -> Self {
        Hasher512(Context::new(&SHA512))
    }
}

impl Hasher512 {
    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// The digest of all of them.
    pub fn finish(self) -> Sha512 {
        Sha512(hex_of(self.0))
    }
}

fn hex_of(context: Context) -> String {
    use fmt::Write;
    let mut hex = String::new();
    for byte in context.finish().as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_checked() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap().short(), "e3b0c44298fc");
        for bad in ["", "sha256:", "sha256:E3B0", &empty.to_uppercase(), &empty[..70], "sha256:../../../etc/passwd"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!(format!("sha512:{}", "0".repeat(128)).parse::<Digest>().unwrap_err().contains("sha512"));
    }

    /// Source: FIPS 180-2, appendix C.1, the message "abc".
    #[test]
    fn sha512() {
        let abc = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                   2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        let mut hasher = Hasher512::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hasher.finish(), Sha512::from_hex(&abc.to_uppercase()).unwrap());
        assert!(Sha512::from_hex(&abc[1..]).is_none() && Digest::from_hex(abc).is_none());
    }
}
