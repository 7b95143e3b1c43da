//! One host that serves a registry's images: how it is reached, what it demands, and what its answers mean (distribution-spec; docker's
//! token specification, "spec/auth/token"). What a newcomer would get wrong: nothing is known of a registry beforehand: it is asked, and
//! demands a token, a login or nothing; a login goes to nobody but it and its own token server, never to where it redirects to.

mod proof;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oci_distribution::errors::{OciEnvelope, OciErrorCode};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode};

use super::Access;
use super::hosts::{self, Place};
use crate::domain::Report;
use crate::image::{Error, Result, net, reference};

/// How often a request is repeated that a server cannot answer now.
const AGAIN: u32 = 3;
/// The longest that a server can make us wait; one that wants more refuses.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that is read of an answer that only explains something, or brings a token.
const MAX_WORDS: usize = 1 << 20;

/// A connection to one place, with what it has been shown.
pub struct Session<'a> {
    place: Place,
    client: Client,
    access: &'a Access,
    report: &'a dyn Report,
    schemes: &'static [&'static str],
    /// The scheme that answered.
    scheme: AtomicUsize,
    /// What `Authorization` says, once something was demanded.
    proof: Mutex<Option<HeaderValue>>,
}

/// What is asked for.
#[derive(Debug)]
pub struct Request<'r> {
    /// GET or HEAD.
    pub method: Method,
    /// `manifests/latest`, `blobs/sha256:…`.
    pub path: String,
    /// More headers.
    pub headers: HeaderMap,
    /// For messages.
    pub what: &'r str,
}

