//! The room that QEMU runs in: of the host's files only programs, libraries and the guest's kernel, read-only; no capability; no file of the host's by its
//! path. What a newcomer would get wrong: QEMU is root without any right here, and root's own files are open to that all the same; so what is not
//! in the room is what counts. Disks are not in it either: they are opened by us and handed over.
//! Sources: mount_namespaces(7), pivot_root(2), capabilities(7).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sys::caps::{self, Mask};
use crate::sys::mount;

/// Where programs and libraries are, whether /usr is merged or not.
const PROGRAMS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// What else a program of the host's needs: the loader's list, and the resolver that the guest's network asks.
const FILES: [&str; 2] = ["/etc/ld.so.cache", "/etc/resolv.conf"];
/// Devices that everybody may use.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// Something in the room.
#[derive(Debug)]
enum Thing {
    /// What is at this path on the host.
    Tree(OwnedFd, PathBuf, bool),
    /// A link.
    Link(PathBuf, PathBuf),
}

/// A room in the making: all of it is opened, nothing is mounted.
#[derive(Debug)]
pub struct Room {
    root: OwnedFd,
    things: Vec<Thing>,
}

impl Room {
    /// What every program needs. Errors: as open_tree(2).
    pub fn new() -> io::Result<Room> {
        let mut room = Room { root: mount::detached(c"tmpfs")?, things: Vec::new() };
        for path in PROGRAMS.iter().map(Path::new) {
            match std::fs::symlink_metadata(path) {
                Ok(meta) if meta.is_symlink() => {
                    room.things.push(Thing::Link(path.to_owned(), std::fs::read_link(path)?));
                }
                Ok(_) => room.show(path, true)?,
                Err(_) => {}
            }
        }
        for path in FILES.iter().chain(&DEVICES).map(Path::new).filter(|path| path.exists()) {
            room.show(path, FILES.contains(&path.to_str().unwrap_or_default()))?;
        }
        Ok(room)
    }

    /// Shows what is at a path, under the same path; what a link leads to stands in its place. A path that is shown already is no error.
    pub fn show(&mut self, path: &Path, read_only: bool) -> io::Result<()> {
        let real = std::fs::canonicalize(path)?;
        let inside = |thing: &Thing| matches!(thing, Thing::Tree(_, shown, true) if real.starts_with(shown));
        if self.things.iter().any(inside) {
            return Ok(());
        }
        let is_dir = std::fs::metadata(&real)?.is_dir();
        let tree = mount::clone_tree(&real, is_dir)?;
        if read_only {
            mount::set_read_only(tree.as_fd(), is_dir)?;
        }
        self.things.push(Thing::Tree(tree, path.to_owned(), is_dir));
        Ok(())
    }

    /// Goes in, for good, in a mount namespace of this process's own, and leaves every right outside. Errors: as mount(2), capset(2).
    pub fn enter(self) -> io::Result<()> {
        mount::make_slave()?;
        mount::enter(self.root.as_fd())?;
        for thing in &self.things {
            match thing {
                Thing::Link(path, to) => std::os::unix::fs::symlink(to, path)?,
                Thing::Tree(tree, path, is_dir) => {
                    let above = if *is_dir { path.as_path() } else { path.parent().unwrap_or(path) };
                    std::fs::create_dir_all(above)?;
                    if !is_dir {
                        drop(std::fs::File::create(path)?);
                    }
                    mount::attach(tree.as_fd(), path)?;
                }
            }
        }
        mount::set_read_only(self.root.as_fd(), false)?;
        caps::drop_to(Mask(0))?;
        nix::sys::prctl::set_no_new_privs()?;
        Ok(())
    }
}
