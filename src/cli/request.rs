//! Options, configuration and global options as one request. What a newcomer would get wrong: an option counts more than the file, as a word does;
//! but an option and a word that contradict each other are an error, since neither is the later one. Paths are made absolute, since the guest's
//! monitor works from elsewhere; a disk's target is not, for xl takes a relative one as below `/dev`.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::described::{self, Described, described};
use super::failure::Failure;
use super::front::Front;
use super::gather::{self, Words};
use super::guest::{self, GuestOptions, MachineOptions};
use super::which;
use crate::domain::full::{Executor, Publish};
use crate::domain::xlcfg::{Accelerator, Config, Value};
use crate::domain::{Accel, Backend, Full, Name, Network, Report, Spec};
use crate::ops::accel::Asked;
use crate::ops::create::Create;
use crate::ops::defaults::Native;
use crate::ops::{self, Kind};

/// What `create` and `new` are asked for, with the administrator's and create's defaults for the rest. What the backend does nothing with is
/// told. Errors: what was said contradicts itself, or cannot be done.
pub fn request(
    verb: &str,
    words: &Words,
    name: Option<String>,
    options: GuestOptions,
    machine: MachineOptions,
    front: &Front,
) -> Result<Create, Failure> {
    let backend = which::backend(&words.config, &machine, &front.globals)?;
    suits(&options, &machine, backend)?;
    warn(&words.config, &machine, backend, &front.talk);
    let said = described(&words.config, backend).map_err(gather::told)?;
    let image = image(verb, words, &said, &machine)?;
    make(&words.config, (name, image, backend), (options, machine), said, front)
}

/// Tells what the backend does nothing with, each once: keys, words of devices in the configuration, and of those in options.
fn warn(config: &Config, machine: &MachineOptions, backend: Backend, report: &dyn Report) {
    let column = described::column(backend);
    config.unheeded(column).iter().for_each(|unheeded| report.warn(&unheeded.to_string()));
    let devices = [("disk", &machine.disks), ("vif", &machine.vifs)];
    for (key, texts) in devices.into_iter().filter(|(_, texts)| !texts.is_empty()) {
        let mut options = Config::default();
        let values = texts.iter().map(Value::text).collect::<Result<Vec<Value>, _>>();
        // What cannot be in a configuration was refused before.
        let set = values.and_then(|values| options.set(key, Value::list(values)));
        for unheeded in set.map(|()| options.unheeded(column)).unwrap_or_default() {
            report.warn(&format!("--{} does nothing on {}", unheeded.key, column.name()));
        }
    }
}

/// What `run` and the short form are asked for: one command, in a guest that shares this host's kernel.
pub fn one_command(
    image: &OsStr,
    name: Option<String>,
    options: GuestOptions,
    front: &Front,
) -> Result<Create, Failure> {
    if which::of_options(&front.globals)? != Backend::Nspawn {
        return Err(Failure::Usage {
            line: "pronto: one command runs in a guest that shares this host's kernel".to_owned(),
            more: vec!["  try: pronto create --backend qemu IMAGE, then pronto exec NAME -- COMMAND".to_owned()],
            help: None,
        });
    }
    let made = (name, guest::image_text(image)?, Backend::Nspawn);
    make(&Config::default(), made, (options, MachineOptions::default()), Described::default(), front)
}

/// What is said of one key by an option and by the configuration.
struct Both<'a>(&'a Config);

impl Both<'_> {
    fn one<T: PartialEq>(&self, key: &str, option: Option<T>, said: Option<T>) -> Result<Option<T>, Failure> {
        self.under(&[key], option, said)
    }

    /// What is wrong with a value: at its place, unless an option said it.
    fn wrong(&self, key: &str, by_option: bool, why: &str) -> Failure {
        match self.0.get(key) {
            Some(_) if !by_option => gather::told(described::wrong(self.0, key, why)),
            _ => said_of(&format!("--{key}"), why),
        }
    }

    /// `keys` are those that the value was made from; the first has the option's name.
    fn under<T: PartialEq>(&self, keys: &[&str], option: Option<T>, said: Option<T>) -> Result<Option<T>, Failure> {
        let clash = keys.iter().find(|key| gather::in_words(self.0, key));
        match (&option, &said, clash) {
            (Some(a), Some(b), Some(key)) if a != b => Err(Failure::usage(format!(
                "pronto: --{} and {key}= say different things: give one of them",
                keys.first().unwrap_or(key).replace('_', "-")
            ))),
            _ => Ok(option.or(said)),
        }
    }
}

