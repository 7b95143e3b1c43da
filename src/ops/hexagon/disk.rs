//! The disk of a guest with a kernel of its own. What a newcomer would get wrong: a tree becomes a file system on a disk without a partition
//! table, for the kernel is handed over; an image that is a disk stays one, and is only read: what the guest writes goes to a file of
//! its own (qcow2), whose base is named by us at each start.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::DISK;
use crate::image::disk::import;
use crate::image::disk::make::{self, Identity};
use crate::image::disk::table::Role;
use crate::ops::monitor::personal;
use crate::ops::{Ctx, Error, Kind, Result, tree};
use crate::store::domains::Record;
use crate::sys::process::Tool;
use crate::sys::root::Root;
use crate::sys::unfinished::Unfinished;
use crate::sys::{fail, fs};

/// How much room a root has beyond what its image takes, in bytes: it costs nothing until it is used.
const ROOM: u64 = 8 << 30;

fn failed(record: &Record) -> impl Fn(&dyn std::fmt::Display) -> Error + '_ {
    move |why| {
        Error::new(Kind::Create, format!("cannot make a disk of '{}'", record.artifact.label)).because(why.to_string())
    }
}

/// Makes the disk of a tree, with the domain's own identity in it, in the domain's directory. Errors: as mke2fs says; nothing is left.
pub fn of_tree(ctx: &Ctx, record: &Record, dir: &Path, hostname: &str) -> Result<()> {
    let why = failed(record);
    fail::point("disk").map_err(|e| why(&e))?;
    let step = ctx.report.begin(&format!("making a disk of {}", record.artifact.label), None);
    let begun = std::time::Instant::now();
    let (stack, _) = tree::writable(&ctx.store, record, dir, None).map_err(|e| why(&e))?;
    let root = Root::from_fd(stack, dir);
    personal::first_start(&root, hostname, &record.uuid.replace('-', "")).map_err(|e| why(&e))?;
    network(&root).map_err(|e| why(&e))?;
    let path = dir.join(DISK);
    let (unfinished, file) = Unfinished::file(&path, 0o600).map_err(|e| why(&e))?;
    let identity = Identity { uuid: record.uuid.clone(), label: "root".into() };
    make::make(&file, root.fd(), &identity, record.spec.full.room.unwrap_or(ROOM))
        .map_err(|e| why(&e).hint("free some space, or put the store elsewhere with --root"))?;
    unfinished.publish(&file, &path, true).map_err(|e| why(&e))?;
    drop(root);
    for name in ["upper", "work"] {
        fs::remove_tree(&dir.join(name)).map_err(|e| why(&e))?;
    }
    step.done(&format!("made a disk of {} ({:.1} s)", record.artifact.label, begun.elapsed().as_secs_f64()));
    Ok(())
}

/// What of an image's partitions matters to who starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The number of the root's partition; none: the disk has no table.
    pub root: Option<u32>,
    /// Whether there is something for UEFI.
    pub esp: bool,
}

/// Reads a disk's table; `offset` is where its root begins. Errors: as read(2), or a damaged table.
pub fn layout(path: &Path, offset: u64) -> io::Result<Layout> {
    let image = File::open(path)?;
    let table = import::table(&image).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    let all = table.unwrap_or_default();
    let root = all.iter().find(|part| part.start == offset).map(|part| part.number);
    Ok(Layout { root, esp: all.iter().any(|part| part.role == Role::Esp) })
}

/// A copy-on-write disk over an image's own, of its size or, where more room is asked for, so much larger. Errors: as qemu-img says.
pub fn over(record: &Record, base: &Path, dir: &Path) -> Result<()> {
    let why = failed(record);
    let size = std::fs::metadata(base).map_err(|e| why(&e))?.len() + record.spec.full.room.unwrap_or(0);
    let path = dir.join(DISK);
    // Its base is said at each start: what stands in the file is never believed.
    Tool::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&path)
        .arg(size.to_string())
        .output()
        .map_err(|e| why(&e))?;
    Ok(())
}

/// Has a tree that has systemd's network daemon, and nothing that was set up for the purpose, ask for an address.
fn network(root: &Root) -> io::Result<()> {
    const DAEMON: &str = "usr/lib/systemd/systemd-networkd";
    let others = ["etc/network/interfaces", "usr/sbin/NetworkManager", "usr/bin/NetworkManager", "usr/sbin/ifup"];
    if !root.exists(DAEMON) || others.iter().any(|path| root.exists(path)) {
        return Ok(());
    }
    let text = b"[Match]\nType=ether\n\n[Network]\nDHCP=yes\n";
    personal::write(root, "etc/systemd/network/80-pronto.network", text)?;
    let wanted = "etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
    link(root, wanted, "/usr/lib/systemd/system/systemd-networkd.service")?;
    if !root.exists("usr/lib/systemd/systemd-resolved") {
        // The one that QEMU's network offers.
        personal::write(root, "etc/resolv.conf", b"nameserver 10.0.2.3\n")?;
    }
    Ok(())
}

fn link(root: &Root, path: &str, to: &str) -> io::Result<()> {
    let path = Path::new(path);
    let parent = path.parent().unwrap_or(Path::new("/"));
    personal::mount_point(root, parent, true)?;
    let dir = root.open_at(parent, nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY)?;
    match nix::unistd::symlinkat(to, dir.as_fd(), path.file_name().unwrap_or_default()) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Copies an open file into the domain's directory: the domain must start when the image, or the user's file, is gone. Errors: as
/// write(2).
pub fn take(mut source: File, to: &Path) -> io::Result<()> {
    let (unfinished, mut file) = Unfinished::file(to, 0o600)?;
    io::copy(&mut source, &mut file)?;
    unfinished.publish(&file, to, true)
}
