//! Programs, libraries and loaders of x86-64's, changed so that they work from a directory of their own and speak of another machine.
//! Pure: bytes in, bytes out.
//!
//! What a newcomer would get wrong: nothing in the file may move, for nothing says where all the numbers are that would have to
//! follow. What fits is written over (a shorter loader's name, a path of equal length); what does not fit goes to one more segment
//! behind all others, and the *references* are changed. The old text stays: a linker lets strings share their ends, and another
//! string may still need it. Whatever is not recognised is refused, or named in [`Changes::left`]. Sources: elf(5); System V ABI,
//! AMD64 supplement; Intel SDM volume 2, 2.2.1.6 "RIP-Relative Addressing".

mod dlopen;
mod loader;
mod modules;
mod prefixes;
mod references;
mod strings;
mod toolchain;
mod uname;

use crate::elf::{self, Layout, Spot};
use references::References;
pub use toolchain::{Part, Toolchain};

/// What to change.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules<'a> {
    /// The loader's name (`PT_INTERP`) becomes this one, which must not be longer.
    pub interpreter: Option<&'a str>,
    /// In loaded data, where the first stands at the start of a path it becomes the second, which is as long. A path starts where a
    /// string does, or within one behind a sign (`:`, `=`, a space, a quote…) or an option's letter (`-L/usr/lib`). Of the dynamic
    /// strings only search paths are changed. Rules are tried in their order. None need match.
    pub prefixes: &'a [(&'a str, &'a str)],
    /// Wherever the program means the whole string that comes first, it is given the second, of any length. Each rule must match.
    /// What cannot be seen is a length that the compiler has worked out: only running the program proves such a rule.
    pub strings: &'a [(&'a str, &'a str)],
    /// For the C library: what uname(2) says of the machine, up to [`MOST_MACHINE`] bytes.
    pub machine: Option<&'a str>,
    /// For Python: the directory, an absolute path, where it finds the libraries that belong to it.
    pub modules: Option<&'a str>,
    /// For the C library: the file that dlopen(3) opens for whatever path ends with `liblto_plugin.so`.
    pub plugin: Option<&'a str>,
    /// For the loader: `LD_LIBRARY_PATH` means nothing to it.
    pub deaf: bool,
    /// For a cross compiler's programs: what makes them native ones'. What is not found in them stays.
    pub toolchain: Option<Toolchain<'a>>,
}

/// The longest machine name, in bytes.
pub const MOST_MACHINE: usize = 55;

/// A changed program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patched {
    /// The file.
    pub bytes: Vec<u8>,
    /// What was done.
    pub changes: Changes,
}

/// What was changed, and what was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whether the loader's name is another.
    pub interpreter: bool,
    /// For each rule of [`Rules::prefixes`]: how often it was applied.
    pub prefixes: Vec<usize>,
    /// For each rule of [`Rules::strings`]: how many references were changed.
    pub strings: Vec<usize>,
    /// Whether uname(2) was changed.
    pub machine: bool,
    /// How many places [`Rules::toolchain`] changed.
    pub toolchain: usize,
    /// Places in the file where a rule of [`Rules::prefixes`] has its text in loaded bytes and nothing was changed: within another path,
    /// in a symbol's or a library's name, between instructions.
    pub left: Vec<usize>,
}

