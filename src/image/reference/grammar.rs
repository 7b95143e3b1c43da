//! How a reference to an image in a registry is spelled (distribution/reference, "Grammar"), and what its host says. What a newcomer would
//! get wrong: what stands before the first slash is a host only if it looks like one (a dot, a colon, a bracket, or `localhost`), else
//! it is a part of a name at Docker Hub.

use std::net::Ipv4Addr;

use oci_distribution::Reference;

use crate::image::Digest;

/// Reads `[HOST[:PORT]/]NAME[:TAG][@DIGEST]` (distribution/reference, "Grammar"). Written by hand: `Reference::from_str` compiles
/// a regular expression first, which takes longer than starting a container. Errors: a sentence.
pub fn registry_reference(text: &str) -> std::result::Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it holds white space or control characters (a path starts with './' or '/')");
    }
    if text.starts_with('[') && !text.contains('/') {
        return Err("a repository must follow the host");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            (rest, Some(digest.parse::<Digest>().map_err(|_| "its digest is not 'sha256:' and 64 hex digits")?))
        }
        None => (text, None),
    };
    // A colon after the last slash begins the tag; one before it belongs to the host's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("its tag is malformed: letters, digits, '_', '.' and '-', at most 128");
    }
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':', '[']) || host == "localhost" => {
            check_host(host)?;
            (host, path)
        }
        _ => ("docker.io", name),
    };
    check_path(path)?;
    let host = if host == "index.docker.io" { "docker.io" } else { host }.to_owned();
    let short = host == "docker.io" && !path.contains('/');
    let path = if short { format!("library/{path}") } else { path.to_owned() };
    if path.len() > 255 {
        return Err("its repository's name is too long");
    }
    Ok(match (tag.map(str::to_owned), digest.map(|d| d.to_string())) {
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(host, path, tag, digest),
        (None, Some(digest)) => Reference::with_digest(host, path, digest),
        (tag, None) => Reference::with_tag(host, path, tag.unwrap_or_else(|| "latest".to_owned())),
    })
}

fn is_tag(tag: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(inside)
        && tag.bytes().all(|b| inside(b) || b == b'.' || b == b'-')
}

fn check_host(host: &str) -> std::result::Result<(), &'static str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(inner) => {
            let (address, port) = inner.split_once(']').ok_or("its host's bracket is not closed")?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| "there is no IPv6 address between the brackets")?;
            ("ipv6", port.strip_prefix(':').or(Some(port).filter(|p| !p.is_empty())))
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("the port is no number");
    }
    let label = |l: &str| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-');
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if plain && name.split('.').all(label) { Ok(()) } else { Err("its host is malformed") }
}

fn check_path(path: &str) -> std::result::Result<(), &'static str> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("repository names are lower case");
    }
    if path.split('/').all(is_component) {
        return Ok(());
    }
    Err(
        "its repository is malformed: use [HOST[:PORT]/]NAME[:TAG][@sha256:…], a path with './' or '/', a URL or oci:DIR[:TAG]",
    )
}

/// Lower-case letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = part.bytes().next().is_some_and(word) && part.bytes().last().is_some_and(word);
    let mut separators = part.split(|c: char| word(c as u8) && c.is_ascii()).filter(|s| !s.is_empty());
    ends && separators.all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The grammar is the one that registries' clients share; theirs only takes longer to read it.
    #[test]
    fn agrees_with_the_shared_grammar() {
        let hex = "0".repeat(64);
        let pinned = format!("test:5000/repo:tag@sha256:{hex}");
        for word in [
            "busybox",
            "test.com:tag",
            "test.com:5000",
            "test.com/repo:tag",
            "test:5000/repo",
            "lowercase:Uppercase",
            &pinned,
            "sub-dom1.foo.com/bar/baz/quux:some-long-tag",
            "xn--n3h.com/myimage:xn--n3h.com",
            "foo/foo_bar.com:8080",
            "index.docker.io/x",
            "docker.io/x",
            "a__b/c-.d",
            "a/b--c",
            "a/b___c",
            "a/-b",
            "a:",
            ":a",
            "/a",
            "a//b",
            "a/",
            "a b",
            "Uppercase:tag",
            "test:5000/Uppercase/x:tag",
            "a/b:.c",
            "a/b:_c",
            "a@b",
            "aa/asdf$$^/aa",
            "-a.b/c",
            "a.b-/c",
        ] {
            let theirs = word.parse::<Reference>().map(|r| r.whole());
            let ours = registry_reference(word).map(|r| r.whole());
            assert_eq!(ours.as_ref().ok(), theirs.as_ref().ok(), "{word}: {ours:?} {theirs:?}");
        }
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
