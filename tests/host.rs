//! The hosts ring: the real binary on ordinary Debian hosts, where systemd is PID 1 and cgroups are v2 only, with the kernels and
//! systemds that Debian 12 and 13 ship. Each host is a machine emulated by QEMU; the checks are shell scripts that run in it
//! (tests/host/inside), and a test here is one of them. What a newcomer would get wrong: everything is emulated, so a guest of
//! another CPU is emulated twice and takes a minute to boot; `cargo test --test host -- trixie::limits` boots that one host and
//! runs that one check.

mod common;

#[path = "host/image.rs"]
mod image;
#[path = "host/layers.rs"]
mod layers;
#[path = "host/machine.rs"]
mod machine;
#[path = "host/ring.rs"]
mod ring;
#[allow(dead_code, reason = "the boot ring's writer of archives, of which a part is needed")]
#[path = "boot/tar.rs"]
mod tar;

use common::harness::{self, Case, Ring};
use image::Host;

/// Tests of one host: each is the check of its name (see tests/host/inside).
macro_rules! checks {
    ($host:ident: $($name:ident),+ $(,)?) => {
        use crate::common::harness::cases;
        $(fn $name() {
            crate::machine::check(crate::image::$host, stringify!($name));
        })+
        cases! { Together: $($name),+; }
    };
}

/// Debian 13: everything.
mod trixie {
    checks! { TRIXIE: the_host_is_ordinary, doctor_finds_nothing_bad, a_debian_boots, its_scope_is_delegated, machined_knows_it,
    limits, list_is_true, pause, reboot_inside, systemd_stops_it_in_order, start_and_shutdown, start_follows_at_once,
    the_creators_session_ends, run_without_an_init, runs_at_once, the_lent_unit_goes, many_layers, three_at_once,
    create_fails_at_every_step, the_creator_is_killed, the_monitor_is_killed, nspawn_is_killed, a_paused_one_is_killed,
    arm64_boots, arm64_runs, systemd_binfmt_restarts, binfmt_is_durable, nothing_was_logged }
}

/// Debian 12: what differs with the kernel (6.1) and systemd (252).
mod bookworm {
    checks! { BOOKWORM: the_host_is_ordinary, doctor_finds_nothing_bad, a_debian_boots, its_scope_is_delegated, machined_knows_it,
    limits, list_is_true, pause, reboot_inside, systemd_stops_it_in_order, start_and_shutdown, start_follows_at_once,
    the_creators_session_ends, run_without_an_init, runs_at_once, the_lent_unit_goes, many_layers,
    the_creator_is_killed, the_monitor_is_killed, nspawn_is_killed,
    arm64_boots, arm64_runs, systemd_binfmt_restarts, binfmt_is_durable, nothing_was_logged }
}

const HOSTS: [Host; 2] = [image::TRIXIE, image::BOOKWORM];

const ALL: [&[Case]; 3] = [ring::CASES, trixie::CASES, bookworm::CASES];

fn main() -> std::process::ExitCode {
    harness::main(
        Ring { refuse, prepare, unshare: machine::end, end: || common::pronto::end(&common::pronto::handlers()) },
        &ALL,
    )
}

/// The checks of a host that the command line chose.
fn chosen(host: Host) -> Vec<&'static str> {
    let all = ALL.concat();
    let names = all.iter().filter_map(|case| Some((case, case.name.split_once("::")?.1)));
    names
        .filter(|(_, short)| harness::is_chosen(short))
        .filter_map(|(_, short)| {
            short.split_once("::").filter(|(module, _)| *module == host.suite).map(|(_, check)| check)
        })
        .collect()
}

/// Why no host can be emulated here.
fn refuse() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("building the hosts needs root".into());
    }
    if std::env::consts::ARCH != "x86_64" {
        return Some(format!(
            "the hosts run this program, which must be amd64's, and this is {}",
            std::env::consts::ARCH
        ));
    }
    image::missing()
}

/// Builds what is missing, the hosts at the same time.
fn prepare() {
    std::thread::scope(|scope| {
        for host in HOSTS {
            // What goes wrong is told by the tests that need it.
            scope.spawn(move || std::panic::catch_unwind(|| host.built()));
        }
    });
    let _ = std::panic::catch_unwind(image::trees);
}
