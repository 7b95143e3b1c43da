//! One architecture, checked. What a newcomer would get wrong: `oci.variants` is an order of preference that is *cut* at the
//! variant that was asked for: `arm/v6` must never be served by a v7 image, while `arm/v7` may be by a v6 one.

use serde::Serialize;

/// One architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Our name for it, which is Debian's.
    pub name: String,
    /// What else people call it; lower case.
    pub aliases: Vec<String>,
    /// Debian's name.
    pub debian: String,
    /// The multiarch triplet, as in `/usr/lib/TRIPLET`.
    pub triplet: String,
    /// What `uname -m` says on it.
    pub uname: String,
    /// The name of our binfmt entry; architectures that one interpreter runs share one.
    pub binfmt: String,
    /// Other architectures whose programs a real machine of this one runs too, by their profiles' names.
    pub also: Vec<String>,
    /// How its ELF files are known.
    pub elf: ElfRule,
    /// What registries call it.
    pub oci: Oci,
    /// Its user-mode emulator.
    pub qemu_user: QemuUser,
    /// Its full-system emulator.
    pub qemu_system: QemuSystem,
    /// Boards of this architecture.
    pub boards: Vec<Board>,
}

/// Byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    /// Least significant byte first (`ELFDATA2LSB`).
    Little,
    /// Most significant byte first (`ELFDATA2MSB`).
    Big,
}

/// How ELF files of an architecture are known. Source: elf(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ElfRule {
    /// 32 or 64.
    pub class: u8,
    /// Byte order.
    pub data: Data,
    /// `e_machine`.
    pub machine: u16,
    /// What `e_flags` must say, where the machine alone does not decide.
    pub flags: Option<FlagRule>,
}

/// `e_flags & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FlagRule {
    /// The bits looked at.
    pub mask: u32,
    /// What they must be.
    pub value: u32,
}

/// An architecture in the words of image-spec (image-index.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Oci {
    /// GOARCH.
    pub architecture: String,
    /// From the most demanding to the least; an empty one means a manifest without a variant.
    pub variants: Vec<String>,
    /// The one that is meant when nobody says; an empty one where the architecture has none.
    pub default: String,
}

/// The user-mode emulator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QemuUser {
    /// Names of the program, the best first.
    pub programs: Vec<String>,
    /// The Debian package that holds it.
    pub package: String,
    /// The CPU model that runs everything of this architecture.
    pub cpu: String,
    /// CPU models by what a file was built for.
    pub models: Vec<Model>,
}

/// A CPU model for files built for one generation of the architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Model {
    /// Values of `Tag_CPU_arch` that it serves.
    pub tag_cpu_arch: Vec<u64>,
    /// The OCI variant it stands for.
    pub variant: String,
    /// QEMU's name for the CPU.
    pub cpu: String,
    /// What `uname -m` says under it.
    pub uname: String,
}

/// The full-system emulator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QemuSystem {
    /// Name of the program.
    pub program: String,
    /// The Debian package that holds it.
    pub package: String,
    /// `-machine`.
    pub machine: String,
    /// `-cpu` without KVM.
    pub cpu: String,
    /// Where its firmware may lie; empty where QEMU brings its own.
    pub firmware: Vec<String>,
    /// The kernel's console device.
    pub console: String,
}

/// A board that people know by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Board {
    /// `rpi4`.
    pub name: String,
    /// For people.
    pub title: String,
    /// QEMU's machine; `None` where it has none and the architecture's own serves.
    pub machine: Option<String>,
    /// QEMU's name for its CPU, for user and full emulation.
    pub cpu: String,
    /// The kernel's console device.
    pub console: String,
}

impl Profile {
    /// Its name, Debian's, the registries', the kernel's and all aliases; some may occur twice.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let own = [&self.name, &self.debian];
        own.into_iter().chain(&self.aliases).map(String::as_str)
    }

    /// Whether `name` (lower case) is one of its names, or its OCI name with one of its variants as an alias has it.
    pub fn is_called(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }

    /// The OCI platforms (architecture, variant) that serve it, the best first. `asked` is what the user wrote: a variant in
    /// it (`linux/arm/v6`) is where the list begins; nothing below another architecture is ever in it.
    pub fn platforms(&self, asked: Option<&str>) -> Vec<(&str, Option<&str>)> {
        let asked = asked.map(super::normalise).unwrap_or_default();
        let variant = match asked.rsplit_once('/') {
            Some((_, variant)) if self.oci.has(variant) => variant.to_owned(),
            _ => self.docker_variant(&asked).unwrap_or(&self.oci.default).to_owned(),
        };
        let from = self.oci.variants.iter().position(|v| *v == variant).unwrap_or(0);
        let architecture = self.oci.architecture.as_str();
        let some = |v: &'_ String| !v.is_empty();
        self.oci.variants[from..].iter().map(|v| (architecture, some(v).then_some(v.as_str()))).collect()
    }

    /// `arm32v6`, `armv6l`: names that say a variant without a slash.
    fn docker_variant(&self, asked: &str) -> Option<&str> {
        let variants = self.oci.variants.iter().filter(|v| v.len() == 2 && asked.starts_with("arm"));
        variants.map(String::as_str).find(|v| asked.contains(*v))
    }

    /// The CPU model for a file built for `tag_cpu_arch`, where that matters.
    pub fn model(&self, tag_cpu_arch: Option<u64>) -> Option<&Model> {
        let tag = tag_cpu_arch?;
        self.qemu_user.models.iter().find(|m| m.tag_cpu_arch.contains(&tag))
    }
}

impl ElfRule {
    /// Whether a file with these header fields is of this architecture (raw values of elf(5)).
    pub fn matches(&self, class: u8, data: u8, machine: u16, flags: u32) -> bool {
        let same = self.ei_class() == class && self.ei_data() == data && self.machine == machine;
        same && self.flags.is_none_or(|rule| flags & rule.mask == rule.value)
    }

    /// `EI_CLASS`: 1 for 32 bits, 2 for 64.
    pub fn ei_class(&self) -> u8 {
        self.class / 32
    }

    /// `EI_DATA`: 1 for little endian, 2 for big.
    pub fn ei_data(&self) -> u8 {
        match self.data {
            Data::Little => 1,
            Data::Big => 2,
        }
    }
}

impl Oci {
    /// Whether `variant` is one of its variants (empty: none was said).
    pub fn has(&self, variant: &str) -> bool {
        self.variants.iter().any(|v| v == variant)
    }
}
