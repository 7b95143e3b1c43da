//! The verbs of xl and xm that are not ours: each has one line that says what it needs. What a newcomer would get wrong: they
//! are never taken for an image, and they count when a prefix is looked up, so that a prefix means here what it means to xl.
//! Sources: Xen, tools/xl/xl_cmdtable.c (97 entries in 4.21); tools/python/xen/xm/main.py of Xen 4.4 with its aliases.

use super::near;

/// A verb of another front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// The verb.
    pub name: &'static str,
    /// `xl` or `xm`.
    pub dialect: &'static str,
    /// What it needs, the end of a sentence.
    pub needs: &'static str,
}

impl Foreign {
    /// The line to show.
    pub fn line(&self) -> String {
        format!("{} command '{}' {}", self.dialect, self.name, self.needs)
    }
}

const XEN: &str = "needs a Xen host";
const HEXAGON: &str = "is not here yet, for domains of the hexagon backend";
const AT_CREATE: &str = "is not here yet: give memory=, vcpus= and cpus= to 'pronto create'";
const USB: &str = "comes with the hexagon backend; a domain that shares the kernel can be given a device node with -v";
const LABELS: &str = "belongs to Xen's ACM security labels, which no Xen host has any more";
const XEND: &str = "needs xend, which no Xen host has any more";
const POOL: &str = "needs a Xen host; it is xl's cpupool command of that name";

/// xl's verbs that are not ours, by what they need.
const XL: &[(&str, &[&str])] = &[
    (
        XEN,
        &[
            "claims",
            "cpupool-cpu-add",
            "cpupool-cpu-remove",
            "cpupool-create",
            "cpupool-destroy",
            "cpupool-list",
            "cpupool-migrate",
            "cpupool-numa-split",
            "cpupool-rename",
            "debug-keys",
            "devd",
            "dt-overlay",
            "getenforce",
            "loadpolicy",
            "pci-assignable-add",
            "pci-assignable-list",
            "pci-assignable-remove",
            "psr-cat-set",
            "psr-cat-show",
            "psr-cmt-attach",
            "psr-cmt-detach",
            "psr-cmt-show",
            "psr-hwinfo",
            "psr-mba-set",
            "psr-mba-show",
            "remus",
            "sched-credit",
            "sched-credit2",
            "sched-rtds",
            "set-parameters",
            "setenforce",
            "sharing",
            "xenstore-quota-get",
            "xenstore-quota-set",
        ],
    ),
    (
        HEXAGON,
        &[
            "button-press",
            "cd-eject",
            "cd-insert",
            "channel-list",
            "migrate",
            "migrate-receive",
            "pci-attach",
            "pci-detach",
            "pci-list",
            "sysrq",
            "vdispl-attach",
            "vdispl-detach",
            "vdispl-list",
            "vkb-attach",
            "vkb-detach",
            "vkb-list",
            "vncviewer",
            "vsnd-attach",
            "vsnd-detach",
            "vsnd-list",
            "vtpm-attach",
            "vtpm-detach",
            "vtpm-list",
        ],
    ),
    (USB, &["usb-list", "usbctrl-attach", "usbctrl-detach", "usbdev-attach", "usbdev-detach"]),
    (AT_CREATE, &["mem-max", "vcpu-pin", "vcpu-set"]),
    ("comes with the hexagon backend; 'pronto pause' stops a domain that shares the kernel", &["suspend"]),
    ("comes with the hexagon backend; 'pronto unpause' goes on with a paused domain", &["resume"]),
    ("is not here yet: 'pronto delete' the domain and create it anew", &["config-update"]),
    ("needs a Xen host; 'pronto logs NAME' shows a domain's console", &["dmesg"]),
    ("is not here yet: 'pronto list' shows memory and CPU time", &["top"]),
    ("is not here yet: 'pronto list -v' shows each domain's UUID", &["vm-list"]),
];

