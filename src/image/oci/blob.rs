//! A blob as it arrives: a reader that goes on where the download broke off, at the next mirror if need be. What a newcomer would get wrong:
//! nothing is checked here but the size; whoever reads hashes, and a wrong digest is found at the end.

use std::io::{self, Read};

use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::registry::Registry;
use super::session::Request;
use crate::image::{Digest, Error, Result, net};

/// A blob of a registry, from its first byte to its last.
pub struct Blob<'a> {
    registry: &'a Registry<'a>,
    path: String,
    what: String,
    size: u64,
    /// Bytes handed on or waiting in `rest`.
    at: u64,
    /// Bytes to leave out, when the registry knows no ranges and began anew.
    skip: u64,
    failures: u32,
    /// Where it stood when it failed last.
    progress: u64,
    body: Option<Response>,
    rest: Vec<u8>,
    rest_at: usize,
}

impl<'a> Blob<'a> {
    /// Asks for it. Errors: nobody has it, or it is of another size.
    pub fn open(registry: &'a Registry<'a>, digest: &Digest, size: u64, what: String) -> Result<Blob<'a>> {
        let path = format!("blobs/{digest}");
        let mut blob = Blob {
            registry,
            path,
            what,
            size,
            at: 0,
            skip: 0,
            failures: 0,
            progress: 0,
            body: None,
            rest: Vec::new(),
            rest_at: 0,
        };
        blob.connect()?;
        Ok(blob)
    }

    /// Asks for what is missing: again and again while the registry is out of reach, then at the next place.
    fn connect(&mut self) -> Result<()> {
        loop {
            let (place, _) = self.registry.session();
            match self.ask() {
                Err(error @ Error::Unreachable { .. }) if self.at > 0 => self.pause(place, error)?,
                Err(error) if error.is_out_of_reach() && self.registry.leave(place, &error) => {}
                other => return other,
            }
        }
    }

    fn ask(&mut self) -> Result<()> {
        let mut headers = HeaderMap::new();
        if self.at > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.at)).map_err(io::Error::other);
            headers.insert(RANGE, range.map_err(Error::io("cannot ask for a range"))?);
        }
        let request = Request { method: Method::GET, path: self.path.clone(), headers, what: &self.what };
        let answer = net::wait_for(self.registry.runtime(), self.registry.session().1.ask(&request))??;
        let from = match answer.status() {
            StatusCode::PARTIAL_CONTENT if net::range_start(answer.headers()).is_none_or(|start| start == self.at) => {
                self.at
            }
            // The registry itself has less than it promised: there is nothing after what came.
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(self.wrong_size(self.at)),
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.headers().get(CONTENT_RANGE).map(|v| format!("{v:?}")).unwrap_or_default();
                let why = format!("it sends another part ({range}) than was asked for");
                return Err(Error::Refused { what: self.what.clone(), place: self.registry.session().1.name(), why });
            }
            _ => 0,
        };
        if let Some(length) = answer.content_length().filter(|length| from + length != self.size) {
            return Err(self.wrong_size(from + length));
        }
        self.skip = self.at - from;
        self.body = Some(answer);
        Ok(())
    }

    fn wrong_size(&self, found: u64) -> Error {
        Error::WrongSize { what: self.what.clone(), wanted: self.size, found }
    }

    /// Waits before another try, a few times (one that brought something does not count), or goes on at the next place.
    fn pause(&mut self, place: usize, error: Error) -> Result<()> {
        self.body = None;
        if self.at > self.progress {
            (self.progress, self.failures) = (self.at, 0);
        }
        self.failures += 1;
        if self.failures > net::RETRIES {
            self.failures = 0;
            return if self.registry.leave(place, &error) { Ok(()) } else { Err(error) };
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
            let why = match net::wait_for(self.registry.runtime(), body.chunk())? {
                Ok(Some(piece)) => {
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
                _ if self.at >= self.size => return Ok(false),
                Ok(None) => "it ended too early".to_owned(),
                Err(error) => net::innermost(&error),
            };
            let (place, session) = self.registry.session();
            let error = Error::Unreachable { place: session.name(), why };
            self.pause(place, error)?;
        }
    }
}

impl Read for Blob<'_> {
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
