//! What joins a layer to those below it in one image. An archive may make files in a directory that it does not name, and hard links to files that
//! it does not hold: both speak of lower layers. What a newcomer would get wrong: the same layer may lie on others in another image, so
//! nothing of this can be written into it; a *seam* is a layer of its own, right above it, keyed by all keys up to it. It holds those
//! directories with the lower ones' owner, mode, time and attributes, and the links, which are names of the lower layer's own files, so
//! they take no room. An image without such layers (nearly every one) has no seam and pays nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, linkat};

use crate::domain::Report;
use crate::image::{Digest, Error, Result};
use crate::store::Store;
use crate::store::layers::{self, Claimed, Meta};
use crate::store::loose::{Loose, Name};
use crate::store::sums::Known;
use crate::sys::root::file_type;
use crate::sys::unpack as raw;
use crate::sys::xattr;

/// What the keys of seams begin with. It sorts behind all digests: a seam shares files with layers below it, so `verify`, which goes by
/// keys, has mended those when it comes to the seam.
const PREFIX: &str = "seam-";
/// How many links in a row a path may go through, as in the kernel (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// Whether a layer is a seam.
pub fn is_seam(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// The stack (lowest first) with a seam above each layer that needs one, made now where it is not there yet. Errors: a hard link leads to
/// nothing; the host's files.
pub fn sew(store: &Store, reference: &str, stack: &[String], report: &dyn Report) -> Result<Vec<String>> {
    let mut sewn: Vec<String> = Vec::with_capacity(stack.len());
    for key in stack {
        sewn.push(key.clone());
        let Some(meta) = layers::meta(store, key)?.filter(|meta| !meta.loose.is_empty()) else { continue };
        let what = format!("layer {} of {reference}", &key[..key.len().min(12)]);
        let host = |e| Error::io(format!("cannot join {what} to those below it"))(e);
        let layers = Layers::open(store, &sewn).map_err(host)?;
        let plan = Plan::of(&layers, &meta.loose).map_err(host)?.map_err(|why| Error::Malformed { what, why })?;
        if !plan.is_empty() {
            sewn.push(make(store, &sewn, &layers, &plan, report)?);
        }
    }
    Ok(sewn)
}

fn make(store: &Store, keys: &[String], layers: &Layers, plan: &Plan, report: &dyn Report) -> Result<String> {
    let key = format!("{PREFIX}{}", Digest::of(keys.join("\n").as_bytes()).hex());
    let waiting = || report.note("another pronto is joining the same layers: waiting for it");
    if let Claimed::Mine(claim) = layers::claim(store, &key, || layers::meta(store, &key), waiting)? {
        let dir = claim.directory()?;
        let entries = fill(&dir, layers, plan).map_err(Error::io(format!("cannot make {}", dir.display())))?;
        // Its files are the lower layers', and counted there.
        let meta = Meta { entries, ..Meta::default() };
        claim.publish(&key, meta, Some(&Known::default()))?;
    }
    Ok(key)
}

/// A directory as a stack shows it: the layers that hold it, topmost first.
type Merged = Vec<(usize, Rc<OwnedFd>)>;

/// What a stack has under one name.
enum Found {
    Nothing,
    Directory(Merged),
    /// Something else: in which layer, in which directory of it.
    Other(usize, Rc<OwnedFd>, FileStat),
}

/// The trees of a stack, topmost first. The first one is the layer with loose ends.
struct Layers(Merged);

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Layers {
    fn open(store: &Store, keys: &[String]) -> io::Result<Layers> {
        let open = |(number, key): (usize, &String)| -> io::Result<_> {
            let path = store.layer(key);
            let root = nix::fcntl::open(&path, DIRECTORY, Mode::empty())
                .map_err(|e| io::Error::other(format!("{}: {}", path.display(), e.desc())))?;
            Ok((number, Rc::new(root)))
        };
        keys.iter().rev().enumerate().map(open).collect::<io::Result<_>>().map(Layers)
    }

    /// The directory at `path`, and its real path. Links are followed inside the stack where `follow` says so. `None`: there is none.
    fn directory(&self, path: &[u8], follow: bool) -> io::Result<Option<(Vec<u8>, Merged)>> {
        let mut way: Vec<(Vec<u8>, Merged)> = vec![(Vec::new(), self.0.clone())];
        let parts = |path: &[u8]| -> Vec<Vec<u8>> { path.split(|&b| b == b'/').rev().map(<[u8]>::to_vec).collect() };
        let (mut rest, mut links) = (parts(path), 0);
        while let Some(part) = rest.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                // Above the root is the root.
                b".." if follow => {
                    way.truncate((way.len() - 1).max(1));
                    continue;
                }
                b".." => return Ok(None),
                _ => {}
            }
            let Some((here, merged)) = way.last() else { return Ok(None) };
            match step(merged, &part)? {
                Found::Directory(next) => way.push((join(here, &part), next)),
                Found::Other(_, dir, stat) if follow && file_type(&stat) == SFlag::S_IFLNK && links < MAX_LINKS => {
                    links += 1;
                    let target = readlinkat(&dir, part.as_slice())?.into_vec();
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    rest.extend(parts(&target));
                }
                _ => return Ok(None),
            }
        }
        Ok(way.pop())
    }

    /// What the layers *below* the first have at a path of which the whole stack has the parent; and its real path.
    fn below(&self, path: &[u8], follow: bool) -> io::Result<(Vec<u8>, Found)> {
        let at = path.iter().rposition(|&b| b == b'/');
        let (above, leaf) = at.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        let Some((real, mut merged)) = self.directory(above, follow)? else { return Ok((Vec::new(), Found::Nothing)) };
        merged.retain(|(number, _)| *number > 0);
        Ok((join(&real, leaf), step(&merged, leaf)?))
    }
}

