//! A disk in words: `/srv/web.img,qcow2,xvda,rw` or `format=qcow2,vdev=xvda,access=rw,target=/srv/web.img`. What a newcomer would get wrong:
//! `target=` takes all that follows, commas too, so it comes last; a word without `=` fills the next free place of target, format, vdev,
//! access; and an empty place counts. Source: xl-disk-configuration(5); Xen, tools/libs/util/libxlu_disk_l.l.

use std::fmt;

use super::drive::Drive;
use super::error::shown;
use crate::domain::near;

/// A disk as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// The file or block device; `/dev` comes before a path that does not begin with `/`. None: an empty drive. With a `script` it is what
    /// the script makes something of.
    pub target: Option<String>,
    /// How the content is kept.
    pub format: DiskFormat,
    /// The disk's name, which [`Drive::parse`] understands.
    pub vdev: String,
    /// Whether the guest may only read it; so it is with every CD.
    pub read_only: bool,
    /// Whether it is a CD.
    pub cdrom: bool,
    /// The domain that drives it.
    pub backend: Option<String>,
    /// What drives it.
    pub backendtype: Option<BackendType>,
    /// The script that makes a block device of the target.
    pub script: Option<String>,
    /// Whether the guest sees it by virtio instead of Xen's protocol.
    pub virtio: Option<bool>,
    /// Whether writes around the host's cache are safe.
    pub direct_io_safe: bool,
    /// Whether the guest may give space back.
    pub discard: Option<bool>,
    /// Whether the guest trusts the backend.
    pub trusted: Option<bool>,
    /// Whether the guest's memory is reached by grants (virtio).
    pub grant_usage: Option<bool>,
    /// xl's words for COLO, which only Xen has a use for.
    pub colo: Vec<String>,
}

/// How a disk's content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskFormat {
    /// As it is.
    Raw,
    /// QEMU's first format.
    Qcow,
    /// QEMU's format.
    Qcow2,
    /// Microsoft's.
    Vhd,
    /// QEMU's, between the two.
    Qed,
    /// There is no medium.
    Empty,
}

/// What drives a disk under Xen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendType {
    /// The kernel.
    Phy,
    /// blktap.
    Tap,
    /// QEMU.
    Qdisk,
    /// Something that runs by itself.
    Standalone,
}

impl DiskFormat {
    /// xl's word for it.
    pub fn name(self) -> &'static str {
        FORMATS.iter().find(|(_, format)| *format == self).map_or("raw", |(word, _)| word)
    }
}

const FORMATS: &[(&str, DiskFormat)] = &[
    ("raw", DiskFormat::Raw),
    ("qcow", DiskFormat::Qcow),
    ("qcow2", DiskFormat::Qcow2),
    ("vhd", DiskFormat::Vhd),
    ("qed", DiskFormat::Qed),
    ("empty", DiskFormat::Empty),
];

const BACKEND_TYPES: &[(&str, BackendType)] = &[
    ("phy", BackendType::Phy),
    ("tap", BackendType::Tap),
    ("qdisk", BackendType::Qdisk),
    ("standalone", BackendType::Standalone),
];

const KEYS: &[&str] = &[
    "access",
    "backend",
    "backendtype",
    "cdrom",
    "devtype",
    "direct-io-safe",
    "discard",
    "format",
    "grant_usage",
    "no-discard",
    "script",
    "specification",
    "target",
    "trusted",
    "untrusted",
    "vdev",
];

impl DiskSpec {
    /// Reads a text of a file's `disk` list, or the words of `block-attach`, which count as one. Errors: an unknown word or value, one that says
    /// something twice, no `vdev`, nothing to show that is no CD.
    pub fn parse(texts: &[&str]) -> Result<DiskSpec, String> {
        let mut reading = Reading::default();
        for text in texts {
            reading.read(text).map_err(|why| format!("{why} (in {})", shown(text)))?;
        }
        reading.finish().map_err(|why| format!("{why} (in {})", shown(&texts.join(" "))))
    }

    /// Its name, understood.
    pub fn drive(&self) -> Option<Drive> {
        Drive::parse(&self.vdev)
    }
}

/// What has been said so far. A text is none until it was said; an empty one was said, too, but may be said again.
#[derive(Debug, Default)]
struct Reading {
    target: Option<String>,
    format: Option<DiskFormat>,
    vdev: Option<String>,
    read_only: bool,
    access_said: bool,
    cdrom: bool,
    /// A prefix stood before the target, so no word in the place of the format follows.
    prefixed: bool,
    backend: Option<String>,
    backendtype: Option<BackendType>,
    script: Option<String>,
    virtio: Option<bool>,
    direct_io_safe: bool,
    discard: Option<bool>,
    trusted: Option<bool>,
    grant_usage: Option<bool>,
    colo: Vec<String>,
}

