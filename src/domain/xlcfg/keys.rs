//! Every key of xl.cfg(5) and of pronto's own, and what each backend does with it. What a newcomer would get wrong: this table is a promise. A
//! key is `OBEYED` only where a driver does what it says, and what a configuration holds beyond that is named to the user
//! ([`Config::unheeded`]), never dropped in silence. docs/xl-cfg.md shows the table; a test compares them.
//! Source: Xen, tools/xl/xl_parse.c.

use std::fmt;

use super::config::Config;
use super::disk::{DiskFormat, DiskSpec};
use super::error::{Error, Place};
pub use super::table::KEYS;
use super::vif::VifSpec;
use crate::domain::near;

/// Who runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// systemd-nspawn: the host's kernel.
    Kaxon,
    /// QEMU.
    Qemu,
    /// Xen.
    Xen,
}

/// What a backend does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// What it says.
    Obeyed,
    /// xl gets it as it is.
    Passed,
    /// Nothing.
    Nothing,
}

/// What a key's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// A text.
    Text,
    /// A number.
    Number,
    /// A number of MiB, or a text with a unit.
    Size,
    /// 0 or 1.
    Truth,
    /// 0 or 1, or a word: pronto's own.
    Word,
    /// A list.
    List,
    /// A text or a list.
    Either,
}

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub shape: Shape,
    pub(super) kaxon: Use,
    pub(super) qemu: Use,
    pub(super) xen: Use,
}

/// What a configuration says that a backend does not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheeded {
    /// The key, or a word of a device: `hap`, `disk: script`.
    pub key: String,
    /// Where it stands.
    pub place: Place,
    /// Why.
    pub why: Why,
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Others do what it says, this backend does not.
    Elsewhere(Backend),
    /// It is of an older time, and nobody does anything with it.
    Nowhere,
    /// Another key counts in its place.
    Overruled(&'static str),
    /// Nobody knows the key; these are near.
    Unknown(Vec<&'static str>),
}

impl Backend {
    /// What users call it.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Kaxon => "kaxon",
            Backend::Qemu => "QEMU",
            Backend::Xen => "Xen",
        }
    }
}

impl Key {
    /// What a backend does with it.
    pub fn on(&self, backend: Backend) -> Use {
        match backend {
            Backend::Kaxon => self.kaxon,
            Backend::Qemu => self.qemu,
            Backend::Xen => self.xen,
        }
    }
}

/// A known key.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.binary_search_by(|key| key.name.cmp(name)).ok().map(|at| &KEYS[at])
}

impl Unheeded {
    fn of(&self) -> &'static str {
        if self.key.starts_with('\'') { "key" } else { "word of it" }
    }
}

impl fmt::Display for Unheeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, key) = (&self.place, &self.key);
        match &self.why {
            Why::Elsewhere(backend) => write!(f, "{place}: {key} does nothing on {}", backend.name()),
            Why::Nowhere => write!(f, "{place}: {key} does nothing any more"),
            Why::Overruled(by) => write!(f, "{place}: {key} does nothing beside {by}"),
            Why::Unknown(near) if near.is_empty() => write!(f, "{place}: {key} is no {}, and does nothing", self.of()),
            Why::Unknown(near) => {
                write!(f, "{place}: {key} is no {}, and does nothing; did you mean {}?", self.of(), near.join(" or "))
            }
        }
    }
}

impl Config {
    /// What this backend does nothing with, each once, in the order of the file: keys, and words of disks and interfaces. Devices that cannot be
    /// read are passed over; [`Config::check`] is for those.
    pub fn unheeded(&self, backend: Backend) -> Vec<Unheeded> {
        let mut all = Vec::new();
        for entry in self.entries() {
            let mut say = |key: String, place: &Place, why| all.push(Unheeded { key, place: place.clone(), why });
            let name = || super::error::shown(&entry.key);
            match find(&entry.key) {
                None => {
                    say(name(), &entry.place, Why::Unknown(near::nearest(&entry.key, KEYS.iter().map(|key| key.name))));
                }
                Some(key) if key.on(backend) == Use::Nothing => {
                    let others = [Backend::Kaxon, Backend::Qemu, Backend::Xen]
                        .iter()
                        .any(|&other| key.on(other) != Use::Nothing);
                    say(name(), &entry.place, if others { Why::Elsewhere(backend) } else { Why::Nowhere });
                }
                Some(key) => {
                    if let Some(by) = self.overruled(key.name) {
                        say(name(), &entry.place, Why::Overruled(by));
                    }
                    for (word, place, why) in self.device_words(key.name, backend) {
                        say(format!("{}: {word}", key.name), place, why);
                    }
                }
            }
        }
        all
    }

