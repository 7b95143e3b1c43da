//! From a machine to the text of an xl.cfg. Sources: xl.cfg(5), xl-disk-configuration(5), xl-network-configuration(5).
//!
//! What a newcomer would get wrong: xl can restart guests by itself, and here it may not. Every `on_…` says `preserve`, and the domain is made
//! with `xl create -F`, which stays in the foreground as the monitor's child, says why the guest ended, and leaves it as it is. The
//! other ways are worse: xl's own daemon is a process that nobody owns (if it is killed, a guest that has ended stays half dead for ever)
//! and it starts the next run with a new domid behind our back; `xl create -e` leaves nobody who is told of the end, so that it must be asked for.
//! So one place, the monitor, decides what follows an end, for QEMU's guests and for Xen's. The one exception is a soft reset (kexec in the guest),
//! which only xl can do, and which keeps the domid: it has xl's default.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::{Boot, Disk, Format, Link, Machine, Nic};

/// How a guest is virtualized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// By the guest's own kernel, without the CPU's help: amd64 only.
    Pv,
    /// By the CPU, without emulated devices; every guest on ARM is one.
    Pvh,
}

impl Kind {
    /// xl's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Pv => "pv",
            Kind::Pvh => "pvh",
        }
    }
}

/// What a machine wants that xl cannot express.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A number makes no sense.
    #[error("{what} must be at least {least}, not {value}")]
    TooLittle {
        /// Of what.
        what: &'static str,
        /// What was asked.
        value: u64,
        /// The least that is possible.
        least: u64,
    },
    /// A text that xl would read as another one, or not at all.
    #[error("Xen cannot have {what} {text:?}: {why}")]
    Text {
        /// What it is.
        what: &'static str,
        /// The text.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something that Xen's guests do not have.
    #[error("Xen's guests have no {what}: {instead}")]
    Unknown {
        /// What was asked for.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// Two disks of one name.
    #[error("two disks are called {0}: give each its own name")]
    Twice(String),
}

/// The text of the machine's xl.cfg. Pure. Memory is rounded up to whole MiB, which are xl's unit. Errors: [`Error`].
pub fn text(machine: &Machine, kind: Kind) -> Result<String, Error> {
    let mut file = File::default();
    file.comment("Written by pronto for each run of the domain, which itself decides what follows the run's end.");
    file.text("name", "the name", name(&machine.name)?)?;
    file.text("uuid", "the UUID", uuid(&machine.uuid)?)?;
    file.text("type", "the type", kind.word())?;
    memory(&mut file, machine)?;
    cpus(&mut file, machine)?;
    boot(&mut file, machine, kind)?;
    let disks = machine.disks.iter().map(disk).collect::<Result<Vec<_>, _>>()?;
    let mut names = BTreeSet::new();
    if let Some(twice) = machine.disks.iter().find(|d| !names.insert(&d.vdev)) {
        return Err(Error::Twice(twice.vdev.clone()));
    }
    file.list("disk", "a disk", &disks)?;
    file.list("vif", "a network interface", &machine.nics.iter().map(nic).collect::<Result<Vec<_>, _>>()?)?;
    for event in ["poweroff", "reboot", "crash", "watchdog"] {
        file.text(&format!("on_{event}"), "an action", "preserve")?;
    }
    Ok(file.0)
}

/// A name that xl tells from a domid, and that can be part of a file's name (its console's log).
fn name(name: &str) -> Result<&str, Error> {
    let refuse = |why| Error::Text { what: "the name", text: name.to_owned(), why };
    if name.is_empty() {
        return Err(refuse("it is empty"));
    }
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse("xl takes a number for a domid"));
    }
    if name.contains('/') || name.starts_with('-') {
        return Err(refuse("it must not contain a slash or begin with a dash"));
    }
    Ok(name)
}

