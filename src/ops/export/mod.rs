//! `export`: a domain's file tree, or an image, out of the store in a form that other programs read. What a newcomer would get wrong: a domain
//! is exported as a machine of its own architecture would see it: its changes over its image, and the emulation layer between them left
//! out. Nothing is read by a path of the guest's, and nothing that is mounted in it.

mod target;

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

pub use target::Format;
use target::{Beside, Target, cannot};

use super::hexagon::{DISK, verbs};
use super::{Ctx, Error, Interrupt, Result, copy, images, import, registry, stored, tree};
use crate::domain::{Artifact, DomainRef, Layer, Platform, State, Step};
use crate::image::Digest;
use crate::image::pack::layout::{Description, Output};
use crate::image::pack::{self, Codec, Encoder, Form, Packed, Rules, ticking};
use crate::image::platform;
use crate::store::domains::Record;
use crate::store::images::Entry;
use crate::store::{blobs, layers};
use crate::sys::overlay::{Lower, Overlay};
use crate::sys::root::Root;

/// What is exported, and where to.
#[derive(Debug, Clone)]
pub struct Export<'a> {
    /// A domain's name or domid, or an image.
    pub what: &'a str,
    /// Where to; stdout when none.
    pub file: Option<&'a OsStr>,
    /// What stdout is.
    pub stdout: &'a std::fs::File,
    /// In what form, where the name does not say.
    pub format: Option<Format>,
    /// Which platform of an image, under any name.
    pub arch: Option<&'a str>,
    /// Replace what is there.
    pub force: bool,
}

/// Exports it. Errors: there is no such domain or image; the file exists; as write(2). Nothing is left of what could not be written whole.
pub fn export(ctx: &Ctx, what: &Export<'_>) -> Result<()> {
    super::need_root("export")?;
    let target = Target::parse(what.file, what.format, what.stdout.is_terminal())?;
    let _interrupt = Interrupt::collect()?;
    let source = Source::find(ctx, what)?;
    let step = ctx.report.begin(&format!("exporting {}", what.what), None);
    match &target {
        Target::Stdout => {
            tarball(ctx, &source, Codec::Plain, what.stdout, step.as_ref())
                .map(drop)
                .map_err(|e| at(Path::new("stdout"), e))?;
            source.check_still_whole(ctx)?;
        }
        Target::Tar(path, codec) => {
            let (half, file) = Beside::create(path, what.force)?;
            let file = tarball(ctx, &source, *codec, file, step.as_ref()).map_err(|e| at(path, e))?;
            source.check_still_whole(ctx)?;
            half.publish(&file)?;
        }
        Target::Oci(dir, tag) => {
            let mut output = Output::directory(dir, tag.as_deref(), what.force).map_err(|e| at(dir, e))?;
            image(ctx, &source, &mut output, tag.as_deref(), step.as_ref()).map_err(|e| at(dir, e))?;
            source.check_still_whole(ctx)?;
            output.finish().map_err(|e| at(dir, e))?;
        }
        Target::OciArchive(path, tag) => {
            let (half, file) = Beside::create(path, what.force)?;
            let mut output = Output::archive(file, path.display().to_string());
            image(ctx, &source, &mut output, tag.as_deref(), step.as_ref()).map_err(|e| at(path, e))?;
            source.check_still_whole(ctx)?;
            if let Some(file) = output.finish().map_err(|e| at(path, e))? {
                half.publish(&file)?;
            }
        }
    }
    step.done("");
    Ok(())
}

/// What went wrong on the way to a file.
fn at(path: &Path, error: crate::image::Error) -> Error {
    match error {
        crate::image::Error::Io { what, source } if what.starts_with("cannot write") => cannot(path, source),
        crate::image::Error::Store(interrupted @ crate::store::Error::Interrupted(_)) => interrupted.into(),
        other => Error::general(format!("cannot export to {}", path.display())).because(other),
    }
}

/// What is exported, held for as long as that takes.
struct Source {
    label: String,
    artifact: Artifact,
    /// An image's own layers can be told apart; a domain is one tree.
    entry: Option<Entry>,
    /// The tree as a whole.
    root: Root,
    living: bool,
    platform: Option<Platform>,
    _still: Option<copy::Still>,
}

