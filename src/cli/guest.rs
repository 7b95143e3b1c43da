//! What `create`, `new`, `run` and the short form have in common: their options, and small readers around them. What a newcomer would get
//! wrong: options become a request elsewhere ([`super::request`]), together with what a configuration says.

use std::ffi::{OsStr, OsString};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::access::AccessOptions;
use super::choices;
use super::failure::Failure;
use super::words::{self, Variable};
use crate::domain::full::Publish;
use crate::domain::xlcfg::{Accelerator, BackendChoice};
use crate::domain::{Bind, DomainRef, Name, Network, Registry};
use crate::ops::create::Created;
use crate::ops::exec::Command;
use crate::ops::{self, Ctx, Kind};

// No doc comment here: clap would take it for the help of the verb.
#[derive(Debug, Clone, Default, Args)]
pub struct GuestOptions {
    /// The architecture, under any name it has (arm64, aarch64, linux/arm/v7, …)
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// Show a host directory or file in the guest; '\:' is a colon in a path
    #[arg(short, long = "volume", value_name = "SRC:DST[:ro]", value_parser = OsStringValueParser::new().try_map(|w| words::bind(&w)))]
    pub volumes: Vec<Bind>,
    /// Set a variable; without a value it is taken from this command's environment
    #[arg(short, long = "env", value_name = "K=V", value_parser = OsStringValueParser::new().try_map(words::variable))]
    pub env: Vec<Variable>,
    /// The CPU that an emulated guest sees, by QEMU's name (cortex-a53; `qemu-aarch64 -cpu help` lists them)
    #[arg(long, value_name = "MODEL", conflicts_with = "board", value_parser = words::cpu)]
    pub cpu: Option<String>,
    /// The board whose CPU an emulated guest sees: rpi0, rpi1, rpi2, rpi3, rpi4, rpi5
    #[arg(long, value_name = "BOARD")]
    pub board: Option<String>,
    /// How the guest is connected: it shares the host's network, or has none
    #[arg(long, value_name = "host|none", value_parser = choices::network)]
    pub network: Option<Network>,
    /// The guest's hostname; the domain's name if it is not given
    #[arg(long, value_name = "H", value_parser = words::hostname)]
    pub hostname: Option<String>,
    /// Where Debian and Ubuntu packages come from [env: PRONTO_MIRROR]
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// Make the system from packages, with these besides: Debian and Ubuntu
    #[arg(long, value_name = "PACKAGE[,PACKAGE…]", value_delimiter = ',')]
    pub include: Vec<String>,
    /// Give the guest ids of its own, or fail: its root is nobody on the host (the default, where this host can)
    #[arg(long, conflicts_with = "no_userns")]
    pub userns: bool,
    /// Let the guest's root be the host's root, behind fences only
    #[arg(long)]
    pub no_userns: bool,
    /// Where a foreign guest's interpreter is registered: for this guest alone, or on the host
    #[arg(long, value_name = "private|host", value_parser = choices::registry)]
    pub binfmt: Option<Registry>,
    /// Run native programs of this machine in the place of a foreign Debian's own: the shell, make and small tools, or the compiler too; with a kernel of its own: who executes the guest
    #[arg(long, value_name = "off|tools|build|kvm|tcg", value_parser = choices::accelerator)]
    pub accel: Option<Accelerator>,
    /// Programs and packages that stay emulated all the same
    #[arg(long, value_name = "NAME[,NAME…]", value_delimiter = ',')]
    pub accel_exclude: Option<Vec<String>>,
    /// If an interpreter must be registered, leave setuid programs in guests without their privilege
    #[arg(long)]
    pub no_credentials: bool,
    #[command(flatten)]
    pub access: AccessOptions,
}

// What a guest with a kernel of its own is told; `run` has none of it.
#[derive(Debug, Clone, Default, Args)]
pub struct MachineOptions {
    /// Whose kernel it runs on: the host's (nspawn, kx), or its own (qemu, hexagon, hx); auto is its own where a kernel, disk or vif is named
    #[arg(long, value_name = "BACKEND", value_parser = choices::backend)]
    pub backend: Option<BackendChoice>,
    /// Its kernel, a file of this host's; the image's own if it is not given
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<String>,
    /// Its initial RAM disk, a file of this host's
    #[arg(long, value_name = "FILE")]
    pub ramdisk: Option<String>,
    /// The kernel's words, instead of those that pronto finds
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// A disk besides its root, in xl's words: format=qcow2,vdev=xvdb,target=/srv/data.qcow2
    #[arg(long = "disk", value_name = "XLTEXT", value_parser = choices::disk)]
    pub disks: Vec<String>,
    /// A network interface in xl's words, bridge=br0; without any there is one behind this host's address
    #[arg(long = "vif", value_name = "XLTEXT", value_parser = choices::vif)]
    pub vifs: Vec<String>,
    /// A port of this host's that leads into the guest
    #[arg(long, value_name = "[ADDR:]HOST:GUEST[/udp]", value_parser = choices::publish)]
    pub publish: Vec<Publish>,
}

