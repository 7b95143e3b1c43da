//! A tarball as an image of one layer: a file, or a URL. What a newcomer would get wrong: the layer's key is the digest of the
//! file as it came (packed), which is known only when all of it has been read; so it is unpacked first and named then. That
//! is also why nothing here is ever written twice: what arrives is hashed, checked and unpacked in one go.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::checksums::{self, Expect};
use super::digest::{Hasher512, Sha512};
use super::fetch::{Patience, Spool, Stream, Web};
use super::{Digest, Error, Result, reference, unpack};
use crate::domain::{ImageConfig, Platform, Report};
use crate::store::Store;
use crate::store::images::{self, Entry};
use crate::store::layers::{self, Claim, Claimed, Meta};
use crate::store::young;

/// How often a download is begun anew because its content changed in the middle.
const ANEW: u32 = 2;

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
    let expect = checksums::beside_file(path)?;
    let size = Some(meta.size());
    let local = file.try_clone().ok();
    let from = Arriving {
        reader: &mut file,
        local: local.as_ref(),
        size,
        expect: &expect,
        shown: &shown,
        stamp: Some(stamp.clone()),
    };
    let entry = unpack_stream(store, &claim, from, report)?;
    keep(store, &shown, &entry)?;
    Ok((entry, true))
}

/// The tarball at `word`, a URL with a pin or without: what is stored of it unless `force`, else downloaded (going on where an
/// earlier try stopped).
pub fn from_url(store: &Store, word: &str, force: bool, report: &dyn Report) -> Result<(Entry, bool)> {
    let (url, pin) = checksums::pinned(word)?;
    let fresh = || stored(store, word, |_| !force);
    let waiting = || report.note(&format!("another pronto is fetching {word}: waiting for it"));
    let claim = match layers::claim(store, &claim_name(word), fresh, waiting)? {
        Claimed::There(entry) => return Ok((entry, false)),
        Claimed::Mine(claim) => claim,
    };
    let web = Web::new(Patience::default())?;
    let expect = if pin.is_firm() { pin } else { checksums::beside_url(&web, url, report)? };
    let remote = Remote { key: word, reference: word, platform: None, url, expect: &expect, stamp: None };
    Ok((download(store, &claim, &web, &remote, report)?, true))
}

/// A file on a server.
#[derive(Debug, Clone)]
struct Remote<'a> {
    /// What it is fetched for; one at a time (the claim's holder) fetches under a key.
    key: &'a str,
    /// What it is recorded as, and for which platform.
    reference: &'a str,
    platform: Option<&'a Platform>,
    url: &'a str,
    expect: &'a Expect,
    /// What tells whether the source is still the same; when there is none, what the server says.
    stamp: Option<String>,
}

/// An image for one platform, found in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The reference under which all its platforms are stored.
    pub reference: String,
    /// Which one it is.
    pub platform: Platform,
    /// Where it is.
    pub url: String,
    /// What it must turn out to be.
    pub expect: Expect,
    /// What tells it from a later one; none when that is not known, so that it is fetched.
    pub stamp: Option<String>,
}

/// What is stored of an image that was found in an index, if it is the same one, else fetched now; and whether it was.
pub fn obtain(store: &Store, web: &Web, found: &Found, report: &dyn Report) -> Result<(Entry, bool)> {
    let Found { reference, platform, expect, stamp, .. } = found;
    let same = |e: &Entry| e.platform.as_ref() == Some(platform) && stamp.is_some() && e.stamp == *stamp;
    let key = format!("{reference} {platform}");
    let waiting = || report.note(&format!("another pronto is fetching {key}: waiting for it"));
    let claim = match layers::claim(store, &claim_name(&key), || stored(store, reference, same), waiting)? {
        Claimed::There(entry) => return Ok((entry, false)),
        Claimed::Mine(claim) => claim,
    };
    let (url, platform, stamp) = (&found.url, Some(platform), stamp.clone());
    let remote = Remote { key: &key, reference, platform, url, expect, stamp };
    Ok((download(store, &claim, web, &remote, report)?, true))
}

/// Downloads and unpacks in one go, and records what came of it. What has arrived is let go only then: having a layer last may take as
/// long as fetching it, and who is killed meanwhile has a successor.
fn download(store: &Store, claim: &Claim, web: &Web, what: &Remote<'_>, report: &dyn Report) -> Result<Entry> {
    let expect = what.expect;
    let promised = [expect.sha256.as_ref(), expect.content.as_ref()].map(|d| d.map(Digest::hex).unwrap_or_default());
    let long = expect.sha512.as_ref().map(Sha512::to_string).unwrap_or_default();
    let identity = format!("{} {} {long}", what.url, promised.join(" "));
    let (mut anew, mut room) = (0, true);
    loop {
        let spool = match room {
            true => Spool::open(store, what.key, identity.trim_end(), expect.is_firm()),
            false => Spool::none(store, what.key),
        };
        let resumed = spool.have() > 0;
        let mut stream = Stream::open(web.url(what.url), spool, web.patience)?;
        let got = unpack_arriving(store, claim, &mut stream, what, report);
        let changed = stream.changed();
        stream.close(got.as_ref().err());
        match got {
            // What an earlier process left may have been damaged since: then it was not the server's fault.
            Err(error) if anew < ANEW && (changed || (resumed && error.is_damage())) => {
                anew += 1;
                report.note(&format!("{}: {error}: beginning anew", what.url));
            }
            // The spool may be what was too much.
            Err(error) if room && error.is_disk_full() => {
                room = false;
                report.note(&format!("{}: the disk is full: beginning anew without keeping what arrives", what.url));
            }
            other => return other,
        }
    }
}

