//! `inspect`: everything that is known of a stored image, as JSON. What a newcomer would get wrong: it is a list, as docker's is, since a
//! reference may be stored for several platforms.

use std::ffi::OsString;

use clap::Args;
use clap::builder::OsStringValueParser;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{guest, output};
use crate::ops;

/// Show a stored image: layers, manifest, config, and the domains that use it
#[derive(Debug, Args)]
pub struct Inspect {
    /// Only the one for this architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The image, as 'pronto images' names it
    #[arg(value_name = "IMAGE", value_parser = OsStringValueParser::new())]
    image: OsString,
}

impl Verb for Inspect {
    const NAME: &'static str = "inspect";

    fn run(self, front: &Front) -> Outcome {
        let image = guest::image_text(&self.image)?;
        let arch = self.arch.or_else(|| front.globals.arch.clone());
        let ctx = front.ctx(Self::NAME)?;
        output::json(&ops::images::inspect(&ctx, &image, arch.as_deref())?)?;
        Ok(0)
    }
}