impl Source {
    fn find(ctx: &Ctx, what: &Export<'_>) -> Result<Source> {
        super::sweep::sweep(ctx)?;
        let which = DomainRef::from(what.what);
        if let Some(domain) = ctx.store.resolve(&which)? {
            if stored::named(ctx, what.what)?.is_some() {
                ctx.report.note(&format!("'{0}' is taken for the domain: the image is localhost/{0}", what.what));
            }
            return Source::domain(ctx, domain);
        }
        let profiles = registry::profiles()?;
        let wanted = what.arch.map(|arch| profiles.find(arch).map(|p| registry::platforms(p, arch))).transpose()?;
        let Some((name, entry)) = stored::find(ctx, what.what, wanted.as_deref())? else {
            let none = format!("there is no domain and no stored image '{}'", what.what.escape_debug());
            return Err(Error::general(none).hint("see pronto list --all and pronto images"));
        };
        let artifact = stored::artifact(name.clone(), &entry);
        let root = open(tree::lowers(&ctx.store, &artifact)?, &name)?;
        let platform = match (&entry.platform, wanted.as_deref()) {
            (Some(platform), _) => Some(platform.clone()),
            (None, Some(asked)) => import::platform_named(asked),
            (None, None) => import::platform_of_files(ctx, &artifact, &profiles)?,
        };
        Ok(Source { label: name, artifact, entry: Some(entry), root, living: false, platform, _still: None })
    }

    fn domain(ctx: &Ctx, found: crate::store::domains::Domain) -> Result<Source> {
        let name = found.name.to_string();
        let disk = format!("its disk is {}", ctx.store.domain(&name).join(DISK).display());
        verbs::must_share(&found, "its files are on a disk of its own", &disk)?;
        let (record, living, still) = match found.state {
            State::Running | State::Stopping => {
                let moment = "pause it for the state of one moment";
                ctx.report.note(&format!("'{name}' is running: it is exported as it is now, file by file ({moment})"));
                (found.record, true, None)
            }
            State::Paused => (found.record, false, None),
            State::ShutOff => {
                let (still, domain) = copy::Still::hold(ctx, &found)?;
                (domain.record, false, Some(still))
            }
            state => return Err(Error::state(&name, state, "it cannot be exported", "wait a moment and try again")),
        };
        // A second stack, made for this export alone, in which what the guest changes is read-only. Changes below a stack are undefined
        // behaviour, without a crash or a deadlock (overlayfs.rst, "Changes to underlying filesystems"): each name is looked up once, so a
        // file is seen as it was before or after a change, or is gone (`living`). The guest's own root would spare us that; but it shows
        // the emulation layer's files in the image's place, under lent ids and below the guest's mounts.
        let mut lowers = tree::lowers(&ctx.store, &record.artifact)?;
        let upper = ctx.store.domain(&name).join("upper");
        if upper.exists() {
            lowers.insert(0, upper.into());
        }
        let directory = record.artifact.layers.iter().any(|layer| matches!(layer, Layer::Directory(_)));
        let root = open(lowers, &name)?;
        let platform = platform_of(&record)?;
        let artifact = record.artifact;
        Ok(Source { label: name, artifact, entry: None, root, living: living || directory, platform, _still: still })
    }

    /// A layer that was removed while it was read looks like one that holds less.
    fn check_still_whole(&self, ctx: &Ctx) -> Result<()> {
        if images::still_there(ctx, &self.artifact)? {
            return Ok(());
        }
        Err(Error::general(format!("'{}' was removed from the store while it was exported", self.label)))
    }
}

fn open(lowers: Vec<Lower>, name: &str) -> Result<Root> {
    let tree = Overlay { lowers, ..Overlay::default() }.detached();
    let tree = tree.map_err(|e| Error::general(format!("cannot stack the layers of '{name}'")).because(e))?;
    Ok(Root::from_fd(tree, Path::new(name)))
}

