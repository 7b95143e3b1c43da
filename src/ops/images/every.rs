//! `pull --all-platforms`: an image for every platform that its source has a list of. What a newcomer would get wrong: files cost nothing to
//! look into, so layouts and archives are always asked; a registry is asked for its index once and then for each image.

use super::{Ctx, Error, Pulled, Result, failed, pulled};
use crate::domain::Platform;
use crate::image::catalogue::{self, Source};
use crate::image::oci::{self, Ask, DockerArchive, Layout, Registry};
use crate::image::streams::{self, Name};
use crate::image::{self, ImageRef, reference};

/// Fetches an image for every platform that its source has, as [`super::pull`] does. Errors: the source has no list of platforms.
pub fn pull_all(ctx: &Ctx, image: &str, force: bool) -> Result<Vec<Pulled>> {
    let cannot = |e| failed(image, e);
    let ask = if force { Ask::Anew } else { Ask::Newer };
    match reference::parse(image).map_err(cannot)? {
        ImageRef::Layout(text) => {
            let layout = Layout::open(&text).map_err(cannot)?;
            every(ctx, &layout, &layout.reference(), &layout.reference(), Ask::Anew).map_err(cannot)
        }
        ImageRef::OciArchive(text) => {
            let layout = Layout::open_archive(&text).map_err(cannot)?;
            every(ctx, &layout, &layout.reference(), &layout.reference(), Ask::Anew).map_err(cannot)
        }
        ImageRef::DockerArchive(text) => {
            let archive = DockerArchive::open(&text).map_err(cannot)?;
            every(ctx, &archive, &archive.reference(), &archive.reference(), Ask::Anew).map_err(cannot)
        }
        ImageRef::Streams(name) => of_streams(ctx, &name, &name.reference()).map_err(cannot),
        ImageRef::Registry(reference) => of_registry(ctx, &reference, &reference.whole(), ask).map_err(cannot),
        ImageRef::Label(label) => of_label(ctx, image, label, ask),
        _ => Err(no_list(image)),
    }
}

fn every(ctx: &Ctx, source: &dyn oci::Source, name: &str, label: &str, ask: Ask) -> image::Result<Vec<Pulled>> {
    let one = |p: Platform| {
        let wanted = [(p.architecture, p.variant)];
        let got = oci::pull(&ctx.store, source, name, &wanted, ask, ctx.report.as_ref())?;
        Ok(pulled(label.to_owned(), &got.entry, got.fetched))
    };
    oci::platforms(&ctx.store, source, name)?.into_iter().map(one).collect()
}

fn of_registry(
    ctx: &Ctx,
    reference: &oci_distribution::Reference,
    label: &str,
    ask: Ask,
) -> image::Result<Vec<Pulled>> {
    let registry = Registry::new(&ctx.store, reference, &ctx.access, ctx.report.as_ref())?;
    every(ctx, &registry, &reference.whole(), label, ask)
}

fn of_streams(ctx: &Ctx, name: &Name, label: &str) -> image::Result<Vec<Pulled>> {
    let got = streams::obtain_all(&ctx.store, name, ctx.report.as_ref())?;
    Ok(got.into_iter().map(|(entry, fetched)| pulled(label.to_owned(), &entry, fetched)).collect())
}

/// The first of a label's sources that has a list and can be reached.
fn of_label(ctx: &Ctx, image: &str, label: &str, ask: Ask) -> Result<Vec<Pulled>> {
    let cannot = |e| failed(image, e);
    let mut last = None;
    for source in catalogue::lookup(label).into_iter().flat_map(|row| &row.sources) {
        let word = match source {
            Source::Oci(text) => text.clone(),
            Source::Streams(path) => format!("images:{path}"),
            Source::Tarball(_) | Source::Bootstrap(_) => continue,
        };
        let got = match reference::parse(&word).map_err(cannot)? {
            ImageRef::Registry(reference) => of_registry(ctx, &reference, label, ask),
            ImageRef::Streams(name) => of_streams(ctx, &name, label),
            _ => continue,
        };
        match got {
            Err(e) if e.is_out_of_reach() => last = Some(e),
            other => return other.map_err(cannot),
        }
    }
    Err(last.map_or_else(|| no_list(image), cannot))
}

fn no_list(image: &str) -> Error {
    Error::general(format!("'{}' has no list of platforms", image.escape_debug()))
        .hint("fetch one of them: pronto pull --arch ARCH IMAGE")
}