fn make(
    config: &Config,
    (name, image, backend): (Option<String>, String, Backend),
    (options, machine): (GuestOptions, MachineOptions),
    said: Described,
    front: &Front,
) -> Result<Create, Failure> {
    let both = Both(config);
    let defaults = if backend == Backend::Nspawn { front.defaults()?.accel } else { Native::default() };
    let name = name.map(|name| Name::new(&name)).transpose().map_err(|why| wrong(why.to_string()))?;
    let by_option = options.accel.is_some();
    let (accel, executor) = accel(both.one("accel", options.accel, said.accel)?, backend)
        .map_err(|why| both.wrong("accel", by_option, &why))?;
    let exclude = both.one("accel_exclude", options.accel_exclude, said.accel_exclude.clone())?;
    let asked = Asked { mode: accel.is_some(), exclude: exclude.is_some() };
    let network = both.one("network", options.network, said.network)?.unwrap_or_default();
    let full = Full { executor, max_vcpus: said.max_vcpus, ..full(&both, machine, &said, (backend, network, &image))? };
    let userns = options.userns.then_some(true).or(options.no_userns.then_some(false));
    let spec = Spec {
        hostname: both.one("hostname", options.hostname, said.hostname)?,
        image,
        backend,
        full,
        arch: both.one("arch", options.arch, said.arch)?.or_else(|| front.globals.arch.clone()),
        memory: said.memory,
        maxmem: said.maxmem,
        vcpus: said.vcpus,
        cpus: said.cpus,
        network,
        userns: both.one("userns", userns, said.userns)?,
        binfmt: both.one("binfmt", options.binfmt, said.binfmt)?,
        accel: accel.unwrap_or(defaults.mode),
        accel_exclude: exclude.unwrap_or(defaults.exclude),
        cpu: options.cpu,
        board: options.board,
        no_credentials: options.no_credentials,
        binds: options.volumes.into_iter().map(guest::absolute).collect::<Result<_, _>>()?,
        env: guest::environment(options.env),
        on_poweroff: said.on_poweroff.unwrap_or_default(),
        on_reboot: said.on_reboot,
        on_crash: said.on_crash.unwrap_or_default(),
        rm: false,
    };
    Ok(Create {
        name: both.one("name", name, said.name)?,
        spec,
        replace: false,
        wait: true,
        timeout: None,
        keep: false,
        paused: false,
        accel_asked: asked,
        mirror: guest::mirror(options.mirror),
        include: guest::packages(options.include)?,
    })
}

/// What only a guest with a kernel of its own is told, but for what is not in `machine`.
fn full(
    both: &Both<'_>,
    machine: MachineOptions,
    said: &Described,
    (backend, network, image): (Backend, Network, &str),
) -> Result<Full, Failure> {
    let (disks, vifs) = ([said.disks.clone(), machine.disks].concat(), [said.vifs.clone(), machine.vifs].concat());
    // Those of the configuration are right; options have no place to tell.
    disks.iter().try_for_each(|text| described::disk(text, backend)).map_err(|why| said_of("--disk", &why))?;
    vifs.iter().try_for_each(|text| described::vif(text)).map_err(|why| said_of("--vif", &why))?;
    described::apart(&disks, !image.is_empty()).map_err(|why| both.wrong("disk", false, &why))?;
    reaches(&machine.publish, !vifs.is_empty(), network)?;
    let (own_ramdisk, kernel) = (machine.ramdisk.is_some(), machine.kernel.as_ref().or(said.kernel.as_ref()));
    if kernel.is_none() && (own_ramdisk || said.ramdisk.is_some()) {
        let why = "it is loaded beside a kernel that is named, and there is no --kernel and no kernel=";
        return Err(both.wrong("ramdisk", own_ramdisk, why));
    }
    let file = |key, option, said: &Option<String>| {
        both.one(key, option, said.clone())?.map(|path| absolute(key, &path)).transpose()
    };
    Ok(Full {
        kernel: file("kernel", machine.kernel, &said.kernel)?,
        ramdisk: file("ramdisk", machine.ramdisk, &said.ramdisk)?,
        cmdline: both.under(&["cmdline", "root", "extra"], machine.cmdline, said.cmdline.clone())?,
        disks,
        vifs,
        publish: machine.publish,
        ..Full::default()
    })
}

fn said_of(key: &str, why: &str) -> Failure {
    Failure::usage(format!("pronto: {key}: {why}"))
}