/// What a domain's image says, where its programs do not say otherwise.
fn platform_of(record: &Record) -> Result<Option<Platform>> {
    let profiles = registry::profiles()?;
    let Ok(profile) = profiles.find(&record.arch) else { return Ok(record.artifact.platform.clone()) };
    let platforms = registry::platforms(profile, &record.arch);
    let said = record.artifact.platform.as_ref().filter(|p| platform::rank(p, &platforms).is_some());
    Ok(said.cloned().or_else(|| import::platform_named(&platforms)))
}

/// Writes the file tree as an archive.
fn tarball<W: Write>(ctx: &Ctx, source: &Source, codec: Codec, out: W, step: &dyn Step) -> crate::image::Result<W> {
    let tick = ticking(step);
    let rules = Rules { form: Form::Rootfs, living: source.living, tick: &tick };
    let fault = |fault: pack::Fault| fault.of(&source.label, &source.label);
    let encoder = Encoder::new(codec, out).map_err(|e| fault(pack::Fault::Out(e)))?;
    let gathered = io::BufWriter::with_capacity(256 << 10, encoder);
    let (gathered, packed) = pack::tree(source.root.fd(), &rules, gathered).map_err(fault)?;
    tell(ctx, &packed);
    let done = gathered.into_inner().map_err(io::IntoInnerError::into_error).and_then(Encoder::finish);
    let mut out = done.map_err(|e| fault(pack::Fault::Out(e)))?;
    out.flush().map_err(|e| fault(pack::Fault::Out(e)))?;
    Ok(out)
}

fn tell(ctx: &Ctx, packed: &Packed) {
    packed.left_out.iter().for_each(|line| ctx.report.warn(line));
}

/// Writes layers, config and manifest.
fn image(
    ctx: &Ctx,
    source: &Source,
    output: &mut Output,
    tag: Option<&str>,
    step: &dyn Step,
) -> crate::image::Result<()> {
    let tick = ticking(step);
    let mut written = Vec::new();
    let mut original = None;
    // A disk is no layer that others know: what a guest sees of it is.
    let mut disk = false;
    for key in source.entry.iter().flat_map(|entry| &entry.layers) {
        disk |= layers::meta(&ctx.store, key)?.is_some_and(|meta| meta.disk.is_some());
    }
    if let Some(entry) = source.entry.as_ref().filter(|_| !disk) {
        original = config(ctx, entry)?;
        for key in &entry.layers {
            let dir =
                std::fs::File::open(ctx.store.layer(key)).map_err(crate::image::Error::io("cannot open a layer"))?;
            let rules = Rules { form: Form::Layer, living: false, tick: &tick };
            let what = format!("layer {key} of {}", source.label);
            let pack = |file: &mut std::fs::File| blob(dir.as_fd(), &rules, file);
            let (blob, packed) = output.layer(pack, &what)?;
            tell(ctx, &packed);
            written.push(blob);
        }
    } else {
        let rules = Rules { form: Form::Single, living: source.living, tick: &tick };
        let pack = |file: &mut std::fs::File| blob(source.root.fd(), &rules, file);
        let (blob, packed) = output.layer(pack, &source.label)?;
        tell(ctx, &packed);
        written.push(blob);
    }
    if source.platform.is_none() {
        let why = "nothing in it tells which architecture it is for: say it with --arch".to_owned();
        return Err(crate::image::Error::Malformed { what: source.label.clone(), why });
    }
    let about = Description {
        platform: source.platform.clone(),
        config: source.artifact.config.clone(),
        original,
        tag: tag.map(str::to_owned),
    };
    output.image(&written, &about).map(drop)
}

fn blob(
    root: std::os::fd::BorrowedFd<'_>,
    rules: &Rules<'_>,
    file: &mut std::fs::File,
) -> std::result::Result<(pack::Blob, Packed), pack::Fault> {
    let (_, blob, packed) = pack::blob(root, rules, Codec::FOR_IMAGES, file)?;
    Ok((blob, packed))
}

/// The config that an image came with, if it is kept.
fn config(ctx: &Ctx, entry: &Entry) -> crate::image::Result<Option<serde_json::Value>> {
    let digest = entry.config_digest.as_ref().and_then(|digest| digest.parse::<Digest>().ok());
    let Some(digest) = digest else { return Ok(None) };
    let text = blobs::get(&ctx.store, digest.hex())?;
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}
