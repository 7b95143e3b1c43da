//! A domain's file tree: its own changes over the emulation layer over the image. What a newcomer would get wrong: the mount
//! is detached; whoever starts the guest attaches it in the guest's own mount namespace.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::domain::{Artifact, Layer};
use crate::store::Store;
use crate::store::domains::Record;
use crate::store::layers;
use crate::sys::overlay::{Lower, Mapping, Overlay};
use crate::sys::{fs, mount, userns};

/// The image's trees, the topmost first. A layer that is a disk is two: what lies over its root, and that root. Errors: its
/// record cannot be read.
pub fn lowers(store: &Store, artifact: &Artifact) -> crate::store::Result<Vec<Lower>> {
    let mut lowers = Vec::new();
    for layer in artifact.layers.iter().rev() {
        match layer {
            Layer::Directory(path) => lowers.push(path.clone().into()),
            Layer::Stored(key) => {
                let dir = store.layer(key);
                let whole = layers::meta(store, key)?.ok_or_else(|| crate::store::Error::Damaged {
                    path: dir.clone(),
                    why: "it is not whole; 'pronto verify --repair' fetches it again".into(),
                })?;
                match whole.disk {
                    None => lowers.push(dir.into()),
                    Some(volume) => {
                        lowers.push(dir.join(layers::OVER).into());
                        lowers.push(Lower::Disk(dir.join(layers::DISK), volume));
                    }
                }
            }
        }
    }
    Ok(lowers)
}

/// What is at `path` on the host, with all that is mounted there, to be attached in a guest with these ids; detached. Errors: as
/// open_tree(2).
pub fn shown(path: &Path, ids: Option<&Mapping>) -> std::io::Result<OwnedFd> {
    match ids {
        Some(mapping) => userns::mapped_clone(path, &mapping.namespace).map(|(tree, _)| tree),
        None => mount::clone_tree(path, true),
    }
}

/// A domain's tree, writable, and whether this is its first start. `dir` is the domain's directory; `ids` are those of the
/// guest that will see it.
pub fn writable(store: &Store, record: &Record, dir: &Path, ids: Option<Mapping>) -> Result<(OwnedFd, bool), String> {
    let text = |e: std::io::Error| e.to_string();
    let mut stack = Vec::new();
    if record.emulated.as_ref().is_some_and(|e| e.layer) {
        stack.push(Lower::from(dir.join("emulation")));
    }
    stack.extend(lowers(store, &record.artifact).map_err(|e| e.to_string())?);
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    let first = !upper.exists();
    for made in [&upper, &work] {
        fs::private_dir(made).map_err(text)?;
    }
    if first {
        set_root_mode(&record.artifact, &upper)?;
    }
    let overlay = Overlay { lowers: stack, upper: Some((upper, work)), ids };
    let tree = overlay.detached().map_err(|e| format!("cannot stack the layers: {e}"))?;
    Ok((tree, first))
}

/// The guest's root directory: a tree of the user's keeps its mode and owner, an image's is root's with 0755 (a layer's own
/// entry for `/` often says nothing).
fn set_root_mode(artifact: &Artifact, upper: &Path) -> Result<(), String> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (mut mode, mut owner) = (0o755, (0, 0));
    if let Some(Layer::Directory(top)) = artifact.layers.last() {
        let meta = std::fs::metadata(top).map_err(|e| format!("{}: {e}", top.display()))?;
        (mode, owner) = (meta.mode() & 0o7777, (meta.uid(), meta.gid()));
    }
    std::fs::set_permissions(upper, PermissionsExt::from_mode(mode)).map_err(|e| e.to_string())?;
    std::os::unix::fs::chown(upper, Some(owner.0), Some(owner.1)).map_err(|e| e.to_string())
}
