//! `cache`: images in a directory that a CI keeps between jobs. What a newcomer would get wrong: what was installed on top of an image goes along,
//! so that the next job neither fetches nor installs anything.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::OsStringValueParser;
use clap::{Args, Subcommand};

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::ops;

/// Keep images in a directory between jobs of a CI
#[derive(Debug, Args)]
pub struct Cache {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write images of the store to a directory
    ///
    /// DIR becomes an OCI image layout whose files are named by what is in them; layers that are there already are not written again. An
    /// init that was installed on top of an image goes along. Without IMAGE: all images.
    Export {
        /// Remove what belongs to no image that is written now
        #[arg(long)]
        prune: bool,
        /// The directory
        #[arg(value_name = "DIR", value_parser = OsStringValueParser::new())]
        dir: OsString,
        /// Only these images
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Take all images of such a directory into the store
    ///
    /// Everything is checked against its digest; what is there already is left alone, and so is an image that the store has newer. The
    /// directory must come from somebody you trust: it decides what the images are.
    Import {
        /// The directory
        #[arg(value_name = "DIR", value_parser = OsStringValueParser::new())]
        dir: OsString,
    },
}

impl Verb for Cache {
    const NAME: &'static str = "cache";

    fn run(self, front: &Front) -> Outcome {
        match self.what {
            What::Export { prune, dir, images } => {
                let ctx = front.ctx("cache export")?;
                let done = ops::cache::export(&ctx, Path::new(&dir), &images, prune)?;
                let removed = if prune { format!(", {} files removed", done.removed) } else { String::new() };
                ctx.report.note(&format!(
                    "{} images in the cache; {} layers written, {} were there{removed}",
                    done.images, done.written, done.kept
                ));
            }
            What::Import { dir } => {
                let ctx = front.ctx("cache import")?;
                let done = ops::cache::import(&ctx, Path::new(&dir))?;
                ctx.report.note(&format!(
                    "{} images in the cache; {} layers unpacked, {} were there",
                    done.images, done.unpacked, done.kept
                ));
            }
        }
        Ok(0)
    }
}
