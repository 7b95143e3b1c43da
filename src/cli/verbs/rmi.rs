//! `rmi`: an image out of the store. What a newcomer would get wrong: one that a domain uses is refused.

use std::ffi::OsString;

use clap::Args;
use clap::builder::OsStringValueParser;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::guest;
use crate::ops;

/// Remove an image and the layers that nothing else uses
#[derive(Debug, Args)]
pub struct Rmi {
    /// Only the one for this architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The image, as 'pronto images' names it
    #[arg(value_name = "IMAGE", value_parser = OsStringValueParser::new())]
    image: OsString,
}

impl Verb for Rmi {
    const NAME: &'static str = "rmi";

    fn run(self, front: &Front) -> Outcome {
        let image = guest::image_text(&self.image)?;
        let arch = self.arch.or_else(|| front.globals.arch.clone());
        let ctx = front.ctx(Self::NAME)?;
        ops::images::rmi(&ctx, &image, arch.as_deref())?;
        Ok(0)
    }
}
