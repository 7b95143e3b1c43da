//! From a reference to one image: index, choice of platform, manifest, config, each checked by its digest. What a newcomer would get
//! wrong: an entry of an index may say nothing of its platform, or be an index itself; and one that says something may lie, which is
//! told, but the files decide.

use std::io::Read;

use super::manifest::{Config, Descriptor, Document, Manifest};
use super::{MAX_DEPTH, MAX_DOCUMENT, MAX_UNKNOWN, Source};
use crate::domain::{Platform, Report};
use crate::image::platform::{self, Wanted};
use crate::image::{Digest, Error, Result, unpack};
use crate::store::{Store, blobs};

/// One image, chosen, read and checked, its layers not yet fetched.
#[derive(Debug)]
pub(super) struct Image {
    /// The document that the reference names: the index, or the image's own manifest.
    pub top: Digest,
    pub digest: Digest,
    pub manifest: Manifest,
    pub manifest_text: Vec<u8>,
    pub config: Config,
    pub config_digest: Digest,
    pub config_text: Vec<u8>,
    pub platform: Platform,
}

/// Finds the image for the wanted platform and reads its manifest and config.
pub(super) fn resolve(
    store: &Store,
    source: &dyn Source,
    reference: &str,
    wanted: Wanted<'_>,
    report: &dyn Report,
) -> Result<Image> {
    let text = source.top()?;
    let digest = Digest::of(&text);
    let top = digest.clone();
    // A path may hold an @, too.
    let pinned = reference.rsplit_once('@').filter(|(_, pinned)| pinned.parse::<Digest>().is_ok());
    if let Some((_, pinned)) = pinned {
        if pinned != digest.to_string() {
            let (wanted, found) = (pinned.to_owned(), digest.to_string());
            return Err(Error::WrongDigest { what: format!("manifest of {reference}"), wanted, found });
        }
    }
    let mut search = Search { store, source, reference, wanted, available: Vec::new(), looked: 0 };
    let found = match search.parse(&text)? {
        Document::Image(manifest) => search.single(digest, text, manifest)?,
        Document::Index(entries) => search.choose(&entries, MAX_DEPTH)?,
    };
    let mut image = found.ok_or_else(|| Error::NoPlatform {
        what: reference.to_owned(),
        wanted: platform::wanted_text(wanted),
        available: platform::list(&search.available),
    })?;
    image.top = top;
    complete(reference, image, report)
}

/// The image, if it is one of a file system; says when its labels disagree.
fn complete(reference: &str, image: Image, report: &dyn Report) -> Result<Image> {
    if image.manifest.layers.len() != image.config.diff_ids.len() || image.manifest.layers.is_empty() {
        let (layers, diffs) = (image.manifest.layers.len(), image.config.diff_ids.len());
        let why = format!("it is no image of a file system ({layers} layers, {diffs} of them described)");
        return Err(Error::Malformed { what: reference.to_owned(), why });
    }
    let said = |p: &Platform| platform::normal(&p.architecture, None).0;
    if said(&image.platform) != said(&image.config.platform) {
        let (index, config) = (&image.platform, image.config.platform.to_string());
        report.warn(&format!(
            "{reference}: its index says {index}, its config {}; its files decide",
            config.escape_debug()
        ));
    }
    Ok(image)
}

/// The image whose manifest has this digest.
pub(super) fn known(
    store: &Store,
    source: &dyn Source,
    reference: &str,
    digest: &Digest,
    report: &dyn Report,
) -> Result<Image> {
    let text = source.manifest(digest)?;
    checked(&format!("manifest {} of {reference}", digest.short()), digest, &text)?;
    let search = Search { store, source, reference, wanted: &[], available: Vec::new(), looked: 0 };
    match search.parse(&text)? {
        Document::Index(_) => Err(search.malformed("an index came in its place".into())),
        Document::Image(manifest) => {
            let image = search.image(digest.clone(), text, manifest, None)?;
            complete(reference, image, report)
        }
    }
}

/// Every platform that a reference has, in the order of its index, each once. Errors: it cannot be asked, or not be understood.
pub fn platforms(store: &Store, source: &dyn Source, reference: &str) -> Result<Vec<Platform>> {
    let text = source.top()?;
    let mut search = Search { store, source, reference, wanted: &[], available: Vec::new(), looked: 0 };
    match search.parse(&text)? {
        Document::Image(manifest) => drop(search.single(Digest::of(&text), text, manifest)?),
        Document::Index(entries) => drop(search.choose(&entries, MAX_DEPTH)?),
    }
    let mut out: Vec<Platform> = Vec::new();
    for platform in search.available.into_iter().filter(|p| p.os == "linux") {
        if !out.contains(&platform) {
            out.push(platform);
        }
    }
    Ok(out)
}

