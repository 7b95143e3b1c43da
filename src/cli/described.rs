//! What a configuration says, as a domain is told it. What a newcomer would get wrong: only what the backend obeys comes through. The rest was
//! named to the user ([`Config::unheeded`]), and must not be stored as if it had been done. Disks and interfaces stay the texts that they were.

use std::collections::BTreeSet;

use super::{choices, words};
use crate::domain::xlcfg::affinity::{Affinity, CpuSet, Part};
use crate::domain::xlcfg::disk::{DiskFormat, DiskSpec};
use crate::domain::xlcfg::keys::{self, Use};
use crate::domain::xlcfg::vif::VifSpec;
use crate::domain::xlcfg::{Accelerator, Config, Error, Event, Place, Reaction};
use crate::domain::{Action, Backend, Name, Network, Registry};

/// What is none was not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// `name`.
    pub name: Option<Name>,
    /// `image`, as it was written.
    pub image: Option<String>,
    /// `arch`.
    pub arch: Option<String>,
    /// `memory`, in bytes.
    pub memory: Option<u64>,
    /// `maxmem`, in bytes.
    pub maxmem: Option<u64>,
    /// `vcpus`.
    pub vcpus: Option<u32>,
    /// `maxvcpus`.
    pub max_vcpus: Option<u32>,
    /// `cpus`, in cpuset's list form.
    pub cpus: Option<String>,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `network`.
    pub network: Option<Network>,
    /// `userns`.
    pub userns: Option<bool>,
    /// `binfmt`.
    pub binfmt: Option<Registry>,
    /// `accel`.
    pub accel: Option<Accelerator>,
    /// `accel_exclude`, names with commas between them.
    pub accel_exclude: Option<Vec<String>>,
    /// `kernel`, as it was written.
    pub kernel: Option<String>,
    /// `ramdisk`, as it was written.
    pub ramdisk: Option<String>,
    /// The kernel's words: `cmdline`, or `root` and `extra`.
    pub cmdline: Option<String>,
    /// `disk`, in xl's words.
    pub disks: Vec<String>,
    /// `vif`, in xl's words.
    pub vifs: Vec<String>,
    /// `on_poweroff`.
    pub on_poweroff: Option<Action>,
    /// `on_reboot`.
    pub on_reboot: Option<Action>,
    /// `on_crash`.
    pub on_crash: Option<Action>,
}

/// The same backend, as the table of keys has it.
pub fn column(backend: Backend) -> keys::Backend {
    match backend {
        Backend::Nspawn => keys::Backend::Kaxon,
        Backend::Qemu => keys::Backend::Qemu,
        Backend::Xen => keys::Backend::Xen,
    }
}

/// Reads what this backend obeys. Errors: a value that cannot be, or that this backend cannot do.
pub fn described(config: &Config, backend: Backend) -> Result<Described, Error> {
    let config = &heeded(config, backend);
    let text = |key| config.filled(key).map(|text| text.map(str::to_owned));
    Ok(Described {
        name: config.name()?,
        image: text("image")?,
        arch: text("arch")?,
        memory: config.memory()?,
        maxmem: config.maxmem()?,
        vcpus: config.vcpus()?,
        max_vcpus: config.maxvcpus()?,
        cpus: cpus(config)?,
        hostname: read(config, "hostname", words::hostname)?,
        network: read(config, "network", choices::network)?,
        userns: config.truth("userns")?,
        binfmt: read(config, "binfmt", choices::registry)?,
        accel: config.accel()?,
        accel_exclude: text("accel_exclude")?.map(|names| names.split(',').map(str::to_owned).collect()),
        kernel: text("kernel")?,
        ramdisk: text("ramdisk")?,
        cmdline: config.kernel_words()?,
        disks: devices(config, "disk", |text| disk(text, backend))?,
        vifs: devices(config, "vif", vif)?,
        on_poweroff: action(config, Event::Poweroff, backend)?,
        on_reboot: action(config, Event::Reboot, backend)?,
        on_crash: action(config, Event::Crash, backend)?,
    })
}

/// The configuration without the keys that the backend does nothing with.
fn heeded(config: &Config, backend: Backend) -> Config {
    let mut rest = config.clone();
    for entry in config.entries() {
        if keys::find(&entry.key).is_none_or(|key| key.on(column(backend)) == Use::Nothing) {
            rest.remove(&entry.key);
        }
    }
    rest
}

/// What is wrong with a key's value, with its place.
pub fn wrong(config: &Config, key: &str, why: &str) -> Error {
    let place = config.get(key).map_or_else(Place::program, |entry| entry.value.place().clone());
    Error { place, what: format!("{key}: {why}"), hint: None }
}

