//! What `docker save` writes: a tar with `manifest.json`, configs and layers. What a newcomer would get wrong: its manifest.json is no
//! manifest, but a list of images by names of files in the archive; layers are not compressed there and have no digest of their own
//! but the config's diffIDs (newer versions may compress them: then they are hashed). Several images for different platforms are what an
//! index is elsewhere. Source: docker's image/spec/v1.2.md,
//! "Combined Image JSON + Filesystem Changeset Format".

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::Source;
use super::files::{Archive, Files};
use super::manifest::{Config, Descriptor};
use crate::domain::Platform;
use crate::image::{Digest, Error, Result, platform};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The images of an archive that a name means, as OCI images: one, or one for each of several platforms.
#[derive(Debug)]
pub struct DockerArchive {
    files: Files,
    wanted: Option<String>,
    /// The one manifest, or an index of them.
    top: Vec<u8>,
    /// Manifests by their digests.
    manifests: BTreeMap<String, Vec<u8>>,
    /// Names of the archive by the digests of their content.
    blobs: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerArchive {
    /// Finds what `FILE[:NAME[:TAG]]` means. Errors: there is none, or several for one platform.
    pub fn open(text: &str) -> Result<DockerArchive> {
        let (path, wanted) = split(text);
        let files = Files::Archive(Archive::open(Path::new(path))?);
        let malformed = |why: String| Error::Malformed { what: files.path().display().to_string(), why };
        let text = document(&files, "manifest.json")?;
        let items: Vec<Item> =
            serde_json::from_slice(&text).map_err(|e| malformed(format!("its manifest.json is not docker's ({e})")))?;
        let absent = |why| Error::NotFound {
            what: wanted.map_or("one image".to_owned(), |name| format!("image '{}'", name.escape_debug())),
            place: files.path().display().to_string(),
            why,
        };
        let mut chosen = Vec::new();
        for item in fitting(&items, wanted).map_err(absent)? {
            chosen.push((Config::parse(&document(&files, &item.config)?).map_err(malformed)?.platform, item));
        }
        let said = |p: &Platform| platform::normal(&p.architecture, p.variant.as_deref());
        let twice = |n: usize| chosen[..n].iter().any(|(other, _)| said(other) == said(&chosen[n].0));
        if (1..chosen.len()).any(twice) {
            return Err(absent(format!("a name is needed, as in docker-archive:FILE:NAME; {}", names(&items))));
        }
        let (mut manifests, mut blobs, mut entries) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut top = Vec::new();
        for (platform, item) in &chosen {
            let (manifest, its) = as_oci(&files, item)?;
            let digest = Digest::of(&manifest).to_string();
            let mut of = json!({ "architecture": platform.architecture, "os": platform.os });
            if let Some(variant) = &platform.variant {
                of["variant"] = json!(variant);
            }
            entries.push(json!({ "mediaType": MANIFEST, "digest": digest, "size": manifest.len(), "platform": of }));
            blobs.extend(its);
            top.clone_from(&manifest);
            manifests.insert(digest, manifest);
        }
        if chosen.len() > 1 {
            top = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string().into_bytes();
        }
        Ok(DockerArchive { wanted: wanted.map(str::to_owned), top, manifests, blobs, files })
    }

    /// The reference under which it is stored: `docker-archive:/absolute/path[:name]`.
    pub fn reference(&self) -> String {
        let name = self.wanted.as_ref().map(|name| format!(":{name}")).unwrap_or_default();
        format!("docker-archive:{}{name}", self.files.path().display())
    }
}

/// The file and the image's name: what stands before the first colon that leaves a file.
fn split(text: &str) -> (&str, Option<&str>) {
    let ways = text.match_indices(':').map(|(at, _)| (&text[..at], &text[at + 1..]));
    let named = ways.into_iter().find(|(path, name)| !name.is_empty() && Path::new(path).is_file());
    match named {
        Some((path, name)) if !Path::new(text).is_file() => (path, Some(name)),
        _ => (text, None),
    }
}

fn tags(item: &Item) -> &[String] {
    item.repo_tags.as_deref().unwrap_or_default()
}

/// The names in an archive, for messages.
fn names(items: &[Item]) -> String {
    let names: Vec<String> = items.iter().flat_map(tags).map(|t| t.escape_debug().to_string()).collect();
    if names.is_empty() { "its images have no names".into() } else { format!("it has {}", names.join(", ")) }
}

/// The images of that name; all of them where there is none. Errors: there is none of it.
fn fitting<'a>(items: &'a [Item], wanted: Option<&str>) -> std::result::Result<Vec<&'a Item>, String> {
    let wanted = wanted.map(whole);
    let is_it = |item: &&Item| wanted.as_ref().is_none_or(|wanted| tags(item).iter().any(|tag| whole(tag) == *wanted));
    let found: Vec<&Item> = items.iter().filter(is_it).collect();
    if found.is_empty() { Err(names(items)) } else { Ok(found) }
}

