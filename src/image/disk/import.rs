//! From a disk that lies in the store to what a guest can use of it: the table, the root, and the tree over it. What a newcomer
//! would get wrong: a type in a table is a hint and no more, so a root is what looks like one when it is mounted; and this mount,
//! like every one, is attached nowhere and gone when this returns.

use std::fs::File;
use std::path::Path;

use super::bytes::{Bytes, Part};
use super::fat::Fat;
use super::over::{Fault, Over};
use super::superblock::{self, Found, What};
use super::table::{Partition, Role};
use super::traps::{self, Mount};
use super::{gpt, mbr};
use crate::domain::Report;
use crate::image::unpack::Unpacked;
use crate::image::{Error, Result};
use crate::store::layers;
use crate::sys::disk::{self, FileSystem, Volume};
use crate::sys::fail;
use crate::sys::root::Root;

/// What distributions call the subvolume that is the root (Fedora, Debian, Ubuntu and Arch).
const SUBVOLUMES: [&str; 3] = ["root", "@rootfs", "@"];

/// What a file system without a table is filled up to, in bytes: a squashfs may end anywhere, and the kernel reads it by blocks of
/// 1 or 4 KiB.
const BLOCK: u64 = 4096;

/// A partition with what lies in it.
struct Place {
    partition: Partition,
    found: std::result::Result<Option<Found>, String>,
}

/// Looks into the disk in `dir`, makes the tree over it there, and adds to the sizes of `unpacked`. Returns which part is the
/// root. `what` is the image's name for messages. Errors: a sentence that names the partition; the caller removes `dir`.
pub fn look(dir: &Path, unpacked: &mut Unpacked, what: &str, report: &dyn Report) -> Result<Volume> {
    let bad = |why: String| Error::Malformed { what: format!("disk image {}", what.escape_debug()), why };
    let path = dir.join(layers::DISK);
    let image = File::open(&path).map_err(Error::io(format!("cannot open {}", path.display())))?;
    let places = places(&image).map_err(bad)?;
    if let [Place { partition, .. }] = &places[..] {
        let end = partition.start + partition.size;
        let lengthen = || File::options().write(true).open(&path)?.set_len(end);
        if end > image.length() {
            lengthen().map_err(Error::io(format!("cannot lengthen {}", path.display())))?;
        }
    }
    let (volume, root, number) = find_root(&path, &places).map_err(bad)?;
    let of_root = places.iter().find(|place| Some(place.partition.number) == number);
    if of_root.is_some_and(|place| matches!(&place.found, Ok(Some(found)) if found.dirty)) {
        report.warn(&format!("{what}: its file system was not unmounted: the last changes to it are not seen"));
    }
    if let Some(place) = places.iter().find(|p| matches!(p.partition.role, Role::Usr(_)) && !root.is_dir("usr/lib")) {
        return Err(bad(format!(
            "its /usr is a partition of its own ({}), which is not supported",
            place.partition.shown()
        )));
    }
    let host = |e| Error::Io { what: format!("cannot lay files over {}", what.escape_debug()), source: e };
    let mut over = Over::begin(&root, dir.join(layers::OVER)).map_err(host)?;
    let mounts = neutralise(&root, &mut over, what, report).map_err(host)?;
    for place in &places {
        lay(&image, place, &mounts, &mut over, what, report).map_err(|fault| match fault {
            Fault::Damaged(why) => bad(format!("the FAT file system in {}: {why}", place.partition.shown())),
            Fault::Host(e) => host(e),
        })?;
        let unused = place.partition.role == Role::Boot || place.partition.role == Role::Linux;
        if let (true, Ok(Some(found)), true) = (unused, &place.found, Some(place.partition.number) != number) {
            if matches!(found.what, What::Root(_)) {
                let (shown, name) = (place.partition.shown(), found.what.name());
                report.note(&format!("{what}: {shown} ({name}) is not shown to guests"));
            }
        }
    }
    fail::point("disk").and_then(|()| over.finish()).map_err(host)?;
    unpacked.size += over.bytes;
    unpacked.entries += over.entries;
    Ok(volume)
}

/// The partitions; none where there is no table. Errors: a damaged one, in a sentence.
pub fn table(image: &File) -> std::result::Result<Option<Vec<Partition>>, String> {
    match gpt::read(image)? {
        // What is at the mark of an MBR may be anything in a squashfs, which begins where the table's program would.
        None if superblock::is_squashfs(image) => Ok(None),
        None => mbr::read(image),
        table => Ok(table),
    }
}

/// The partitions, or the whole disk as one when it has no table.
fn places(image: &File) -> std::result::Result<Vec<Place>, String> {
    let size = image.length();
    let Some(table) = table(image)? else {
        let found = superblock::identify(&Part::new(image, 0, size))?;
        if found.is_none() {
            return Err("it has neither a partition table nor a file system that is known".into());
        }
        let size = size.next_multiple_of(BLOCK);
        let partition =
            Partition { number: 0, start: 0, size, role: Role::Linux, uuid: String::new(), label: String::new() };
        return Ok(vec![Place { partition, found: Ok(found) }]);
    };
    let look = |partition: Partition| {
        let found = superblock::identify(&Part::new(image, partition.start, partition.size));
        Place { partition, found }
    };
    Ok(table.into_iter().map(look).collect())
}

