//! What was promised of a file: checksum files beside it, and pins in its URL. What a newcomer would get wrong: a checksum from the
//! same server finds damage, not a liar; only a pin (`URL#sha256=HEX`) that came another way does. MD5 and SHA-1 are no promise.

use std::path::Path;

use super::digest::Sha512;
use super::fetch::Web;
use super::fetch::web::RETRIES;
use super::{Digest, Error, Result};
use crate::domain::Report;

/// The longest file of checksums that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// What a file must turn out to be; what is not promised is not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expect {
    /// Of the file as it comes.
    pub sha256: Option<Digest>,
    /// Of the file as it comes.
    pub sha512: Option<Sha512>,
    /// Of what is in it, decompressed.
    pub content: Option<Digest>,
    /// Of the file as it comes, in bytes.
    pub size: Option<u64>,
}

impl Expect {
    /// Whether a digest vouches for every byte.
    pub fn is_firm(&self) -> bool {
        self.sha256.is_some() || self.sha512.is_some() || self.content.is_some()
    }
}

/// Splits `URL#sha256=HEX` (or sha512). Errors: something else stands behind the `#`.
pub fn pinned(word: &str) -> Result<(&str, Expect)> {
    let Some((url, pin)) = word.split_once('#') else { return Ok((word, Expect::default())) };
    let expect = match pin.split_once('=') {
        Some(("sha256", hex)) => Digest::from_hex(hex).map(|d| Expect { sha256: Some(d), ..Expect::default() }),
        Some(("sha512", hex)) => Sha512::from_hex(hex).map(|d| Expect { sha512: Some(d), ..Expect::default() }),
        _ => None,
    };
    let why = "behind '#' may stand sha256= and 64 hex digits, or sha512= and 128";
    expect.map(|e| (url, e)).ok_or_else(|| Error::BadReference { word: word.to_owned(), why: why.to_owned() })
}

/// What a text says of `file`: lines `HASH  FILE`, `HASH *FILE` (sha256sum(1)) or `SHA256 (FILE) = HASH` (its `--tag`); with
/// `alone`, the text is about that file only, and may be a hash and nothing else.
pub fn parse(text: &str, file: &str, alone: bool) -> Option<Expect> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if let ([hash], true) = (words.as_slice(), alone) {
        return promise(hash);
    }
    text.lines().find_map(|line| {
        let (name, hash) = entry(line.trim())?;
        let name = name.strip_prefix("./").unwrap_or(name);
        (name == file).then(|| promise(hash)).flatten()
    })
}

fn entry(line: &str) -> Option<(&str, &str)> {
    if let Some(rest) = line.strip_prefix("SHA256 (").or_else(|| line.strip_prefix("SHA512 (")) {
        return rest.rsplit_once(") = ");
    }
    let (hash, name) = line.split_once([' ', '\t'])?;
    let name = name.trim_start_matches([' ', '\t']);
    Some((name.strip_prefix('*').unwrap_or(name), hash))
}

/// The length tells the kind.
fn promise(hash: &str) -> Option<Expect> {
    let (sha256, sha512) = (Digest::from_hex(hash), Sha512::from_hex(hash));
    (sha256.is_some() || sha512.is_some()).then_some(Expect { sha256, sha512, ..Expect::default() })
}

/// Where checksums of `file` may stand, and whether such a file is about it alone.
fn places(file: &str) -> [(String, bool); 4] {
    [
        (format!("{file}.sha256"), true),
        ("SHA256SUMS".to_owned(), false),
        (format!("{file}.sha512"), true),
        ("SHA512SUMS".to_owned(), false),
    ]
}

/// What stands beside `url` on its server. When nothing does, the user is told that the download is not verified. Errors: the server
/// cannot be reached, so that nobody can say whether there is a checksum.
pub fn beside_url(web: &Web, url: &str, report: &dyn Report) -> Result<Expect> {
    let unverified = |why: &str| report.note(&format!("{url} is not verified: {why} (URL#sha256=HEX would pin it)"));
    let Some((base, file)) = split(url) else {
        unverified("its name says nothing of where its checksum could be");
        return Ok(Expect::default());
    };
    for (name, alone) in places(&file) {
        let found = text_at(web, &format!("{base}{name}"))?.and_then(|text| parse(&text, &file, alone));
        if let Some(expect) = found {
            return Ok(expect);
        }
    }
    let md5 = text_at(web, &format!("{base}{file}.md5"))?;
    let is_md5 = |text: String| text.split_whitespace().next().is_some_and(|h| h.len() == 32);
    unverified(match md5.is_some_and(is_md5) {
        true => "only an MD5 checksum stands beside it, which proves nothing",
        false => "no checksum stands beside it",
    });
    Ok(Expect::default())
}

