//! A little web server on loopback that misbehaves on request: breaks off in the middle, refuses, lies about lengths. What a
//! newcomer would get wrong: it serves ranges like a real one, because a resumed download is only tested when the second
//! request asks for the rest and nothing else.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `HEAD`…
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// `bytes=N-`'s N.
    pub from: Option<usize>,
    /// All headers in lower case, `name: value`.
    pub headers: Vec<String>,
}

impl Request {
    /// The value of a header, in lower case; `name` is too.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|h| h.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// What it gets.
#[derive(Debug, Clone)]
pub struct Response {
    /// 200, 404…
    pub status: u16,
    /// More headers, each `Name: value`.
    pub headers: Vec<String>,
    /// The whole body; the range that was asked for is cut from it.
    pub body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Keep it open for so long before, and say nothing.
    pub hang: Option<Duration>,
    /// Wait so long after each 4 KiB of the body.
    pub pace: Option<Duration>,
    /// Whether a range is given when it is asked for.
    pub ranges: bool,
}

impl Response {
    /// A good answer.
    pub fn ok(body: impl Into<Vec<u8>>) -> Response {
        Response { status: 200, headers: vec![], body: body.into(), cut: None, hang: None, pace: None, ranges: true }
    }

    /// An answer that breaks off.
    pub fn cut(body: impl Into<Vec<u8>>, after: usize) -> Response {
        Response { cut: Some(after), ..Response::ok(body) }
    }

    /// A bad one.
    pub fn status(status: u16, headers: &[&str], body: &str) -> Response {
        Response {
            status,
            headers: headers.iter().map(|h| (*h).to_owned()).collect(),
            body: body.into(),
            cut: None,
            hang: None,
            pace: None,
            ranges: true,
        }
    }

    /// With one more header, `Name: value`.
    pub fn with(mut self, header: &str) -> Response {
        self.headers.push(header.to_owned());
        self
    }
}

/// A server that answers until the process ends (its one thread sleeps in accept(2) then).
#[derive(Debug, Clone)]
pub struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Starts one whose answers `answer` makes.
    pub fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || drop(serve(&stream, &log, &*answer)));
            }
        });
        Server { port, seen }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `http://127.0.0.1:PORT/PATH`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.host())
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// One request for each connection: the answer says that it is closed.
fn serve(
    mut stream: &TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Response,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, path, from: None, headers: Vec::new() };
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            request.from = range.split('-').next().and_then(|n| n.parse().ok());
        }
        request.headers.push(line);
    }
    log.lock().unwrap().push(request.clone());
    let response = answer(&request);
    // RFC 9110, 13.1.5: another content than the one that is half there is sent as a whole.
    let tag = response.headers.iter().find_map(|h| h.to_lowercase().strip_prefix("etag: ").map(str::to_owned));
    let same = request.header("if-range").is_none_or(|wanted| tag.as_deref() == Some(wanted));
    let total = response.body.len();
    let from = request.from.filter(|_| response.status == 200 && response.ranges && same);
    let status = match from {
        None => response.status,
        Some(from) if from < total => 206,
        Some(_) => 416,
    };
    let body = if status == 416 { &[] } else { &response.body[from.unwrap_or(0)..] };
    let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nAccept-Ranges: bytes\r\n");
    if status != 304 {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    match (status, from) {
        (206, Some(from)) => head += &format!("Content-Range: bytes {from}-{}/{total}\r\n", total - 1),
        (416, _) => head += &format!("Content-Range: bytes */{total}\r\n"),
        _ => {}
    }
    for header in &response.headers {
        head += &format!("{header}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        let body = &body[..response.cut.unwrap_or(body.len()).min(body.len())];
        for piece in body.chunks(if response.pace.is_some() { 4096 } else { usize::MAX }) {
            stream.write_all(piece)?;
            std::thread::sleep(response.pace.unwrap_or_default());
        }
    }
    stream.flush()?;
    if let Some(time) = response.hang {
        std::thread::sleep(time);
    }
    Ok(())
}