fn unpack_arriving(
    store: &Store,
    claim: &Claim,
    stream: &mut Stream<super::fetch::Url<'_>>,
    what: &Remote<'_>,
    report: &dyn Report,
) -> Result<Entry> {
    let size = stream.total();
    if let (Some(wanted), Some(found)) = (what.expect.size, size) {
        if wanted != found {
            return Err(Error::WrongSize { what: what.url.to_owned(), wanted, found });
        }
    }
    let stamp = what.stamp.clone().or_else(|| stream.validator().map(str::to_owned));
    let from = Arriving { reader: stream, local: None, size, expect: what.expect, shown: what.url, stamp };
    let entry = Entry { platform: what.platform.cloned(), ..unpack_stream(store, claim, from, report)? };
    keep(store, what.reference, &entry)?;
    Ok(entry)
}

/// What is stored of a tarball, whole and good enough.
pub fn stored(store: &Store, reference: &str, good: impl Fn(&Entry) -> bool) -> crate::store::Result<Option<Entry>> {
    let Some(record) = images::get(store, reference)? else { return Ok(None) };
    for entry in record.entries {
        if good(&entry) && layers::all_exist(store, &entry.layers)? {
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

/// Records the entry under its reference.
fn keep(store: &Store, reference: &str, entry: &Entry) -> Result<()> {
    if images::put(store, reference, entry.clone())? { Ok(()) } else { Err(vanished(reference)) }
}

/// An image's file as it arrives.
pub struct Arriving<'a> {
    /// Its bytes. A failing read may carry an [`Error`] inside the `io::Error`.
    pub reader: &'a mut (dyn Read + Send),
    /// The same bytes, where they lie in a file that can be read at any place.
    pub local: Option<&'a File>,
    /// How many bytes will probably come, for the user.
    pub size: Option<u64>,
    /// What was promised.
    pub expect: &'a Expect,
    /// Its path or URL.
    pub shown: &'a str,
    /// What tells whether the source is still the same.
    pub stamp: Option<String>,
}

impl std::fmt::Debug for Arriving<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arriving").field("shown", &self.shown).field("size", &self.size).finish_non_exhaustive()
    }
}

/// Unpacks what arrives into the claim's layer and publishes it under its digest; the entry says no platform. Errors: what the reader
/// said; a broken promise ([`Error::WrongDigest`], [`Error::WrongSize`]), in preference to what it made of the archive; a
/// malformed archive; the host's files. Nothing is kept then.
pub fn unpack_stream(store: &Store, claim: &Claim, from: Arriving<'_>, report: &dyn Report) -> Result<Entry> {
    layers::sweep(store)?;
    let doing = if reference::is_path(from.shown) { "unpacking" } else { "fetching" };
    let step = report.begin(&format!("{doing} {}", from.shown), from.size);
    let what = format!("tarball {}", from.shown.escape_debug());
    let expect = from.expect;
    let mut checked = Checked::new(from.reader, expect.sha512.as_ref(), &what);
    let job = unpack::Job {
        what: &what,
        source: &mut checked,
        size: expect.size,
        digest: expect.sha256.as_ref(),
        diff_id: expect.content.as_ref(),
        below: false,
        step: step.as_ref(),
    };
    let dir = claim.directory()?;
    let (mut unpacked, is_disk) = match unpack::unpack_either(job, &dir, from.local) {
        Err(error @ Error::Malformed { .. }) => return Err(checked.verdict().err().unwrap_or(error)),
        other => other?,
    };
    checked.verdict()?;
    super::note_lost(&what, &unpacked, report);
    let disk = is_disk.then(|| super::disk::import::look(&dir, &mut unpacked, from.shown, report)).transpose()?;
    let key = unpacked.digest.hex().to_owned();
    let (size, entries) = (unpacked.size, unpacked.entries);
    let known = (!is_disk).then_some(&unpacked.known);
    claim.publish(&key, Meta { size, entries, disk, ..Meta::default() }, known)?;
    if is_disk {
        // Too large to be compared at a boot.
        young::settle(store, std::slice::from_ref(&key))?;
    }
    step.done("");
    Ok(Entry {
        platform: None,
        digest: unpacked.digest.to_string(),
        config_digest: None,
        layers: vec![key],
        config: ImageConfig::default(),
        pulled: super::now(),
        size: unpacked.size,
        stamp: from.stamp,
    })
}

/// Computes a SHA-512 as bytes go by, where one was promised.
struct Checked<'a> {
    source: &'a mut (dyn Read + Send),
    hasher: Option<(Hasher512, &'a Sha512)>,
    what: &'a str,
}

impl<'a> Checked<'a> {
    fn new(source: &'a mut (dyn Read + Send), promise: Option<&'a Sha512>, what: &'a str) -> Checked<'a> {
        Checked { source, hasher: promise.map(|p| (Hasher512::default(), p)), what }
    }

    /// Reads what is left, and compares.
    fn verdict(mut self) -> Result<()> {
        if self.hasher.is_none() {
            return Ok(());
        }
        io::copy(&mut self, &mut io::sink()).map_err(|e| unpack::carried(e, self.what))?;
        let Some((hasher, promise)) = self.hasher else { return Ok(()) };
        let found = hasher.finish();
        if found == *promise {
            return Ok(());
        }
        let (wanted, found) = (promise.to_string(), found.to_string());
        Err(Error::WrongDigest { what: self.what.to_owned(), wanted, found })
    }
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        if let Some((hasher, _)) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        Ok(n)
    }
}