impl<'a> Session<'a> {
    /// Prepares to ask; nothing is sent yet. Errors: certificates that cannot be read.
    pub fn new(place: Place, access: &'a Access, report: &'a dyn Report) -> Result<Session<'a>> {
        let insecure = place.insecure || access.tls_verify == Some(false);
        let schemes: &[&str] = match insecure {
            true if reference::is_loopback(&place.host) => &["http", "https"],
            true => &["https", "http"],
            false => &["https"],
        };
        let client = client(&place.host, insecure)?;
        let (scheme, proof) = (AtomicUsize::new(0), Mutex::new(None));
        Ok(Session { place, client, access, report, schemes, scheme, proof })
    }

    /// For messages.
    pub fn name(&self) -> String {
        format!("{} {}", if self.place.mirror { "mirror" } else { "registry" }, self.place.host)
    }

    /// Asks, with whatever it demands, again while it is busy. The answer is 200, 206 or 416. Errors: see [`Error`].
    pub async fn ask(&self, request: &Request<'_>) -> Result<Response> {
        let (mut failures, mut proven) = (0, false);
        loop {
            let answer = self.send(request).await?;
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && !proven {
                self.prove(answer.headers(), request.what).await?;
                proven = true;
                continue;
            }
            if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE) {
                self.tell_limit(answer.headers());
                return Ok(answer);
            }
            let Some(delay) = wait(status, answer.headers(), failures).filter(|_| failures < AGAIN) else {
                return Err(self.explain(answer, request.what).await);
            };
            failures += 1;
            if delay > Duration::from_secs(2) {
                self.report.note(&format!("{} asks to wait {} s", self.name(), delay.as_secs()));
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// Sends it once, by each scheme until one is answered.
    async fn send(&self, request: &Request<'_>) -> Result<Response> {
        let first = self.scheme.load(Ordering::Relaxed);
        let mut last = None;
        for (number, scheme) in self.schemes.iter().enumerate().skip(first) {
            let Place { host, repository, .. } = &self.place;
            let url = format!("{scheme}://{host}/v2/{repository}/{}", request.path);
            let mut builder = self.client.request(request.method.clone(), url).headers(request.headers.clone());
            if let Some(proof) = self.proof() {
                builder = builder.header(AUTHORIZATION, proof);
            }
            match builder.send().await {
                // What servers say that expected TLS.
                Ok(answer)
                    if *scheme == "http"
                        && answer.status() == StatusCode::BAD_REQUEST
                        && number + 1 < self.schemes.len() => {}
                Ok(answer) => {
                    self.scheme.store(number, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) if error.is_redirect() => return Err(self.refused(request.what, &net::innermost(&error))),
                // It listens and says nothing: another scheme would wait as long.
                Err(error) if error.is_timeout() => {
                    return Err(Error::Unreachable { place: self.name(), why: net::innermost(&error) });
                }
                Err(error) => last = Some(last.unwrap_or_else(|| net::innermost(&error))),
            }
        }
        let why = last.unwrap_or_else(|| "it answers neither http nor https".to_owned());
        Err(Error::Unreachable { place: self.name(), why })
    }

    fn proof(&self) -> Option<HeaderValue> {
        self.proof.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn refused(&self, what: &str, why: &str) -> Error {
        Error::Refused { what: what.to_owned(), place: self.name(), why: why.to_owned() }
    }

    /// What a failure means: [`Error::Unreachable`] may be worth another try, the others are not.
    async fn explain(&self, answer: Response, what: &str) -> Error {
        let (status, limit) = (answer.status(), limit(answer.headers()));
        // It may have led somewhere else: that place says no, then.
        let asked = answer.url().host_str().unwrap_or_default().to_owned();
        let own = self.place.host.rsplit_once(':').map_or(self.place.host.as_str(), |(host, _)| host);
        let place = if own.trim_matches(['[', ']']) == asked.trim_matches(['[', ']']) { self.name() } else { asked };
        let text = words(answer).await;
        let refused = |why: String| Error::Refused { what: what.to_owned(), place: place.clone(), why };
        match status {
            StatusCode::NOT_FOUND => {
                let why = said(&text).unwrap_or_default();
                Error::NotFound { what: what.to_owned(), place, why }
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let why = said(&text).filter(|_| self.proof().is_some());
                refused(why.map_or_else(|| NEEDS_LOGIN.to_owned(), |why| format!("{NEEDS_LOGIN} ({why})")))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let more = said(&text).map(|why| format!(": {why}")).unwrap_or_default();
                refused(format!(
                    "too many requests{}{more}; a login may have more (--creds)",
                    limit.unwrap_or_default()
                ))
            }
            status if status.is_server_error() => Error::Unreachable { place, why: format!("it answers {status}") },
            status => {
                refused(said(&text).map_or_else(|| format!("it answers {status}"), |why| format!("{why} ({status})")))
            }
        }
    }

    /// Says when few pulls are left (docker.io: `ratelimit-remaining: 3;w=21600`).
    fn tell_limit(&self, headers: &HeaderMap) {
        const FEW: u64 = 5;
        if number(headers, "ratelimit-remaining").is_some_and(|left| left <= FEW) {
            if let Some(limit) = limit(headers) {
                self.report.note(&format!("{}: few pulls are left{limit}", self.name()));
            }
        }
    }
}

const NEEDS_LOGIN: &str = "it does not exist there, or needs a login (--creds, or docker login)";

/// One client for each place: certificates belong to a host.
fn client(host: &str, insecure: bool) -> Result<Client> {
    let found = hosts::certificates(host)?;
    let bad =
        |e: reqwest::Error| Error::Malformed { what: format!("a certificate for {host}"), why: net::innermost(&e) };
    let mut builder = net::builder().redirect(net::redirects(insecure)).tls_danger_accept_invalid_certs(insecure);
    for pem in &found.authorities {
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem).map_err(bad)?);
    }
    if let Some(pem) = &found.identity {
        builder = builder.identity(reqwest::Identity::from_pem(pem).map_err(bad)?);
    }
    builder.build().map_err(|e| Error::Unreachable { place: format!("registry {host}"), why: net::innermost(&e) })
}

/// How long to wait before another try, where one may help.
fn wait(status: StatusCode, headers: &HeaderMap, failures: u32) -> Option<Duration> {
    let own = Duration::from_millis(300 << failures.min(6));
    let said = net::retry_after(headers);
    match status {
        StatusCode::TOO_MANY_REQUESTS => said.filter(|&delay| delay <= PATIENCE),
        StatusCode::NOT_IMPLEMENTED => None,
        status if status.is_server_error() => Some(said.unwrap_or(own)).filter(|&delay| delay <= PATIENCE),
        _ => None,
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.split(';').next()?.trim().parse().ok()
}

/// ` (0 of 100 in 6 h are left)`
fn limit(headers: &HeaderMap) -> Option<String> {
    let (left, all) = (number(headers, "ratelimit-remaining")?, number(headers, "ratelimit-limit")?);
    let window = headers.get("ratelimit-limit")?.to_str().ok()?.split(";w=").nth(1)?.trim().parse::<u64>().ok()?;
    let window = if window >= 3600 { format!("{} h", window / 3600) } else { format!("{} min", window.div_ceil(60)) };
    Some(format!(" ({left} of {all} in {window})"))
}

/// What an answer says, no more than is reasonable.
async fn words(mut answer: Response) -> String {
    let mut text = Vec::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        let room = MAX_WORDS - text.len();
        text.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() >= room {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The reason in an error of distribution-spec; `None` when there is none (a web page, nothing).
fn said(text: &str) -> Option<String> {
    let first = serde_json::from_str::<OciEnvelope>(text).ok()?.errors.into_iter().next()?;
    let code = match &first.code {
        OciErrorCode::Other(code) => code.clone(),
        code => serde_json::to_value(code).ok()?.as_str()?.to_owned(),
    };
    // What a registry says is as long as it likes.
    let message: String = first.message.chars().take(300).collect();
    Some(if message.is_empty() { code } else { message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(n, v)| (reqwest::header::HeaderName::from_static(n), HeaderValue::from_str(v).unwrap()))
            .collect()
    }

    #[test]
    fn limits_are_told_as_people_read_them() {
        let given = [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "3;w=21600")];
        assert_eq!(limit(&headers(&given)).unwrap(), " (3 of 100 in 6 h)");
        assert_eq!(limit(&headers(&given[..1])), None);
        assert_eq!(limit(&headers(&[("ratelimit-limit", "x"), ("ratelimit-remaining", "3")])), None);
    }

    #[test]
    fn only_what_passes_is_waited_for() {
        let asked = |status: u16, given: &[(&'static str, &str)]| {
            wait(StatusCode::from_u16(status).unwrap(), &headers(given), 1)
        };
        assert_eq!(asked(429, &[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(asked(429, &[]), None);
        assert_eq!(asked(429, &[("retry-after", "3600")]), None);
        assert_eq!(asked(503, &[]), Some(Duration::from_millis(600)));
        assert_eq!(asked(501, &[]), None);
        assert_eq!(asked(404, &[("retry-after", "1")]), None);
    }

    #[test]
    fn reasons() {
        assert_eq!(said(r#"{"errors":[{"code":"DENIED","message":"no"}]}"#).as_deref(), Some("no"));
        assert_eq!(said(r#"{"errors":[{"code":"TEAPOT","message":""}]}"#).as_deref(), Some("TEAPOT"));
        assert_eq!(said("<html>"), None);
        assert_eq!(said(r#"{"errors":[]}"#), None);
    }
}
