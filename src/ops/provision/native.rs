//! A foreign Debian whose maintainer scripts run on this CPU itself: mmdebstrap's mode `chrootless`, in which dpkg unpacks into
//! a directory and starts the scripts outside of it, with DPKG_ROOT saying where they shall work. Emulated, the same scripts
//! are most of what a bootstrap costs.
//!
//! What a newcomer would get wrong: the scripts must find *their* release's programs outside. So they run in the root of a
//! small system of the same suite for this CPU, which is made first, once, and kept as an image of its own; the host may be any.
//! And not every script obeys DPKG_ROOT: pam-auth-update and pwconv would edit the files of the system that they run in. What is
//! written there goes to a layer that is thrown away, is looked at, and spoils the result: then all is done by emulation
//! instead. Nothing of the host's can be reached ([`crate::ops::apart`]). Scripts that are known for it, and those of packages
//! that somebody asked for, run in the new tree itself, by emulation, once the rest is there.
//!
//! Source: mmdebstrap(1), "chrootless"; dpkg(1), "DPKG_ROOT" and "--force-script-chrootless".

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::bootstrap::{self, Mirror, Ready, Wish};
use crate::image::{Digest, platform};
use crate::ops::apart::{Place, SHARED, System, TARGET};
use crate::ops::{Ctx, Error, Kind, Result};
use crate::store::layers::{self, Claim, Claimed};

/// The suites whose base is known to come out as by emulation. In Debian 12 usr-merge's script and others know no DPKG_ROOT.
const SUITES: [&str; 3] = ["trixie", "forky", "sid"];
/// What the small system holds besides: what makes systems, and what the scripts of these packages start.
const TOOLS: [&str; 2] = ["mmdebstrap", "passwd"];
/// Set to `emulated`, nothing is tried here: for comparing, and for whoever trusts no script outside of its own tree.
const CHOICE: &str = "PRONTO_BOOTSTRAP";
/// What may change in the small system: dpkg writes a log there, too, and dbus sees to it that a machine id is there. The new tree
/// shall have none of its own ([`super::clean`]).
const KNOWN: [&str; 2] = ["/var/log/dpkg.log", "/var/lib/dbus/machine-id"];

/// What is to be made.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// Debian's name of the architecture, which is not this host's.
    pub debian: &'a str,
    pub wish: &'a Wish<'a>,
    pub mirror: &'a Mirror,
    /// Where; empty, and of no use when it could not be made.
    pub directory: &'a Path,
    /// The interpreters of the work's own.
    pub private: &'a [String],
}

/// Makes it; `false` when it must be made by emulation, and why is told in one line where that is no matter of course. Errors:
/// a signal.
pub(super) fn make(ctx: &Ctx, job: &Job<'_>, ready: &Ready<'_>) -> Result<bool> {
    let suite = job.wish.suite;
    if !SUITES.contains(&suite) || std::env::var_os(CHOICE).is_some_and(|choice| choice == "emulated") {
        return Ok(false);
    }
    match attempt(ctx, job, ready) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => Err(error),
        Err(error) => {
            let why = error.in_short();
            ctx.report.note(&format!("{suite} {} is made by emulation alone ({why})", job.debian));
            Ok(false)
        }
    }
}

fn attempt(ctx: &Ctx, job: &Job<'_>, ready: &Ready<'_>) -> Result<()> {
    let wish = job.wish;
    let include = TOOLS.map(str::to_owned);
    let here = Wish { platforms: &platform::host(), include: &include, force: false, ..*wish };
    let tools = bootstrap::obtain(ctx, &here, ready)?;
    let beside = workshop(ctx, job)?;
    let dir = beside.directory()?;
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    for path in [&upper, &work] {
        let made = std::fs::create_dir(path)
            .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)));
        made.map_err(|e| Error::general("cannot make a directory for the work").because(e))?;
    }
    let system = System {
        lowers: tools.layers.iter().map(|key| ctx.store.layer(key)).collect(),
        upper: upper.clone(),
        work,
        target: job.directory.to_owned(),
    };
    let place = Place { lines: job.private.to_vec(), system: Some(system) };
    let tool = bootstrap::at(&place, &argv(job))?.env("TMPDIR", "/tmp").env("HOME", "/root");
    let tool = tool.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    bootstrap::run(tool, wish.suite, job.debian, ctx.report.as_ref())?;
    match stray(&upper).map_err(|e| Error::general("cannot see what the scripts did").because(e))? {
        None => Ok(()),
        Some(path) => Err(Error::general("a maintainer script does not obey DPKG_ROOT")
            .because(format!("it changed {} outside", path.display()))),
    }
}

/// A place for overlayfs, with a claim so that nobody sweeps it away. It goes with the claim.
fn workshop(ctx: &Ctx, job: &Job<'_>) -> Result<Claim> {
    let name = format!("{} {}", bootstrap::reference(job.wish.suite, job.wish.include), job.debian);
    let name = format!("bootstrap-{}-work", Digest::of(name.as_bytes()).hex());
    match layers::claim(&ctx.store, &name, || Ok(None::<()>), || ())? {
        Claimed::Mine(claim) => Ok(claim),
        Claimed::There(()) => Err(Error::general("a claim was given twice")),
    }
}

