//! Reads and writes xl.cfg files: [`Config`] holds what a file and the `key=value` words after it say, [`keys`] says what is done with each
//! key, and [`disk`] and [`vif`] read the texts that describe devices. Pure: text in, values or one line that says what is wrong out.
//! What a newcomer would get wrong: the grammar is not Python, TOML or INI. Text always stands in quotes, numbers and texts are the same to
//! xl (`memory = "512"`), and a key that stands twice is not an error: the later one counts.
//! Source: xl.cfg(5); Xen, tools/libs/util/libxlu_cfg_l.l, libxlu_cfg_y.y and libxlu_cfg.c; docs/xl-cfg.md says where pronto differs.

pub mod affinity;
mod config;
pub mod disk;
pub mod drive;
mod error;
mod get;
mod guest;
mod hint;
pub mod keys;
mod lex;
mod parse;
mod rate;
mod table;
mod value;
pub mod vif;
mod words;
mod write;

#[cfg(test)]
mod tests;

pub use config::{Config, Entry};
pub use error::{Error, Place, Source};
pub use guest::{Accelerator, BackendChoice, BootDevice, Event, Firmware, GuestType, Reaction};
pub use keys::{Backend, Unheeded, Why};
pub use rate::Rate;
pub use value::{Kind, Value};
pub use words::is_assignment;
