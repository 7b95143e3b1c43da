//! `pronto IMAGE COMMAND…` and `run --boot`: boot a throw-away domain, run one command in it when it is ready, stop it. What
//! a newcomer would get wrong: the domain is never handed over by its starter, so however this process ends, the domain
//! ends with it.

use std::time::Duration;

use super::create::{self, Create};
use super::exec::{self, Command, Io};
use super::{Ctx, Error, Interrupt, Kind, Result};

/// Boots, runs, stops; returns the command's exit status. Errors: as create and exec; nothing is left behind.
pub fn oneshot(ctx: &Ctx, mut create: Create, command: Command) -> Result<u8> {
    let mut interrupt = Interrupt::collect()?;
    create.spec.rm = true;
    let timeout = create.timeout;
    let mut booting = create::boot(ctx, &create, &mut interrupt)?;
    let limit = timeout.unwrap_or(Duration::from_secs(if booting.emulated { 600 } else { 120 }));
    let ready = booting.wait_ready(ctx, limit, false, &mut interrupt);
    let ran = ready.and_then(|()| {
        let gone = || Error::new(Kind::Create, "the guest ended before the command could run");
        let domain = ctx.store.load(booting.name.as_str())?.ok_or_else(gone)?;
        let run = domain.run.as_ref().filter(|r| r.leader != 0).ok_or_else(gone)?;
        exec::attend(run, command, Io::Caller, &mut interrupt)
    });
    booting.starter.abandon();
    ran.map(|(status, _)| status)
}
