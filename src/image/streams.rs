//! Images of linuxcontainers.org and servers like it (simplestreams): an index of products, each with versions, each with files.
//! These systems have an init already. A version may be there as a tarball, as a squashfs, or both. What a newcomer would get wrong: the
//! index comes from outside: no name in it may lead anywhere but below the server's own address, and an image without a SHA-256 is
//! refused, for nothing else vouches for it.
//! Source: simplestreams, doc/simplestreams-*; incus, shared/simplestreams/products.go.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::checksums::Expect;
use super::fetch::{Patience, Web, cached, web};
use super::platform::{self, Wanted};
use super::sources::Settings;
use super::tarball::{self, Found};
use super::{Digest, Error, Result, oci};
use crate::domain::{Platform, Report};
use crate::store::Store;
use crate::store::images::Entry;

/// The longest index that is read, in bytes (linuxcontainers.org's has 2 MB).
const LIMIT: u64 = 32 << 20;
/// The largest image that is believed in, in bytes.
const LARGEST: u64 = 64 << 30;
/// What is taken of a version, in this order. A tarball becomes a tree, which any kernel can stack under any ids; a squashfs is a disk, which
/// the kernel has to read.
const ROOTS: [&str; 2] = ["root.tar.xz", "squashfs"];

/// `images:DISTRO/RELEASE[/VARIANT][/ARCH]`, or the same on another server: `images+https://HOST/DISTRO/RELEASE…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `https://HOST[:PORT]`; none for the one that is configured.
    server: Option<String>,
    distro: String,
    release: String,
    variant: String,
    /// The platform, if the word says it.
    pub platform: Option<Platform>,
}

impl Name {
    /// Reads what stands behind `images:` or `images+`; `None` when the word begins with neither. Errors: a sentence.
    pub fn parse(word: &str) -> Option<std::result::Result<Name, String>> {
        if let Some(rest) = word.strip_prefix("images:") {
            return Some(Name::of(None, rest));
        }
        let url = word.strip_prefix("images+")?;
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
        let Some((host, path)) = rest.split_once('/') else {
            return Some(Err("DISTRO/RELEASE must follow the server".to_owned()));
        };
        let legal = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
        if host.is_empty() || !host.bytes().all(legal) {
            return Some(Err("its server's name is malformed".to_owned()));
        }
        Some(Name::of(Some(url[..url.len() - path.len() - 1].to_owned()), path))
    }

    fn of(server: Option<String>, path: &str) -> std::result::Result<Name, String> {
        let mut parts: Vec<&str> = path.split('/').collect();
        if let Some(illegal) = parts.iter().find(|part| !is_word(part)) {
            return Err(format!("'{}' is no name of a distribution, release or variant", illegal.escape_debug()));
        }
        let platform = parts.last().filter(|_| parts.len() > 2).and_then(|last| platform::of_debian(last));
        if platform.is_some() {
            parts.pop();
        }
        let (distro, release, variant) = match parts.as_slice() {
            [distro, release] => (distro, release, "default"),
            [distro, release, variant] => (distro, release, *variant),
            _ => return Err("images:DISTRO/RELEASE[/VARIANT][/ARCH] is how they are named".to_owned()),
        };
        let (distro, release) = ((*distro).to_owned(), (*release).to_owned());
        Ok(Name { server, distro, release, variant: variant.to_owned(), platform })
    }

    /// The reference under which all its platforms are stored.
    pub fn reference(&self) -> String {
        Name { platform: None, ..self.clone() }.to_string()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Some(server) => write!(f, "images+{server}/")?,
            None => f.write_str("images:")?,
        }
        write!(f, "{}/{}/{}", self.distro, self.release, self.variant)?;
        self.platform.as_ref().map_or(Ok(()), |p| {
            let debian = platform::debian_name(&p.architecture, p.variant.as_deref());
            write!(f, "/{}", debian.unwrap_or(&p.architecture))
        })
    }
}

fn is_word(part: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    !part.is_empty() && part.len() <= 64 && part.bytes().all(legal) && part.bytes().any(|b| b != b'.')
}

#[derive(Debug, Deserialize)]
struct Index {
    index: BTreeMap<String, Stream>,
}

#[derive(Debug, Deserialize)]
struct Stream {
    #[serde(default)]
    datatype: String,
    path: String,
}

#[derive(Debug, Deserialize)]
struct Products {
    format: String,
    products: BTreeMap<String, Product>,
}

#[derive(Debug, Deserialize)]
struct Product {
    #[serde(default)]
    aliases: String,
    arch: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    release: String,
    #[serde(default)]
    variant: String,
    versions: BTreeMap<String, Version>,
}

#[derive(Debug, Deserialize)]
struct Version {
    items: BTreeMap<String, Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    ftype: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    sha256: String,
    #[serde(default)]
    size: u64,
}

