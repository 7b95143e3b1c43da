//! Which hosts really serve a registry's images: mirrors, other places, hosts without encryption, and their certificates, all in the format
//! that podman, skopeo and buildah read (containers-registries.conf(5), version 2; containers-certs.d(5)), so that a host that has
//! such files is understood as it is. What a newcomer would get wrong: the longest prefix wins alone, tables are not merged;
//! and a mirror is tried before the place itself.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::reference;
use crate::image::{Error, Result};

/// pronto's own file; where there is none, podman's.
const OWN: &str = "/etc/pronto/registries.conf";
const SHARED: &str = "/etc/containers/registries.conf";

/// Where an image can be asked for, in the order of the tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `registry-1.docker.io`, `mirror.example:5000`.
    pub host: String,
    /// The repository there.
    pub repository: String,
    /// Neither certificate nor encryption is insisted on.
    pub insecure: bool,
    /// It stands in for another.
    pub mirror: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Table>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror: Vec<Mirror>,
    mirror_by_digest_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
}

/// The tables of all files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    tables: Vec<Table>,
    /// For messages.
    source: String,
}

impl Hosts {
    /// Reads pronto's own file, else `CONTAINERS_REGISTRIES_CONF` or podman's file, with its `.d` directory. Errors: a file that is
    /// there and cannot be read or understood.
    pub fn load() -> Result<Hosts> {
        let said = std::env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|v| !v.is_empty()).map(PathBuf::from);
        match said {
            Some(path) => Hosts::read(&path, None),
            None if Path::new(OWN).exists() => Hosts::read(Path::new(OWN), None),
            None => Hosts::read(Path::new(SHARED), Some(&PathBuf::from(format!("{SHARED}.d")))),
        }
    }

    /// Reads one file and, after it, those of the directory `more` that end in `.conf`. Errors: as [`Hosts::load`].
    pub fn read(path: &Path, more: Option<&Path>) -> Result<Hosts> {
        let mut hosts = Hosts { tables: Vec::new(), source: path.display().to_string() };
        let mut paths = vec![path.to_owned()];
        let mut drops: Vec<PathBuf> = more
            .and_then(|dir| std::fs::read_dir(dir).ok())
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .collect();
        drops.retain(|p| p.extension().is_some_and(|e| e == "conf"));
        drops.sort();
        paths.extend(drops);
        for path in paths {
            match std::fs::read_to_string(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(format!("cannot read {}", path.display()))(e)),
                Ok(text) => {
                    let tables =
                        parse(&text).map_err(|why| Error::Malformed { what: path.display().to_string(), why })?;
                    // A table of a later file takes the place of an earlier one for the same prefix.
                    hosts.tables.retain(|old| !tables.iter().any(|new| new.name() == old.name()));
                    hosts.tables.extend(tables);
                }
            }
        }
        Ok(hosts)
    }

    /// Where `host/repository` can be asked for. `pinned`: a digest says what it must be. Errors: it is blocked, or a table
    /// leads to no host.
    pub fn places(&self, host: &str, repository: &str, pinned: bool) -> Result<Vec<Place>> {
        let name = format!("{host}/{repository}");
        let fitting = self.tables.iter().filter(|t| fits(t.name(), &name));
        let Some(table) = fitting.max_by_key(|t| t.name().len()) else {
            return Ok(vec![place(&name, false, false).unwrap_or_else(|| Place {
                host: host.to_owned(),
                repository: repository.to_owned(),
                insecure: false,
                mirror: false,
            })]);
        };
        if table.blocked {
            let why = format!("{} blocks {}", self.source, table.name());
            return Err(Error::Refused { what: name.clone(), place: format!("registry {host}"), why });
        }
        let wrong = |location: &str| Error::Malformed {
            what: self.source.clone(),
            why: format!("'{}' is no place of a registry", location.escape_debug()),
        };
        let mut out = Vec::new();
        for mirror in table.mirror.iter().filter(|m| m.serves(pinned, table.mirror_by_digest_only)) {
            let moved = rewritten(table.name(), &mirror.location, &name);
            out.push(place(&moved, mirror.insecure, true).ok_or_else(|| wrong(&mirror.location))?);
        }
        let location = if table.location.is_empty() { table.name() } else { &table.location };
        let moved = if location.starts_with("*.") { name.clone() } else { rewritten(table.name(), location, &name) };
        out.push(place(&moved, table.insecure, false).ok_or_else(|| wrong(location))?);
        Ok(out)
    }
}

