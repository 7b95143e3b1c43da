//! A registry (distribution-spec), anonymously, through oci-client. What a newcomer would get wrong: a blob is asked for from
//! byte 0 *as a range*: the answer comes unverified and is hashed once, by whoever reads it, instead of three times; and it
//! is how a download that broke off goes on.

use std::io::{self, Read};

use futures_util::StreamExt;
use oci_distribution::client::{BlobResponse, ClientConfig, ClientProtocol, SizedStream};
use oci_distribution::errors::{OciDistributionError as Fault, OciErrorCode};
use oci_distribution::secrets::RegistryAuth;
use oci_distribution::{Client, Reference, RegistryOperation};
use tokio::runtime::Runtime;

use super::Source;
use super::manifest::Descriptor;
use crate::image::{Digest, Error, Result, net, reference};

/// What is asked for: an index or a manifest of either family.
const ACCEPT: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// One image of one registry.
pub struct Registry {
    runtime: Runtime,
    client: Client,
    reference: Reference,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({})", self.reference)
    }
}

impl Registry {
    /// Prepares to ask; nothing is sent yet. Loopback registries are spoken to over plain http.
    pub fn new(reference: &Reference) -> Result<Registry> {
        let runtime = net::runtime()?;
        let host = reference.resolve_registry();
        let loopback = reference::is_loopback(host);
        let protocol = if loopback { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            platform_resolver: None,
            connect_timeout: Some(net::CONNECT),
            read_timeout: Some(net::SILENCE),
            user_agent: net::AGENT,
            ..ClientConfig::default()
        };
        let client = Client::try_from(config)
            .map_err(|e| Error::Unreachable { place: format!("registry {host}"), why: net::innermost(&e) })?;
        Ok(Registry { runtime, client, reference: reference.clone() })
    }

    fn fetch(&self, reference: &Reference) -> Result<Vec<u8>> {
        let what = reference.whole();
        let anonymous = RegistryAuth::Anonymous;
        let answer = net::wait_for(&self.runtime, async {
            if !reference::is_loopback(reference.resolve_registry()) {
                // Asked for first, so that what is wrong with the token's server is said and not swallowed.
                self.client.auth(reference, &anonymous, RegistryOperation::Pull).await?;
            }
            self.client.pull_manifest_raw(reference, &anonymous, ACCEPT).await
        })?;
        answer.map(|(text, _)| text.to_vec()).map_err(|fault| self.explain(fault, &what))
    }

    /// What a failure means: [`Error::Unreachable`] may be worth another try, the others are not.
    fn explain(&self, fault: Fault, what: &str) -> Error {
        let (what, place) = (what.to_owned(), self.place());
        let refused = |why: &str| Error::Refused { what: what.clone(), place: place.clone(), why: why.to_owned() };
        let no_entry = "it does not exist there, or needs a login";
        match fault {
            Fault::RequestError(error) => Error::Unreachable { place, why: net::innermost(&error) },
            Fault::IoError(error) => Error::Unreachable { place, why: net::innermost(&error) },
            Fault::UnauthorizedError { .. } | Fault::AuthenticationFailure(_) => refused(no_entry),
            Fault::ImageManifestNotFoundError(_) => Error::NotFound { what, place, why: String::new() },
            Fault::RegistryError { envelope, .. } => {
                let Some(first) = envelope.errors.into_iter().next() else { return refused("it gives no reason") };
                match first.code {
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::NotFound
                    | OciErrorCode::BlobUnknown
                    | OciErrorCode::ManifestBlobUnknown => Error::NotFound { what, place, why: first.message },
                    OciErrorCode::Unauthorized | OciErrorCode::Denied => refused(no_entry),
                    OciErrorCode::Toomanyrequests => refused(&format!("too many requests ({})", first.message)),
                    code => refused(&format!("{} ({code:?})", first.message)),
                }
            }
            Fault::ServerError { code: 404, .. } => Error::NotFound { what, place, why: String::new() },
            Fault::ServerError { code: 429, .. } => refused("too many requests"),
            Fault::ServerError { code: code @ 500.., .. } => {
                Error::Unreachable { place, why: format!("it answers {code}") }
            }
            Fault::ServerError { code, .. } => refused(&format!("it answers {code}")),
            Fault::DigestError(error) => Error::Malformed { what, why: error.to_string() },
            other => refused(&other.to_string()),
        }
    }
}

impl Source for Registry {
    fn place(&self) -> String {
        format!("registry {}", self.reference.registry())
    }

