//! What `create`, `new`, `run` and the short form have in common: options and `key=value` words become one request. What a
//! newcomer would get wrong: an option and a key that contradict each other are an error, since neither is the later one.

use std::ffi::{OsStr, OsString};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::access::AccessOptions;
use super::config::{self, Settings};
use super::failure::Failure;
use super::front::Globals;
use super::words::{self, Variable};
use crate::domain::{Accel, Backend, Bind, DomainRef, Full, Name, Network, Registry, Spec};
use crate::ops::accel::Asked;
use crate::ops::create::{Create, Created};
use crate::ops::defaults::Defaults;
use crate::ops::exec::Command;
use crate::ops::{self, Ctx, Kind};

// No doc comment here: clap would take it for the help of the verb.
#[derive(Debug, Clone, Default, Args)]
pub struct GuestOptions {
    /// The architecture, under any name it has (arm64, aarch64, linux/arm/v7, …)
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// Whose kernel it runs on: the host's (nspawn, kx), or its own, on QEMU (qemu, hexagon, hx)
    #[arg(long, value_name = "BACKEND", value_parser = config::backend)]
    pub backend: Option<Backend>,
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
    #[arg(long, value_name = "host|none", value_parser = config::network)]
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
    #[arg(long, value_name = "private|host", value_parser = config::registry)]
    pub binfmt: Option<Registry>,
    /// Run native programs of this machine in the place of a foreign Debian's own: the shell, make and small tools, or the compiler too
    #[arg(long, value_name = "off|tools|build", value_parser = config::accel)]
    pub accel: Option<Accel>,
    /// Programs and packages that stay emulated all the same
    #[arg(long, value_name = "NAME[,NAME…]", value_delimiter = ',')]
    pub accel_exclude: Option<Vec<String>>,
    /// If an interpreter must be registered, leave setuid programs in guests without their privilege
    #[arg(long)]
    pub no_credentials: bool,
    #[command(flatten)]
    pub access: AccessOptions,
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

/// `--accel` of one command in a domain that runs: it can only turn native programs off. Errors: anything else than `off`, with what to do.
pub fn no_accel(text: &str) -> Result<Accel, String> {
    match config::accel(text)? {
        Accel::Off => Ok(Accel::Off),
        other => Err(format!(
            "which programs are native is said when a domain is started: pronto shutdown -w NAME, pronto start --accel {other} NAME"
        )),
    }
}

/// `create`'s words apart: the image, and what the `key=value` words say. Errors: a second image, a key we do not obey.
pub fn sort(verb: &str, all: Vec<OsString>) -> Result<(Option<OsString>, Settings), Failure> {
    let mut image: Option<OsString> = None;
    let mut settings = Settings::default();
    for word in all {
        if config::is_assignment(&word) {
            settings.obey(&word).map_err(|why| Failure::usage(format!("pronto: {why}")))?;
        } else if let Some(first) = &image {
            return Err(Failure::usage(format!(
                "pronto: {verb} takes one image: both '{}' and '{}' were given",
                first.to_string_lossy(),
                word.to_string_lossy()
            )));
        } else {
            image = Some(word);
        }
    }
    Ok((image, settings))
}

/// Options, keys and global options as one request, with the administrator's and create's defaults for the rest.
pub fn request(
    image: &OsStr,
    name: Option<String>,
    options: GuestOptions,
    keys: Settings,
    (globals, defaults): (&Globals, &Defaults),
) -> Result<Create, Failure> {
    let image = image_text(image)?;
    let name =
        either("name", name, keys.name)?.map(|n| Name::new(&n)).transpose().map_err(|why| wrong(why.to_string()))?;
    if let (Some(memory), Some(maxmem)) = (keys.memory, keys.maxmem) {
        if maxmem < memory {
            return Err(wrong("maxmem is less than memory"));
        }
    }
    let accel = either("accel", options.accel, keys.accel)?;
    let exclude = either("accel-exclude", options.accel_exclude, keys.accel_exclude)?;
    let asked = Asked { mode: accel.is_some(), exclude: exclude.is_some() };
    let spec = Spec {
        hostname: either("hostname", options.hostname, keys.hostname)?,
        image,
        backend: options.backend.unwrap_or_default(),
        full: Full::default(),
        arch: either("arch", options.arch, keys.arch)?.or_else(|| globals.arch.clone()),
        memory: keys.memory,
        maxmem: keys.maxmem,
        vcpus: keys.vcpus,
        cpus: keys.cpus,
        network: either("network", options.network, keys.network)?.unwrap_or_default(),
        userns: either("userns", options.userns.then_some(true).or(options.no_userns.then_some(false)), keys.userns)?,
        binfmt: either("binfmt", options.binfmt, keys.binfmt)?,
        accel: accel.unwrap_or(defaults.accel.mode),
        accel_exclude: exclude.unwrap_or_else(|| defaults.accel.exclude.clone()),
        cpu: options.cpu,
        board: options.board,
        no_credentials: options.no_credentials,
        binds: options.volumes.into_iter().map(absolute).collect::<Result<_, _>>()?,
        env: environment(options.env),
        on_poweroff: keys.on_poweroff.unwrap_or_default(),
        on_reboot: keys.on_reboot,
        on_crash: keys.on_crash.unwrap_or_default(),
        rm: false,
    };
    Ok(Create {
        name,
        spec,
        replace: false,
        wait: true,
        timeout: None,
        keep: false,
        paused: false,
        accel_asked: asked,
        mirror: mirror(options.mirror),
        include: packages(options.include)?,
    })
}

fn wrong(why: impl Into<String>) -> Failure {
    Failure::Verb(ops::Error::new(Kind::Usage, why))
}

fn either<T: PartialEq>(what: &str, option: Option<T>, key: Option<T>) -> Result<Option<T>, Failure> {
    match (option, key) {
        (Some(a), Some(b)) if a != b => {
            Err(Failure::usage(format!("pronto: --{what} and {what}= say different things: give one of them")))
        }
        (a, b) => Ok(a.or(b)),
    }
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
    if text.ends_with(".cfg") {
        return Err(wrong(format!("'{text}' looks like an xl.cfg file, which comes with the hexagon backend"))
            .with_hint("pronto create IMAGE key=value …"));
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

fn absolute(bind: Bind) -> Result<Bind, Failure> {
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

    #[test]
    fn what_is_said_wins_over_what_holds_for_all() {
        use crate::ops::defaults::Native;
        let defaults = Defaults { accel: Native { mode: Accel::Build, exclude: vec!["git".into()] } };
        let made = |options: GuestOptions, words: &[&str]| {
            let (image, keys) = sort("create", os(words)).unwrap();
            let what = request(&image.unwrap(), None, options, keys, (&Globals::default(), &defaults)).unwrap();
            (what.spec.accel, what.spec.accel_exclude, what.accel_asked)
        };
        let git = vec!["git".to_owned()];
        let none = GuestOptions::default;
        assert_eq!(made(none(), &["x/y"]), (Accel::Build, git.clone(), Asked::default()));
        let off = GuestOptions { accel: Some(Accel::Off), ..none() };
        assert_eq!(made(off, &["x/y"]), (Accel::Off, git, Asked { mode: true, exclude: false }));
        let words = ["x/y", "accel=tools", "accel_exclude=sed"];
        assert_eq!(made(none(), &words), (Accel::Tools, vec!["sed".into()], Asked { mode: true, exclude: true }));
    }

    #[test]
    fn options_and_keys_may_agree_but_not_differ() {
        let request_with = |name: Option<&str>, words: &[&str]| {
            let (image, keys) = sort("create", os(words)).unwrap();
            let options = GuestOptions { arch: Some("arm64".into()), ..GuestOptions::default() };
            request(
                &image.unwrap(),
                name.map(str::to_owned),
                options,
                keys,
                (&Globals::default(), &Defaults::default()),
            )
        };
        let made = request_with(Some("a"), &["name=a", "./tree", "arch=arm64", "memory=64", "maxmem=64"]).unwrap();
        assert_eq!(made.name.unwrap().as_str(), "a");
        assert_eq!((made.spec.image.as_str(), made.spec.arch.as_deref()), ("./tree", Some("arm64")));
        for bad in [["./tree", "name=b"], ["./tree", "arch=amd64"], ["f.cfg", "name=a"]] {
            assert!(request_with(Some("a"), &bad).is_err(), "{bad:?}");
        }
        assert!(request_with(None, &["x/y", "memory=64", "maxmem=63"]).is_err());
        assert!(request_with(Some("12"), &["x/y"]).is_err());
        assert!(sort("create", os(&["a/b", "c/d"])).is_err());
        assert_eq!(sort("create", os(&["name=x"])).unwrap().0, None);
    }
}
