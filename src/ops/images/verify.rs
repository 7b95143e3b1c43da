//! `verify`: everything in the store is hashed again, and what is damaged can be fetched anew. What a newcomer would get wrong: a layer on which
//! a domain runs is not touched, however damaged; and a repair asks for the digest that was stored, not for what the tag means today.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Ctx, Error, Result};
use crate::image::oci::{self, DockerArchive, Layout, Registry};
use crate::image::{self, Digest, ImageRef, catalogue, raspios, reference, streams, tarball, template};
use crate::store::images::Entry;
use crate::store::{blobs, layers, mending, sums};

/// How many differences of one layer are named.
const NAMED: usize = 10;

/// What became of the check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// How many layers are as they were.
    pub sound: usize,
    /// Layers of which nothing was written down, made by an older pronto or on a full disk.
    pub unknown: Vec<String>,
    /// What is damaged.
    pub damaged: Vec<Damaged>,
}

/// One damaged thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// A layer's key, or a document's digest.
    pub what: String,
    /// The images and domains that it belongs to.
    pub of: Vec<String>,
    /// What has changed; no more than ten.
    pub how: Vec<String>,
    /// It is as it was again.
    pub repaired: bool,
    /// Why it is not, when a repair was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Verified {
    /// Whether something is damaged still.
    pub fn is_bad(&self) -> bool {
        self.damaged.iter().any(|d| !d.repaired)
    }
}

/// Hashes every layer and document in the store and compares; with `repair`, damaged ones are taken away and fetched again.
pub fn verify(ctx: &Ctx, repair: bool) -> Result<Verified> {
    crate::ops::sweep::thorough(ctx)?;
    layers::sweep(&ctx.store)?;
    let entries = super::kept::entries(&ctx.store)?;
    let mut out = Verified::default();
    check_layers(ctx, &entries, &mut out)?;
    check_documents(ctx, &entries, &mut out)?;
    if repair && !out.damaged.is_empty() {
        mend(ctx, &entries, &mut out.damaged)?;
    }
    Ok(out)
}

fn check_layers(ctx: &Ctx, entries: &[(String, Entry)], out: &mut Verified) -> Result<()> {
    let used = layers::used_by_domains(&ctx.store)?;
    let mut keys = layers::keys(&ctx.store)?;
    keys.extend(entries.iter().flat_map(|(_, entry)| entry.layers.iter().cloned()));
    let step = ctx.report.begin("hashing layers", None);
    for key in keys {
        let how = match layers::meta(&ctx.store, &key)? {
            None => vec!["it is not there, or was not written to the disk before the power went".to_owned()],
            Some(meta) => {
                step.say(&format!("layer {}", &key[..key.len().min(12)]));
                step.advance(meta.size);
                match compare(ctx, &key) {
                    Some(how) => how,
                    None => {
                        out.unknown.push(key);
                        continue;
                    }
                }
            }
        };
        if how.is_empty() {
            out.sound += 1;
            continue;
        }
        let images = entries.iter().filter(|(_, entry)| entry.layers.contains(&key)).map(|(name, _)| name.clone());
        let domains = used.iter().filter(|(_, k)| *k == key).map(|(name, _)| format!("domain {name}"));
        let of: Vec<String> = images.collect::<BTreeSet<_>>().into_iter().chain(domains).collect();
        // Nothing needs what was left over of another boot.
        if !of.is_empty() || layers::exists(&ctx.store, &key)? {
            out.damaged.push(Damaged { what: key, of, how, repaired: false, why: None });
        }
    }
    step.done("");
    Ok(())
}

/// What has changed in a layer; `None` when nothing was written down of it.
fn compare(ctx: &Ctx, key: &str) -> Option<Vec<String>> {
    let recorded = layers::sums_of(&ctx.store, key)?;
    let mut how: Vec<String> = match sums::compare(&ctx.store.layer(key), &recorded) {
        Ok(found) => found?.iter().map(ToString::to_string).collect(),
        Err(error) => vec![format!("it cannot be read: {error}")],
    };
    let more = how.len().saturating_sub(NAMED);
    how.truncate(NAMED);
    how.extend((more > 0).then(|| format!("and {more} more")));
    Some(how)
}

fn check_documents(ctx: &Ctx, entries: &[(String, Entry)], out: &mut Verified) -> Result<()> {
    let mut users: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (reference, entry) in entries {
        // A tarball has no documents.
        if let Some(config) = &entry.config_digest {
            for digest in [&entry.digest, config] {
                users.entry(digest).or_default().insert(reference.clone());
            }
        }
    }
    for (digest, of) in users {
        let Some(hex) = digest.strip_prefix("sha256:") else { continue };
        let how = match blobs::get(&ctx.store, hex)? {
            None => "it is not there".to_owned(),
            Some(text) if Digest::of(&text).hex() != hex => "its digest is another".to_owned(),
            Some(_) => continue,
        };
        let of = of.into_iter().collect();
        out.damaged.push(Damaged { what: digest.to_owned(), of, how: vec![how], repaired: false, why: None });
    }
    Ok(())
}

