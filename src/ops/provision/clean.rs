//! What is taken out of a system that was just made: what must not be the same in two systems, what tells of the machine it
//! was made on, and what only weighs. What a newcomer would get wrong: a layer's tree is not a system. A character device
//! 0:0 in it hides a file of the layers below (a whiteout), and taking something out of the layer shows again what the image
//! has there. Everything is looked up inside the tree; its links are a stranger's.
//! Sources: machine-id(5), random-seed(8), kernel overlayfs.rst ("whiteouts and opaque directories").

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;

use super::recipe::{self, Recipe};
use crate::sys::fs;
use crate::sys::root::{Root, file_type};

/// Cleans a whole system that mmdebstrap has made.
pub fn system(directory: &Path) -> io::Result<()> {
    let root = Root::open(directory)?;
    personal(&root)?;
    // Our options for dpkg.
    wipe(&root, "etc/dpkg/dpkg.cfg.d", &|name| name == b"99mmdebstrap")?;
    wipe(&root, "var/cache/apt", &|name| name.ends_with(b".bin"))?;
    wipe(&root, "etc", &|name| name == b"resolv.conf" || name == b"hostname")
}

/// Cleans what a recipe left in an image's new layer.
pub fn layer(directory: &Path, recipe: &Recipe) -> io::Result<()> {
    let root = Root::open(directory)?;
    personal(&root)?;
    // Ours, and what the jail wrote: the image's own files show again.
    wipe(&root, ".", &|name| name == recipe::WORKSHOP.as_bytes())?;
    for file in &recipe.files {
        take_back(&root, file)?;
    }
    wipe(&root, "etc", &|name| [b"resolv.conf".as_slice(), b"hosts", b"hostname"].contains(&name))?;
    for dir in ["dev", "proc", "run", "sys", "tmp", "var/tmp"] {
        wipe(&root, dir, &|_| true)?;
    }
    for (dir, kept) in CACHES {
        wipe(&root, dir, &|name| name != kept.as_bytes())?;
    }
    if root.is_dir("var/log") {
        let logs = root.open_at(Path::new("var/log"), OFlag::O_DIRECTORY | OFlag::O_RDONLY)?;
        remove_files(&Root::from_fd(logs, Path::new("var/log")).proc_path(), &|_| true)?;
    }
    remove_files(&root.proc_path(), &|meta| {
        let kind = meta.file_type();
        kind.is_socket() || kind.is_block_device() || (kind.is_char_device() && meta.rdev() != 0)
    })
}

/// Where packages and lists that were fetched lie, and a directory in there that its owner wants to find again.
const CACHES: [(&str, &str); 10] = [
    ("var/cache/apt", "archives"),
    ("var/cache/apt/archives", "partial"),
    ("var/cache/apt/archives/partial", ""),
    ("var/cache/dnf", ""),
    ("var/cache/ldconfig", ""),
    ("var/cache/libdnf5", ""),
    ("var/cache/pacman/pkg", ""),
    ("var/cache/yum", ""),
    ("var/cache/zypp", ""),
    ("var/lib/pacman/sync", ""),
];

/// Identities, seeds, keys and package lists.
fn personal(root: &Root) -> io::Result<()> {
    wipe(root, "var/lib/apt/lists", &|name| name != b"partial")?;
    wipe(root, "var/lib/apt/lists/partial", &|_| true)?;
    wipe(root, "etc/ssh", &|name| name.starts_with(b"ssh_host_"))?;
    wipe(root, "var/lib/systemd", &|name| name == b"random-seed" || name == b"credential.secret")?;
    wipe(root, "var/lib/dbus", &|name| name == b"machine-id")?;
    empty_machine_id(root)
}

/// Empty, not gone: without the file systemd takes the first boot for an installation and enables units by its presets
/// (machine-id(5), "First Boot Semantics").
fn empty_machine_id(root: &Root) -> io::Result<()> {
    let path = Path::new("etc/machine-id");
    let stat = match root.open_at(path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
        other => nix::sys::stat::fstat(&other?)?,
    };
    if file_type(&stat) == SFlag::S_IFREG {
        return root.open_at(path, OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NOFOLLOW).map(|_| ());
    }
    wipe(root, "etc", &|name| name == b"machine-id")
}

/// Removes what is in a directory of the tree and unwanted by its name. No such directory: nothing to do.
fn wipe(root: &Root, dir: &str, unwanted: &dyn Fn(&[u8]) -> bool) -> io::Result<()> {
    if !root.is_dir(dir) {
        return Ok(());
    }
    let parent = root.open_at(Path::new(dir), OFlag::O_DIRECTORY | OFlag::O_RDONLY)?;
    let inside = Root::from_fd(parent, Path::new(dir));
    for name in root.read_dir(dir)?.into_iter().filter(|n| unwanted(n.as_bytes())) {
        fs::remove_tree(&inside.proc_path().join(name))?;
    }
    Ok(())
}

/// Removes a file of ours from the layer, unless a package has brought its own in its place. `usr/sbin` may be a link in the
/// image to where the file really is, and the layer does not have that link.
fn take_back(root: &Root, file: &recipe::File) -> io::Result<()> {
    let name = Path::new(&file.path).file_name().unwrap_or_default();
    for dir in [Path::new(&file.path).parent().and_then(Path::to_str).unwrap_or("."), "usr/bin", "sbin", "bin"] {
        let there = Path::new(dir).join(name);
        if root.read(&there, 1 << 16).is_ok_and(|held| held == file.text.as_bytes()) {
            wipe(root, dir, &|found| found == name.as_bytes())?;
        }
    }
    Ok(())
}

/// Removes what is unwanted below a directory, directories excepted.
fn remove_files(directory: &Path, unwanted: &dyn Fn(&std::fs::Metadata) -> bool) -> io::Result<()> {
    walk(directory, &mut |path, meta| {
        if !meta.is_dir() && unwanted(meta) { std::fs::remove_file(path) } else { Ok(()) }
    })
}

/// Calls `each` with everything below a directory. Links are not followed.
fn walk(directory: &Path, each: &mut dyn FnMut(&Path, &std::fs::Metadata) -> io::Result<()>) -> io::Result<()> {
    let mut pending: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                pending.push(entry.path());
            }
            each(&entry.path(), &meta)?;
        }
    }
    Ok(())
}

/// Bytes and number of all files; hard links count once.
pub fn measure(directory: &Path) -> io::Result<(u64, u64)> {
    let (mut size, mut entries) = (0, 0);
    let mut seen = BTreeSet::new();
    walk(directory, &mut |_, meta| {
        entries += 1;
        if meta.is_file() && (meta.nlink() == 1 || seen.insert((meta.dev(), meta.ino()))) {
            size += meta.size();
        }
        Ok(())
    })?;
    Ok((size, entries))
}

#[cfg(test)]
#[path = "clean_tests.rs"]
mod tests;
