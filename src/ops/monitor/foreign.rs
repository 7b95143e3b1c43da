//! What a guest of another architecture needs from its monitor: its interpreters registered before its init runs, and to be spared what
//! would do nothing. What a newcomer would get wrong: the registry lives as long as this process holds it, and all of it is made anew
//! at every start.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::guest::{Text, text};
use super::sparing::{self, Spared};
use crate::binfmt;
use crate::ops::inspect;
use crate::ops::interpreter;
use crate::store::Store;
use crate::store::domains::{Emulated, Run};
use crate::sys::gate::{self, Gate, Key};
use crate::sys::root::Root;
use crate::sys::{fail, mount, ns, userns};

/// What is held for one run of such a guest; nothing for any other.
#[derive(Debug, Default)]
pub struct Foreign {
    /// The guest's own registry of interpreters, which is there as long as it is held.
    registry: Option<OwnedFd>,
    /// What lets the guest's init begin.
    key: Option<Key>,
    /// What the guest is spared until it is up.
    spared: Option<Spared>,
}

impl Foreign {
    /// Makes what stands before the guest's init. Errors: as pipe(2), memfd_create(2).
    pub fn make_gate(&mut self) -> Text<Gate> {
        let (gate, key) = gate::make().map_err(text)?;
        self.key = Some(key);
        Ok(gate)
    }

    /// Registers the interpreters in the guest's user namespace, where its first process waits for them, and lets that go on.
    /// `spare`: its init is a systemd that can be spared something.
    pub fn open_gate(&mut self, store: &Store, by: &Emulated, run: &Run, spare: bool) -> Text<()> {
        fail::point("registry").map_err(text)?;
        let cannot = |e: std::io::Error| format!("cannot register {} in the guest: {e}", by.interpreter.display());
        let namespace = userns::of_process(run.leader).map_err(cannot)?;
        let copies = interpreter::open_copies(store, by)?;
        let registry = userns::open_inside(namespace.as_fd(), || {
            copies.iter().try_for_each(|(of, copy)| mount::attach(copy.as_fd(), of))?;
            binfmt::private(&by.private)
        });
        self.registry = Some(registry.map_err(cannot)?);
        if spare {
            // What is shared with it is mounted there by now. It would boot without, too.
            match inside(run, |root| sparing::put(root, inspect::idle(root, run.forgetful))) {
                Ok(spared) => self.spared = Some(spared),
                Err(e) => tracing::warn!("the guest is not spared what does nothing: {e}"),
            }
        }
        self.key.take().map_or(Ok(()), Key::open).map_err(text)
    }

    /// The guest is up.
    pub fn is_up(&mut self, run: &Run) {
        let Some(spared) = self.spared.take() else { return };
        if let Err(e) = userns::acting_as(run.ids, || spared.take_back()) {
            tracing::warn!("generators stay masked in the guest: {e}");
        }
    }
}

/// Works as the guest's root on its file tree, as its init sees it.
fn inside<T>(run: &Run, work: impl FnOnce(&Root) -> std::io::Result<T>) -> std::io::Result<T> {
    let root = Root::open(Path::new(&format!("/proc/{}/root", run.leader)))?;
    if ns::start_time(run.leader) != Some(run.leader_start) {
        return Err(std::io::Error::other("the guest's init is gone"));
    }
    let id = |root: &Root| root.stat(Path::new("/")).map(|s| (s.st_dev, s.st_ino));
    // nspawn has changed it before it names the leader; were it otherwise, this would be the host's /run.
    if id(&root)? == id(&Root::open(Path::new("/"))?)? {
        return Err(std::io::Error::other("the guest's init is not in its tree yet"));
    }
    userns::acting_as(run.ids, || work(&root))
}
