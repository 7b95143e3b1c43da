//! What an image word means, decided by its spelling alone: no file is looked at and no network is asked. What a newcomer
//! would get wrong: `debian/bookworm` is a catalogue label, not the Docker Hub repository of that name (write
//! `docker.io/debian/bookworm` for that one), and a file needs `./` or `/` before it.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use oci_distribution::Reference;

use super::{Error, Result, catalogue};

/// What a word names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRef {
    /// `oci:DIR[:tag]`: an OCI image layout. Which colon splits is known only when DIR is looked at: see [`layout_parts`].
    Layout(String),
    /// A directory (a rootfs tree) or a file (a tarball), as written.
    Path(PathBuf),
    /// `http://…` or `https://…`: a tarball.
    Url(String),
    /// A label of the catalogue, in its main spelling.
    Label(&'static str),
    /// An image in a registry.
    Registry(Reference),
}

/// Reads an image word. Errors: [`Error::BadReference`].
pub fn parse(word: &str) -> Result<ImageRef> {
    if let Some(rest) = word.strip_prefix("oci:") {
        return match rest {
            "" => Err(bad(word, "a directory must follow 'oci:'")),
            _ => Ok(ImageRef::Layout(rest.to_owned())),
        };
    }
    if is_path(word) {
        return Ok(ImageRef::Path(PathBuf::from(word)));
    }
    if let Some((scheme, rest)) = word.split_once("://") {
        return match scheme {
            "http" | "https" if rest.is_empty() => Err(bad(word, "a host must follow '://'")),
            "http" | "https" => Ok(ImageRef::Url(word.to_owned())),
            "docker" => registry(word, rest),
            other => Err(bad(
                word,
                &format!("'{}' is no scheme that is known here: use http or https", other.escape_debug()),
            )),
        };
    }
    if let Some(row) = catalogue::lookup(word) {
        return Ok(ImageRef::Label(&row.label));
    }
    registry(word, word)
}

/// Whether a word is a path: it starts with `/`, `./` or `../`.
pub fn is_path(word: &str) -> bool {
    word.starts_with('/') || word.starts_with("./") || word.starts_with("../") || word == "." || word == ".."
}

/// The ways to read `DIR[:tag]`, most likely first: the whole as a directory, then split at the last colon.
pub fn layout_parts(rest: &str) -> Vec<(PathBuf, Option<String>)> {
    let mut ways = vec![(PathBuf::from(rest), None)];
    if let Some((dir, tag)) = rest.rsplit_once(':') {
        if !dir.is_empty() && !tag.is_empty() && !tag.contains('/') {
            ways.push((PathBuf::from(dir), Some(tag.to_owned())));
        }
    }
    ways
}

fn registry(word: &str, text: &str) -> Result<ImageRef> {
    if let Some(reference) = bracketed(text) {
        return reference.map(ImageRef::Registry).map_err(|why| bad(word, why));
    }
    match text.parse::<Reference>() {
        Ok(reference) => Ok(ImageRef::Registry(reference)),
        Err(error) => Err(bad(word, &why_not(text, &error.to_string()))),
    }
}

/// `[::1]:5000/name`: a literal IPv6 host, which the reference grammar of the registries does not know.
fn bracketed(text: &str) -> Option<std::result::Result<Reference, &'static str>> {
    let end = text.strip_prefix('[')?.find(']')? + 1;
    let address = &text[1..end];
    if address.parse::<std::net::Ipv6Addr>().is_err() {
        return Some(Err("there is no IPv6 address between the brackets"));
    }
    let Some((port, rest)) = text[end + 1..].split_once('/') else {
        return Some(Err("a repository must follow the host"));
    };
    if !port.is_empty() && port.strip_prefix(':').is_none_or(|p| p.parse::<u16>().is_err()) {
        return Some(Err("the port is no number"));
    }
    // The rest is checked by the ordinary grammar behind a host that stands in.
    let Ok(inner) = format!("localhost/{rest}").parse::<Reference>() else {
        return Some(Err("the repository, tag or digest is malformed"));
    };
    let host = format!("[{address}]{port}");
    let repository = inner.repository().to_owned();
    Some(Ok(match (inner.tag(), inner.digest()) {
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(host, repository, tag.to_owned(), digest.to_owned())
        }
        (None, Some(digest)) => Reference::with_digest(host, repository, digest.to_owned()),
        (tag, None) => Reference::with_tag(host, repository, tag.unwrap_or("latest").to_owned()),
    }))
}

fn why_not(text: &str, parser: &str) -> String {
    let name = text.split(['@']).next().unwrap_or_default();
    let repository = name.rsplit_once(':').map_or(name, |(left, right)| if right.contains('/') { name } else { left });
    if text.is_empty() {
        "it is empty".to_owned()
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "it holds white space or control characters (a path starts with './' or '/')".to_owned()
    } else if repository.split('/').skip(1).any(|part| part.bytes().any(|b| b.is_ascii_uppercase()))
        || (!repository.contains('/') && repository.bytes().any(|b| b.is_ascii_uppercase()))
    {
        "repository names are lower case".to_owned()
    } else {
        format!("{parser}; use [HOST[:PORT]/]NAME[:TAG][@sha256:…], a path with './' or '/', a URL or oci:DIR[:TAG]")
    }
}

