//! Cages in the kernel's own trees. What a newcomer would get wrong: a host of v1 only is made of this one by leaving its v2 tree
//! out, so both ways are tried on a hybrid host, and each says what it misses elsewhere.

use std::io;

use super::cage::{DEVICES, leaf};
use super::{Cage, Error, Hierarchies, Limits};

/// A host whose v2 tree is not mounted, made of this one.
fn v1_only() -> Result<Hierarchies, &'static str> {
    let here = Hierarchies { v2: None, ..Hierarchies::here() };
    match here.v1.get(DEVICES) {
        _ if !nix::unistd::geteuid().is_root() => Err("needs root"),
        None => Err("needs the v1 hierarchy 'devices', which is not mounted here"),
        Some(mount) if !mount.join("devices.deny").exists() => Err("no group of 'devices' is the host's own here"),
        Some(_) => Ok(here),
    }
}

#[test]
fn without_v2_the_hosts_devices_are_closed_by_v1() {
    use crate::sys::process::Tool;
    let here = match v1_only() {
        Ok(here) => here,
        Err(why) => {
            let _ = io::Write::write_all(&mut io::stderr(), format!("skipped: {why}\n").as_bytes());
            return;
        }
    };
    let machine = format!("pronto-unit-v1-{}", std::process::id());
    let cage = Cage::light(&here, &machine, &Limits::default()).unwrap();
    assert!(cage.base.is_none() && cage.v1.contains_key(DEVICES));
    let (mount, inside) = (&here.v1[DEVICES], leaf(DEVICES, &cage.v1[DEVICES]));
    let node = tempfile::tempdir().unwrap();
    // The shell joins and then tries what root in a guest would; `%` marks what was allowed. Its own group may be told to
    // allow everything: that gives it no more than the group above has.
    let joins: String = cage
        .v1
        .iter()
        .map(|(controller, dir)| format!("echo $$ > {}/cgroup.procs; ", leaf(controller, dir).display()))
        .collect();
    let script = format!(
        "{joins} cd {}; grep -q :devices:/pronto/{machine}/guest$ /proc/self/cgroup && echo %in; try() {{ \
         : < /dev/null && echo %null; mknod n c 1 3 && echo %make-null; mknod d b 254 0 && echo %make-disk; \
         mknod k c 1 11 && echo %make-kmsg; (: < /dev/kmsg) && echo %kmsg; rm -f n; }}; \
         try; echo a > {inside}/devices.allow && echo %widened; echo 'c 1:11 rwm' > {inside}/devices.allow && echo %more; \
         try; exit 0",
        node.path().display(),
        inside = inside.display(),
    );
    let said = Tool::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(said).unwrap(), "%in\n%null\n%make-null\n%null\n%make-null\n");
    assert!(cage.pids().is_empty());
    let mut sleeper = Tool::new("sleep").arg("60").spawn().unwrap();
    cage.join_guest(sleeper.id()).unwrap();
    assert_eq!(cage.pids(), [sleeper.id() as i32]);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    cage.remove();
    assert!(cage.v1.values().all(|dir| !dir.exists()), "{cage:?}");
    assert!(!mount.join("pronto").join(&machine).exists());
}

#[test]
fn a_cage_is_made_limited_and_gone() {
    let here = Hierarchies::here();
    if !nix::unistd::geteuid().is_root() || here.v2.is_none() {
        let _ = io::Write::write_all(&mut io::stderr(), b"skipped: needs root and a cgroup v2 tree\n");
        return;
    }
    let machine = format!("pronto-unit-{}", std::process::id());
    let cage = Cage::make(&here, None, &machine, &Limits::default()).unwrap();
    let base = cage.base.clone().unwrap();
    assert!(base.join("guest").is_dir() && cage.is_empty() && !cage.is_frozen());
    cage.freeze(true).unwrap();
    assert!(cage.is_frozen());
    cage.freeze(false).unwrap();
    let limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    if here.can_limit("memory") {
        cage.limit(&limits).unwrap();
        assert_eq!(cage.memory_limit(), Some(64 << 20));
    } else {
        assert!(matches!(cage.limit(&limits), Err(Error::NoController("memory"))));
    }
    cage.remove();
    assert!(!base.exists() && cage.v1.values().all(|d| !d.exists()));
}