/// An image for the best of the platforms that are wanted: what is stored unless `ask`, else the newest that the index names, fetched
/// if it is another one. Says too whether it was fetched.
pub fn obtain(store: &Store, name: &Name, wanted: Wanted<'_>, ask: bool, report: &dyn Report) -> Result<(Entry, bool)> {
    let reference = name.reference();
    if !ask {
        if let Some(entry) = oci::stored(store, &reference, wanted)? {
            return Ok((entry, false));
        }
    }
    let web = Web::new(Patience::default())?;
    let (server, products) = look_up(&web, store, name, ask, report)?;
    tarball::obtain(store, &web, &choose(&products, name, &server, wanted)?, report)
}

/// The newest image for each platform that the index has (or the word says), as [`obtain`] does; the index is asked once. A platform of which
/// there is nothing that can be used is told and left out. Errors: as of [`obtain`]; there is nothing for any platform.
pub fn obtain_all(store: &Store, name: &Name, report: &dyn Report) -> Result<Vec<(Entry, bool)>> {
    let web = Web::new(Patience::default())?;
    let (server, products) = look_up(&web, store, name, true, report)?;
    let of = |platform: &Platform| [(platform.architecture.clone(), platform.variant.clone())];
    let mut platforms: Vec<Platform> = fitting(&products, name).into_iter().map(|(platform, _)| platform).collect();
    platforms.retain(|p| name.platform.as_ref().is_none_or(|only| platform::rank(p, &of(only)).is_some()));
    platforms.sort_by_key(ToString::to_string);
    platforms.dedup();
    let (mut got, mut last) = (Vec::new(), None);
    for platform in &platforms {
        match choose(&products, name, &server, &of(platform)) {
            Ok(found) => got.push(tarball::obtain(store, &web, &found, report)?),
            Err(error) => {
                report.warn(&format!("{platform}: {error}"));
                last = Some(error);
            }
        }
    }
    match last.filter(|_| got.is_empty()) {
        Some(error) => Err(error),
        // Says what there is instead.
        None if got.is_empty() => {
            let wanted = name.platform.as_ref().map(of);
            choose(&products, name, &server, wanted.as_ref().map_or(&[], |w| &w[..])).map(|_| got)
        }
        None => Ok(got),
    }
}

/// The server that is meant, and what it has.
fn look_up(web: &Web, store: &Store, name: &Name, ask: bool, report: &dyn Report) -> Result<(String, Products)> {
    let server = match &name.server {
        Some(server) => server.clone(),
        None => Settings::load(store)?.streams,
    };
    let step = report.begin(&format!("looking up {}", name.reference()), None);
    let products = index(web, store, &server, ask, report)?;
    step.done("");
    Ok((server, products))
}

/// Reads the server's list of products, from the cache where that is young enough.
fn index(web: &Web, store: &Store, server: &str, ask: bool, report: &dyn Report) -> Result<Products> {
    let url = below(server, "streams/v1/index.json", "the index")?;
    let top = cached::document(web, store, &url, LIMIT, ask, report, |bytes| {
        let index: Index = json(bytes, &url)?;
        let images = index.index.into_values().find(|s| s.datatype == "image-downloads");
        images.ok_or_else(|| malformed(&url, "it lists no images to download"))
    })?;
    let url = below(server, &top.path, &url)?;
    cached::document(web, store, &url, LIMIT, ask, report, |bytes| {
        let products: Products = json(bytes, &url)?;
        if products.format == "products:1.0" {
            return Ok(products);
        }
        Err(malformed(&url, &format!("its format '{}' is not known here", products.format.escape_debug())))
    })
}

/// Reads JSON that came from `url`. Errors: it is something else; a page for people is called one.
pub fn json<T: serde::de::DeserializeOwned>(bytes: &[u8], url: &str) -> Result<T> {
    if bytes.trim_ascii_start().starts_with(b"<") {
        return Err(malformed(url, "the server sent a page of HTML in place of an index"));
    }
    serde_json::from_slice(bytes).map_err(|e| malformed(url, &format!("it is no index of images: {e}")))
}

fn malformed(what: &str, why: &str) -> Error {
    Error::Malformed { what: what.escape_debug().to_string(), why: why.to_owned() }
}

/// The address of a path that an index names. Errors: it would lead elsewhere.
fn below(server: &str, path: &str, index: &str) -> Result<String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._:+~=@-".contains(&b);
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(legal);
    if path.len() <= 512 && path.split('/').all(plain) {
        return Ok(format!("{}/{path}", server.trim_end_matches('/')));
    }
    Err(malformed(index, &format!("the path '{}' in it is refused", path.escape_debug())))
}

/// The products that a name means, each with its platform.
fn fitting<'p>(products: &'p Products, name: &Name) -> Vec<(Platform, &'p Product)> {
    let known = |product: &'p Product| Some((platform::of_debian(&product.arch)?, product));
    products.products.values().filter(|product| product.is(name)).filter_map(known).collect()
}

