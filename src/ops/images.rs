//! `pull`, and the way from a reference to an artifact that the other verbs use. What a newcomer would get
//! wrong: [`obtain`] asks no network when the image is present; only `pull` asks whether there is a newer one. A layer that
//! an artifact names may still be removed by `rmi` until a domain's record names it: write that record under the store's
//! lock and look at [`still_there`] first.

use super::provision::bootstrap;
use super::{Ctx, Error, Kind, Result};
use crate::domain::{Artifact, ImageConfig, Layer, Platform};
use crate::image::catalogue::{self, Source};
use crate::image::oci::{self, Ask, DockerArchive, Layout, Pulled as Fetched, Registry};
use crate::image::{self, ImageRef, platform, raspios, reference, streams, tarball, template};
use crate::store::images::Entry;
use crate::store::layers;

/// What `pull` did.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// What can be run now.
    pub artifact: Artifact,
    /// Whether anything was fetched (docker's "Downloaded newer image" or "Image is up to date").
    pub fetched: bool,
}

/// The platforms that are wanted, best first, in OCI's names: architecture and variant. None: this machine's own.
pub type Platforms<'a> = Option<&'a [(String, Option<String>)]>;

/// What is wanted of an image.
pub struct Wish<'a> {
    /// For what it shall be.
    pub platforms: Platforms<'a>,
    /// Whether the source is asked although the image is present.
    pub ask: Ask,
    /// Where a bootstrap takes its packages from.
    pub mirror: Option<&'a str>,
    /// Packages that the system must hold besides, sorted, each once: then it is made from packages, whatever other sources there are.
    pub include: &'a [String],
    /// Called before a system of a foreign architecture (Debian's name) is made from packages: an interpreter for it must be
    /// registered, with the F flag, when it returns.
    pub ready: &'a bootstrap::Ready<'a>,
}

impl std::fmt::Debug for Wish<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wish").field("platforms", &self.platforms).field("ask", &self.ask).finish_non_exhaustive()
    }
}

/// An image, present or fetched now. With `force` its source is asked again; layers that are there already are never fetched
/// twice. `mirror` is where a bootstrap takes its packages from. Errors: see [`image::Error`]; nothing is left half-made.
pub fn obtain(ctx: &Ctx, word: &str, platforms: Platforms<'_>, force: bool, mirror: Option<&str>) -> Result<Artifact> {
    let ask = if force { Ask::Anew } else { Ask::Present };
    obtain_as(ctx, word, &Wish { platforms, ask, mirror, include: &[], ready: &|_| Ok(Vec::new()) })
        .map(|pulled| pulled.artifact)
}

