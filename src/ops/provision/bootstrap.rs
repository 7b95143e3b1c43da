//! Debian and Ubuntu from a package mirror, by mmdebstrap, as a stored layer. What a newcomer would get wrong: maintainer
//! scripts of the guest's architecture run here, so for a foreign one the caller must have registered an interpreter with
//! the F flag (`ready` is called for that, before anything is made); mmdebstrap's own check is skipped, for it knows only
//! entries named `qemu-*` and binaries named `*-static`. Where it can be, most scripts run on this CPU itself (`native`).

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;

use super::{clean, native};
use crate::domain::{ImageConfig, Platform, Report};
use crate::image::{Digest, platform};
use crate::ops::apart::Place;
use crate::ops::{Ctx, Error, Interrupt, Result};
use crate::store::images::{self, Entry};
use crate::store::layers::{self, Claimed, Meta};
use crate::store::young;
use crate::sys::process::{Tool, ToolError, find_program};

/// What every system made here holds besides the essential packages: an init, its bus, and what logs a user in.
pub(super) const INCLUDE: &str = "systemd,systemd-sysv,dbus,libpam-systemd";
pub(super) const VARIANT: &str = "minbase";
/// Counts up when the recipe changes in a way that its words do not show.
const RECIPE: u32 = 2;

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish<'a> {
    /// `bookworm`, `noble`…
    pub suite: &'a str,
    /// The platforms that are wanted, best first, in OCI's names; the first that Debian knows is made.
    pub platforms: platform::Wanted<'a>,
    /// Where packages come from instead of the host's own mirror.
    pub mirror: Option<&'a str>,
    /// Packages that it holds besides ([`check_package`]), sorted, each once.
    pub include: &'a [String],
    /// Make it anew although it is there.
    pub force: bool,
}

/// The reference under which a suite is stored, with these packages besides.
pub fn reference(suite: &str, include: &[String]) -> String {
    match include {
        [] => format!("bootstrap:{suite}"),
        more => format!("bootstrap:{suite}+{}", more.join(",")),
    }
}

/// Whether a word names a package as apt-get install takes it: `NAME[:ARCH][=VERSION]` (deb-control(5), "Package"). A word that begins with a
/// dash would be an option, one with a slash a file.
pub fn check_package(word: &str) -> Result<()> {
    let name = word.split([':', '=']).next().unwrap_or_default();
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"+-.:=~_".contains(&b);
    if name.len() >= 2 && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(good) && word.bytes().all(rest)
    {
        return Ok(());
    }
    Err(Error::new(crate::ops::Kind::Usage, format!("'{}' is no name of a package", word.escape_debug()))
        .hint("--include takes names of Debian packages with commas between them: --include gcc,make"))
}

/// Finds what runs the scripts of a foreign architecture (Debian's name): lines for a registry of interpreters of the work's
/// own, or none when the host's registry has it.
pub type Ready<'a> = dyn Fn(&str) -> Result<Vec<String>> + 'a;

