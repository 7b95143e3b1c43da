//! From an image to what a guest with a kernel of its own starts: kernel, RAM disk, disk, machine. What a newcomer would get wrong: a container
//! image has none of it; it is given a kernel, an init and a guest agent by its own package manager, as a stored layer that every later
//! domain of that image uses at once.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{disk, machine};
use crate::arch::{Profile, Profiles};
use crate::backend::hexagon::qemu::Ports;
use crate::domain::full::Boot;
use crate::domain::kernel::{self, Kernel, Listing};
use crate::domain::{Layer, Name};
use crate::ops::create::Create;
use crate::ops::inspect::Facts;
use crate::ops::isolation::Isolation;
use crate::ops::{Ctx, Error, Interrupt, Kind, Result, facts, provision, tree};
use crate::store::domains::Record;
use crate::store::layers;
use crate::sys::overlay::Overlay;
use crate::sys::root::Root;

/// The names of what is taken out of an image, in the domain's directory.
const KERNEL: &str = "kernel";
const RAMDISK: &str = "ramdisk";
const VARIABLES: &str = "variables.fd";
/// Where a guest agent is, in trees that have one.
const AGENTS: [&str; 3] = ["usr/sbin/qemu-ga", "usr/bin/qemu-ga", "sbin/qemu-ga"];

/// What is there to work with.
#[derive(Debug)]
pub struct Work<'a> {
    /// The request.
    pub what: &'a Create,
    /// The architectures.
    pub profiles: &'a Profiles,
    /// How work in the image is kept from the host.
    pub isolation: Isolation,
    /// The domain's name, which is its hostname where no other is asked for.
    pub hostname: &'a str,
    /// The domain's directory.
    pub dir: &'a Path,
}

/// Makes all that a domain needs to start; what came of it is in the record. Errors: [`Kind::Create`]; what was made goes with the domain.
pub fn prepare(ctx: &Ctx, record: &mut Record, found: Facts, work: &Work<'_>, interrupt: &mut Interrupt) -> Result<()> {
    let label = record.artifact.label.clone();
    let mut found = found;
    let profile = profile(&found, work.profiles, &label)?;
    record.arch.clone_from(&profile.name);
    // Before anything is fetched or made for nothing.
    machine::program(profile)?;
    let (boot, base) = match base_of(ctx, record)? {
        Some((base, offset)) => {
            disk::over(record, &base, work.dir)?;
            (of_disk(ctx, record, profile, work, (&base, offset))?, Some(base))
        }
        None => (of_tree(ctx, record, &mut found, (profile, work), interrupt)?, None),
    };
    record.init = found.init.as_ref().map(|init| init.kind).unwrap_or_default();
    interrupt.check()?;
    record.hardware = Some(machine::choose(ctx, &record.spec, profile, (boot, base), None)?);
    let failed = |why: String| Error::new(Kind::Create, format!("cannot make a machine for '{label}'")).because(why);
    let whole = machine::describe(record, &Name::from_text(work.hostname), work.dir).map_err(failed)?;
    let ports = Ports::of(&whole).map_err(|e| Error::new(Kind::Create, e.to_string()))?;
    record.hardware.as_mut().map(|hardware| hardware.ports = ports).unwrap_or_default();
    Ok(())
}

/// Decides anew on all that may have changed on this host since the domain last ran. Errors: its machine is gone.
pub fn again(ctx: &Ctx, record: &mut Record, profiles: &Profiles) -> Result<()> {
    let Some(old) = record.hardware.clone() else { return Ok(()) };
    let profile = profiles.find(&record.arch).map_err(|e| Error::new(Kind::Create, e.to_string()))?;
    let kept = (old.boot.clone(), old.base.clone());
    record.hardware = Some(machine::choose(ctx, &record.spec, profile, kept, Some(&old))?);
    Ok(())
}

fn profile<'a>(facts: &Facts, profiles: &'a Profiles, label: &str) -> Result<&'a Profile> {
    facts.profile.as_deref().and_then(|p| profiles.find(p).ok()).ok_or_else(|| {
        Error::new(Kind::Create, format!("'{label}' holds programs of no architecture that pronto knows"))
    })
}

