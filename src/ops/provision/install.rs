//! Runs a recipe in an image: in a jail without an init, on an overlay whose upper becomes a layer. What a newcomer would get
//! wrong: the commands are a stranger's programs that happen to be called apt-get. They get the host's network and nothing
//! else of it, and what they say is data.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::recipe::{self, Recipe};
use crate::backend::direct::{self, Plan};
use crate::domain::Step;
use crate::ops::{Ctx, Error, Interrupt, Kind, Result, delegation, ids};
use crate::store::domains::{Run, now};
use crate::sys::cgroup::{Cage, Limits};
use crate::sys::jail::Jail;
use crate::sys::overlay::{Lower, Mapping, Overlay};
use crate::sys::root::Root;
use crate::sys::sock;
use crate::sys::userns::acting_as;

/// How many of the last lines are kept to say why it failed.
const KEPT: usize = 200;
/// The longest line that is kept, in bytes.
const LONGEST: usize = 1000;

/// What to do, and where.
#[derive(Debug)]
pub struct Job<'a> {
    /// The domain for which it is done: its run record leads to the cgroups if we are killed.
    pub uuid: &'a str,
    /// The image's name, for messages.
    pub label: &'a str,
    /// The image's trees, the topmost first.
    pub lowers: Vec<Lower>,
    /// An empty directory for the changes.
    pub upper: PathBuf,
    /// An empty directory for overlayfs on the same file system.
    pub work: PathBuf,
    /// The commands.
    pub recipe: &'a Recipe,
    /// Whether they get ids of their own.
    pub userns: bool,
    /// The lines for a registry of interpreters of their own; none: the host's is used.
    pub private: Vec<String>,
}

/// Does it. Errors: [`Kind::Create`], with the last words of the command that failed; no process, mount or cgroup is left.
pub fn install(ctx: &Ctx, job: Job<'_>, interrupt: &mut Interrupt) -> Result<()> {
    let cannot = |what: &str| {
        Error::new(Kind::Create, format!("cannot {what} to install {} in '{}'", job.recipe.goods, job.label))
    };
    let claim = job.userns.then(|| ids::take(job.uuid)).transpose().map_err(|e| cannot("find ids").because(e))?;
    let mapping = claim.as_ref().map(|c| Mapping::of(c.range)).transpose();
    let ids = mapping.map_err(|e| cannot("make a user namespace").because(e))?;
    let range = claim.as_ref().map(|c| c.range);
    let overlay = Overlay { lowers: job.lowers, upper: Some((job.upper, job.work)), ids };
    let tree = overlay.detached_for_layer().map_err(|e| cannot("stack the layers").because(e))?;
    let root = Root::from_fd(tree, Path::new(job.label));
    acting_as(range, || write_files(&root, job.recipe)).map_err(|e| cannot("write files").because(e))?;
    let place = Place::make(ctx, job.uuid)?;
    let mut plan = plan(root.into_fd(), job.recipe, &place.cage).map_err(|e| cannot("open a cgroup").because(e))?;
    plan.ids = range;
    plan.private = job.private;
    let back = place.cage.borrow_v1().map_err(|e| cannot("enter a cgroup").because(e.to_string()))?;
    let started = direct::start(plan);
    drop(back);
    let jail = started.map_err(|e| cannot("start a command").because(e.to_string()))?;
    let step =
        ctx.report.begin(&format!("installing {} in {} by {}", job.recipe.goods, job.label, job.recipe.program), None);
    let begun = Instant::now();
    let mut output = Output { step: step.as_ref(), pending: Vec::new(), lines: VecDeque::new() };
    let status = attend(jail, interrupt, &mut output)?;
    if !status.success() {
        return Err(failure(job.label, job.recipe, status, output.lines.make_contiguous()));
    }
    step.done(&format!("installed {} in {} ({:.0} s)", job.recipe.goods, job.label, begun.elapsed().as_secs_f64()));
    Ok(())
}

/// The cgroups of the work, and the record that leads to them; dropped, everything in them ends and they go.
#[derive(Debug)]
struct Place {
    cage: Cage,
    record: PathBuf,
}

impl Place {
    fn make(ctx: &Ctx, uuid: &str) -> Result<Place> {
        let machine = format!("pronto-{}-{uuid}", ctx.store.tag());
        let lent = delegation::borrow()?;
        let cage = Cage::light(&lent.hierarchies, &machine, &Limits::default());
        drop(lent);
        let cage = cage.map_err(|e| Error::new(Kind::Create, e.to_string()))?;
        let place = Place { cage, record: ctx.store.run_dir(uuid).join("run.json") };
        let run = Run {
            machine,
            monitor: std::process::id() as i32,
            started: now(),
            cage: place.cage.clone(),
            backend: "direct".into(),
            ..Run::default()
        };
        ctx.store.write_run(uuid, &run)?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.cage.kill();
        let end = Instant::now() + Duration::from_secs(10);
        while !self.cage.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.cage.remove();
        let _ = std::fs::remove_file(&self.record);
    }
}