/// A name as docker completes it: `debian` is `docker.io/library/debian:latest`.
fn whole(name: &str) -> String {
    match crate::image::reference::parse(&format!("docker://{name}")) {
        Ok(crate::image::ImageRef::Registry(reference)) => reference.whole(),
        _ => name.to_owned(),
    }
}

fn document(files: &Files, name: &str) -> Result<Vec<u8>> {
    let absent = || Error::Malformed {
        what: files.path().display().to_string(),
        why: format!("it has no {}, so docker did not save it", name.escape_debug()),
    };
    files.document(name, &format!("{name} of {}", files.path().display()), absent)
}

/// The OCI manifest of one of its images, and where its blobs are.
fn as_oci(files: &Files, item: &Item) -> Result<(Vec<u8>, BTreeMap<String, String>)> {
    let malformed = |why: String| Error::Malformed { what: files.path().display().to_string(), why };
    let text = document(files, &item.config)?;
    let config = Config::parse(&text).map_err(malformed)?;
    if config.diff_ids.len() != item.layers.len() {
        let (files, described) = (item.layers.len(), config.diff_ids.len());
        return Err(malformed(format!("its image has {files} layers, and {described} of them described")));
    }
    let mut blobs = BTreeMap::from([(Digest::of(&text).to_string(), item.config.clone())]);
    let mut layers = Vec::new();
    for (name, diff_id) in item.layers.iter().zip(&config.diff_ids) {
        let (size, digest) = layer(files, name, diff_id)?;
        let media_type = "application/vnd.oci.image.layer.v1.tar";
        layers.push(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size }));
        blobs.insert(digest.to_string(), name.clone());
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(&text).to_string(),
            "size": text.len(),
        },
        "layers": layers,
    });
    Ok((manifest.to_string().into_bytes(), blobs))
}

/// A layer's size and digest: the archive's own, unless it is compressed.
fn layer(files: &Files, name: &str, diff_id: &Digest) -> Result<(u64, Digest)> {
    let what = format!("layer '{}' of {}", name.escape_debug(), files.path().display());
    let Files::Archive(archive) = files else { return Ok((0, diff_id.clone())) };
    let missing = || Error::Malformed { what: files.path().display().to_string(), why: format!("it lacks its {what}") };
    let (_, size) = archive.find(name).ok_or_else(missing)?;
    let read = |e| Error::io(format!("cannot read {what}"))(e);
    let mut first = [0; 512];
    let head = size.min(512) as usize;
    let mut file = files.open(name).map_err(read)?;
    file.read_exact(&mut first[..head]).map_err(read)?;
    // A tar's first header says so at 257, and one of nothing is zeros; what is shorter or begins otherwise is compressed.
    if head == 512 && (&first[257..262] == b"ustar" || first == [0; 512]) {
        return Ok((size, diff_id.clone()));
    }
    let mut hash = crate::image::digest::Hasher::new();
    hash.update(&first[..head]);
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).map_err(read)? {
            0 => return Ok((size, hash.finish())),
            n => hash.update(&piece[..n]),
        }
    }
}

impl Source for DockerArchive {
    fn place(&self) -> String {
        format!("archive {}", self.files.path().display().to_string().escape_debug())
    }

    fn top(&self) -> Result<Vec<u8>> {
        Ok(self.top.clone())
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.manifests.get(&digest.to_string()).cloned().ok_or_else(|| Error::NotFound {
            what: format!("manifest {}", digest.short()),
            place: self.place(),
            why: String::new(),
        })
    }

    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        let what = format!("blob {}", blob.digest.escape_debug());
        let Some(name) = self.blobs.get(&blob.digest) else {
            return Err(Error::NotFound { what, place: self.place(), why: String::new() });
        };
        self.files
            .open(name)
            .map_err(|e| Error::Io { what: format!("cannot open {what} in {}", self.place()), source: e })
    }
}
