//! A cross compiler's programs, made to behave as if they were configured for the machine that they run on. What a newcomer would get wrong: these
//! programs run at fixed addresses, so that their references are numbers like any other; each is looked for by the shape of what is
//! around it, and whatever is not found just once is left as it was. Each change alone leaves a program that works.
//! Sources: gcc/gcc.cc (`cross_compile`, `target_system_root`, the `specs` file), gcc/cppdefault.cc (`cpp_include_defaults`), gcc/collect2.cc.

use super::Work;
use crate::elf::u64_at;

/// Which of the programs it is, and for which machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toolchain<'a> {
    /// The program.
    pub part: Part,
    /// The machine's triplet: `aarch64-linux-gnu`.
    pub triplet: &'a str,
    /// gcc's major version.
    pub major: u32,
}

/// A program of a compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `gcc`, `g++`, `cpp`: what starts all others.
    Driver,
    /// `cc1`, `cc1plus`: what searches for headers.
    Compiler,
    /// `collect2`: what starts the linker.
    Linker,
}

/// An entry of the table of header directories: name, component, four flags, four bytes of nothing.
const ENTRY: usize = 24;
/// Where its flags stand: for C++ only, knows C++, below the system's root, multilib (1: a directory of it, 2: multiarch).
const FLAGS: usize = 16;
/// More directories than any compiler has.
const MOST: usize = 64;
const LOCAL: &[u8] = b"/usr/local/include";

/// How many places were changed.
pub(super) fn apply(work: &mut Work<'_>, what: &Toolchain<'_>) -> usize {
    if !work.layout.is_fixed() {
        return 0;
    }
    match what.part {
        Part::Driver => {
            usize::from(not_a_cross_one(work).is_some()) + usize::from(specs(work).is_some()) + private(work)
        }
        Part::Compiler => headers(work, what).unwrap_or_default(),
        Part::Linker => linker(work, what.triplet).unwrap_or_default(),
    }
}

impl Work<'_> {
    /// The text at an address, without its NUL.
    fn text(&self, address: u64) -> Option<&[u8]> {
        let place = self.layout.place(address).filter(|place| self.layout.is_data(*place))?;
        let rest = self.old.get(place..)?;
        Some(&rest[..rest.iter().take(4096).position(|b| *b == 0)?])
    }

    /// The places in data, eight bytes each, from which numbers can be read.
    fn words(&self) -> impl Iterator<Item = usize> {
        self.layout.loads().iter().filter(|l| !l.executable).flat_map(|load| {
            let first = load.file.start + (load.address.next_multiple_of(8) - load.address) as usize;
            (first..load.file.end.saturating_sub(7)).step_by(8)
        })
    }

    /// The address of a text of its own in data: a NUL stands before it.
    fn address_of(&self, text: &[u8]) -> Option<u64> {
        let whole = [&[0], text, &[0]].concat();
        self.layout.loads().iter().filter(|l| !l.executable).find_map(|load| {
            let bytes = self.old.get(load.file.clone())?;
            let at = bytes.windows(whole.len()).position(|window| window == whole)?;
            self.layout.address(load.file.start + at + 1)
        })
    }
}

/// The only one of them.
fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// `cross_compile` becomes "0", and `target_system_root`, two pointers on, none; then LIBRARY_PATH, `-print-sysroot` and `-dumpspecs` are a
/// native compiler's.
fn not_a_cross_one(work: &mut Work<'_>) -> Option<()> {
    let says = |place: usize, text: &[u8]| {
        u64_at(work.old, place).and_then(|address| work.text(address)).is_some_and(|found| found == text)
    };
    let place = only(work.words().filter(|place| says(*place, b"1") && says(place + 16, b"/")))?;
    let data = work.layout.loads().iter().filter(|load| !load.executable);
    let zero = data.into_iter().find_map(|load| {
        let bytes = work.old.get(load.file.clone())?;
        work.layout.address(load.file.start + bytes.windows(2).position(|window| window == b"0\0")?)
    })?;
    work.write(place, &zero.to_le_bytes());
    work.write(place + 16, &[0; 8]);
    Some(())
}

/// The compiler's own directories, which the driver prints and hands on: shorter, so that nobody sees that there was more. How many.
fn private(work: &mut Work<'_>) -> usize {
    const TEXTS: &[(&[u8], &[u8])] = &[
        (b"/usr/lib/gcc-cross/", b"/usr/lib/gcc/"),
        (b"/usr/libexec/gcc-cross/", b"/usr/libexec/gcc/"),
        (b"gcc-cross", b"gcc"),
    ];
    let mut found = Vec::new();
    for (from, to) in TEXTS {
        let Some(place) = work.address_of(from).and_then(|address| work.layout.place(address)) else { continue };
        let mut text = to.to_vec();
        text.resize(from.len(), 0);
        found.push((place, text));
    }
    for (place, text) in &found {
        work.write(*place, text);
    }
    found.len()
}

/// Where the driver looks for a file `specs`: a path that the compiler has put together from sixteen bytes of data and four in an
/// instruction, `mov dword [rbx+16], "ss/"`.
fn specs(work: &mut Work<'_>) -> Option<()> {
    let (begin, code) = (&b"/usr/lib/gcc-cro"[..], &[0xc7, 0x43, 0x10, b's', b's', b'/', 0][..]);
    let find = |text: &[u8], executable: bool| {
        let loads = work.layout.loads().iter().filter(|l| l.executable == executable);
        let places = loads.flat_map(|load| {
            let bytes = work.old.get(load.file.clone()).unwrap_or_default();
            bytes.windows(text.len()).enumerate().filter(|(_, w)| *w == text).map(|(at, _)| load.file.start + at)
        });
        places.collect::<Vec<usize>>()
    };
    let goes_on = |place: &usize| work.old.get(place + begin.len()..).is_some_and(|rest| rest.starts_with(b"ss"));
    let data = only(find(begin, false).into_iter().filter(|place| !goes_on(place)))?;
    let code = only(find(code, true).into_iter())?;
    work.write(data, b"/usr/lib/gcc////");
    work.write(code + 3, b"//");
    Some(())
}

