//! The trial of native programs before any guest gets them: the release's own packages, unpacked, are a small guest; in it each program is
//! started, and what [`trial`] lists is run both ways. What a newcomer would get wrong: the trial is of the *directory*, once, when it is
//! made, since there the compiler, make and fakeroot are at hand, of which an image may have none; and since each domain that is made
//! would have to pay for it. What it costs is what the guest's own compiler takes, emulated, for two small files.
//!
//! Jails without an init, as `run` has them, on an overlay whose changes are looked at and thrown away, with ids and a registry of
//! interpreters of their own where the guest has them. They end with this process, however it ends; nothing is mounted or registered on the host.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::accel::catalogue::{Catalogue, Kind, lay_out};
use crate::accel::trial::{self, Blame, Came, Check};
use crate::backend::direct::{self, Plan};
use crate::domain::Accel;
use crate::domain::accel::PLACE;
use crate::ops::{Ctx, Error, Interrupt, Result, ids, interpreter, tree};
use crate::store::domains::Emulated;
use crate::sys::jail::Jail;
use crate::sys::overlay::{Mapping, Overlay};
use crate::sys::root::Root;
use crate::sys::{fs, sock};

/// How long all of it may take on a slow machine.
const LIMIT: Duration = Duration::from_secs(300);
/// How long all programs may take to be started once.
const STARTS: Duration = Duration::from_secs(60);
/// So many programs may hang before the rest is given up.
const HANGING: usize = 5;
/// An ordinary user.
const NOBODY: &str = "1000:1000";
/// Where the work is done in there.
const WORKSHOP: &str = "probe";
/// The most that is read of a file that was made there.
const MOST: u64 = 64 << 20;

/// What is tried, and in what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bench<'a> {
    /// How the guest is emulated.
    pub by: &'a Emulated,
    /// The guest's packages, unpacked.
    pub guest: &'a Path,
    /// The native programs, as a guest would be shown them.
    pub made: &'a Path,
    /// A directory for the work, made here; the caller removes it.
    pub work: &'a Path,
}

/// Tries them, and takes what does not stand its trial out of `all`. Errors: a jail cannot be had; a signal.
pub(super) fn probe(ctx: &Ctx, bench: &Bench<'_>, all: &mut Catalogue) -> Result<()> {
    let mut interrupt = Interrupt::collect()?;
    let step = ctx.report.begin(&format!("trying native programs of {} {}", all.suite, all.guest), None);
    std::fs::create_dir(bench.work).map_err(|e| cannot("make a directory").because(e))?;
    let until = Instant::now() + LIMIT;
    let has_compiler = all.programs.iter().any(|program| program.kind == Kind::Compiler);
    let checks: Vec<Check> =
        trial::CHECKS.iter().copied().filter(|c| has_compiler || c.blame != Blame::Compiler).collect();
    let roles = [("root", None, checks.as_slice()), ("user", Some(NOBODY), trial::AS_USER)];
    let both = |native: Option<&Path>| -> Result<Vec<Working>> {
        let kind = if native.is_some() { "native" } else { "emulated" };
        let start = |(name, user, checks): &(&str, Option<&str>, &[Check])| {
            let files = trial::SOURCES.iter().map(|(name, text)| (*name, (*text).to_owned()));
            bench.start(ctx, &format!("{kind}-{name}"), native, *user, &trial::script(checks), files)
        };
        roles.iter().map(start).collect()
    };
    let emulated = both(None)?;
    all.leave_out_unfit(&bench.starts(ctx, all, &mut interrupt)?);
    let links = bench.work.join("x");
    let chosen = all.chosen(Accel::Build, &[]);
    let laid_out = std::fs::create_dir(&links)
        .and_then(|()| std::fs::set_permissions(&links, PermissionsExt::from_mode(0o755)))
        .and_then(|()| lay_out(&links, &chosen, all.differences()));
    laid_out.map_err(|e| cannot("lay them out").because(e))?;
    let native = both(Some(&links))?;
    for ((_, _, checks), (emulated, native)) in roles.iter().zip(emulated.into_iter().zip(native)) {
        let (emulated, _) = emulated.finish(until, &mut interrupt)?;
        let (native, _) = native.finish(until, &mut interrupt)?;
        for (n, check) in checks.iter().enumerate() {
            if let Some(why) = trial::judge(check, &came(&emulated, n, check), &came(&native, n, check)) {
                tracing::info!("native programs: {why}");
                all.leave_out(check.blame, &why);
            }
        }
    }
    all.failed.sort();
    all.failed.dedup();
    step.done("");
    Ok(())
}

fn cannot(what: &str) -> Error {
    Error::general(format!("cannot {what} to try the native programs"))
}

/// What a command left behind in the changes of its jail.
fn came(changes: &Root, n: usize, check: &Check) -> Came {
    let read = |name: &str| changes.read(Path::new(WORKSHOP).join(name), MOST);
    Came {
        status: read(&format!("status.{n}")).ok().map(|text| String::from_utf8_lossy(&text).trim().to_owned()),
        said: read(&format!("said.{n}")).unwrap_or_default(),
        made: check.makes.and_then(|name| read(name).ok()).unwrap_or_default(),
    }
}

