//! `cp`: files in and out of a domain, by `docker cp`'s rules. What a newcomer would get wrong: no process of the guest takes
//! part. A running or paused domain is read and written through its init's root directory (`/proc/LEADER/root`), a shut-off
//! one through a mount of its layers that nobody else sees; every path of the guest's is resolved inside the guest, so its
//! links lead nowhere else, however it moves them about meanwhile.

mod place;
#[cfg(test)]
mod tests;
mod transfer;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};

use super::hexagon::verbs;
use super::monitor::personal;
use super::{Ctx, Error, Interrupt, Kind, Result, tree};
use crate::domain::{DomainRef, State};
use crate::store::domains::{Domain, Run};
use crate::store::{Record, Store};
use crate::sys::lock::Lock;
use crate::sys::ns;
use crate::sys::overlay::Overlay;
use crate::sys::root::Root;
use crate::sys::userns::{ActAs, Range};

use transfer::{Rules, Transfer};

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Side {
    /// `NAME:PATH`, or `DOMID:PATH`.
    Guest(DomainRef, PathBuf),
    /// A path of the host's.
    Host(PathBuf),
    /// `-`.
    Stream,
}

impl Side {
    /// As docker: what begins with `/` or `.`, or has a slash before its first colon, is the host's.
    fn parse(word: &OsStr) -> Side {
        let bytes = word.as_bytes();
        if bytes == b"-" {
            return Side::Stream;
        }
        let colon = bytes.iter().position(|&b| b == b':');
        let name = colon.and_then(|at| std::str::from_utf8(&bytes[..at]).ok());
        match (name, colon) {
            (Some(name), Some(at)) if !name.is_empty() && !name.starts_with('.') && !name.contains('/') => {
                // A guest's path starts at its root, with or without a slash.
                let path = Path::new("/").join(OsStr::from_bytes(&bytes[at + 1..]));
                Side::Guest(DomainRef::from(name), path)
            }
            _ => Side::Host(PathBuf::from(word)),
        }
    }
}

/// Copies `NAME:PATH` to a path of the host's or the other way round. An existing directory takes the copy inside; `DIR/.`
/// means what is in DIR. Modes and times are kept; what goes in belongs to the guest's root, what comes out to the caller.
/// Errors: no such domain, nothing at the path, a directory where a file is or the other way round; what stood at the place
/// of a file that could not be copied whole is still there.
pub fn copy(ctx: &Ctx, from: &OsStr, to: &OsStr) -> Result<()> {
    super::need_root("cp")?;
    match (Side::parse(from), Side::parse(to)) {
        (Side::Guest(domain, path), Side::Host(to)) => {
            let guest = Guest::reach(ctx, &domain, false)?;
            let rules = Rules { owner: (geteuid(), getegid()), set_id: false };
            transfer(ctx, (&guest.root, &path), (&host()?, &absolute(&to)?), &rules)
        }
        (Side::Host(from), Side::Guest(domain, path)) => {
            let guest = Guest::reach(ctx, &domain, true)?;
            let owner = guest.ids.map_or(0, |ids| ids.first);
            let rules = Rules { owner: (owner.into(), owner.into()), set_id: true };
            // In a tree that shows its files under other ids only somebody with one of those can make any.
            let acting = guest.ids.map(ActAs::root_of).transpose();
            let _acting = acting.map_err(|e| Error::general("cannot write as the guest's root").because(e))?;
            transfer(ctx, (&host()?, &absolute(&from)?), (&guest.root, &path), &rules)
        }
        (Side::Guest(domain, _), Side::Stream) | (Side::Stream, Side::Guest(domain, _)) => Err(no_stream(ctx, &domain)),
        (Side::Guest(..), Side::Guest(..)) => Err(Error::new(Kind::Usage, "cannot copy from domain to domain")
            .hint("copy to a directory of the host's first, and from there")),
        _ => Err(Error::new(Kind::Usage, "one of the two must be NAME:PATH")
            .hint("pronto cp NAME:PATH PATH, or pronto cp PATH NAME:PATH; ./x:y is a file of the host's")),
    }
}

/// A tar stream is the guest's own tar's work: the domain must run for it.
fn no_stream(ctx: &Ctx, which: &DomainRef) -> Error {
    match super::exec::enterable(ctx, which, "its files cannot be streamed") {
        Err(error) => error,
        Ok(domain) => {
            let name = domain.name.as_str();
            Error::general("cp makes and reads no tar stream").hint(format!(
                "let the guest's tar do it: pronto exec {name} -- tar -C DIR -c . >FILE, or pronto exec -i {name} -- tar -C DIR -x <FILE"
            ))
        }
    }
}

fn host() -> Result<Root> {
    Root::open(Path::new("/")).map_err(|e| Error::general("cannot open /").because(e))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Err(Error::new(Kind::Usage, "an empty word is no path"));
    }
    let here = std::env::current_dir().map_err(|e| Error::general("cannot tell the current directory").because(e))?;
    Ok(here.join(path))
}

fn transfer(ctx: &Ctx, from: (&Root, &Path), to: (&Root, &Path), rules: &Rules) -> Result<()> {
    let mut interrupt = Interrupt::collect()?;
    let step = ctx.report.begin(&format!("copying {}", from.1.display()), None);
    let mut tick = |bytes: u64| {
        step.advance(bytes);
        interrupt.check()
    };
    let mut transfer = Transfer::new(rules, &mut tick);
    transfer.run(from, to)?;
    for left in transfer.left_out() {
        ctx.report.warn(left);
    }
    step.done("");
    Ok(())
}

