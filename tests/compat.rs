//! The compat ring: a real Xen with the real `xl`, in machines that QEMU emulates, one for arm64 and one for amd64. A script runs in dom0 and
//! records what each command prints (tests/compat/inside); the tests hold pronto's parsers and its xl.cfg against that, and pronto's driver
//! runs a guest there by itself. What a newcomer would get wrong: this program runs twice; copied into dom0 with the word `inside`, it is what uses
//! the driver there.

mod common;

#[path = "compat/archive.rs"]
mod archive;
#[path = "compat/configs.rs"]
mod configs;
#[path = "compat/driver.rs"]
mod driver;
#[path = "compat/host.rs"]
mod host;
#[path = "compat/life.rs"]
mod life;
#[path = "compat/look.rs"]
mod look;
#[path = "compat/machine.rs"]
mod machine;
#[path = "compat/program.rs"]
mod program;
#[path = "compat/refusals.rs"]
mod refusals;

use std::path::Path;

use common::harness::{self, Case, Ring};
use host::Host;

/// The same tests on each host: `check` stands for `module::check(host)`.
macro_rules! checks {
    ($host:ident: $($module:ident: $($name:ident),+);+ $(;)?) => {
        use crate::common::harness::cases;
        $($(fn $name() {
            crate::$module::$name(crate::host::$host);
        })+)+
        cases! { Together: $($($name),+),+; }
    };
}

mod arm64 {
    checks! { ARM64: look: lists_agree, the_host_is_described, cpus_and_uptime, tables_of_devices;
    configs: xl_understands_what_is_meant;
    life: made_paused, it_runs, its_devices, it_pauses, its_console, it_is_renamed, it_shuts_down, odd_names;
    refusals: missing_domains, wrong_words, bad_configurations, domain_0, nothing_is_left;
    driver: pronto_starts_there, a_life_by_the_driver }
}

mod amd64 {
    checks! { AMD64: look: lists_agree, the_host_is_described, cpus_and_uptime, tables_of_devices;
    configs: xl_understands_what_is_meant;
    life: made_paused, it_runs, its_devices, it_pauses, its_console, it_is_renamed, it_shuts_down, it_crashes, odd_names, it_is_saved;
    refusals: missing_domains, wrong_words, bad_configurations, domain_0, nothing_is_left;
    driver: pronto_starts_there, a_life_by_the_driver }
}

const HOSTS: [Host; 2] = [host::ARM64, host::AMD64];

const ALL: [&[Case]; 2] = [arm64::CASES, amd64::CASES];

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("inside") {
        return driver::inside();
    }
    harness::main(
        Ring { refuse, prepare, unshare: machine::end, end: || common::pronto::end(&common::pronto::handlers()) },
        &ALL,
    )
}

/// Whether the command line chose a test of this host.
fn is_wanted(host: Host) -> bool {
    let names = ALL.concat();
    let short = names.iter().filter_map(|case| Some(case.name.split_once("::")?.1));
    short.filter(|name| harness::is_chosen(name)).any(|name| name.split("::").next() == Some(host.arch))
}

/// Why no Xen host can be emulated here.
fn refuse() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("building the Xen hosts needs root".into());
    }
    let needed = ["mmdebstrap", "setpriv", host::ARM64.qemu, host::AMD64.qemu];
    let missing: Vec<&str> = needed.into_iter().filter(|p| !common::have(p)).collect();
    (!missing.is_empty()).then(|| format!("not installed: {} (contrib/install-deps.sh run test)", missing.join(", ")))
}

/// Builds what is missing: the hosts, and the programs for them.
fn prepare() {
    std::thread::scope(|scope| {
        for host in HOSTS {
            // What goes wrong is told by the tests that need it.
            scope.spawn(move || std::panic::catch_unwind(|| (host.built(), program::built(host))));
        }
    });
}

/// A whole file. Panics when it cannot be read.
fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
