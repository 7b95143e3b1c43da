//! `import`: an archive or a file tree into the store, under a name of one's own. What a newcomer would get wrong: the name is no registry's,
//! and comes before one of the same spelling.

use std::ffi::OsString;

use clap::Args;
use clap::builder::OsStringValueParser;

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::cli::output;
use crate::ops::{self, Ctx};

/// Make an image of a tarball, a file tree or an archive of images
///
/// FILE is a tarball (plain or packed by gzip, zstd or xz), a directory, a URL of a tarball, or one of oci:DIR:TAG,
/// oci-archive:FILE:TAG and docker-archive:FILE:NAME. A directory is copied with owners, modes, attributes, links and holes; what is
/// mounted in it is left out.
///
/// NAME may have a tag: the image is listed as localhost/NAME:TAG, is found by NAME again (create, run, rmi, export), before
/// any registry's image of that name, and is never looked for in a network. The reference in full is printed.
#[derive(Debug, Args)]
pub struct Import {
    /// The architecture, if nothing in it tells, or to be sure; of an archive of several, this machine's if it is not given
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Replace an image of this name
    #[arg(long)]
    force: bool,
    /// What to import
    #[arg(value_name = "FILE|DIR|URL", value_parser = OsStringValueParser::new())]
    source: OsString,
    /// What to call it
    #[arg(value_name = "NAME")]
    name: String,
}

impl Verb for Import {
    const NAME: &'static str = "import";

    fn run(self, front: &Front) -> Outcome {
        let source = self
            .source
            .to_str()
            .ok_or_else(|| Failure::usage(format!("pronto: '{}' is not valid UTF-8", self.source.to_string_lossy())))?;
        let arch = self.arch.or_else(|| front.globals.arch.clone());
        let ctx: Ctx = front.ctx(Self::NAME)?;
        let what = ops::import::Import { source, name: &self.name, arch: arch.as_deref(), force: self.force };
        let imported = ops::import::import(&ctx, &what)?;
        ctx.report.note(&format!("imported for {}", imported.platform));
        output::lines([imported.reference])?;
        Ok(0)
    }
}
