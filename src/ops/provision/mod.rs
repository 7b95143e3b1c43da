//! Making systems that boot: a whole one from a package mirror ([`bootstrap`]). What a newcomer would get wrong: this runs
//! programs of the guest's architecture, so what interprets them must be registered first.

pub mod bootstrap;
