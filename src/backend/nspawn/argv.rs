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
    if let Some(first) = plan.ids {
        words.push(format!("--private-users={first}:65536").into());
        // The root's layers are mapped already; an overlay cannot be.
        words.push("--private-users-ownership=off".into());
    }
    words.push(join("--directory=", plan.root.as_os_str()));
    words.extend(plan.shared.iter().map(bind));
    for (name, value) in &plan.env {
        let mut word = join("--setenv=", name);
        word.push("=");
        word.push(value);
        words.push(word);
    }
    match &plan.gate {
        None => words.push("--boot".into()),
        Some(gate) => {
            // What --boot would have set (systemd-nspawn(1)): how nspawn asks a guest to stop when it is told to itself.
            words.push("--kill-signal=SIGRTMIN+3".into());
            words.extend([gate.program.clone().into(), gate.init.clone().into()]);
        }
    }
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
    if let Some(gate) = &plan.gate {
        // nspawn is process 1 of the pid namespace that we put it in (sd_listen_fds(3)).
        env.push(("LISTEN_PID".into(), "1".into()));
        env.push(("LISTEN_FDS".into(), gate.descriptors.to_string().into()));
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
    use crate::backend::Gate;

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
            ids: None,
            gate: None,
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
    fn a_guest_with_ids_of_its_own_behind_a_gate() {
        let mut plan = plan();
        plan.ids = Some(0x9_0000);
        plan.gate = Some(Gate { program: "/proc/self/fd/3".into(), init: "/sbin/init".into(), descriptors: 2 });
        let launch = launch(&plan);
        let words: Vec<&str> = launch.words.iter().map(|w| w.to_str().unwrap()).collect();
        assert_eq!(
            words[12..],
            [
                "--private-users=589824:65536",
                "--private-users-ownership=off",
                "--directory=/run/systemd/nspawn/root",
                "--kill-signal=SIGRTMIN+3",
                "/proc/self/fd/3",
                "/sbin/init",
            ]
        );
        assert!(launch.env.contains(&("LISTEN_FDS".into(), "2".into())));
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
