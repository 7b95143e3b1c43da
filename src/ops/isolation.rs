//! How far a guest is kept from the host: whether it gets ids of its own, and a registry of interpreters of its own. What a
//! newcomer would get wrong: nobody has to ask for it. It is the default wherever this host can do it; where it cannot, the
//! reason is said in one line, and the guest runs behind nspawn's fences alone; who asks for it by name gets it or an error.
//! Source: user_namespaces(7), mount_setattr(2), Documentation/admin-guide/binfmt-misc.rst.

use std::path::Path;

use super::{Ctx, Error, Kind, Result, ids, tree};
use crate::domain::{Artifact, Registry, Spec};
use crate::sys::overlay::{self, Lower, Mapping};
use crate::sys::{gate, host, userns};

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolation {
    /// A user namespace with ids of its own.
    pub userns: bool,
    /// A registry of interpreters of its own, if it needs an interpreter at all.
    pub private: bool,
}

/// Decides for one guest. `boot`: it gets an init (and not only one command). Errors: what was asked for by name cannot be had.
pub fn decide(ctx: &Ctx, spec: &Spec, artifact: &Artifact) -> Result<Isolation> {
    let userns = own_ids(ctx, spec, artifact)?;
    let private = match spec.binfmt {
        Some(Registry::Host) => false,
        asked => match (userns, can_be_private()) {
            (true, Ok(())) => true,
            (_, Err(why)) if asked.is_some() => {
                return Err(cannot("a registry of interpreters of its own").because(why).hint("--binfmt host"));
            }
            (false, _) if asked.is_some() => {
                let what = "a registry of interpreters of its own needs a user namespace";
                return Err(Error::new(Kind::Create, what).hint("leave --no-userns out, or --binfmt private"));
            }
            _ => false,
        },
    };
    Ok(Isolation { userns, private })
}

fn cannot(what: &str) -> Error {
    Error::new(Kind::Create, format!("the guest cannot have {what}"))
}

fn own_ids(ctx: &Ctx, spec: &Spec, artifact: &Artifact) -> Result<bool> {
    if spec.userns == Some(false) {
        return Ok(false);
    }
    match try_ids(ctx, artifact) {
        Ok(mapping) => {
            warn_of_binds(ctx, spec, &mapping);
            Ok(true)
        }
        Err(why) if spec.userns == Some(true) => Err(cannot("ids of its own").because(why).hint("--no-userns")),
        Err(why) => {
            ctx.report.warn(&format!(
                "no user namespace for this guest: {why}: its root is the host's root, behind fences only"
            ));
            Ok(false)
        }
    }
}

/// Tries it on every file system that the guest's tree lies on. Nothing is left of the trial.
fn try_ids(ctx: &Ctx, artifact: &Artifact) -> std::result::Result<Mapping, String> {
    let mapping = Mapping::of(ids::example()).map_err(|e| format!("this host allows no user namespace: {e}"))?;
    let mut places = vec![Lower::from(ctx.store.domains())];
    let (of_store, lowers) = (ctx.store.layers(), tree::lowers(&ctx.store, artifact).map_err(|e| e.to_string())?);
    // One file system, however many layers lie on it.
    let in_store = |lower: &Lower| matches!(lower, Lower::Tree(path) if path.starts_with(&of_store));
    places.extend(lowers.iter().any(in_store).then(|| of_store.clone().into()));
    places.extend(lowers.into_iter().filter(|lower| !in_store(lower)));
    places.iter().try_for_each(|place| overlay::can_map(place, &mapping)).map_err(|e| e.to_string())?;
    Ok(mapping)
}

/// What is shared keeps its owners where its file system can show them; elsewhere everything in it is nobody's.
fn warn_of_binds(ctx: &Ctx, spec: &Spec, mapping: &Mapping) {
    for bind in &spec.binds {
        if userns::mapped_clone(&bind.source, &mapping.namespace).is_ok_and(|(_, mapped)| !mapped) {
            ctx.report.warn(&format!(
                "{} is shared without its owners, which its file system cannot translate: in the guest all of it is nobody's (--no-userns shares it as it is)",
                bind.source.display()
            ));
        }
    }
}

/// What guests get here by default, for `info`: lines by name.
pub fn describe(ctx: &Ctx) -> [(&'static str, String); 2] {
    let behind = "a guest's root is the host's root, behind nspawn's fences";
    let mapping = Mapping::of(ids::example()).map_err(|e| e.to_string());
    let place = [ctx.store.domains(), ctx.store.root().to_owned()].into_iter().find(|p| p.is_dir());
    let tried =
        mapping.and_then(|m| place.map_or(Ok(()), |p| overlay::can_map(&p.into(), &m).map_err(|e| e.to_string())));
    let fences = match &tried {
        _ if !nix::unistd::geteuid().is_root() => "guests share the host's kernel (ask as root for more)".to_owned(),
        Ok(()) => "user namespaces: a guest's root is nobody on this host; the kernel is shared".to_owned(),
        Err(why) => format!("no user namespaces ({why}): {behind}"),
    };
    let registry = match (tried.is_ok(), can_be_private()) {
        (true, Ok(())) => "private: each foreign guest has its own".to_owned(),
        (_, Err(why)) => format!("the host's ({why})"),
        (false, _) => "the host's".to_owned(),
    };
    [("pronto_fences", fences), ("pronto_registry", registry)]
}

/// Whether this host allows user namespaces at all.
pub fn user_namespaces() -> bool {
    Mapping::of(ids::example()).is_ok()
}

/// Since Linux 6.7 a user namespace may have a registry of its own.
pub fn can_be_private() -> std::result::Result<(), String> {
    if host::kernel_version() < (6, 7, 0) {
        return Err(format!("Linux 6.7 or newer is needed, this is {}", host::kernel_release()));
    }
    if !gate::is_supported() {
        return Err(format!("pronto cannot do it on {}", std::env::consts::ARCH));
    }
    let known = || {
        let text = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        text.lines().any(|l| l.split_whitespace().last() == Some("binfmt_misc"))
    };
    if !known() {
        let _ = crate::sys::process::Tool::new("modprobe").arg("binfmt_misc").output();
    }
    if known() || Path::new("/proc/sys/fs/binfmt_misc/register").exists() {
        return Ok(());
    }
    Err("this kernel has no binfmt_misc".into())
}
