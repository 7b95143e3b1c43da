//! `new`: a domain that does not run yet, as xm had it. What a newcomer would get wrong: the image is fetched now, not at the
//! first start.

use std::ffi::OsString;

use clap::Args;
use clap::builder::OsStringValueParser;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{details, gather, guest, request};
use crate::ops::{self, Ctx};

/// Make a domain from an image without starting it
///
/// The words are those of create. 'pronto start NAME' starts it.
#[derive(Debug, Args)]
#[command(override_usage = "pronto new [OPTIONS] IMAGE|FILE.cfg [key=value …]")]
pub struct New {
    /// The domain's name; made from the image if it is not given
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    options: guest::GuestOptions,
    #[command(flatten)]
    machine: guest::MachineOptions,
    /// Take this xl.cfg file, whatever its name; a word that ends in .cfg is one, too
    #[arg(short = 'f', long = "defconfig", value_name = "FILE", value_parser = OsStringValueParser::new())]
    file: Option<OsString>,
    /// Replace a shut-off domain of this name
    #[arg(long)]
    replace: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Print what would be made, and make nothing
    #[arg(short = 'n', long = "dry-run", alias = "dryrun")]
    dry_run: bool,
    /// The image or an xl.cfg file, and keys with their values in any order
    #[arg(value_name = "IMAGE|FILE.cfg|key=value", value_parser = OsStringValueParser::new())]
    words: Vec<OsString>,
}

impl Verb for New {
    const NAME: &'static str = "new";
    const DRY_RUN: bool = true;

    fn run(mut self, front: &Front) -> Outcome {
        let front = front.hushed(self.quiet);
        let words = gather::gather(Self::NAME, self.file, self.words, &front.talk)?;
        let access = std::mem::take(&mut self.options.access);
        let mut what = request::request(Self::NAME, &words, self.name, self.options, self.machine, &front)?;
        what.replace = self.replace;
        what.wait = false;
        if self.dry_run || front.globals.dry_run {
            return details::print_request(&what).map(|()| 0);
        }
        let ctx = Ctx { access: access.access()?, ..front.ctx(Self::NAME)? };
        ops::lifecycle::new(&ctx, what).map_err(guest::not_made)?;
        Ok(0)
    }
}
