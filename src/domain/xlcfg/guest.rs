//! What the keys say of a guest, each by xl's rules. What a newcomer would get wrong: nothing here has a default of its own; none means that
//! the key is not there. Source: xl.cfg(5); Xen, `parse_config_data` in tools/xl/xl_parse.c.

use super::config::Config;
use super::disk::DiskSpec;
use super::error::{Error, shown};
use super::get::number;
use super::vif::VifSpec;
use crate::domain::{Accel, Name, size};

/// xl's kinds of guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuestType {
    /// Paravirtualised.
    Pv,
    /// Paravirtualised, in hardware; what every guest on an ARM is.
    Pvh,
    /// A whole machine.
    Hvm,
}

/// How a domain may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// It powers off.
    Poweroff,
    /// It reboots.
    Reboot,
    /// Its watchdog bites.
    Watchdog,
    /// It crashes.
    Crash,
    /// It asks for a soft reset, as before a crash kernel.
    SoftReset,
}

/// What is done then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// It is gone.
    Destroy,
    /// It is started again.
    Restart,
    /// It stays under another name, and is started again.
    RenameRestart,
    /// It stays, ended.
    Preserve,
    /// Its memory is kept in a file; then it is gone.
    CoredumpDestroy,
    /// Its memory is kept in a file; then it is started again.
    CoredumpRestart,
    /// It goes on, with its devices reset.
    SoftReset,
}

/// What an HVM guest tries to boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BootDevice {
    /// `a`: a floppy.
    Floppy,
    /// `c`: a hard disk.
    Disk,
    /// `d`: a CD.
    Cdrom,
    /// `n`: the network.
    Network,
}

/// `firmware`, or an HVM guest's older `bios`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Firmware {
    /// The device model's own BIOS.
    Bios,
    /// UEFI.
    Uefi,
    /// SeaBIOS.
    SeaBios,
    /// ROMBIOS.
    RomBios,
    /// GRUB in a 32-bit PV guest.
    PvGrub32,
    /// GRUB in a 64-bit PV guest.
    PvGrub64,
    /// A file.
    File(String),
}

/// `backend`, pronto's own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendChoice {
    /// The best one there is.
    Auto,
    /// A guest that shares the host's kernel.
    Kaxon,
    /// A guest with a kernel of its own, by whichever of the two can.
    Hexagon,
    /// On QEMU.
    Qemu,
    /// On Xen.
    Xen,
}

/// `accel`, pronto's own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accelerator {
    /// The host's CPU runs the guest.
    Kvm,
    /// QEMU translates.
    Tcg,
    /// Of a guest that shares the kernel, these programs are native.
    Native(Accel),
}

const ACTIONS: &[(&str, Reaction)] = &[
    ("destroy", Reaction::Destroy),
    ("restart", Reaction::Restart),
    ("rename-restart", Reaction::RenameRestart),
    ("preserve", Reaction::Preserve),
    ("coredump-destroy", Reaction::CoredumpDestroy),
    ("coredump-restart", Reaction::CoredumpRestart),
    ("soft-reset", Reaction::SoftReset),
];

const TYPES: &[(&str, GuestType)] = &[("pv", GuestType::Pv), ("pvh", GuestType::Pvh), ("hvm", GuestType::Hvm)];
const BUILDERS: &[(&str, GuestType)] = &[("generic", GuestType::Pv), ("hvm", GuestType::Hvm)];

const BACKENDS: &[(&str, BackendChoice)] = &[
    ("auto", BackendChoice::Auto),
    ("kaxon", BackendChoice::Kaxon),
    ("nspawn", BackendChoice::Kaxon),
    ("hexagon", BackendChoice::Hexagon),
    ("qemu", BackendChoice::Qemu),
    ("xen", BackendChoice::Xen),
];

const ACCELERATORS: &[(&str, Accelerator)] = &[
    ("kvm", Accelerator::Kvm),
    ("tcg", Accelerator::Tcg),
    ("off", Accelerator::Native(Accel::Off)),
    ("tools", Accelerator::Native(Accel::Tools)),
    ("build", Accelerator::Native(Accel::Build)),
];

const BIOSES: &[(&str, Firmware)] =
    &[("rombios", Firmware::RomBios), ("seabios", Firmware::SeaBios), ("ovmf", Firmware::Uefi)];

impl Event {
    /// All of them.
    pub const ALL: [Event; 5] = [Event::Poweroff, Event::Reboot, Event::Watchdog, Event::Crash, Event::SoftReset];