/// The file of an image that is a disk, and where its root begins in it.
fn base_of(ctx: &Ctx, record: &Record) -> Result<Option<(PathBuf, u64)>> {
    let Some(Layer::Stored(key)) = record.artifact.layers.last() else { return Ok(None) };
    let meta = layers::meta(&ctx.store, key)?;
    let volume = meta.and_then(|meta| meta.disk);
    Ok(volume.map(|volume| (ctx.store.layer(key).join(layers::DISK), volume.offset)))
}

/// What starts a disk: the kernel that the user names; UEFI, where the disk has something for it; a kernel of its own; or what a PC does by
/// itself. Errors: none of them.
fn of_disk(
    ctx: &Ctx,
    record: &Record,
    profile: &Profile,
    work: &Work<'_>,
    (base, offset): (&Path, u64),
) -> Result<Boot> {
    let label = &record.artifact.label;
    let failed = |e: std::io::Error| Error::new(Kind::Create, format!("cannot read '{label}'")).because(e);
    let layout = disk::layout(base, offset).map_err(failed)?;
    let root = layout.root.map_or_else(|| "/dev/vda".to_owned(), |number| format!("/dev/vda{number}"));
    let words = format!("root={root} rw console={}", profile.qemu_system.console);
    if let Some(kernel) = &work.what.spec.full.kernel {
        return given(kernel, work, words);
    }
    let installed = profile.qemu_system.firmware.iter().map(Path::new).find(|path| path.exists());
    if let Some(code) = installed.filter(|_| layout.esp) {
        return firmware(code, work);
    }
    let (tree, listing) = look(ctx, record)?;
    match (kernel::find(&listing), profile.name.as_str()) {
        (Some(kernel), _) => own(&tree, &kernel, work, words).map_err(failed),
        (None, "amd64") => Ok(Boot::Itself),
        _ if layout.esp => {
            let what = format!("'{label}' is started by UEFI, and none for {} is installed", profile.name);
            let package = if profile.name == "riscv64" { "qemu-efi-riscv64" } else { "qemu-efi-aarch64" };
            Err(Error::new(Kind::Create, what).hint(format!("apt-get install {package}")))
        }
        _ => {
            let what = format!("'{label}' is started by a board's own firmware, and has no kernel for another machine");
            Err(Error::new(Kind::Create, what).hint("name one: kernel=FILE ramdisk=FILE"))
        }
    }
}

fn firmware(code: &Path, work: &Work<'_>) -> Result<Boot> {
    let variables = PathBuf::from(code.to_string_lossy().replace("_CODE", "_VARS"));
    let variables = Some(variables).filter(|path| path != code && path.exists());
    let variables = variables.map(|from| take(&from, VARIABLES, work)).transpose()?;
    Ok(Boot::Firmware { code: code.to_owned(), variables })
}

/// Copies a file of the host's into the domain's directory, and gives its name there.
fn take(from: &Path, name: &str, work: &Work<'_>) -> Result<PathBuf> {
    let done = File::open(from).and_then(|source| disk::take(source, &work.dir.join(name)));
    done.map_err(|e| Error::new(Kind::Create, format!("cannot copy {}", from.display())).because(e))?;
    Ok(name.into())
}

/// A kernel of the image's own, copied. Errors: as open(2), write(2).
fn own(tree: &Root, kernel: &Kernel, work: &Work<'_>, words: String) -> std::io::Result<Boot> {
    disk::take(tree.open_file(&kernel.image)?, &work.dir.join(KERNEL))?;
    if let Some(path) = &kernel.ramdisk {
        disk::take(tree.open_file(path)?, &work.dir.join(RAMDISK))?;
    }
    Ok(Boot::Kernel {
        kernel: KERNEL.into(),
        ramdisk: kernel.ramdisk.as_ref().map(|_| RAMDISK.into()),
        cmdline: work.what.spec.full.cmdline.clone().unwrap_or(words),
    })
}