fn choose(products: &Products, name: &Name, server: &str, wanted: Wanted<'_>) -> Result<Found> {
    let fitting = fitting(products, name);
    let what = name.reference();
    if fitting.is_empty() {
        return Err(Error::NotFound { what, place: web::host(server), why: others(products, name) });
    }
    let Some(best) = platform::best(fitting.iter().map(|(p, _)| p), wanted) else {
        let available = platform::list(fitting.iter().map(|(p, _)| p));
        return Err(Error::NoPlatform { what, wanted: platform::wanted_text(wanted), available });
    };
    let (platform, product) = &fitting[best];
    // Versions are dates, so they sort as text.
    let newest = product.versions.iter().rev().find_map(|(version, v)| Some((version, v.root()?)));
    let Some((version, item)) = newest else {
        return Err(malformed(&what, "the index names neither a tarball nor a squashfs of it"));
    };
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
    if version.len() < 8 || version.len() > 64 || !version.bytes().all(legal) {
        return Err(malformed(&what, &format!("the index calls it version '{}'", version.escape_debug())));
    }
    if item.size == 0 || item.size > LARGEST {
        return Err(malformed(&what, &format!("the index says that it has {} bytes", item.size)));
    }
    let sha256 = Digest::from_hex(&item.sha256);
    let sha256 = sha256.ok_or_else(|| malformed(&what, "the index has no SHA-256 of it"))?;
    let url = below(server, &item.path, &what)?;
    let expect = Expect { sha256: Some(sha256), size: Some(item.size), ..Expect::default() };
    Ok(Found { reference: what, platform: platform.clone(), url, expect, stamp: Some(version.clone()) })
}

impl Version {
    fn root(&self) -> Option<&Item> {
        ROOTS.iter().find_map(|kind| self.items.values().find(|item| item.ftype == *kind))
    }
}

impl Product {
    /// Whether a name means it, by one of its aliases or by what it is.
    fn is(&self, name: &Name) -> bool {
        let Name { distro, release, variant, .. } = name;
        let (long, short) = (format!("{distro}/{release}/{variant}"), format!("{distro}/{release}"));
        let alias = |alias: &str| alias == long || (variant == "default" && alias == short);
        let same = |mine: &str, asked: &str| mine.eq_ignore_ascii_case(asked);
        self.aliases.split(',').map(str::trim).any(alias)
            || (same(&self.os, distro) && same(&self.release, release) && same(&self.variant, variant))
    }
}

/// What the server has of the same distribution, or which distributions it has at all.
fn others(products: &Products, name: &Name) -> String {
    let all = || products.products.values().flat_map(|p| p.aliases.split(',').next());
    let prefix = format!("{}/", name.distro);
    let mut near: Vec<&str> = all().filter(|alias| alias.starts_with(&prefix)).collect();
    if near.is_empty() {
        near = all().filter_map(|alias| alias.split('/').next()).collect();
    }
    near.sort_unstable();
    near.dedup();
    let more = if near.len() > 20 { " …" } else { "" };
    near.truncate(20);
    format!("it has {}{more}", near.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(word: &str) -> std::result::Result<Name, String> {
        Name::parse(word).unwrap()
    }

    #[test]
    fn names() {
        for (word, reference, arch) in [
            ("images:debian/bullseye", "images:debian/bullseye/default", None),
            ("images:debian/bullseye/arm64", "images:debian/bullseye/default", Some("arm64")),
            ("images:debian/11/cloud/armhf", "images:debian/11/cloud", Some("armhf")),
            ("images:ubuntu/24.04/desktop", "images:ubuntu/24.04/desktop", None),
            ("images+http://127.0.0.1:80/a/b", "images+http://127.0.0.1:80/a/b/default", None),
            ("images+https://h.example/a/b/x86_64", "images+https://h.example/a/b/default", Some("amd64")),
        ] {
            let name = name(word).unwrap();
            assert_eq!(name.reference(), reference);
            assert_eq!(
                name.platform.as_ref().and_then(|p| platform::debian_name(&p.architecture, p.variant.as_deref())),
                arch,
                "{word}"
            );
            assert_eq!(Name::parse(&name.to_string()).unwrap().unwrap(), name);
        }
        for bad in [
            "images:",
            "images:debian",
            "images:a//b",
            "images:../etc",
            "images:a/b/c/d/arm64",
            "images:a/b?c",
            "images+http://h",
            "images+http:///a/b",
            "images+http://u@h/a/b",
        ] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert!(Name::parse("image:debian/bullseye").is_none() && Name::parse("images+ftp://h/a/b").is_none());
    }

    #[test]
    fn paths_stay_below_the_server() {
        let good = "images/debian/bullseye/arm64/default/20260904_05:24/rootfs.tar.xz";
        assert_eq!(below("https://h/", good, "i").unwrap(), format!("https://h/{good}"));
        for bad in [
            "",
            "/etc/passwd",
            "a/../b",
            "..",
            "./a",
            "a//b",
            "http://other/x",
            "//other/x",
            "a/%2e%2e/b",
            "a?b",
            "a#b",
            "a\\b",
            "a\nb",
            &"a/".repeat(300),
        ] {
            assert!(below("https://h", bad, "i").unwrap_err().to_string().contains("is refused"), "{bad}");
        }
    }
}