/// As [`obtain`], with everything that can be wished for; says too whether anything was fetched.
pub fn obtain_as(ctx: &Ctx, word: &str, wish: &Wish<'_>) -> Result<Pulled> {
    let cannot = |e| failed(word, e);
    let host = platform::host();
    let wanted = wish.platforms.unwrap_or(&host);
    let report = ctx.report.as_ref();
    if let Some((name, entry)) = super::stored::obtain(ctx, word, wish.platforms, wish.ask)? {
        return Ok(pulled(name, &entry, false));
    }
    let what = reference::parse(word).map_err(cannot)?;
    if !wish.include.is_empty() && !matches!(what, ImageRef::Label(_)) {
        return Err(no_packages(word));
    }
    match what {
        ImageRef::Path(path) => {
            let path = reference::canonical(&path).map_err(cannot)?;
            if path.is_dir() {
                return Ok(directory(path));
            }
            let (entry, fetched) =
                tarball::from_file(&ctx.store, &path, wish.ask == Ask::Anew, report).map_err(cannot)?;
            Ok(pulled(path.display().to_string(), &entry, fetched))
        }
        ImageRef::Url(url) => {
            let (entry, fetched) =
                tarball::from_url(&ctx.store, &url, wish.ask == Ask::Anew, report).map_err(cannot)?;
            Ok(pulled(url, &entry, fetched))
        }
        ImageRef::Layout(text) => {
            let layout = Layout::open(&text).map_err(cannot)?;
            from_disk(ctx, &layout, layout.reference(), wanted).map_err(cannot)
        }
        ImageRef::OciArchive(text) => {
            let layout = Layout::open_archive(&text).map_err(cannot)?;
            from_disk(ctx, &layout, layout.reference(), wanted).map_err(cannot)
        }
        ImageRef::DockerArchive(text) => {
            let archive = DockerArchive::open(&text).map_err(cannot)?;
            from_disk(ctx, &archive, archive.reference(), wanted).map_err(cannot)
        }
        ImageRef::Streams(name) => {
            let (reference, said) = (name.reference(), said(name.platform.as_ref()));
            let wanted = agreed(&reference, said.as_ref(), wish.platforms, &host).map_err(cannot)?;
            let (entry, fetched) =
                streams::obtain(&ctx.store, &name, wanted, wish.ask != Ask::Present, report).map_err(cannot)?;
            Ok(pulled(reference, &entry, fetched))
        }
        ImageRef::Raspios(name) => {
            let (reference, said) = (name.reference(), said(name.platform.as_ref()));
            let usual = raspios::usual();
            let wanted = agreed(&reference, said.as_ref(), wish.platforms, &usual).map_err(cannot)?;
            let (entry, fetched) =
                raspios::obtain(&ctx.store, &name, wanted, wish.ask != Ask::Present, report).map_err(cannot)?;
            Ok(pulled(reference, &entry, fetched))
        }
        ImageRef::Registry(reference) => {
            let got = from_registry(ctx, &reference, wanted, wish.ask).map_err(cannot)?;
            Ok(pulled(reference.whole(), &got.entry, got.fetched))
        }
        ImageRef::Label(label) => {
            let row = catalogue::lookup(label);
            let row = row.ok_or_else(|| Error::general(format!("'{label}' is not in the catalogue")))?;
            from_catalogue(ctx, row, wanted, wish)
        }
    }
}

fn said(platform: Option<&Platform>) -> Option<(String, Option<String>)> {
    platform.map(|p| (p.architecture.clone(), p.variant.clone()))
}

/// The platforms to look for when the word itself may say one. Errors: it says another than was asked for.
fn agreed<'a>(
    word: &str,
    said: Option<&'a (String, Option<String>)>,
    asked: Platforms<'a>,
    usual: platform::Wanted<'a>,
) -> image::Result<platform::Wanted<'a>> {
    let Some(said) = said else { return Ok(asked.unwrap_or(usual)) };
    let one = Platform { architecture: said.0.clone(), os: "linux".into(), variant: said.1.clone() };
    if let Some(asked) = asked.filter(|asked| platform::rank(&one, asked).is_none()) {
        let (what, wanted) = (word.to_owned(), platform::wanted_text(asked));
        return Err(image::Error::NoPlatform { what, wanted, available: one.to_string() });
    }
    Ok(std::slice::from_ref(said))
}

/// Looking into files costs nothing, so they are always asked.
fn from_disk(ctx: &Ctx, source: &dyn oci::Source, name: String, wanted: platform::Wanted<'_>) -> image::Result<Pulled> {
    let got = oci::pull(&ctx.store, source, &name, wanted, Ask::Anew, ctx.report.as_ref())?;
    Ok(pulled(name, &got.entry, got.fetched))
}

fn from_registry(
    ctx: &Ctx,
    reference: &oci_distribution::Reference,
    wanted: platform::Wanted<'_>,
    ask: Ask,
) -> image::Result<Fetched> {
    let name = reference.whole();
    if ask == Ask::Present {
        if let Some(entry) = oci::stored(&ctx.store, &name, wanted)? {
            return Ok(Fetched { entry, fetched: false });
        }
    }
    let registry = Registry::new(&ctx.store, reference, &ctx.access, ctx.report.as_ref())?;
    oci::pull(&ctx.store, &registry, &name, wanted, ask, ctx.report.as_ref())
}