fn plan(root: OwnedFd, recipe: &Recipe, cage: &Cage) -> std::io::Result<Plan> {
    let cgroup = cage.guest().map(|guest| std::fs::File::open(guest).map(OwnedFd::from)).transpose()?;
    // A terminal, so that nothing of ours is handed in; "dumb" keeps programs from drawing on it.
    let terminal = [("TERM", "dumb")];
    let env = recipe.env.iter().chain(&terminal).map(|(n, v)| (n.into(), v.into())).collect();
    Ok(Plan {
        root,
        hostname: "localhost".into(),
        words: vec!["/bin/sh".into(), "-c".into(), recipe.script().into()],
        env,
        user: None,
        workdir: None,
        binds: Vec::new(),
        private_network: false,
        tty: true,
        resolv_conf: std::fs::read("/etc/resolv.conf").ok(),
        cgroup,
        ids: None,
        private: Vec::new(),
        copies: Vec::new(),
    })
}

/// Writes the recipe's files, in place of what has their names. The workshop must be new: an image that has one could have
/// put anything there.
fn write_files(root: &Root, recipe: &Recipe) -> std::io::Result<()> {
    nix::sys::stat::mkdirat(root.fd(), recipe::WORKSHOP, Mode::from_bits_truncate(0o755))?;
    for file in &recipe.files {
        let path = Path::new(&file.path);
        let parent = path.parent().unwrap_or(Path::new("."));
        let dir = root.open_at(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let dir = Root::from_fd(dir, parent);
        let target = dir.proc_path().join(path.file_name().unwrap_or_default());
        crate::sys::fs::write_volatile(&target, file.text.as_bytes(), file.mode)?;
        std::fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(file.mode))?;
    }
    Ok(())
}

/// What the commands say, line by line.
struct Output<'a> {
    step: &'a dyn Step,
    pending: Vec<u8>,
    lines: VecDeque<String>,
}

impl Output<'_> {
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' | b'\r' => self.end_line(),
                _ if self.pending.len() < LONGEST => self.pending.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.pending).trim().to_owned();
        self.pending.clear();
        if line.is_empty() {
            return;
        }
        tracing::debug!(target: "pronto::guest", "{}", line.escape_debug());
        self.step.say(&line);
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// Stays with the commands to their end. Errors: a signal wants us to end; the jail is gone then.
fn attend(mut jail: Jail, interrupt: &mut Interrupt, output: &mut Output<'_>) -> Result<ExitStatus> {
    let cannot_wait = |e| Error::general("cannot wait for the package manager").because(e);
    let mut terminal = jail.take_terminal().map(std::fs::File::from);
    loop {
        let mut fds = vec![(jail.ended(), false), (interrupt.as_fd(), false)];
        fds.extend(terminal.as_ref().map(|t| (t.as_fd(), false)));
        let ready = sock::poll(&fds, -1).map_err(cannot_wait)?;
        drop(fds);
        // Dropping the jail kills everything in it.
        interrupt.check()?;
        if ready.get(2) == Some(&true) {
            listen(&mut terminal, output);
        } else if ready[0] {
            break;
        }
    }
    output.end_line();
    jail.wait().map_err(cannot_wait)
}

/// Reads once. A terminal whose other side is closed says EIO: it has nothing more.
fn listen(terminal: &mut Option<std::fs::File>, output: &mut Output<'_>) {
    let mut buffer = [0; 4096];
    let Some(open) = terminal else { return };
    match open.read(&mut buffer) {
        Ok(n) if n > 0 => output.feed(&buffer[..n]),
        Err(e) if e.kind() == ErrorKind::Interrupted => {}
        _ => *terminal = None,
    }
}

