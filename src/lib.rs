//! pronto: boots any Linux, for any CPU, with xl's verbs. This is the map of the house.
//!
//! Arrows go down only; rooms on one floor never import each other (but `domain` may use `arch`). `tests/layering.rs`
//! reads this table and fails on a new arrow.
//!
//! ```text
//! 5  cli                                      prints, picks exit codes
//! 4  ops                                      the verbs: locks, state checks, undo; joins the rooms below
//! 3  backend  monitor  image  binfmt  accel   one subject each
//! 2  store                                    paths, locks, atomic files, layers, domains
//! 1  domain -> arch  elf                      pure types and parsers: bytes in, no I/O
//! 0  sys                                      processes, namespaces, mounts, files; all `unsafe`
//! ```
//!
//! What a newcomer would get wrong: nothing below `cli` prints. What a user should see on the way goes through
//! [`domain::report::Report`], what went wrong through each room's `Error`.

pub mod accel;
pub mod arch;
pub mod backend;
pub mod binfmt;
pub mod cli;
pub mod domain;
pub mod elf;
pub mod image;
pub mod monitor;
pub mod ops;
pub mod store;
pub mod sys;
