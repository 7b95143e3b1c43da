//! The options that stand before the verb, and what every verb gets from them. What a newcomer would get wrong: usage errors
//! come first, then "needs root", and only then is the store touched.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::OsStringValueParser;

use super::choices;
use super::failure::Failure;
use super::progress::{self, Talk};
use crate::domain::xlcfg::BackendChoice;
use crate::image::oci::Access;
use crate::ops::defaults::Defaults;
use crate::ops::{self, Ctx};
use crate::store::Store;

/// Global options.
#[derive(Debug, Clone, Args, Default)]
pub struct Globals {
    /// Keep everything below DIR instead of /var/lib/pronto, /run/pronto and /var/cache/pronto [env: PRONTO_ROOT]
    #[arg(long, value_name = "DIR", value_parser = OsStringValueParser::new())]
    pub root: Option<OsString>,
    /// Show every external command that is run
    #[arg(short, long)]
    pub verbose: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Show what is going on inside
    #[arg(long)]
    pub debug: bool,
    /// The architecture of images, under any name it has (arm64, aarch64, linux/arm/v7, …)
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<String>,
    /// Whose kernel a domain that is made runs on: the host's (nspawn, kx), or its own (qemu, hexagon, hx)
    #[arg(long, value_name = "BACKEND", value_parser = choices::backend)]
    pub backend: Option<BackendChoice>,
    /// What the program's own name says of that: `hx`, `kx`.
    #[arg(skip)]
    pub called: Option<BackendChoice>,
    /// Print what would be made, and make nothing (create and new only)
    #[arg(short = 'N', long = "dry-run")]
    pub dry_run: bool,
}

/// What every verb gets.
#[derive(Debug, Clone)]
pub struct Front {
    /// The options before the verb.
    pub globals: Globals,
    /// The voice on stderr.
    pub talk: Talk,
}

impl Front {
    /// What the verbs below need. Errors: not root, or the store is not as it must be.
    pub fn ctx(&self, verb: &str) -> Result<Ctx, Failure> {
        ops::need_root(verb)?;
        let ctx = self.ctx_unopened()?;
        ctx.store.open()?;
        Ok(ctx)
    }

    /// The same for a verb that needs neither root nor the store.
    pub fn ctx_unopened(&self) -> Result<Ctx, Failure> {
        let root = self.root()?;
        Ok(Ctx {
            store: Store::at(root.as_deref()),
            root,
            report: progress::report(&self.talk),
            access: Access::default(),
        })
    }

    /// What holds where the words say nothing. Errors: the file of it is not as it must be.
    pub fn defaults(&self) -> Result<Defaults, Failure> {
        Ok(Defaults::load(&Store::at(self.root()?.as_deref()))?)
    }

    /// The same front, silent when `quiet`.
    #[must_use]
    pub fn hushed(&self, quiet: bool) -> Front {
        Front { globals: self.globals.clone(), talk: self.talk.hushed(quiet) }
    }

    fn root(&self) -> Result<Option<PathBuf>, Failure> {
        let from_env = || std::env::var_os("PRONTO_ROOT").filter(|dir| !dir.is_empty());
        let Some(dir) = self.globals.root.clone().or_else(from_env) else { return Ok(None) };
        // Relative to where we were started: a monitor works from elsewhere.
        std::path::absolute(&dir)
            .map(Some)
            .map_err(|why| ops::Error::new(ops::Kind::Usage, "--root names no directory").because(why).into())
    }
}
