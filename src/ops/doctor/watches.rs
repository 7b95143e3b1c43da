//! inotify instances, of which a user of the host may have so many: every guest's systemd takes several, and until guests run
//! in user namespaces they all count as the host's root. What a newcomer would get wrong: a guest that gets none crashes or
//! comes up degraded with "Too many open files", which has nothing to do with its files. Source: inotify(7).

use super::{Finding, Level};

/// What one systemd guest was seen to take (systemd 252: PID 1, journald, logind, dbus).
const PER_GUEST: u64 = 7;

/// How many guests fit, when that is known.
pub fn guests_that_fit() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").ok()?;
    Some(text.trim().parse::<u64>().ok()? / PER_GUEST)
}

/// What to do when they do not.
pub const CURE: &str = "sysctl -w fs.inotify.max_user_instances=1024";

pub(super) fn findings() -> Vec<Finding> {
    let Some(fit) = guests_that_fit() else { return Vec::new() };
    let what = format!("the host's inotify instances are enough for about {fit} guests at once");
    if fit >= 50 {
        return vec![Finding::new("limits", Level::Ok, what)];
    }
    vec![Finding::new("limits", Level::Warn, what).cure(CURE)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_limit() {
        let fit = guests_that_fit().expect("Linux has it since 2.6.13");
        let found = findings();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].cure.is_some(), fit < 50, "{found:?}");
    }
}
