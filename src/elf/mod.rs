//! ELF headers, read from bytes that anybody may have written: nothing here trusts an offset, and nothing panics. What a
//! newcomer would get wrong: a *prefix* of the file is enough, and usual. The program headers stand right behind the header;
//! the section headers stand at the end, so `.ARM.attributes` is only found when the bytes reach that far.
//! Source: elf(5); for ARM: "ELF for the Arm Architecture" and "Addenda to, and Errata in, the ABI for the Arm Architecture".

mod attributes;
mod compare;
pub mod identity;
mod layout;
mod names;
mod segment;

pub use attributes::ArmAttributes;
pub use compare::difference;
pub use layout::{Layout, Load, Pointer, Symbol, u32_at, u64_at};
pub use names::name_users;
pub use segment::Spot;

use std::fmt;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{ELFMAG, EM_ARM, ET_DYN, ET_EXEC, SELFMAG};
use goblin::elf::program_header::{PT_DYNAMIC, PT_INTERP};
use goblin::elf::{Elf, ProgramHeader, SectionHeader};
use serde::{Deserialize, Serialize};

/// How many bytes of a file are worth reading first: enough for everything but `.ARM.attributes`, and the loader's name on MIPS.
pub const PREFIX: u64 = 64 * 1024;

/// Program and section headers looked at; real files have a dozen and some forty.
const MOST_HEADERS: usize = 4096;

/// Why bytes are no ELF header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// They do not begin with `\x7fELF`.
    #[error("not an ELF file")]
    NotElf,
    /// They begin so, but go on wrong.
    #[error("a damaged ELF file: {0}")]
    Damaged(String),
}

/// `EI_CLASS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// 32-bit.
    Elf32 = 1,
    /// 64-bit.
    Elf64 = 2,
}

/// `EI_DATA`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Data {
    /// Least significant byte first.
    Little = 1,
    /// Most significant byte first.
    Big = 2,
}

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// 32 or 64 bits.
    pub class: Class,
    /// Byte order.
    pub data: Data,
    /// `EI_OSABI`; 0 (System V) or 3 (GNU/Linux) on Linux.
    pub osabi: u8,
    /// `e_type`.
    pub e_type: u16,
    /// `e_machine`.
    pub machine: u16,
    /// `e_flags`.
    pub flags: u32,
    /// The loader it asks for (`PT_INTERP`), as bytes of the file turned into text; `None` for a static program.
    pub interpreter: Option<String>,
    /// Whether it has a dynamic section.
    pub dynamic: bool,
    /// What 32-bit ARM files say of the CPU they were built for, if the bytes reach that far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<ArmAttributes>,
}

impl Header {
    /// Whether it is a program (or a shared object), not an object file or a core.
    pub fn is_program(&self) -> bool {
        matches!(self.e_type, ET_EXEC | ET_DYN)
    }

    /// Whether the kernel may load it anywhere: position independent (`ET_DYN`).
    pub fn is_pie(&self) -> bool {
        self.e_type == ET_DYN
    }

    /// Whether it runs without a loader. A static PIE has a dynamic section, so only `PT_INTERP` decides.
    pub fn is_static(&self) -> bool {
        self.interpreter.is_none()
    }

    /// `EI_CLASS`, `EI_DATA`, `e_machine`, `e_flags`: what architecture rules look at. For 32-bit ARM the hard-float flag is
    /// added when the file is silent in `e_flags` but says so by its attributes or its loader (old toolchains, Go).
    pub fn ident(&self) -> (u8, u8, u16, u32) {
        const EF_ARM_ABI_FLOAT: u32 = 0x600;
        const EF_ARM_ABI_FLOAT_HARD: u32 = 0x400;
        let silent = self.machine == EM_ARM && self.flags & EF_ARM_ABI_FLOAT == 0;
        let by_attributes = self.arm.is_some_and(|arm| arm.vfp_args == Some(1));
        let by_loader = self.interpreter.as_ref().is_some_and(|loader| loader.contains("armhf"));
        let more = if silent && (by_attributes || by_loader) { EF_ARM_ABI_FLOAT_HARD } else { 0 };
        (self.class as u8, self.data as u8, self.machine, self.flags | more)
    }
}

impl fmt::Display for Header {
    /// `64-bit little-endian, machine 183`: for files of architectures that nobody named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.class == Class::Elf64 { 64 } else { 32 };
        let order = if self.data == Data::Little { "little" } else { "big" };
        write!(f, "{bits}-bit {order}-endian, machine {}", self.machine)
    }
}

