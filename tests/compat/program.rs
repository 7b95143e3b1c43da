//! The programs that run in dom0: `pronto` and this ring itself, static, for the emulated host's CPU. What a newcomer would get wrong: cargo builds them, so
//! they are never older than the sources; a CPU that this machine's Rust or C compiler does not know is a reason to skip what needs them, and
//! no reason to skip the rest.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use crate::common::harness::say;
use crate::common::have;
use crate::common::run::Run;
use crate::common::secs;
use crate::host::Host;

/// What was built.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The program under test.
    pub pronto: PathBuf,
    /// This test program.
    pub inside: PathBuf,
}

/// The programs for a host's CPU, built now if need be. Errors: why they cannot be had here. Panics when they do not compile.
pub fn built(host: Host) -> Result<Programs, String> {
    static ONE_AT_A_TIME: OnceLock<Mutex<()>> = OnceLock::new();
    let _alone = ONE_AT_A_TIME.get_or_init(Mutex::default).lock();
    let directory = Run::new("rustc").args(["--print", "target-libdir", "--target", host.target]).run();
    if directory.code() != 0 || !PathBuf::from(directory.text().trim()).is_dir() {
        return Err(format!("this Rust cannot build for {0}: rustup target add {0}", host.target));
    }
    if !have(host.cc) {
        return Err(format!("{} is not installed (contrib/install-deps.sh test)", host.cc));
    }
    let name = host.target.to_uppercase().replace('-', "_");
    let begun = std::time::Instant::now();
    let mut run = Run::new(env!("CARGO")).dir(env!("CARGO_MANIFEST_DIR"));
    run = run.args(["test", "--locked", "--no-run", "--message-format=json-render-diagnostics", "--test", "compat"]);
    run = run.args(["--target", host.target]).env(&format!("CARGO_TARGET_{name}_LINKER"), host.cc);
    // dom0 has no C library but its own, which is older than this machine's.
    run = run.env(&format!("CARGO_TARGET_{name}_RUSTFLAGS"), "-C target-feature=+crt-static");
    // Lines in panics are all that is wanted here, and they need no debugging information.
    run = run.env("CARGO_PROFILE_DEV_DEBUG", "0");
    let out = run.limit(secs(40 * 60)).run().ok();
    if begun.elapsed() > secs(5) {
        say(&format!("static programs for {}: built in {:.0} s", host.arch, begun.elapsed().as_secs_f64()));
    }
    let text = out.text();
    let executable = |name: &str| {
        let artifacts = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut named = artifacts.filter(|a| a["target"]["name"] == name);
        named.find_map(|a| a["executable"].as_str().map(PathBuf::from))
    };
    let both = executable("pronto").zip(executable("compat"));
    let (pronto, inside) = both.unwrap_or_else(|| panic!("cargo built no programs: {out}"));
    Ok(Programs { pronto, inside })
}
