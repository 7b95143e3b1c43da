//! `pull`, `images`, `rmi`, and the way from a reference to an artifact that the other verbs use.

use serde::Serialize;

use super::{Ctx, Error, Result};
use crate::domain::Artifact;

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