impl Table {
    /// What it speaks of.
    fn name(&self) -> &str {
        if self.prefix.is_empty() { &self.location } else { &self.prefix }
    }
}

impl Mirror {
    fn serves(&self, pinned: bool, digest_only: bool) -> bool {
        match self.pull_from_mirror.as_str() {
            "digest-only" => pinned,
            "tag-only" => !pinned,
            _ => pinned || !digest_only,
        }
    }
}

fn parse(text: &str) -> std::result::Result<Vec<Table>, String> {
    let file: File = toml::from_str(text).map_err(|e| e.to_string().trim().replace('\n', " "))?;
    match file.registry.iter().find(|t| t.name().is_empty()) {
        Some(_) => Err("a [[registry]] has neither prefix nor location".into()),
        None => Ok(file.registry),
    }
}

/// Whether a prefix speaks of a name: whole components, or `*.example` before a host.
fn fits(prefix: &str, name: &str) -> bool {
    if let Some(domain) = prefix.strip_prefix("*.") {
        let host = name.split('/').next().unwrap_or_default();
        return host.strip_suffix(domain).is_some_and(|sub| sub.ends_with('.'));
    }
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn rewritten(prefix: &str, location: &str, name: &str) -> String {
    match name.strip_prefix(prefix) {
        Some(rest) => format!("{location}{rest}"),
        None => name.to_owned(),
    }
}

/// Splits `host/repository`; docker.io is served by another host than its name says.
fn place(name: &str, insecure: bool, mirror: bool) -> Option<Place> {
    let (host, repository) = name.split_once('/')?;
    if host.is_empty() || repository.is_empty() {
        return None;
    }
    let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
    let insecure = insecure || reference::is_loopback(host);
    Some(Place { host: host.to_owned(), repository: repository.to_owned(), insecure, mirror })
}

/// Certificates for one host: authorities (`*.crt`), and pairs of `NAME.cert` and `NAME.key` to identify ourselves with, as PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Authorities to trust besides the system's.
    pub authorities: Vec<Vec<u8>>,
    /// Our certificate, then its key.
    pub identity: Option<Vec<u8>>,
}

/// Reads `certs.d/HOST[:PORT]/` of podman and docker. Errors: a directory or file that is there and cannot be read.
pub fn certificates(host: &str) -> Result<Certificates> {
    certificates_in(&["/etc/pronto/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"], host)
}

