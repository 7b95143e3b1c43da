//! Disks, network interfaces and CPUs of a running guest: seen, brought and taken. What a newcomer would get wrong: what is brought stays over a reboot, as in xl,
//! so it is written down with the domain; and taking away is a request, which a guest that uses the disk does not grant.

use std::os::fd::AsFd;
use std::time::Duration;

use super::{machine, verbs};
use crate::backend::hexagon::qemu::parts;
use crate::backend::hexagon::{Disk, Link, Nic};
use crate::domain::xlcfg::disk::DiskSpec;
use crate::domain::xlcfg::vif::VifSpec;
use crate::domain::{DomainRef, Network};
use crate::ops::{Ctx, Error, Kind, Result};
use crate::store::domains::{Domain, Record};
use crate::sys::tap;

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

fn described(ctx: &Ctx, domain: &Domain) -> Result<crate::backend::hexagon::Machine> {
    let dir = ctx.store.domain(domain.name.as_str());
    machine::describe(&domain.record, &domain.name, &dir).map_err(Error::general)
}

/// Xen's number of a disk: a virtual disk's major and minor, or beyond the 16th its extended form. Source: xen-vbd-interface(7).
fn number(vdev: &str) -> u32 {
    match parts::number(vdev) {
        Ok(n) if n < 16 => (202 << 8) | (n << 4),
        Ok(n) => (1 << 28) | (n << 8),
        Err(_) => 0,
    }
}

/// A domain's disks.
pub fn blocks(ctx: &Ctx, which: &DomainRef) -> Result<Vec<Block>> {
    let domain = verbs::active(ctx, which, "it has no disks")?;
    let disks = described(ctx, &domain)?.disks;
    let block = |disk: &Disk| Block {
        id: number(&disk.vdev),
        vdev: disk.vdev.clone(),
        source: disk.source.as_ref().map(|path| path.display().to_string()),
    };
    Ok(disks.iter().map(block).collect())
}

/// Brings a disk, in xl's words. Errors: no disk, a place that is taken, as QEMU says; then nothing has changed.
pub fn attach_block(ctx: &Ctx, which: &DomainRef, words: &[String]) -> Result<()> {
    let domain = verbs::active(ctx, which, "no disk can be attached: show it a directory with -v")?;
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    let wrong = |why: String| Error::new(Kind::Usage, why);
    let spec = DiskSpec::parse(&texts).map_err(wrong)?;
    let disk = machine::disk(&spec).map_err(wrong)?;
    if disk.cdrom {
        return Err(wrong("a CD drive cannot be attached to a running guest, but a disk can".into()));
    }
    let taken = described(ctx, &domain)?.disks.iter().any(|d| parts::number(&d.vdev) == parts::number(&disk.vdev));
    if taken {
        return Err(Error::general(format!("'{}' has a disk '{}' already", domain.name, disk.vdev)));
    }
    let cannot = |e: &dyn std::fmt::Display| {
        Error::general(format!("cannot attach '{}' to '{}'", disk.vdev, domain.name)).because(e.to_string())
    };
    let files = machine::open(std::slice::from_ref(&disk)).map_err(|e| cannot(&e))?;
    let file = files.first().map(|(_, file)| file.as_fd());
    verbs::talk(ctx, &domain)?.attach_disk(&disk, domain.record.spec.rm, file).map_err(|e| cannot(&e))?;
    change(ctx, &domain, |record| record.spec.full.disks.push(texts.join(",")))
}

/// Takes a disk away, by its name or Xen's number. Errors: there is none, it is the root, the guest keeps it.
pub fn detach_block(ctx: &Ctx, which: &DomainRef, wanted: &str) -> Result<()> {
    let domain = verbs::active(ctx, which, "it has no disks")?;
    let disks = described(ctx, &domain)?.disks;
    let by = |disk: &&Disk| disk.vdev == wanted || wanted.parse() == Ok(number(&disk.vdev));
    let Some(disk) = disks.iter().find(by) else {
        return Err(Error::general(format!("'{}' has no disk '{wanted}'", domain.name))
            .hint(format!("pronto block-list {}", domain.name)));
    };
    if disk.source == disks[0].source {
        return Err(Error::general(format!("'{}' is the root of '{}'", disk.vdev, domain.name)));
    }
    let cannot = |e: &dyn std::fmt::Display| {
        Error::general(format!("cannot detach '{}' from '{}'", disk.vdev, domain.name)).because(e.to_string())
    };
    verbs::talk(ctx, &domain)?.detach_disk(disk, PATIENCE).map_err(|e| cannot(&e))?;
    let is = |text: &String| DiskSpec::parse(&[text.as_str()]).is_ok_and(|spec| spec.vdev == disk.vdev);
    change(ctx, &domain, |record| record.spec.full.disks.retain(|text| !is(text)))
}

