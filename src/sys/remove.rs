//! Removing a tree, however deep it is. What a newcomer would get wrong: an archive or a guest can make directories in directories without
//! end, for each is made by its own short name; whoever follows them with one open directory each runs out of descriptors, or
//! out of stack, and the tree stays. So what lies too deep is moved up first. Source: unlinkat(2), renameat2(2).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How many directories are followed into each other; two descriptors are open for each.
const DEEPEST: u32 = 64;

/// Removes what is called `name` in `parent`: a file, a link (not what it leads to), or a directory with all that is in it.
/// Errors: as unlinkat(2), openat(2); it stops at the first.
pub fn remove_at(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    match unlinkat(parent, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
        // Linux says EISDIR; POSIX asks for EPERM.
        Err(Errno::EISDIR | Errno::EPERM) if is_directory(parent, &name)? => {}
        other => return Ok(other?),
    }
    let top = open(parent, &name)?;
    let mut moved = 0;
    loop {
        let before = moved;
        empty(top.as_fd(), top.as_fd(), 0, &mut moved)?;
        // What was moved up lies in the top directory now, and may be deep itself.
        if moved == before {
            break;
        }
    }
    drop(top);
    Ok(unlinkat(parent, name.as_c_str(), UnlinkatFlags::RemoveDir)?)
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

fn is_directory(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let there = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(there.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Removes all that is in `dir`, which lies `depth` directories below `top`.
fn empty(top: BorrowedFd<'_>, dir: BorrowedFd<'_>, depth: u32, moved: &mut u64) -> io::Result<()> {
    let mut names = Dir::from_fd(openat(dir, c".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)?;
    for entry in names.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let directory = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            None => is_directory(dir, name)?,
        };
        if !directory {
            unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)?;
        } else if depth < DEEPEST {
            let inside = open(dir, name)?;
            empty(top, inside.as_fd(), depth + 1, moved)?;
            unlinkat(dir, name, UnlinkatFlags::RemoveDir)?;
        } else {
            move_up(dir, name, top, moved)?;
        }
    }
    Ok(())
}

/// Moves a directory into the top one, under a name that is free there.
fn move_up(dir: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, moved: &mut u64) -> io::Result<()> {
    loop {
        let free = CString::new(format!(".pronto-deep-{moved}"))?;
        *moved += 1;
        match renameat2(dir, name, top, free.as_c_str(), RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// Directories in directories, as deep as asked for, with a file in the last.
    fn deep(root: &File, levels: u32) {
        let mut dir: OwnedFd = root.try_clone().unwrap().into();
        for _ in 0..levels {
            nix::sys::stat::mkdirat(&dir, "a", Mode::S_IRWXU).unwrap();
            dir = open(dir.as_fd(), c"a").unwrap();
        }
        openat(&dir, "file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRUSR).unwrap();
    }

    #[test]
    fn deeper_than_descriptors_and_stack() {
        let place = tempfile::tempdir().unwrap();
        let root = File::open(place.path()).unwrap();
        std::fs::create_dir(place.path().join("tree")).unwrap();
        let tree = File::open(place.path().join("tree")).unwrap();
        // A name that is taken already by whoever made the tree.
        std::fs::create_dir(place.path().join("tree/.pronto-deep-0")).unwrap();
        deep(&tree, 30_000);
        // In a thread of 256 KiB of stack; directories are never held open by the thousand.
        let small = std::thread::Builder::new().stack_size(256 << 10);
        small.spawn(move || remove_at(root.as_fd(), b"tree").unwrap()).unwrap().join().unwrap();
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(place.path().join("kept")).unwrap();
        std::fs::create_dir_all(place.path().join("tree/d")).unwrap();
        File::create(place.path().join("kept/file")).unwrap();
        std::os::unix::fs::symlink("../kept", place.path().join("tree/link")).unwrap();
        std::os::unix::fs::symlink("kept", place.path().join("link")).unwrap();
        let root = File::open(place.path()).unwrap();
        remove_at(root.as_fd(), b"tree").unwrap();
        remove_at(root.as_fd(), b"link").unwrap();
        let gone = remove_at(root.as_fd(), b"none").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        assert!(place.path().join("kept/file").exists() && std::fs::read_dir(place.path()).unwrap().count() == 1);
    }
}
