//! Images from web servers: downloads that break off, checksums, indexes of images. What a newcomer would get wrong: the servers
//! are on loopback and of the tests' own, but they speak real HTTP, in the forms that the real ones are documented to have;
//! nothing here asks the world.

#[path = "common/bench.rs"]
mod bench;
#[path = "sources/downloads.rs"]
mod downloads;
#[path = "common/http.rs"]
mod http;
#[path = "common/images.rs"]
mod images;
#[path = "sources/raspios.rs"]
mod raspios;
#[path = "sources/streams.rs"]
mod streams;
#[path = "sources/templates.rs"]
mod templates;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Request, Response, Server};
use images::{Tar, digest};

/// A small archive that says its name, with a body that does not compress.
fn system(name: &str) -> Vec<u8> {
    let noise: Vec<u8> =
        (0..40_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 32).to_le_bytes()).collect();
    Tar::new().dir("etc").file("etc/name", name.as_bytes()).file("noise", &noise).end()
}

fn xz(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut out = xz2::write::XzEncoder::new(Vec::new(), 1);
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

/// The hex digits of a SHA-256.
fn hex(data: &[u8]) -> String {
    digest(data)["sha256:".len()..].to_owned()
}

fn hex512(data: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA512, data).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// A server of files that a test may change while it runs. Each has an ETag (of its content) and is told by its path.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Files {
    fn put(&self, path: &str, data: impl Into<Vec<u8>>) {
        self.0.lock().unwrap().insert(path.to_owned(), data.into());
    }

    /// As a plain web server answers: ranges, 304, 404.
    fn answer(&self, request: &Request) -> Response {
        let path = request.path.trim_start_matches('/');
        let Some(data) = self.0.lock().unwrap().get(path).cloned() else {
            return Response::status(404, &[], "nothing here");
        };
        let tag = format!("\"{}\"", &hex(&data)[..16]);
        let etag = format!("ETag: {tag}");
        if request.header("if-none-match") == Some(tag.as_str()) {
            return Response::status(304, &[&etag], "");
        }
        Response::ok(data).with(&etag)
    }

    fn serve(&self) -> Server {
        let files = self.clone();
        Server::start(move |request| files.answer(request))
    }
}

/// How often a path was asked for, and from which byte each time.
fn asked(server: &Server, path: &str) -> Vec<Option<usize>> {
    server.requests().iter().filter(|r| r.path == format!("/{path}")).map(|r| r.from).collect()
}