    fn top(&self) -> Result<Vec<u8>> {
        self.fetch(&self.reference)
    }

    fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.fetch(&self.reference.clone_with_digest(digest.to_string()))
    }

    fn blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send + '_>> {
        let digest = blob.digest().map_err(|why| Error::Malformed { what: "a blob".into(), why })?;
        let what = format!("blob {} of {}", digest.short(), self.reference);
        let mut stream = Stream {
            registry: self,
            digest: digest.to_string(),
            what,
            size: blob.size,
            at: 0,
            skip: 0,
            failures: 0,
            progress: 0,
            body: None,
            rest: Vec::new(),
            rest_at: 0,
        };
        stream.connect()?;
        Ok(Box::new(stream))
    }
}

/// A blob as it arrives.
struct Stream<'a> {
    registry: &'a Registry,
    digest: String,
    what: String,
    size: u64,
    /// Bytes handed on or waiting in `rest`.
    at: u64,
    /// Bytes to leave out, when the registry knows no ranges and began anew.
    skip: u64,
    failures: u32,
    /// Where it stood when it failed last.
    progress: u64,
    body: Option<SizedStream>,
    rest: Vec<u8>,
    rest_at: usize,
}

impl Stream<'_> {
    /// Asks for what is missing, again and again while the registry is out of reach.
    fn connect(&mut self) -> Result<()> {
        loop {
            match self.ask() {
                Err(error @ Error::Unreachable { .. }) if self.at > 0 => self.pause(error)?,
                other => return other,
            }
        }
    }

    fn ask(&mut self) -> Result<()> {
        let Registry { runtime, client, reference, .. } = self.registry;
        let answer = net::wait_for(runtime, async {
            if self.size == 0 {
                // A range of nothing cannot be had.
                return client.pull_blob_stream(reference, self.digest.as_str()).await.map(BlobResponse::Full);
            }
            client.pull_blob_stream_partial(reference, self.digest.as_str(), self.at, None).await
        })?;
        let (body, from) = match answer {
            Ok(BlobResponse::Partial(body)) => (body, self.at),
            Ok(BlobResponse::Full(body)) => (body, 0),
            // The registry itself has less than it promised: there is nothing after what came.
            Err(Fault::ServerError { code: 416, .. }) => return Err(self.wrong_size(self.at)),
            Err(fault) => return Err(self.registry.explain(fault, &self.what)),
        };
        if let Some(length) = body.content_length.filter(|length| from + length != self.size) {
            return Err(self.wrong_size(from + length));
        }
        self.skip = self.at - from;
        self.body = Some(body);
        Ok(())
    }

    fn wrong_size(&self, found: u64) -> Error {
        Error::WrongSize { what: self.what.clone(), wanted: self.size, found }
    }

    /// Waits before another try, a few times; a try that brought something does not count.
    fn pause(&mut self, error: Error) -> Result<()> {
        self.body = None;
        if self.at > self.progress {
            (self.progress, self.failures) = (self.at, 0);
        }
        self.failures += 1;
        if self.failures > net::RETRIES {
            return Err(error);
        }
        tracing::info!(what = %self.what, at = self.at, "the download broke off ({error}), going on");
        net::pause(self.failures)
    }

    /// Puts the next bytes into `rest`; false at the end.
    fn fill(&mut self) -> Result<bool> {
        loop {
            let Some(body) = &mut self.body else {
                self.connect()?;
                continue;
            };
            let why = match net::wait_for(&self.registry.runtime, body.stream.next())? {
                Some(Ok(piece)) => {
                    let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
                    self.skip -= skip as u64;
                    self.rest.clear();
                    self.rest_at = 0;
                    self.rest.extend_from_slice(&piece[skip..]);
                    self.at += self.rest.len() as u64;
                    if self.rest.is_empty() {
                        continue;
                    }
                    return Ok(true);
                }
                // The end, or a digest that oci-client has found wrong at the end: whoever reads this finds it too.
                _ if self.at >= self.size => return Ok(false),
                None => "it ended too early".to_owned(),
                Some(Err(error)) => net::innermost(&error),
            };
            self.pause(Error::Unreachable { place: self.registry.place(), why })?;
        }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest_at == self.rest.len() && !self.fill().map_err(io::Error::other)? {
            return Ok(0);
        }
        let n = buffer.len().min(self.rest.len() - self.rest_at);
        buffer[..n].copy_from_slice(&self.rest[self.rest_at..self.rest_at + n]);
        self.rest_at += n;
        Ok(n)
    }
}
