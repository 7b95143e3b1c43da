//! Cleaning up after what was killed: a monitor or a creator that died without being able to. Every command that looks at
//! domains does this first, so that what it sees is true. What a newcomer would get wrong: only domains whose lock nobody
//! holds are touched, and the lock is taken before anything is removed.

use crate::domain::State;
use crate::store::domains::{Domain, Ended, Record, now};
use crate::store::{layers, mending};

use super::{Ctx, Result};

/// Finishes what dead processes left. What it finds is told in one line each ("domain 'x' crashed").
pub fn sweep(ctx: &Ctx) -> Result<()> {
    let mut damaged = Vec::new();
    for domain in ctx.store.all_domains(|e| damaged.push(e))? {
        if domain.state == State::Crashed {
            clean(ctx, &domain)?;
        }
    }
    for error in damaged {
        ctx.report.warn(&error.to_string());
    }
    ctx.store.remove_unfinished()?;
    // A layer that is missing for that reason would be missed by whoever comes next.
    Ok(mending::sweep(&ctx.store)?)
}

/// As [`sweep`], for verbs that take or give back room on the disk: also what killed fetches left half-made. It is looked for by
/// one reading of a directory, but removing a tree may take seconds, so verbs that only look or ask do not do it.
pub fn thorough(ctx: &Ctx) -> Result<()> {
    sweep(ctx)?;
    ctx.store.remove_ownerless_runs()?;
    crate::sys::unfinished::sweep_all(&ctx.store.images());
    Ok(layers::sweep(&ctx.store)?)
}

fn clean(ctx: &Ctx, found: &Domain) -> Result<()> {
    let store = &ctx.store;
    let Ok(lock) = store.lock_run(&found.name, &found.record) else { return Ok(()) };
    // Between looking and locking somebody else may have done it.
    let Some(domain) = store.load(found.name.as_str())?.filter(|d| d.record.uuid == found.record.uuid) else {
        return Ok(store.remove_run(&found.record.uuid)?);
    };
    let ran = store.read_run(&domain.record.uuid);
    if let Some(run) = &ran {
        run.cage.kill();
        for _ in 0..1000 {
            if run.cage.is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        run.cage.remove();
    }
    if domain.record.building || domain.record.spec.rm {
        store.remove_domain(&domain.name, &domain.record.uuid)?;
    } else if ran.is_none() {
        // A verb that held a shut-off domain's lock was killed before anything ran.
        store.remove_run(&domain.record.uuid)?;
    } else {
        let ended = Some(Ended { when: now(), how: "crashed".into() });
        store.write_record(&domain.name, &Record { ended, ..domain.record.clone() })?;
        store.remove_run(&domain.record.uuid)?;
        ctx.report.note(&format!("domain '{}' crashed: its monitor was killed; it is shut off now", domain.name));
    }
    drop(lock);
    Ok(())
}