// How a command runs; shared by `run` and `exec`.
#[derive(Debug, Clone, Default, Args)]
pub struct CommandOptions {
    /// Keep stdin open
    #[arg(short, long)]
    pub interactive: bool,
    /// Use a terminal, whatever stdin and stdout are
    #[arg(short, long)]
    pub tty: bool,
    /// Run as this user of the guest's, a name or a number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Start in this directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
}

impl CommandOptions {
    /// The request to run `words`.
    pub fn command(self, words: Vec<OsString>, env: Vec<Variable>) -> Command {
        Command {
            words,
            interactive: self.interactive,
            tty: self.tty.then_some(true),
            user: self.user,
            workdir: self.workdir,
            env: environment(env),
            limit: None,
            emulated: false,
        }
    }
}

fn wrong(why: impl Into<String>) -> Failure {
    Failure::Verb(ops::Error::new(Kind::Usage, why))
}

/// An image's text. Errors: not UTF-8, or an xl.cfg file.
pub fn image_text(word: &OsStr) -> Result<String, Failure> {
    let text = word.to_str().ok_or_else(|| {
        wrong(format!("the image '{}' is not valid UTF-8", word.to_string_lossy()))
            .with_hint("rename the file or directory")
    })?;
    if text.is_empty() {
        return Err(wrong("an image has no name of no letters"));
    }
    if text.ends_with(".cfg") && !std::path::Path::new(text).is_dir() {
        return Err(wrong(format!("'{text}' looks like an xl.cfg file, not like an image"))
            .with_hint("pronto create FILE, or pronto new FILE"));
    }
    Ok(text.to_owned())
}

impl Failure {
    fn with_hint(self, hint: &str) -> Failure {
        match self {
            Failure::Verb(error) => Failure::Verb(error.hint(hint)),
            other => other,
        }
    }
}

/// A bind whose source does not depend on where pronto was started.
pub fn absolute(bind: Bind) -> Result<Bind, Failure> {
    let source = std::path::absolute(&bind.source)
        .map_err(|why| Failure::Verb(ops::Error::new(Kind::Usage, "cannot make -v's path absolute").because(why)))?;
    Ok(Bind { source, ..bind })
}

/// Variables with their values; one without a value that this process does not have is left out, as docker does.
pub fn environment(all: Vec<Variable>) -> Vec<(OsString, OsString)> {
    all.into_iter().filter_map(|(name, value)| value.or_else(|| std::env::var_os(&name)).map(|v| (name, v))).collect()
}

/// Where packages come from: the option, else the environment.
pub fn mirror(option: Option<String>) -> Option<String> {
    option.or_else(|| std::env::var("PRONTO_MIRROR").ok().filter(|url| !url.is_empty()))
}

/// `--include`'s packages, sorted, each once. Errors: a word that names none.
pub fn packages(words: Vec<String>) -> Result<Vec<String>, Failure> {
    let all: std::collections::BTreeSet<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    all.iter().try_for_each(|word| ops::provision::bootstrap::check_package(word))?;
    Ok(all.into_iter().collect())
}

/// What stands where a domain is wanted: any word; one that is not UTF-8 names none.
pub fn domain() -> impl TypedValueParser<Value = DomainRef> {
    OsStringValueParser::new().map(|word| DomainRef::from(word.to_string_lossy().as_ref()))
}

/// The command behind an image or a name: everything, without one leading `--`.
pub fn command_words(mut words: Vec<OsString>) -> Vec<OsString> {
    if words.first().is_some_and(|w| w == "--") {
        words.remove(0);
    }
    words
}

/// A domain that could not be made is exit code 3, as in xl, whatever was the reason.
pub fn not_made(error: ops::Error) -> ops::Error {
    if error.kind() == Kind::General { error.with_kind(Kind::Create) } else { error }
}

/// One line per unit that failed in a guest that is ready all the same.
pub fn tell_failed_units(ctx: &Ctx, created: &Created) {
    for unit in &created.failed_units {
        ctx.report.warn(&format!("in '{}' unit {unit} failed", created.name));
    }
}

/// A domain by the name it was just given.
pub fn by_name(name: &Name) -> DomainRef {
    DomainRef::Name(name.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(all: &[&str]) -> Vec<OsString> {
        all.iter().map(OsString::from).collect()
    }

    #[test]
    fn one_leading_double_dash_is_dropped() {
        for (given, left) in [
            (vec!["--", "ls", "--"], vec!["ls", "--"]),
            (vec!["--", "--", "x"], vec!["--", "x"]),
            (vec!["ls", "-l"], vec!["ls", "-l"]),
            (vec![], vec![]),
        ] {
            assert_eq!(command_words(os(&given)), os(&left));
        }
    }
}
