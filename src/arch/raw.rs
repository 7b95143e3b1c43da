//! Profile files as they are written, and the way to checked ones. What a newcomer would get wrong: `deny_unknown_fields` is
//! what tells an administrator of a typing error in /etc/pronto/arch.d; a default for a missing key would hide it.

use serde::Deserialize;

use super::Error;
use super::profile::{Board, Data, ElfRule, FlagRule, Model, Oci, Profile, QemuSystem, QemuUser};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    name: String,
    aliases: Vec<String>,
    debian: String,
    triplet: String,
    uname: String,
    binfmt: String,
    #[serde(default)]
    also: Vec<String>,
    elf: RawElf,
    oci: RawOci,
    qemu_user: RawUser,
    qemu_system: RawSystem,
    #[serde(default)]
    boards: Vec<RawBoard>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawElf {
    class: u8,
    data: RawData,
    machine: u16,
    flags: Option<RawFlags>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawData {
    Little,
    Big,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFlags {
    mask: u32,
    value: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOci {
    architecture: String,
    variants: Vec<String>,
    default: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUser {
    programs: Vec<String>,
    #[serde(default = "qemu_user")]
    package: String,
    cpu: String,
    #[serde(default)]
    models: Vec<RawModel>,
}

fn qemu_user() -> String {
    "qemu-user".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModel {
    tag_cpu_arch: Vec<u64>,
    variant: String,
    cpu: String,
    uname: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSystem {
    program: String,
    package: String,
    machine: String,
    cpu: String,
    firmware: Vec<String>,
    console: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBoard {
    name: String,
    title: String,
    machine: Option<String>,
    cpu: String,
    console: String,
}

/// Reads and checks one profile. `file` names it in errors, and its stem must be the profile's name.
pub(super) fn parse(file: &str, text: &str) -> Result<Profile, Error> {
    let raw: Raw = toml::from_str(text).map_err(|e| Error::Syntax { file: file.to_owned(), source: Box::new(e) })?;
    check(file, raw).map_err(|why| Error::Bad { file: file.to_owned(), why })
}

fn check(file: &str, raw: Raw) -> Result<Profile, String> {
    if file.strip_suffix(".toml") != Some(&raw.name) {
        return Err(format!("it describes '{}', so its name must be {0}.toml", raw.name.escape_debug()));
    }
    check_names(&raw)?;
    if !matches!(raw.elf.class, 32 | 64) {
        return Err(format!("elf.class is {}, but must be 32 or 64", raw.elf.class));
    }
    if raw.elf.flags.as_ref().is_some_and(|f| f.value & !f.mask != 0) {
        return Err("elf.flags can never match: value has bits outside mask".to_owned());
    }
    if !raw.oci.variants.contains(&raw.oci.default) {
        return Err(format!("oci.default '{}' is none of oci.variants", raw.oci.default.escape_debug()));
    }
    if raw.qemu_user.programs.is_empty() {
        return Err("qemu-user.programs is empty".to_owned());
    }
    Ok(build(raw))
}

/// Names become file names, binfmt entries and words of command lines.
fn check_names(raw: &Raw) -> Result<(), String> {
    let more = [&raw.name, &raw.debian, &raw.triplet, &raw.uname, &raw.binfmt, &raw.oci.architecture];
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
    let names = more.into_iter().chain(&raw.aliases).chain(&raw.also).chain(&raw.qemu_user.programs);
    match names.into_iter().find(|n| n.is_empty() || n.starts_with(['.', '-']) || !n.chars().all(plain)) {
        Some(bad) => Err(format!("'{}' is no name: use a-z, 0-9, '_', '-' and '.'", bad.escape_debug())),
        None if raw.binfmt.starts_with("pronto-") => Ok(()),
        None => Err(format!("binfmt is '{}', but only entries named pronto-… are ours", raw.binfmt)),
    }
}

fn build(raw: Raw) -> Profile {
    let data = match raw.elf.data {
        RawData::Little => Data::Little,
        RawData::Big => Data::Big,
    };
    let flags = raw.elf.flags.map(|f| FlagRule { mask: f.mask, value: f.value });
    let model = |m: RawModel| Model { tag_cpu_arch: m.tag_cpu_arch, variant: m.variant, cpu: m.cpu, uname: m.uname };
    let board =
        |b: RawBoard| Board { name: b.name, title: b.title, machine: b.machine, cpu: b.cpu, console: b.console };
    let RawSystem { program, package, machine, cpu, firmware, console } = raw.qemu_system;
    Profile {
        name: raw.name,
        aliases: raw.aliases,
        debian: raw.debian,
        triplet: raw.triplet,
        uname: raw.uname,
        binfmt: raw.binfmt,
        also: raw.also,
        elf: ElfRule { class: raw.elf.class, data, machine: raw.elf.machine, flags },
        oci: Oci { architecture: raw.oci.architecture, variants: raw.oci.variants, default: raw.oci.default },
        qemu_user: QemuUser {
            programs: raw.qemu_user.programs,
            package: raw.qemu_user.package,
            cpu: raw.qemu_user.cpu,
            models: raw.qemu_user.models.into_iter().map(model).collect(),
        },
        qemu_system: QemuSystem { program, package, machine, cpu, firmware, console },
        boards: raw.boards.into_iter().map(board).collect(),
    }
}
