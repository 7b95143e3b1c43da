//! `images`: what is in the store. What a newcomer would get wrong: a reference may have come from a registry's answer, so it is
//! escaped like all text from outside.

use clap::Args;

use super::Verb;
use crate::cli::failure::Outcome;
use crate::cli::front::Front;
use crate::cli::output::{self, FormatOption};
use crate::domain::size;
use crate::ops::{self, images::Row};
use crate::sys::clock;

/// List the images in the store
///
/// SIZE is that of all files of an image, SHARED the part of it that lies in layers which another image has, too.
#[derive(Debug, Args)]
pub struct Images {
    #[command(flatten)]
    format: FormatOption,
}

impl Verb for Images {
    const NAME: &'static str = "images";

    fn run(self, front: &Front) -> Outcome {
        let ctx = front.ctx(Self::NAME)?;
        let rows = ops::images::images(&ctx)?;
        if self.format.is_json() {
            output::json(&rows)?;
        } else {
            let cells: Vec<_> = rows.iter().map(cells).collect();
            output::table(&["IMAGE", "PLATFORM", "DIGEST", "SIZE", "SHARED", "PULLED"], &cells)?;
        }
        Ok(0)
    }
}

fn cells(row: &Row) -> Vec<String> {
    let pulled = clock::local(row.pulled)
        .map(|t| format!("{:04}-{:02}-{:02} {:02}:{:02}", t.year, t.month, t.day, t.hour, t.minute));
    // As much of the digest as docker shows.
    let digest = row.digest.split_once(':').map_or(row.digest.as_str(), |(_, hex)| hex);
    vec![
        row.reference.clone(),
        row.platform.clone(),
        digest.chars().take(12).collect(),
        size::human(row.size),
        size::human(row.shared),
        pulled.unwrap_or_default(),
    ]
}
