//! `pull`: an image into the store. What a newcomer would get wrong: stdout holds the digest only; the talk goes to stderr.

use std::ffi::OsString;

use clap::Args;
use clap::builder::OsStringValueParser;

use super::Verb;
use crate::cli::access::AccessOptions;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::{guest, output};
use crate::ops::{self, Ctx};

/// Fetch an image into the store
///
/// The digest is printed, where the image has one.
#[derive(Debug, Args)]
pub struct Pull {
    /// The architecture, under any name it has (arm64, aarch64, linux/arm/v7, …)
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Ask its source anew, even if it is there
    #[arg(long)]
    force: bool,
    /// Where Debian and Ubuntu packages come from [env: PRONTO_MIRROR]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    #[command(flatten)]
    access: AccessOptions,
    /// The image
    #[arg(value_name = "IMAGE", value_parser = OsStringValueParser::new())]
    image: OsString,
}

impl Verb for Pull {
    const NAME: &'static str = "pull";

    fn run(self, front: &Front) -> Outcome {
        let image = guest::image_text(&self.image)?;
        let arch = self.arch.or_else(|| front.globals.arch.clone());
        let mirror = guest::mirror(self.mirror);
        let ctx = Ctx { access: self.access.access()?, ..front.ctx(Self::NAME)? };
        let pulled = ops::images::pull(&ctx, &image, arch.as_deref(), self.force, mirror.as_deref())?;
        // docker's words, which scripts look for.
        let did = if pulled.fetched { "Downloaded newer image" } else { "Image is up to date" };
        ctx.report.note(&format!("Status: {did} for {}", pulled.artifact.label));
        output::lines(pulled.artifact.digest)?;
        Ok(0)
    }
}