/// Makes the system that is wished for, or finds it in the store. `ready` is called with Debian's name of a foreign
/// architecture before it is made, and must have its interpreter registered when it returns. Errors: no mmdebstrap, no
/// mirror, an architecture that Debian does not know; nothing is left half-made.
pub fn obtain(ctx: &Ctx, wish: &Wish<'_>, ready: &Ready<'_>) -> Result<Entry> {
    let (wanted, debian) = wish
        .platforms
        .iter()
        .find_map(|(a, v)| Some(((a, v), platform::debian_name(a, v.as_deref())?)))
        .ok_or_else(|| Error::general(format!("Debian has no {}", platform::wanted_text(wish.platforms))))?;
    let (architecture, variant) = platform::normal(wanted.0, wanted.1.as_deref());
    let platform = Platform { architecture, os: "linux".into(), variant };
    let reference = reference(wish.suite, wish.include);
    let there =
        || if wish.force { Ok(None) } else { crate::image::oci::stored(&ctx.store, &reference, wish.platforms) };
    let waiting = || ctx.report.note(&format!("another pronto is making {} {debian}: waiting for it", wish.suite));
    let name = Digest::of(format!("{reference} {debian}").as_bytes());
    let claim = match layers::claim(&ctx.store, &format!("bootstrap-{}", name.hex()), there, waiting)? {
        Claimed::There(entry) => return Ok(entry),
        Claimed::Mine(claim) => claim,
    };
    need_program(debian)?;
    let mirror = mirror_for(wish.suite, wish.mirror)?;
    let foreign = debian != host_architecture()?;
    let private = if foreign { ready(debian)? } else { Vec::new() };
    layers::sweep(&ctx.store)?;
    let mut directory = claim.directory()?;
    let job = native::Job { debian, wish, mirror: &mirror, directory: &directory, private: &private };
    if !(foreign && native::make(ctx, &job, ready)?) {
        directory = claim.directory()?;
        let argv = argv(debian, wish, &directory, &mirror);
        run(apart(&argv, &private)?, wish.suite, debian, ctx.report.as_ref())?;
    }
    clean::system(&directory).map_err(|e| Error::general("cannot clean the new system").because(e))?;
    let (size, entries) =
        clean::measure(&directory).map_err(|e| Error::general("cannot read the new system").because(e))?;
    // What a mirror holds changes, so one recipe makes many layers: the time is a part of the name.
    let recipe = Digest::of(
        format!("{RECIPE} {VARIANT} {} {debian} {} {}", include_list(wish), wish.suite, mirror.url).as_bytes(),
    );
    let made = now();
    let key = format!("bootstrap-{}-{debian}-{}-{made}", key_part(wish.suite), recipe.short());
    claim.publish(&key, Meta { size, entries, ..Meta::default() }, None)?;
    let entry = Entry {
        platform: Some(platform),
        digest: Digest::of(key.as_bytes()).to_string(),
        config_digest: None,
        layers: vec![key],
        config: ImageConfig::default(),
        pulled: made,
        size,
        stamp: Some(recipe.to_string()),
    };
    young::settle(&ctx.store, &entry.layers)?;
    if images::put(&ctx.store, &reference, entry.clone())? {
        return Ok(entry);
    }
    Err(Error::general(format!("{reference} was removed from the store at the same time")))
}

/// Packages that are wanted for their files alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packages<'a> {
    /// `bookworm`.
    pub suite: &'a str,
    /// Debian's name of the architecture.
    pub arch: &'a str,
    /// Which; what they depend on comes with them.
    pub include: &'a [String],
    /// Where they come from instead of the host's own mirror.
    pub mirror: Option<&'a str>,
}

/// Unpacks packages into the new directory `into`, and leaves their archives in its `var/cache/apt/archives`. Nothing of them is run, so
/// any architecture will do. Errors: no mmdebstrap, no mirror, no such package.
pub fn unpack(ctx: &Ctx, packages: &Packages<'_>, into: &Path) -> Result<()> {
    need_program(packages.arch)?;
    let mirror = mirror_for(packages.suite, packages.mirror)?;
    let mut words: Vec<OsString> = vec!["mmdebstrap".into(), "--mode=root".into()];
    words.extend(common(packages.arch, "extract", &packages.include.join(","), &mirror).map(OsString::from));
    words.push("--skip=check/qemu,cleanup/apt/cache".into());
    words.extend(place(packages.suite, into, &mirror));
    run(apart(&words, &[])?, packages.suite, packages.arch, ctx.report.as_ref())
}

/// All packages that are named to mmdebstrap.
fn include_list(wish: &Wish<'_>) -> String {
    let more = wish.include.iter().map(String::as_str);
    std::iter::once(INCLUDE).chain(more).collect::<Vec<_>>().join(",")
}

/// The words of the command.
fn argv(debian: &str, wish: &Wish<'_>, directory: &Path, mirror: &Mirror) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["mmdebstrap".into(), "--mode=root".into()];
    words.extend(common(debian, VARIANT, &include_list(wish), mirror).map(OsString::from));
    words.push("--skip=check/qemu".into());
    words.extend(place(wish.suite, directory, mirror));
    words
}

/// What is said to mmdebstrap whichever way it works.
pub(super) fn common(debian: &str, variant: &str, include: &str, mirror: &Mirror) -> impl Iterator<Item = String> {
    // As when an init is installed from a mirror that was named: an archive's lists were valid until long ago.
    let late = mirror.named.then(|| "--aptopt=Acquire::Check-Valid-Until \"false\"".to_owned());
    let words = [
        "--format=directory".to_owned(),
        format!("--architectures={debian}"),
        format!("--variant={variant}"),
        format!("--include={include}"),
        // A tree that is not whole is thrown away, and a whole one is synced at once when it is published.
        "--dpkgopt=force-unsafe-io".to_owned(),
    ];
    words.into_iter().chain(late)
}

/// The last words: what is made, where, and out of what.
pub(super) fn place(suite: &str, directory: &Path, mirror: &Mirror) -> [OsString; 3] {
    let components = if is_ubuntu(suite) { "main universe" } else { "main" };
    [suite.into(), directory.into(), format!("deb {} {suite} {components}", mirror.url).into()]
}

