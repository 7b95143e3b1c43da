//! Which QEMU is too old for which guest: known failures, told before a boot instead of after a silent one. Pure. What a
//! newcomer would get wrong: these are measured, not guessed; a version between a bad and a good one that nobody has tried is
//! a warning and no refusal.

use serde::Serialize;

use super::Version;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Some programs fail, or nobody knows.
    Warning,
    /// The guest does not boot.
    Fatal,
}

/// One thing that is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// What is wrong.
    pub text: String,
    /// What to install or to do.
    pub cure: String,
}

/// What holds a QEMU that runs everything known here. It has no dependencies and installs on older releases as it is.
const NEWER: &str = "install qemu-user 11 or newer (Debian: the package qemu-user from trixie-backports)";

/// What an interpreter of this version cannot do for a guest with this systemd and glibc (`None`: it has none, or nobody
/// knows). `pie` says whether the interpreter is position independent; `kernel` is the host's version.
pub fn demands(
    version: Version,
    pie: bool,
    kernel: (u32, u32, u32),
    systemd: Option<u32>,
    glibc: Option<(u32, u32)>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |level, text: String| problems.push(Problem { level, text, cure: NEWER.to_owned() });
    let qemu = format!("qemu-user {}.{}.{}", version.0, version.1, version.2);
    // systemd 256 starts everything with CLONE_PIDFD: "Failed to spawn executor: Invalid argument" under 7.2; 10.0 has it.
    if let Some(systemd) = systemd.filter(|s| *s >= 256) {
        if version < (8, 0, 0) {
            say(Level::Fatal, format!("{qemu} is too old for systemd {systemd}: it cannot start services"));
        } else if version < (10, 0, 0) {
            say(Level::Warning, format!("{qemu} may be too old for systemd {systemd}: only 10.0 and newer were tried"));
        }
    }
    // glibc 2.42's isatty() asks with TCGETS2, which 10.0 does not know: PID 1 takes its console for no terminal and is mute.
    if let Some((major, minor)) = glibc.filter(|g| *g >= (2, 42)) {
        if version < (11, 0, 0) {
            say(
                Level::Fatal,
                format!(
                    "{qemu} is too old for glibc {major}.{minor}: terminals do not work, nothing appears on the console"
                ),
            );
        }
    }
    // brk randomisation lets the heap of a fixed-address emulator run into the guest's; mended in 9.2.2 by a new layout.
    if !pie && version < (9, 2, 2) && kernel_randomises_brk(kernel) {
        say(
            Level::Warning,
            format!("{qemu} is built for a fixed address, which may crash programs at random on this kernel"),
        );
    }
    // Go's os.StartProcess hangs or fails from 7.2 until 8.0 (pidfd calls that are half there).
    if ((7, 2, 0)..(8, 0, 0)).contains(&version) {
        say(Level::Warning, format!("{qemu} makes programs built with Go 1.23 and newer hang when they start others"));
    }
    problems
}

/// "x86: Increase brk randomness entropy for 64-bit systems" (commit 44c76825d6ee) came with 6.9 and to stable kernels from
/// 6.1.123 on; distributions took it at their own times, so from there on every kernel is suspected.
fn kernel_randomises_brk(kernel: (u32, u32, u32)) -> bool {
    kernel >= (6, 1, 123)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: (u32, u32, u32) = (6, 1, 100);

    fn told(version: Version, pie: bool, kernel: (u32, u32, u32), systemd: u32, glibc: u32) -> Vec<(Level, String)> {
        let problems = demands(version, pie, kernel, Some(systemd), Some((2, glibc)));
        problems.into_iter().map(|p| (p.level, p.text)).collect()
    }

    #[test]
    fn the_newest_has_no_problem() {
        assert!(told((11, 1, 3), true, (6, 18, 0), 262, 42).is_empty());
        assert!(told((10, 0, 2), true, (6, 18, 0), 257, 41).is_empty());
        assert!(demands((10, 0, 2), true, OLD, None, None).is_empty());
    }

    #[test]
    fn what_is_known_to_fail() {
        let fatal = |list: Vec<(Level, String)>| {
            list.into_iter().filter(|p| p.0 == Level::Fatal).map(|p| p.1).collect::<Vec<_>>()
        };
        let old = fatal(told((7, 2, 15), true, OLD, 257, 41));
        assert_eq!(old, ["qemu-user 7.2.15 is too old for systemd 257: it cannot start services"]);
        let mute = fatal(told((10, 0, 2), true, OLD, 262, 42));
        assert_eq!(mute.len(), 1);
        assert!(mute[0].contains("too old for glibc 2.42"), "{mute:?}");
        assert!(fatal(told((7, 2, 15), true, OLD, 252, 36)).is_empty());
        assert_eq!(fatal(told((7, 2, 0), false, OLD, 256, 42)).len(), 2);
    }

    #[test]
    fn what_only_warns() {
        let go = told((7, 2, 15), true, OLD, 252, 36);
        assert!(go.len() == 1 && go[0].1.contains("Go 1.23"), "{go:?}");
        for (kernel, bad) in
            [((5, 10, 234), false), ((6, 1, 122), false), ((6, 1, 123), true), ((6, 8, 0), true), ((7, 0, 0), true)]
        {
            let fixed = told((9, 2, 1), false, kernel, 252, 36);
            assert_eq!(fixed.iter().any(|p| p.1.contains("fixed address")), bad, "{kernel:?}");
        }
        assert!(told((9, 2, 2), false, (6, 18, 0), 252, 36).is_empty());
        assert!(told((9, 0, 0), true, OLD, 256, 36)[0].1.contains("may be too old"));
        assert!(demands((10, 0, 0), true, OLD, None, None).iter().all(|p| !p.cure.is_empty()));
    }
}
