//! `export`: a domain's file tree or an image, for other programs. What a newcomer would get wrong: without FILE the tarball goes to stdout,
//! which holds nothing else then.

use std::ffi::OsString;
use std::os::fd::AsFd;

use clap::builder::OsStringValueParser;
use clap::{Args, ValueEnum};

use super::Verb;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::front::Front;
use crate::ops;

/// Write a domain's file tree or an image to a file
///
/// FILE says the form by its name: .tar, .tar.gz, .tar.zst and .tar.xz are tarballs of the file tree; oci:DIR:TAG is an OCI image
/// layout (a tag is added to one that is there), oci-archive:FILE:TAG a tar of one. Without FILE, or with '-', a tarball goes to stdout.
///
/// A domain is exported with all its changes and without what was added to emulate it, as one layer; one that runs, as it is now. Of an
/// image all layers are written one by one. The same tree gives the same bytes.
#[derive(Debug, Args)]
pub struct Export {
    /// The form, where the name does not say it
    #[arg(long, value_name = "tar|oci|oci-archive", hide_possible_values = true)]
    format: Option<Form>,
    /// Which platform of an image
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Replace a file or a tag that is there
    #[arg(long)]
    force: bool,
    /// A domain, or an image in the store
    #[arg(value_name = "DOMAIN|IMAGE")]
    what: String,
    /// Where to write it
    #[arg(value_name = "FILE", value_parser = OsStringValueParser::new())]
    file: Option<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Tar,
    Oci,
    OciArchive,
}

impl Verb for Export {
    const NAME: &'static str = "export";

    fn run(self, front: &Front) -> Outcome {
        let arch = self.arch.or_else(|| front.globals.arch.clone());
        let ctx = front.ctx(Self::NAME)?;
        let format = self.format.map(|form| match form {
            Form::Tar => ops::export::Format::Tar,
            Form::Oci => ops::export::Format::Oci,
            Form::OciArchive => ops::export::Format::OciArchive,
        });
        let stdout = std::io::stdout().as_fd().try_clone_to_owned().map_err(Failure::Output)?.into();
        let file = self.file.as_deref();
        let what = ops::export::Export {
            what: &self.what,
            file,
            stdout: &stdout,
            format,
            arch: arch.as_deref(),
            force: self.force,
        };
        ops::export::export(&ctx, &what)?;
        Ok(0)
    }
}