/// Whether the bytes begin as an ELF file does.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(ELFMAG)
}

/// Reads a file's header from its first bytes ([`PREFIX`] of them, or all). Errors: no ELF file, or a damaged one; program
/// headers that lie outside the bytes are damage, section headers that do are simply not looked at.
pub fn parse(bytes: &[u8]) -> Result<Header, Error> {
    if bytes.len() < SELFMAG || !is_elf(bytes) {
        return Err(Error::NotElf);
    }
    let class = match bytes.get(4) {
        Some(1) => Class::Elf32,
        Some(2) => Class::Elf64,
        other => return Err(damaged(format!("class {other:?}"))),
    };
    let data = match bytes.get(5) {
        Some(1) => Data::Little,
        Some(2) => Data::Big,
        other => return Err(damaged(format!("byte order {other:?}"))),
    };
    let raw = Elf::parse_header(bytes).map_err(|e| damaged(e.to_string()))?;
    let ctx = context(class, data);
    let segments = program_headers(bytes, &raw, ctx)?;
    let interpreter = interpreter(bytes, &segments)?;
    let arm = (raw.e_machine == EM_ARM).then(|| arm_attributes(bytes, &raw, ctx)).flatten();
    Ok(Header {
        class,
        data,
        osabi: bytes.get(7).copied().unwrap_or_default(),
        e_type: raw.e_type,
        machine: raw.e_machine,
        flags: raw.e_flags,
        interpreter,
        dynamic: segments.iter().any(|s| s.p_type == PT_DYNAMIC),
        arm,
    })
}

fn damaged(why: impl Into<String>) -> Error {
    Error::Damaged(why.into())
}

fn context(class: Class, data: Data) -> Ctx {
    let container = if class == Class::Elf64 { Container::Big } else { Container::Little };
    let endian = if data == Data::Little { Endian::Little } else { Endian::Big };
    Ctx::new(container, endian)
}

/// The bytes of `offset..offset + size`, when all of them are there.
fn slice(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    bytes.get(start..end)
}

fn program_headers(bytes: &[u8], raw: &goblin::elf::Header, ctx: Ctx) -> Result<Vec<ProgramHeader>, Error> {
    let count = usize::from(raw.e_phnum);
    if count == 0 {
        return Ok(Vec::new());
    }
    let size = ProgramHeader::size(ctx);
    let table = slice(bytes, raw.e_phoff, (size * count) as u64);
    let table = table.filter(|_| count <= MOST_HEADERS && usize::from(raw.e_phentsize) == size);
    let table = table.ok_or_else(|| damaged("its program headers are not where it says"))?;
    ProgramHeader::parse(table, 0, count, ctx).map_err(|e| damaged(e.to_string()))
}

fn interpreter(bytes: &[u8], segments: &[ProgramHeader]) -> Result<Option<String>, Error> {
    let Some(segment) = segments.iter().find(|s| s.p_type == PT_INTERP) else { return Ok(None) };
    // The kernel refuses more than PATH_MAX as well (load_elf_binary).
    let text = slice(bytes, segment.p_offset, segment.p_filesz).filter(|t| (2..=4096).contains(&t.len()));
    let text = text.ok_or_else(|| damaged("the name of its loader is not where it says"))?;
    let end = text.iter().position(|b| *b == 0).ok_or_else(|| damaged("the name of its loader has no end"))?;
    Ok(Some(String::from_utf8_lossy(&text[..end]).into_owned()))
}

/// Looks for the section by its type, so that the table of names is not needed.
fn arm_attributes(bytes: &[u8], raw: &goblin::elf::Header, ctx: Ctx) -> Option<ArmAttributes> {
    const SHT_ARM_ATTRIBUTES: u32 = 0x7000_0003;
    let count = usize::from(raw.e_shnum);
    let size = SectionHeader::size(ctx);
    if count > MOST_HEADERS || usize::from(raw.e_shentsize) != size {
        return None;
    }
    // In bounds, and not empty: with a count of 0 goblin would believe the first entry about how many follow.
    slice(bytes, raw.e_shoff, (size * count) as u64).filter(|table| !table.is_empty())?;
    let sections = SectionHeader::parse(bytes, usize::try_from(raw.e_shoff).ok()?, count, ctx).ok()?;
    let section = sections.iter().find(|s| s.sh_type == SHT_ARM_ATTRIBUTES)?;
    let little = ctx.le == Endian::Little;
    attributes::parse(slice(bytes, section.sh_offset, section.sh_size)?, little)
}

#[cfg(test)]
mod tests;
