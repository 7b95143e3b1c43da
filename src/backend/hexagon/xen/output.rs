//! Reads the tables that xl prints: `list`, `vcpu-list`, `uptime`, `vm-list`, `block-list`, `network-list`, `info`, `domid`, `domname`.
//! Source of the forms: what Xen 4.17 prints, held against the real xl by the compat ring.
//!
//! What a newcomer would get wrong: columns grow with what is in them and a domain's name may hold blanks, so that rows are read from the
//! right; and the state is six flags, not one of six words (`-bp---` is a paused domain that was idle a moment ago). All functions take whatever
//! bytes come and never panic; what is not UTF-8 is replaced, as the domid names the domain anyway.

use std::time::Duration;

use crate::domain::xlcfg::drive::{Bus, Drive};

/// A line that is not what xl prints there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read what 'xl {verb}' printed: {line:?}")]
pub struct Error {
    /// xl's verb.
    pub verb: &'static str,
    /// The line, at most 200 characters of it.
    pub line: String,
}

impl Error {
    pub(super) fn new(verb: &'static str, line: &str) -> Error {
        Error { verb, line: line.chars().take(200).collect() }
    }
}

/// Why a domain has shut down. Source: `xen/include/public/sched.h`, SHUTDOWN_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It powered itself off.
    Poweroff,
    /// It wants to start again.
    Reboot,
    /// It was saved.
    Suspend,
    /// It crashed.
    Crash,
    /// Its watchdog ended it.
    Watchdog,
    /// It wants to start again with its memory (kexec).
    SoftReset,
    /// What only a newer Xen knows.
    Other,
}

impl Reason {
    /// By its number.
    pub fn of_code(code: u32) -> Reason {
        use Reason::{Crash, Other, Poweroff, Reboot, SoftReset, Suspend, Watchdog};
        [Poweroff, Reboot, Suspend, Crash, Watchdog, SoftReset].get(code as usize).copied().unwrap_or(Other)
    }

    /// By its letter in the fifth column of the state.
    fn of_letter(letter: u8) -> Option<Reason> {
        if letter == b'?' {
            return Some(Reason::Other);
        }
        b"-rscwS".iter().zip(0..).find(|(l, _)| **l == letter).map(|(_, code)| Reason::of_code(code))
    }
}

/// The state of a domain: flags, of which several may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct State {
    /// `r`: on a CPU just now.
    pub running: bool,
    /// `b`: idle, or waiting.
    pub blocked: bool,
    /// `p`: paused.
    pub paused: bool,
    /// `s`: shut down, and why.
    pub shutdown: Option<Reason>,
    /// `d`: being taken away.
    pub dying: bool,
}

impl State {
    /// Reads six columns: `rbpsXd`. None: something else.
    pub fn read(text: &str) -> Option<State> {
        let [r, b, p, s, why, d] = text.as_bytes() else { return None };
        let flag = |byte: &u8, letter: u8| (*byte == letter || *byte == b'-').then_some(*byte == letter);
        let why = Reason::of_letter(*why)?;
        Some(State {
            running: flag(r, b'r')?,
            blocked: flag(b, b'b')?,
            paused: flag(p, b'p')?,
            shutdown: flag(s, b's')?.then_some(why),
            dying: flag(d, b'd')?,
        })
    }
}

/// A row of `xl list`, or of `xl list -v`.
#[derive(Debug, Clone, PartialEq)]
pub struct Domain {
    /// Its name; none while it is being made or taken away.
    pub name: Option<String>,
    /// Its number.
    pub domid: u32,
    /// The memory that it has now, in MiB.
    pub memory: u64,
    /// How many of its CPUs are online.
    pub vcpus: u32,
    /// What it is doing.
    pub state: State,
    /// The CPU time that it has used, in seconds.
    pub seconds: f64,
    /// Its identity, of `list -v` only.
    pub uuid: Option<String>,
}

/// Reads `xl list`. Errors: a row that is none.
pub fn list(bytes: &[u8]) -> Result<Vec<Domain>, Error> {
    table("list", bytes, "Name", |line| row(line, &mut Words::of(line)))
}

/// Reads `xl list -v`. Errors: a row that is none.
pub fn list_verbose(bytes: &[u8]) -> Result<Vec<Domain>, Error> {
    table("list -v", bytes, "Name", |line| {
        let mut words = Words::of(line);
        let (_label, _reason) = (words.last()?, words.last()?);
        let uuid = words.last().filter(|w| is_uuid(w))?;
        Some(Domain { uuid: Some(uuid.to_owned()), ..row(line, &mut words)? })
    })
}

fn row(line: &str, words: &mut Words<'_>) -> Option<Domain> {
    let seconds = words.number::<f64>().filter(|s| s.is_finite() && *s >= 0.0 && !line.is_empty())?;
    let state = State::read(words.last()?)?;
    let (vcpus, memory, domid) = (words.number()?, words.number()?, words.number()?);
    Some(Domain { name: words.name()?, domid, memory, vcpus, state, seconds, uuid: None })
}

