//! What a foreign guest's systemd would run at boot to no effect: generators and services, found by reading the tree as it is at this
//! start. Under emulation each of them costs more time than all else that it does (a program is translated before it runs), and
//! several stand in everybody's way.
//!
//! What a newcomer would get wrong: this is no list of what is unwelcome. Each entry is looked at in this tree, and what might do
//! something is left alone: an administrator's own version, an fstab with an entry, a user that sysusers would make. Sources: the
//! manual page of each, systemd.generator(7), systemd-update-done.service(8).

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use crate::sys::root::Root;

/// Names of what does nothing in a tree, in no order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Idle {
    /// Programs of `system-generators`.
    pub generators: Vec<&'static str>,
    /// Services.
    pub units: Vec<&'static str>,
    /// The unit file of the console's getty, which a generator adds in every container: its one result is as good without it.
    pub console_getty: Option<String>,
}

/// Where generators and units come from when they are the distribution's.
const GENERATORS: [&str; 2] = ["/usr/lib/systemd/system-generators", "/lib/systemd/system-generators"];
const UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
/// Where an administrator's stand before them.
const OWN: [&str; 2] = ["/etc/systemd", "/usr/local/lib/systemd"];

/// What decides whether a generator does something.
enum When {
    /// Nothing in a container: they want hardware, firmware, an initrd or words on the kernel's command line.
    Machine,
    /// One of these files, which may yet be written on the way up.
    Files(&'static [&'static str]),
    /// Entries in fstab(5).
    Fstab,
    /// Scripts in init.d without a unit of the same name.
    Scripts,
}

const TABLE: [(&str, When); 15] = [
    ("systemd-bless-boot-generator", When::Machine),
    ("systemd-debug-generator", When::Machine),
    ("systemd-factory-reset-generator", When::Machine),
    ("systemd-gpt-auto-generator", When::Machine),
    ("systemd-hibernate-resume-generator", When::Machine),
    ("systemd-run-generator", When::Machine),
    ("systemd-tpm2-generator", When::Machine),
    ("systemd-cryptsetup-generator", When::Files(&["/etc/crypttab"])),
    ("systemd-integritysetup-generator", When::Files(&["/etc/integritytab"])),
    ("systemd-veritysetup-generator", When::Files(&["/etc/veritytab"])),
    ("systemd-rc-local-generator", When::Files(&["/etc/rc.local", "/etc/rc.d/rc.local"])),
    ("systemd-system-update-generator", When::Files(&["/system-update", "/etc/system-update"])),
    ("systemd-ssh-generator", When::Files(&["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"])),
    ("systemd-fstab-generator", When::Fstab),
    ("systemd-sysv-generator", When::Scripts),
];

/// In a container it does one thing (systemd-getty-generator(8)).
const GETTY: &str = "systemd-getty-generator";

/// Programs that write such files while the system comes up, and make systemd read them again.
const WRITERS: [&str; 4] =
    ["/usr/bin/cloud-init", "/usr/bin/ignition", "/usr/lib/dracut/modules.d/30ignition", "/usr/bin/coreos-cloudinit"];

/// What does nothing in this tree. A domain that is thrown away has no use for a journal on its disk.
pub fn idle(root: &Root, thrown_away: bool) -> Idle {
    let generators = TABLE.iter().filter(|(name, when)| does_nothing(root, name, when)).map(|(name, _)| *name);
    let mut generators: Vec<&str> = generators.collect();
    let files = UNITS.iter().map(|dir| format!("{dir}/console-getty.service"));
    let console_getty =
        files.into_iter().find(|path| root.exists(path)).filter(|_| is_the_distributions_generator(root, GETTY));
    generators.extend(console_getty.as_ref().map(|_| GETTY));
    Idle { generators, units: units(root, thrown_away), console_getty }
}

fn is_the_distributions_generator(root: &Root, name: &str) -> bool {
    GENERATORS.iter().any(|dir| root.has(format!("{dir}/{name}")))
        && !OWN.iter().any(|dir| root.has(format!("{dir}/system-generators/{name}")))
}

fn does_nothing(root: &Root, name: &str, when: &When) -> bool {
    let may_change = !matches!(when, When::Machine) && WRITERS.iter().any(|path| root.exists(path));
    is_the_distributions_generator(root, name)
        && !may_change
        && match when {
            When::Machine => true,
            When::Files(paths) => !paths.iter().any(|path| root.has(path)),
            When::Fstab => fstab_is_empty(root),
            When::Scripts => every_script_has_a_unit(root),
        }
}

