//! What an installed QEMU can do, by asking it. What a newcomer would get wrong: `virt` and `q35` mean something else after an upgrade, so
//! what is recorded of a domain is the name with a version, and a guest that was saved needs a QEMU that still knows it. Only
//! RISC-V's machine has no versions: what was saved there is for one version of QEMU.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::qmp::Version;
use super::{Accel, Kind};
use crate::arch::Profile;
use crate::sys::process::{Tool, ToolError};

/// What one QEMU can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// Which QEMU it is.
    pub version: Version,
    /// The machines it knows, by name.
    pub machines: Vec<String>,
    /// The CPU models it knows.
    pub cpus: Vec<String>,
    /// Whether it can forbid itself system calls.
    pub sandbox: bool,
}

/// Why a program is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be asked.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// It says nothing that QEMU would.
    #[error("{0} does not say which version of QEMU it is")]
    NoQemu(String),
    /// It is too old.
    #[error("{program} is QEMU {}.{}.{}: 6.0 or newer is needed", .version.0, .version.1, .version.2)]
    Old {
        /// The program.
        program: String,
        /// Its version.
        version: Version,
    },
    /// The machine is not among those it knows.
    #[error("{program} knows no machine '{machine}': {}", remedy(.machine))]
    Machine {
        /// The program.
        program: String,
        /// The machine.
        machine: String,
    },
}

fn remedy(machine: &str) -> String {
    match machine.rsplit_once('-') {
        Some((_, version)) => {
            format!("a guest that was saved on it needs a QEMU not older than {version}, and not too new")
        }
        None => "install another QEMU".to_owned(),
    }
}

/// The first QEMU with `-action` and everything else that is asked of one.
const OLDEST: Version = Version(6, 0, 0);

impl Abilities {
    /// Asks a program; a tenth of a second. Errors: it is none, or too old.
    pub fn of(program: &Path) -> Result<Abilities, Error> {
        let ask = |words: &[&str]| -> Result<String, ToolError> {
            let said = Tool::new(program).args(words).output()?;
            Ok(String::from_utf8_lossy(&said).into_owned())
        };
        let name = || program.display().to_string();
        let version = version(&ask(&["--version"])?).ok_or_else(|| Error::NoQemu(name()))?;
        if version < OLDEST {
            return Err(Error::Old { program: name(), version });
        }
        let machines = machines(&ask(&["-machine", "help"])?);
        let sandbox = ask(&["-help"])?.lines().any(|l| l.starts_with("-sandbox "));
        // A heading or a kind stands in front of some names: more words than there are models do no harm.
        let cpus = ask(&["-cpu", "help"])?.split_whitespace().map(str::to_owned).collect();
        Ok(Abilities { version, machines, cpus, sandbox })
    }

    /// The CPU model: the host's own under KVM, else the profile's, or RISC-V's plain one where this QEMU does not know that (before 8.2).
    pub fn cpu(&self, profile: &Profile, accel: Accel) -> String {
        let wanted = profile.qemu_system.cpu.as_str();
        let name = wanted.split(',').next().unwrap_or_default();
        match (accel, profile.name.as_str()) {
            // A 64-bit CPU that runs a 32-bit guest.
            (Accel::Kvm, "armhf") => "host,aarch64=off".to_owned(),
            (Accel::Kvm, _) => "host".to_owned(),
            (_, "riscv64") if !self.cpus.iter().any(|cpu| cpu == name) => "rv64".to_owned(),
            _ => wanted.to_owned(),
        }
    }

    /// The newest machine of a kind, with its version where it has one. Errors: it has none of that kind.
    pub fn newest(&self, program: &Path, kind: Kind) -> Result<String, Error> {
        let versions = |name: &&String| Some((numbers(name.strip_prefix(kind.family())?)?, (*name).clone()));
        let newest = self.machines.iter().filter_map(|name| versions(&name)).max();
        let bare = || self.machines.iter().find(|m| kind == Kind::Virt && *m == "virt").cloned();
        newest.map(|(_, name)| name).or_else(bare).ok_or_else(|| Error::Machine {
            program: program.display().to_string(),
            machine: if kind == Kind::Q35 { "q35" } else { "virt" }.to_owned(),
        })
    }