/// A row of `xl vcpu-list`.
#[derive(Debug, Clone, PartialEq)]
pub struct Vcpu {
    /// The domain's name.
    pub name: Option<String>,
    /// The domain's number.
    pub domid: u32,
    /// Which of its CPUs.
    pub vcpu: u32,
    /// The host's CPU that it is on; none when it is offline.
    pub cpu: Option<u32>,
    /// On a CPU just now.
    pub running: bool,
    /// Idle, or waiting.
    pub blocked: bool,
    /// The CPU time that it has used, in seconds.
    pub seconds: f64,
    /// The host's CPUs that it may use: `all`, `0-3`.
    pub hard: String,
    /// Those that it should use.
    pub soft: String,
}

/// Reads `xl vcpu-list`. Errors: a row that is none.
pub fn vcpu_list(bytes: &[u8]) -> Result<Vec<Vcpu>, Error> {
    table("vcpu-list", bytes, "Name", |line| {
        let mut words = Words::of(line);
        let (soft, slash, hard) = (words.last()?, words.last()?, words.last()?);
        let seconds = words.number::<f64>().filter(|s| s.is_finite() && slash == "/")?;
        let (running, blocked) = match words.last()?.as_bytes() {
            [r @ (b'r' | b'-'), b @ (b'b' | b'-'), b'p' | b'-'] => (*r == b'r', *b == b'b'),
            _ => return None,
        };
        let cpu = match words.last()? {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        let (vcpu, domid) = (words.number()?, words.number()?);
        let (hard, soft) = (hard.to_owned(), soft.to_owned());
        Some(Vcpu { name: words.name()?, domid, vcpu, cpu, running, blocked, seconds, hard, soft })
    })
}

/// Reads `xl uptime`: name, domid, and since when. Errors: a row that is none.
pub fn uptime(bytes: &[u8]) -> Result<Vec<(Option<String>, u32, Duration)>, Error> {
    table("uptime", bytes, "Name", |line| {
        let mut words = Words::of(line);
        let mut clock = words.last()?.split(':').map(|n| n.parse::<u64>().ok());
        let (hours, minutes, seconds) = (clock.next()??, clock.next()??, clock.next()??);
        let mut next = words.last()?;
        let mut days = 0;
        if matches!(next, "days," | "day,") {
            (days, next) = (words.number::<u64>()?, words.last()?);
        }
        let domid = next.parse().ok()?;
        let part = |n: u64, unit: u64| n.checked_mul(unit);
        let parts = [part(days, 86400)?, part(hours, 3600)?, part(minutes, 60)?, seconds];
        let total = parts.iter().try_fold(0u64, |sum, n| sum.checked_add(*n))?;
        Some((words.name()?, domid, Duration::from_secs(total)))
    })
}

/// Reads `xl vm-list`: UUID, domid, name. Errors: a row that is none.
pub fn vm_list(bytes: &[u8]) -> Result<Vec<(String, u32, Option<String>)>, Error> {
    table("vm-list", bytes, "UUID", |line| {
        let (uuid, rest) = line.split_once(' ')?;
        // Four blanks stand between them, and the name may begin with one.
        let (domid, name) = rest.trim_start().split_once("    ")?;
        is_uuid(uuid).then(|| Some((uuid.to_owned(), domid.parse().ok()?, named(name))))?
    })
}

/// A row of `xl block-list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The disk's number; [`vdev`] has its name.
    pub device: u32,
    /// The domain that serves it.
    pub backend: u32,
    /// XenbusState: 4 is connected.
    pub state: i32,
    /// Where XenStore has it.
    pub path: String,
}

/// Reads `xl block-list`. Errors: a row that is none.
pub fn block_list(bytes: &[u8]) -> Result<Vec<Block>, Error> {
    table("block-list", bytes, "Vdev", |line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [device, backend, handle, state, event, ring, path] = words[..] else { return None };
        let _others = [handle, event, ring].map(str::parse::<i64>).into_iter().collect::<Result<Vec<_>, _>>().ok()?;
        let (device, backend, state) = (device.parse().ok()?, backend.parse().ok()?, state.parse().ok()?);
        Some(Block { device, backend, state, path: path.to_owned() })
    })
}

/// The name of the disk that a number stands for: 51712 is `xvda`. None: not one of Xen's own disks. Source: xen-vbd-interface(7).
pub fn vdev(device: u32) -> Option<String> {
    let drive = Drive::numbered(device).filter(|drive| drive.bus == Bus::Xen)?;
    let letters = drive.letters();
    Some(if drive.partition == 0 { format!("xvd{letters}") } else { format!("xvd{letters}{}", drive.partition) })
}

/// A row of `xl network-list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub device: u32,
    /// The domain that serves it.
    pub backend: u32,
    /// Its address.
    pub mac: String,
    /// XenbusState: 4 is connected.
    pub state: i32,
    /// Where XenStore has it.
    pub path: String,
}

