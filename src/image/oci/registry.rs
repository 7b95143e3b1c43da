//! A registry (distribution-spec), or the mirrors that stand in for it, as a [`Source`]. What a newcomer would get wrong: a place that does
//! not answer or does not have it is left for the next one, for good; and a digest decides whether what came is right, so it
//! does not matter which of them it came from.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use oci_distribution::Reference;
use oci_distribution::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use reqwest::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use tokio::runtime::Runtime;

use super::blob::Blob;
use super::manifest::Descriptor;
use super::session::{Request, Session};
use super::{Access, MAX_DOCUMENT, Source};
use crate::domain::Report;
use crate::image::{Digest, Error, Result, net};
use crate::store::Store;

/// The digest of a manifest, by the registry's word (distribution-spec, "Pulling manifests").
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// One image of one registry.
pub struct Registry<'a> {
    runtime: Runtime,
    store: &'a Store,
    reference: Reference,
    sessions: Vec<Session<'a>>,
    /// The first of them that is still of use.
    current: AtomicUsize,
    report: &'a dyn Report,
    /// Blobs of which a part was there.
    resumed: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Registry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({})", self.reference)
    }
}

impl<'a> Registry<'a> {
    /// Prepares to ask; nothing is sent yet. Errors: a configuration that cannot be understood; a registry that it blocks.
    pub fn new(
        store: &'a Store,
        reference: &Reference,
        access: &'a Access,
        report: &'a dyn Report,
    ) -> Result<Registry<'a>> {
        let runtime = net::runtime()?;
        let pinned = reference.digest().is_some();
        let places = access.hosts()?.places(reference.registry(), reference.repository(), pinned)?;
        let sessions = places.into_iter().map(|place| Session::new(place, access, report)).collect::<Result<_>>()?;
        Ok(Registry {
            runtime,
            store,
            reference: reference.clone(),
            sessions,
            current: AtomicUsize::new(0),
            report,
            resumed: Mutex::default(),
        })
    }

    /// Where downloads are kept.
    pub(super) fn store(&self) -> &Store {
        self.store
    }

    /// The runtime on which its answers are read.
    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// A blob is gone on with where an earlier process stopped.
    pub(super) fn note_resumed(&self, digest: &Digest) {
        self.resumed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(digest.to_string());
    }

    /// Which place is asked now, and whether there is another after it.
    pub(super) fn session(&self) -> (usize, &Session<'a>) {
        let at = self.current.load(Ordering::Relaxed).min(self.sessions.len() - 1);
        (at, &self.sessions[at])
    }

    /// Leaves the place with this number for the next one, and says so. False: it was the last.
    pub(super) fn leave(&self, at: usize, why: &Error) -> bool {
        if at + 1 >= self.sessions.len() {
            return false;
        }
        // Another thread may have left it already.
        if self.current.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.report.note(&format!("{why}: trying {}", self.sessions[at + 1].name()));
        }
        true
    }

    /// Asks each place until one has it.
    fn anywhere<'s, T, F>(&'s self, ask: impl Fn(&'s Session<'a>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        loop {
            let (at, session) = self.session();
            match net::wait_for(&self.runtime, ask(session))? {
                Err(error) if error.is_out_of_reach() && self.leave(at, &error) => {}
                other => return other,
            }
        }
    }

    fn what(&self, wanted: &str) -> String {
        match Some(wanted) == self.reference.tag() {
            true => self.reference.whole(),
            false => format!("{} of {}", wanted, self.reference),
        }
    }

    /// A manifest by tag or digest, as it came, and its digest by the registry's word.
    fn document(&self, wanted: &str) -> Result<(Vec<u8>, Option<Digest>)> {
        let what = self.what(wanted);
        self.anywhere(|session| {
            let what = &what;
            async move {
                let answer = session.ask(&manifest(Method::GET, wanted, what)).await?;
                let promised = content_digest(&answer);
                Ok((whole(answer, what, &session.name()).await?, promised))
            }
        })
    }

    fn wanted(&self) -> &str {
        self.reference.digest().or_else(|| self.reference.tag()).unwrap_or("latest")
    }
}

fn manifest<'r>(method: Method, wanted: &str, what: &'r str) -> Request<'r> {
    let mut headers = HeaderMap::new();
    for kind in
        [OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE]
    {
        headers.append(ACCEPT, HeaderValue::from_static(kind));
    }
    Request { method, path: format!("manifests/{wanted}"), headers, what }
}

fn content_digest(answer: &Response) -> Option<Digest> {
    answer.headers().get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// A document's bytes. Errors: it is too large, or breaks off.
async fn whole(mut answer: Response, what: &str, place: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let lost = |e: reqwest::Error| Error::Unreachable { place: place.to_owned(), why: net::innermost(&e) };
    while let Some(piece) = answer.chunk().await.map_err(lost)? {
        out.extend_from_slice(&piece);
        if out.len() as u64 > MAX_DOCUMENT {
            return Err(Error::Malformed { what: what.to_owned(), why: "it is too large".into() });
        }
    }
    Ok(out)
}

impl Source for Registry<'_> {
    fn place(&self) -> String {
        self.session().1.name()
    }

    fn top(&self) -> Result<Vec<u8>> {
        let (text, promised) = self.document(self.wanted())?;
        let found = Digest::of(&text);
        match promised.filter(|promised| *promised != found) {
            None => Ok(text),
            Some(promised) => Err(Error::WrongDigest {
                what: format!("the manifest of {}", self.reference),
                wanted: promised.to_string(),
                found: found.to_string(),
            }),
        }
    }

    fn probe(&self) -> Result<Option<Digest>> {
        if let Some(pinned) = self.reference.digest() {
            return Ok(pinned.parse().ok());
        }
        let what = self.what(self.wanted());
        self.anywhere(|session| {
            let what = &what;
            async move {
                let answer = session.ask(&manifest(Method::HEAD, self.wanted(), what)).await?;
                Ok(content_digest(&answer))
            }
        })
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.document(&digest.to_string()).map(|(text, _)| text)
    }

    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn std::io::Read + Send + '_>> {
        let digest = blob.digest().map_err(|why| Error::Malformed { what: "a blob".into(), why })?;
        let what = format!("blob {} of {}", digest.short(), self.reference);
        Ok(Box::new(Blob::open(self, &digest, blob.size, what)?))
    }

    fn forget(&self, blob: &Descriptor) -> bool {
        // The spool itself went when all of the blob had been read.
        self.resumed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&blob.digest)
    }
}
