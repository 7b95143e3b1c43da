//! Indexes that many commands look into: kept in the store's cache, asked about again when they are an hour old. What a newcomer
//! would get wrong: a copy that is too old is still better than none when the server is out of reach, and the user is told.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Web;
use super::web::{Known, RETRIES, host};
use crate::domain::Report;
use crate::image::{Error, Result, now};
use crate::store::Store;
use crate::sys::{fs, tag};

/// How long a copy is good without being asked about.
pub const FRESH: Duration = Duration::from_secs(3600);

/// The first line of a copy; the document follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    url: String,
    /// When the server last said that it is so, in seconds since 1970.
    asked: u64,
    #[serde(flatten)]
    known: Known,
}

fn path(store: &Store, url: &str) -> PathBuf {
    store.indexes().join(tag::of(url.as_bytes(), 64))
}

fn load(store: &Store, url: &str) -> Option<(Head, Vec<u8>)> {
    let mut bytes = std::fs::read(path(store, url)).ok()?;
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
    bytes.drain(..=end);
    (head.url == url).then_some((head, bytes))
}

fn save(store: &Store, head: &Head, document: &[u8]) {
    let save = || {
        fs::private_dir(&store.indexes())?;
        let mut bytes = serde_json::to_vec(head)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(document);
        fs::write_volatile(&path(store, &head.url), &bytes, 0o600)
    };
    // A cache that cannot be written costs time, nothing else.
    if let Err(error) = save() {
        tracing::info!("the index {} cannot be kept: {error}", head.url);
    }
}

/// The document at `url`, of at most `limit` bytes. A copy that is younger than [`FRESH`] is taken as it is, unless `ask`; an older
/// one is asked about, and taken all the same when its server is out of reach (unless `ask`). What `sound` refuses is neither
/// kept nor returned, so that a broken answer does not take the place of a good one.
pub fn document<T>(
    web: &Web,
    store: &Store,
    url: &str,
    limit: u64,
    ask: bool,
    report: &dyn Report,
    sound: impl Fn(&[u8]) -> Result<T>,
) -> Result<T> {
    // A copy that this program cannot read any more is none.
    let copy = load(store, url).and_then(|(head, bytes)| Some((head, sound(&bytes).ok()?, bytes)));
    let Some((head, parsed, bytes)) = copy else {
        let Some(document) = web.document(url, limit, None, RETRIES)? else {
            return Err(Error::Malformed {
                what: url.to_owned(),
                why: "it is 'not modified' before it was asked for".into(),
            });
        };
        let parsed = sound(&document.bytes)?;
        save(store, &Head { url: url.to_owned(), asked: now(), known: document.known }, &document.bytes);
        return Ok(parsed);
    };
    let age = now().saturating_sub(head.asked);
    if !ask && age < FRESH.as_secs() && head.asked <= now() {
        return Ok(parsed);
    }
    let anything = head.known.etag.is_some() || head.known.modified.is_some();
    let retries = if ask { RETRIES } else { 1 };
    match web.document(url, limit, anything.then_some(&head.known), retries) {
        Ok(None) => {
            save(store, &Head { asked: now(), ..head }, &bytes);
            Ok(parsed)
        }
        Ok(Some(document)) => {
            let parsed = sound(&document.bytes)?;
            save(store, &Head { asked: now(), known: document.known, ..head }, &document.bytes);
            Ok(parsed)
        }
        Err(Error::Unreachable { why, .. }) if !ask => {
            let hours = age / 3600;
            report.note(&format!("{} cannot be reached ({why}): using its index of {hours} h ago", host(url)));
            Ok(parsed)
        }
        Err(error) => Err(error),
    }
}
