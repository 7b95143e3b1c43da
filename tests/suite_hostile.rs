//! The real binary against sources that lie, hang or break off, and on a host that refuses: each time one clear error, and nothing left
//! behind. What a newcomer would get wrong: "nothing left" is looked up in the store's files after each try, and the store must still
//! work: a good image is fetched into it at the end.

#![allow(clippy::print_stderr, reason = "what cannot be tested here says so")]

#[path = "common/http.rs"]
mod http;
#[path = "common/images.rs"]
mod images;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response, Server};
use images::{Header, Layout, Packed, Tar, digest, entry, put};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pronto::sys::process::Tool;

const PRONTO: &str = env!("CARGO_BIN_EXE_pronto");

/// Whether this is root; says so where it is not.
fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("{test}: not tested, for it needs root");
    }
    root
}

struct Store(PathBuf);

impl Store {
    fn tool(&self, words: &[&str]) -> Tool {
        let mut tool = Tool::new(PRONTO).args(words);
        // A minute's silence is the real patience; a debug build is told to have less.
        tool.command().env("PRONTO_ROOT", &self.0).env("PRONTO_FAIL_SILENCE", "4000").stdin(Stdio::null());
        tool
    }

    fn run(&self, words: &[&str]) -> Output {
        self.tool(words).command().output().unwrap()
    }

    /// A pull that fails with one clear error and leaves nothing.
    fn refuses(&self, image: &str, words: &[&str]) -> String {
        let out = self.run(&["--quiet", "pull", "--arch", "arm64", image]);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{image}: {said}");
        assert!(out.stdout.is_empty(), "{image} has no digest");
        for word in words {
            assert!(said.contains(word), "{image}: wanted '{word}': {said}");
        }
        assert!(said.lines().count() <= 4 && said.len() < 1000, "one clear error, no flood: {said}");
        assert!(!said.contains("panicked") && !said.contains('\u{1b}'), "{said}");
        self.is_clean();
        said
    }

    /// Nothing is half-made: no temporary tree, no claim, no download, no layer without an image.
    fn is_clean(&self) {
        let left: Vec<PathBuf> = ["layers", "blobs/sha256", "blobs", "partial", "run/claims", "images"]
            .iter()
            .flat_map(|dir| std::fs::read_dir(self.0.join(dir)).into_iter().flatten())
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("blobs/sha256"))
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

/// An image of one arm64 layer, served as a registry would, but for what `fault` answers in its place.
struct Registry {
    server: Server,
    /// No more faults.
    good: Arc<AtomicBool>,
}

impl Registry {
    fn new(dir: &Path, fault: impl Fn(&Request, &Response) -> Option<Response> + Send + Sync + 'static) -> Registry {
        let mut layout = Layout::new(&dir.join("layout"));
        let noise: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let layers = [Tar::new().dir("etc").file("etc/name", b"x").file("noise", &noise).end()];
        let image = layout.image("arm64", &layers, Packed::Gzip, |_, _| ());
        let (top, kind) =
            (image["digest"].as_str().unwrap().to_owned(), image["mediaType"].as_str().unwrap().to_owned());
        layout.tag("t", image);
        let good = Arc::new(AtomicBool::new(false));
        let is_good = Arc::clone(&good);
        let server = Server::start(move |request| {
            let answer = answer(&layout, &top, &kind, &request.path);
            let spoilt = if is_good.load(Ordering::Relaxed) { None } else { fault(request, &answer) };
            spoilt.unwrap_or(answer)
        });
        Registry { server, good }
    }

    fn image(&self) -> String {
        format!("{}/x/y:t", self.server.host())
    }