fn uuid(text: &str) -> Result<&str, Error> {
    let dashes = [8, 13, 18, 23];
    let right = |(at, b): (usize, u8)| if dashes.contains(&at) { b == b'-' } else { b.is_ascii_hexdigit() };
    if text.len() == 36 && text.bytes().enumerate().all(right) {
        return Ok(text);
    }
    Err(Error::Text { what: "the UUID", text: text.to_owned(), why: "it is not five groups of hexadecimal digits" })
}

fn at_least(what: &'static str, value: u64, least: u64) -> Result<u64, Error> {
    if value < least { Err(Error::TooLittle { what, value, least }) } else { Ok(value) }
}

const MIB: u64 = 1 << 20;

fn memory(file: &mut File, machine: &Machine) -> Result<(), Error> {
    let now = at_least("memory, in bytes,", machine.memory, 1)?.div_ceil(MIB);
    file.number("memory", now);
    if let Some(most) = machine.max_memory {
        file.number("maxmem", at_least("the most memory, in MiB,", most.div_ceil(MIB), now)?);
    }
    Ok(())
}

fn cpus(file: &mut File, machine: &Machine) -> Result<(), Error> {
    let now = at_least("the number of CPUs", u64::from(machine.vcpus), 1)?;
    file.number("vcpus", now);
    if let Some(most) = machine.max_vcpus {
        file.number("maxvcpus", at_least("the most CPUs", u64::from(most), now)?);
    }
    Ok(())
}

fn boot(file: &mut File, machine: &Machine, kind: Kind) -> Result<(), Error> {
    match &machine.boot {
        Boot::Kernel { kernel, ramdisk, cmdline } => {
            file.path("kernel", "the kernel", kernel)?;
            if let Some(ramdisk) = ramdisk {
                file.path("ramdisk", "the initial RAM disk", ramdisk)?;
            }
            // Not `extra`: xl puts a `root=` before that one.
            file.text("cmdline", "the kernel's command line", cmdline)
        }
        // Firmware built for Xen (edk2's ArmVirtXen, OvmfXen) is loaded as a kernel is; `firmware=` means other things.
        Boot::Firmware { code, variables: None } if kind == Kind::Pvh => file.path("kernel", "the firmware", code),
        Boot::Firmware { variables: Some(_), .. } => Err(Error::Unknown {
            what: "firmware that keeps variables",
            instead: "leave them out, or use QEMU (--backend qemu)",
        }),
        Boot::Firmware { .. } => Err(Error::Unknown {
            what: "firmware when they are of type pv",
            instead: "use type pvh, or QEMU (--backend qemu)",
        }),
        Boot::Itself if machine.disks.iter().any(|d| d.source.is_some()) => {
            // It reads the first disk in dom0 and hands out the kernel that it finds there.
            file.text("bootloader", "the boot loader", "pygrub")
        }
        Boot::Itself => Err(Error::Unknown {
            what: "way to start without a disk or a kernel",
            instead: "give a disk that holds a kernel, or kernel=",
        }),
    }
}

/// A disk in the form of xl-disk-configuration(5), all by name: a file's name may hold anything then, since it comes last.
fn disk(disk: &Disk) -> Result<String, Error> {
    if !is_vdev(&disk.vdev) {
        let why = "disks are called xvda, xvdb … (or sda …, hda …)";
        return Err(Error::Text { what: "a disk of the name", text: disk.vdev.clone(), why });
    }
    let mut words = vec![format!("vdev={}", disk.vdev)];
    words.push(format!("access={}", if disk.read_only || disk.cdrom { "ro" } else { "rw" }));
    if disk.cdrom {
        words.push("devtype=cdrom".to_owned());
    }
    match &disk.source {
        Some(source) => {
            let path = absolute("a disk", source)?;
            words.insert(0, format!("format={}", if disk.format == Format::Raw { "raw" } else { "qcow2" }));
            // One comma at the end is taken for the end of the list of words, so a name with one needs another.
            words.push(format!("target={path}{}", if path.ends_with(',') { "," } else { "" }));
        }
        None if disk.cdrom => {}
        None => {
            return Err(Error::Unknown {
                what: "empty disks",
                instead: "give each disk a file, or make it a CD drive",
            });
        }
    }
    Ok(words.join(","))
}

