//! Native programs in the place of a guest's emulated ones: builds at the host's speed, and the guest's files untouched.
//!
//! What a newcomer would get wrong: the native programs must neither use the guest's libraries (another CPU's) nor stand where the
//! guest's own stand. So they live in a directory of their own with their own loader and libraries, and are changed so that they find
//! one another there and say of the machine what the guest would say.
//!
//! ```text
//! patch         a native program, library or loader changed for that: pure
//! ```

pub mod patch;

use std::path::PathBuf;

/// What can go wrong with native programs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that has to be changed cannot be.
    #[error("{} cannot be made to run for a guest: {source}", path.display())]
    Unfit {
        /// Where it came from.
        path: PathBuf,
        /// Why.
        source: patch::Unfit,
    },
}

/// Result of this room.
pub type Result<T> = std::result::Result<T, Error>;
