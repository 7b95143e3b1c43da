//! One request to a web server, and what its answer means. What a newcomer would get wrong: 429 and 5xx are worth another try, when
//! the server says when; any other 4xx is its last word.

use reqwest::header::{ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::{Begun, Patience, Server, Stop};
use crate::image::{Error, Result, net};

/// How often a small file is asked for again; nothing of it is kept in between, and people wait.
pub const RETRIES: u32 = 3;

/// A client with its runtime.
#[derive(Debug)]
pub struct Web {
    runtime: Runtime,
    client: reqwest::Client,
    /// How long it waits.
    pub patience: Patience,
}

/// A small file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// All of it.
    pub bytes: Vec<u8>,
    /// What to ask with next time.
    pub known: Known,
}

/// What a server says of a document that it may be asked about again (RFC 9110, 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its ETag, weak or strong.
    pub etag: Option<String>,
    /// When it was changed last.
    pub modified: Option<String>,
}

/// One URL's bytes.
#[derive(Debug)]
pub struct Url<'a> {
    web: &'a Web,
    url: String,
    response: Option<Response>,
    /// Whether the server has ever answered.
    heard: bool,
}

impl Web {
    /// Prepares to ask; nothing is sent yet.
    pub fn new(patience: Patience) -> Result<Web> {
        let runtime = net::runtime()?;
        Ok(Web { runtime, client: net::client(patience.connect, patience.silence)?, patience })
    }

    /// The bytes of `url`, to be read through a [`super::Stream`].
    pub fn url(&self, url: &str) -> Url<'_> {
        Url { web: self, url: url.to_owned(), response: None, heard: false }
    }

    /// Fetches a small file, all at once; `None` when it is still the one that is `known`. Errors: it is not there, longer than
    /// `limit` bytes, or the server cannot be reached, also when tried `retries` times more.
    pub fn document(&self, url: &str, limit: u64, known: Option<&Known>, retries: u32) -> Result<Option<Document>> {
        let mut failures = 0;
        loop {
            let (why, after) = match net::wait_for(&self.runtime, self.try_document(url, limit, known))? {
                Ok(document) => return Ok(document),
                Err(Stop::Fatal(error)) => return Err(error),
                Err(Stop::Again { why, after }) => (why, after),
            };
            failures += 1;
            if failures > retries {
                return Err(Error::Unreachable { place: host(url), why });
            }
            self.patience.wait(failures, after)?;
        }
    }

    async fn try_document(
        &self,
        url: &str,
        limit: u64,
        known: Option<&Known>,
    ) -> std::result::Result<Option<Document>, Stop> {
        let mut request = self.client.get(url);
        if let Some(known) = known {
            let header = |request: RequestBuilder, name, value: &Option<String>| match value {
                Some(value) => request.header(name, value),
                None => request,
            };
            request = header(request, IF_NONE_MATCH, &known.etag);
            request = header(request, IF_MODIFIED_SINCE, &known.modified);
        }
        let mut response = request.send().await.map_err(|e| broken(&e, url, false))?;
        if known.is_some() && response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        self.check(&response, url)?;
        let too_long = || Error::Malformed { what: url.to_owned(), why: format!("it is longer than {limit} bytes") };
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(too_long().into());
        }
        let text = |name| header(response.headers(), name);
        let known = Known { etag: text(ETAG), modified: text(LAST_MODIFIED) };
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| broken(&e, url, true))? {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(too_long().into());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(Document { bytes, known }))
    }

    /// What a status means that is not a good one.
    fn check(&self, response: &Response, url: &str) -> std::result::Result<(), Stop> {
        let status = response.status();
        if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
            return Ok(());
        }
        if status == StatusCode::NOT_FOUND || status == StatusCode::GONE {
            return Err(Error::NotFound { what: url.to_owned(), place: host(url), why: String::new() }.into());
        }
        if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
            return Err(refused(url, status.to_string()).into());
        }
        let after = net::retry_after(response.headers());
        if let Some(long) = after.filter(|after| *after > self.patience.longest) {
            let why = format!("{status}: it wants to be asked again in {} s", long.as_secs());
            return Err(refused(url, why).into());
        }
        Err(Stop::Again { why: status.to_string(), after })
    }
}

impl Server for Url<'_> {
    fn place(&self) -> String {
        host(&self.url)
    }

    fn ask(&mut self, from: u64, validator: Option<&str>) -> std::result::Result<Begun, Stop> {
        let mut request = self.web.client.get(&self.url);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
            if let Some(validator) = validator {
                request = request.header(IF_RANGE, validator);
            }
        }
        let sent = net::wait_for(&self.web.runtime, async { request.send().await })?;
        let response = sent.map_err(|e| broken(&e, &self.url, self.heard))?;
        self.heard = true;
        let headers = response.headers();
        let (start, total) = net::content_range(headers);
        let begun = match response.status() {
            StatusCode::PARTIAL_CONTENT if start == Some(from) => {
                Begun { from, total, validator: validator_of(headers) }
            }
            StatusCode::PARTIAL_CONTENT => {
                return Err(refused(&self.url, "it answers with another part than was asked for".into()).into());
            }
            // All of it is here already.
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 && total == Some(from) => {
                self.response = None;
                return Ok(Begun { from, total, validator: validator.map(str::to_owned) });
            }
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                // Nothing after what we have: all of it, then, and it is compared.
                return self.ask(0, None);
            }
            _ => {
                self.web.check(&response, &self.url)?;
                Begun { from: 0, total: response.content_length(), validator: validator_of(headers) }
            }
        };
        self.response = Some(response);
        Ok(begun)
    }

    fn next(&mut self, piece: &mut Vec<u8>) -> std::result::Result<bool, Stop> {
        piece.clear();
        let Some(response) = &mut self.response else { return Ok(false) };
        let got = net::wait_for(&self.web.runtime, async { response.chunk().await })?;
        let Some(bytes) = got.map_err(|e| broken(&e, &self.url, true))? else { return Ok(false) };
        piece.extend_from_slice(&bytes);
        Ok(true)
    }
}

/// What a failed request means. A server that never answered is not asked again: the word may be wrong, or the network down.
fn broken(error: &reqwest::Error, url: &str, heard: bool) -> Stop {
    let why = net::innermost(error);
    if error.is_builder() || error.is_redirect() {
        Stop::Fatal(refused(url, why))
    } else if error.is_connect() && !heard {
        Stop::Fatal(Error::Unreachable { place: host(url), why })
    } else {
        Stop::Again { why, after: None }
    }
}

/// The host of an URL, for messages.
pub fn host(url: &str) -> String {
    let parsed = reqwest::Url::parse(url).ok();
    parsed.and_then(|u| u.host_str().map(str::to_owned)).unwrap_or_else(|| url.to_owned())
}

fn refused(url: &str, why: String) -> Error {
    Error::Refused { what: url.to_owned(), place: host(url), why }
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
}

/// What If-Range may carry: an ETag that is not weak, else a date.
fn validator_of(headers: &HeaderMap) -> Option<String> {
    header(headers, ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| header(headers, LAST_MODIFIED))
}