    /// The key that says what is done.
    pub fn key(self) -> &'static str {
        match self {
            Event::Poweroff => "on_poweroff",
            Event::Reboot => "on_reboot",
            Event::Watchdog => "on_watchdog",
            Event::Crash => "on_crash",
            Event::SoftReset => "on_soft_reset",
        }
    }

    /// What xl does when nothing is said.
    pub fn default_reaction(self) -> Reaction {
        match self {
            Event::Poweroff | Event::Watchdog | Event::Crash => Reaction::Destroy,
            Event::Reboot => Reaction::Restart,
            Event::SoftReset => Reaction::SoftReset,
        }
    }
}

impl Reaction {
    /// xl's word for it.
    pub fn word(self) -> &'static str {
        ACTIONS.iter().find(|(_, reaction)| *reaction == self).map_or("destroy", |(word, _)| word)
    }
}

impl Config {
    /// `name`. Errors: none that pronto takes ([`Name`]); xl takes any text.
    pub fn name(&self) -> Result<Option<Name>, Error> {
        let name = self.filled("name")?;
        name.map(|name| Name::new(name).map_err(|why| self.wrong("name", format!("name: {why}")))).transpose()
    }

    /// `uuid`, in small letters. Errors: no UUID.
    pub fn uuid(&self) -> Result<Option<String>, Error> {
        let Some(text) = self.text("uuid")? else { return Ok(None) };
        let fits =
            |(at, b): (usize, u8)| if matches!(at, 8 | 13 | 18 | 23) { b == b'-' } else { b.is_ascii_hexdigit() };
        if text.len() == 36 && text.bytes().enumerate().all(fits) {
            return Ok(Some(text.to_ascii_lowercase()));
        }
        let what = format!("uuid: expected a UUID, as 6ba7b810-9dad-11d1-80b4-00c04fd430c8, found {}", shown(text));
        Err(self.wrong("uuid", what))
    }

    /// `type`, or what the older `builder` says. Errors: no type, or both say different things.
    pub fn guest_type(&self) -> Result<Option<GuestType>, Error> {
        let builder = self.choice("builder", BUILDERS)?;
        match (self.choice("type", TYPES)?, builder) {
            (Some(kind), Some(builder)) if kind != builder => {
                Err(self.wrong("builder", "builder and type say different things").hint("leave builder out"))
            }
            (kind, builder) => Ok(kind.or(builder)),
        }
    }

    /// `memory`, in bytes. Errors: no size, or nothing.
    pub fn memory(&self) -> Result<Option<u64>, Error> {
        self.mebibytes("memory")
    }

    /// `maxmem`, in bytes. Errors: no size, or less than `memory`.
    pub fn maxmem(&self) -> Result<Option<u64>, Error> {
        self.no_less("maxmem", self.mebibytes("maxmem")?, "memory", self.memory()?)
    }

    /// `vcpus`. Errors: not 1 to 4096.
    pub fn vcpus(&self) -> Result<Option<u32>, Error> {
        self.cpu_count("vcpus")
    }

    /// `maxvcpus`. Errors: not 1 to 4096, or less than `vcpus`.
    pub fn maxvcpus(&self) -> Result<Option<u32>, Error> {
        self.no_less("maxvcpus", self.cpu_count("maxvcpus")?, "vcpus", self.vcpus()?)
    }

    /// What is done at an event. Errors: none of xl's actions.
    pub fn reaction(&self, event: Event) -> Result<Option<Reaction>, Error> {
        self.choice(event.key(), ACTIONS)
    }

    /// The kernel's words: `cmdline`, or else `root` and `extra`. Errors: one of them is a list.
    pub fn kernel_words(&self) -> Result<Option<String>, Error> {
        let (root, extra) = (self.text("root")?, self.text("extra")?);
        Ok(match (self.text("cmdline")?, root, extra) {
            (Some(words), _, _) => Some(words.to_owned()),
            (None, Some(root), Some(extra)) => Some(format!("root={root} {extra}")),
            (None, Some(root), None) => Some(format!("root={root}")),
            (None, None, extra) => extra.map(str::to_owned),
        })
    }

    /// `bootloader_args`: a list, or a text that is split at blanks. Errors: a list in the list.
    pub fn bootloader_args(&self) -> Result<Vec<String>, Error> {
        match self.get("bootloader_args").and_then(|entry| entry.value.atom()) {
            Some(text) => Ok(text.split_ascii_whitespace().map(str::to_owned).collect()),
            None => Ok(self.texts("bootloader_args")?.into_iter().map(|(text, _)| text.to_owned()).collect()),
        }
    }

    /// `firmware`, or else `bios`: a known word or a file. Errors: empty, or a `bios` that is not known.
    pub fn firmware(&self) -> Result<Option<Firmware>, Error> {
        let more = [
            ("bios", Firmware::Bios),
            ("uefi", Firmware::Uefi),
            ("pvgrub32", Firmware::PvGrub32),
            ("pvgrub64", Firmware::PvGrub64),
        ];
        match self.filled("firmware")? {
            None => self.choice("bios", BIOSES),
            Some(word) => {
                let known = BIOSES.iter().chain(&more).find(|(name, _)| *name == word);
                Ok(Some(known.map_or_else(|| Firmware::File(word.to_owned()), |(_, firmware)| firmware.clone())))
            }
        }
    }