/// A domain's network interfaces.
pub fn interfaces(ctx: &Ctx, which: &DomainRef) -> Result<Vec<Interface>> {
    let domain = verbs::active(ctx, which, "it has the host's network")?;
    let nics = described(ctx, &domain)?.nics;
    let row = |(index, nic): (usize, &Nic)| Interface {
        index,
        mac: nic.mac.map(|byte| format!("{byte:02x}")).join(":"),
        link: match &nic.link {
            Link::User { .. } => "user".to_owned(),
            Link::Bridge { bridge, .. } => bridge.clone(),
        },
    };
    Ok(nics.iter().enumerate().map(row).collect())
}

/// Brings a network interface on a bridge, in xl's words. Errors: no interface, no such bridge, as QEMU says.
pub fn attach_nic(ctx: &Ctx, which: &DomainRef, words: &[String]) -> Result<()> {
    let domain = verbs::active(ctx, which, "it has the host's network")?;
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    let spec = VifSpec::from_words(&texts).map_err(|why| Error::new(Kind::Usage, why))?;
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
    let cannot = |e: &dyn std::fmt::Display| {
        Error::general(format!("cannot attach a network interface to '{}'", domain.name)).because(e.to_string())
    };
    let tap = match &nics[n].link {
        Link::Bridge { bridge, .. } => {
            Some(tap::on_bridge(&tap_name(&spec, &domain, n), bridge).map_err(|e| cannot(&e))?.0)
        }
        Link::User { .. } => None,
    };
    let tap = tap.as_ref().map(std::os::fd::AsFd::as_fd);
    verbs::talk(ctx, &domain)?.attach_nic(&nics[n], n, tap).map_err(|e| cannot(&e))?;
    let (vifs, macs) =
        (changed.record.spec.full.vifs.clone(), changed.record.hardware.map(|h| h.macs).unwrap_or_default());
    change(ctx, &domain, |record| {
        record.spec.full.vifs = vifs;
        record.spec.network = Network::Host;
        if let Some(hardware) = &mut record.hardware {
            hardware.macs = macs;
        }
    })
}

/// The host's end is called as xl would call it, unless it was given a name.
fn tap_name(spec: &VifSpec, domain: &Domain, n: usize) -> String {
    spec.vifname.clone().unwrap_or_else(|| machine::tap_name(domain.domid().unwrap_or_default(), n))
}

/// Takes a network interface away, by its number or address: the last one. Errors: there is none, the guest keeps it.
pub fn detach_nic(ctx: &Ctx, which: &DomainRef, wanted: &str) -> Result<()> {
    let domain = verbs::active(ctx, which, "it has the host's network")?;
    let all = interfaces(ctx, which)?;
    let row = all.iter().find(|row| row.mac == wanted || wanted.parse() == Ok(row.index));
    let row = row.ok_or_else(|| Error::general(format!("'{}' has no network interface '{wanted}'", domain.name)))?;
    if row.index + 1 != all.len() {
        return Err(Error::general(
            "the last network interface has to go first, or the others would change their numbers",
        ));
    }
    let cannot = |e: &dyn std::fmt::Display| {
        Error::general(format!("cannot detach '{wanted}' from '{}'", domain.name)).because(e.to_string())
    };
    verbs::talk(ctx, &domain)?.detach_nic(row.index, PATIENCE).map_err(|e| cannot(&e))?;
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
    let domains = match which {
        Some(which) => vec![verbs::active(ctx, which, "it has no CPUs of its own")?],
        None => ctx.store.all_domains(|_| ())?.into_iter().filter(verbs::is_ours).collect(),
    };
    let mut all = Vec::new();
    for domain in domains {
        let cpus = verbs::talk(ctx, &domain)?.cpus().map_err(|e| Error::general(e.to_string()))?;
        for cpu in cpus {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", cpu.thread)).unwrap_or_default();
            let (seconds, runs, last) = used(&stat);
            all.push(Vcpu {
                name: domain.name.to_string(),
                domid: domain.domid().unwrap_or_default(),
                index: cpu.index,
                seconds,
                runs,
                paused: domain.state == crate::domain::State::Paused,
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
    fn numbers_are_xens() {
        assert_eq!(["xvda", "xvdb", "xvdp", "vda"].map(number), [51712, 51728, 51952, 51712]);
        assert_eq!(number("xvdq"), (1 << 28) | (16 << 8));
    }

    #[test]
    fn a_threads_line() {
        let line = "42 (CPU 0/TCG) R 1 1 1 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 5 0 100 1 1 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 -1 1 0 0";
        assert_eq!(used(line), (3.0, true, 1));
        assert_eq!(used(""), (0.0, false, 0));
    }
}
