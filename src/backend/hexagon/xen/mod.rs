//! The driver for a Xen host: guests are described to `xl` by a file in its own form ([`config`]), and what `xl` prints is read back
//! ([`output`], [`details`], [`failure`]); [`xl`] is the words to call it with. What a newcomer would get wrong: `xl` is the interface here, not
//! libxl, so everything that is known of a domain comes as text for people; and its exit code alone does not say whether it worked.

pub mod config;
pub mod details;
pub mod failure;
pub mod output;
pub mod xl;