    /// That a recorded machine is still there. Errors: it is not.
    pub fn insist(&self, program: &Path, machine: &str) -> Result<(), Error> {
        if self.machines.iter().any(|m| m == machine) {
            return Ok(());
        }
        Err(Error::Machine { program: program.display().to_string(), machine: machine.to_owned() })
    }

    /// How to emulate. QEMU 7.2 with a thread for each CPU runs an x86 kernel that changes its own code wrongly, now and then; newer
    /// ones were not seen to.
    pub fn emulation(&self, kind: Kind) -> Accel {
        if kind == Kind::Q35 && self.version < Version(8, 0, 0) { Accel::TcgSingle } else { Accel::Tcg }
    }
}

/// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`
fn version(text: &str) -> Option<Version> {
    let word = text.lines().next()?.split("version ").nth(1)?.split_whitespace().next()?;
    let mut parts = word.split('.').map(|p| p.parse().ok());
    Some(Version(parts.next()??, parts.next()??, parts.next().flatten().unwrap_or_default()))
}

/// The first word of each line but the heading.
fn machines(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|l| !l.ends_with(':'));
    lines.filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
}

/// `7.2`, `4.0.1`.
fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "Supported machines are:
akita                Sharp SL-C1000 (Akita) PDA (PXA270)
none                 empty machine
virt-2.10            QEMU 2.10 ARM Virtual Machine
virt-7.2             QEMU 7.2 ARM Virtual Machine
virt                 QEMU 10.0 ARM Virtual Machine (alias of virt-10.0)
virt-10.0            QEMU 10.0 ARM Virtual Machine
virt-4.0.1           QEMU ARM Virtual Machine
xilinx-zynq-a9       Xilinx Zynq Platform Baseboard for Cortex-A9
";

    fn abilities(help: &str, version: Version) -> Abilities {
        Abilities { version, machines: machines(help), cpus: vec!["max".to_owned()], sandbox: true }
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(
            version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright"),
            Some(Version(7, 2, 22))
        );
        assert_eq!(version("QEMU emulator version 10.0.2\n"), Some(Version(10, 0, 2)));
        assert_eq!(version("bash, version x"), None);
        let program = Path::new("qemu-system-aarch64");
        let new = abilities(HELP, Version(10, 0, 2));
        assert_eq!(new.newest(program, Kind::Virt).unwrap(), "virt-10.0");
        let error = new.newest(program, Kind::Q35).unwrap_err().to_string();
        assert_eq!(error, "qemu-system-aarch64 knows no machine 'q35': install another QEMU");
        assert!(new.insist(program, "virt-7.2").is_ok());
        let error = new.insist(program, "virt-11.1").unwrap_err().to_string();
        assert!(error.contains("needs a QEMU not older than 11.1"), "{error}");
        let bare = abilities("Supported machines are:\nvirt   RISC-V VirtIO board\n", Version(7, 2, 0));
        assert_eq!(bare.newest(program, Kind::Virt).unwrap(), "virt");
    }

    #[test]
    fn models_of_cpus() {
        let all = crate::arch::Profiles::embedded();
        let mut qemu = abilities("", Version(10, 0, 2));
        assert_eq!(qemu.cpu(all.find("armhf").unwrap(), Accel::Kvm), "host,aarch64=off");
        assert_eq!(qemu.cpu(all.find("arm64").unwrap(), Accel::Kvm), "host");
        assert_eq!(qemu.cpu(all.find("riscv64").unwrap(), Accel::Tcg), "max");
        qemu.cpus.clear();
        assert_eq!(qemu.cpu(all.find("riscv64").unwrap(), Accel::Tcg), "rv64");
        let arm64 = all.find("arm64").unwrap();
        assert_eq!(qemu.cpu(arm64, Accel::Tcg), arm64.qemu_system.cpu);
    }

    #[test]
    fn threads_where_they_are_safe() {
        assert_eq!(abilities("", Version(7, 2, 18)).emulation(Kind::Q35), Accel::TcgSingle);
        assert_eq!(abilities("", Version(7, 2, 18)).emulation(Kind::Virt), Accel::Tcg);
        assert_eq!(abilities("", Version(10, 0, 2)).emulation(Kind::Q35), Accel::Tcg);
    }
}
