//! Disks and network interfaces that come and go while a guest runs. What a newcomer would get wrong: taking one out is only *asked*: the
//! guest has to let go of it, which takes seconds (a PCI Express port blinks for five before it switches off), and one that has no
//! running kernel, or that uses the disk as its root, never does. What is plugged in half is taken back.
//! Sources: qapi/qdev.json, QEMU's docs/pcie.txt.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::error::Error;
use super::parts;
use super::qmp::Qmp;
use crate::backend::hexagon::{Disk, Nic};

/// The set that a disk's file is handed over in: behind those of the start.
fn set_of(disk: &Disk) -> Result<u32, parts::Unfit> {
    Ok(100 + parts::number(&disk.vdev)?)
}

impl Qmp {
    /// Plugs a disk in, at the place of its name; `file` is its content, open, where QEMU cannot open it by its path. Errors: the place is
    /// taken, the file cannot be opened; nothing is left then.
    pub fn attach_disk(&mut self, disk: &Disk, throw_away: bool, file: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let set = set_of(disk)?;
        let handed: Vec<(&Path, u32)> =
            disk.source.as_deref().filter(|_| file.is_some()).map(|p| (p, set)).into_iter().collect();
        let node = parts::node(disk, throw_away, &handed)?.ok_or_else(|| parts::Unfit::Empty(disk.vdev.clone()))?;
        let device = parts::disk_device(disk, None)?;
        if let Some(file) = file {
            self.call_with("add-fd", json!({"fdset-id": set}), file)?;
        }
        let added = self.call("blockdev-add", node);
        let done = added.and_then(|_| self.call("device_add", device));
        if let Err(e) = done {
            let _ = self.call("blockdev-del", json!({"node-name": parts::node_name(disk)}));
            let _ = self.call("remove-fd", json!({"fdset-id": set}));
            return Err(e);
        }
        Ok(())
    }

    /// Takes a disk out and closes its file. Errors: there is none of that name, the guest keeps it.
    pub fn detach_disk(&mut self, disk: &Disk, patience: Duration) -> Result<(), Error> {
        self.unplug(&disk.vdev, patience)?;
        self.call("blockdev-del", json!({"node-name": parts::node_name(disk)}))?;
        // One that was opened by its path is in no set.
        let _ = self.call("remove-fd", json!({"fdset-id": set_of(disk)?}));
        Ok(())
    }

    /// Plugs the `n`-th network interface in; `tap` is the device for one on a bridge, open.
    pub fn attach_nic(&mut self, nic: &Nic, n: usize, tap: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let name = format!("tap{n}");
        if let Some(tap) = tap {
            self.lend(&name, tap)?;
        }
        let lent = tap.is_some().then_some(name.as_str());
        let made = parts::netdev(nic, n, lent).map_err(Error::from);
        if let Err(e) = made.and_then(|netdev| self.call("netdev_add", netdev)) {
            if let Some(name) = lent {
                self.take_back(name);
            }
            return Err(e);
        }
        if let Err(e) = self.call("device_add", parts::nic_device(nic, n)) {
            let _ = self.call("netdev_del", json!({"id": format!("net{n}")}));
            return Err(e);
        }
        Ok(())
    }

    /// Takes the `n`-th network interface out, and what it was connected to.
    pub fn detach_nic(&mut self, n: usize, patience: Duration) -> Result<(), Error> {
        self.unplug(&format!("nic{n}"), patience)?;
        self.call("netdev_del", json!({"id": format!("net{n}")})).map(drop)
    }

    /// Asks the guest to let go of a device, and waits until it has. A guest that was asked before and has done it meanwhile is no
    /// error. Errors: it refuses, or says nothing within `patience` (asking again later goes on where this stopped).
    fn unplug(&mut self, id: &str, patience: Duration) -> Result<(), Error> {
        // What was said of an earlier device of this name is not said of this one.
        let mut gone = false;
        while let Some(deleted) =
            self.await_event(Duration::ZERO, |e| (e.data["device"] == id).then(|| e.name == "DEVICE_DELETED"))?
        {
            gone |= deleted;
        }
        match self.call("device_del", json!({"id": id})) {
            // Asked already, and not yet done: the answer to that is this one's as well.
            Err(Error::Refused { why, .. }) if why.contains("in the process of unplug") => {}
            Err(error) if gone && error.is_unknown() => return Ok(()),
            Err(other) => return Err(other),
            Ok(_) => {}
        }
        let answer = self.await_event(patience, |event| match event.name.as_str() {
            "DEVICE_DELETED" if event.data["device"] == id => Some(true),
            "DEVICE_UNPLUG_GUEST_ERROR" if event.data["device"] == id => Some(false),
            _ => None,
        })?;
        match answer {
            Some(true) => Ok(()),
            Some(false) => Err(Error::Kept { device: id.to_owned(), waited: None }),
            None => Err(Error::Kept { device: id.to_owned(), waited: Some(patience) }),
        }
    }
}
