//! Which CPU model an emulated guest sees: the one that was asked for (`--cpu`, `--board`), else the one that its programs were built
//! for, else the fastest that runs everything of its architecture. What a newcomer would get wrong: a model that is too small kills
//! programs with SIGILL in the middle of their work, so one that was asked for is compared with what the image's programs say.

use std::path::Path;

use super::inspect::Facts;
use super::{Error, Kind, Result};
use crate::arch::{Board, Model, Profile, Profiles};
use crate::domain::Spec;
use crate::sys::process::Tool;

/// QEMU's name for "everything that I can": what it takes when it is told nothing.
const MAX: &str = "max";

/// The model for a guest; `None` is QEMU's own choice. Errors: a board of another architecture, a model that is too small for the
/// image's programs.
pub fn model(profiles: &Profiles, profile: &Profile, facts: &Facts, spec: &Spec) -> Result<Option<String>> {
    let asked = match (&spec.cpu, &spec.board) {
        (Some(cpu), _) => Some(cpu.as_str()),
        (None, Some(name)) => Some(of_board(profiles, profile, name)?),
        (None, None) => None,
    };
    let built_for = facts.model(profiles);
    if let (Some(asked), Some(need)) = (asked, built_for) {
        // armhf and armel are run by one interpreter, and each knows its own generations.
        let models = || profiles.iter().filter(|p| p.binfmt == profile.binfmt).flat_map(|p| &p.qemu_user.models);
        if let Some(have) = models().find(|m| m.cpu == asked).filter(|have| have.tag_cpu_arch < need.tag_cpu_arch) {
            return Err(too_small(have, need));
        }
    }
    let default = profile.qemu_user.cpu.as_str();
    let cpu = asked.unwrap_or_else(|| built_for.map_or(default, |m| &m.cpu));
    Ok((cpu != MAX).then(|| cpu.to_owned()))
}

fn too_small(have: &Model, need: &Model) -> Error {
    let what =
        format!("the image's programs are built for ARM{}, and {} is ARM{}", need.variant, have.cpu, have.variant);
    Error::new(Kind::Create, what).hint(format!(
        "take an image for ARM{} (v6: Raspberry Pi OS; v5: Debian armel), or --cpu {}",
        have.variant, need.cpu
    ))
}

/// The architecture that a board means when none is named. Errors: no such board.
pub fn board<'a>(profiles: &'a Profiles, name: &str) -> Result<(&'a Profile, &'a Board)> {
    profiles.board(name).ok_or_else(|| {
        let mut known: Vec<&str> = profiles.iter().flat_map(|p| &p.boards).map(|b| b.name.as_str()).collect();
        known.sort_unstable();
        Error::new(Kind::Usage, format!("there is no board '{}'", name.escape_debug()))
            .hint(format!("known boards: {}", known.join(", ")))
    })
}

/// The model of a board's CPU for a guest of `profile`: the board's own, or one that the board runs too.
fn of_board<'a>(profiles: &'a Profiles, profile: &Profile, name: &str) -> Result<&'a str> {
    let (own, board) = board(profiles, name)?;
    // armhf and armel are run by one interpreter.
    if own.binfmt == profile.binfmt {
        return Ok(&board.cpu);
    }
    let also = own.also.iter().filter_map(|name| profiles.find(name).ok());
    if also.into_iter().any(|p| p.binfmt == profile.binfmt) {
        // The 32-bit interpreter knows no 64-bit CPU by its name; its own choice is one of that generation.
        return Ok(MAX);
    }
    Err(Error::new(
        Kind::Create,
        format!("{} ({name}) is a board for {}, and the image is for {}", board.title, own.name, profile.name),
    ))
}

/// That an interpreter knows a model. Errors: it does not, with the nearest that it knows.
pub fn is_known(interpreter: &Path, cpu: &str) -> Result<()> {
    let mut listing = String::new();
    // It ends with an error, having run no program.
    let _ = Tool::new(interpreter).args(["-cpu", "help"]).stream(|line| listing += &format!("{line}\n"));
    let known: Vec<&str> = models(&listing).collect();
    let name = cpu.split(',').next().unwrap_or(cpu);
    if known.is_empty() || known.contains(&name) {
        return Ok(());
    }
    let program = interpreter.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(Error::new(Kind::Create, format!("{program} knows no CPU '{}'", cpu.escape_debug()))
        .hint(format!("it knows: {}", known.join(" "))))
}