fn units(root: &Root, thrown_away: bool) -> Vec<&'static str> {
    let mut units = Vec::new();
    if fstab_is_empty(root) {
        units.push("systemd-remount-fs.service");
    }
    let (users, libraries, catalog) = (users_are_there(root), libraries_are_known(root), catalog_is_made(root));
    units.extend(users.then_some("systemd-sysusers.service"));
    units.extend(libraries.then_some("ldconfig.service"));
    units.extend(catalog.then_some("systemd-journal-catalog-update.service"));
    // It notes that the ones that want to know whether /usr is new have run: these three, and where there is udev another one.
    let others = UNITS.iter().any(|dir| root.has(format!("{dir}/systemd-hwdb-update.service")));
    if users && libraries && catalog && !others {
        units.push("systemd-update-done.service");
    }
    if !makes_devices(root) {
        units.extend(["systemd-tmpfiles-setup-dev-early.service", "systemd-tmpfiles-setup-dev.service"]);
    }
    if !journal_is_set_up(root) && (thrown_away || !root.is_dir("/var/log/journal")) {
        units.push("systemd-journal-flush.service");
    }
    // Who was logged in when the machine was booted, and its runlevel: current systems do not keep it (utmp(5) ends in 2038).
    units.extend(["systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"]);
    units.retain(|unit| is_the_distributions(root, unit));
    units
}

fn is_the_distributions(root: &Root, unit: &str) -> bool {
    let own = |dir: &str| root.has(format!("{dir}/system/{unit}")) || root.has(format!("{dir}/system/{unit}.d"));
    UNITS.iter().any(|dir| root.open_file(format!("{dir}/{unit}")).is_ok()) && !OWN.iter().any(|dir| own(dir))
}

/// More files than this, or more bytes in them, are not looked through: a guest has written them, and it is the host's memory.
const FILES: usize = 400;
const BYTES: u64 = 256 << 10;

/// The names in a directory, none when it is not there; `None` when they cannot be told.
fn names(root: &Root, dir: &str) -> Option<Vec<String>> {
    match root.read_dir_up_to(dir, FILES) {
        Ok(names) => Some(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()),
        Err(e) if e.kind() == ErrorKind::NotFound => Some(Vec::new()),
        Err(_) => None,
    }
}

/// The lines of a file that say something, none when it is not there; `None` when they cannot be told.
fn lines(root: &Root, path: &str) -> Option<Vec<String>> {
    lines_of(root, path, &mut BYTES.clone())
}

/// As [`lines`], from what is left to be read in all.
fn lines_of(root: &Root, path: &str, left: &mut u64) -> Option<Vec<String>> {
    let bytes = match root.read(path, *left + 1) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Some(Vec::new()),
        Err(_) => return None,
    };
    *left = left.checked_sub(bytes.len() as u64)?;
    let text = String::from_utf8_lossy(&bytes);
    let said = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with(['#', ';']));
    Some(said.map(str::to_owned).collect())
}

/// All lines of the configuration files `*.conf` of these directories, each with the name of its file; `None` when they cannot be told.
fn configuration(root: &Root, dirs: &[&str]) -> Option<Vec<(String, String)>> {
    let (mut all, mut left) = (Vec::new(), BYTES);
    for dir in dirs {
        for name in names(root, dir)?.into_iter().filter(|name| name.ends_with(".conf")) {
            let lines = lines_of(root, &format!("{dir}/{name}"), &mut left)?;
            all.extend(lines.into_iter().map(|line| (name.clone(), line)));
        }
    }
    Some(all)
}

fn fstab_is_empty(root: &Root) -> bool {
    lines(root, "/etc/fstab").is_some_and(|lines| lines.is_empty())
}

fn every_script_has_a_unit(root: &Root) -> bool {
    ["/etc/init.d", "/etc/rc.d/init.d"].iter().all(|dir| {
        let Some(names) = names(root, dir) else { return false };
        names.iter().all(|name| {
            let executable = root.stat(Path::new(&format!("{dir}/{name}"))).is_ok_and(|s| s.st_mode & 0o111 != 0);
            let unit = format!("system/{}.service", name.strip_suffix(".sh").unwrap_or(name));
            let dirs = ["/etc/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd"];
            !executable || dirs.iter().any(|dir| root.has(format!("{dir}/{unit}")))
        })
    })
}

