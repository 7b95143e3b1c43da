//! Tarballs that a distribution offers under one name per architecture (Ubuntu's cloud images, Alpine's minirootfs). What a newcomer
//! would get wrong: the names of architectures in such URLs are the distribution's own, so the catalogue lists them.

use serde::Deserialize;

use super::fetch::{Patience, Web};
use super::platform::{self, Wanted};
use super::tarball::{self, Found};
use super::{Error, Result, checksums, oci};
use crate::domain::{Platform, Report};
use crate::store::Store;
use crate::store::images::Entry;

/// One URL for many architectures.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The URL; `{arch}` stands for the architecture.
    pub url: String,
    /// Debian's names of those that there are, each with what the URL says if that differs: `arm64=aarch64`.
    pub arches: Vec<String>,
}

impl Template {
    /// The platforms that there are, each with its name in the URL.
    pub fn platforms(&self) -> Vec<(Platform, &str)> {
        let parts = self.arches.iter().map(|arch| arch.split_once('=').unwrap_or((arch, arch)));
        parts.filter_map(|(debian, named)| Some((platform::of_debian(debian)?, named))).collect()
    }
}

/// The tarball for the best of the platforms that are wanted: what is stored unless `ask`; else what the server has now, unless its
/// checksum file says that it is still the same. Says too whether it was fetched.
pub fn obtain(
    store: &Store,
    at: &Template,
    wanted: Wanted<'_>,
    ask: bool,
    report: &dyn Report,
) -> Result<(Entry, bool)> {
    if !ask {
        if let Some(entry) = oci::stored(store, &at.url, wanted)? {
            return Ok((entry, false));
        }
    }
    let platforms = at.platforms();
    let Some(best) = platform::best(platforms.iter().map(|(p, _)| p), wanted) else {
        let available = platform::list(platforms.iter().map(|(p, _)| p));
        return Err(Error::NoPlatform { what: at.url.clone(), wanted: platform::wanted_text(wanted), available });
    };
    let (platform, named) = &platforms[best];
    let url = at.url.replace("{arch}", named);
    let web = Web::new(Patience::default())?;
    let expect = checksums::beside_url(&web, &url, report)?;
    let stamp =
        expect.sha256.as_ref().map(ToString::to_string).or_else(|| expect.sha512.as_ref().map(ToString::to_string));
    let found = Found { reference: at.url.clone(), platform: platform.clone(), url, expect, stamp };
    tarball::obtain(store, &web, &found, report)
}