/// The names in what `qemu-user -cpu help` prints: one on each line behind the heading, with or without a word before it.
fn models(listing: &str) -> impl Iterator<Item = &str> {
    let lines = listing.lines().filter(|line| line.starts_with([' ', '\t']) || line.starts_with("x86 "));
    lines.filter_map(|line| line.trim_start_matches("x86 ").split_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf;
    use crate::ops::inspect::Found;

    fn facts(arch: &str, tag: Option<u64>) -> Facts {
        let mut header = elf::parse(&std::fs::read("/proc/self/exe").unwrap()).unwrap();
        header.arm = tag.map(|tag| elf::ArmAttributes { cpu_arch: Some(tag), ..elf::ArmAttributes::default() });
        let found = Found { path: "/bin/sh".into(), profile: Some(arch.into()), header };
        Facts { profile: Some(arch.into()), files: vec![found], ..Facts::default() }
    }

    fn chosen(
        arch: &str,
        tag: Option<u64>,
        cpu: Option<&str>,
        board: Option<&str>,
    ) -> std::result::Result<Option<String>, String> {
        let profiles = Profiles::embedded();
        let spec = Spec { cpu: cpu.map(str::to_owned), board: board.map(str::to_owned), ..Spec::default() };
        let profile = profiles.find(arch).unwrap();
        model(&profiles, profile, &facts(arch, tag), &spec)
            .map_err(|e| format!("{e}; {}", e.cure().unwrap_or_default()))
    }

    #[test]
    fn what_the_programs_were_built_for() {
        for (arch, tag, want) in [
            ("armel", Some(4), Some("arm926")),
            ("armhf", Some(6), Some("arm1176")),
            ("armhf", Some(10), Some("cortex-a7")),
            ("armhf", None, None),
            ("arm64", None, Some("neoverse-n1")),
            ("riscv64", None, None),
            ("s390x", None, None),
        ] {
            assert_eq!(chosen(arch, tag, None, None).unwrap().as_deref(), want, "{arch} {tag:?}");
        }
    }

    #[test]
    fn what_was_asked_for() {
        assert_eq!(chosen("arm64", None, Some("cortex-a53"), None).unwrap().as_deref(), Some("cortex-a53"));
        assert_eq!(chosen("arm64", None, Some("max"), None).unwrap(), None);
        assert_eq!(chosen("arm64", None, None, Some("rpi4")).unwrap().as_deref(), Some("cortex-a72"));
        assert_eq!(chosen("armhf", Some(6), None, Some("rpi0")).unwrap().as_deref(), Some("arm1176"));
        assert_eq!(chosen("armel", Some(4), None, Some("rpi1")).unwrap().as_deref(), Some("arm1176"));
        assert_eq!(chosen("armhf", Some(10), None, Some("rpi2")).unwrap().as_deref(), Some("cortex-a7"));
        assert_eq!(chosen("armhf", Some(10), None, Some("rpi3")).unwrap(), None, "a 32-bit system on a 64-bit board");
    }

    #[test]
    fn what_cannot_be() {
        let error = chosen("armhf", Some(10), None, Some("rpi0")).unwrap_err();
        assert!(error.contains("built for ARMv7") && error.contains("arm1176 is ARMv6"), "{error}");
        assert!(chosen("armhf", Some(10), Some("arm926"), None).unwrap_err().contains("arm926 is ARMv5"));
        assert!(chosen("riscv64", None, None, Some("rpi4")).unwrap_err().contains("riscv64"));
        assert!(chosen("arm64", None, None, Some("rpi2")).unwrap_err().contains("for armhf"));
        assert!(chosen("arm64", None, None, Some("rpi9")).unwrap_err().contains("rpi4"));
    }

    #[test]
    fn the_models_that_qemu_lists() {
        let arm = "Available CPUs:\n  a64fx\n  cortex-a53\n";
        assert_eq!(models(arm).collect::<Vec<_>>(), ["a64fx", "cortex-a53"]);
        let older = "Available CPUs:\nx86 486                   (alias configured by machine type)\nx86 max   Enables all\n\nRecognized CPUID flags:\n  3dnow acpi\n";
        assert_eq!(models(older).collect::<Vec<_>>(), ["486", "max", "3dnow"]);
    }
}