/// A kernel that the user names, copied.
fn given(kernel: &Path, work: &Work<'_>, words: String) -> Result<Boot> {
    let full = &work.what.spec.full;
    let image = take(kernel, KERNEL, work)?;
    let ramdisk = full.ramdisk.as_deref().map(|path| take(path, RAMDISK, work)).transpose()?;
    Ok(Boot::Kernel { kernel: image, ramdisk, cmdline: full.cmdline.clone().unwrap_or(words) })
}

fn of_tree(
    ctx: &Ctx,
    record: &mut Record,
    found: &mut Facts,
    (profile, work): (&Profile, &Work<'_>),
    interrupt: &mut Interrupt,
) -> Result<Boot> {
    let label = record.artifact.label.clone();
    let failed = |e: std::io::Error| Error::new(Kind::Create, format!("cannot read '{label}'")).because(e);
    let looked_for = work.what.spec.full.kernel.is_none();
    let (mut root, mut listing) = look(ctx, record)?;
    let mut kernel = kernel::find(&listing);
    if (looked_for && kernel.is_none()) || found.init.is_none() {
        let wish = provision::Wish {
            mirror: work.what.mirror.as_deref(),
            credentials: !work.what.spec.no_credentials,
            uuid: &record.uuid,
            isolation: work.isolation,
            kernel: looked_for && kernel.is_none(),
        };
        let layer = provision::provision(ctx, &record.artifact, found, work.profiles, &wish, interrupt)?;
        let layer = layer.ok_or_else(|| {
            Error::new(Kind::Create, format!("'{label}' holds no operating system, so it cannot boot"))
        })?;
        record.artifact.layers.push(layer);
        *found = facts::of(ctx, &record.artifact, work.profiles)?;
        (root, listing) = look(ctx, record)?;
        kernel = kernel::find(&listing);
    }
    if !AGENTS.iter().any(|path| root.exists(path)) {
        ctx.report.note(&format!("'{label}' has no guest agent: exec and reboot cannot reach into it"));
    }
    let console = &profile.qemu_system.console;
    let boot = match (&work.what.spec.full.kernel, kernel) {
        (Some(path), _) => {
            let ramdisk = work.what.spec.full.ramdisk.as_ref().map(|_| RAMDISK.into());
            let known = Kernel { image: KERNEL.into(), ramdisk, version: String::new(), words: Vec::new() };
            given(path, work, kernel::words(&known, &record.uuid, console))?
        }
        (None, Some(kernel)) => {
            let words = kernel::words(&kernel, &record.uuid, console);
            own(&root, &kernel, work, words).map_err(failed)?
        }
        (None, None) => {
            let error = Error::new(Kind::Create, format!("'{label}' has no kernel"));
            return Err(error.hint("name one: kernel=FILE ramdisk=FILE"));
        }
    };
    drop(root);
    disk::of_tree(ctx, record, work.dir, work.hostname)?;
    Ok(boot)
}

/// An image's tree, and what of a kernel is in it.
fn look(ctx: &Ctx, record: &Record) -> Result<(Root, Listing)> {
    let label = &record.artifact.label;
    let failed = |e: std::io::Error| Error::new(Kind::Create, format!("cannot read '{label}'")).because(e);
    let lowers = tree::lowers(&ctx.store, &record.artifact)?;
    let stack = Overlay { lowers, ..Overlay::default() }.detached().map_err(failed)?;
    let root = Root::from_fd(stack, Path::new(label));
    let names = |path: &str| -> Vec<String> {
        let all = root.read_dir(path).unwrap_or_default();
        all.into_iter().filter_map(|name| name.into_string().ok()).collect()
    };
    let entry = |name: String| {
        let text = root.read_text(format!("boot/loader/entries/{name}")).ok()?;
        Some((name, text))
    };
    let modules = names("usr/lib/modules");
    let has = |version: &&String| root.exists(format!("usr/lib/modules/{version}/vmlinuz"));
    let in_modules = modules.iter().filter(has).cloned().collect();
    let entries = names("boot/loader/entries").into_iter().filter_map(entry).collect();
    let listing = Listing { boot: names("boot"), entries, modules, in_modules };
    Ok((root, listing))
}
