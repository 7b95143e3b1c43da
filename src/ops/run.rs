//! `run` without `--boot`: one command in an image, without an init, as `docker run --rm`. What a newcomer would get wrong:
//! there is no monitor; this process itself holds the domain's lock, and the guest lives at most as long as it does.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::create::Create;
use super::exec::{Command, Relay};
use super::reserve::{Purpose, Reserved, reserve};
use super::{Ctx, Error, Interrupt, Kind, Result, accel, delegation, ids, interpreter, tree};
use crate::backend::direct::{self, Plan};
use crate::domain::{ImageConfig, Network};
use crate::store::domains::{Run, now};
use crate::sys::cgroup::{Cage, Limits};
use crate::sys::jail::Jail;
use crate::sys::overlay::Mapping;
use crate::sys::{ns, pty, sock};

/// How long a command may take to obey a signal before it is killed.
const OBEY: Duration = Duration::from_millis(1200);

/// Runs one command in a throw-away domain; an empty command means the image's own. Returns its exit status.
pub fn run(ctx: &Ctx, mut create: Create, command: Command) -> Result<u8> {
    let mut interrupt = Interrupt::collect()?;
    create.spec.rm = true;
    let reserved = reserve(ctx, &create, Purpose::Run(&command.words), &mut interrupt)?;
    let (jail, _run) = start(ctx, &reserved, command)?;
    attend(jail, &mut interrupt)
}

/// What belongs to a running command, released when this is dropped.
#[derive(Debug)]
pub struct Held {
    cage: Cage,
    /// Its ids are nobody else's as long as it runs.
    claim: Option<ids::Claim>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.cage.kill();
        let end = Instant::now() + Duration::from_secs(10);
        while !self.cage.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.cage.remove();
    }
}

/// Starts a command in a reserved domain.
pub fn start(ctx: &Ctx, reserved: &Reserved, command: Command) -> Result<(Jail, Held)> {
    let record = &reserved.record;
    let cannot =
        |why: String| Error::general(format!("cannot start a command in '{}'", record.artifact.label)).because(why);
    let mut run = Run { started: now(), monitor: std::process::id() as i32, ready: true, ..Run::default() };
    run.domid = {
        let _held = ctx.store.hold()?;
        ctx.store.next_domid()?
    };
    run.machine = format!("pronto-{}-{}", ctx.store.tag(), run.domid);
    run.backend = "direct".into();
    let spec = &record.spec;
    let limits = Limits { memory: spec.memory, cpus: spec.vcpus, cpuset: spec.cpus.clone(), ..Limits::default() };
    let lent = delegation::borrow()?;
    run.cage = Cage::light(&lent.hierarchies, &run.machine, &limits).map_err(|e| cannot(e.to_string()))?;
    drop(lent);
    let mut held = Held { cage: run.cage.clone(), claim: None };
    ctx.store.write_run(&record.uuid, &run)?;
    let dir = ctx.store.domain(reserved.name.as_str());
    let claim = record.userns.then(|| ids::take(&record.uuid)).transpose().map_err(|e| cannot(e.to_string()))?;
    let range = claim.as_ref().map(|c| c.range);
    let mapping = range.map(Mapping::of).transpose().map_err(|e| cannot(e.to_string()))?;
    let (root, _) = tree::writable(&ctx.store, record, &dir, mapping.clone()).map_err(cannot)?;
    let mut plan = plan(reserved, &dir, root, command, &run.cage, mapping.as_ref())?;
    plan.ids = range;
    if let Some(by) = &record.emulated {
        plan.private.clone_from(&by.private);
        plan.copies = interpreter::open_copies(&ctx.store, by).map_err(cannot)?;
        if by.copies.is_empty() {
            plan.env.extend(by.cpu.as_ref().map(|cpu| ("QEMU_CPU".into(), cpu.into())));
        }
    }
    let back = run.cage.borrow_v1().map_err(|e| cannot(e.to_string()))?;
    let started = direct::start(plan);
    drop(back);
    let jail = started.map_err(|e| failed(&e))?;
    run.ids = range;
    run.leader = jail.pid();
    run.leader_start = ns::start_time(run.leader).unwrap_or_default();
    ctx.store.write_run(&record.uuid, &run)?;
    held.claim = claim;
    Ok((jail, held))
}

