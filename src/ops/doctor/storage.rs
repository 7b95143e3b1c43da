//! Where the store lies: whether overlayfs works there, and how much room is left. What a newcomer would get wrong: overlayfs
//! cannot write onto another overlay, so a pronto inside a container needs a volume; the only proof is a mount, which needs
//! root, is done in a mount namespace of its own and leaves nothing.

use std::path::{Path, PathBuf};

use super::kernel::filesystems;
use super::{Finding, Level};
use crate::domain::size;
use crate::store::Store;
use crate::sys;
use crate::sys::process::Tool;

const AREA: &str = "store";
const ELSEWHERE: &str = "put the store on ext4, xfs, btrfs or tmpfs: --root DIR or PRONTO_ROOT; in a container, mount a volume at /var/lib/pronto";
const GIB: u64 = 1 << 30;
const FEW: u64 = 4 * GIB;

pub(super) fn findings(store: &Store) -> Vec<Finding> {
    let place = existing(store.root());
    let mut all = vec![overlay(&place), room(&place, sys::fs::free_bytes(&place))];
    all.extend(loops(Path::new("/dev/loop-control")));
    all
}

/// Only disk images need them, so that they are there is not worth a line.
fn loops(control: &Path) -> Option<Finding> {
    (!control.exists()).then(|| {
        Finding::new(AREA, Level::Warn, "this host has no loop devices: disk images cannot be used")
            .cure("modprobe loop; in a container, give it /dev/loop-control and the /dev/loop* of the host")
    })
}

/// The store may not be there yet; then the directory it will be made in counts.
fn existing(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|p| p.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

fn overlay(place: &Path) -> Finding {
    let shown = place.display();
    let kind = nix::sys::statfs::statfs(place).map(|s| s.filesystem_type().0);
    let on_overlay = kind.is_ok_and(|k| k == OVERLAYFS_SUPER_MAGIC);
    if on_overlay && !nix::unistd::geteuid().is_root() {
        return Finding::new(
            AREA,
            Level::Bad,
            format!("{shown} lies on an overlay itself: no guest's layers can be stacked there"),
        )
        .cure(ELSEWHERE);
    }
    if !nix::unistd::geteuid().is_root() {
        let known = if filesystems().contains(&"overlay".to_owned()) {
            "overlayfs is there"
        } else {
            "overlayfs is not loaded yet"
        };
        return Finding::new(
            AREA,
            Level::Unknown,
            format!("{known}; whether it works at {shown} can only be tried by root"),
        )
        .cure("run doctor as root");
    }
    match try_overlay(place) {
        Ok(()) => Finding::new(AREA, Level::Ok, format!("overlayfs works at {shown}")),
        Err(why) if on_overlay => Finding::new(
            AREA,
            Level::Bad,
            format!("{shown} lies on an overlay itself, and layers cannot be stacked there: {why}"),
        )
        .cure(ELSEWHERE),
        Err(why) => {
            Finding::new(AREA, Level::Bad, format!("overlayfs does not work at {shown}: {why}")).cure(ELSEWHERE)
        }
    }
}

/// Source: linux/magic.h.
const OVERLAYFS_SUPER_MAGIC: libc::__fsword_t = 0x794c_7630;

/// Mounts a small overlay and writes through it. The words are relative, since `:` and `,` in a path would end an option.
fn try_overlay(place: &Path) -> Result<(), String> {
    let dir = place.join(format!(".pronto-doctor-{}", std::process::id()));
    let made = ["lower", "upper", "work", "merged"].iter().try_for_each(|name| sys::fs::private_dir(&dir.join(name)));
    let tried = made.map_err(|e| e.to_string()).and_then(|()| {
        let script =
            "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && mkdir merged/proof";
        let mut tool = Tool::new("unshare").args(["--mount", "--", "sh", "-c", script]);
        tool.command().current_dir(&dir);
        tool.output().map_err(|e| e.to_string())?;
        if dir.join("upper/proof").is_dir() { Ok(()) } else { Err("what was written did not arrive".to_owned()) }
    });
    let removed = sys::fs::remove_tree(&dir).map_err(|e| e.to_string());
    tried.and(removed)
}

fn room(place: &Path, free: std::io::Result<u64>) -> Finding {
    let shown = place.display();
    match free {
        Err(e) => Finding::new(AREA, Level::Unknown, format!("cannot ask how much room is left at {shown}: {e}"))
            .cure(ELSEWHERE),
        Ok(free) => {
            let what = format!("{} free at {shown}", size::human(free));
            match free {
                0..GIB => Finding::new(AREA, Level::Bad, format!("{what}: not enough for an image"))
                    .cure("remove images with pronto rmi, or put the store elsewhere with --root"),
                GIB..FEW => Finding::new(AREA, Level::Warn, format!("{what}: enough for a few images"))
                    .cure("remove images with pronto rmi, or put the store elsewhere with --root"),
                _ => Finding::new(AREA, Level::Ok, what),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_devices() {
        assert_eq!(loops(Path::new("/dev/null")), None);
        assert!(loops(Path::new("/nonexistent")).is_some_and(|found| found.level == Level::Warn));
    }

    #[test]
    fn room_that_is_left() {
        let level = |free| room(Path::new("/x"), Ok(free)).level;
        assert_eq!((level(0), level(GIB), level(100 * GIB)), (Level::Bad, Level::Warn, Level::Ok));
        assert_eq!(room(Path::new("/x"), Err(std::io::Error::other("no"))).level, Level::Unknown);
    }

    #[test]
    fn a_store_that_is_not_made_yet() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b/c")), dir.path());
    }

    #[test]
    fn the_try_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a: b,c");
        sys::fs::private_dir(&odd).unwrap();
        let finding = overlay(&odd);
        assert!(matches!(finding.level, Level::Ok | Level::Bad | Level::Unknown), "{finding:?}");
        assert_eq!(std::fs::read_dir(&odd).unwrap().count(), 0);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(".pronto-doctor-"));
    }
}