/// `http://h/d/` and `f` of `http://h/d/f?q`.
fn split(url: &str) -> Option<(String, String)> {
    let mut parsed = reqwest::Url::parse(url).ok()?;
    parsed.set_query(None);
    parsed.set_fragment(None);
    let (base, file) = parsed.as_str().rsplit_once('/')?;
    (!file.is_empty() && parsed.path().len() > 1).then(|| (format!("{base}/"), file.to_owned()))
}

/// A text; `None` when the server has nothing of that name, or something that is no file of checksums.
fn text_at(web: &Web, url: &str) -> Result<Option<String>> {
    match web.document(url, LIMIT, None, RETRIES) {
        Ok(document) => Ok(document.map(|d| String::from_utf8_lossy(&d.bytes).into_owned())),
        // Object stores answer 403 for what does not exist.
        Err(Error::NotFound { .. } | Error::Refused { .. } | Error::Malformed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What stands beside a file on the disk. Errors: a file of checksums cannot be read.
pub fn beside_file(path: &Path) -> Result<Expect> {
    let Some(file) = path.file_name().and_then(|n| n.to_str()) else { return Ok(Expect::default()) };
    for (name, alone) in places(file) {
        let at = path.with_file_name(name);
        let there = std::fs::metadata(&at).is_ok_and(|meta| meta.is_file() && meta.len() <= LIMIT);
        if !there {
            continue;
        }
        let bytes = std::fs::read(&at).map_err(Error::io(format!("cannot read {}", at.display())))?;
        if let Some(expect) = parse(&String::from_utf8_lossy(&bytes), file, alone) {
            return Ok(expect);
        }
    }
    Ok(Expect::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read() {
        let (hex, other) = ("ab".repeat(32), "0".repeat(64));
        let want = Some(Expect { sha256: Digest::from_hex(&hex), ..Expect::default() });
        for (text, alone) in [
            (format!("{other} *x-arm64-root.tar.xz\n{hex} *arm64-root.tar.xz\n"), false),
            (format!("{hex}  arm64-root.tar.xz\n"), false),
            (format!("{}  ./arm64-root.tar.xz\r\n", hex.to_uppercase()), true),
            (format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{hex}\tarm64-root.tar.xz\n"), false),
            (format!("# a comment\nSHA256 (arm64-root.tar.xz) = {hex}\n"), false),
            (format!("{hex}\n"), true),
        ] {
            assert_eq!(parse(&text, "arm64-root.tar.xz", alone), want, "{text}");
        }
        let long = "cd".repeat(64);
        let sha512 = parse(&format!("{long}  f"), "f", false).unwrap();
        assert!(sha512.sha512.is_some() && sha512.sha256.is_none() && sha512.is_firm());
        for (text, alone) in [
            (format!("{hex}\n"), false),
            (format!("{hex}  other.tar\n"), true),
            (format!("{}  f\n", "a".repeat(32)), false),
            (format!("{}  f\n", "a".repeat(40)), false),
            ("<html><body>not found: f</body></html>".to_owned(), true),
            (String::new(), true),
        ] {
            assert_eq!(parse(&text, "f", alone), None, "{text}");
        }
    }

    #[test]
    fn pins() {
        let hex = "ab".repeat(32);
        let word = format!("https://h.example/x.tar#sha256={hex}");
        let (url, expect) = pinned(&word).unwrap();
        assert_eq!((url, expect.sha256), ("https://h.example/x.tar", Digest::from_hex(&hex)));
        assert!(pinned(&format!("http://h/x#sha512={hex}{hex}")).unwrap().1.sha512.is_some());
        assert!(!pinned("http://h/x").unwrap().1.is_firm());
        for bad in ["http://h/x#", "http://h/x#sha256=12", "http://h/x#md5=12", "http://h/x#part"] {
            assert!(pinned(bad).unwrap_err().to_string().contains("sha256="), "{bad}");
        }
    }

    #[test]
    fn what_stands_beside() {
        let (base, file) = split("http://h:1/a/b.tar.xz?x=/y").unwrap();
        assert_eq!((base.as_str(), file.as_str()), ("http://h:1/a/", "b.tar.xz"));
        assert!(split("http://h/").is_none() && split("http://h").is_none() && split("http://h/a/").is_none());
    }
}
