//! systemd-nspawn. What a newcomer would get wrong: Debian keeps it in a package of its own, systemd-container.

use super::{Finding, Level};
use crate::sys::process::{Tool, find_program};

pub(super) fn findings() -> Vec<Finding> {
    const INSTALL: &str = "install systemd-container (Debian, Fedora: systemd-container; Arch: systemd)";
    let Some(program) = find_program("systemd-nspawn") else {
        return vec![Finding::new("nspawn", Level::Bad, "systemd-nspawn is not installed").cure(INSTALL)];
    };
    let finding = match Tool::new(&program).arg("--version").output() {
        Err(error) => Finding::new("nspawn", Level::Bad, error.to_string()).cure(INSTALL),
        Ok(output) => judge(&String::from_utf8_lossy(&output)),
    };
    vec![finding]
}

/// systemd's `--version` begins with `systemd 252 (252.39-1~deb12u1)`.
fn judge(output: &str) -> Finding {
    let first = output.lines().next().unwrap_or_default();
    let digits: String =
        first.strip_prefix("systemd ").unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    match digits.parse::<u32>() {
        Ok(version) if version >= 247 => Finding::new("nspawn", Level::Ok, format!("systemd-nspawn {version}")),
        Ok(version) => Finding::new("nspawn", Level::Bad, format!("systemd-nspawn {version} is too old"))
            .cure("use systemd 247 or newer; 252 and newer are tested"),
        Err(_) => Finding::new(
            "nspawn",
            Level::Unknown,
            format!("systemd-nspawn does not say its version ('{}')", first.escape_debug()),
        )
        .cure("see systemd-nspawn --version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (output, level) in [
            ("systemd 252 (252.39-1~deb12u1)\n+PAM", Level::Ok),
            ("systemd 247 (247.3)", Level::Ok),
            ("systemd 241 (241)", Level::Bad),
            ("nonsense", Level::Unknown),
            ("", Level::Unknown),
        ] {
            assert_eq!(judge(output).level, level, "{output}");
        }
    }
}
