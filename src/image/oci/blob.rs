//! A blob as it arrives, through the same reader as every download ([`crate::image::fetch`]): it goes on where it broke off, at the next
//! mirror if need be. What a newcomer would get wrong: nothing is checked here but the size; whoever reads hashes, and a wrong digest is found
//! at the end. Only large blobs are spooled for the successor of a killed process: small ones are fetched again sooner than written.

use std::io::{self, Read};

use reqwest::header::{HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::registry::Registry;
use super::session::Request;
use crate::image::fetch::{Begun, Patience, Server, Spool, Stop, Stream};
use crate::image::{Digest, Error, Result, net};
use crate::store::Store;
use crate::sys::fs;

/// Blobs from this size on are spooled.
const LARGE: u64 = 64 << 20;

/// A blob of a registry, from its first byte to its last.
pub struct Blob<'a> {
    /// Taken when this is dropped.
    stream: Option<Stream<Asked<'a>>>,
    size: u64,
    at: u64,
}

impl<'a> Blob<'a> {
    /// Asks for it. Errors: nobody has it, or it is of another size.
    pub fn open(registry: &'a Registry<'a>, digest: &Digest, size: u64, what: String) -> Result<Blob<'a>> {
        let kept = size >= LARGE && has_room(registry.store(), size);
        let spool = if kept { spool(registry.store(), digest) } else { Spool::absent() };
        if spool.have() > 0 {
            registry.note_resumed(digest);
        }
        let asked = Asked { registry, path: format!("blobs/{digest}"), what, size, body: None };
        Ok(Blob { stream: Some(Stream::open(asked, spool, Patience::default())?), size, at: 0 })
    }
}

fn spool(store: &Store, digest: &Digest) -> Spool {
    let name = digest.to_string();
    Spool::open(store, &name, &name, true)
}

/// Whether there is plenty of room for a blob beside what is in it: a comfort must not be what fills the disk.
fn has_room(store: &Store, size: u64) -> bool {
    fs::free_bytes(store.cache()).is_ok_and(|free| free / 8 >= size)
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.as_mut().map_or(Ok(0), |stream| stream.read(buffer))?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Drop for Blob<'_> {
    fn drop(&mut self) {
        // What came is worth keeping unless it is whole: then it is unpacked, or not worth it.
        if let Some(stream) = self.stream.take().filter(|_| self.at >= self.size) {
            stream.close(None);
        }
    }
}

/// The requests for one blob.
struct Asked<'a> {
    registry: &'a Registry<'a>,
    path: String,
    what: String,
    size: u64,
    body: Option<Response>,
}

impl Asked<'_> {
    fn wrong_size(&self, found: u64) -> Stop {
        Stop::Fatal(Error::WrongSize { what: self.what.clone(), wanted: self.size, found })
    }

    /// Asks the places one after the other; one that broke off in the middle may be asked again.
    fn anywhere(&self, request: &Request<'_>, from: u64) -> std::result::Result<Response, Stop> {
        loop {
            let (place, session) = self.registry.session();
            match net::wait_for(self.registry.runtime(), session.ask(request))? {
                Err(Error::Unreachable { why, .. }) if from > 0 => return Err(Stop::Again { why, after: None }),
                Err(error) if error.is_out_of_reach() && self.registry.leave(place, &error) => {}
                other => return Ok(other?),
            }
        }
    }
}

impl Server for Asked<'_> {
    fn place(&self) -> String {
        self.registry.session().1.name()
    }

    fn ask(&mut self, from: u64, _: Option<&str>) -> std::result::Result<Begun, Stop> {
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = HeaderValue::from_str(&format!("bytes={from}-")).map_err(io::Error::other);
            headers.insert(RANGE, range.map_err(Error::io("cannot ask for a range"))?);
        }
        let request = Request { method: Method::GET, path: self.path.clone(), headers, what: &self.what };
        let answer = self.anywhere(&request, from)?;
        let from = match answer.status() {
            StatusCode::PARTIAL_CONTENT if net::content_range(answer.headers()).0.is_none_or(|start| start == from) => {
                from
            }
            StatusCode::PARTIAL_CONTENT => {
                let why = "it sends another part than was asked for".to_owned();
                return Err(Error::Refused { what: self.what.clone(), place: self.place(), why }.into());
            }
            StatusCode::RANGE_NOT_SATISFIABLE if from == self.size => {
                self.body = None;
                return Ok(Begun { from, total: Some(self.size), validator: None });
            }
            // The registry itself has less than it promised: there is nothing after what came.
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(self.wrong_size(from)),
            _ => 0,
        };
        if let Some(length) = answer.content_length().filter(|length| from + length != self.size) {
            return Err(self.wrong_size(from + length));
        }
        self.body = Some(answer);
        Ok(Begun { from, total: Some(self.size), validator: None })
    }

    fn next(&mut self, piece: &mut Vec<u8>) -> std::result::Result<bool, Stop> {
        piece.clear();
        let Some(body) = &mut self.body else { return Ok(false) };
        match net::wait_for(self.registry.runtime(), body.chunk())? {
            Ok(Some(bytes)) => {
                piece.extend_from_slice(&bytes);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(Stop::Again { why: net::innermost(&error), after: None }),
        }
    }

    fn elsewhere(&mut self, error: &Error) -> bool {
        let (place, _) = self.registry.session();
        self.registry.leave(place, error)
    }
}