/// The command in a pid namespace of its own, so that all that it starts ends with it, and it ends with us; with lines for a
/// registry of interpreters in a user namespace that has it.
fn apart(argv: &[OsString], private: &[String]) -> Result<Tool> {
    if private.is_empty() {
        return Ok(match find_program("unshare") {
            Some(unshare) => {
                Tool::new(unshare).args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]).args(argv)
            }
            None => Tool::new(&argv[0]).args(&argv[1..]),
        });
    }
    at(&Place { lines: private.to_vec(), system: None }, argv)
}

/// The command at a place that is not the host itself.
pub(super) fn at(place: &Place, argv: &[OsString]) -> Result<Tool> {
    let own = std::env::current_exe().map_err(|e| Error::general("cannot find this program itself").because(e))?;
    let place =
        serde_json::to_string(place).map_err(|e| Error::general("cannot name a place to work at").because(e))?;
    Ok(Tool::new(own).arg("__apart").arg(place).args(argv))
}

pub(super) fn run(tool: Tool, suite: &str, debian: &str, report: &dyn Report) -> Result<()> {
    let mut interrupt = Interrupt::collect()?;
    let step = report.begin(&format!("making {suite} {debian} from packages"), None);
    let tool = tool.tied().env("DEBIAN_FRONTEND", "noninteractive");
    let outcome = tool.stream_until(Some(interrupt.as_fd()), |line| {
        tracing::debug!(target: "pronto::guest", "{}", line.escape_debug());
        if let Some(said) = line.strip_prefix("I: ") {
            step.say(said);
        }
    });
    match outcome {
        Ok(true) => {
            step.done("");
            Ok(())
        }
        Ok(false) => {
            interrupt.check()?;
            Err(Error::general(format!("making {suite} for {debian} was stopped")))
        }
        Err(ToolError::Failed { stderr, .. }) => {
            // A terminal sends its signal to mmdebstrap, too, which may have ended of it before we have looked.
            interrupt.check()?;
            Err(Error::general(format!("mmdebstrap cannot make {suite} for {debian}"))
                .because(reason(&stderr))
                .hint(hint(&stderr)))
        }
        Err(error) => Err(Error::general(format!("cannot make {suite} for {debian}")).because(error)),
    }
}

/// What to do about it.
fn hint(output: &str) -> &'static str {
    if output.contains(" is expired ") {
        return "the mirror lags behind: name another one, or this one to take it as it is, with --mirror URL";
    }
    "see all of its output with --debug; another mirror is taken with --mirror URL"
}

/// The lines that say what is wrong; without such lines the last three.
fn reason(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let mut picked: Vec<&str> =
        lines.iter().filter(|l| l.starts_with("E:") || l.starts_with("Err:")).copied().collect();
    if picked.is_empty() {
        picked = lines[lines.len().saturating_sub(3)..].to_vec();
    }
    picked.truncate(4);
    picked.join("; ")
}

fn need_program(debian: &str) -> Result<()> {
    if find_program("mmdebstrap").is_some() {
        return Ok(());
    }
    Err(Error::general(format!("making a system for {debian} from packages needs mmdebstrap, which is not installed"))
        .hint("install the package mmdebstrap (apt-get install mmdebstrap)"))
}

fn is_ubuntu(suite: &str) -> bool {
    crate::image::catalogue::rows().iter().any(|row| {
        row.label.starts_with("ubuntu/")
            && row.sources.iter().any(|s| matches!(s, crate::image::catalogue::Source::Bootstrap(b) if b == suite))
    })
}

/// Whether a text is a mirror's URL that can stand in a line of sources.list(5).
pub(super) fn check_mirror(url: &str) -> Result<()> {
    if url.contains("://") && !url.starts_with('[') && !url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    Err(Error::general(format!("'{}' is no URL of a mirror", url.escape_debug())))
}

/// Where packages come from.
#[derive(Debug)]
pub(super) struct Mirror {
    pub(super) url: String,
    /// Whether somebody named it, and so means it as it is.
    pub(super) named: bool,
}