fn bad(word: &str, why: &str) -> Error {
    Error::BadReference { word: word.to_owned(), why: why.to_owned() }
}

/// Whether a registry (`host[:port]`) is this machine's own, and so spoken to over plain http: 127.0.0.0/8, ::1, localhost.
pub fn is_loopback(registry: &str) -> bool {
    if let Some(rest) = registry.strip_prefix('[') {
        return rest
            .split(']')
            .next()
            .and_then(|a| a.parse::<std::net::Ipv6Addr>().ok())
            .is_some_and(|a| a.is_loopback());
    }
    let host = registry.split(':').next().unwrap_or_default();
    host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
}

/// A path made absolute with every link resolved; the error names the path as it was written.
pub fn canonical(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(Error::io(format!("cannot open {}", path.display().to_string().escape_debug())))
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageRef::Layout(rest) => write!(f, "oci:{rest}"),
            ImageRef::Path(path) => path.display().fmt(f),
            ImageRef::Url(url) => f.write_str(url),
            ImageRef::Label(label) => f.write_str(label),
            ImageRef::Registry(reference) => f.write_str(&reference.whole()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(word: &str) -> String {
        match parse(word).unwrap() {
            ImageRef::Registry(reference) => reference.whole(),
            other => panic!("{word} is {other:?}"),
        }
    }

    #[test]
    fn short_names_are_docker_hub() {
        let hex = "a".repeat(64);
        for (word, long) in [
            ("debian:bookworm", "docker.io/library/debian:bookworm"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("opensuse/leap:15.6", "docker.io/opensuse/leap:15.6"),
            ("docker.io/debian/bookworm", "docker.io/debian/bookworm:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("127.0.0.1:5000/debian:gz", "127.0.0.1:5000/debian:gz"),
            ("quay.io/centos/centos:stream9", "quay.io/centos/centos:stream9"),
            ("docker://quay.io/a/b", "quay.io/a/b:latest"),
            ("[::1]:5000/a/b:c", "[::1]:5000/a/b:c"),
            ("[::1]/a", "[::1]/a:latest"),
        ] {
            assert_eq!(whole(word), long, "{word}");
        }
        assert_eq!(whole(&format!("a/b@sha256:{hex}")), format!("docker.io/a/b@sha256:{hex}"));
        assert_eq!(whole(&format!("r.example/b:t@sha256:{hex}")), format!("r.example/b:t@sha256:{hex}"));
    }

    #[test]
    fn the_other_kinds() {
        assert_eq!(parse("oci:./a b:1").unwrap(), ImageRef::Layout("./a b:1".into()));
        for path in ["/srv/a b:c,d", "./x.tar.gz", "../x", "/", "."] {
            assert_eq!(parse(path).unwrap(), ImageRef::Path(path.into()));
        }
        assert_eq!(parse("https://h.example/x.tar.xz").unwrap(), ImageRef::Url("https://h.example/x.tar.xz".into()));
        assert_eq!(parse("debian/bookworm").unwrap(), ImageRef::Label("debian/bookworm"));
        assert_eq!(parse("debian-12").unwrap(), ImageRef::Label("debian/bookworm"));
    }

    #[test]
    fn bad_words_say_why() {
        for (word, why) in [
            ("", "empty"),
            ("a b:c", "white space"),
            ("Debian:x", "lower case"),
            ("quay.io/Foo/bar", "lower case"),
            ("debian:", "reference"),
            ("a@sha256:123", "reference"),
            ("ftp://x/y", "no scheme"),
            ("https://", "host"),
            ("oci:", "directory"),
            ("[::zz]/x", "IPv6"),
            ("[::1]", "repository"),
            ("[::1]:x/y", "port"),
            ("a/b\u{7}", "control"),
        ] {
            let error = parse(word).unwrap_err().to_string();
            assert!(error.contains(why), "{word:?}: {error}");
            assert!(!error.contains('\u{7}'), "{error:?}");
        }
    }

    #[test]
    fn a_layout_directory_may_hold_colons() {
        assert_eq!(layout_parts("./d:t"), [(PathBuf::from("./d:t"), None), (PathBuf::from("./d"), Some("t".into()))]);
        assert_eq!(layout_parts("/a:b/c"), [(PathBuf::from("/a:b/c"), None)]);
    }

    #[test]
    fn loopback() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["docker.io", "localhost.example", "128.0.0.1", "10.0.0.1:5000", "[fe80::1]:5000"] {
            assert!(!is_loopback(no), "{no}");
        }
    }
}
