//! A tarball as an image of one layer: a file, or a URL. What a newcomer would get wrong: the layer's key is the digest of the
//! file as it came (packed), which is known only when all of it has been read; so it is unpacked first and named then.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use serde::{Deserialize, Serialize};

use super::{Digest, Error, Result, net, unpack};
use crate::domain::{ImageConfig, Report, Step};
use crate::store::Store;
use crate::store::images::{self, Entry};
use crate::store::layers::{self, Claimed, Meta};
use crate::sys::fs;

/// The tarball at `path` (absolute): what is stored of it when the file has not changed, else unpacked now; and whether it was.
pub fn from_file(store: &Store, path: &Path, force: bool, report: &dyn Report) -> Result<(Entry, bool)> {
    let shown = path.display().to_string();
    let open = || {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let meta = file.metadata()?;
        if meta.is_file() { Ok((file, meta)) } else { Err(io::Error::other("it is neither a file nor a directory")) }
    };
    let (mut file, meta) = open().map_err(Error::io(format!("cannot open {}", shown.escape_debug())))?;
    let stamp = format!("{}:{}:{}:{}.{}", meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
    let fresh = || stored(store, &shown, |e| !force && e.stamp.as_deref() == Some(&stamp));
    let waiting = || report.note(&format!("another pronto is unpacking {shown}: waiting for it"));
    let claim = match layers::claim(store, &claim_name(&shown), fresh, waiting)? {
        Claimed::There(entry) => return Ok((entry, false)),
        Claimed::Mine(claim) => claim,
    };
    let entry = unpack_file(store, &claim, &mut file, meta.size(), &shown, Some(stamp.clone()), report)?;
    keep(store, &shown, &entry)?;
    Ok((entry, true))
}

/// The tarball at `url`: what is stored of it unless `force`, else downloaded (going on where an earlier try stopped).
pub fn from_url(store: &Store, url: &str, force: bool, report: &dyn Report) -> Result<(Entry, bool)> {
    let fresh = || stored(store, url, |_| !force);
    let waiting = || report.note(&format!("another pronto is fetching {url}: waiting for it"));
    let claim = match layers::claim(store, &claim_name(url), fresh, waiting)? {
        Claimed::There(entry) => return Ok((entry, false)),
        Claimed::Mine(claim) => claim,
    };
    let partial = Partial::open(store, url)?;
    let download = partial.download(report).inspect_err(|_| partial.forget_if_empty())?;
    let (mut file, stamp) = (download.file, download.stamp);
    file.seek(SeekFrom::Start(0)).map_err(Error::io("cannot read the download"))?;
    let size = file.metadata().map_err(Error::io("cannot read the download"))?.len();
    let entry = unpack_file(store, &claim, &mut file, size, url, stamp, report);
    // Complete, so there is nothing to go on with: a good one is unpacked, a bad one must not be used again.
    if !matches!(&entry, Err(e) if e.is_disk_full()) {
        partial.remove();
    }
    let entry = entry?;
    keep(store, url, &entry)?;
    Ok((entry, true))
}

/// What is stored of a tarball, whole and good enough.
pub fn stored(store: &Store, reference: &str, good: impl Fn(&Entry) -> bool) -> crate::store::Result<Option<Entry>> {
    let Some(record) = images::get(store, reference)? else { return Ok(None) };
    for entry in record.entries {
        let mut whole = good(&entry);
        for key in &entry.layers {
            whole = whole && layers::exists(store, key)?;
        }
        if whole {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn vanished(what: &str) -> Error {
    Error::Malformed { what: what.to_owned(), why: "it was removed from the store at the same time".into() }
}

fn claim_name(reference: &str) -> String {
    format!("source-{}", Digest::of(reference.as_bytes()).hex())
}

fn keep(store: &Store, reference: &str, entry: &Entry) -> Result<()> {
    layers::settle(store, &entry.layers)?;
    if images::put(store, reference, entry.clone())? { Ok(()) } else { Err(vanished(reference)) }
}

fn unpack_file(
    store: &Store,
    claim: &layers::Claim,
    file: &mut File,
    size: u64,
    shown: &str,
    stamp: Option<String>,
    report: &dyn Report,
) -> Result<Entry> {
    layers::sweep(store)?;
    let step = report.begin(&format!("unpacking {shown}"), Some(size));
    let what = format!("tarball {}", shown.escape_debug());
    let job = unpack::Job { what: &what, source: file, size: None, digest: None, diff_id: None, step: step.as_ref() };
    let unpacked = unpack::unpack(job, &claim.directory()?)?;
    super::note_lost(&what, &unpacked, report);
    let key = unpacked.digest.hex().to_owned();
    claim.publish(
        &key,
        Meta { size: unpacked.size, entries: unpacked.entries, opaque_root: false, parent: None, boot: None },
    )?;
    step.done("");
    Ok(Entry {
        platform: None,
        digest: unpacked.digest.to_string(),
        config_digest: None,
        layers: vec![key],
        config: ImageConfig::default(),
        pulled: super::now(),
        size: unpacked.size,
        stamp,
    })
}

/// A download that can go on: the bytes so far, and what tells that the file is still the same.
struct Partial {
    url: String,
    data: PathBuf,
    state: PathBuf,
}

/// What is known of a file that was begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    url: String,
    /// A strong ETag or a date, for If-Range (RFC 9110, 13.1.5).
    validator: Option<String>,
}

struct Download {
    file: File,
    stamp: Option<String>,
}

/// Why a transfer stopped: for good, or worth another try.
enum Stop {
    Fatal(Error),
    Again(String),
}

impl Partial {
    fn open(store: &Store, url: &str) -> Result<Partial> {
        let dir = store.partial();
        fs::private_dir(&dir).map_err(Error::io(format!("cannot make {}", dir.display())))?;
        let name = Digest::of(url.as_bytes());
        let data = dir.join(format!("{}.part", name.hex()));
        Ok(Partial { url: url.to_owned(), data, state: dir.join(format!("{}.json", name.hex())) })
    }

    fn remove(&self) {
        let _ = std::fs::remove_file(&self.data);
        let _ = std::fs::remove_file(&self.state);
    }

    fn forget_if_empty(&self) {
        if std::fs::metadata(&self.data).is_ok_and(|meta| meta.len() == 0) {
            self.remove();
        }
    }

    fn load(&self) -> State {
        let text = std::fs::read(&self.state).unwrap_or_default();
        serde_json::from_slice(&text).ok().filter(|s: &State| s.url == self.url).unwrap_or_default()
    }

    fn download(&self, report: &dyn Report) -> Result<Download> {
        let cannot = || Error::io(format!("cannot write {}", self.data.display()));
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.data);
        let mut file = file.map_err(cannot())?;
        let mut state = self.load();
        let runtime = net::runtime()?;
        let client = net::client()?;
        let mut step: Option<Box<dyn Step>> = None;
        let mut failures = 0;
        loop {
            let have = if state.validator.is_some() { file.seek(SeekFrom::End(0)).map_err(cannot())? } else { 0 };
            let transfer = self.transfer(&client, &mut file, have, &mut state, &mut step, report);
            match net::wait_for(&runtime, transfer)? {
                Ok(()) => break,
                Err(Stop::Fatal(error)) => return Err(error),
                Err(Stop::Again(why)) => {
                    let now = file.seek(SeekFrom::End(0)).map_err(cannot())?;
                    failures = if now > have { 1 } else { failures + 1 };
                    if failures > net::RETRIES {
                        return Err(Error::Unreachable { place: self.host(), why });
                    }
                    net::pause(failures)?;
                }
            }
        }
        if let Some(step) = step {
            step.done("");
        }
        Ok(Download { file, stamp: state.validator })
    }

    /// One request, to its end. What arrived stays in the file whatever happens.
    async fn transfer(
        &self,
        client: &reqwest::Client,
        file: &mut File,
        have: u64,
        state: &mut State,
        step: &mut Option<Box<dyn Step>>,
        report: &dyn Report,
    ) -> std::result::Result<(), Stop> {
        let mut request = client.get(&self.url);
        if let (Some(validator), 1..) = (&state.validator, have) {
            request = request.header(RANGE, format!("bytes={have}-")).header(IF_RANGE, validator);
        }
        // A server that never answered is not asked again: the word may be wrong, or the network down.
        let silent = step.is_none();
        let again = |e: reqwest::Error| {
            let why = net::innermost(&e);
            if e.is_builder() || e.is_redirect() {
                Stop::Fatal(self.refused(why))
            } else if silent && e.is_connect() {
                Stop::Fatal(Error::Unreachable { place: self.host(), why })
            } else {
                Stop::Again(why)
            }
        };
        let response = request.send().await.map_err(again)?;
        let from = match response.status() {
            StatusCode::PARTIAL_CONTENT if net::range_start(response.headers()) == Some(have) => have,
            StatusCode::OK => 0,
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
                // Nothing after what we have, or another part than was asked for: begin anew.
                *state = State::default();
                return Err(Stop::Again("it does not go on where it stopped".into()));
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let why = String::new();
                return Err(Stop::Fatal(Error::NotFound { what: self.url.clone(), place: self.host(), why }));
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Stop::Again(status.to_string()));
            }
            status => return Err(Stop::Fatal(self.refused(status.to_string()))),
        };
        let length = response.content_length();
        let fatal =
            |e: io::Error| Stop::Fatal(Error::Io { what: format!("cannot write {}", self.data.display()), source: e });
        if from == 0 {
            *state = State { url: self.url.clone(), validator: validator(response.headers()) };
            file.set_len(0).map_err(fatal)?;
            let text = serde_json::to_vec(state).unwrap_or_default();
            fs::write_volatile(&self.state, &text, 0o600).map_err(fatal)?;
        }
        file.seek(SeekFrom::Start(from)).map_err(fatal)?;
        let total = length.map(|length| from + length);
        if step.is_none() {
            let begun = report.begin(&format!("fetching {}", self.url), total);
            begun.advance(from);
            *step = Some(begun);
        }
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(again)?;
            file.write_all(&piece).map_err(fatal)?;
            if let Some(step) = &step {
                step.advance(piece.len() as u64);
            }
        }
        Ok(())
    }

    fn host(&self) -> String {
        reqwest::Url::parse(&self.url)
            .ok()
            .and_then(|u| u.host_str().map(str::to_owned))
            .unwrap_or_else(|| self.url.clone())
    }

    fn refused(&self, why: String) -> Error {
        Error::Refused { what: self.url.clone(), place: self.host(), why }
    }
}

/// What If-Range may carry: an ETag that is not weak, else a date.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    text(ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(LAST_MODIFIED))
}
