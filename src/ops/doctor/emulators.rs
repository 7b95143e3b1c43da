//! Interpreters: which there are, how old, and how they are registered. What a newcomer would get wrong: most hosts have one
//! QEMU for all architectures, so what is the same for all is said once.

use std::collections::BTreeMap;

use super::{Finding, Level};
use crate::backend::nspawn::emulation;
use crate::binfmt::{self, Host, Level as Grade, Problem, Row, Version};
use crate::ops::{Ctx, isolation, registry};
use crate::sys::host;

const AREA: &str = "interpreters";

/// A systemd as demanding as any.
const NEWEST: u32 = 257;

pub(super) fn findings(ctx: &Ctx) -> Vec<Finding> {
    let profiles = match registry::profiles() {
        Ok(profiles) => profiles,
        Err(error) => {
            let cure = error.cure().unwrap_or_default().to_owned();
            return vec![Finding::new(AREA, Level::Bad, error.to_string()).cure(cure)];
        }
    };
    let host = Host { profiles, ..Host::system(ctx.store.run()) };
    let mut all = installed(&host);
    match registry::status(ctx, &[]) {
        Ok(rows) => all.extend(registered(&rows)),
        Err(error) => all.push(Finding::new("binfmt", Level::Unknown, error.to_string()).cure("look as root")),
    }
    all.push(own_registries(isolation::can_be_private()));
    all
}

/// Whether foreign guests leave a trace on the host.
fn own_registries(can: std::result::Result<(), String>) -> Finding {
    match can {
        Ok(()) => Finding::new("binfmt", Level::Ok, "foreign guests have a registry of interpreters of their own"),
        Err(why) => Finding::new("binfmt", Level::Warn, format!("foreign guests need this host's registry: {why}"))
            .cure("nothing is wrong with that, but their interpreters are seen on the host, for this boot"),
    }
}

/// Versions by the architectures that they run, and what is known to fail with them.
fn installed(host: &Host) -> Vec<Finding> {
    let mut versions: BTreeMap<(Version, bool), Vec<&str>> = BTreeMap::new();
    let mut plain: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let (mut native, mut missing, mut unfit) = (Vec::new(), Vec::new(), Vec::new());
    for profile in &host.profiles {
        let name = profile.name.as_str();
        match binfmt::runs_itself(profile) {
            Ok(true) => native.push(name),
            _ => match binfmt::best(profile, &host.profiles, host.cache.as_deref()) {
                Ok(best) => {
                    versions.entry((best.version, best.pie)).or_default().push(name);
                    if let Err(why) = binfmt::can_copy(&best.path) {
                        plain.entry(why).or_default().push(name);
                    }
                }
                Err(error @ binfmt::Error::Unfit { .. }) => unfit.push(error),
                Err(_) => missing.push(name),
            },
        }
    }
    let mut all = vec![Finding::new(AREA, Level::Ok, format!("this host runs {} itself", native.join(", ")))];
    for ((version, pie), arches) in &versions {
        all.extend(judge(*version, *pie, arches, host::kernel_version()));
    }
    all.extend(plain.iter().map(|(why, arches)| uncopied(why, arches)));
    let install = "install qemu-user (Debian: from trixie-backports, for version 11)";
    all.extend(unfit.iter().map(|e| Finding::new(AREA, Level::Warn, e.to_string()).cure(install)));
    if !missing.is_empty() {
        let what = format!("no interpreter for {}: guests of these architectures do not run", missing.join(", "));
        let level = if versions.is_empty() { Level::Bad } else { Level::Warn };
        all.push(Finding::new(AREA, level, what).cure(install));
    }
    all
}

/// What one version can and cannot do: it is asked about the newest guests, since nobody knows which will come.
fn judge(version: Version, pie: bool, arches: &[&str], kernel: (u32, u32, u32)) -> Vec<Finding> {
    let (major, minor, patch) = version;
    let what = format!("qemu-user {major}.{minor}.{patch} for {}", arches.join(", "));
    let mut all = vec![Finding::new(AREA, Level::Ok, what)];
    if let Some(what) = emulation::warning(NEWEST, version) {
        let what = format!("qemu-user {major}.{minor}.{patch}: of a guest with systemd 254 or newer, {what}");
        all.push(
            Finding::new(AREA, Level::Warn, what)
                .cure("install qemu-user 11.1 or newer (Debian: from trixie-backports)"),
        );
    }
    let problems = binfmt::demands(version, pie, kernel, Some(256), Some((2, 42)));
    let newer = |p: &Problem| if p.grade_is_fatal() { format!("{} (and newer)", p.text) } else { p.text.clone() };
    all.extend(problems.iter().map(|p| Finding::new(AREA, Level::Warn, newer(p)).cure(p.cure.clone())));
    all
}

