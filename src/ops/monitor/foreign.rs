//! What a guest of another architecture needs from its monitor: its interpreters registered before its init runs, and to be spared what
//! would do nothing. What a newcomer would get wrong: the registry lives as long as this process holds it, and all of it is made anew
//! at every start.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libc::EIO;
use nix::sched::CloneFlags;
use nix::sys::wait::WaitStatus;

use super::guest::{Text, text};
use super::sparing::{self, Spared};
use crate::binfmt;
use crate::ops::accel::cpuinfo;
use crate::ops::{inspect, interpreter, tree};
use crate::store::Store;
use crate::store::domains::{Emulated, Run};
use crate::sys::gate::{self, Gate, Key};
use crate::sys::overlay::Mapping;
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

/// Shows native programs in a guest what its emulated ones see of the CPU, before its init runs. It would boot without.
pub fn show_cpuinfo(run: &Run, by: &Emulated, dir: &Path, ids: Option<&Mapping>) {
    let Some(file) = by.native.as_ref().and_then(|native| cpuinfo::shown(native, dir)) else { return };
    let done = tree::shown(&file, ids).and_then(|tree| show(run, tree.as_fd(), Path::new(cpuinfo::PLACE)));
    if let Err(e) = done {
        tracing::warn!("native programs of the guest see the host's {}: {e}", cpuinfo::PLACE);
    }
}

/// Shows a detached mount in a guest, read-only, at a path that is there as its init sees it. Errors: as setns(2), move_mount(2).
fn show(run: &Run, tree: BorrowedFd<'_>, at: &Path) -> std::io::Result<()> {
    mount::set_read_only(tree, false)?;
    let init = ns::pidfd(run.leader)?;
    root_of(run)?;
    // A process of its own: who has joined a guest's mount namespace has lost the host's.
    let child = ns::spawn(CloneFlags::empty(), || {
        let done = ns::enter(init.as_fd(), CloneFlags::CLONE_NEWNS).and_then(|()| mount::attach(tree, at));
        done.map_or_else(|e| e.raw_os_error().unwrap_or(EIO).min(254), |()| 0)
    })?;
    match child.wait()? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, errno) => Err(std::io::Error::from_raw_os_error(errno)),
        other => Err(std::io::Error::other(format!("the helper in the guest ended: {other:?}"))),
    }
}

/// Works as the guest's root on its file tree, as its init sees it.
fn inside<T>(run: &Run, work: impl FnOnce(&Root) -> std::io::Result<T>) -> std::io::Result<T> {
    let root = root_of(run)?;
    userns::acting_as(run.ids, || work(&root))
}

/// The guest's file tree, which is not the host's.
fn root_of(run: &Run) -> std::io::Result<Root> {
    let root = Root::open(Path::new(&format!("/proc/{}/root", run.leader)))?;
    if ns::start_time(run.leader) != Some(run.leader_start) {
        return Err(std::io::Error::other("the guest's init is gone"));
    }
    let id = |root: &Root| root.stat(Path::new("/")).map(|s| (s.st_dev, s.st_ino));
    // nspawn has changed it before it names the leader; were it otherwise, this would be the host's /run.
    if id(&root)? == id(&Root::open(Path::new("/"))?)? {
        return Err(std::io::Error::other("the guest's init is not in its tree yet"));
    }
    Ok(root)
}