    fn overruled(&self, key: &str) -> Option<&'static str> {
        let by = match key {
            "root" | "extra" => "cmdline",
            "bios" => "firmware",
            _ => return None,
        };
        self.get(by).map(|_| by)
    }

    fn device_words(&self, key: &str, backend: Backend) -> Vec<(String, &Place, Why)> {
        let mut all = Vec::new();
        for (text, place) in self.texts(key).unwrap_or_default() {
            let words = match key {
                "disk" => DiskSpec::parse(&[text]).map(|disk| (disk_words(&disk), Vec::new())),
                "vif" => VifSpec::parse(text).map(|vif| (vif_words(&vif), vif.unknown)),
                _ => return all,
            };
            let (only_xen, unknown) = words.unwrap_or_default();
            all.extend(
                unknown.iter().map(|word| (super::error::shown(word), place, Why::Unknown(super::vif::near(word)))),
            );
            if backend == Backend::Qemu {
                all.extend(only_xen.into_iter().map(|word| (format!("'{word}'"), place, Why::Elsewhere(backend))));
            }
        }
        all
    }

    /// Whether each key's value is what xl takes for it. Errors: the first that is not.
    pub(super) fn check_shapes(&self) -> Result<(), Error> {
        for entry in self.entries() {
            let name = &entry.key;
            match find(name).map(|key| key.shape) {
                Some(Shape::Text | Shape::Size) => self.text(name).map(drop)?,
                Some(Shape::Number | Shape::Truth) => self.number(name).map(drop)?,
                Some(Shape::Word) => self.truth(name).map(drop)?,
                Some(Shape::List) => self.list(name).map(drop)?,
                Some(Shape::Either) | None => {}
            }
        }
        Ok(())
    }
}

/// What only Xen does with a disk.
fn disk_words(disk: &DiskSpec) -> Vec<&'static str> {
    let vhd = matches!(disk.format, DiskFormat::Qcow | DiskFormat::Vhd | DiskFormat::Qed);
    let said = [
        (vhd, "format"),
        (disk.backend.is_some(), "backend"),
        (disk.backendtype.is_some(), "backendtype"),
        (disk.script.is_some(), "script"),
        (disk.virtio == Some(false), "specification"),
        (disk.direct_io_safe, "direct-io-safe"),
        (disk.discard.is_some(), "discard"),
        (disk.trusted.is_some(), "trusted"),
        (disk.grant_usage.is_some(), "grant_usage"),
        (!disk.colo.is_empty(), "colo"),
    ];
    said.into_iter().filter(|(said, _)| *said).map(|(_, word)| word).collect()
}

/// What only Xen does with an interface.
fn vif_words(vif: &VifSpec) -> Vec<&'static str> {
    let said = [
        (vif.gatewaydev.is_some(), "gatewaydev"),
        (vif.kind.is_some(), "type"),
        (vif.model.is_some(), "model"),
        (vif.script.is_some(), "script"),
        (vif.ip.is_some(), "ip"),
        (vif.backend.is_some(), "backend"),
        (vif.rate.is_some(), "rate"),
        (vif.devid.is_some(), "devid"),
        (vif.mtu.is_some(), "mtu"),
        (vif.vlan.is_some(), "vlan"),
        (vif.trusted.is_some(), "trusted"),
        (!vif.colo.is_empty(), "colo"),
    ];
    said.into_iter().filter(|(said, _)| *said).map(|(_, word)| word).collect()
}