/// xm's verbs that neither xl nor pronto has, and xm's old aliases.
const XM: &[(&str, &[&str])] = &[
    (
        LABELS,
        &[
            "addlabel",
            "dry-run",
            "dumppolicy",
            "getlabel",
            "getpolicy",
            "labels",
            "resetpolicy",
            "resources",
            "rmlabel",
            "setpolicy",
        ],
    ),
    (
        XEND,
        &[
            "cpupool-delete",
            "cpupool-new",
            "cpupool-start",
            "event-monitor",
            "network-del",
            "network-new",
            "network-show",
            "network2-attach",
            "network2-detach",
            "network2-list",
            "pool-delete",
            "pool-new",
            "pool-start",
            "sched-sedf",
            "serve",
            "shell",
            "tmem-destroy",
            "tmem-flush",
            "tmem-freeable",
            "tmem-freeze",
            "tmem-list",
            "tmem-set",
            "tmem-shared-auth",
            "tmem-thaw",
            "vnet-create",
            "vnet-delete",
            "vnet-list",
        ],
    ),
    (
        HEXAGON,
        &[
            "block-configure",
            "scsi-attach",
            "scsi-detach",
            "scsi-list",
            "vbd-create",
            "vbd-destroy",
            "vbd-list",
            "vif-list",
        ],
    ),
    (
        USB,
        &[
            "usb-add",
            "usb-attach",
            "usb-del",
            "usb-detach",
            "usb-hc-create",
            "usb-hc-destroy",
            "usb-list-assignable-devices",
        ],
    ),
    (POOL, &["pool-cpu-add", "pool-cpu-remove", "pool-create", "pool-destroy", "pool-list", "pool-migrate"]),
    (AT_CREATE, &["balloon", "set-vcpus"]),
    ("needs a Xen host", &["pci-list-assignable-devices"]),
    ("needs xend, and there is none here: 'pronto logs NAME' shows a domain's console", &["log"]),
    ("is not here: 'pronto list NAME' shows a domain's state", &["domstate"]),
    ("is not here yet: 'pronto destroy' the domain, then 'pronto start' it", &["reset"]),
];

/// All of them.
pub fn all() -> impl Iterator<Item = Foreign> {
    let table = |dialect, rows: &'static [(&str, &[&'static str])]| {
        rows.iter().flat_map(move |&(needs, names)| names.iter().map(move |&name| Foreign { name, dialect, needs }))
    };
    table("xl", XL).chain(table("xm", XM))
}

/// The verb of exactly this name.
pub fn find(word: &str) -> Option<Foreign> {
    all().find(|f| f.name == word)
}

/// What somebody may mean who comes from docker, virsh or machinectl: the word there, ours. Never run, only offered.
const HABITS: &[(&str, &str)] = &[
    ("attach", "console"),
    ("enter", "exec"),
    ("halt", "shutdown"),
    ("kill", "destroy"),
    ("load", "import"),
    ("login", "console"),
    ("ls", "list"),
    ("poweroff", "shutdown"),
    ("ps", "list"),
    ("restart", "reboot"),
    ("rm", "delete"),
    ("status", "list"),
    ("stop", "shutdown"),
    ("terminate", "destroy"),
    ("undefine", "delete"),
];

/// What a word of another program's is called here.
pub fn habit(word: &str) -> Option<&'static str> {
    HABITS.iter().find(|&&(theirs, _)| theirs == word).map(|&(_, ours)| ours)
}

/// What is nearest to a word that is nothing: a habit from elsewhere, the releases of a distribution, then verbs and labels;
/// best first. `labels` are the catalogue's, in every spelling, the main one of each first.
pub fn nearest(word: &str, verbs: &[&str], labels: &[&str]) -> Vec<String> {
    if let Some(ours) = habit(word) {
        return vec![ours.to_owned()];
    }
    let near = near::nearest(word, verbs.iter().chain(labels).copied());
    if !near.is_empty() {
        return near.into_iter().map(str::to_owned).collect();
    }
    let distribution = |label: &&str| label.split_once('/').map(|(distro, _)| distro.to_owned());
    let all: Vec<String> = labels.iter().filter_map(distribution).collect();
    let meant = near::nearest(word, all.iter().map(String::as_str));
    let Some(&meant) = meant.first() else { return Vec::new() };
    labels.iter().filter(|l| distribution(l).as_deref() == Some(meant)).take(5).map(|l| (*l).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_verb_stands_twice_and_none_is_ours() {
        let mut seen = std::collections::HashSet::new();
        for f in all() {
            assert!(seen.insert(f.name), "{} stands twice", f.name);
            assert!(!super::super::verbs::names().any(|ours| ours == f.name), "{} is ours", f.name);
            assert!(!f.name.contains(['/', ':', '@']), "{} looks like an image", f.name);
        }
    }

    #[test]
    fn the_nearest_is_offered() {
        let verbs = ["create", "list", "console", "destroy", "delete"];
        let labels = ["debian/bookworm", "debian/trixie", "fedora/41"];
        for (word, near) in [
            ("craete", vec!["create"]),
            ("ps", vec!["list"]),
            ("debian", vec!["debian/bookworm", "debian/trixie"]),
            ("debain", vec!["debian/bookworm", "debian/trixie"]),
            ("debian-bookworm", vec!["debian/bookworm"]),
            ("zzzzzz", vec![]),
        ] {
            assert_eq!(nearest(word, &verbs, &labels), near, "{word}");
        }
    }
}