fn join(above: &[u8], leaf: &[u8]) -> Vec<u8> {
    if above.is_empty() { leaf.to_vec() } else { [above, b"/", leaf].concat() }
}

/// What a directory of a stack has under a name (overlayfs.rst: "Merging directories", "whiteouts and opaque directories").
fn step(merged: &[(usize, Rc<OwnedFd>)], name: &[u8]) -> io::Result<Found> {
    let mut below = Merged::new();
    for (number, dir) in merged {
        let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => continue,
            other => other?,
        };
        match file_type(&stat) {
            SFlag::S_IFDIR => {
                let open = openat(dir, name, DIRECTORY, Mode::empty())?;
                let opaque = raw::get_xattr(open.as_fd(), b"trusted.overlay.opaque")?.is_some();
                below.push((*number, Rc::new(open)));
                if opaque {
                    break;
                }
            }
            SFlag::S_IFCHR if stat.st_rdev == 0 => break,
            _ if below.is_empty() => return Ok(Found::Other(*number, Rc::clone(dir), stat)),
            _ => break,
        }
    }
    Ok(if below.is_empty() { Found::Nothing } else { Found::Directory(below) })
}

/// What a seam is to hold.
#[derive(Default)]
struct Plan<'l> {
    /// Directories that are what a lower layer says.
    parents: BTreeSet<&'l [u8]>,
    /// Links, and what they are names of.
    links: BTreeMap<&'l [u8], Source>,
}

/// A file of one layer: the layer's number, and the real path there.
type Source = (usize, Vec<u8>);

impl<'l> Plan<'l> {
    fn is_empty(&self) -> bool {
        self.parents.is_empty() && self.links.is_empty()
    }

    /// Inner errors: a sentence about a link.
    fn of(layers: &Layers, loose: &'l Loose) -> io::Result<std::result::Result<Plan<'l>, String>> {
        let mut plan = Plan::default();
        for Name(path) in &loose.parents {
            if matches!(layers.below(path, false)?.1, Found::Directory(_)) {
                plan.parents.insert(path);
            }
        }
        for (Name(link), Name(target)) in &loose.links {
            let (real, found) = layers.below(target, true)?;
            let why = match (plan.links.get(real.as_slice()).cloned(), found) {
                (Some(of), _) => {
                    plan.links.insert(link, of);
                    continue;
                }
                (None, Found::Other(number, ..)) => {
                    plan.links.insert(link, (number, real));
                    continue;
                }
                (None, Found::Directory(_)) => "is a directory",
                (None, Found::Nothing) => "neither this layer holds nor one below it",
            };
            let (link, target) = (link.escape_ascii(), target.escape_ascii());
            return Ok(Err(format!("entry '{link}': it is a hard link to '{target}', which {why}")));
        }
        Ok(Ok(plan))
    }
}

/// Makes what is planned in the empty directory `dir`; returns how many entries that are.
fn fill(dir: &Path, layers: &Layers, plan: &Plan) -> io::Result<u64> {
    let root = nix::fcntl::open(dir, DIRECTORY, Mode::empty())?;
    let mut made = BTreeSet::from([Vec::new()]);
    for path in &plan.parents {
        make_directories(&root, path, &mut made)?;
    }
    for (link, (number, path)) in &plan.links {
        let (above, leaf) = split(link);
        make_directories(&root, above, &mut made)?;
        let (of, name) = split(path);
        let (_, layer) = layers.0.get(*number).ok_or(io::ErrorKind::NotFound)?;
        let from = raw::open_dir_nofollow(layer.as_fd(), of)?;
        linkat(&from, name, &raw::open_dir_nofollow(root.as_fd(), above)?, leaf, AtFlags::empty())?;
    }
    // Only now: a time would not survive what is made below.
    for path in &made {
        if let Some(like) = like(layers, plan, path)? {
            dress(&raw::open_dir_nofollow(root.as_fd(), path)?, &like)?;
        }
    }
    Ok((made.len() - 1 + plan.links.len()) as u64)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|&b| b == b'/').map_or((&path[..0], path), |at| (&path[..at], &path[at + 1..]))
}

fn make_directories(root: &OwnedFd, path: &[u8], made: &mut BTreeSet<Vec<u8>>) -> io::Result<()> {
    if made.contains(path) {
        return Ok(());
    }
    let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([path.len()]);
    for end in ends {
        if made.insert(path[..end].to_vec()) {
            let (above, leaf) = split(&path[..end]);
            mkdirat(&raw::open_dir_nofollow(root.as_fd(), above)?, leaf, Mode::S_IRWXU)?;
        }
    }
    Ok(())
}

/// The directory that one of a seam's is to be like: it lies over the layer's own, so it is that one's twin where no lower one counts.
fn like(layers: &Layers, plan: &Plan, path: &[u8]) -> io::Result<Option<Rc<OwnedFd>>> {
    let merged = match plan.parents.contains(path) {
        true => match layers.below(path, false)?.1 {
            Found::Directory(merged) => Some(merged),
            _ => None,
        },
        false => layers.directory(path, false)?.map(|(_, merged)| merged),
    };
    Ok(merged.and_then(|merged| merged.into_iter().next()).map(|(_, dir)| dir))
}

fn dress(dir: &OwnedFd, like: &OwnedFd) -> io::Result<()> {
    let stat = fstat(like)?;
    fchown(dir, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(dir, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
    for (name, value) in xattr::all(like.as_fd())? {
        // Those speak of the layer that they are in.
        if !name.starts_with(b"trusted.overlay.") {
            raw::set_xattr(dir.as_fd(), &name, &value)?;
        }
    }
    let time = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    Ok(futimens(dir, &time, &time)?)
}