fn read<T>(config: &Config, key: &str, reader: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, Error> {
    config.filled(key)?.map(|text| reader(text).map_err(|why| wrong(config, key, &why))).transpose()
}

fn devices(config: &Config, key: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<Vec<String>, Error> {
    let checked = |(text, place): (&str, &Place)| {
        check(text).map_err(|why| Error { place: place.clone(), what: format!("{key}: {why}"), hint: None })?;
        Ok(text.to_owned())
    };
    config.texts(key)?.into_iter().map(checked).collect()
}

/// Whether a backend can have a disk. Errors: it cannot, or it is none.
pub fn disk(text: &str, backend: Backend) -> Result<(), String> {
    let spec = DiskSpec::parse(&[text])?;
    match spec.format {
        DiskFormat::Qcow | DiskFormat::Vhd | DiskFormat::Qed if backend == Backend::Qemu => {
            Err(format!("a disk of the format {} cannot be had on QEMU: raw or qcow2", spec.format.name()))
        }
        _ => Ok(()),
    }
}

/// Whether a text is a network interface; without a bridge it is behind this host's address. Errors: it is none.
pub fn vif(text: &str) -> Result<(), String> {
    VifSpec::parse(text).map(drop)
}

/// Whether disks have names of their own, CDs apart from the others, as QEMU's machines have it; `root` says that one is made from the image besides. Errors: the name that is there twice.
pub fn apart(disks: &[String], root: bool) -> Result<(), String> {
    let mut taken = BTreeSet::new();
    for text in disks {
        let spec = DiskSpec::parse(&[text.as_str()])?;
        let Some(drive) = spec.drive() else { continue };
        if root && drive.disk == 0 && !spec.cdrom {
            return Err(format!("the disk {} is made from the image: call this one xvdb", spec.vdev));
        }
        if !taken.insert((spec.cdrom, drive.disk)) {
            return Err(format!("{} is the name of two disks (xvdb, sdb and hdb are the same place)", spec.vdev));
        }
    }
    Ok(())
}

fn action(config: &Config, event: Event, backend: Backend) -> Result<Option<Action>, Error> {
    let Some(reaction) = config.reaction(event)? else { return Ok(None) };
    let cannot = |why: &str| Err(wrong(config, event.key(), &format!("'{}' {why}", reaction.word())));
    let possible = match backend {
        Backend::Nspawn => "destroy or restart",
        Backend::Qemu | Backend::Xen => "destroy, restart, preserve, coredump-destroy or coredump-restart",
    };
    let action = match reaction {
        Reaction::Destroy => Action::Destroy,
        Reaction::Restart => Action::Restart,
        Reaction::Preserve => Action::Preserve,
        Reaction::CoredumpDestroy => Action::CoredumpDestroy,
        Reaction::CoredumpRestart => Action::CoredumpRestart,
        Reaction::RenameRestart | Reaction::SoftReset => return cannot(&format!("cannot be done yet: {possible}")),
    };
    match (backend, action) {
        (Backend::Nspawn, Action::Preserve | Action::CoredumpDestroy | Action::CoredumpRestart) => {
            cannot(&format!("needs a guest with a kernel of its own (backend=qemu): here it is {possible}"))
        }
        _ => Ok(Some(action)),
    }
}

/// `cpus` for a cgroup, which knows one set for all of a guest's CPUs. Errors: a set for each, NUMA nodes, no CPU.
fn cpus(config: &Config) -> Result<Option<String>, Error> {
    let cannot = |why: &str| Err(wrong(config, "cpus", why));
    match config.cpus()? {
        None => Ok(None),
        Some(Affinity::Same(set)) => cpuset(&set).map_err(|why| wrong(config, "cpus", &why)),
        Some(Affinity::Each(_)) => {
            cannot("a guest that shares the kernel has one set for all of its CPUs: write cpus=\"0-3,5\"")
        }
    }
}

/// A set in cpuset's list form; none for all of them.
fn cpuset(set: &CpuSet) -> Result<Option<String>, String> {
    if set.parts() == [Part::All] {
        return Ok(None);
    }
    let mut chosen = BTreeSet::new();
    for part in set.parts() {
        match *part {
            Part::Cpus { first, last, out: true } => chosen.retain(|cpu| !(first..=last).contains(cpu)),
            Part::Cpus { first, last, out: false } => chosen.extend(first..=last),
            Part::All => return Err("'all' stands alone: write the CPUs' numbers, as 0-3,5".to_owned()),
            Part::Nodes { .. } => {
                return Err("NUMA nodes mean nothing here: write the CPUs' numbers, as 0-3,5".to_owned());
            }
        }
    }
    if chosen.is_empty() {
        return Err("no CPU is left".to_owned());
    }
    Ok(Some(words::ranges(&chosen)))
}

#[cfg(test)]
#[path = "described_tests.rs"]
mod tests;