/// Whether sysusers.d(5) asks for no user, group or membership that is not there.
fn users_are_there(root: &Root) -> bool {
    let known = |path: &str| -> Option<BTreeSet<String>> {
        Some(lines(root, path)?.iter().filter_map(|l| l.split(':').next().map(str::to_owned)).collect())
    };
    let wanted = configuration(root, &["/etc/sysusers.d", "/usr/local/lib/sysusers.d", "/usr/lib/sysusers.d"]);
    let (Some(users), Some(groups), Some(wanted)) = (known("/etc/passwd"), known("/etc/group"), wanted) else {
        return false;
    };
    wanted.iter().all(|(_, line)| {
        let mut words = line.split_whitespace();
        match (words.next().unwrap_or_default(), words.next()) {
            ("u" | "u!", Some(name)) => users.contains(name),
            ("g", Some(name)) => groups.contains(name),
            ("r", _) => true,
            _ => false,
        }
    })
}

/// Whether ld.so's cache is as new as every directory of libraries.
fn libraries_are_known(root: &Root) -> bool {
    let Some(cache) = changed(root, "/etc/ld.so.cache") else { return false };
    let mut dirs: Vec<String> =
        ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"].map(str::to_owned).into();
    let (named, more) = (lines(root, "/etc/ld.so.conf"), configuration(root, &["/etc/ld.so.conf.d"]));
    let (Some(named), Some(more)) = (named, more) else { return false };
    let named = named.into_iter().chain(more.into_iter().map(|(_, line)| line));
    dirs.extend(named.filter(|line| line.starts_with('/')));
    if dirs.len() > FILES {
        return false;
    }
    dirs.iter().filter_map(|dir| changed(root, dir)).all(|when| when <= cache)
}

fn catalog_is_made(root: &Root) -> bool {
    let dirs = ["/usr/lib/systemd/catalog", "/lib/systemd/catalog"];
    let newest = dirs.iter().filter_map(|dir| changed(root, dir)).max();
    changed(root, "/var/lib/systemd/catalog/database").is_some_and(|made| newest.is_none_or(|when| when <= made))
}

/// When a file or a directory was last changed: seconds and nanoseconds.
fn changed(root: &Root, path: &str) -> Option<(i64, i64)> {
    let stat = root.stat(Path::new(path)).ok()?;
    Some((stat.st_mtime, stat.st_mtime_nsec))
}

/// Whether tmpfiles.d(5) asks for something in /dev: what udev's package sets is of devices that a container does not have.
fn makes_devices(root: &Root) -> bool {
    let all = configuration(root, &["/etc/tmpfiles.d", "/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d"]);
    let Some(all) = all else { return true };
    all.iter().filter(|(file, _)| file != "static-nodes-permissions.conf").any(|(_, line)| {
        let path = line.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('"');
        path.starts_with("/dev") || path.starts_with('%')
    })
}