struct Search<'a> {
    store: &'a Store,
    source: &'a dyn Source,
    reference: &'a str,
    wanted: Wanted<'a>,
    /// Every platform that was seen.
    available: Vec<Platform>,
    looked: usize,
}

impl Search<'_> {
    fn malformed(&self, why: String) -> Error {
        Error::Malformed { what: format!("the manifest of {}", self.reference), why }
    }

    fn parse(&self, text: &[u8]) -> Result<Document> {
        Document::parse(text).map_err(|why| self.malformed(why))
    }

    /// A document of an index, its digest checked.
    fn document(&self, descriptor: &Descriptor) -> Result<(Digest, Vec<u8>)> {
        let digest = descriptor.digest().map_err(|why| self.malformed(why))?;
        let text = self.source.manifest(&digest)?;
        checked(&format!("manifest {} of {}", digest.short(), self.reference), &digest, &text)?;
        Ok((digest, text))
    }

    /// The best of an index: by its own words first, then by looking into those entries that say nothing.
    fn choose(&mut self, entries: &[Descriptor], depth: u32) -> Result<Option<Image>> {
        let images: Vec<&Descriptor> = entries.iter().filter(|e| !e.is_attestation()).collect();
        let said: Vec<(&Descriptor, Platform)> = images.iter().filter_map(|e| Some((*e, e.platform()?))).collect();
        self.available.extend(said.iter().map(|(_, p)| p.clone()));
        if let Some(at) = platform::best(said.iter().map(|(_, p)| p), self.wanted) {
            let (descriptor, platform) = &said[at];
            let (digest, text) = self.document(descriptor)?;
            return match self.parse(&text)? {
                Document::Image(manifest) => self.image(digest, text, manifest, Some(platform.clone())).map(Some),
                Document::Index(inner) => self.nested(&inner, depth),
            };
        }
        for descriptor in images.into_iter().filter(|e| e.platform().is_none()) {
            self.looked += 1;
            if self.looked > MAX_UNKNOWN {
                break;
            }
            let (digest, text) = self.document(descriptor)?;
            let found = match self.parse(&text)? {
                Document::Image(manifest) => self.single(digest, text, manifest)?,
                Document::Index(inner) => self.nested(&inner, depth)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn nested(&mut self, entries: &[Descriptor], depth: u32) -> Result<Option<Image>> {
        match depth.checked_sub(1) {
            Some(depth) => self.choose(entries, depth),
            None => Err(self.malformed("it holds an index in an index too many times".into())),
        }
    }

    /// An image of which only its config says what it is for.
    fn single(&mut self, digest: Digest, text: Vec<u8>, manifest: Manifest) -> Result<Option<Image>> {
        let image = self.image(digest, text, manifest, None)?;
        self.available.push(image.platform.clone());
        Ok(platform::rank(&image.platform, self.wanted).map(|_| image))
    }

    /// The config, from the store where an earlier pull has left it, whole.
    fn config(&self, manifest: &Manifest, digest: &Digest, what: &str) -> Result<Vec<u8>> {
        if let Some(text) = blobs::get(self.store, digest.hex())?.filter(|t| checked(what, digest, t).is_ok()) {
            return Ok(text);
        }
        let mut text = Vec::new();
        let blob = self.source.blob(&manifest.config)?;
        blob.take(MAX_DOCUMENT).read_to_end(&mut text).map_err(|e| unpack::carried(e, what))?;
        checked(what, digest, &text)?;
        Ok(text)
    }

    fn image(&self, digest: Digest, text: Vec<u8>, manifest: Manifest, said: Option<Platform>) -> Result<Image> {
        let what = format!("the config of {}", self.reference);
        let config_digest = manifest.config.digest().map_err(|why| self.malformed(why))?;
        if manifest.config.size > MAX_DOCUMENT {
            return Err(Error::Malformed { what, why: "it is too large".into() });
        }
        let config_text = self.config(&manifest, &config_digest, &what)?;
        let config = Config::parse(&config_text).map_err(|why| Error::Malformed { what, why })?;
        let platform = said.unwrap_or_else(|| config.platform.clone());
        Ok(Image {
            top: digest.clone(),
            digest,
            manifest,
            manifest_text: text,
            config,
            config_digest,
            config_text,
            platform,
        })
    }
}

fn checked(what: &str, digest: &Digest, data: &[u8]) -> Result<()> {
    let found = Digest::of(data);
    if found == *digest {
        return Ok(());
    }
    Err(Error::WrongDigest { what: what.to_owned(), wanted: digest.to_string(), found: found.to_string() })
}