    /// The store takes the image once nothing is wrong any more.
    fn mends(&self, store: &Store) {
        self.good.store(true, Ordering::Relaxed);
        let out = store.run(&["pull", "--arch", "arm64", &self.image()]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(store.run(&["rmi", &self.image()]).status.success());
        store.is_clean();
    }
}

fn answer(layout: &Layout, top: &str, kind: &str, path: &str) -> Response {
    let last = path.rsplit('/').next().unwrap_or_default();
    let digest = if last == "t" { top } else { last };
    if path.trim_end_matches('/') == "/v2" {
        return Response::ok("{}");
    }
    match digest.strip_prefix("sha256:").and_then(|_| std::fs::read(layout.blob_path(digest)).ok()) {
        Some(body) if path.contains("/manifests/") => Response {
            headers: vec![format!("Content-Type: {kind}"), format!("Docker-Content-Digest: {digest}")],
            ..Response::ok(body)
        },
        Some(body) => Response::ok(body),
        None => Response::status(404, &[], ""),
    }
}

fn store(dir: &Path) -> Store {
    Store(dir.join("store"))
}

const PAGE: &str = "<!DOCTYPE html><html><body>\u{1b}[31mPlease log in to the hotel's network</body></html>";

/// A captive portal answers everything with its page; a broken proxy only some of it.
#[test]
fn a_registry_that_sends_html() {
    if !root("a_registry_that_sends_html") {
        return;
    }
    for what in ["/v2/", "/manifests/", "/blobs/"] {
        let dir = tempfile::tempdir().unwrap();
        let page = || Response { headers: vec!["Content-Type: text/html".into()], ..Response::ok(PAGE) };
        let registry = Registry::new(dir.path(), move |request, _| request.path.contains(what).then(page));
        let store = store(dir.path());
        store.refuses(&registry.image(), &["127.0.0.1"]);
        assert!(registry.server.requests().len() < 30, "it is not asked again and again");
        registry.mends(&store);
    }
}

/// Documents and blobs that end half-way, always at the same byte; and a document that grows without end.
#[test]
fn a_registry_that_closes_half_way() {
    if !root("a_registry_that_closes_half_way") {
        return;
    }
    for what in ["/manifests/", "/blobs/"] {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new(dir.path(), move |request, good| {
            // What is asked for from the cut on is refused as well: there is never another byte.
            let cut = Response { cut: Some(good.body.len() / 2), ..good.clone() };
            let rest = request.from.is_some_and(|from| from > 0).then(|| Response { cut: Some(0), ..good.clone() });
            request.path.contains(what).then(|| rest.unwrap_or(cut))
        });
        let store = store(dir.path());
        store.refuses(&registry.image(), &["127.0.0.1"]);
        registry.mends(&store);
    }
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new(dir.path(), |request, good| {
        let long = [&good.body[..], &vec![b' '; 40 << 20]].concat();
        request.path.contains("/manifests/").then(|| Response { body: long, ..good.clone() })
    });
    let store = store(dir.path());
    store.refuses(&registry.image(), &["127.0.0.1"]);
}

/// A server that takes connections and says nothing, or stops in the middle of a blob.
#[test]
fn a_registry_that_hangs() {
    if !root("a_registry_that_hangs") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for client in listener.incoming().flatten() {
            held.push(client);
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let waiting = Store(dir.path().join("waiting"));
    // A person who waits for it, and one who gives up.
    let start = Instant::now();
    let given_up = std::thread::scope(|scope| {
        let patient = scope.spawn(|| waiting.refuses(&format!("{silent}/x/y:t"), &["127.0.0.1", "cannot be reached"]));
        let took = interrupted(&Store(dir.path().join("hasty")), &format!("{silent}/x/y:t"));
        patient.join().unwrap();
        took
    });
    assert!(given_up < Duration::from_secs(5), "a signal is heard while it waits");
    assert!(start.elapsed() < Duration::from_secs(30), "silence has an end");
    // In the middle of a blob.
    let registry = Registry::new(&dir.path().join("blob"), |_, _| None);
    let front = front_that_stops(&registry.server.host());
    let store = Store(dir.path().join("middle"));
    assert!(interrupted(&store, &format!("{front}/x/y:t")) < Duration::from_secs(5));
    // What the end left of the layer goes with the next change.
    registry.mends(&store);
}

/// Runs a pull that does not end, sends it SIGTERM (a shell's background jobs ignore SIGINT) after two seconds, and says how long it took to end then.
fn interrupted(store: &Store, image: &str) -> Duration {
    let mut tool = store.tool(&["--quiet", "pull", "--arch", "arm64", image]);
    tool.command().stderr(Stdio::null()).stdout(Stdio::null());
    let mut child = tool.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none(), "it waits for a server that says nothing");
    let start = Instant::now();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// A proxy that passes half a megabyte of each answer on, and then nothing more.
fn front_that_stops(back: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (front, back) = (listener.local_addr().unwrap().to_string(), back.to_owned());
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut client in listener.incoming().flatten() {
            let mut server = std::net::TcpStream::connect(&back).unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) == 1 {
                request.push(byte[0]);
            }
            server.write_all(&request).unwrap();
            let mut answer = Vec::new();
            (&mut server).take(500_000).read_to_end(&mut answer).unwrap();
            let _ = client.write_all(&answer);
            if answer.len() == 500_000 {
                held.push(client);
            }
        }
    });
    front
}

/// A shell in a mount namespace of its own, with a tmpfs at `place`; the script's arguments follow.
fn on_tmpfs(place: &Path, options: &str, script: &str, words: &[&str]) -> Output {
    let script = format!("mount -t tmpfs -o mode=0700,{options} small \"$0\" && {script}");
    let mut tool = Tool::new("unshare").args(["--mount", "sh", "-c", &script]).arg(place).args(words);
    tool.command().stdin(Stdio::null()).output().unwrap()
}