/// Whatever is stored of any source will do; else they are tried in order.
fn from_catalogue(ctx: &Ctx, row: &catalogue::Row, wanted: platform::Wanted<'_>, wish: &Wish<'_>) -> Result<Pulled> {
    let label = &row.label;
    let fitting = |source: &&Source| wish.include.is_empty() || matches!(source, Source::Bootstrap(_));
    if !row.sources.iter().any(|source| fitting(&source)) {
        return Err(no_packages(label));
    }
    let mut asked = None;
    if wish.ask != Ask::Anew {
        for source in row.sources.iter().filter(fitting) {
            if let Some(entry) = oci::stored(&ctx.store, &stored_as(source, wish.include), wanted)? {
                if wish.ask == Ask::Present || matches!(source, Source::Bootstrap(_)) {
                    return Ok(pulled(label.clone(), &entry, false));
                }
                asked = Some(source);
                break;
            }
        }
    }
    if let Some(note) = &row.note {
        ctx.report.note(&format!("{label}: {note}"));
    }
    let mut sources = row.sources.iter().filter(fitting).peekable();
    while let Some(source) = sources.next() {
        let error = match from_source(ctx, source, wanted, wish) {
            Ok((entry, fetched)) => return Ok(pulled(label.clone(), &entry, fetched)),
            Err(Unusable::Fatal(error)) => return Err(error),
            Err(Unusable::TakeNext(error)) => error,
        };
        // Whether there is a newer one is a question to the source that it came from.
        if sources.peek().is_none() || asked == Some(source) {
            return Err(failed(label, error));
        }
        ctx.report.note(&format!("{label}: {error}: trying its next source"));
    }
    Err(Error::general(format!("'{label}' has no source")))
}

fn no_packages(word: &str) -> Error {
    Error::new(
        Kind::Usage,
        format!("'{}' is not made from packages here, so --include has no meaning", word.escape_debug()),
    )
    .hint("it is for labels of Debian and Ubuntu; into any other domain packages are installed by its own manager")
}

/// Why a source of the catalogue gave nothing.
enum Unusable {
    Fatal(Error),
    TakeNext(image::Error),
}

fn unusable(word: &str, error: image::Error) -> Unusable {
    match error {
        e if e.is_out_of_reach() || matches!(e, image::Error::NoPlatform { .. }) => Unusable::TakeNext(e),
        e => Unusable::Fatal(failed(word, e)),
    }
}

fn from_source(
    ctx: &Ctx,
    source: &Source,
    wanted: platform::Wanted<'_>,
    wish: &Wish<'_>,
) -> std::result::Result<(Entry, bool), Unusable> {
    match source {
        Source::Streams(path) => {
            let word = format!("images:{path}");
            let ImageRef::Streams(name) = reference::parse(&word).map_err(|e| Unusable::Fatal(failed(&word, e)))?
            else {
                return Err(Unusable::Fatal(Error::general(format!("the catalogue is wrong about '{word}'"))));
            };
            let got = streams::obtain(&ctx.store, &name, wanted, wish.ask != Ask::Present, ctx.report.as_ref());
            got.map_err(|e| match e {
                // An index of others' making that cannot be used is no reason to do without the sources that follow.
                image::Error::Malformed { .. } => Unusable::TakeNext(e),
                e => unusable(&word, e),
            })
        }
        Source::Tarball(at) => template::obtain(&ctx.store, at, wanted, wish.ask != Ask::Present, ctx.report.as_ref())
            .map_err(|e| unusable(&at.url, e)),
        Source::Oci(text) => {
            let fatal = |e| Unusable::Fatal(failed(text, e));
            let ImageRef::Registry(reference) = reference::parse(text).map_err(fatal)? else {
                return Err(Unusable::Fatal(Error::general(format!("the catalogue is wrong about '{text}'"))));
            };
            let got = from_registry(ctx, &reference, wanted, wish.ask).map_err(|e| unusable(text, e))?;
            Ok((got.entry, got.fetched))
        }
        Source::Bootstrap(suite) => {
            let (mirror, include, force) = (wish.mirror, wish.include, wish.ask == Ask::Anew);
            let what = bootstrap::Wish { suite, platforms: wanted, mirror, include, force };
            bootstrap::obtain(ctx, &what, wish.ready).map(|entry| (entry, true)).map_err(Unusable::Fatal)
        }
    }
}

