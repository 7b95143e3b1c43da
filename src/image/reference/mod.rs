//! What an image word means, decided by its spelling alone: no file is looked at and no network is asked. What a newcomer
//! would get wrong: `debian/bookworm` is a catalogue label, not the Docker Hub repository of that name (write
//! `docker.io/debian/bookworm` for that one), and a file needs `./` or `/` before it.

mod grammar;

use std::fmt;
use std::path::{Path, PathBuf};

use oci_distribution::Reference;

pub use grammar::is_loopback;
use grammar::registry_reference;

use super::{Error, Result, catalogue, raspios, streams};

/// What a word names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRef {
    /// `oci:DIR[:tag]`: an OCI image layout. Which colon splits is known only when DIR is looked at: see [`layout_parts`].
    Layout(String),
    /// `oci-archive:FILE[:tag]`: a tar of such a layout.
    OciArchive(String),
    /// `docker-archive:FILE[:NAME[:TAG]]`: what `docker save` writes.
    DockerArchive(String),
    /// A directory (a rootfs tree) or a file (a tarball), as written.
    Path(PathBuf),
    /// `http://…` or `https://…`: a tarball.
    Url(String),
    /// `images:DISTRO/RELEASE…`: an image of linuxcontainers.org or a server like it.
    Streams(streams::Name),
    /// `raspios/RELEASE…`: Raspberry Pi OS.
    Raspios(raspios::Name),
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
    for (prefix, made) in
        [("oci-archive:", ImageRef::OciArchive as fn(String) -> ImageRef), ("docker-archive:", ImageRef::DockerArchive)]
    {
        match word.strip_prefix(prefix) {
            Some("") => return Err(bad(word, &format!("a file must follow '{prefix}'"))),
            Some(rest) => return Ok(made(rest.to_owned())),
            None => {}
        }
    }
    if let Some(name) = streams::Name::parse(word) {
        return name.map(ImageRef::Streams).map_err(|why| bad(word, &why));
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
    if let Some(name) = raspios::Name::parse(word) {
        return name.map(ImageRef::Raspios).map_err(|why| bad(word, &why));
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

/// The host that no registry is: images that were imported or tagged here are kept under it, as podman and buildah do.
pub const LOCAL: &str = "localhost";

/// What an image is called in full that is given a name here: `localhost/NAME:TAG`, with `latest` where no tag was given. The one rule for
/// every verb that names an image, and for finding it again by the word that named it. Errors: [`Error::BadReference`] when NAME
/// is a path, a URL or a label of the catalogue, or names a registry or a digest: nothing that is stored under it could be told from that.
pub fn local(name: &str) -> Result<String> {
    let no = |why: &str| Err(bad(name, why));
    if is_path(name)
        || name.contains("://")
        || ["oci:", "oci-archive:", "docker-archive:"].iter().any(|p| name.starts_with(p))
    {
        return no("a name for an image here is NAME[:TAG], no place");
    }
    if name.contains('@') {
        return no("an image here is named by a tag, not by a digest");
    }
    if streams::Name::parse(name).is_some() || raspios::Name::parse(name).is_some() {
        return no("it names an image of a server already: take another name");
    }
    if catalogue::lookup(name).is_some() {
        return no("the catalogue has a label of this name: take another one");
    }
    let short = name.strip_prefix("localhost/").unwrap_or(name);
    if short.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':', '[']) || host == LOCAL) {
        return no("a registry's host stands before it: an image here is named NAME[:TAG]");
    }
    let reference = registry_reference(&format!("{LOCAL}/{short}")).map_err(|why| bad(name, why))?;
    Ok(reference.whole())
}

/// Whether a reference in full is that of an image that was named here, and so is in no registry.
pub fn is_local(reference: &Reference) -> bool {
    reference.registry() == LOCAL
}

fn registry(word: &str, text: &str) -> Result<ImageRef> {
    registry_reference(text).map(ImageRef::Registry).map_err(|why| bad(word, why))
}

fn bad(word: &str, why: &str) -> Error {
    Error::BadReference { word: word.to_owned(), why: why.to_owned() }
}

/// A path made absolute with every link resolved; the error names the path as it was written.
pub fn canonical(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(Error::io(format!("cannot open {}", path.display().to_string().escape_debug())))
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageRef::Layout(rest) => write!(f, "oci:{rest}"),
            ImageRef::OciArchive(rest) => write!(f, "oci-archive:{rest}"),
            ImageRef::DockerArchive(rest) => write!(f, "docker-archive:{rest}"),
            ImageRef::Path(path) => path.display().fmt(f),
            ImageRef::Url(url) => f.write_str(url),
            ImageRef::Streams(name) => name.fmt(f),
            ImageRef::Raspios(name) => name.fmt(f),
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
    fn names_that_are_given_here() {
        for (name, whole) in [
            ("mine", "localhost/mine:latest"),
            ("mine:1.0", "localhost/mine:1.0"),
            ("debian:bookworm", "localhost/debian:bookworm"),
            ("team/app:x", "localhost/team/app:x"),
            ("localhost/mine", "localhost/mine:latest"),
        ] {
            assert_eq!(local(name).unwrap(), whole);
            // What was named is found under its full name, too.
            assert!(matches!(parse(whole).unwrap(), ImageRef::Registry(r) if is_local(&r) && r.whole() == whole));
            assert_eq!(local(whole).unwrap(), whole);
        }
        let hex = "a".repeat(64);
        for (name, why) in [
            ("", "malformed"),
            ("Mine", "lower case"),
            ("mine:", "tag is malformed"),
            ("./mine", "no place"),
            ("/mine", "no place"),
            ("oci:mine", "no place"),
            ("http://mine", "no place"),
            ("docker.io/library/debian", "registry's host"),
            ("localhost:5000/x", "registry's host"),
            ("localhost/localhost/x", "registry's host"),
            ("quay.io/x/y:1", "registry's host"),
            ("debian/bookworm", "catalogue"),
            ("debian-12", "catalogue"),
            ("images:debian/12", "a server"),
            ("raspios/bookworm-lite", "a server"),
            (&format!("mine@sha256:{hex}"), "digest"),
            ("a b", "white space"),
        ] {
            let error = local(name).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        let ImageRef::Registry(other) = parse("localhost:5000/x").unwrap() else { panic!() };
        assert!(!is_local(&other), "a registry on this machine has a port");
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
            ("debian:", "tag"),
            ("a@sha256:123", "digest"),
            ("a..b/c:d", "host"),
            ("x/a..b:c", "repository"),
            ("x/_a", "repository"),
            ("a.b:99999/c", "port"),
            ("[::1/x", "bracket"),
            ("ftp://x/y", "no scheme"),
            ("https://", "host"),
            ("oci:", "directory"),
            ("[::zz]/x", "IPv6"),
            ("[::1]", "repository"),
            ("é:x", "repository"),
            ("[::1]:x/y", "port"),
            ("a/b\u{7}", "control"),
            // With the `library/` that is added to a short name it is too long to be read again.
            (&"a".repeat(248), "too long"),
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
}