/// Reads `xl network-list`. Errors: a row that is none.
pub fn network_list(bytes: &[u8]) -> Result<Vec<Interface>, Error> {
    table("network-list", bytes, "Idx", |line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [device, backend, mac, handle, state, event, rings, path] = words[..] else { return None };
        let (tx, rx) = rings.split_once('/')?;
        let _others = [handle, event, tx, rx].map(str::parse::<i64>).into_iter().collect::<Result<Vec<_>, _>>().ok()?;
        let (device, backend, state) = (device.parse().ok()?, backend.parse().ok()?, state.parse().ok()?);
        (mac.split(':').count() == 6).then(|| Interface { device, backend, mac: mac.into(), state, path: path.into() })
    })
}

/// What `xl info` tells of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Info(Vec<(String, String)>);

impl Info {
    /// Reads `xl info`. Errors: nothing in it looks like it.
    pub fn read(bytes: &[u8]) -> Result<Info, Error> {
        let text = String::from_utf8_lossy(bytes);
        let pairs = text.lines().filter_map(|l| l.split_once(':'));
        let info = Info(pairs.map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned())).collect());
        if info.get("xen_major").is_some() { Ok(info) } else { Err(Error::new("info", &text)) }
    }

    /// One of its values.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// One of its values that are numbers: `free_memory` (MiB), `nr_cpus`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }

    /// The profiles' names of the architectures whose kernels Xen can start, of `xen_caps` (`xen-3.0-aarch64 xen-3.0-armv7l`).
    pub fn architectures(&self) -> Vec<&'static str> {
        let caps = self.get("xen_caps").unwrap_or_default();
        let known = [("x86_64", "amd64"), ("x86_32p", "i386"), ("aarch64", "arm64"), ("armv7l", "armhf")];
        let has = |word: &str| caps.split(' ').any(|cap| cap.rsplit('-').next() == Some(word));
        known.iter().filter(|(word, _)| has(word)).map(|(_, name)| *name).collect()
    }

    /// Whether the CPU helps to virtualize (`virt_caps` has `hvm`), so that there are PVH guests.
    pub fn has_hvm(&self) -> bool {
        self.get("virt_caps").is_some_and(|caps| caps.split(' ').any(|cap| cap == "hvm"))
    }
}

/// Reads `xl domid NAME`. Errors: no number.
pub fn domid(bytes: &[u8]) -> Result<u32, Error> {
    let text = String::from_utf8_lossy(bytes);
    text.trim().parse().map_err(|_| Error::new("domid", &text))
}

/// Reads `xl domname DOMID`. Errors: no line.
pub fn domname(bytes: &[u8]) -> Result<String, Error> {
    let text = String::from_utf8_lossy(bytes);
    let name = text.strip_suffix('\n').filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| Error::new("domname", &text))
}

/// The rows below the header, which begins with `first`. A line that is no row is the beginning of a name with a line's end in it.
fn table<T>(verb: &'static str, bytes: &[u8], first: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Error> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split_terminator('\n');
    let header = lines.next().unwrap_or_default();
    if header.split_ascii_whitespace().next() != Some(first) {
        return Err(Error::new(verb, header));
    }
    let (mut rows, mut begun) = (Vec::new(), String::new());
    for line in lines {
        begun.push_str(line);
        match read(&begun) {
            Some(row) => {
                rows.push(row);
                begun.clear();
            }
            // No name is that long; reading on would only cost time.
            None if begun.len() > 4096 => return Err(Error::new(verb, &begun)),
            None => begun.push('\n'),
        }
    }
    if begun.is_empty() { Ok(rows) } else { Err(Error::new(verb, begun.trim_end_matches('\n'))) }
}

/// The words of a row, taken from its end.
struct Words<'l> {
    left: &'l str,
}

impl<'l> Words<'l> {
    fn of(line: &'l str) -> Words<'l> {
        Words { left: line }
    }

    fn last(&mut self) -> Option<&'l str> {
        let text = self.left.trim_end_matches([' ', '\t']);
        let at = text.rfind([' ', '\t']).map_or(0, |at| at + 1);
        self.left = &text[..at];
        (!text.is_empty()).then(|| &text[at..])
    }

    fn number<N: std::str::FromStr>(&mut self) -> Option<N> {
        self.last()?.parse().ok()
    }

    /// What is left is the name; None when nothing is.
    fn name(&self) -> Option<Option<String>> {
        (!self.left.is_empty()).then(|| named(self.left))
    }
}

/// A name without the blanks that fill its column. libc writes `(null)` for a domain that has none.
fn named(column: &str) -> Option<String> {
    let name = column.trim_end_matches(' ');
    (!name.is_empty() && name != "(null)").then(|| name.to_owned())
}

fn is_uuid(word: &str) -> bool {
    word.len() == 36 && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
