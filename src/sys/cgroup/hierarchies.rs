//! Where the hierarchies are mounted, and who is where in them. What a newcomer would get wrong: on a hybrid host one process
//! is in a cgroup of every hierarchy, and moving it in one moves it in no other.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::files::{words, write};

/// Where the hierarchies are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// The v2 tree.
    pub v2: Option<PathBuf>,
    /// v1 mount points by controller (`memory`, `cpu`, `name=systemd`).
    pub v1: BTreeMap<String, PathBuf>,
}

impl Hierarchies {
    /// Reads the text of `/proc/self/mountinfo` (proc(5)).
    pub fn parse(mountinfo: &str) -> Hierarchies {
        let mut found = Hierarchies::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") => found.v2 = Some(PathBuf::from(point)),
                Some("cgroup") => {
                    for option in right.nth(1).unwrap_or_default().split(',') {
                        found.v1.insert(option.to_owned(), PathBuf::from(point));
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// This host's.
    pub fn here() -> Hierarchies {
        Hierarchies::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Whether the v2 tree has this controller.
    pub fn v2_has(&self, controller: &str) -> bool {
        self.v2.as_ref().is_some_and(|v2| words(&v2.join("cgroup.controllers")).iter().any(|w| w == controller))
    }

    /// Whether a limit by this controller can be enforced here.
    pub fn can_limit(&self, controller: &str) -> bool {
        self.v2_has(controller) || self.v1.contains_key(controller)
    }
}

/// The v2 cgroup of this process as a directory, out of `/proc/self/cgroup`.
pub fn own_v2(here: &Hierarchies) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::/"))?;
    Some(here.v2.as_ref()?.join(path))
}

/// Moves process `pid` into the cgroups that `like` is in. Errors: as writing cgroup.procs; v1 hierarchies are joined where
/// they can be, but for `devices` where there is no v2 tree, which must be.
pub fn join_like(here: &Hierarchies, pid: u32, like: i32) -> io::Result<()> {
    let text = fs::read_to_string(format!("/proc/{like}/cgroup"))?;
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            if let Some(v2) = &here.v2 {
                fs::OpenOptions::new()
                    .write(true)
                    .open(v2.join(path).join("cgroup.procs"))
                    .and_then(|mut f| io::Write::write_all(&mut f, pid.to_string().as_bytes()))?;
            }
        } else if let Some(mount) = controllers.split(',').find_map(|c| here.v1.get(c)) {
            let joined = write(&mount.join(path).join("cgroup.procs"), &pid.to_string());
            // Without a v2 tree this one is the fence around the host's devices.
            if here.v2.is_none() && controllers.split(',').any(|c| c == "devices") {
                joined.map_err(|e| io::Error::other(e.to_string()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const HYBRID: &str = "\
24 23 0:21 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw,mode=755
25 24 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
26 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
27 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
28 24 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn hierarchies_of_a_hybrid_host() {
        let found = Hierarchies::parse(HYBRID);
        assert_eq!(found.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(found.v1["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(found.v1["name=systemd"], Path::new("/sys/fs/cgroup/systemd"));
        let pure = Hierarchies::parse("30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(pure.v2.as_deref(), Some(Path::new("/sys/fs/cgroup")));
        assert!(pure.v1.is_empty());
    }
}