/// Takes damaged things away and fetches them again.
fn mend(ctx: &Ctx, entries: &[(String, Entry)], damaged: &mut [Damaged]) -> Result<()> {
    let running: BTreeSet<String> = crate::ops::list::list(ctx, false, &[])?.into_iter().map(|row| row.name).collect();
    for one in damaged {
        match mend_one(ctx, entries, one, &running) {
            Ok(()) => one.repaired = true,
            Err(error) => {
                let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
                one.why = Some(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")));
            }
        }
    }
    Ok(())
}

fn mend_one(ctx: &Ctx, entries: &[(String, Entry)], one: &Damaged, running: &BTreeSet<String>) -> Result<()> {
    let in_use = one.of.iter().filter_map(|of| of.strip_prefix("domain ")).find(|name| running.contains(*name));
    if let Some(name) = in_use {
        return Err(Error::general(format!("domain '{name}' runs on it: shut it down first")));
    }
    let document = one.what.strip_prefix("sha256:");
    let holds = |entry: &Entry| match document {
        Some(_) => entry.digest == one.what || entry.config_digest.as_ref() == Some(&one.what),
        None => entry.layers.contains(&one.what),
    };
    let of: Vec<&(String, Entry)> = entries.iter().filter(|(_, entry)| holds(entry)).collect();
    if of.is_empty() && one.of.iter().any(|of| of.starts_with("domain ")) {
        return Err(Error::general("no image has it any more, so it cannot be fetched: make the domain anew"));
    }
    match document {
        Some(hex) => {
            blobs::remove(&ctx.store, hex)?;
            refetch_any(ctx, &of)
        }
        None => mend_layer(ctx, &one.what, &of),
    }
}

/// Fetches a layer anew; one that cannot be had is put back, damaged as it is, and if we do not live to do that, by who comes next.
fn mend_layer(ctx: &Ctx, key: &str, of: &[&(String, Entry)]) -> Result<()> {
    let aside = mending::set_aside(&ctx.store, key)?;
    let fetched = refetch_any(ctx, of);
    aside.finish()?;
    fetched
}

/// Fetches it from the first of these images that can be had.
fn refetch_any(ctx: &Ctx, of: &[&(String, Entry)]) -> Result<()> {
    let mut last = Ok(());
    for (reference, entry) in of {
        last = refetch(ctx, reference, entry);
        if last.is_ok() {
            break;
        }
    }
    last.map_err(|e| Error::general("it cannot be fetched again").because(e))
}

/// Fetches an entry again from where its reference says that it came from.
fn refetch(ctx: &Ctx, name: &str, entry: &Entry) -> image::Result<()> {
    let (store, report) = (&ctx.store, ctx.report.as_ref());
    match reference::parse(name)? {
        ImageRef::Registry(reference) if reference::is_local(&reference) => {
            let why = "it was named here, and no other place has it: import or tag it anew".to_owned();
            Err(image::Error::Refused { what: name.to_owned(), place: "this machine".into(), why })
        }
        ImageRef::Registry(reference) => {
            let registry = Registry::new(&ctx.store, &reference, &ctx.access, report)?;
            oci::refetch(store, &registry, name, entry, report)
        }
        ImageRef::Layout(text) => oci::refetch(store, &Layout::open(&text)?, name, entry, report),
        ImageRef::OciArchive(text) => oci::refetch(store, &Layout::open_archive(&text)?, name, entry, report),
        ImageRef::DockerArchive(text) => oci::refetch(store, &DockerArchive::open(&text)?, name, entry, report),
        ImageRef::Path(path) => same(name, entry, &tarball::from_file(store, &path, true, report)?.0),
        ImageRef::Streams(of) => same(name, entry, &streams::obtain(store, &of, &platform_of(entry), true, report)?.0),
        ImageRef::Raspios(of) => same(name, entry, &raspios::obtain(store, &of, &platform_of(entry), true, report)?.0),
        ImageRef::Url(url) if url.contains("{arch}") => {
            let at = catalogue::rows().iter().flat_map(|row| &row.sources).find_map(|source| match source {
                catalogue::Source::Tarball(at) if at.url == url => Some(at),
                _ => None,
            });
            let gone = || {
                let why = "the catalogue has it no more".to_owned();
                image::Error::Refused { what: name.to_owned(), place: "this machine".into(), why }
            };
            same(name, entry, &template::obtain(store, at.ok_or_else(gone)?, &platform_of(entry), true, report)?.0)
        }
        ImageRef::Url(url) => same(name, entry, &tarball::from_url(store, &url, true, report)?.0),
        ImageRef::Label(_) => {
            let why = "it was made here, and is made anew by pull --force".to_owned();
            Err(image::Error::Refused { what: name.to_owned(), place: "this machine".into(), why })
        }
    }
}

fn platform_of(entry: &Entry) -> Vec<(String, Option<String>)> {
    entry.platform.iter().map(|p| (p.architecture.clone(), p.variant.clone())).collect()
}

fn same(name: &str, then: &Entry, now: &Entry) -> image::Result<()> {
    if then.digest == now.digest {
        return Ok(());
    }
    let (wanted, found) = (then.digest.clone(), now.digest.clone());
    Err(image::Error::WrongDigest { what: name.to_owned(), wanted, found })
}
