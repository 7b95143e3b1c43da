//! `tag`: one more name for an image that is stored. What a newcomer would get wrong: nothing is copied, and no registry hears of it.

use std::ffi::OsString;

use clap::Args;
use clap::builder::OsStringValueParser;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{guest, output};
use crate::ops;

/// Give a stored image one more name
///
/// The name in full, localhost/NAME:TAG, is printed. An image that had this name keeps its other names only.
#[derive(Debug, Args)]
pub struct Tag {
    /// Only the one for this architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The image, as 'pronto images' names it
    #[arg(value_name = "IMAGE", value_parser = OsStringValueParser::new())]
    image: OsString,
    /// The new name
    #[arg(value_name = "NAME[:TAG]", value_parser = OsStringValueParser::new())]
    name: OsString,
}

impl Verb for Tag {
    const NAME: &'static str = "tag";

    fn run(self, front: &Front) -> Outcome {
        let (image, name) = (guest::image_text(&self.image)?, guest::image_text(&self.name)?);
        let arch = self.arch.or_else(|| front.globals.arch.clone());
        let ctx = front.ctx(Self::NAME)?;
        output::lines([ops::images::tag(&ctx, &image, &name, arch.as_deref())?])?;
        Ok(0)
    }
}