/// The root's volume, its tree, and the partition's number. Partitions that say that they are a root come first, then those that
/// say Linux and nothing else.
fn find_root(path: &Path, places: &[Place]) -> std::result::Result<(Volume, Root, Option<u32>), String> {
    let of_role = |wanted: fn(Role) -> bool| places.iter().filter(move |p| wanted(p.partition.role));
    let candidates = of_role(|r| matches!(r, Role::Root(_))).chain(of_role(|r| r == Role::Linux));
    let mut tried = Vec::new();
    for place in candidates {
        let shown = if place.partition.number == 0 { "the disk".to_owned() } else { place.partition.shown() };
        let found = match &place.found {
            Err(why) => return Err(format!("{shown}: {why}")),
            Ok(None) => {
                tried.push(format!("{shown} holds no file system that is known"));
                continue;
            }
            Ok(Some(found)) => found,
        };
        let What::Root(kind) = found.what else {
            tried.push(format!("{shown} holds {}", found.what.name()));
            continue;
        };
        let (start, size) = (place.partition.start, place.partition.size);
        let mut volume = Volume { offset: start, size, kind, subvolume: None };
        let mount = |volume: &Volume| -> std::result::Result<Root, String> {
            let tree = disk::mount(path, volume).map_err(|e| match e.kind() {
                std::io::ErrorKind::PermissionDenied => format!("looking into it needs root ({e})"),
                std::io::ErrorKind::Unsupported if kind == FileSystem::Squashfs => {
                    format!("{shown}: {e}: unpack it (unsquashfs) and use the directory")
                }
                _ => format!("{shown}: {e}"),
            })?;
            Ok(Root::from_fd(tree, path))
        };
        let mut root = mount(&volume)?;
        if kind == FileSystem::Btrfs && !root.is_dir("etc") {
            volume.subvolume =
                SUBVOLUMES.iter().find(|name| root.is_dir(format!("{name}/etc"))).map(|n| (*n).to_owned());
            if volume.subvolume.is_some() {
                root = mount(&volume)?;
            }
        }
        // A disk without a table holds what its maker wants to be the root, programs of one's own for example.
        if place.partition.number == 0 || root.is_dir("etc") || root.is_dir("usr") {
            return Ok((volume, root, Some(place.partition.number)));
        }
        tried.push(format!("{shown} ({}) has neither /etc nor /usr", kind.name()));
    }
    if tried.is_empty() {
        tried.push("its table has no partition for Linux".into());
    }
    Err(format!("it holds no Linux system: {}", tried.join(", ")))
}

/// What would keep a guest from coming up. Returns fstab's entries for devices.
fn neutralise(root: &Root, over: &mut Over<'_>, what: &str, report: &dyn Report) -> std::io::Result<Vec<Mount>> {
    let text = |path: &str| root.read_text(path).unwrap_or_default();
    let mut told = Vec::new();
    let mut mounts = Vec::new();
    if let Some((new, found)) = traps::fstab(&text("etc/fstab")) {
        over.replace("etc/fstab", new.as_bytes())?;
        told.push(format!("{} entries of fstab", found.len()));
        mounts = found;
    }
    if let Some(new) = traps::preload(&text("etc/ld.so.preload")) {
        over.replace("etc/ld.so.preload", new.as_bytes())?;
        told.push("ld.so.preload's libarmmem".to_owned());
    }
    told.extend(over.mask()?.into_iter().map(str::to_owned));
    if !told.is_empty() {
        report.note(&format!("{what}: guests do not have what is for a machine of its own: {}", told.join(", ")));
    }
    Ok(mounts)
}

/// Lays a FAT's files where the image mounts them.
fn lay(
    image: &File,
    place: &Place,
    mounts: &[Mount],
    over: &mut Over<'_>,
    what: &str,
    report: &dyn Report,
) -> std::result::Result<(), Fault> {
    let Place { partition, found } = place;
    let is_fat = |found: &Found| found.what == What::Fat;
    let found = match found {
        Ok(Some(found)) if is_fat(found) && matches!(partition.role, Role::Esp | Role::Boot | Role::Fat) => found,
        Err(why) if partition.role != Role::Other => return Err(Fault::Damaged(why.clone())),
        Ok(None) if matches!(partition.role, Role::Esp | Role::Fat) => {
            report.note(&format!("{what}: {} holds no file system that is known", partition.shown()));
            return Ok(());
        }
        _ => return Ok(()),
    };
    let Some(point) = point_of(partition, found, mounts, over) else {
        report.note(&format!("{what}: the image has no place for the files of {}", partition.shown()));
        return Ok(());
    };
    let part = Part::new(image, partition.start, partition.size);
    let Some(fat) = Fat::open(&part) else { return Ok(()) };
    if !over.copy(&fat, partition.size, Path::new(point.trim_start_matches('/')))? {
        report.note(&format!("{what}: the files of {} cannot be shown at {point}", partition.shown()));
    }
    Ok(())
}

/// Where a FAT belongs: where fstab has it, else at the first of the usual places that the image has.
fn point_of(partition: &Partition, found: &Found, mounts: &[Mount], over: &Over<'_>) -> Option<String> {
    let is_it = |mount: &&Mount| {
        let Some((key, value)) = mount.device.split_once('=') else { return false };
        let value = value.trim_matches('"');
        let own = match key {
            "UUID" => &found.uuid,
            "LABEL" => &found.label,
            "PARTUUID" => &partition.uuid,
            "PARTLABEL" => &partition.label,
            _ => return false,
        };
        !own.is_empty() && own.eq_ignore_ascii_case(value)
    };
    let legal = |point: &str| {
        (point == "/boot" || point.starts_with("/boot/") || point.starts_with("/efi")) && !point.contains("/.")
    };
    if let Some(mount) = mounts.iter().find(is_it) {
        return Some(mount.point.clone()).filter(|point| legal(point));
    }
    let usual: &[&str] = match partition.role {
        Role::Esp => &["/boot/efi", "/efi"],
        Role::Boot => &["/boot"],
        _ => &["/boot/firmware", "/boot"],
    };
    usual.iter().find(|point| over.has_directory(point)).map(|point| (*point).to_owned())
}
