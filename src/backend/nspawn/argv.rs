//! systemd-nspawn's words for a plan: a pure function, golden-tested. What a newcomer would get wrong: `:` and `\` in the
//! paths of `--bind` are escaped by a backslash (systemd-nspawn(1)), and nothing else is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::backend::{Launch, Plan, Shared};
use crate::domain::Network;

/// The program and its environment. Source: systemd-nspawn(1), docs/ENVIRONMENT.md of systemd.
pub fn launch(plan: &Plan) -> Launch {
    Launch { words: words(plan), env: environment(plan) }
}

fn words(plan: &Plan) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |word: &str| words.push(word.into());
    add("systemd-nspawn");
    add("--quiet");
    // Not registered with machined by itself: it would tell the leader's PID in the pid namespace that we put it in.
    add("--register=no");
    add("--keep-unit");
    add("--notify-ready=yes");
    add("--console=interactive");
    add("--link-journal=no");
    add("--timezone=off");
    add("--resolv-conf=off");
    add(&format!("--machine={}", plan.machine));
    add(&format!("--hostname={}", plan.hostname));
    add(&format!("--uuid={}", plan.machine_id));
    if plan.network == Network::None {
        add("--private-network");
    }
    words.push(join("--directory=", plan.root.as_os_str()));
    words.extend(plan.shared.iter().map(bind));
    for (name, value) in &plan.env {
        let mut word = join("--setenv=", name);
        word.push("=");
        word.push(value);
        words.push(word);
    }
    words.push("--boot".into());
    words
}

fn environment(plan: &Plan) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ("LC_ALL".into(), "C".into()),
        ("TERM".into(), "vt220".into()),
        ("NOTIFY_SOCKET".into(), plan.notify.clone().into()),
    ];
    if plan.unified_cgroup {
        env.push(("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY".into(), "1".into()));
    }
    if plan.fenced {
        env.push(("SYSTEMD_SECCOMP".into(), "0".into()));
    }
    env
}

fn bind(shared: &Shared) -> OsString {
    let mut word = OsString::from(if shared.read_only { "--bind-ro=" } else { "--bind=" });
    word.push(escaped(&shared.staged));
    word.push(":");
    word.push(escaped(&shared.target));
    word
}

fn escaped(path: &Path) -> OsString {
    let mut out = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte == b':' || byte == b'\\' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    OsString::from_vec(out)
}

fn join(option: &str, value: &OsStr) -> OsString {
    let mut word = OsString::from(option);
    word.push(value);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            machine: "pronto-0123abcd-7".into(),
            hostname: "demo".into(),
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            root: "/run/systemd/nspawn/root".into(),
            network: Network::Host,
            shared: Vec::new(),
            env: Vec::new(),
            notify: "@pronto/7".into(),
            unified_cgroup: true,
            fenced: false,
        }
    }

    #[test]
    fn golden() {
        let launch = launch(&plan());
        let words: Vec<&str> = launch.words.iter().map(|w| w.to_str().unwrap()).collect();
        assert_eq!(
            words,
            [
                "systemd-nspawn",
                "--quiet",
                "--register=no",
                "--keep-unit",
                "--notify-ready=yes",
                "--console=interactive",
                "--link-journal=no",
                "--timezone=off",
                "--resolv-conf=off",
                "--machine=pronto-0123abcd-7",
                "--hostname=demo",
                "--uuid=0123456789abcdef0123456789abcdef",
                "--directory=/run/systemd/nspawn/root",
                "--boot",
            ]
        );
        assert!(launch.env.contains(&("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY".into(), "1".into())));
        assert!(!launch.env.iter().any(|(n, _)| n == "SYSTEMD_SECCOMP"));
    }

    #[test]
    fn paths_and_variables_come_through_whole() {
        let mut plan = plan();
        plan.network = Network::None;
        plan.fenced = true;
        plan.env = vec![("QEMU_RTSIG_MAP".into(), "34 34 20".into())];
        plan.shared = vec![Shared { staged: "/s/bind0".into(), target: r"/a:b\c d".into(), read_only: true }];
        let launch = launch(&plan);
        for word in ["--private-network", r"--bind-ro=/s/bind0:/a\:b\\c d", "--setenv=QEMU_RTSIG_MAP=34 34 20"] {
            assert!(launch.words.iter().any(|w| w == word), "{word}");
        }
        assert!(launch.env.contains(&("SYSTEMD_SECCOMP".into(), "0".into())));
    }
}