impl Reading {
    fn read(&mut self, text: &str) -> Result<(), String> {
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\n']);
            if rest.is_empty() {
                return Ok(());
            }
            if let Some(target) = rest.strip_prefix("target=") {
                return say("target", &mut self.target, target.strip_suffix(',').unwrap_or(target));
            }
            if let Some(after) = self.prefix(rest)? {
                rest = after;
                continue;
            }
            let (word, after) = rest.split_once(',').unwrap_or((rest, ""));
            self.word(word)?;
            rest = after;
        }
    }

    /// A prefix of xend's (`tap:aio:`, `phy:`, `qcow2:`): what stands behind it.
    fn prefix<'a>(&mut self, text: &'a str) -> Result<Option<&'a str>, String> {
        let Some((prefix, rest)) = text.split_once(':') else { return Ok(None) };
        match prefix {
            "raw" | "qcow" | "qcow2" | "vhd" => self.set_format(prefix)?,
            "iscsi" | "nbd" | "enbd" | "drbd" => say("script", &mut self.script, &format!("block-{prefix}"))?,
            "tapdisk" | "tap" | "tap2" | "aio" | "ioemu" | "file" | "phy" => {}
            _ => {
                let name = prefix.starts_with(|c: char| c.is_ascii_lowercase())
                    && prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                let goes_on = rest.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
                return match name && !goes_on {
                    true => Err(format!(
                        "{} is no prefix of a disk: write target= before what has a colon",
                        shown(&format!("{prefix}:"))
                    )),
                    false => Ok(None),
                };
            }
        }
        self.prefixed = true;
        Ok(Some(rest))
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        match word {
            "cdrom" => self.cdrom = true,
            "direct-io-safe" => self.direct_io_safe = true,
            "discard" | "no-discard" => self.discard = Some(word == "discard"),
            "trusted" | "untrusted" => self.trusted = Some(word == "trusted"),
            "colo" | "no-colo" => self.colo.push(word.to_owned()),
            _ => {
                return match word.split_once('=') {
                    Some((key, value)) => self.pair(key, value),
                    None => self.positional(word),
                };
            }
        }
        Ok(())
    }

    fn pair(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "format" => self.set_format(value),
            "devtype" => match value {
                "cdrom" | "disk" => {
                    self.cdrom = value == "cdrom";
                    Ok(())
                }
                _ => Err(format!("devtype: expected cdrom or disk, found {}", shown(value))),
            },
            "access" => self.set_access(value),
            "backend" => say("backend", &mut self.backend, value),
            "backendtype" => {
                once("backendtype", &mut self.backendtype, choose("backendtype", BACKEND_TYPES, value)?, value)
            }
            "specification" => once(
                "specification",
                &mut self.virtio,
                choose("specification", &[("xen", false), ("virtio", true)], value)?,
                value,
            ),
            "vdev" => say("vdev", &mut self.vdev, value),
            "script" => say("script", &mut self.script, value),
            "grant_usage" => {
                self.grant_usage = Some(choose("grant_usage", &[("1", true), ("0", false)], value)?);
                Ok(())
            }
            "colo-host" | "colo-port" | "colo-export" | "active-disk" | "hidden-disk" => {
                let before = self.colo.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
                say(key, &mut before.map(str::to_owned), value)?;
                self.colo.push(format!("{key}={value}"));
                Ok(())
            }
            _ => Err(not_known(key)),
        }
    }

    fn positional(&mut self, word: &str) -> Result<(), String> {
        if self.target.is_none() {
            self.target = Some(word.to_owned());
        } else if !self.prefixed && self.format.is_none() {
            // xend's empty CD drive: `,hdc:cdrom,r`.
            if self.target.as_deref() == Some("") && self.typed_vdev(word)? {
                self.format = Some(DiskFormat::Empty);
            } else {
                self.set_format(word)?;
            }
        } else if self.vdev.is_none() {
            if !self.typed_vdev(word)? {
                self.vdev = Some(word.to_owned());
            }
        } else if self.access_said {
            return Err(format!("{} is one word too many after target, format, vdev and access", shown(word)));
        } else {
            self.access_said = true;
            self.set_access(word)?;
        }
        Ok(())
    }

    /// `hdc:cdrom`: whether it was that.
    fn typed_vdev(&mut self, word: &str) -> Result<bool, String> {
        let Some((vdev, kind)) = word.rsplit_once(':') else { return Ok(false) };
        say("vdev", &mut self.vdev, vdev)?;
        self.cdrom = choose("the type after the vdev", &[("cdrom", true), ("disk", false)], kind)?;
        Ok(true)
    }

    fn set_format(&mut self, word: &str) -> Result<(), String> {
        let format = if word.is_empty() { DiskFormat::Raw } else { choose("format", FORMATS, word)? };
        once("format", &mut self.format, format, word)
    }

    fn set_access(&mut self, word: &str) -> Result<(), String> {
        self.read_only =
            choose("access", &[("r", true), ("ro", true), ("w", false), ("rw", false), ("", false)], word)?;
        Ok(())
    }

    fn finish(self) -> Result<DiskSpec, String> {
        let target = self.target.filter(|target| !target.is_empty());
        let format = match (self.cdrom, &target) {
            (true, None) => DiskFormat::Empty,
            _ => self.format.unwrap_or(DiskFormat::Raw),
        };
        let vdev = self.vdev.filter(|vdev| !vdev.is_empty()).ok_or("no vdev: expected a name for the disk, as xvda")?;
        if Drive::parse(&vdev).is_none() {
            return Err(format!("vdev: expected a disk's name, as xvda, sdb, hdc or vda, found {}", shown(&vdev)));
        }
        if target.is_none() && !self.cdrom {
            return Err("no target: expected a file or block device, since it is no CD".to_owned());
        }
        Ok(DiskSpec {
            target,
            format,
            vdev,
            read_only: self.read_only || self.cdrom,
            cdrom: self.cdrom,
            backend: self.backend,
            backendtype: self.backendtype,
            script: self.script,
            virtio: self.virtio,
            direct_io_safe: self.direct_io_safe,
            discard: self.discard,
            trusted: self.trusted,
            grant_usage: self.grant_usage,
            colo: self.colo,
        })
    }
}

