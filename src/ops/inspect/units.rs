//! Services of a tree that need namespaces which no setting can do without: read from the units that are enabled, without running
//! any of them. What a newcomer would get wrong: a unit that is merely installed never starts, so only what some target wants counts
//! (and the service behind a socket, a timer or a path that it wants); a program may build namespaces itself, of which its unit
//! says nothing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::sys::root::Root;

/// A service, and what it cannot do without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The unit: `docker.service`.
    pub unit: String,
    /// A setting (`NetworkNamespacePath=`) or a program (`dockerd`).
    pub what: String,
}

/// Where units lie, the strongest first (systemd.unit(5)).
const DIRS: [&str; 4] =
    ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Settings of systemd.exec(5) that put a service into another namespace or file system: without it, it would be a different service.
const SETTINGS: [&str; 6] =
    ["NetworkNamespacePath", "IPCNamespacePath", "UserNamespacePath", "RootImage", "MountImages", "ExtensionImages"];

/// Programs whose work is to make namespaces for others, which they do by clone(2).
const PROGRAMS: [&str; 13] = [
    "dockerd",
    "containerd",
    "podman",
    "crio",
    "k3s",
    "kubelet",
    "buildkitd",
    "lxd",
    "incusd",
    "lxc-autostart",
    "snapd",
    "systemd-nspawn",
    "systemd-nsresourced",
];

/// A unit file longer than this is none.
const LONGEST: u64 = 256 << 10;

/// Every enabled service that needs a namespace, in the order of their names.
pub(super) fn needs(root: &Root) -> Vec<Need> {
    enabled(root).into_iter().filter_map(|unit| Some(Need { what: need(&text(root, &unit)?)?, unit })).collect()
}

/// The services that some unit wants or requires by a link (`systemctl enable`, or the package itself).
fn enabled(root: &Root) -> BTreeSet<String> {
    let names =
        |dir: &str| root.read_dir(dir).unwrap_or_default().into_iter().map(|n| n.to_string_lossy().into_owned());
    let mut found = BTreeSet::new();
    for dir in DIRS {
        let wanting = names(dir).filter(|n| n.ends_with(".wants") || n.ends_with(".requires"));
        for unit in wanting.flat_map(|sub| names(&format!("{dir}/{sub}")).collect::<Vec<_>>()) {
            let starter = [".socket", ".timer", ".path"].iter().find_map(|kind| unit.strip_suffix(kind));
            if let Some(stem) = starter {
                found.insert(format!("{stem}.service"));
            } else if unit.ends_with(".service") {
                found.insert(unit);
            }
        }
    }
    found
}

/// A service's file and, after it, its drop-ins; `None` when it is masked or not there.
fn text(root: &Root, unit: &str) -> Option<String> {
    let template = unit.split_once('@').map(|(stem, _)| format!("{stem}@.service"));
    let names: Vec<&str> = [Some(unit), template.as_deref()].into_iter().flatten().collect();
    let read = |path: String| root.read(path, LONGEST).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut all = names.iter().find_map(|name| {
        // The strongest that is there decides, also when it is a link to /dev/null.
        let path = DIRS.iter().map(|dir| format!("{dir}/{name}")).find(|path| root.has(path))?;
        read(path)
    })?;
    for name in names.iter().rev() {
        for dir in DIRS.iter().rev().map(|dir| format!("{dir}/{name}.d")) {
            let mut files = root.read_dir(&dir).unwrap_or_default();
            files.sort();
            for file in files.iter().map(|n| n.to_string_lossy()).filter(|n| n.ends_with(".conf")) {
                all.push('\n');
                all += &read(format!("{dir}/{file}")).unwrap_or_default();
            }
        }
    }
    Some(all)
}

/// What a unit cannot do without, by its text.
fn need(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';']));
    let pairs: Vec<(&str, &str)> =
        lines.filter_map(|l| l.split_once('=')).map(|(key, value)| (key.trim(), value.trim())).collect();
    let setting = SETTINGS.into_iter().find(|key| {
        // An empty value takes back what was said before.
        pairs.iter().rev().find(|(k, _)| k == key).is_some_and(|(_, value)| !value.is_empty())
    });
    if let Some(setting) = setting {
        return Some(format!("{setting}="));
    }
    let commands = pairs.iter().filter(|(key, _)| *key == "ExecStart").map(|(_, value)| program(value));
    commands.into_iter().find(|name| PROGRAMS.contains(name)).map(str::to_owned)
}

/// The name of a command line's program, without the prefixes of systemd.service(5).
fn program(line: &str) -> &str {
    let word = line.trim_start_matches(['-', '@', ':', '+', '!', '|']).split_whitespace().next().unwrap_or_default();
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)], links: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        for (path, text) in files {
            crate::sys::fs::write_volatile(&place(path), text.as_bytes(), 0o644).unwrap();
        }
        for (path, target) in links {
            std::os::unix::fs::symlink(target, place(path)).unwrap();
        }
        needs(&Root::open(dir.path()).unwrap()).into_iter().map(|n| format!("{} {}", n.unit, n.what)).collect()
    }

    const WANTS: &str = "etc/systemd/system/multi-user.target.wants";

    #[test]
    fn what_is_enabled_counts() {
        let docker = ("usr/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/bin/dockerd -H fd://\n");
        assert_eq!(found(&[docker], &[]), Vec::<String>::new(), "installed is not enabled");
        let enabled = (&*format!("{WANTS}/docker.service"), "/usr/lib/systemd/system/docker.service");
        assert_eq!(found(&[docker], &[enabled]), ["docker.service dockerd"]);
        let socket = ("usr/lib/systemd/system/sockets.target.wants/docker.socket", "../docker.socket");
        assert_eq!(found(&[docker], &[socket]), ["docker.service dockerd"], "a socket starts it");
        let masked = ("etc/systemd/system/docker.service", "/dev/null");
        assert_eq!(found(&[docker], &[enabled, masked]), Vec::<String>::new());
        let mine = ("etc/systemd/system/docker.service", "[Service]\nExecStart=/bin/true\n");
        assert_eq!(found(&[docker, mine], &[enabled]), Vec::<String>::new(), "the administrator's own file wins");
    }

    #[test]
    fn settings_and_drop_ins() {
        let unit = ("usr/lib/systemd/system/vpn@.service", "[Service]\nExecStart=!-/usr/sbin/vpn %i\n");
        let enabled = (&*format!("{WANTS}/vpn@home.service"), "/usr/lib/systemd/system/vpn@.service");
        assert_eq!(found(&[unit], &[enabled]), Vec::<String>::new());
        let more =
            ("etc/systemd/system/vpn@.service.d/ns.conf", "[Service]\n# why\nNetworkNamespacePath = /run/netns/a\n");
        assert_eq!(found(&[unit, more], &[enabled]), ["vpn@home.service NetworkNamespacePath="]);
        let less = ("etc/systemd/system/vpn@home.service.d/no.conf", "[Service]\nNetworkNamespacePath=\n");
        assert_eq!(found(&[unit, more, less], &[enabled]), Vec::<String>::new(), "taken back");
        assert_eq!(program("@-/usr/bin/podman podman system service"), "podman");
        assert_eq!(program(""), "");
    }
}
