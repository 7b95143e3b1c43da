//! `pull`, `images`, `rmi`, and the way from a reference to an artifact that the other verbs use. What a newcomer would get
//! wrong: [`obtain`] asks no network when the image is present; only `pull` asks whether there is a newer one.

use serde::Serialize;

use super::{Ctx, Error, Result};
use crate::domain::{Artifact, Layer};
use crate::image::{self, ImageRef, reference, tarball};
use crate::store::images::Entry;

/// What `pull` did.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// What can be run now.
    pub artifact: Artifact,
    /// Whether anything was fetched (docker's "Downloaded newer image" or "Image is up to date").
    pub fetched: bool,
}

/// One image as `images` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The reference as it is stored.
    pub reference: String,
    /// `linux/arm64/v8`.
    pub platform: String,
    /// The manifest's digest.
    pub digest: String,
    /// Unpacked size in bytes.
    pub size: u64,
    /// When it was pulled, in seconds since 1970.
    pub pulled: u64,
}

/// The platforms that are wanted, best first, in OCI's names: architecture and variant. None: this machine's own.
pub type Platforms<'a> = Option<&'a [(String, Option<String>)]>;

/// An image, present or fetched now. With `force` its source is asked again; layers that are there already are never fetched
/// twice. `mirror` is where a bootstrap takes its packages from. Errors: see [`image::Error`]; nothing is left half-made.
pub fn obtain(
    ctx: &Ctx,
    word: &str,
    _platforms: Platforms<'_>,
    force: bool,
    _mirror: Option<&str>,
) -> Result<Artifact> {
    let report = ctx.report.as_ref();
    match reference::parse(word).map_err(|e| failed(word, e))? {
        ImageRef::Path(path) => {
            let path = reference::canonical(&path).map_err(|e| failed(word, e))?;
            if path.is_dir() {
                return Ok(directory(path));
            }
            let entry = tarball::from_file(&ctx.store, &path, force, report).map_err(|e| failed(word, e))?;
            Ok(artifact(path.display().to_string(), &entry))
        }
        ImageRef::Url(url) => {
            let entry = tarball::from_url(&ctx.store, &url, force, report).map_err(|e| failed(word, e))?;
            Ok(artifact(url, &entry))
        }
        _ => Err(Error::general("registries are not built yet")),
    }
}

fn directory(path: std::path::PathBuf) -> Artifact {
    Artifact {
        label: path.display().to_string(),
        layers: vec![Layer::Directory(path)],
        digest: None,
        platform: None,
        config: crate::domain::ImageConfig::default(),
    }
}

fn artifact(label: String, entry: &Entry) -> Artifact {
    Artifact {
        label,
        layers: entry.layers.iter().cloned().map(Layer::Stored).collect(),
        digest: Some(entry.digest.clone()),
        platform: entry.platform.clone(),
        config: entry.config.clone(),
    }
}

fn failed(word: &str, error: image::Error) -> Error {
    let full = error.is_disk_full();
    let failure = Error::general(format!("cannot get image '{}'", word.escape_debug())).because(error);
    if full { failure.hint("free some space, or put the store elsewhere with --root") } else { failure }
}

/// Fetches an image. `arch` is any name a user may give an architecture.
pub fn pull(_ctx: &Ctx, _image: &str, _arch: Option<&str>, _force: bool, _mirror: Option<&str>) -> Result<Pulled> {
    Err(Error::general("pull is not built yet"))
}
/// What is in the store.
pub fn images(_ctx: &Ctx) -> Result<Vec<Row>> {
    Err(Error::general("images is not built yet"))
}
/// Removes an image (all its platforms unless `arch` is given) and the layers that nothing else uses.
pub fn rmi(_ctx: &Ctx, _image: &str, _arch: Option<&str>) -> Result<()> {
    Err(Error::general("rmi is not built yet"))
}