/// The reference under which what a source gives is stored, with these packages besides.
fn stored_as(source: &Source, include: &[String]) -> String {
    match source {
        Source::Oci(text) => text.clone(),
        Source::Streams(path) => format!("images:{path}/default"),
        Source::Tarball(at) => at.url.clone(),
        Source::Bootstrap(suite) => bootstrap::reference(suite, include),
    }
}

fn directory(path: std::path::PathBuf) -> Pulled {
    let artifact = Artifact {
        label: path.display().to_string(),
        layers: vec![Layer::Directory(path)],
        digest: None,
        platform: None,
        config: ImageConfig::default(),
    };
    Pulled { artifact, fetched: false }
}

fn pulled(label: String, entry: &Entry, fetched: bool) -> Pulled {
    let artifact = super::stored::artifact(label, entry);
    Pulled { artifact, fetched }
}

pub(super) fn failed(word: &str, error: image::Error) -> Error {
    let error = match error {
        // Not the image's fault.
        image::Error::Store(interrupted @ crate::store::Error::Interrupted(_)) => return interrupted.into(),
        other => other,
    };
    let hint = match &error {
        e if e.is_disk_full() => Some("free some space, or put the store elsewhere with --root".to_owned()),
        image::Error::BadReference { .. } => {
            catalogue::nearest(word).map(|label| format!("did you mean {label}? A path starts with './' or '/'"))
        }
        image::Error::NoPlatform { .. } => Some("choose one that it has with --arch".to_owned()),
        // A mistyped label (`debain/bookworm`) is a good name of a registry's image, so it went there.
        e if e.is_out_of_reach() && !catalogue::is_label(word) => {
            catalogue::nearest(word).map(|label| format!("did you mean {label}?"))
        }
        _ => None,
    };
    let failure = Error::general(format!("cannot get image '{}'", word.escape_debug())).because(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Whether every stored layer of an artifact is there, whole. The caller holds the store's lock, so that it stays so until
/// the record that names them is written.
pub fn still_there(ctx: &Ctx, artifact: &Artifact) -> Result<bool> {
    Ok(layers::all_exist(&ctx.store, &artifact.stored_keys())?)
}

/// Fetches an image, asking its source whether there is a newer one, where that can be told without fetching it all. With `force`
/// everything is asked again, and a bootstrap or download is made anew.
/// `arch` is any name a user may give an architecture.
pub fn pull(ctx: &Ctx, image: &str, arch: Option<&str>, force: bool, mirror: Option<&str>) -> Result<Pulled> {
    pull_with(ctx, image, arch, force, mirror, &[])
}

/// As [`pull`], of a system that holds these packages besides (sorted, each once).
pub fn pull_with(
    ctx: &Ctx,
    image: &str,
    arch: Option<&str>,
    force: bool,
    mirror: Option<&str>,
    include: &[String],
) -> Result<Pulled> {
    let platforms = arch.map(super::registry::platforms_named).transpose()?;
    let ask = if force { Ask::Anew } else { Ask::Newer };
    let profiles = super::registry::profiles()?;
    let ready = |debian: &str| super::interpreter::ready_for(ctx, &profiles, debian, true, None);
    obtain_as(ctx, image, &Wish { platforms: platforms.as_deref(), ask, mirror, include, ready: &ready })
}

mod every;
pub(super) mod kept;
mod verify;
pub use every::pull_all;
pub use kept::{Document, Pruned, Row, images, inspect, prune, rmi, tag};
pub use verify::{Damaged, Verified, verify};

#[cfg(test)]
mod tests;
