//! Images that are in the store, found by the word that names them: no network is asked and no file looked at. What a newcomer would get
//! wrong: a name that was given here (`import`, `tag`) comes before a registry's of the same spelling, so that `debian:bookworm` means
//! what somebody has called so.

use super::images::kept::names_of;
use super::{Ctx, Error, Result};
use crate::domain::{Artifact, Layer};
use crate::image::oci::Ask;
use crate::image::platform::{self, Wanted};
use crate::image::{self, ImageRef, reference};
use crate::store::images::{self as records, Entry, Record};
use crate::store::layers;

/// What is stored of a name that was given here, when the word is such a name and something is.
pub fn named(ctx: &Ctx, word: &str) -> Result<Option<Record>> {
    match reference::local(word) {
        Ok(name) => Ok(records::get(&ctx.store, &name)?),
        Err(_) => Ok(None),
    }
}

/// One platform of a name that was given here. Without a wish it is this machine's, else the only one. `None`: there is no such name.
/// Errors: it is there for other platforms only, or its layers are gone.
pub fn obtain(ctx: &Ctx, word: &str, wanted: Option<Wanted<'_>>, ask: Ask) -> Result<Option<(String, Entry)>> {
    let Some(record) = named(ctx, word)? else {
        return match reference::parse(word) {
            Ok(ImageRef::Registry(reference)) if reference::is_local(&reference) => {
                let what = format!(
                    "no image '{}' is stored, and names at '{}' are in no registry",
                    word.escape_debug(),
                    reference::LOCAL
                );
                Err(Error::general(what).hint("see pronto images; pronto import gives such names"))
            }
            _ => Ok(None),
        };
    };
    if ask != Ask::Present {
        ctx.report.note(&format!("{} was named here: there is no source to ask", record.reference));
    }
    let entry = pick(&record, wanted)?;
    whole(ctx, &record.reference, &entry)?;
    Ok(Some((record.reference, entry)))
}

/// A stored image by any word for it: a name that was given here, a label, a registry's name, a path; `None` when none is stored. Errors: it
/// is stored for other platforms only, or not whole.
pub fn find(ctx: &Ctx, word: &str, wanted: Option<Wanted<'_>>) -> Result<Option<(String, Entry)>> {
    if let Some(found) = obtain(ctx, word, wanted, Ask::Present)? {
        return Ok(Some(found));
    }
    let mut other = None;
    for name in names_of(&ctx.store, word)? {
        let Some(record) = records::get(&ctx.store, &name)? else { continue };
        match pick(&record, wanted) {
            Ok(entry) => return whole(ctx, &record.reference, &entry).map(|()| Some((record.reference, entry))),
            Err(error) => other = other.or(Some(error)),
        }
    }
    other.map_or(Ok(None), Err)
}

/// Without a wish: this machine's platform, else the only one that there is.
fn pick(record: &Record, wanted: Option<Wanted<'_>>) -> Result<Entry> {
    let host = platform::host();
    let rank = |entry: &&Entry| match &entry.platform {
        Some(platform) => platform::rank(platform, wanted.unwrap_or(&host)),
        // A tarball does not say what it is for: it is what it is said to be, where nothing better is there.
        None => Some(usize::MAX),
    };
    let best = record.entries.iter().filter(|entry| rank(entry).is_some()).min_by_key(rank);
    let only = || record.entries.first().filter(|_| wanted.is_none() && record.entries.len() == 1);
    best.or_else(only).cloned().ok_or_else(|| {
        let wanted = platform::wanted_text(wanted.unwrap_or(&host));
        let available = platform::list(record.entries.iter().filter_map(|e| e.platform.as_ref()));
        Error::general(image::Error::NoPlatform { what: record.reference.clone(), wanted, available }.to_string())
            .hint("choose one that it has with --arch")
    })
}

fn whole(ctx: &Ctx, name: &str, entry: &Entry) -> Result<()> {
    for key in &entry.layers {
        if !layers::exists(&ctx.store, key)? {
            let what = format!("image '{}' is not whole: its layer {key} is gone", name.escape_debug());
            return Err(Error::general(what).hint("remove it (pronto rmi) and get it again"));
        }
    }
    Ok(())
}

/// A stored image as what domains are made of.
pub fn artifact(label: String, entry: &Entry) -> Artifact {
    Artifact {
        label,
        layers: entry.layers.iter().cloned().map(Layer::Stored).collect(),
        digest: Some(entry.digest.clone()),
        platform: entry.platform.clone(),
        config: entry.config.clone(),
    }
}

/// The entry that an artifact was made of, under whatever reference.
pub fn entry_of(ctx: &Ctx, artifact: &Artifact) -> Result<Option<Entry>> {
    let keys = artifact.stored_keys();
    let same = |entry: &Entry| artifact.digest.as_deref() == Some(&entry.digest) && entry.layers == keys;
    Ok(records::all(&ctx.store)?.into_iter().flat_map(|record| record.entries).find(same))
}