fn plan(
    reserved: &Reserved,
    dir: &Path,
    root: OwnedFd,
    command: Command,
    cage: &Cage,
    ids: Option<&Mapping>,
) -> Result<Plan> {
    let spec = &reserved.record.spec;
    let config = &reserved.record.artifact.config;
    let mut env = variables(config);
    env.extend(spec.env.iter().cloned());
    env.extend(command.env);
    let shown = |source: &Path| {
        tree::shown(source, ids).map_err(|e| Error::general(format!("cannot share {}", source.display())).because(e))
    };
    let mut binds = Vec::new();
    for bind in &spec.binds {
        binds.push(direct::Bind {
            source: shown(&bind.source)?,
            target: bind.target.clone(),
            read_only: bind.read_only,
        });
    }
    let native = reserved.record.emulated.as_ref().and_then(|by| by.native.as_ref());
    let mounts = native.map(|native| accel::mounts(native, dir)).unwrap_or_default();
    let cpuinfo = native.and_then(|native| accel::cpuinfo::shown(native, dir));
    for (source, target) in mounts.into_iter().chain(cpuinfo.map(|file| (file, accel::cpuinfo::PLACE.into()))) {
        binds.push(direct::Bind { source: shown(&source)?, target, read_only: true });
    }
    let words = words(config, command.words);
    if words.is_empty() {
        let what = format!("'{}' has no command of its own", reserved.record.artifact.label);
        return Err(Error::new(Kind::CommandNotFound, what).hint("name one after the image"));
    }
    let cgroup = cage.guest().map(|guest| File::open(&guest).map(OwnedFd::from));
    let cgroup = cgroup.transpose().map_err(|e| Error::general("cannot open the guest's cgroup").because(e))?;
    let private = spec.network == Network::None;
    Ok(Plan {
        root,
        hostname: spec.hostname.clone().unwrap_or_else(|| reserved.name.hostname()),
        words,
        env,
        user: command.user.or_else(|| config.user.clone().filter(|u| !u.is_empty())),
        workdir: command.workdir.or_else(|| config.working_dir.clone()).filter(|d| !d.is_empty()).map(Into::into),
        binds,
        private_network: private,
        tty: command.tty.unwrap_or_else(|| pty::is_terminal(std::io::stdin()) && pty::is_terminal(std::io::stdout())),
        resolv_conf: std::fs::read("/etc/resolv.conf").ok().filter(|_| !private),
        cgroup,
        ids: None,
        private: Vec::new(),
        copies: Vec::new(),
    })
}

/// docker's rule: words replace the image's command, not its entrypoint.
pub fn words(config: &ImageConfig, given: Vec<OsString>) -> Vec<OsString> {
    let own = |words: &[String]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut all = own(&config.entrypoint);
    all.extend(if given.is_empty() { own(&config.cmd) } else { given });
    all
}

fn variables(config: &ImageConfig) -> Vec<(OsString, OsString)> {
    let pairs = config.env.iter().filter_map(|v| v.split_once('='));
    pairs.map(|(n, v)| (n.into(), v.into())).collect()
}

fn failed(error: &direct::Error) -> Error {
    let kind = match error {
        direct::Error::NotFound(_) => Kind::CommandNotFound,
        direct::Error::NotExecutable { .. } | direct::Error::Account(_) => Kind::CommandNotExecutable,
        _ => Kind::General,
    };
    Error::new(kind, error.to_string())
}

/// Stays with a command to its end: terminal, signals, exit status.
pub fn attend(mut jail: Jail, interrupt: &mut Interrupt) -> Result<u8> {
    let terminal = jail.take_terminal();
    let mut relay = terminal.as_ref().map(Relay::start_on);
    let mut doomed: Option<Instant> = None;
    loop {
        let mut fds = vec![(jail.ended(), false), (interrupt.as_fd(), false)];
        if let (Some(relay), Some(terminal)) = (&relay, &terminal) {
            fds.push((terminal.as_fd(), false));
            if relay.input() {
                fds.push((relay.stdin(), false));
            }
        }
        let timeout = if doomed.is_some() {
            50
        } else if relay.is_some() {
            250
        } else {
            -1
        };
        let ready = sock::poll(&fds, timeout).map_err(|e| Error::general("cannot wait").because(e))?;
        drop(fds);
        if let (Some(relay), Some(terminal)) = (&mut relay, &terminal) {
            relay.turn(terminal, ready[2], ready.get(3) == Some(&true));
            relay.resize(terminal);
        }
        if let Err(error) = interrupt.check() {
            if let Kind::Interrupted(signal) = error.kind() {
                let _ = jail.signal(signal);
            }
            doomed.get_or_insert(Instant::now() + OBEY);
        }
        if doomed.is_some_and(|d| Instant::now() >= d) {
            let _ = jail.signal(libc::SIGKILL);
        }
        if ready[0] {
            break;
        }
    }
    if let (Some(relay), Some(terminal)) = (&mut relay, &terminal) {
        relay.rest(terminal);
    }
    drop(relay);
    let status = jail.wait().map_err(|e| Error::general("cannot wait for the command").because(e))?;
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(255);
    Ok(u8::try_from(code).unwrap_or(255))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_docker() {
        let config = ImageConfig { entrypoint: vec!["/e".into()], cmd: vec!["c".into()], ..ImageConfig::default() };
        assert_eq!(words(&config, Vec::new()), ["/e", "c"]);
        assert_eq!(words(&config, vec!["x".into()]), ["/e", "x"]);
        assert!(words(&ImageConfig::default(), Vec::new()).is_empty());
    }
}