    /// `serial`: where each serial port of an HVM guest leads. Errors: a list in the list.
    pub fn serial(&self) -> Result<Vec<&str>, Error> {
        Ok(self.text_or_texts("serial")?.into_iter().map(|(text, _)| text).collect())
    }

    /// `boot`: in which order. Errors: another letter than a, c, d and n.
    pub fn boot(&self) -> Result<Vec<BootDevice>, Error> {
        let order = self.text("boot")?.unwrap_or_default();
        let devices = order.chars().map(|c| match c {
            'a' => Ok(BootDevice::Floppy),
            'c' => Ok(BootDevice::Disk),
            'd' => Ok(BootDevice::Cdrom),
            'n' => Ok(BootDevice::Network),
            _ => Err(self.wrong(
                "boot",
                format!("boot: expected some of c (disk), d (CD), n (network), found {}", shown(order)),
            )),
        });
        devices.collect()
    }

    /// `disk`. Errors: one of them is no disk; see [`DiskSpec::parse`].
    pub fn disks(&self) -> Result<Vec<DiskSpec>, Error> {
        let texts = self.texts("disk")?.into_iter();
        texts
            .map(|(text, place)| DiskSpec::parse(&[text]).map_err(|why| Error::new(place, format!("disk: {why}"))))
            .collect()
    }

    /// `vif`. Errors: one of them is no network interface; see [`VifSpec::parse`].
    pub fn vifs(&self) -> Result<Vec<VifSpec>, Error> {
        let texts = self.texts("vif")?.into_iter();
        texts
            .map(|(text, place)| VifSpec::parse(text).map_err(|why| Error::new(place, format!("vif: {why}"))))
            .collect()
    }

    /// `backend`. Errors: none that there is.
    pub fn backend(&self) -> Result<Option<BackendChoice>, Error> {
        self.choice("backend", BACKENDS)
    }

    /// `accel`. Errors: none that there is.
    pub fn accel(&self) -> Result<Option<Accelerator>, Error> {
        self.choice("accel", ACCELERATORS)
    }

    fn choice<T: Clone>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, Error> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(Some(value.clone())),
            None => {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(self.wrong(key, format!("{key}: expected one of {}, found {}", known.join(", "), shown(text))))
            }
        }
    }

    /// A number is MiB, as in xl; a text may have a unit.
    fn mebibytes(&self, key: &str) -> Result<Option<u64>, Error> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let bytes = match number(text) {
            Some(_) => {
                let mebibytes = self.number_in(key, 1..=1 << 40)?.unwrap_or(1);
                u64::try_from(mebibytes).unwrap_or(1) << 20
            }
            None => size::parse(text).map_err(|_| {
                self.wrong(key, format!("{key}: expected a size, as 512 (MiB) or \"2g\", found {}", shown(text)))
            })?,
        };
        if bytes == 0 { Err(self.wrong(key, format!("{key}: a domain needs memory"))) } else { Ok(Some(bytes)) }
    }

    fn cpu_count(&self, key: &str) -> Result<Option<u32>, Error> {
        Ok(self.number_in(key, 1..=4096)?.and_then(|number| u32::try_from(number).ok()))
    }

    fn no_less<T: PartialOrd + Copy>(
        &self,
        key: &str,
        most: Option<T>,
        least_key: &str,
        least: Option<T>,
    ) -> Result<Option<T>, Error> {
        match (most, least) {
            (Some(most), Some(least)) if most < least => {
                let text = |key| self.text(key).ok().flatten().unwrap_or_default().to_owned();
                let what = format!("{key} ({}) is less than {least_key} ({})", text(key), text(least_key));
                Err(self.wrong(key, what))
            }
            _ => Ok(most),
        }
    }

    /// Reads every key that this module knows as what it is. Errors: the first that cannot be. Keys that are only handed on to xl are checked
    /// as far as xl does before it hands them on: text, number, truth or list.
    pub fn check(&self) -> Result<(), Error> {
        self.name()?;
        self.uuid()?;
        self.guest_type()?;
        self.memory()?;
        self.maxmem()?;
        self.maxvcpus()?;
        self.vcpus()?;
        for event in Event::ALL {
            self.reaction(event)?;
        }
        self.cpus()?;
        self.cpus_soft()?;
        self.kernel_words()?;
        self.bootloader_args()?;
        self.firmware()?;
        self.serial()?;
        self.boot()?;
        self.disks()?;
        self.vifs()?;
        self.backend()?;
        self.accel()?;
        self.check_shapes()
    }
}