/// A guest's files, for as long as this is held.
struct Guest {
    root: Root,
    /// Those under which its files are seen.
    ids: Option<Range>,
    // Held for its end: a shut-off domain must not be started or deleted meanwhile.
    _still: Option<Still>,
}

/// A shut-off domain's lock: as long as this is held it is not started and not deleted.
#[derive(Debug)]
pub struct Still {
    store: Store,
    uuid: String,
    _lock: Lock,
}

impl Still {
    /// Takes it, and looks again at what is locked. Errors: somebody else has it; the domain has gone or runs by now.
    pub fn hold(ctx: &Ctx, found: &Domain) -> Result<(Still, Domain)> {
        let (store, name) = (&ctx.store, found.name.as_str());
        let lock = store.lock_run(&found.name, &found.record)?;
        let still = Still { store: store.clone(), uuid: found.record.uuid.clone(), _lock: lock };
        // Between looking and locking it may have run, or gone.
        let domain = store.load(name)?.filter(|d| d.record.uuid == found.record.uuid);
        let domain = domain.ok_or_else(|| Error::no_domain(&DomainRef::from(name)))?;
        Ok((still, domain))
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        // The lock's directory would look like a run that crashed.
        let _ = self.store.remove_run(&self.uuid);
    }
}

impl Guest {
    fn reach(ctx: &Ctx, which: &DomainRef, write: bool) -> Result<Guest> {
        super::sweep::sweep(ctx)?;
        let domain = ctx.store.resolve(which)?.ok_or_else(|| Error::no_domain(which))?;
        let name = domain.name.as_str();
        let agent = format!("pronto exec {name} -- cat FILE, or pronto exec -i {name} -- sh -c 'cat >FILE' <FILE");
        verbs::must_share(&domain, "its files are on a disk of its own", &agent)?;
        match (domain.state, &domain.run) {
            (State::Running | State::Paused | State::Stopping, Some(run)) if run.leader != 0 => {
                let root = of_leader(run)
                    .map_err(|why| Error::general(format!("cannot reach the files of '{name}'")).because(why))?;
                Ok(Guest { root, ids: run.ids, _still: None })
            }
            (State::ShutOff, _) => Guest::at_rest(ctx, &domain, write),
            (state, _) => Err(Error::state(name, state, "its files cannot be copied", "wait a moment and try again")),
        }
    }

    fn at_rest(ctx: &Ctx, found: &Domain, write: bool) -> Result<Guest> {
        let (store, name) = (&ctx.store, found.name.as_str());
        let (still, domain) = Still::hold(ctx, found)?;
        let dir = store.domain(name);
        let root = if write { writable(&domain, store, &dir) } else { readable(&domain.record, store, &dir) };
        let root = root.map_err(|why| Error::general(format!("cannot open the disk of '{name}'")).because(why))?;
        Ok(Guest { root, ids: None, _still: Some(still) })
    }
}

/// The root directory of a guest's init.
fn of_leader(run: &Run) -> std::result::Result<Root, String> {
    let gone = || "its init is gone".to_owned();
    let root = Root::open(Path::new(&format!("/proc/{}/root", run.leader))).map_err(|_| gone())?;
    // Asked after the open: the PID was this very process's all the time.
    if ns::start_time(run.leader) != Some(run.leader_start) {
        return Err(gone());
    }
    // A process on its way into the guest still has the host's root.
    let id = |root: &Root| nix::sys::stat::fstat(root.fd()).map(|s| (s.st_dev, s.st_ino));
    let host = Root::open(Path::new("/")).map_err(|e| e.to_string())?;
    if id(&root).map_err(|e| e.to_string())? == id(&host).map_err(|e| e.to_string())? {
        return Err("its init does not run yet: try again in a moment".into());
    }
    Ok(root)
}

/// A shut-off domain's tree to write to. One that never ran gets its identity first, as its start would give it.
fn writable(domain: &Domain, store: &Store, dir: &Path) -> std::result::Result<Root, String> {
    let record = &domain.record;
    let (tree, first) = tree::writable(store, record, dir, None)?;
    let root = Root::from_fd(tree, dir);
    if first {
        let hostname = record.spec.hostname.clone().unwrap_or_else(|| domain.name.to_string());
        personal::first_start(&root, &hostname, &record.uuid.replace('-', "")).map_err(|e| e.to_string())?;
    }
    Ok(root)
}

/// A shut-off domain's tree to read: nothing is made, so that a copy out changes nothing.
fn readable(record: &Record, store: &Store, dir: &Path) -> std::result::Result<Root, String> {
    let mut lowers = tree::lowers(store, &record.artifact).map_err(|e| e.to_string())?;
    if record.emulated.as_ref().is_some_and(|e| e.layer) {
        lowers.insert(0, dir.join("emulation").into());
    }
    let upper = dir.join("upper");
    if upper.exists() {
        lowers.insert(0, upper.into());
    }
    let tree =
        Overlay { lowers, ..Overlay::default() }.detached().map_err(|e| format!("cannot stack the layers: {e}"))?;
    Ok(Root::from_fd(tree, dir))
}