/// The words of the command.
fn argv(job: &Job<'_>) -> Vec<OsString> {
    // Its script knows no DPKG_ROOT in Debian 13.
    let (late, early): (Vec<&str>, Vec<&str>) =
        bootstrap::INCLUDE.split(',').partition(|name| *name == "libpam-systemd");
    let late: Vec<&str> = late.into_iter().chain(job.wish.include.iter().map(String::as_str)).collect();
    let mut words: Vec<OsString> = vec!["mmdebstrap".into(), "--mode=chrootless".into()];
    words.extend(bootstrap::common(job.debian, bootstrap::VARIANT, &early.join(","), job.mirror).map(OsString::from));
    // The second check is there to protect a host, which this is not.
    words.extend(["--skip=check/qemu,check/chrootless".into()]);
    words.extend([format!("--essential-hook={FIRST}").into(), format!("--customize-hook={}", last(&late)).into()]);
    words.extend(bootstrap::place(job.wish.suite, Path::new(TARGET), job.mirror));
    words
}

/// shadowconfig(8) obeys DPKG_ROOT only as long as no other package has added users.
const FIRST: &str = "APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get --yes --mark-auto -oDpkg::Use-Pty=false -oDPkg::Chroot-Directory= \
                     -oDPkg::Options::=--force-not-root -oDPkg::Options::=--force-script-chrootless \
                     -oDPkg::Options::=--root=\"$1\" -oDPkg::Options::=--force-unsafe-io install passwd";

/// What is done in the new tree itself: these packages (names that were checked), and the loader's cache, which ldconfig makes for the CPU that it runs on.
fn last(packages: &[&str]) -> String {
    format!(
        "set -e; mount --rbind /proc \"$1/proc\"; mount --rbind /dev \"$1/dev\"; \
         printf '#!/bin/sh\\nexit 101\\n' >\"$1/usr/sbin/policy-rc.d\"; chmod 755 \"$1/usr/sbin/policy-rc.d\"; \
         APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get --yes -oDpkg::Use-Pty=false -oDPkg::Chroot-Directory=\"$1\" install {}; \
         chroot \"$1\" ldconfig; \
         rm \"$1/usr/sbin/policy-rc.d\"; umount -R \"$1/dev\"; umount -R \"$1/proc\"",
        packages.join(" ")
    )
}

/// A path in the layer of changes, as seen from within, that is there for no good reason. Directories count when nothing is in
/// them.
fn stray(upper: &Path) -> io::Result<Option<PathBuf>> {
    let fine = |path: &Path| {
        let mut known = SHARED.into_iter().chain(KNOWN).chain([TARGET]).map(Path::new);
        known.any(|known| known.starts_with(path))
    };
    let mut left = vec![upper.to_owned()];
    while let Some(dir) = left.pop() {
        let names = crate::sys::fs::sorted_names(std::fs::File::open(&dir)?)?;
        let seen = Path::new("/").join(dir.strip_prefix(upper).unwrap_or(&dir));
        if names.is_empty() && !fine(&seen) {
            return Ok(Some(seen));
        }
        for name in names {
            if std::fs::symlink_metadata(dir.join(&name))?.is_dir() {
                left.push(dir.join(name));
            } else if !fine(&seen.join(&name)) {
                return Ok(Some(seen.join(name)));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(include: &[String]) -> Vec<String> {
        let wish = Wish { suite: "trixie", platforms: &[], mirror: None, include, force: false };
        let mirror = Mirror { url: "http://mirror.example/debian".into(), named: false };
        let job = Job { debian: "arm64", wish: &wish, mirror: &mirror, directory: Path::new("/s"), private: &[] };
        argv(&job).into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn what_was_asked_for_is_not_tried_outside() {
        let words = words(&["gcc".to_owned(), "g++".to_owned()]);
        assert_eq!(words[..2], ["mmdebstrap", "--mode=chrootless"]);
        assert!(words.contains(&"--include=systemd,systemd-sysv,dbus".to_owned()), "{words:?}");
        let hook = words.iter().find(|word| word.starts_with("--customize-hook=")).unwrap();
        assert!(hook.contains("-oDPkg::Chroot-Directory=\"$1\" install libpam-systemd gcc g++; "), "{hook}");
        assert_eq!(words[words.len() - 3..], ["trixie", "/mnt", "deb http://mirror.example/debian trixie main"]);
    }

    #[test]
    fn what_a_script_did_outside_is_seen() {
        let upper = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = upper.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap();
        };
        assert_eq!(stray(upper.path()).unwrap(), None);
        ["var/log/dpkg.log", "var/lib/dbus/machine-id", "etc/hosts", "etc/resolv.conf"].into_iter().for_each(put);
        std::fs::create_dir_all(upper.path().join("etc/apt/trusted.gpg.d")).unwrap();
        std::fs::create_dir_all(upper.path().join("mnt")).unwrap();
        assert_eq!(stray(upper.path()).unwrap(), None);
        put("etc/shadow");
        assert_eq!(stray(upper.path()).unwrap(), Some("/etc/shadow".into()));
        std::fs::remove_file(upper.path().join("etc/shadow")).unwrap();
        put("var/lib/pam/seen");
        assert_eq!(stray(upper.path()).unwrap(), Some("/var/lib/pam/seen".into()));
        std::fs::remove_file(upper.path().join("var/lib/pam/seen")).unwrap();
        assert_eq!(stray(upper.path()).unwrap(), Some("/var/lib/pam".into()));
    }
}
