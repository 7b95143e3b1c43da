//! KVM. What a newcomer would get wrong: nothing that shares the host's kernel needs it; only full guests are slow without.

use std::io;
use std::time::Duration;

use super::{Finding, Level};
use crate::sys::kvm::{Failure, Outcome, try_it};

const AREA: &str = "kvm";

pub(super) fn findings() -> Vec<Finding> {
    vec![judge(try_it(Duration::from_secs(3)))]
}

fn judge(tried: Result<Outcome, Failure>) -> Finding {
    const SLOW: &str = "full guests are emulated, which is slow; others do not need it";
    match tried {
        Ok(Outcome::Ran) => Finding::new(AREA, Level::Ok, "KVM works: it ran an instruction"),
        Ok(Outcome::Made) => Finding::new(AREA, Level::Ok, "KVM makes machines and CPUs"),
        Ok(Outcome::Hangs) => Finding::new(AREA, Level::Warn, format!("KVM hangs (no answer within 3 s): {SLOW}"))
            .cure("in a virtual machine: switch nested virtualisation off, or mend it in the host"),
        Err(failure) => match failure.source.kind() {
            io::ErrorKind::NotFound => Finding::new(AREA, Level::Warn, format!("there is no /dev/kvm: {SLOW}"))
                .cure("switch virtualisation on in the firmware, or nested virtualisation in the host; then modprobe kvm_intel or kvm_amd"),
            io::ErrorKind::PermissionDenied => Finding::new(AREA, Level::Unknown, "/dev/kvm may only be tried by root and the group kvm")
                .cure("run doctor as root, or usermod -aG kvm $USER"),
            _ => Finding::new(AREA, Level::Warn, format!("KVM does not work ({failure}): {SLOW}"))
                .cure("see the kernel's log; another hypervisor may hold the CPU"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome() {
        let fail = |errno| Err(Failure { step: "open /dev/kvm", source: io::Error::from_raw_os_error(errno) });
        for (tried, level) in [
            (Ok(Outcome::Ran), Level::Ok),
            (Ok(Outcome::Hangs), Level::Warn),
            (fail(libc::ENOENT), Level::Warn),
            (fail(libc::EACCES), Level::Unknown),
            (fail(libc::EBUSY), Level::Warn),
        ] {
            assert_eq!(judge(tried).level, level);
        }
    }
}
