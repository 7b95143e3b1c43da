//! What makes a guest this one and no other: hostname, machine-id, hosts and resolv.conf, written into the domain's own
//! layer before its first start (resolv.conf at every start), and the places of what is shared with it. What a newcomer would get
//! wrong: these paths may be links in the image; they are resolved inside the guest's tree, never on the host.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::sys::root::Root;

/// Gives the tree its own identity. Errors: as openat(2), write(2), with the path.
pub fn first_start(root: &Root, hostname: &str, machine_id: &str) -> io::Result<()> {
    if !root.is_dir("etc") {
        return Ok(());
    }
    replace(root, "etc/hostname", format!("{hostname}\n").as_bytes())?;
    replace(root, "etc/machine-id", format!("{machine_id}\n").as_bytes())?;
    let hosts = root.read_text("etc/hosts").unwrap_or_default();
    replace(root, "etc/hosts", hosts_with(&hosts, hostname).as_bytes())
}

/// Gives the guest the host's resolver, as the network is the host's. A host without one changes nothing.
pub fn resolver(root: &Root) -> io::Result<()> {
    match std::fs::read("/etc/resolv.conf") {
        Ok(text) if root.is_dir("etc") => replace(root, "etc/resolv.conf", &text),
        _ => Ok(()),
    }
}

/// Makes a place in the guest's tree for what is to be mounted or written there: a directory or an empty file, unless it is there. nspawn would
/// make it as the host's root, whom a guest with ids of its own does not know (EOVERFLOW). Errors: as mkdirat(2), openat(2), with
/// the path.
pub fn mount_point(root: &Root, target: &Path, is_dir: bool) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{} in the guest: {e}", target.display()));
    let mut missing: Vec<&Path> = target.ancestors().take_while(|path| !root.exists(path)).collect();
    while let Some(path) = missing.pop() {
        let Some(name) = path.file_name() else { continue };
        let parent = path.parent().unwrap_or(Path::new("/"));
        let dir = root.open_at(parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(named)?;
        let made = if is_dir || !missing.is_empty() {
            nix::sys::stat::mkdirat(&dir, name, Mode::from_bits_truncate(0o755))
        } else {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            nix::fcntl::openat(&dir, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
        };
        made.map_err(|e| named(e.into()))?;
    }
    Ok(())
}

/// `hosts` with a line for the guest's own name, which sudo and others look up (hosts(5); 127.0.1.1 as Debian does).
fn hosts_with(hosts: &str, hostname: &str) -> String {
    let known = hosts.lines().any(|l| {
        let mut words = l.split('#').next().unwrap_or_default().split_whitespace();
        words.next().is_some() && words.any(|w| w == hostname)
    });
    let mut text = if hosts.trim().is_empty() {
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned()
    } else {
        hosts.to_owned()
    };
    if !known {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text += &format!("127.0.1.1\t{hostname}\n");
    }
    text
}

/// Writes a file into the guest's tree, and the directories that it lies in where they are missing. Errors: as [`mount_point`].
pub fn write(root: &Root, path: &str, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = Path::new(path).parent() {
        mount_point(root, parent, true)?;
    }
    replace(root, path, content)
}

/// Replaces a file in the guest: what stood there, a link too, is removed, so that nothing outside `etc` is written.
fn replace(root: &Root, path: &str, content: &[u8]) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{path} in the guest: {e}"));
    let path_ = Path::new(path);
    let (parent, name) = (path_.parent().unwrap_or(Path::new("/")), path_.file_name().unwrap_or_default());
    let dir = root.open_at(parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(named)?;
    match nix::unistd::unlinkat(dir.as_fd(), name, nix::unistd::UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::errno::Errno::ENOENT) => {}
        Err(e) => return Err(named(e.into())),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd =
        nix::fcntl::openat(dir.as_fd(), name, flags, Mode::from_bits_truncate(0o644)).map_err(|e| named(e.into()))?;
    nix::sys::stat::fchmod(&fd, Mode::from_bits_truncate(0o644)).map_err(|e| named(e.into()))?;
    File::from(fd).write_all(content).map_err(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_gets_its_own_identity_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        crate::sys::fs::write_volatile(&outside, b"host's", 0o644).unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("etc")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("etc/hostname")).unwrap();
        let root = Root::open(&tree).unwrap();
        first_start(&root, "web", "0123").unwrap();
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "host's");
        assert_eq!(std::fs::read_to_string(tree.join("etc/hostname")).unwrap(), "web\n");
        assert_eq!(std::fs::read_to_string(tree.join("etc/machine-id")).unwrap(), "0123\n");
        assert!(std::fs::read_to_string(tree.join("etc/hosts")).unwrap().ends_with("127.0.1.1\tweb\n"));
    }

    #[test]
    fn places_are_made_inside_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("srv")).unwrap();
        std::os::unix::fs::symlink("/srv", tree.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("nothing"), tree.join("dangling")).unwrap();
        crate::sys::fs::write_volatile(&tree.join("srv/file"), b"kept", 0o644).unwrap();
        let root = Root::open(&tree).unwrap();
        for (target, is_dir) in [("/link/a/b", true), ("/link/c/d", false), ("/srv/file", false), ("/", true)] {
            mount_point(&root, Path::new(target), is_dir).unwrap();
        }
        assert!(tree.join("srv/a/b").is_dir() && tree.join("srv/c/d").is_file());
        assert_eq!(std::fs::read_to_string(tree.join("srv/file")).unwrap(), "kept");
        let refused = mount_point(&root, Path::new("/dangling/x"), true).unwrap_err();
        assert!(refused.to_string().contains("/dangling/x in the guest"), "{refused}");
        assert!(!dir.path().join("nothing").exists());
    }

    #[test]
    fn hosts_keep_what_they_had() {
        assert_eq!(hosts_with("10.0.0.1 web\n", "web"), "10.0.0.1 web\n");
        assert_eq!(hosts_with("127.0.0.1 localhost", "web"), "127.0.0.1 localhost\n127.0.1.1\tweb\n");
        assert!(hosts_with("# web\n", "web").ends_with("127.0.1.1\tweb\n"));
    }
}
