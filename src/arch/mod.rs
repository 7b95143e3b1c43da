//! What pronto knows of each architecture: names, OCI platforms, the ELF rule, the emulators. Data lives in
//! `arch-profiles/*.toml`; this room checks it and answers questions. What a newcomer would get wrong: a *name* says nothing
//! about what a tree holds. Names choose what to fetch; [`Profiles::by_elf`] says what was fetched.

mod nearest;
mod profile;
mod raw;

pub use profile::{Board, Data, ElfRule, FlagRule, Model, Oci, Profile, QemuSystem, QemuUser};

use std::fmt;

/// The profiles that come with the program, in the order in which they are listed.
const EMBEDDED: [(&str, &str); 10] = [
    ("amd64.toml", include_str!("../../arch-profiles/amd64.toml")),
    ("arm64.toml", include_str!("../../arch-profiles/arm64.toml")),
    ("armel.toml", include_str!("../../arch-profiles/armel.toml")),
    ("armhf.toml", include_str!("../../arch-profiles/armhf.toml")),
    ("i386.toml", include_str!("../../arch-profiles/i386.toml")),
    ("loong64.toml", include_str!("../../arch-profiles/loong64.toml")),
    ("mips64el.toml", include_str!("../../arch-profiles/mips64el.toml")),
    ("ppc64el.toml", include_str!("../../arch-profiles/ppc64el.toml")),
    ("riscv64.toml", include_str!("../../arch-profiles/riscv64.toml")),
    ("s390x.toml", include_str!("../../arch-profiles/s390x.toml")),
];

/// A profile file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no TOML, or has a key that no profile has.
    #[error("architecture profile {file} cannot be read")]
    Syntax {
        /// The file's name.
        file: String,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// It says something that cannot be.
    #[error("architecture profile {file}: {why}")]
    Bad {
        /// The file's name.
        file: String,
        /// What is wrong.
        why: String,
    },
}

/// A name that no profile has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownArch {
    /// What was asked for.
    pub name: String,
    /// The profiles' names.
    pub known: Vec<String>,
    /// The profile that was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for UnknownArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown architecture '{}'", self.name.escape_debug())?;
        if let Some(nearest) = &self.nearest {
            write!(f, ", did you mean {nearest}?")?;
        }
        write!(f, " (known: {})", self.known.join(", "))
    }
}

impl std::error::Error for UnknownArch {}

/// All profiles, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profiles {
    all: Vec<Profile>,
}

impl Profiles {
    /// Those that come with the program.
    pub fn embedded() -> Profiles {
        match Profiles::with_overrides(&[] as &[(&str, &str)]) {
            Ok(profiles) => profiles,
            // Data compiled into the program; a test reads every one of them.
            Err(error) => unreachable!("embedded profiles: {error}"),
        }
    }

    /// Those that come with the program, with the administrator's files `(name, text)` put over them: a file replaces the
    /// profile of its name whole, or adds one. Errors: the first file that cannot be used, or a name that two profiles claim.
    pub fn with_overrides<N: AsRef<str>, T: AsRef<str>>(files: &[(N, T)]) -> Result<Profiles, Error> {
        let mut all: Vec<Profile> = Vec::new();
        let embedded = EMBEDDED.iter().copied();
        for (file, text) in embedded.chain(files.iter().map(|(n, t)| (n.as_ref(), t.as_ref()))) {
            let profile = raw::parse(file, text)?;
            all.retain(|p| p.name != profile.name);
            if let Some((other, name)) = all.iter().find_map(|p| clash(p, &profile).map(|name| (p, name))) {
                let why = format!("'{}' means {} already", name.escape_debug(), other.name);
                return Err(Error::Bad { file: file.to_owned(), why });
            }
            all.push(profile);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Profiles { all })
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> std::slice::Iter<'_, Profile> {
        self.all.iter()
    }

    /// The profile that a person means by `text`: a name or alias of any kind (`aarch64`, `arm64/v8`, `linux/arm/v7`,
    /// `ppc64le`), upper or lower case. Errors: no such architecture, with the nearest.
    pub fn find(&self, text: &str) -> Result<&Profile, UnknownArch> {
        let wanted = normalise(text);
        let by_name = self.all.iter().find(|p| p.is_called(&wanted));
        by_name.or_else(|| self.by_variant(&wanted)).ok_or_else(|| self.unknown(text, &wanted))
    }

    /// `arm/v6`: the base must be a name, and the variant decides between profiles that share an OCI architecture.
    fn by_variant(&self, wanted: &str) -> Option<&Profile> {
        let (base, variant) = wanted.split_once('/')?;
        let base = self.all.iter().find(|p| p.is_called(base))?;
        let fits = |p: &&Profile| p.oci.architecture == base.oci.architecture && p.oci.has(variant);
        std::iter::once(base).chain(&self.all).find(fits)
    }

    fn unknown(&self, text: &str, wanted: &str) -> UnknownArch {
        let names = self.all.iter().flat_map(|p| p.names().map(move |n| (n, p)));
        let nearest = nearest::nearest(wanted, names).map(|p| p.name.clone());
        UnknownArch { name: text.to_owned(), known: self.all.iter().map(|p| p.name.clone()).collect(), nearest }
    }

    /// The profile whose ELF rule these header fields meet: `class` and `data` are `EI_CLASS` and `EI_DATA` (1 or 2),
    /// `machine` and `flags` are `e_machine` and `e_flags`. Source: elf(5).
    pub fn by_elf(&self, class: u8, data: u8, machine: u16, flags: u32) -> Option<&Profile> {
        self.all.iter().find(|p| p.elf.matches(class, data, machine, flags))
    }

    /// The profile that serves an OCI platform of an image's own words.
    pub fn by_platform(&self, architecture: &str, variant: Option<&str>) -> Option<&Profile> {
        let architecture = normalise(architecture);
        let variant = variant.unwrap_or_default().to_ascii_lowercase();
        let mut fitting = self.all.iter().filter(|p| p.oci.architecture == architecture);
        fitting.clone().find(|p| p.oci.has(&variant)).or_else(|| fitting.next())
    }

    /// The profile of a kernel's `uname -m` (32-bit x86 and ARM kernels have several words for one).
    pub fn by_uname(&self, machine: &str) -> Option<&Profile> {
        let machine = machine.to_ascii_lowercase();
        self.all.iter().find(|p| p.uname == machine).or_else(|| self.all.iter().find(|p| p.is_called(&machine)))
    }

    /// A board by its name (`rpi4`), with the architecture it belongs to.
    pub fn board(&self, name: &str) -> Option<(&Profile, &Board)> {
        self.all.iter().find_map(|p| p.boards.iter().find(|b| b.name == name).map(|b| (p, b)))
    }
}

impl<'a> IntoIterator for &'a Profiles {
    type Item = &'a Profile;
    type IntoIter = std::slice::Iter<'a, Profile>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The form in which names are compared: lower case, without an operating system before it.
pub(crate) fn normalise(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    text.strip_prefix("linux/").unwrap_or(&text).to_owned()
}

/// A name that both profiles claim.
fn clash<'a>(one: &Profile, two: &'a Profile) -> Option<&'a str> {
    two.names().find(|name| one.is_called(name))
}

#[cfg(test)]
mod tests;
