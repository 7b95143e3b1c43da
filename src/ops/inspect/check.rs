//! Whether a tree is what its label says. What a newcomer would get wrong: the label is checked after unpacking and before
//! anything is made, so that a lie costs a message and leaves nothing.

use super::{Facts, described, shown};
use crate::arch::Profile;
use crate::ops::{Error, Result};

/// Compares what a tree holds with `wanted`: what the image's label or the user says. Errors: another architecture (both are
/// named), one that no profile describes, or programs whose loader is missing. A tree without any program passes.
pub fn check(facts: &Facts, wanted: Option<&Profile>) -> Result<()> {
    let Some(first) = facts.files.first() else { return Ok(()) };
    match (&first.profile, wanted) {
        (None, _) => {
            let what = format!("no profile describes the architecture of {} ({})", shown(&first.path), first.header);
            return Err(Error::general(what).hint("see pronto arch list; one can be added in /etc/pronto/arch.d"));
        }
        (Some(held), Some(wanted)) if *held != wanted.name => {
            let what = format!("the image says {} but holds {held} ({} is {held})", wanted.name, shown(&first.path));
            return Err(Error::general(what).hint(format!("ask for it with --arch {held}, or take another image")));
        }
        _ => {}
    }
    match &facts.missing_loader {
        Some((program, loader)) => {
            let what = format!(
                "{} ({}) cannot start: its loader {} is not in the image",
                shown(program),
                described(first),
                shown(loader)
            );
            Err(Error::general(what).hint("the image is not whole: unpack or pull it again"))
        }
        None => Ok(()),
    }
}
