//! A little web server on loopback that misbehaves on request: breaks off in the middle, refuses, lies about lengths. What a
//! newcomer would get wrong: it serves ranges like a real one, because a resumed download is only tested when the second
//! request asks for the rest and nothing else.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `HEAD`…
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// `bytes=N-`'s N.
    pub from: Option<usize>,
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
}

impl Response {
    /// A good answer.
    pub fn ok(body: impl Into<Vec<u8>>) -> Response {
        Response { status: 200, headers: vec![], body: body.into(), cut: None }
    }

    /// A bad one.
    pub fn status(status: u16, headers: &[&str], body: &str) -> Response {
        Response { status, headers: headers.iter().map(|h| (*h).to_owned()).collect(), body: body.into(), cut: None }
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
    let mut request =
        Request { method: words.next().unwrap_or_default(), path: words.next().unwrap_or_default(), from: None };
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            request.from = range.split('-').next().and_then(|n| n.parse().ok());
        }
    }
    log.lock().unwrap().push(request.clone());
    let response = answer(&request);
    let from = request.from.filter(|&f| response.status == 200 && f < response.body.len());
    let body = &response.body[from.unwrap_or(0)..];
    let mut head = format!(
        "HTTP/1.1 {} X\r\nConnection: close\r\nAccept-Ranges: bytes\r\n",
        if from.is_some() { 206 } else { response.status }
    );
    head += &format!("Content-Length: {}\r\n", body.len());
    if let Some(from) = from {
        head += &format!("Content-Range: bytes {from}-{}/{}\r\n", response.body.len() - 1, response.body.len());
    }
    for header in &response.headers {
        head += &format!("{header}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&body[..response.cut.unwrap_or(body.len()).min(body.len())])?;
    }
    stream.flush()
}
