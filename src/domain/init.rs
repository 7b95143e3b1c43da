//! Sorts of init: which of them say that they are up, and how each is asked to stop. Pure. What a newcomer would get wrong: only
//! systemd tells a container's manager anything (sd_notify(3)), and each of them understands other signals: what powers one off reboots
//! another.

use serde::{Deserialize, Serialize};

/// What runs as PID 1 of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InitKind {
    /// systemd.
    #[default]
    Systemd,
    /// System V's init with its inittab, whatever starts its services.
    SysV,
    /// OpenRC's own init.
    OpenRc,
    /// busybox's, whatever starts its services (Alpine: OpenRC).
    Busybox,
    /// Anything else.
    Other,
}

/// How a guest is asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// By a signal to PID 1.
    Signal(i32),
    /// By a command in the guest.
    Command(&'static [&'static str]),
}

impl InitKind {
    /// Whether it says `READY=1` by itself.
    pub fn tells(self) -> bool {
        self == InitKind::Systemd
    }

    /// How it is asked to power off, or to reboot. Sources: systemd(1), "SIGNALS"; init(8) of sysvinit; openrc-shutdown(8);
    /// busybox's init/init.c. What is unknown is asked as systemd is.
    pub fn request(self, reboot: bool) -> Request {
        let (off, again) = match self {
            InitKind::Systemd | InitKind::Other => {
                (Request::Signal(libc::SIGRTMIN() + 4), Request::Signal(libc::SIGINT))
            }
            InitKind::Busybox => (Request::Signal(libc::SIGUSR2), Request::Signal(libc::SIGTERM)),
            InitKind::SysV => (Request::Command(&["telinit", "0"]), Request::Command(&["telinit", "6"])),
            InitKind::OpenRc => (
                Request::Command(&["openrc-shutdown", "--poweroff", "now"]),
                Request::Command(&["openrc-shutdown", "--reboot", "now"]),
            ),
        };
        if reboot { again } else { off }
    }
}

/// Whether a process with these words is a step on the way up: a script of init's, or what runs them. The first words may be an
/// interpreter's.
pub fn is_starting(words: &[&str]) -> bool {
    const STEPS: [&str; 9] = [
        "rc",
        "rcS",
        "rc.sysinit",
        "rc.local",
        "openrc",
        "openrc-run",
        "openrc-run.sh",
        "startpar",
        "start-stop-daemon",
    ];
    words.iter().take(4).any(|word| {
        let name = word.rsplit('/').next().unwrap_or(word);
        STEPS.contains(&name) || word.contains("/init.d/") || word.contains("/rcS.d/") || word.contains("/rc.d/")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_understands_something_else() {
        assert_eq!(InitKind::Busybox.request(true), Request::Signal(15));
        assert_eq!(InitKind::Systemd.request(true), Request::Signal(2));
        assert_eq!(InitKind::Systemd.request(false), Request::Signal(38));
        assert_eq!(InitKind::SysV.request(true), Request::Command(&["telinit", "6"]));
        assert!(InitKind::Systemd.tells() && !InitKind::Other.tells());
    }

    #[test]
    fn steps_on_the_way_up() {
        for words in [
            &["/bin/sh", "/etc/init.d/rc", "2"][..],
            &["/usr/bin/qemu-arm", "/sbin/openrc", "openrc", "default"],
            &["startpar", "-p", "4"],
            &["/bin/sh", "/etc/init.d/ssh", "start"],
        ] {
            assert!(is_starting(words), "{words:?}");
        }
        for words in [&["/sbin/getty", "38400", "tty1"][..], &["/usr/sbin/cron"], &["-sh"], &[]] {
            assert!(!is_starting(words), "{words:?}");
        }
    }
}
