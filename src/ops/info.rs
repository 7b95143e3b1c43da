//! `info`: the host, in xl's `name : value` lines. What a newcomer would get wrong: xl's lines about the hypervisor (xen_*,
//! hw_caps, virt_caps, free_cpus …) are left out and not made up: there is no hypervisor here. Our own lines begin with
//! `pronto_`.

use std::collections::BTreeSet;
use std::path::Path;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use super::list::count_cpus;
use super::{Ctx, Error, Result, isolation, registry};
use crate::binfmt::{self, Host};
use crate::sys::cgroup::Hierarchies;
use crate::sys::process::{Tool, find_program};

/// What a user of a shared host must know (docs/security.md).
const CPUS: &str = "/sys/devices/system/cpu";

type Line = (String, String);

fn line(name: &str, value: &(impl ToString + ?Sized)) -> Line {
    (name.to_owned(), value.to_string())
}

/// Names and values in the order to print them. Memory is in MiB and the clock in MHz, as in xl; free_memory is what could be
/// given out without swapping (proc(5), MemAvailable).
pub fn info(ctx: &Ctx) -> Result<Vec<Line>> {
    super::need_root("info")?;
    super::sweep::sweep(ctx)?;
    let mut lines = machine()?;
    lines.extend(ours(ctx)?);
    lines.extend(architectures(ctx)?);
    lines.extend(isolation::describe(ctx).into_iter().map(|(name, text)| line(name, &text)));
    Ok(lines)
}

/// xl's lines, as far as they mean something here.
fn machine() -> Result<Vec<Line>> {
    let uname =
        nix::sys::utsname::uname().map_err(|e| Error::general("the kernel does not say who it is").because(e))?;
    let what = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing().with_frequency())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(what);
    let online = std::fs::read_to_string(format!("{CPUS}/online")).unwrap_or_default();
    let nodes = std::fs::read_to_string("/sys/devices/system/node/online").unwrap_or_default();
    let (cores, threads) = shape(&topology(Path::new(CPUS)));
    let mut lines = vec![
        line("host", &uname.nodename().to_string_lossy()),
        line("release", &uname.release().to_string_lossy()),
        line("version", &uname.version().to_string_lossy()),
        line("machine", &uname.machine().to_string_lossy()),
        line("nr_cpus", &count_cpus(online.trim()).unwrap_or_else(|| u32::try_from(system.cpus().len()).unwrap_or(1))),
        line("nr_nodes", &count_cpus(nodes.trim()).unwrap_or(1)),
        line("cores_per_socket", &cores),
        line("threads_per_core", &threads),
    ];
    // Some ARM machines do not say it.
    if let Some(mhz) = system.cpus().first().map(sysinfo::Cpu::frequency).filter(|&mhz| mhz > 0) {
        lines.push(line("cpu_mhz", &mhz));
    }
    lines.push(line("total_memory", &(system.total_memory() >> 20)));
    lines.push(line("free_memory", &(system.available_memory() >> 20)));
    Ok(lines)
}

/// Package and core of each CPU. Source: kernel, Documentation/admin-guide/cputopology.rst.
fn topology(cpus: &Path) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(cpus) else { return Vec::new() };
    let of = |cpu: &Path| {
        let read =
            |name: &str| std::fs::read_to_string(cpu.join("topology").join(name)).ok().map(|t| t.trim().to_owned());
        Some((read("physical_package_id")?, read("core_id")?))
    };
    entries.flatten().filter_map(|entry| of(&entry.path())).collect()
}

/// Cores per socket and threads per core, 1 and 1 where the kernel does not say.
fn shape(cpus: &[(String, String)]) -> (usize, usize) {
    let sockets: BTreeSet<_> = cpus.iter().map(|(socket, _)| socket).collect();
    let cores: BTreeSet<_> = cpus.iter().collect();
    let per = |many: usize, few: usize| many.checked_div(few).unwrap_or(1).max(1);
    (per(cores.len(), sockets.len()), per(cpus.len(), cores.len()))
}

fn ours(ctx: &Ctx) -> Result<Vec<Line>> {
    let groups = Hierarchies::here();
    let domains = ctx.store.all_domains(|_| ())?;
    let running = domains.iter().filter(|d| d.state.is_active()).count();
    Ok(vec![
        line("pronto_version", env!("CARGO_PKG_VERSION")),
        line("pronto_store", &ctx.store.root().display()),
        line("pronto_domains", &format!("{} ({running} running)", domains.len())),
        line("pronto_backends", "nspawn (create), direct (run)"),
        line("pronto_nspawn", &nspawn()),
        line("pronto_cgroups", &layout(&groups)),
        line("pronto_limits", &limits(|controller| groups.can_limit(controller))),
    ])
}