/// One error: which command failed, its last words, and what to do.
fn failure(label: &str, recipe: &Recipe, status: ExitStatus, lines: &[String]) -> Error {
    let what = status.code().and_then(|code| recipe.failed(code)).map_or("install systemd and dbus", |c| c.what);
    let error = Error::new(Kind::Create, format!("{} cannot {what} in '{label}'", recipe.program));
    let why = reason(lines);
    let error = if why.is_empty() { error.because(status.to_string()) } else { error.because(why) };
    let run = format!("one command in it needs no init: pronto run {label} -- COMMAND");
    let says = |words: &[&str]| lines.iter().any(|line| words.iter().any(|word| line.contains(word)));
    if says(&["No space left on device", "enough free space", "enough free disk space"]) {
        return error.hint("free some space, or put the store elsewhere with --root");
    }
    if recipe.program == "apt-get" && says(&["Failed to fetch", "does not have a Release file", "Unable to locate"]) {
        return error.hint(format!(
            "look at the network, or name a mirror with --mirror URL (of a release that is no longer supported, its \
             distribution's archive); {run}"
        ));
    }
    error.hint(format!("see all of its output with --debug; {run}"))
}

/// The line that names the cause, and the last one that complains. Without such lines the last three.
fn reason(lines: &[String]) -> String {
    // The most telling first: apt's "Err:" has the cause on a line of its own, its warning has both.
    const CAUSES: [&str; 4] = ["No space left on device", "free space", "Failed to fetch", "Could not resolve host"];
    const COMPLAINTS: [&str; 6] = ["E: ", "Err:", "Error: ", "error: ", "dpkg: error", "Problem: "];
    let complains = |line: &&String| COMPLAINTS.iter().any(|start| line.starts_with(start));
    let cause = CAUSES.iter().find_map(|cause| lines.iter().find(|line| line.contains(cause)));
    let cause = cause.or_else(|| lines.iter().find(complains));
    let last = lines.iter().rev().find(complains).filter(|&last| Some(last) != cause);
    let mut picked: Vec<&String> = cause.into_iter().chain(last).collect();
    if picked.is_empty() {
        picked = lines[lines.len().saturating_sub(3)..].iter().collect();
    }
    // The front escapes it, as everything from outside.
    picked.into_iter().map(String::as_str).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Quiet;
    use crate::ops::inspect::OsRelease;
    use std::os::unix::process::ExitStatusExt;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn failed(code: i32, text: &str) -> Error {
        let recipe =
            recipe::recipe(Some(&OsRelease::default()), &|path| path == "/usr/bin/apt-get", None, None).unwrap();
        failure("x/y", &recipe, ExitStatus::from_raw(code << 8), &lines(text))
    }

    #[test]
    fn what_is_said_comes_in_lines() {
        let mut output = Output { step: &Quiet, pending: Vec::new(), lines: VecDeque::new() };
        output.feed(b"one\r\n(Reading 5%\r(Reading 10%\rtw");
        output.feed(b"o\n\n");
        output.feed(&[b'x'; 5000]);
        output.end_line();
        assert_eq!(output.lines.iter().take(4).collect::<Vec<_>>(), ["one", "(Reading 5%", "(Reading 10%", "two"]);
        assert_eq!(output.lines[4].len(), LONGEST);
        (0..1000).for_each(|n| output.feed(format!("{n}\n").as_bytes()));
        assert_eq!((output.lines.len(), output.lines.back().unwrap().as_str()), (KEPT, "999"));
    }

    #[test]
    fn without_a_network() {
        let text = "Ign:1 http://m.example bookworm InRelease\nErr:1 http://m.example bookworm InRelease\n\
            Temporary failure resolving 'm.example'\nReading package lists...\n\
            W: Failed to fetch http://m.example/InRelease  Temporary failure resolving 'm.example'\n\
            W: Some index files failed to download.\nE: Unable to locate package systemd\n\
            E: Unable to locate package dbus\n";
        let error = failed(65, text);
        assert_eq!(error.to_string(), "apt-get cannot install systemd and dbus in 'x/y'");
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            why,
            "W: Failed to fetch http://m.example/InRelease  Temporary failure resolving 'm.example'; \
             E: Unable to locate package dbus"
        );
        assert!(error.cure().unwrap().contains("--mirror"));
        assert_eq!(error.kind(), Kind::Create);
    }

    #[test]
    fn with_a_full_disk() {
        let error =
            failed(65, "Unpacking x\ndpkg: error processing archive x: No space left on device\nE: it failed\n");
        assert!(error.cure().unwrap().contains("free some space"));
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(why, "dpkg: error processing archive x: No space left on device; E: it failed");
    }

    #[test]
    fn otherwise() {
        let error = failed(64, "");
        assert_eq!(error.to_string(), "apt-get cannot read the package lists in 'x/y'");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "exit status: 64");
        assert_eq!(reason(&lines("a\nb\nc\nd\u{1b}[2J")), "b; c; d\u{1b}[2J");
        assert_eq!(reason(&lines("E: one\nE: one")), "E: one");
    }
}
