//! Disks, network interfaces and CPUs of a running guest: seen, brought and taken. What a newcomer would get wrong: what is brought stays over a reboot, as in xl,
//! so it is written down with the domain; and taking away is a request, which a guest that uses the disk does not grant.

use std::os::fd::AsFd;
use std::time::Duration;

use super::{because, machine, verbs};
use crate::backend::hexagon::{Disk, Link, Machine, Nic};
use crate::domain::xlcfg::disk::DiskSpec;
use crate::domain::xlcfg::drive::Drive;
use crate::domain::xlcfg::vif::VifSpec;
use crate::domain::{DomainRef, Network, State};
use crate::ops::{Ctx, Error, Kind, Result, lifecycle};
use crate::store::domains::{Domain, Record};

/// How long a guest may take to let go of a device.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk as `block-list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its number in Xen's way: `xvda` is 51712.
    pub id: u32,
    /// Its name.
    pub vdev: String,
    /// The file or device; none: an empty drive.
    pub source: Option<String>,
}

/// A network interface as `network-list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: usize,
    /// Its address.
    pub mac: String,
    /// What it is connected to.
    pub link: String,
}

/// A virtual CPU as `vcpu-list` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Vcpu {
    /// The domain.
    pub name: String,
    /// Its domid.
    pub domid: u32,
    /// The CPU's number.
    pub index: u32,
    /// Time that its thread has used, in seconds.
    pub seconds: f64,
    /// Whether its thread runs at this moment.
    pub runs: bool,
    /// Whether the domain stands still.
    pub paused: bool,
    /// The host's CPU on which the thread was last.
    pub cpu: u32,
}

fn described(ctx: &Ctx, domain: &Domain) -> Result<Machine> {
    let dir = ctx.store.domain(domain.name.as_str());
    machine::describe(&domain.record, &domain.name, &dir).map_err(Error::general)
}

/// Which disk a name, or Xen's number, means.
fn drive(vdev: &str) -> Option<u32> {
    Drive::parse(vdev).map(|drive| drive.disk)
}

/// A domain's disks.
pub fn blocks(ctx: &Ctx, which: &DomainRef) -> Result<Vec<Block>> {
    let domain = verbs::active(ctx, "block-list", which, "it has no disks")?;
    let disks = described(ctx, &domain)?.disks;
    let block = |disk: &Disk| Block {
        id: Drive::parse(&disk.vdev).map(Drive::number).unwrap_or_default(),
        vdev: disk.vdev.clone(),
        source: disk.source.as_ref().map(|path| path.display().to_string()),
    };
    Ok(disks.iter().map(block).collect())
}

/// Brings a disk, in xl's words. Errors: no disk, a place that is taken, as QEMU says; then nothing has changed.
pub fn attach_block(ctx: &Ctx, which: &DomainRef, words: &[String]) -> Result<()> {
    let domain = verbs::active(ctx, "block-attach", which, "no disk can be attached: show it a directory with -v")?;
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    let wrong = |why: String| Error::new(Kind::Usage, why);
    let spec = DiskSpec::parse(&texts).map_err(wrong)?;
    let disk = machine::disk(&spec).map_err(wrong)?;
    if disk.cdrom {
        return Err(wrong("a CD drive cannot be attached to a running guest, but a disk can".into()));
    }
    let taken = described(ctx, &domain)?.disks.iter().any(|d| drive(&d.vdev) == drive(&disk.vdev));
    if taken {
        return Err(Error::general(format!("'{}' has a disk '{}' already", domain.name, disk.vdev)));
    }
    let what = || format!("cannot attach '{}' to '{}'", disk.vdev, domain.name);
    let files = machine::open(std::slice::from_ref(&disk)).map_err(because(what))?;
    let file = files.first().map(|(_, file)| file.as_fd());
    verbs::talk(ctx, &domain)?.attach_disk(&disk, domain.record.spec.rm, file).map_err(because(what))?;
    change(ctx, &domain, |record| record.spec.full.disks.push(texts.join(",")))
}

/// Takes a disk away, by its name or Xen's number. Errors: there is none, it is the root, the guest keeps it.
pub fn detach_block(ctx: &Ctx, which: &DomainRef, wanted: &str) -> Result<()> {
    let domain = verbs::active(ctx, "block-detach", which, "it has no disks")?;
    let disks = described(ctx, &domain)?.disks;
    let is = |disk: &Disk| drive(wanted).is_some() && drive(&disk.vdev) == drive(wanted);
    let disk = match disks.iter().position(is) {
        Some(0) => return Err(Error::general(format!("'{}' is the root of '{}'", disks[0].vdev, domain.name))),
        Some(at) => &disks[at],
        None => {
            let error = Error::general(format!("'{}' has no disk '{wanted}'", domain.name));
            return Err(error.hint(format!("pronto block-list {}", domain.name)));
        }
    };
    let what = || format!("cannot detach '{}' from '{}'", disk.vdev, domain.name);
    verbs::talk(ctx, &domain)?.detach_disk(disk, PATIENCE).map_err(because(what))?;
    let is = |text: &String| DiskSpec::parse(&[text.as_str()]).is_ok_and(|spec| spec.vdev == disk.vdev);
    change(ctx, &domain, |record| record.spec.full.disks.retain(|text| !is(text)))
}

