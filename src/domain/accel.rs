//! Which programs of a foreign guest this machine runs itself, in the place of emulating them. What a newcomer would get wrong: no file of the
//! guest is replaced. The interpreter that the guest's programs are started by knows the native equivalents of some, by the
//! programs' identity, and runs those.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a guest finds its native programs: a mount that can only be read. Its length is baked into patched programs.
pub const PLACE: &str = "/run/accel";

/// How much is native.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// Nothing.
    #[default]
    Off,
    /// The shell, make and the small tools of a build.
    Tools,
    /// The compiler, too.
    Build,
}

/// What the words of a command ask of a program that a native one may do otherwise. Its letter stands before the identity in paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nothing.
    Plain,
    /// A plugin of the guest's, or the CPU that it runs on: `-fplugin…`, `…=native`.
    Own,
    /// Code that guards its stack, `-fstack-…`: what makes it was mended in Debian's revisions of one and the same compiler.
    Stack,
    /// Code for several threads or for graphics processors, `-fopenmp`, `-fopenacc`: a compiler that is built for such processors adds to it.
    Offload,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 4] = [Class::Plain, Class::Own, Class::Stack, Class::Offload];

    /// Its letter.
    pub fn letter(self) -> char {
        match self {
            Class::Plain => 'n',
            Class::Own => 'p',
            Class::Stack => 's',
            Class::Offload => 'o',
        }
    }
}

/// What is native in one domain, and what is not although it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Native {
    /// What is mounted at [`PLACE`]: a directory of the cache.
    pub from: PathBuf,
    /// How many programs.
    pub programs: usize,
    /// The compiler, `gcc 12`, where it is native.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiler: Option<String>,
    /// What stays emulated, and why: `perl: …`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What did not do what the guest's own does when it was tried, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Accel::Off => "off",
            Accel::Tools => "tools",
            Accel::Build => "build",
        })
    }
}