/// The first line of `systemd-nspawn --version`: `systemd 252 (252.39-1~deb12u1)`.
fn nspawn() -> String {
    let Some(program) = find_program("systemd-nspawn") else { return "not installed".into() };
    match Tool::new(program).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned(),
        Err(error) => error.to_string(),
    }
}

fn layout(groups: &Hierarchies) -> String {
    match (&groups.v2, groups.v1.is_empty()) {
        (Some(v2), true) => format!("v2 ({})", v2.display()),
        (Some(v2), false) => format!("hybrid (v1, and v2 at {})", v2.display()),
        (None, false) => "v1".into(),
        (None, true) => "none".into(),
    }
}

/// The keys of `create` that can be enforced on this host.
fn limits(can: impl Fn(&str) -> bool) -> String {
    let keys = [("memory", "memory"), ("vcpus", "cpu"), ("cpus", "cpuset")];
    let can: Vec<&str> = keys.iter().filter(|(_, controller)| can(controller)).map(|(key, _)| *key).collect();
    if can.is_empty() { "none can be enforced".into() } else { can.join(" ") }
}

/// What runs each architecture's programs, and what of it we registered.
fn architectures(ctx: &Ctx) -> Result<Vec<Line>> {
    let profiles = registry::profiles()?;
    let cache = Host::system(ctx.store.run()).cache;
    let (mut native, mut found) = (Vec::new(), Vec::new());
    for profile in profiles.iter() {
        if binfmt::runs_itself(profile).unwrap_or(false) {
            native.push(profile.name.as_str());
        } else if let Ok(best) = binfmt::best(profile, &profiles, cache.as_deref()) {
            let (major, minor, patch) = best.version;
            let value = format!("{} {major}.{minor}.{patch}", best.path.display());
            found.push(line(&format!("pronto_qemu_{}", profile.name), &value));
        }
    }
    let mut registered = BTreeSet::new();
    for row in registry::status(ctx, &[])?.into_iter().filter(|row| row.ours) {
        if let Some(entry) = row.entry {
            registered.insert(format!("{entry} ({})", if row.durable { "for good" } else { "this boot" }));
        }
    }
    let registered = if registered.is_empty() {
        "nothing of ours".to_owned()
    } else {
        registered.into_iter().collect::<Vec<_>>().join(", ")
    };
    let mut lines = vec![line("pronto_native", &native.join(" "))];
    lines.extend(found);
    lines.push(line("pronto_binfmt", &registered));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_and_threads() {
        let cpus = |ids: &[(u32, u32)]| ids.iter().map(|(s, c)| (s.to_string(), c.to_string())).collect::<Vec<_>>();
        assert_eq!(shape(&cpus(&[(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1), (1, 0), (1, 1)])), (2, 2));
        assert_eq!(shape(&cpus(&[(0, 0), (0, 1)])), (2, 1));
        assert_eq!(shape(&[]), (1, 1), "a kernel that says nothing");
    }

    #[test]
    fn topology_is_read_as_the_kernel_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        for (cpu, core) in [("cpu0", "0\n"), ("cpu1", "4\n")] {
            let of = dir.path().join(cpu).join("topology");
            std::fs::create_dir_all(&of).unwrap();
            crate::sys::fs::write_volatile(&of.join("physical_package_id"), b"0\n", 0o644).unwrap();
            crate::sys::fs::write_volatile(&of.join("core_id"), core.as_bytes(), 0o644).unwrap();
        }
        std::fs::create_dir(dir.path().join("cpufreq")).unwrap();
        assert_eq!(shape(&topology(dir.path())), (2, 1));
    }

    #[test]
    fn cgroup_layouts() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let hybrid = "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let v1 = "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        for (text, want) in [
            (v2, "v2 (/sys/fs/cgroup)"),
            (hybrid, "hybrid (v1, and v2 at /sys/fs/cgroup/unified)"),
            (v1, "v1"),
            ("", "none"),
        ] {
            assert_eq!(layout(&Hierarchies::parse(text)), want);
        }
        assert_eq!(limits(|c| c == "memory" || c == "cpuset"), "memory cpus");
        assert_eq!(limits(|_| false), "none can be enforced");
    }

    #[test]
    fn the_machine_says_what_the_kernel_says() {
        let lines = machine().unwrap();
        let value = |name: &str| lines.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap();
        assert_eq!(value("machine"), crate::sys::host::machine());
        assert_eq!(value("release"), crate::sys::host::kernel_release());
        let (free, total): (u64, u64) = (value("free_memory").parse().unwrap(), value("total_memory").parse().unwrap());
        assert!(0 < free && free <= total);
        assert!(lines.iter().all(|(name, value)| !name.starts_with("xen") && !value.is_empty()));
    }
}
