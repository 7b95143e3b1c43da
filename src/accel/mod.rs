//! Native programs in the place of a guest's emulated ones: what there is of them, and the directory that a guest is shown.
//!
//! What a newcomer would get wrong: the native programs must neither use the guest's libraries (another CPU's) nor stand where the
//! guest's own stand. So they live in a directory of their own ([`PLACE`](crate::domain::accel::PLACE)) with their own loader and
//! libraries, and are changed so that they find one another there and say of the machine what the guest would say.
//!
//! ```text
//! packages      which programs may be native
//! dpkg          what packages say of themselves
//! patch         a native program, library or loader changed for its place: pure
//! make          the directory, out of two trees of packages
//! texts         what programs say of the machine in words of their own
//! compiler      what is special in a compiler
//! interpreters  what is special in Perl and Python
//! scripts       for which scripts they are native
//! catalogue     what is in the directory, and what of it a domain gets
//! trial         whether that does what the guest's own would: pure
//! ```

pub mod catalogue;
mod compiler;
pub mod dpkg;
mod interpreters;
pub mod make;
pub mod packages;
pub mod patch;
mod patched;
mod scripts;
mod texts;
pub mod trial;
