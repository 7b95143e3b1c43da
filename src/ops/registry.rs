//! `binfmt` and `arch`: what runs the binaries of each architecture.
