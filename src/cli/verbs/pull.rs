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
/// The digest is printed, where the image has one. IMAGE is whatever create takes. A registry and an index of images are asked whether
/// they have a newer one; a URL, and a label that may be bootstrapped, only with --force. A download that broke off goes on where
/// it stopped.
#[derive(Debug, Args)]
pub struct Pull {
    /// The architecture, under any name it has (arm64, aarch64, linux/arm/v7, …)
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Fetch it for every platform that its source has
    #[arg(long, conflicts_with = "arch")]
    all_platforms: bool,
    /// Ask for everything anew, not only whether there is a newer one
    #[arg(long)]
    force: bool,
    /// Where Debian and Ubuntu packages come from [env: PRONTO_MIRROR]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Make the system from packages, with these besides: Debian and Ubuntu
    #[arg(long, value_name = "PACKAGE[,PACKAGE…]", value_delimiter = ',', conflicts_with = "all_platforms")]
    include: Vec<String>,
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
        let include = guest::packages(self.include)?;
        let ctx = Ctx { access: self.access.access()?, ..front.ctx(Self::NAME)? };
        let all = if self.all_platforms {
            ops::images::pull_all(&ctx, &image, self.force)?
        } else {
            vec![ops::images::pull_with(&ctx, &image, arch.as_deref(), self.force, mirror.as_deref(), &include)?]
        };
        // docker's words, which scripts look for.
        let did = if all.iter().any(|p| p.fetched) { "Downloaded newer image" } else { "Image is up to date" };
        if let Some(last) = all.last() {
            if let Some(digest) = &last.artifact.digest {
                ctx.report.note(&format!("Digest: {digest}"));
            }
            ctx.report.note(&format!("Status: {did} for {}", last.artifact.label));
        }
        output::lines(all.into_iter().filter_map(|pulled| pulled.artifact.digest))?;
        Ok(0)
    }
}