/// Whether an administrator says where the journal is to be kept.
fn journal_is_set_up(root: &Root) -> bool {
    let dirs =
        ["/etc/systemd/journald.conf.d", "/usr/local/lib/systemd/journald.conf.d", "/usr/lib/systemd/journald.conf.d"];
    let (own, more) = (lines(root, "/etc/systemd/journald.conf"), configuration(root, &dirs));
    let (Some(own), Some(more)) = (own, more) else { return true };
    own.into_iter().chain(more.into_iter().map(|(_, line)| line)).any(|line| line.starts_with("Storage"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        /// A tree like a Debian's: every generator and unit of the tables, users made, caches newer than what they are of.
        fn current() -> Tree {
            let tree = Tree(tempfile::tempdir().unwrap());
            for (name, _) in TABLE.iter().map(|(n, w)| (*n, w)).chain([(GETTY, &When::Machine)]) {
                tree.write(&format!("usr/lib/systemd/system-generators/{name}"), "");
            }
            for unit in ALL {
                tree.write(&format!("usr/lib/systemd/system/{unit}"), "");
            }
            tree.write("usr/lib/systemd/system/console-getty.service", "");
            tree.write("usr/lib/systemd/system/dbus.service", "");
            tree.write("etc/fstab", "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n");
            tree.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
            tree.write("etc/group", "root:x:0:\nadm:x:4:\n");
            tree.write("usr/lib/sysusers.d/basic.conf", "g adm 4 -\nu root 0 - /root /bin/sh\n");
            tree.write("usr/lib/tmpfiles.d/static-nodes-permissions.conf", "z /dev/snd/seq 0660 - audio -\n");
            tree.write("usr/lib/systemd/catalog/systemd.catalog", "");
            tree.write("etc/init.d/dbus", "");
            tree.make_executable("etc/init.d/dbus");
            tree.write("var/lib/systemd/catalog/database", "");
            tree.write("etc/ld.so.cache", "");
            tree
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            crate::sys::fs::write_volatile(&path, text.as_bytes(), 0o644).unwrap();
        }

        fn make_executable(&self, path: &str) {
            std::fs::set_permissions(self.0.path().join(path), std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
        }

        fn idle(&self, thrown_away: bool) -> Idle {
            idle(&Root::open(self.0.path()).unwrap(), thrown_away)
        }

        /// What is no longer idle once `path` holds `text`.
        fn with(path: &str, text: &str) -> Vec<&'static str> {
            let tree = Tree::current();
            let before = tree.idle(true);
            tree.write(path, text);
            tree.make_executable(path);
            // The clock of files is coarse: both may be of one tick.
            let dir = std::fs::File::open(tree.0.path().join(path).parent().unwrap()).unwrap();
            dir.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(10)).unwrap();
            let after = tree.idle(true);
            let all = |idle: Idle| idle.generators.into_iter().chain(idle.units);
            let left: Vec<&str> = all(after).collect();
            all(before).filter(|name| !left.contains(name)).collect()
        }
    }

    const ALL: [&str; 10] = [
        "systemd-remount-fs.service",
        "systemd-sysusers.service",
        "ldconfig.service",
        "systemd-journal-catalog-update.service",
        "systemd-update-done.service",
        "systemd-tmpfiles-setup-dev-early.service",
        "systemd-tmpfiles-setup-dev.service",
        "systemd-journal-flush.service",
        "systemd-update-utmp.service",
        "systemd-update-utmp-runlevel.service",
    ];

    #[test]
    fn a_tree_that_is_current_is_spared_all() {
        let tree = Tree::current();
        let idle = tree.idle(true);
        assert_eq!(idle.units, ALL);
        assert_eq!(idle.generators.len(), TABLE.len() + 1);
        assert_eq!(idle.console_getty.as_deref(), Some("/usr/lib/systemd/system/console-getty.service"));
        tree.write("var/log/journal/README", "");
        assert!(
            !tree.idle(false).units.contains(&"systemd-journal-flush.service"),
            "a domain that is kept keeps its journal"
        );
        assert!(tree.idle(true).units.contains(&"systemd-journal-flush.service"));
        let empty = Tree(tempfile::tempdir().unwrap());
        assert_eq!(empty.idle(true), Idle::default(), "what is not there is not named");
    }

    #[test]
    fn what_may_do_something_is_left_alone() {
        assert_eq!(
            Tree::with("etc/fstab", "tmpfs /srv tmpfs\n"),
            ["systemd-fstab-generator", "systemd-remount-fs.service"]
        );
        assert_eq!(Tree::with("etc/rc.local", ""), ["systemd-rc-local-generator"]);
        assert_eq!(Tree::with("usr/sbin/sshd", ""), ["systemd-ssh-generator"]);
        assert_eq!(Tree::with("etc/crypttab", "a b none\n"), ["systemd-cryptsetup-generator"]);
        assert_eq!(Tree::with("etc/init.d/old", ""), ["systemd-sysv-generator"]);
        let users = ["systemd-sysusers.service", "systemd-update-done.service"];
        assert_eq!(Tree::with("usr/lib/sysusers.d/new.conf", "u new -\n"), users);
        assert_eq!(Tree::with("etc/sysusers.d/new.conf", "m root adm\n"), users);
        let libraries = ["ldconfig.service", "systemd-update-done.service"];
        assert_eq!(Tree::with("usr/lib/libnew.so", ""), libraries);
        let catalog = ["systemd-journal-catalog-update.service", "systemd-update-done.service"];
        assert_eq!(Tree::with("usr/lib/systemd/catalog/new.catalog", ""), catalog);
        let devices = ["systemd-tmpfiles-setup-dev-early.service", "systemd-tmpfiles-setup-dev.service"];
        assert_eq!(Tree::with("usr/lib/tmpfiles.d/x.conf", "p /dev/xconsole 0640\n"), devices);
        let journal = ["systemd-journal-flush.service"];
        assert_eq!(Tree::with("etc/systemd/journald.conf.d/x.conf", "[Journal]\nStorage=persistent\n"), journal);
        assert_eq!(
            Tree::with("etc/systemd/system/ldconfig.service", ""),
            ["ldconfig.service"],
            "an administrator's own"
        );
        let own = "etc/systemd/system-generators/systemd-getty-generator";
        assert_eq!(Tree::with(own, ""), ["systemd-getty-generator"]);
        let long = format!("# {}\n", "x".repeat(BYTES as usize));
        assert_eq!(Tree::with("usr/lib/sysusers.d/long.conf", &long), users, "nobody reads all of that");
        assert_eq!(Tree::with("usr/bin/cloud-init", "").len(), 8, "it writes fstab and others while the guest starts");
    }
}