/// Whether libxl takes it for a disk's name: `xvda2`, `hdc`, `d3p1`. Source: xen-vbd-interface(7).
fn is_vdev(name: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.len() <= 4 && t.bytes().all(|b| b.is_ascii_digit());
    let numbered = |t: &str| match t.split_once('p') {
        Some((disk, partition)) => digits(disk) && digits(partition),
        None => digits(t),
    };
    let lettered = |t: &str| {
        let rest = t.trim_start_matches(|c: char| c.is_ascii_lowercase());
        (1..=3).contains(&(t.len() - rest.len())) && (rest.is_empty() || digits(rest))
    };
    let word = ["xvd", "hd", "sd"].iter().find_map(|p| name.strip_prefix(p));
    word.map_or_else(|| name.strip_prefix('d').is_some_and(numbered), lettered)
}

/// An interface in the form of xl-network-configuration(5).
fn nic(nic: &Nic) -> Result<String, Error> {
    let (bridge, name) = match &nic.link {
        Link::Bridge { bridge, name } => (bridge, name),
        Link::User { .. } => {
            return Err(Error::Unknown {
                what: "network of their own behind the host's address",
                instead: "connect them to a bridge (vif=bridge=NAME), or use QEMU (--backend qemu)",
            });
        }
    };
    let mut words = vec![format!("mac={}", nic.address()), format!("bridge={}", interface(bridge)?)];
    if let Some(name) = name {
        words.push(format!("vifname={}", interface(name)?));
    }
    Ok(words.join(","))
}

/// A name that the kernel takes for a network interface (`dev_valid_name`), without the comma, at which xl splits.
fn interface(name: &str) -> Result<&str, Error> {
    let plain = |b: u8| b.is_ascii_graphic() && !b"/:,".contains(&b);
    if (1..16).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".." {
        return Ok(name);
    }
    let why = "such names have 1 to 15 characters, none of them a blank, comma, colon or slash";
    Err(Error::Text { what: "a network interface of the name", text: name.to_owned(), why })
}

/// xl would look for any other path in its own directory, or in /dev.
fn absolute<'p>(what: &'static str, path: &'p Path) -> Result<&'p str, Error> {
    let refuse = |why| Error::Text { what, text: path.to_string_lossy().into_owned(), why };
    // libxl keeps the configuration as JSON, which knows no other bytes.
    let text = path.to_str().ok_or_else(|| refuse("its path is not UTF-8"))?;
    if path.is_absolute() { Ok(text) } else { Err(refuse("its path must begin with a slash")) }
}

/// The file, as far as it is written.
#[derive(Debug, Default)]
struct File(String);

impl File {
    fn comment(&mut self, text: &str) {
        self.0 += &format!("# {text}\n");
    }

    fn number(&mut self, key: &str, value: u64) {
        self.0 += &format!("{key} = {value}\n");
    }

    fn text(&mut self, key: &str, what: &'static str, value: &str) -> Result<(), Error> {
        self.0 += &format!("{key} = {}\n", quoted(what, value)?);
        Ok(())
    }

    fn path(&mut self, key: &str, what: &'static str, path: &Path) -> Result<(), Error> {
        self.text(key, what, absolute(what, path)?)
    }

    fn list(&mut self, key: &str, what: &'static str, values: &[String]) -> Result<(), Error> {
        if values.is_empty() {
            return Ok(());
        }
        self.0 += &format!("{key} = [\n");
        for value in values {
            self.0 += &format!("    {},\n", quoted(what, value)?);
        }
        self.0 += "]\n";
        Ok(())
    }
}

/// A string of xl.cfg's grammar. Only the quote and the backslash need one before them; control characters are refused, since xl's disks
/// end at a line's end, its file at a zero byte, and a kernel's words at neither.
fn quoted(what: &'static str, text: &str) -> Result<String, Error> {
    if text.chars().any(char::is_control) {
        return Err(Error::Text { what, text: text.to_owned(), why: "it holds a control character" });
    }
    Ok(format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#)))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
