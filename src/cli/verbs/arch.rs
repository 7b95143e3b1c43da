//! `arch`: what pronto knows of architectures. What a newcomer would get wrong: these are names and rules, not what this host can
//! run; `binfmt status` says that.

use clap::{Args, Subcommand};

use super::Verb;
use crate::arch::Profile;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::output::{self, Format, FormatOption};
use crate::ops;

/// Show the architectures that pronto knows
#[derive(Debug, Args)]
pub struct Arch {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List them with their other names
    List {
        #[command(flatten)]
        format: FormatOption,
    },
    /// Show all that is known of one
    Show {
        #[command(flatten)]
        format: FormatOption,
        /// The architecture, under any name it has
        #[arg(value_name = "ARCH")]
        arch: String,
    },
}

impl Verb for Arch {
    const NAME: &'static str = "arch";

    fn run(self, _front: &Front) -> Outcome {
        let profiles = ops::registry::profiles()?;
        match self.what {
            What::List { format: FormatOption { format: Format::Json } } => {
                output::json(&profiles.iter().collect::<Vec<_>>())?;
            }
            What::List { format: FormatOption { format: Format::Table } } => {
                let rows: Vec<_> = profiles.iter().map(row).collect();
                output::table(&["ARCH", "PLATFORM", "UNAME", "INTERPRETER", "OTHER NAMES"], &rows)?;
            }
            What::Show { format, arch } => {
                let profile = profiles.find(&arch).map_err(ops::Error::from)?;
                match format.format {
                    Format::Json => output::json(profile)?,
                    Format::Table => output::lines(facts(profile).iter().map(|(k, v)| format!("{k:<23}: {v}")))?,
                }
            }
        }
        Ok(0)
    }
}

fn platform(profile: &Profile) -> String {
    let (os, arch, variant) = ("linux", &profile.oci.architecture, &profile.oci.default);
    if variant.is_empty() { format!("{os}/{arch}") } else { format!("{os}/{arch}/{variant}") }
}

fn row(profile: &Profile) -> Vec<String> {
    vec![
        profile.name.clone(),
        platform(profile),
        profile.uname.clone(),
        profile.qemu_user.programs.first().cloned().unwrap_or_default(),
        profile.aliases.join(", "),
    ]
}

fn facts(profile: &Profile) -> Vec<(&'static str, String)> {
    let elf = &profile.elf;
    let order = format!("{:?}", elf.data).to_lowercase();
    let flags = elf.flags.map(|f| format!(", flags & {:#x} = {:#x}", f.mask, f.value)).unwrap_or_default();
    let mut facts = vec![
        ("name", profile.name.clone()),
        ("other_names", profile.aliases.join(", ")),
        ("debian", profile.debian.clone()),
        ("triplet", profile.triplet.clone()),
        ("uname", profile.uname.clone()),
        ("platform", platform(profile)),
        ("elf", format!("{} bit, {order} endian, machine {}{flags}", elf.class, elf.machine)),
        ("binfmt_entry", profile.binfmt.clone()),
        ("interpreter", profile.qemu_user.programs.join(", ")),
        ("interpreter_package", profile.qemu_user.package.clone()),
        ("interpreter_cpu", profile.qemu_user.cpu.clone()),
        ("emulator", profile.qemu_system.program.clone()),
        ("emulator_package", profile.qemu_system.package.clone()),
        ("emulator_machine", profile.qemu_system.machine.clone()),
        ("emulator_cpu", profile.qemu_system.cpu.clone()),
    ];
    facts.extend(profile.boards.iter().map(|b| ("board", format!("{}, {}, {}", b.name, b.title, b.cpu))));
    facts
}
