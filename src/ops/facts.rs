//! What an image holds, as its files say: looked at through a mount that nobody else sees, and remembered for layers that
//! never change. What a newcomer would get wrong: a directory of the user's may change at any time, so it is never remembered.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::inspect::{self, Facts};
use super::{Ctx, Error, Kind, Result};
use crate::arch::Profiles;
use crate::domain::{Artifact, Layer};
use crate::sys::overlay::Overlay;
use crate::sys::root::Root;
use crate::sys::{fs, tag};

/// What an image holds. Stored layers never change, so what was found in them is kept in the cache; a directory of the
/// user's is looked at every time.
pub fn of(ctx: &Ctx, artifact: &Artifact, profiles: &Profiles) -> Result<Facts> {
    let Some(path) = facts_path(ctx, artifact) else { return look(ctx, artifact, profiles) };
    let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Facts>(&bytes).ok());
    if let Some(facts) = known.filter(|f| f.profile.as_deref().is_none_or(|p| profiles.find(p).is_ok())) {
        return Ok(facts);
    }
    let facts = look(ctx, artifact, profiles)?;
    // A cache that cannot be written costs time, nothing else.
    if let (Some(dir), Ok(text)) = (path.parent(), serde_json::to_vec(&facts)) {
        let _ = fs::private_dir(dir).and_then(|()| fs::write_volatile(&path, &text, 0o600));
    }
    Ok(facts)
}

/// An image without a shell or an init: the command itself tells the architecture. One that is not there, or is no ELF
/// file, is left to the start to complain about, with this machine's own architecture.
pub fn of_command(
    ctx: &Ctx,
    artifact: &Artifact,
    profiles: &Profiles,
    facts: &mut Facts,
    given: &[OsString],
) -> Result<()> {
    let words = super::run::words(&artifact.config, given.to_vec());
    let root = open_tree(ctx, artifact)?;
    let found = match words.first().and_then(|w| w.to_str()) {
        Some(word) if word.contains('/') => inspect::file(&root, word, profiles)?,
        _ => None,
    };
    if let Some(found) = found {
        facts.profile.clone_from(&found.profile);
        facts.files.push(found);
    } else {
        facts.profile = profiles.by_uname(std::env::consts::ARCH).map(|p| p.name.clone());
    }
    Ok(())
}

fn facts_path(ctx: &Ctx, artifact: &Artifact) -> Option<PathBuf> {
    let mut key = format!("facts 3 of {}", env!("CARGO_PKG_VERSION"));
    for layer in &artifact.layers {
        let Layer::Stored(stored) = layer else { return None };
        key += stored;
    }
    Some(ctx.store.facts().join(tag::of(key.as_bytes(), 64) + ".json"))
}

/// Looks at the image's files, through a mount that nobody else sees.
fn look(ctx: &Ctx, artifact: &Artifact, profiles: &Profiles) -> Result<Facts> {
    inspect::tree(&open_tree(ctx, artifact)?, profiles).map_err(|e| e.with_kind(Kind::Create))
}

pub(super) fn open_tree(ctx: &Ctx, artifact: &Artifact) -> Result<Root> {
    let failed = |e: std::io::Error| Error::new(Kind::Create, format!("cannot read '{}'", artifact.label)).because(e);
    let lowers = super::tree::lowers(&ctx.store, artifact)?;
    let tree = Overlay { lowers, ..Overlay::default() }.detached().map_err(failed)?;
    Ok(Root::from_fd(tree, Path::new(&artifact.label)))
}