/// `--mirror`, else PRONTO_MIRROR, else the mirror that this host's own apt is configured with.
fn mirror_for(suite: &str, named: Option<&str>) -> Result<Mirror> {
    let given = named.map(str::to_owned).or_else(|| std::env::var("PRONTO_MIRROR").ok().filter(|m| !m.is_empty()));
    if let Some(url) = given {
        return check_mirror(&url).map(|()| Mirror { url, named: true });
    }
    let origin = if is_ubuntu(suite) { "Ubuntu" } else { "Debian" };
    let none = |why: String| {
        Error::general(format!("this host has no {origin} mirror configured"))
            .because(why)
            .hint("name one with --mirror URL")
    };
    let tool =
        Tool::new("apt-get").args(["indextargets", "--format", "$(SITE)\t$(ORIGIN)\t$(LABEL)", "Created-By: Packages"]);
    let listing = tool.output().map_err(|e| none(e.to_string()))?;
    pick_mirror(&String::from_utf8_lossy(&listing), origin)
        .map(|url| Mirror { url, named: false })
        .ok_or_else(|| none(format!("apt knows no source of {origin}'s")))
}

/// The first site of a distribution's main archive, in lines of site, origin and label.
fn pick_mirror(listing: &str, origin: &str) -> Option<String> {
    let mut lines = listing.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    lines.find(|f| f.len() == 3 && f[1] == origin && f[2] == origin).map(|f| f[0].to_owned())
}

/// Debian's name of this machine's architecture. Errors: it has none.
pub fn host_architecture() -> Result<String> {
    let said = Tool::new("dpkg").arg("--print-architecture").output();
    match said {
        Ok(name) => Ok(String::from_utf8_lossy(&name).trim().to_owned()),
        Err(_) => platform::host()
            .iter()
            .find_map(|(a, v)| platform::debian_name(a, v.as_deref()))
            .map(str::to_owned)
            .ok_or_else(|| Error::general("Debian does not know this machine's architecture")),
    }
}

fn key_part(suite: &str) -> String {
    suite.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_command() {
        let mirror = |url: &str, named| Mirror { url: url.to_owned(), named };
        let wish = |suite, include| Wish { suite, platforms: &[], mirror: None, include, force: false };
        let plain = wish("bookworm", &[]);
        let words = argv("arm64", &plain, Path::new("/s/a b"), &mirror("http://mirror.example/debian", false));
        let words: Vec<_> = words.iter().map(|w| w.to_str().unwrap()).collect();
        assert_eq!(
            words,
            [
                "mmdebstrap",
                "--mode=root",
                "--format=directory",
                "--architectures=arm64",
                "--variant=minbase",
                "--include=systemd,systemd-sysv,dbus,libpam-systemd",
                "--dpkgopt=force-unsafe-io",
                "--skip=check/qemu",
                "bookworm",
                "/s/a b",
                "deb http://mirror.example/debian bookworm main"
            ]
        );
        let more = ["gcc".to_owned(), "make".to_owned()];
        let with = argv("arm64", &wish("bookworm", &more), Path::new("/s"), &mirror("m", false));
        assert_eq!(with[5], "--include=systemd,systemd-sysv,dbus,libpam-systemd,gcc,make");
        assert_eq!(reference("bookworm", &more), "bootstrap:bookworm+gcc,make");
        let ubuntu = argv("arm64", &wish("noble", &[]), Path::new("/s"), &mirror("m", true));
        assert_eq!(ubuntu.last().unwrap(), "deb m noble main universe");
        assert_eq!(
            ubuntu[7], "--aptopt=Acquire::Check-Valid-Until \"false\"",
            "a mirror that was named is taken as it is"
        );
    }

    #[test]
    fn packages_and_what_is_none() {
        for good in ["gcc", "g++", "libc6-dev:amd64", "vim=2:9.0.1378-2", "python3.11", "0ad"] {
            check_package(good).unwrap();
        }
        for bad in ["", "x", "-y", "--foo", "./a.deb", "Gcc", "a b", "gcc;id", "?essential", "gcc\n"] {
            assert!(check_package(bad).unwrap_err().to_string().contains("no name of a package"), "{bad}");
        }
    }

    #[test]
    fn the_main_archive_is_the_mirror() {
        let listing = "http://s.example/debian-security\tDebian\tDebian-Security\nhttp://b.example/\tDebian\tDebian Backports\n\
                       http://m.example/debian\tDebian\tDebian\nhttp://n.example/debian\tDebian\tDebian\n";
        assert_eq!(pick_mirror(listing, "Debian").as_deref(), Some("http://m.example/debian"));
        assert_eq!(pick_mirror(listing, "Ubuntu"), None);
    }

    #[test]
    fn reasons_are_the_lines_that_complain() {
        let text = "I: running apt-get update\nErr:1 http://m.example x Release\nW: hm\nE: apt-get update failed\n";
        assert_eq!(reason(text), "Err:1 http://m.example x Release; E: apt-get update failed");
        assert_eq!(reason("a\nb\n\nc\nd\n"), "b; c; d");
        assert!(hint("E: Release file for x is expired (invalid since 19d)").contains("lags"));
    }
}