fn certificates_in(dirs: &[&str], host: &str) -> Result<Certificates> {
    let mut out = Certificates::default();
    for dir in dirs.iter().map(|dir| Path::new(dir).join(host)) {
        let entries = match std::fs::read_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(Error::io(format!("cannot read {}", dir.display())))?,
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        let read = |path: &Path| std::fs::read(path).map_err(Error::io(format!("cannot read {}", path.display())));
        for path in &paths {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => out.authorities.push(read(path)?),
                Some("cert") if out.identity.is_none() => {
                    let mut pair = read(path)?;
                    pair.push(b'\n');
                    pair.extend(read(&path.with_extension("key"))?);
                    out.identity = Some(pair);
                }
                _ => {}
            }
        }
        if out != Certificates::default() {
            return Ok(out);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::write_atomic;

    fn put(path: impl AsRef<Path>, text: &str) {
        write_atomic(path.as_ref(), text.as_bytes(), 0o600).unwrap();
    }

    const CONF: &str = r#"
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        prefix = "docker.io"
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "pinned.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        location = "quay.io/team"
        blocked = true
        [[registry]]
        prefix = "*.internal.example"
        insecure = true
        [[registry]]
        prefix = "old.example/a"
        location = "new.example/b/c"
    "#;

    fn hosts() -> Hosts {
        Hosts { tables: parse(CONF).unwrap(), source: "/etc/x".into() }
    }

    fn places(host: &str, repository: &str, pinned: bool) -> Vec<String> {
        let show = |p: Place| {
            let marks = format!("{}{}", if p.insecure { "!" } else { "" }, if p.mirror { "m" } else { "" });
            format!("{}/{} {marks}", p.host, p.repository).trim().to_owned()
        };
        hosts().places(host, repository, pinned).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_wins() {
        let hub = "registry-1.docker.io/library/debian";
        assert_eq!(places("docker.io", "library/debian", false), ["mirror.example:5000/hub/library/debian !m", hub]);
        assert_eq!(
            places("docker.io", "library/debian", true),
            ["mirror.example:5000/hub/library/debian !m", "pinned.example/library/debian m", hub]
        );
        assert_eq!(places("quay.io", "teams/x", false), ["quay.io/teams/x"]);
        let error = hosts().places("quay.io", "team/x", false).unwrap_err().to_string();
        assert!(error.contains("/etc/x blocks quay.io/team"), "{error}");
        assert_eq!(places("r.internal.example", "x", false), ["r.internal.example/x !"]);
        assert_eq!(places("internal.example", "x", false), ["internal.example/x"]);
        assert_eq!(places("old.example", "a/x", false), ["new.example/b/c/x"]);
        assert_eq!(places("old.example", "ab/x", false), ["old.example/ab/x"]);
        assert_eq!(places("127.0.0.1:5000", "x", false), ["127.0.0.1:5000/x !"]);
    }

    #[test]
    fn files_are_read_in_order_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (main, drops) = (dir.path().join("registries.conf"), dir.path().join("d"));
        std::fs::create_dir(&drops).unwrap();
        assert_eq!(Hosts::read(&main, Some(&drops)).unwrap().tables, []);
        put(&main, "[[registry]]\nlocation='a.b'\n[[registry]]\nlocation='c.d'\ninsecure=true\n");
        put(drops.join("9.conf"), "[[registry]]\nlocation='a.b'\ninsecure=true\n");
        put(drops.join("README"), "no toml");
        let read = Hosts::read(&main, Some(&drops)).unwrap();
        assert!(read.places("a.b", "x", false).unwrap()[0].insecure);
        assert_eq!(read.tables.len(), 2);
        put(drops.join("1.conf"), "[[registry]]\ninsecure=true\n");
        let error = Hosts::read(&main, Some(&drops)).unwrap_err().to_string();
        assert!(error.contains("1.conf") && error.contains("neither prefix nor location"), "{error}");
        put(drops.join("1.conf"), "[[registry]\n");
        assert!(Hosts::read(&main, Some(&drops)).unwrap_err().to_string().contains("1.conf"));
    }

    #[test]
    fn certificates_of_a_host() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("r.example:5000");
        std::fs::create_dir(&host).unwrap();
        let dirs = ["/nowhere", dir.path().to_str().unwrap()];
        assert_eq!(certificates_in(&dirs, "r.example:5000").unwrap(), Certificates::default());
        for (name, text) in [("ca.crt", "CA"), ("me.cert", "CERT"), ("me.key", "KEY")] {
            put(host.join(name), text);
        }
        let found = certificates_in(&dirs, "r.example:5000").unwrap();
        assert_eq!((found.authorities, found.identity), (vec![b"CA".to_vec()], Some(b"CERT\nKEY".to_vec())));
        assert_eq!(certificates_in(&dirs, "r.example").unwrap(), Certificates::default());
        std::fs::remove_file(host.join("me.key")).unwrap();
        assert!(certificates_in(&dirs, "r.example:5000").unwrap_err().to_string().contains("me.key"));
    }
}
