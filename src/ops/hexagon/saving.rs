//! `save` and `restore`: all that a guest has in memory, in a file. What a newcomer would get wrong: its disk is not in that file. So the file is
//! good for the disk as it was at that moment, and the domain remembers which file that is, until the monitor lets the
//! guest go on in whatever way: from then on no file fits it any more. That is why there is no `-c`.
//!
//! ```text
//! one line of JSON (Header), filled up with blanks to 4096 bytes, and QEMU's own stream
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{because, devices, verbs};
use crate::backend::hexagon::qemu::abilities::Abilities;
use crate::backend::hexagon::qemu::qmp::Qmp;
use crate::domain::{DomainRef, State};
use crate::ops::control::Line;
use crate::ops::create::{self, Created};
use crate::ops::monitor::Begin;
use crate::ops::{Ctx, Error, Interrupt, Kind, Result, lifecycle};
use crate::store::domains::{Domain, new_uuid};
use crate::sys::unfinished::{self, Unfinished};

/// What stands in front of QEMU's stream, in bytes.
const HEAD: usize = 4096;
/// What the header begins with.
const MAGIC: &str = "pronto saved guest";
/// How long the disk may take for a guest's memory.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What is told of a saved guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// [`MAGIC`].
    what: String,
    /// Counts up when something changes.
    version: u32,
    /// The domain.
    uuid: String,
    /// Its name then.
    name: String,
    /// Which of its saved states it is.
    id: String,
    /// The machine, which QEMU must still know.
    machine: String,
}

/// Writes a running guest's memory to a file and ends it, or leaves it stopped (`paused`). Errors: it shares the host's kernel; as QEMU says, and then it goes on as before and
/// no file is left.
pub fn save(ctx: &Ctx, which: &DomainRef, path: &Path, paused: bool) -> Result<()> {
    let mut interrupt = Interrupt::collect()?;
    let domain = verbs::active(ctx, "save", which, "it cannot be saved")?;
    if !matches!(domain.state, State::Running | State::Paused) {
        return Err(Error::state(domain.name.as_str(), domain.state, "it cannot be saved", "wait for it"));
    }
    let was_paused = domain.state == State::Paused;
    let what = || format!("cannot save domain '{}' to {}", domain.name, path.display());
    unfinished::sweep(path);
    let (unfinished, file) = Unfinished::file(path, 0o600).map_err(because(what))?;
    let id = new_uuid();
    head(&domain, &id).and_then(|head| (&file).write_all(&head)).map_err(because(what))?;
    let mut qmp = verbs::talk(ctx, &domain)?;
    let step = ctx.report.begin(&format!("saving {}", domain.name), None);
    let goes_on = |qmp: &mut Qmp| if was_paused { Ok(()) } else { qmp.cont() };
    let done = qmp.stop().and_then(|()| {
        qmp.save(&file, PATIENCE, |progress| {
            step.say(&format!("{} of {} MiB", progress.done >> 20, progress.total >> 20));
            interrupt.check().is_ok()
        })
    });
    let done = done.map_err(because(what)).and_then(|()| file.sync_all().map_err(because(what)));
    let done = done.and_then(|()| unfinished.publish(&file, path, true).map_err(because(what)));
    if let Err(error) = done {
        return Err(match goes_on(&mut qmp) {
            Ok(()) => error,
            Err(e) => error.hint(format!("and it stands still now ({e}): pronto unpause {}", domain.name)),
        });
    }
    step.done(&format!("saved {}", domain.name));
    remember(ctx, &domain, id)?;
    if paused {
        ctx.report.note("it can be restored if the domain is destroyed as it is now: its disk is not in the file");
        return Ok(());
    }
    let line = Line::open(ctx, &domain)?;
    qmp.quit(Duration::from_secs(30)).map_err(because(what))?;
    line.wait_gone(Duration::from_secs(30), &mut interrupt)?;
    Ok(())
}

fn head(domain: &Domain, id: &str) -> std::io::Result<Vec<u8>> {
    let machine = domain.record.hardware.as_ref().map(|h| h.machine.clone()).unwrap_or_default();
    let header = Header {
        what: MAGIC.into(),
        version: 1,
        uuid: domain.record.uuid.clone(),
        name: domain.name.to_string(),
        id: id.to_owned(),
        machine,
    };
    let mut head = serde_json::to_vec(&header)?;
    head.resize(HEAD - 1, b' ');
    head.push(b'\n');
    Ok(head)
}

/// Which file fits the domain.
fn remember(ctx: &Ctx, domain: &Domain, id: String) -> Result<()> {
    devices::change(ctx, domain, |record| record.saved = Some(id))
}

/// Starts a saved guest where it stopped; `paused` leaves it standing. Errors: the file is none, its domain is gone or has run since; as QEMU
/// says. Then the domain is as before, and the file too.
pub fn restore(ctx: &Ctx, path: &Path, paused: bool) -> Result<Created> {
    lifecycle::begin(ctx, "restore")?;
    let mut interrupt = Interrupt::collect()?;
    let header = read(path)?;
    let all = ctx.store.all_domains(|_| ())?;
    let domain = all.into_iter().find(|d| d.record.uuid == header.uuid).ok_or_else(|| {
        let what =
            format!("{}: the domain that was saved there, '{}', is not there any more", path.display(), header.name);
        Error::new(Kind::Create, what).hint("its disk was deleted with it")
    })?;
    if domain.state != State::ShutOff {
        let hint = format!("end it first: pronto destroy {}", domain.name);
        return Err(Error::state(domain.name.as_str(), domain.state, "it cannot be restored", &hint));
    }
    if domain.record.saved.as_ref() != Some(&header.id) {
        let what = format!("{} does not fit the disk of '{}' any more", path.display(), domain.name);
        return Err(Error::new(Kind::Create, what)
            .because("the domain has run since it was saved there")
            .hint(format!("start it from its disk: pronto start {}", domain.name)));
    }
    if let Some(hardware) = &domain.record.hardware {
        let failed = |e: &dyn std::fmt::Display| {
            Error::new(Kind::Create, format!("cannot restore '{}'", domain.name)).because(e.to_string())
        };
        let abilities = Abilities::of(&hardware.program).map_err(|e| failed(&e))?;
        abilities.insist(&hardware.program, &hardware.machine).map_err(|e| failed(&e))?;
    }
    let lock = ctx.store.lock_run(&domain.name, &domain.record)?;
    let state = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let begin = Begin::Restored { state, at: HEAD as u64, paused };
    let started = create::start(ctx, &domain.name, &domain.record, &lock, &begin, &mut interrupt);
    let booting = started.inspect_err(|_| drop(ctx.store.remove_run(&domain.record.uuid)))?;
    drop(lock);
    booting.finish(ctx, false, paused, false, Duration::from_secs(60), &mut interrupt)
}

fn read(path: &Path) -> Result<Header> {
    let none = || Error::new(Kind::Create, format!("{} is no saved guest of pronto's", path.display()));
    let mut head = vec![0; HEAD];
    let mut file =
        File::open(path).map_err(|e| Error::new(Kind::Create, format!("cannot open {}", path.display())).because(e))?;
    file.read_exact(&mut head).map_err(|_| none())?;
    let header: Header = serde_json::from_slice(&head).map_err(|_| none())?;
    if header.what != MAGIC {
        return Err(none());
    }
    if header.version != 1 {
        return Err(none().because(format!("it is of version {}, and 1 is known", header.version)));
    }
    Ok(header)
}