/// A domain's network interfaces.
pub fn interfaces(ctx: &Ctx, which: &DomainRef) -> Result<Vec<Interface>> {
    let domain = verbs::active(ctx, "network-list", which, "it has the host's network")?;
    let nics = described(ctx, &domain)?.nics;
    let row = |(index, nic): (usize, &Nic)| Interface {
        index,
        mac: nic.address(),
        link: match &nic.link {
            Link::User { .. } => "user".to_owned(),
            Link::Bridge { bridge, .. } => bridge.clone(),
        },
    };
    Ok(nics.iter().enumerate().map(row).collect())
}

/// Brings a network interface on a bridge, in xl's words. Errors: no interface, no such bridge, as QEMU says.
pub fn attach_nic(ctx: &Ctx, which: &DomainRef, words: &[String]) -> Result<()> {
    let domain = verbs::active(ctx, "network-attach", which, "it has the host's network")?;
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    VifSpec::from_words(&texts).map_err(|why| Error::new(Kind::Usage, why))?;
    let mut record = domain.record.clone();
    if record.spec.full.vifs.is_empty() && record.spec.network != Network::None {
        let what = format!("'{}' is behind this host's address, and has one interface alone", domain.name);
        return Err(Error::general(what).hint("make the domain with vif=['bridge=…'] for interfaces on bridges"));
    }
    record.spec.full.vifs.push(texts.join(","));
    record.spec.network = Network::Host;
    if let Some(hardware) = &mut record.hardware {
        hardware.macs.push(machine::address());
    }
    let changed = Domain { record, ..domain.clone() };
    let nics = described(ctx, &changed)?.nics;
    let n = nics.len() - 1;
    let what = || format!("cannot attach a network interface to '{}'", domain.name);
    let tap = machine::tap(domain.domid().unwrap_or_default(), n, &nics[n]).map_err(because(what))?;
    let tap = tap.as_ref().map(AsFd::as_fd);
    verbs::talk(ctx, &domain)?.attach_nic(&nics[n], n, tap).map_err(because(what))?;
    let of = changed.record;
    change(ctx, &domain, |record| {
        record.spec.full.vifs = of.spec.full.vifs;
        record.spec.network = of.spec.network;
        record.hardware = of.hardware;
    })
}

/// Takes a network interface away, by its number or address: the last one. Errors: there is none, the guest keeps it.
pub fn detach_nic(ctx: &Ctx, which: &DomainRef, wanted: &str) -> Result<()> {
    let domain = verbs::active(ctx, "network-detach", which, "it has the host's network")?;
    let nics = described(ctx, &domain)?.nics;
    let is = |(index, nic): (usize, &Nic)| nic.address() == wanted || wanted.parse() == Ok(index);
    let Some(at) = nics.iter().enumerate().position(is) else {
        return Err(Error::general(format!("'{}' has no network interface '{wanted}'", domain.name)));
    };
    if at + 1 != nics.len() {
        return Err(Error::general(
            "the last network interface has to go first, or the others would change their numbers",
        ));
    }
    let what = || format!("cannot detach '{wanted}' from '{}'", domain.name);
    verbs::talk(ctx, &domain)?.detach_nic(at, PATIENCE).map_err(because(what))?;
    change(ctx, &domain, |record| {
        record.spec.full.vifs.pop();
        if record.spec.full.vifs.is_empty() {
            record.spec.network = Network::None;
        }
    })
}

/// Writes down what a domain has from now on. A reboot reads it again.
pub(super) fn change(ctx: &Ctx, domain: &Domain, with: impl FnOnce(&mut Record)) -> Result<()> {
    let mut record = ctx.store.load(domain.name.as_str())?.map_or_else(|| domain.record.clone(), |d| d.record);
    with(&mut record);
    Ok(ctx.store.write_record(&domain.name, &record)?)
}

/// The virtual CPUs of one domain, or of all that have some of their own.
pub fn vcpus(ctx: &Ctx, which: Option<&DomainRef>) -> Result<Vec<Vcpu>> {
    lifecycle::begin(ctx, "vcpu-list")?;
    let domains = match which {
        Some(which) => vec![verbs::active(ctx, "vcpu-list", which, "it has no CPUs of its own")?],
        None => ctx.store.all_domains(|_| ())?.into_iter().filter(verbs::is_ours).collect(),
    };
    let mut all = Vec::new();
    for domain in domains {
        let cpus = verbs::talk(ctx, &domain)?
            .cpus()
            .map_err(because(|| format!("cannot see the CPUs of '{}'", domain.name)))?;
        for cpu in cpus {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", cpu.thread)).unwrap_or_default();
            let (seconds, runs, last) = used(&stat);
            all.push(Vcpu {
                name: domain.name.to_string(),
                domid: domain.domid().unwrap_or_default(),
                index: cpu.index,
                seconds,
                runs,
                paused: domain.state == State::Paused,
                cpu: last,
            });
        }
    }
    Ok(all)
}

/// Of a thread's line in /proc: the time that it has used, whether it runs, and where. Source: proc_pid_stat(5).
fn used(stat: &str) -> (f64, bool, u32) {
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let number = |at: usize| fields.get(at).and_then(|word| word.parse::<u32>().ok()).unwrap_or_default();
    let ticks = f64::from(number(11)) + f64::from(number(12));
    (ticks / 100.0, fields.first() == Some(&"R"), number(36))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_line() {
        let line = "42 (CPU 0/TCG) R 1 1 1 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 5 0 100 1 1 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 -1 1 0 0";
        assert_eq!(used(line), (3.0, true, 1));
        assert_eq!(used(""), (0.0, false, 0));
    }
}