/// Why a program cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Not for this machine at all.
    #[error("it is no program for x86-64")]
    Foreign,
    /// Not as linkers write it.
    #[error("it is {0}")]
    Damaged(String),
    /// The caller asks for what cannot be done in any file.
    #[error("it cannot be told {0:?}: {1}")]
    Rule(String, &'static str),
    /// It is static, or a library.
    #[error("it names no loader")]
    NoInterpreter,
    /// The new name of the loader is longer than the old.
    #[error("its loader's name has room for {room} bytes, not for {name}")]
    Longer {
        /// The new name.
        name: String,
        /// Bytes without the NUL.
        room: usize,
    },
    /// There is no header for a new segment.
    #[error("it has no room for another segment")]
    NoRoom,
    /// The new segment would be further away than an instruction reaches.
    #[error("it is larger than an instruction reaches")]
    Far,
    /// It runs at fixed addresses, and nothing in it says where it uses them.
    #[error("its addresses are fixed, so that the uses of {0:?} cannot be found")]
    Fixed(String),
    /// It has no such string.
    #[error("it does not hold {0:?}")]
    Absent(String),
    /// It has the string, and no known instruction or pointer uses it.
    #[error("nothing was found in it that uses {0:?}")]
    Unused(String),
    /// An instruction reads the string's bytes where they are.
    #[error("an instruction uses the bytes of {0:?} at {1:#x} where they are")]
    Read(String, u64),
    /// Something uses a part of a text that would become another.
    #[error("something in it uses the end of {0:?} as a text of its own")]
    Shared(String),
    /// It is not the C library, or one whose uname() is written in another way.
    #[error("its uname() cannot be changed: {0}")]
    Uname(&'static str),
    /// It is not Python, or one whose start is written in another way.
    #[error("its modules cannot be elsewhere: {0}")]
    Modules(&'static str),
    /// It is not the C library, or one without a dlopen() (before glibc 2.34 that was in a library of its own).
    #[error("its dlopen() cannot be changed: {0}")]
    Dlopen(&'static str),
    /// It is not the loader, or one that is written in another way.
    #[error("it cannot be made to ignore LD_LIBRARY_PATH: {0}")]
    Loader(&'static str),
}

impl From<elf::Error> for Unfit {
    fn from(error: elf::Error) -> Unfit {
        match error {
            elf::Error::NotElf => Unfit::Foreign,
            damaged @ elf::Error::Damaged(_) => Unfit::Damaged(damaged.to_string()),
        }
    }
}

/// The changed program. Errors: it is no ELF file of x86-64's, or a rule that must match cannot be followed; see [`Rules`] and
/// [`Unfit`].
pub fn patch(program: &[u8], rules: &Rules<'_>) -> Result<Patched, Unfit> {
    rules.check()?;
    let layout = Layout::of(program)?;
    let mut work = Work::of(program, &layout)?;
    let mut changes = Changes::default();
    if let Some(name) = rules.interpreter {
        interpreter(&mut work, name)?;
        changes.interpreter = true;
    }
    let references = if rules.prefixes.is_empty() && rules.strings.is_empty() {
        References::default()
    } else {
        References::of(program, &layout)
    };
    (changes.prefixes, changes.left) = prefixes::apply(&mut work, &references, rules.prefixes)?;
    changes.strings = strings::apply(&mut work, &references, rules.strings)?;
    if let Some(machine) = rules.machine {
        uname::apply(&mut work, machine)?;
        changes.machine = true;
    }
    if let Some(path) = rules.modules {
        modules::apply(&mut work, path)?;
    }
    if let Some(path) = rules.plugin {
        dlopen::apply(&mut work, path)?;
    }
    if rules.deaf {
        loader::apply(&mut work)?;
    }
    if let Some(what) = &rules.toolchain {
        changes.toolchain = toolchain::apply(&mut work, what);
    }
    Ok(Patched { bytes: work.finish(), changes })
}

impl Rules<'_> {
    fn check(&self) -> Result<(), Unfit> {
        let pairs = || self.prefixes.iter().chain(self.strings);
        let texts = pairs()
            .flat_map(|(from, to)| [*from, *to])
            .chain(self.interpreter)
            .chain(self.machine)
            .chain(self.modules)
            .chain(self.plugin);
        for text in texts {
            let wrong = |why| Err(Unfit::Rule(text.to_owned(), why));
            if text.contains('\0') {
                return wrong("it holds a NUL");
            }
        }
        let wrong = |text: &str, why| Err(Unfit::Rule(text.to_owned(), why));
        if let Some((from, _)) = pairs().find(|(from, _)| from.is_empty()) {
            return wrong(from, "nothing stands for nothing");
        }
        if let Some((_, to)) = self.prefixes.iter().find(|(from, to)| from.len() != to.len()) {
            return wrong(to, "it is not as long as what it stands for");
        }
        match (self.interpreter, self.machine) {
            (Some(""), _) => wrong("", "a loader has a name"),
            (_, Some(name)) if name.is_empty() || name.len() > MOST_MACHINE => {
                wrong(name, "a machine's name is 1 to 55 bytes")
            }
            _ => Ok(()),
        }
    }
}

/// A program while it is changed.
struct Work<'a> {
    old: &'a [u8],
    layout: &'a Layout<'a>,
    new: Vec<u8>,
    spot: Option<Spot>,
    /// What the new segment will hold.
    segment: Vec<u8>,
}

impl<'a> Work<'a> {
    fn of(old: &'a [u8], layout: &'a Layout<'a>) -> Result<Work<'a>, Unfit> {
        Ok(Work { old, layout, new: old.to_vec(), spot: Spot::of(old)?, segment: Vec::new() })
    }

    /// Overwrites what stands at a place in the file.
    fn write(&mut self, place: usize, bytes: &[u8]) {
        let end = place.saturating_add(bytes.len());
        if let Some(there) = self.new.get_mut(place..end) {
            there.copy_from_slice(bytes);
        }
    }

    /// The address of what comes next in the new segment.
    fn next_address(&self) -> Result<u64, Unfit> {
        Ok(self.spot.ok_or(Unfit::NoRoom)?.address() + self.segment.len() as u64)
    }

    fn finish(self) -> Vec<u8> {
        let mut new = self.new;
        if let Some(spot) = self.spot.filter(|_| !self.segment.is_empty()) {
            spot.fill(&mut new, &self.segment);
        }
        new
    }
}

/// How far it is from the end of an instruction to an address.
fn way(from: u64, to: u64) -> Result<[u8; 4], Unfit> {
    let way = i64::from_ne_bytes(to.wrapping_sub(from).to_ne_bytes());
    i32::try_from(way).map(i32::to_le_bytes).map_err(|_| Unfit::Far)
}

/// The kernel reads the name up to its first NUL, so that the rest is simply filled with them.
fn interpreter(work: &mut Work<'_>, name: &str) -> Result<(), Unfit> {
    let place = work.layout.interpreter().ok_or(Unfit::NoInterpreter)?;
    let room = place.len().checked_sub(1).ok_or(Unfit::NoInterpreter)?;
    if name.len() > room {
        return Err(Unfit::Longer { name: name.to_owned(), room });
    }
    let mut text = name.as_bytes().to_vec();
    text.resize(place.len(), 0);
    work.write(place.start, &text);
    Ok(())
}

#[cfg(test)]
mod tests;