/// The directories of headers become those of a native compiler of Debian's: C++'s own in /usr/include, and /usr/local/include twice, in the
/// place of another C++ library's.
fn headers(work: &mut Work<'_>, what: &Toolchain<'_>) -> Option<usize> {
    let local = work.address_of(LOCAL)?;
    let starts = work.words().filter(|place| u64_at(work.old, *place) == Some(local)).filter_map(|p| table(work, p));
    let places = only(starts)?;
    let (mut new, mut texts) = (Vec::new(), Vec::new());
    for place in &places {
        let name = u64_at(work.old, *place)?;
        let old = work.text(name)?.to_vec();
        let text = String::from_utf8(old.clone()).ok()?;
        let mut entry = work.old.get(*place..place + ENTRY)?.to_vec();
        if text.contains("/libc++_include/") || text.ends_with("/c++/v1") {
            continue;
        }
        // With several libraries of its own a machine's directory would be named with "/." behind it.
        if entry[FLAGS + 3] == 1 {
            entry[FLAGS + 3] = 0;
        }
        new.push(entry.clone());
        if old == LOCAL {
            entry[FLAGS + 3] = 0;
            new.push(entry);
        } else {
            texts.push((work.layout.place(name)?, old.len(), own_directory(&text, what)));
        }
    }
    if new.len() != places.len() || texts.iter().any(|(_, room, text)| text.len() > *room) {
        return None;
    }
    for (place, entry) in places.iter().zip(&new) {
        work.write(*place, entry);
    }
    for (place, room, text) in texts {
        let mut bytes = text.into_bytes();
        bytes.resize(room, 0);
        work.write(place, &bytes);
    }
    Some(places.len())
}

/// The entries of the table that has one at this place, from its first on.
fn table(work: &Work<'_>, place: usize) -> Option<Vec<usize>> {
    let named = |place: usize| {
        let name = u64_at(work.old, place).and_then(|address| work.text(address));
        let flags = work.old.get(place + FLAGS..place + ENTRY).unwrap_or(&[9]);
        name.is_some_and(|name| name.starts_with(b"/")) && flags.iter().all(|flag| *flag <= 2)
    };
    let back = (1..MOST).take_while(|n| place.checked_sub(n * ENTRY).is_some_and(named)).count();
    let first = place - back * ENTRY;
    let entries: Vec<usize> = (0..MOST).map(|n| first + n * ENTRY).take_while(|place| named(*place)).collect();
    let end = u64_at(work.old, entries.last()? + ENTRY)?;
    // Of the two entries for /usr/local/include that a native one has, only that of the multiarch directory is there.
    (entries.len() > 4 && end == 0 && work.old.get(place + FLAGS + 3) == Some(&2)).then_some(entries)
}

/// Where a native compiler has what a cross compiler has at `path`.
fn own_directory(path: &str, what: &Toolchain<'_>) -> String {
    let Toolchain { triplet, major, .. } = what;
    match path.split_once(&format!("/{triplet}/include/c++/{major}")) {
        Some((_, "")) => format!("/usr/include/c++/{major}"),
        Some((_, "/backward")) => format!("/usr/include/c++/{major}/backward"),
        Some((_, rest)) if rest.trim_start_matches('/') == *triplet => format!("/usr/include/{triplet}/c++/{major}"),
        _ => path.replace("/gcc-cross/", "/gcc/"),
    }
}

/// collect2 looks for `ld`, `ld.lld`, `nm`… and not for `TRIPLET-ld`: it puts the name together from the triplet, "-" and the rest, and the
/// first two (`mov edi`, `mov esi`) become empty texts.
fn linker(work: &mut Work<'_>, triplet: &str) -> Option<usize> {
    /// As far as the two instructions lie apart.
    const NEAR: usize = 24;
    let name = work.address_of(triplet.as_bytes())?;
    let empty = u32::try_from(name + triplet.len() as u64).ok()?.to_le_bytes();
    let first = [&[0xbf][..], &u32::try_from(name).ok()?.to_le_bytes()].concat();
    let mut sites = Vec::new();
    for load in work.layout.loads().iter().filter(|load| load.executable) {
        let bytes = work.old.get(load.file.clone()).unwrap_or_default();
        for (at, _) in bytes.windows(first.len()).enumerate().filter(|(_, window)| *window == first) {
            let dash = |at: &usize| {
                let word = bytes.get(at + 1..at + 5).and_then(|w| w.try_into().ok()).map(u32::from_le_bytes);
                bytes.get(*at) == Some(&0xbe) && word.and_then(|w| work.text(w.into())) == Some(b"-")
            };
            let near = (at.saturating_sub(NEAR)..at + NEAR).filter(dash).min_by_key(|dash| dash.abs_diff(at));
            sites.extend(near.map(|dash| (load.file.start + at, load.file.start + dash)));
        }
    }
    for (name, dash) in &sites {
        work.write(name + 1, &empty);
        work.write(dash + 1, &empty);
    }
    Some(sites.len())
}
