//! `list`: what is there, true at any time. What a newcomer would get wrong: every number is read from the kernel's own files
//! now; nothing is remembered.

use serde::Serialize;

use super::{Ctx, Error, Result, sweep};
use crate::domain::{DomainRef, Native, State};
use crate::store::domains::Domain;

/// One domain as `list` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its domid while it runs.
    pub domid: Option<u32>,
    /// Identity that outlives renames and reboots.
    pub uuid: String,
    /// What it is doing.
    pub state: State,
    /// xl's six columns.
    pub columns: String,
    /// MiB of its limit, else of its use.
    pub memory_mib: u64,
    /// CPUs it may use.
    pub vcpus: u32,
    /// CPU time used, in seconds.
    pub cpu_seconds: f64,
    /// The architecture's profile name.
    pub arch: String,
    /// Whether it needs an interpreter here.
    pub emulated: bool,
    /// What of it is native all the same.
    pub native: Option<Native>,
    /// The image as the user wrote it.
    pub image: String,
    /// Which backend runs it.
    pub backend: String,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// When it was started, in seconds since 1970, while it runs.
    pub started: Option<u64>,
    /// PID of its init on the host, while it runs.
    pub leader: Option<i32>,
}

/// Lists domains by domid, then name. `all` adds those that do not run; a non-empty `only` restricts it (each must exist).
pub fn list(ctx: &Ctx, all: bool, only: &[DomainRef]) -> Result<Vec<Row>> {
    super::need_root("list")?;
    ctx.store.open()?;
    sweep::sweep(ctx)?;
    let mut domains = ctx.store.all_domains(|_| ())?;
    if !only.is_empty() {
        let is = |d: &Domain, r: &DomainRef| match r {
            DomainRef::Id(id) => d.domid() == Some(*id),
            DomainRef::Name(name) => d.name.as_str() == name,
        };
        for wanted in only {
            // `xl list NAME` tells by its exit status whether NAME runs: a shut-off domain needs --all.
            if !domains.iter().any(|d| is(d, wanted) && (all || d.state.is_active())) {
                return Err(missing(wanted));
            }
        }
        domains.retain(|d| only.iter().any(|r| is(d, r)));
    }
    let mut rows: Vec<Row> = domains.iter().filter(|d| all || d.state.is_active()).map(row).collect();
    rows.sort_by(|a, b| (a.domid.is_none(), a.domid, &a.name).cmp(&(b.domid.is_none(), b.domid, &b.name)));
    Ok(rows)
}

fn missing(wanted: &DomainRef) -> Error {
    match wanted {
        DomainRef::Id(id) => Error::new(super::Kind::NoDomain, format!("Error: Domain '{id}' does not exist.")),
        DomainRef::Name(_) => Error::no_domain(wanted),
    }
}

fn row(domain: &Domain) -> Row {
    let record = &domain.record;
    let run = domain.run.as_ref();
    let crashed = domain.state == State::ShutOff && record.ended.as_ref().is_some_and(|e| e.how == "crashed");
    let columns = if crashed { State::Crashed.columns() } else { domain.state.columns() };
    let own = record.hardware.as_ref().map(|_| record.spec.memory.unwrap_or(super::hexagon::MEMORY));
    let memory =
        own.or(run.and_then(|r| r.cage.memory_limit().or_else(|| r.cage.memory_used()).or_else(|| pss(&r.cage))));
    Row {
        name: domain.name.to_string(),
        domid: domain.domid(),
        uuid: record.uuid.clone(),
        state: domain.state,
        columns: columns.to_owned(),
        memory_mib: memory.or(record.spec.memory).unwrap_or(0) >> 20,
        vcpus: vcpus(domain),
        cpu_seconds: run.map_or(0.0, |r| r.cage.cpu_micros() as f64 / 1e6),
        arch: record.arch.clone(),
        emulated: record.is_translated(),
        native: record.emulated.as_ref().and_then(|by| by.native.clone()),
        image: record.spec.image.clone(),
        backend: run.map_or_else(|| record.spec.backend.name().to_owned(), |r| r.backend.clone()),
        created: record.created,
        started: run.map(|r| r.started),
        leader: run.map(|r| r.leader).filter(|&l| l != 0),
    }
}

/// How many CPUs it may use: its share, its set, else the host's.
fn vcpus(domain: &Domain) -> u32 {
    let spec = &domain.record.spec;
    if domain.record.hardware.is_some() {
        return super::hexagon::machine::vcpus(spec);
    }
    let host = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    let set = spec.cpus.as_deref().and_then(count_cpus).unwrap_or(host);
    spec.vcpus.unwrap_or(set).min(set)
}

/// The number of CPUs in a list like `0-2,5` (cpuset(7), "List format").
pub fn count_cpus(list: &str) -> Option<u32> {
    let mut count = 0;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

/// Where nothing accounts memory: the proportional share of every process, summed (proc(5), smaps_rollup).
fn pss(cage: &crate::sys::cgroup::Cage) -> Option<u64> {
    let of = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let kib =
            text.lines().find_map(|l| l.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.map(|k| k << 10)
    };
    Some(cage.pids().into_iter().filter_map(of).sum())
}

#[cfg(test)]
mod tests {
    use super::count_cpus;

    #[test]
    fn cpu_lists() {
        assert_eq!(count_cpus("0-2,5"), Some(4));
        assert_eq!(count_cpus("3"), Some(1));
        for bad in ["", "a", "2-1", "0-"] {
            assert_eq!(count_cpus(bad), None, "{bad}");
        }
    }
}