/// A published port needs the network that QEMU makes by itself.
fn reaches(publish: &[Publish], vifs: bool, network: Network) -> Result<(), Failure> {
    let why = match network {
        _ if publish.is_empty() => return Ok(()),
        Network::None => "with --network none there is nothing that a port could lead into",
        Network::Host if vifs => "a guest on a bridge has an address of its own: leave --publish or vif out",
        Network::Host => return Ok(()),
    };
    Err(said_of("--publish", why))
}

/// Both meanings of `accel`. Errors: the one that this backend does not have.
fn accel(said: Option<Accelerator>, backend: Backend) -> Result<(Option<Accel>, Option<Executor>), String> {
    match (said, backend) {
        (None, _) => Ok((None, None)),
        (Some(Accelerator::Native(accel)), Backend::Nspawn) => Ok((Some(accel), None)),
        (Some(Accelerator::Kvm), Backend::Qemu) => Ok((None, Some(Executor::Kvm))),
        (Some(Accelerator::Tcg), Backend::Qemu) => Ok((None, Some(Executor::Tcg))),
        (Some(Accelerator::Native(accel)), _) => Err(format!(
            "'{accel}' is for guests that share this host's kernel (backend nspawn): here it is kvm or tcg"
        )),
        (Some(Accelerator::Kvm | Accelerator::Tcg), _) => {
            Err("kvm and tcg are for guests with a kernel of their own (backend qemu): here it is off, tools or build"
                .to_owned())
        }
    }
}

/// Errors: an option that means nothing to this backend. A key that means nothing is only told, since a file may be made for another one.
fn suits(options: &GuestOptions, machine: &MachineOptions, backend: Backend) -> Result<(), Failure> {
    let own = [
        (machine.kernel.is_some(), "kernel"),
        (machine.ramdisk.is_some(), "ramdisk"),
        (machine.cmdline.is_some(), "cmdline"),
        (!machine.disks.is_empty(), "disk"),
        (!machine.vifs.is_empty(), "vif"),
        (!machine.publish.is_empty(), "publish"),
    ];
    let shared = [
        (!options.volumes.is_empty(), "volume"),
        (!options.env.is_empty(), "env"),
        (options.accel_exclude.is_some(), "accel-exclude"),
    ];
    let (all, needs) = match backend {
        Backend::Nspawn => (&own[..], "a guest with a kernel of its own: --backend qemu"),
        Backend::Qemu | Backend::Xen => (&shared[..], "a guest that shares this host's kernel: --backend nspawn"),
    };
    match all.iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(Failure::usage(format!("pronto: --{option} needs {needs}"))),
        None => Ok(()),
    }
}

/// The image's text; none where a kernel or a disk stands in its place. Errors: nothing of these.
fn image(verb: &str, words: &Words, said: &Described, machine: &MachineOptions) -> Result<String, Failure> {
    let given = words.image.as_deref().map(guest::image_text).transpose()?;
    let one = match (given, &said.image) {
        (Some(word), Some(key)) if word != *key && gather::in_words(&words.config, "image") => {
            return Err(Failure::usage(format!(
                "pronto: the image is '{word}', and image= says '{key}': give one of them"
            )));
        }
        (word, key) => word.or_else(|| key.clone()),
    };
    if let Some(image) = one {
        return guest::image_text(image.as_ref());
    }
    let without = which::owns_kernel(&words.config, machine);
    match &words.file {
        // As xl says of a file without a kernel, with its exit code.
        Some(file) if !without => Err(Failure::said(
            format!(
                "pronto: {file}: it has no image=, and neither kernel= nor disk=: there is nothing to boot\n  try: add image=\"debian/bookworm\" to it, or pronto {verb} {file} IMAGE"
            ),
            1,
        )),
        None if !without => Err(Failure::said(format!("Image not specified: pronto {verb} IMAGE [key=value …]"), 6)),
        _ => Ok(String::new()),
    }
}

fn wrong(why: String) -> Failure {
    Failure::Verb(ops::Error::new(Kind::Usage, why))
}

fn absolute(key: &str, path: &str) -> Result<PathBuf, Failure> {
    let cannot = |why: String| said_of(key, &format!("cannot make '{path}' absolute: {why}"));
    let whole = std::path::absolute(path).map_err(|why| cannot(why.to_string()))?;
    if whole.to_str().is_none() { Err(cannot("the directory's name is not UTF-8".to_owned())) } else { Ok(whole) }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