impl Bench<'_> {
    /// Starts each program once. What is wrong with those that do not, by path.
    fn starts(&self, ctx: &Ctx, all: &Catalogue, interrupt: &mut Interrupt) -> Result<BTreeMap<String, String>> {
        let mut left: Vec<&str> = all.programs.iter().map(|program| program.path.as_str()).collect();
        let mut bad = BTreeMap::new();
        for n in 0..HANGING {
            let paths = left.iter().map(|path| format!("{path}\n")).collect::<String>();
            let files = std::iter::once(("paths", paths));
            // Nothing in `x`: the shell is the guest's own, whatever is wrong with a native one.
            let script = trial::starts(PLACE);
            let working = self.start(ctx, &format!("starts-{n}"), Some(&self.made.join("x")), None, &script, files)?;
            let (changes, whole) = working.finish(Instant::now() + STARTS, interrupt)?;
            let said = changes.read(Path::new(WORKSHOP).join("starts"), MOST).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            bad.extend(trial::not_starting(&said, whole));
            let begun = said.lines().filter(|line| line.starts_with("> ")).count();
            left.drain(..begun.min(left.len()));
            if left.is_empty() || begun == 0 {
                break;
            }
        }
        bad.extend(left.into_iter().map(|path| (path.to_owned(), "it could not be tried".to_owned())));
        Ok(bad)
    }

    /// Starts a script in the guest's tree; with the native programs where `native` says what of them it gets.
    fn start(
        &self,
        ctx: &Ctx,
        name: &str,
        native: Option<&Path>,
        user: Option<&str>,
        script: &str,
        files: impl Iterator<Item = (&'static str, String)>,
    ) -> Result<Working> {
        // Where the host's registry serves there may be no user namespaces; then nobody in there is root.
        let apart = !self.by.private.is_empty();
        let claim = apart.then(|| ids::take(&format!("{name} {}", self.work.display()))).transpose();
        let claim = claim.map_err(|e| cannot("find ids").because(e))?;
        let ids = claim.as_ref().map(|claim| Mapping::of(claim.range)).transpose();
        let ids = ids.map_err(|e| cannot("make a user namespace").because(e))?;
        let user = user.or((!apart).then_some(NOBODY));
        let changes = self.changes(name, files).map_err(|e| cannot("make a directory").because(e))?;
        let upper = Some((changes.join("upper"), changes.join("work")));
        let overlay = Overlay { lowers: vec![self.guest.to_owned().into()], upper, ids: ids.clone() };
        let root = overlay.detached_for_layer().map_err(|e| cannot("stack a tree").because(e))?;
        let mut binds = Vec::new();
        for (source, target) in native.iter().flat_map(|x| [(self.made, PLACE.into()), (x, Path::new(PLACE).join("x"))])
        {
            let source = tree::shown(source, ids.as_ref()).map_err(|e| cannot("show them").because(e))?;
            binds.push(direct::Bind { source, target, read_only: true });
        }
        let plan = Plan {
            root,
            hostname: "localhost".into(),
            words: ["dash", "-c", script].map(OsString::from).to_vec(),
            env: vec![("LC_ALL".into(), "C".into())],
            user: user.map(str::to_owned),
            workdir: Some(Path::new("/").join(WORKSHOP)),
            binds,
            private_network: true,
            // Nothing of ours is handed in.
            tty: true,
            resolv_conf: None,
            cgroup: None,
            ids: claim.as_ref().map(|claim| claim.range),
            private: self.by.private.clone(),
            copies: interpreter::open_copies(&ctx.store, self.by).map_err(|why| cannot("start").because(why))?,
        };
        let mut jail = direct::start(plan).map_err(|e| cannot("start a shell").because(e))?;
        let terminal = jail.take_terminal();
        Ok(Working { jail, changes: changes.join("upper"), _terminal: terminal, _claim: claim })
    }

    /// A new place for the changes of one jail, with files for its work.
    fn changes(&self, name: &str, files: impl Iterator<Item = (&'static str, String)>) -> io::Result<PathBuf> {
        let home = self.work.join(name);
        let workshop = home.join("upper").join(WORKSHOP);
        std::fs::create_dir_all(&workshop)?;
        std::fs::create_dir(home.join("work"))?;
        std::fs::set_permissions(home.join("upper"), PermissionsExt::from_mode(0o755))?;
        std::fs::set_permissions(&workshop, PermissionsExt::from_mode(0o777))?;
        for (name, text) in files {
            fs::write_volatile(&workshop.join(name), text.as_bytes(), 0o644)?;
        }
        Ok(home)
    }
}

/// A jail at work. Dropped, it ends.
struct Working {
    jail: Jail,
    changes: PathBuf,
    /// Held, or its shell would be hung up.
    _terminal: Option<OwnedFd>,
    _claim: Option<ids::Claim>,
}

impl Working {
    /// Waits for its end, or ends it; what it changed, and whether it ended by itself. Errors: a signal wants us to end.
    fn finish(self, until: Instant, interrupt: &mut Interrupt) -> Result<(Root, bool)> {
        let whole = loop {
            interrupt.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
            let fds = [(self.jail.ended(), false), (interrupt.as_fd(), false)];
            if sock::poll(&fds, millis).map_err(|e| cannot("wait").because(e))?[0] {
                break true;
            }
        };
        if whole {
            self.jail.wait().map_err(|e| cannot("wait").because(e))?;
        } else {
            drop(self.jail);
        }
        Ok((Root::open(&self.changes).map_err(|e| cannot("see what came of it").because(e))?, whole))
    }
}
