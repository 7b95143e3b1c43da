//! The kernel and its binfmt_misc. What a newcomer would get wrong: a binfmt_misc that is not mounted is no fault, since create
//! mounts it; one that the kernel does not have is.

use std::path::Path;

use super::{Finding, Level};
use crate::binfmt::Registry;
use crate::sys::host;

pub(super) fn findings() -> Vec<Finding> {
    let systemd = if host::systemd_is_init() { ", systemd is PID 1" } else { ", systemd is not PID 1" };
    let mut all = vec![version(&host::kernel_release(), host::kernel_version(), systemd)];
    all.extend(namespaces());
    all.push(binfmt(&Registry::system(), filesystems().contains(&"binfmt_misc".to_owned())));
    all
}

/// File systems that the kernel knows now; a module that is not loaded yet is not among them.
pub(super) fn filesystems() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

fn version(release: &str, version: (u32, u32, u32), more: &str) -> Finding {
    let what = format!("Linux {} on {}{more}", release.escape_debug(), host::machine());
    match version {
        (5, 6..=13, _) => {
            Finding::new("kernel", Level::Warn, format!("{what}: no cgroup.kill (5.14), no idmapped mounts (5.12)"))
                .cure("use Linux 5.14 or newer; 6.1 and newer are tested")
        }
        old if old < (5, 6, 0) => {
            Finding::new("kernel", Level::Bad, format!("{what}: no openat2(2), which keeps images inside"))
                .cure("use Linux 5.14 or newer; 6.1 and newer are tested")
        }
        _ => Finding::new("kernel", Level::Ok, what),
    }
}

fn namespaces() -> Option<Finding> {
    let needed = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
    let missing: Vec<&str> = needed.into_iter().filter(|ns| !Path::new("/proc/self/ns").join(ns).exists()).collect();
    let what = format!("the kernel has no namespaces of these kinds: {}", missing.join(", "));
    (!missing.is_empty())
        .then(|| Finding::new("kernel", Level::Bad, what).cure("use a kernel built with CONFIG_NAMESPACES"))
}

fn binfmt(registry: &Registry, known: bool) -> Finding {
    let finding = |level, what: &str| Finding::new("binfmt", level, what);
    let dir = registry.dir();
    match (registry.is_mounted(), registry.is_enabled()) {
        (true, true) => finding(Level::Ok, &format!("binfmt_misc is mounted at {}", dir.display())),
        (true, false) => finding(Level::Bad, "binfmt_misc is disabled as a whole: no foreign program runs")
            .cure(format!("echo 1 > {}/status", dir.display())),
        (false, _) if known || dir.is_dir() => {
            finding(Level::Ok, "binfmt_misc is not mounted: create and binfmt register mount it")
        }
        (false, _) => finding(Level::Bad, "the kernel has no binfmt_misc: foreign programs cannot run")
            .cure("modprobe binfmt_misc, or a kernel built with CONFIG_BINFMT_MISC"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels() {
        for (version, level) in [
            ((4, 19, 0), Level::Bad),
            ((5, 5, 9), Level::Bad),
            ((5, 10, 1), Level::Warn),
            ((5, 14, 0), Level::Ok),
            ((6, 1, 0), Level::Ok),
        ] {
            assert_eq!(super::version("x", version, "").level, level, "{version:?}");
        }
    }

    #[test]
    fn a_registry_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(binfmt(&Registry::at(dir.path()), false).level, Level::Ok);
        assert_eq!(binfmt(&Registry::at(&dir.path().join("missing")), false).level, Level::Bad);
    }
}
