//! The monitor's main function: `pronto __monitor`, started by `create` and `start`, never by a user. It joins the room
//! `monitor` (the loop) with a backend (what is run). What a newcomer would get wrong: it has no mount of its own; every
//! mount of a domain is made by the child that becomes the backend's program, in that child's mount namespace, so nothing
//! is left when any of them is killed.

mod calm;
mod child;
mod foreign;
mod full;
mod guest;
mod held;
mod machined;
pub(super) mod personal;
mod room;
mod sparing;
mod spawn;
mod stage;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::domain::{Backend, Name};
use crate::monitor::{Guest, log::Log, protocol, server};
use crate::store::Store;
use crate::sys::lock::{self, Lock};
use crate::sys::{fail, sock};

pub use spawn::{Begin, Starter, spawn};

/// Runs a monitor: `__monitor ROOT NAME LOCK-FD STARTER-FD BEGIN`. ROOT is empty for the machine's own store.
pub fn main(words: &[OsString]) -> u8 {
    match serve(words) {
        Ok(()) => 0,
        Err(why) => {
            tracing::error!("{why}");
            1
        }
    }
}

fn serve(words: &[OsString]) -> Result<(), String> {
    let [root, name, lock, starter, begin] = words else { return Err("__monitor is not for users".into()) };
    let store = Store::at((!root.is_empty()).then(|| Path::new(root)));
    let name = Name::new(&name.to_string_lossy()).map_err(|e| e.to_string())?;
    let lock = Lock::from_inherited(take(lock)?);
    let mut starter = UnixStream::from(take(starter)?);
    let prepared =
        prepare(&store, &name, lock, serde_json::from_str(&begin.to_string_lossy()).map_err(|e| e.to_string())?);
    match prepared {
        Ok((mut guest, listener, log)) => server::serve(guest.as_mut(), listener, log, starter),
        Err(why) => {
            // The starter still holds the domain's lock and cleans up: it only has to know.
            let event = protocol::Event::Failed { why: why.clone() };
            let _ = std::io::Write::write_all(&mut starter, &protocol::line(&event));
            Err(why)
        }
    }
}

fn take(word: &OsString) -> Result<OwnedFd, String> {
    let number = word.to_str().and_then(|w| w.parse().ok()).ok_or("no descriptor number")?;
    lock::inherited(number).map_err(|e| format!("descriptor {number}: {e}"))
}

fn prepare(
    store: &Store,
    name: &Name,
    lock: Lock,
    begin: Begin,
) -> Result<(Box<dyn Guest>, std::os::unix::net::UnixListener, Log), String> {
    let domain = store.load(name.as_str()).map_err(|e| e.to_string())?.ok_or("the domain is gone")?;
    let run_dir = store.run_dir(&domain.record.uuid);
    let listener = sock::listen(&run_dir, protocol::SOCKET).map_err(|e| format!("{}: {e}", run_dir.display()))?;
    let log_path = store.domain(name.as_str()).join("console.log");
    let log = Log::open(&log_path).map_err(|e| format!("{}: {e}", log_path.display()))?;
    fail::point("monitor-start").map_err(|e| e.to_string())?;
    let record = domain.record;
    let guest: Box<dyn Guest> = match record.spec.backend {
        Backend::Nspawn => Box::new(guest::Running::new(store.clone(), name, record, lock)?),
        Backend::Qemu => Box::new(full::Full::new(store.clone(), name, record, lock, begin)?),
        Backend::Xen => return Err("a Xen domain has no monitor of ours".into()),
    };
    Ok((guest, listener, log))
}