/// What [`DiskSpec::parse`] reads as the same.
impl fmt::Display for DiskSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = FORMATS.iter().find(|(_, format)| *format == self.format).map_or("raw", |(word, _)| word);
        write!(f, "format={format},vdev={},access={}", self.vdev, if self.read_only { "ro" } else { "rw" })?;
        let flag =
            |f: &mut fmt::Formatter<'_>, said: bool, word: &str| if said { write!(f, ",{word}") } else { Ok(()) };
        flag(f, self.cdrom, "devtype=cdrom")?;
        for (key, text) in [("backend", &self.backend), ("script", &self.script)] {
            text.iter().try_for_each(|text| write!(f, ",{key}={text}"))?;
        }
        let backend = BACKEND_TYPES.iter().find(|(_, kind)| Some(*kind) == self.backendtype);
        backend.iter().try_for_each(|(word, _)| write!(f, ",backendtype={word}"))?;
        self.virtio
            .iter()
            .try_for_each(|virtio| write!(f, ",specification={}", if *virtio { "virtio" } else { "xen" }))?;
        flag(f, self.direct_io_safe, "direct-io-safe")?;
        self.discard.iter().try_for_each(|yes| write!(f, ",{}", if *yes { "discard" } else { "no-discard" }))?;
        self.trusted.iter().try_for_each(|yes| write!(f, ",{}", if *yes { "trusted" } else { "untrusted" }))?;
        self.grant_usage.iter().try_for_each(|yes| write!(f, ",grant_usage={}", u8::from(*yes)))?;
        self.colo.iter().try_for_each(|word| write!(f, ",{word}"))?;
        // A comma at the very end is not part of the target, unless there is one more.
        let comma = |target: &str| if target.ends_with(',') { "," } else { "" };
        self.target.iter().try_for_each(|target| write!(f, ",target={target}{}", comma(target)))
    }
}

/// Sets a text that was not said, or was said to be empty.
fn say(key: &str, place: &mut Option<String>, value: &str) -> Result<(), String> {
    match place.as_deref() {
        None | Some("") => {
            *place = Some(value.to_owned());
            Ok(())
        }
        Some(before) => Err(format!("{key} is said twice: {} and {}", shown(before), shown(value))),
    }
}

/// Sets what was not said, or was said to be the same.
fn once<T: PartialEq>(key: &str, place: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
    match place {
        Some(before) if *before != value => Err(format!("{key} is said twice, the second time as {}", shown(word))),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

fn choose<T: Copy>(key: &str, words: &[(&str, T)], word: &str) -> Result<T, String> {
    let known = || words.iter().map(|(word, _)| *word).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ");
    let found = words.iter().find(|(known, _)| *known == word);
    found.map(|(_, value)| *value).ok_or_else(|| format!("{key}: expected one of {}, found {}", known(), shown(word)))
}

fn not_known(key: &str) -> String {
    if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return format!("{} has an = in it: write target= before it, at the end", shown(key));
    }
    match near::nearest(key, KEYS.iter().copied()).as_slice() {
        [] => format!("{} is no word of a disk: the known ones are {}", shown(key), KEYS.join(", ")),
        near => format!("{} is no word of a disk: did you mean {}?", shown(key), near.join(" or ")),
    }
}