/// The disk is a little larger each time, so it is full at each step in turn: while the store is made, in layers of every
/// kind of entry, at records and blobs, in a download. Bytes run out first, then inodes.
#[test]
fn a_full_disk_at_every_step() {
    if !root("a_full_disk_at_every_step") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (place, mut layout) = (dir.path().join("disk"), Layout::new(&dir.path().join("layout")));
    std::fs::create_dir(&place).unwrap();
    let long = "l".repeat(4000);
    let layers: Vec<Vec<u8>> = (0..3_u8)
        .map(|n| {
            let tar = Tar::new()
                .dir("d")
                .file(format!("d/{n}"), &[n; 30_000])
                .symlink("l", "d")
                .hard_link("h", format!("d/{n}"))
                .hard_link("lower", "d/0");
            let tar = tar
                .gnu_long(b'K', long.as_bytes())
                .symlink("long", "x")
                .file("e/.wh.gone", b"")
                .file("f/.wh..wh..opq", b"");
            (0..5).fold(tar, |tar, m| tar.file(format!("many/{m}"), &[m; 5000])).end()
        })
        .collect();
    let image = layout.image("arm64", &layers, Packed::Gzip, |_, _| ());
    layout.tag("t", image);
    let ball = layers[0].clone();
    let server = Server::start(move |_| Response::ok(ball.clone()));
    let words = [format!("oci:{}:t", layout.dir.display()), server.url("rootfs.tar")];
    // Names of what is there after a failure, then whether the verbs that look still work.
    let script = "PRONTO_ROOT=\"$0/store\"; export PRONTO_ROOT; \"$1\" --quiet pull --arch arm64 \"$2\"; code=$?; \
                  cd \"$0/store\" 2>/dev/null && find layers run/claims partial -mindepth 1 -maxdepth 1 2>/dev/null; \
                  \"$1\" images --format json >\"/dev/null\" || echo no images; exit $code";
    for word in &words {
        for (unit, from, step) in [("size", 4_u64, 8), ("nr_inodes", 3, 2)] {
            let (mut failures, mut n) = (0, from);
            loop {
                let options = if unit == "size" { format!("size={n}k") } else { format!("nr_inodes={n}") };
                let out = on_tmpfs(&place, &options, script, &[PRONTO, word]);
                let (said, left) = (String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
                if out.status.success() {
                    break;
                }
                failures += 1;
                assert_eq!(out.status.code(), Some(1), "{options} {word}: {said}");
                assert!(said.contains("No space left on device"), "{options} {word}: {said}");
                assert!(!said.contains("panicked") && said.lines().count() < 8, "{options} {word}: {said}");
                let half =
                    left.lines().filter(|l| l.contains(".tmp") || l.contains("claims/") || l.contains("partial/"));
                assert_eq!(half.collect::<Vec<_>>(), Vec::<&str>::new(), "{options} {word}: {said}");
                n += step;
                assert!(n < 4000, "it never fits");
            }
            assert!(failures > 8, "{unit} {word}: it was full only {failures} times");
        }
    }
}

/// Root without the right to make device nodes, as in many containers.
#[test]
fn device_nodes_where_they_are_not_permitted() {
    if !root("device_nodes_where_they_are_not_permitted") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ball = dir.path().join("rootfs.tar");
    let null = Header { device: (1, 3), ..entry(b'3', "dev/null") };
    put(&ball, &Tar::new().dir("dev").file("etc/name", b"x").add(null, b"").end());
    let store = store(dir.path());
    let mut tool = Tool::new("setpriv").args(["--bounding-set=-mknod", PRONTO, "--quiet", "pull"]).arg(&ball);
    let out = tool.command().env("PRONTO_ROOT", &store.0).output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot unpack 'dev/null'") && said.contains("Operation not permitted"), "{said}");
    store.is_clean();
    assert!(store.run(&["pull", ball.to_str().unwrap()]).status.success());
}

/// Bombs and broken streams as a file, as a URL and as a layer: one error, nothing left.
#[test]
fn bombs_and_broken_streams() {
    if !root("bombs_and_broken_streams") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let mut bomb = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    bomb.write_all(&Tar::new().file("a", b"1").end()).unwrap();
    for _ in 0..1100 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let whole = images::gzip(&Tar::new().file("a", &[7; 100_000]).end());
    let file = dir.path().join("x.tar.zst");
    for (data, why) in [(&bomb[..], "it is a bomb"), (&whole[..whole.len() - 20], "truncated")] {
        put(&file, data);
        store.refuses(file.to_str().unwrap(), &[why, "x.tar.zst"]);
        let served = data.to_vec();
        let server = Server::start(move |_| Response::ok(served.clone()));
        store.refuses(&server.url("x.tar.zst"), &[why]);
        let mut layout = Layout::new(&dir.path().join(why.replace(' ', "-")));
        let served = data.to_vec();
        let image = layout.image("arm64", &[vec![0; 1024]], Packed::Plain, |_, manifest| {
            manifest["layers"][0]["digest"] = serde_json::json!(digest(&served));
            manifest["layers"][0]["size"] = serde_json::json!(served.len());
        });
        layout.blob(data);
        layout.tag("t", image);
        store.refuses(&format!("oci:{}:t", layout.dir.display()), &[why]);
    }
}