/// Interpreters of which there can be no copy with options baked in, and why.
fn uncopied(why: &str, arches: &[&str]) -> Finding {
    let what = format!(
        "the interpreter for {} takes no options with it ({why}): --cpu and --board reach only processes that keep their \
         environment, and setuid programs obey the caller's QEMU_* variables",
        arches.join(", ")
    );
    Finding::new(AREA, Level::Warn, what).cure("install Debian's qemu-user, which is static, on an amd64 host")
}

impl Problem {
    fn grade_is_fatal(&self) -> bool {
        self.level == Grade::Fatal
    }
}

/// What is registered, what is wrong with it, and what flag C means.
fn registered(rows: &[Row]) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut with_credentials = Vec::new();
    for row in rows {
        let Some(entry) = &row.entry else {
            // Nothing is registered before it is needed; only what should be and is not is a fault.
            let faults = row.problems.iter().filter(|_| row.durable);
            all.extend(faults.map(|p| problem(row, p)));
            continue;
        };
        let durable = if row.durable { ", for good" } else { "" };
        let flags = row.flags.as_deref().unwrap_or_default();
        let what = format!("{}: entry {} ({flags}{durable})", row.arch, entry.escape_debug());
        all.push(Finding::new("binfmt", Level::Ok, what));
        all.extend(row.problems.iter().map(|p| problem(row, p)));
        if row.setuid {
            with_credentials.push(row.arch.as_str());
        }
    }
    if !with_credentials.is_empty() {
        let what = format!(
            "flag C is set for {}: the emulator is root for setuid files and obeys the caller's QEMU_* variables, so \
             whoever can reach such a file is root (pronto's store is closed to others)",
            with_credentials.join(", ")
        );
        all.push(
            Finding::new("binfmt", Level::Ok, what)
                .cure("pronto binfmt register --no-credentials, where users are not trusted"),
        );
    }
    all
}

fn problem(row: &Row, problem: &Problem) -> Finding {
    let cure = if problem.cure.is_empty() { "see pronto binfmt status".to_owned() } else { problem.cure.clone() };
    Finding::new("binfmt", Level::Warn, format!("{}: {}", row.arch, problem.text)).cure(cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bad_combinations_are_told_with_their_cure() {
        let told = |version, pie| -> Vec<String> {
            let all = judge(version, pie, &["arm64"], (6, 1, 140));
            all.into_iter().map(|f| format!("{:?} {}", f.level, f.what)).collect()
        };
        assert_eq!(told((11, 1, 3), true), ["Ok qemu-user 11.1.3 for arm64"]);
        let ten = told((10, 0, 2), true);
        assert!(ten.len() == 3 && ten[2].starts_with("Warn qemu-user 10.0.2 is too old for glibc 2.42"), "{ten:?}");
        assert!(ten[1].contains("DynamicUser="), "{ten:?}");
        let seven = told((7, 2, 15), false).join("\n");
        for word in ["systemd 256", "glibc 2.42", "fixed address", "Go 1.23"] {
            assert!(seven.contains(word), "{word}: {seven}");
        }
    }

    #[test]
    fn what_flag_c_means_is_said() {
        let row = Row {
            arch: "arm64".to_owned(),
            native: Some(false),
            entry: Some("pronto-arm64".to_owned()),
            ours: true,
            durable: true,
            interpreter: None,
            version: None,
            flags: Some("POCF".to_owned()),
            setuid: true,
            pinned: None,
            problems: Vec::new(),
        };
        let all = registered(std::slice::from_ref(&row));
        assert_eq!(all[0].what, "arm64: entry pronto-arm64 (POCF, for good)");
        assert!(all[1].what.contains("QEMU_*") && all[1].cure.is_some());
        let quiet = Row { entry: None, durable: false, setuid: false, ..row };
        assert!(registered(&[quiet]).is_empty());
    }
}
