//! Registries that demand something, send us elsewhere, are busy, or have mirrors. What a newcomer would get wrong: who demands a login
//! here is the real docker-registry, with passwords (htpasswd) and with tokens that a token server of the test's own signs; what a
//! real one does only at times (429, redirects, a dead mirror) a small server does, as the specifications say.

#[path = "common/bench.rs"]
mod bench;
#[path = "common/http.rs"]
mod http;
#[path = "common/images.rs"]
mod images;
#[path = "common/registry.rs"]
mod registry;

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bench::Bench;
use http::{Request, Response, Server};
use images::{Layout, Packed, Tar, digest, put};
use pronto::image::oci::Access;
use pronto::image::oci::hosts::Hosts;
use pronto::image::oci::login::Login;
use pronto::ops::images::{self as verbs};
use pronto::sys::process::Tool;
use registry::{Options, Registry, Token};
use serde_json::json;

/// `ann`, `open sesame`, by `htpasswd -nbB`.
const HTPASSWD: &str = "ann:$2y$05$xYUlTbTRPV4nHHlUOJKLweLgMKxh/zX68UFMv0cFzP6JLGZd6HVIK\n";

/// An image of one layer with the tag `t`.
fn image(dir: &Path, text: &str) -> Layout {
    let mut layout = Layout::new(dir);
    let tree = Tar::new().dir("etc").file("etc/name", text.as_bytes()).file("noise", &noise(200_000)).end();
    let image = layout.image("arm64", &[tree], Packed::Gzip, |_, _| ());
    layout.tag("t", image);
    layout
}

/// Bytes that no compression makes less.
fn noise(len: u32) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// What a registry serves, from a layout's files: `manifests/t` and everything by digest.
fn served(layout: &Layout) -> HashMap<String, Vec<u8>> {
    let mut out = HashMap::new();
    for entry in std::fs::read_dir(layout.dir.join("blobs/sha256")).unwrap() {
        let data = std::fs::read(entry.unwrap().path()).unwrap();
        for kind in ["blobs", "manifests"] {
            out.insert(format!("/v2/x/{kind}/{}", digest(&data)), data.clone());
        }
        if data.starts_with(b"{\"config\"") || data.starts_with(b"{\"layers\"") || find(&data, b"schemaVersion") {
            out.insert("/v2/x/manifests/t".into(), data);
        }
    }
    out
}

fn find(data: &[u8], needle: &[u8]) -> bool {
    data.len() < 10_000 && data.windows(needle.len()).any(|w| w == needle)
}

fn serve(files: &HashMap<String, Vec<u8>>, request: &Request) -> Response {
    match files.get(&request.path) {
        Some(data) => Response::ok(data.clone()).with(&format!("Docker-Content-Digest: {}", digest(data))),
        None => Response::status(404, &[], r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
    }
}

/// The same store with other ways to registries.
fn with(bench: &mut Bench, access: Access) {
    bench.ctx.access = access;
}

fn logged_in(name: &str, password: &str) -> Access {
    Access::new(Some(Login::User(name.into(), password.into())), None, None)
}

#[test]
fn a_password_is_shown_when_it_is_demanded() {
    let mut bench = Bench::new();
    let file = bench.path("htpasswd");
    put(&file, HTPASSWD.as_bytes());
    let registry = Registry::with(bench.dir.path(), Options { htpasswd: Some(&file), ..Options::default() });
    let filled = format!("oci:{}:t", image(&bench.path("l"), "one").dir.display());
    registry.copy(&filled, "team/x:t", &["--preserve-digests", "--dest-creds", "ann:open sesame"]);
    let word = format!("{}/team/x:t", registry.host);
    // Only files that the test made are read.
    let nobody = bench.path("nobody.json");
    with(&mut bench, Access::new(None, Some(nobody.clone()), None));
    assert!(bench.fails(&word, "arm64").contains("needs a login (--creds, or docker login)"));
    with(&mut bench, logged_in("ann", "wrong"));
    let error = bench.fails(&word, "arm64");
    assert!(error.contains("refuses") && error.contains("needs a login"), "{error}");
    // As docker login writes it, and podman for a part of a host alone.
    for key in [registry.host.clone(), format!("{}/team", registry.host), format!("https://{}/v2/", registry.host)] {
        let secret = STANDARD.encode("ann:open sesame");
        put(&nobody, json!({"auths": {key: {"auth": secret}}}).to_string().as_bytes());
        let fresh = Bench::new();
        let mut fresh = Bench { ctx: fresh.ctx.clone(), ..fresh };
        with(&mut fresh, Access::new(None, Some(nobody.clone()), None));
        fresh.get(&word, "arm64").unwrap();
    }
    with(&mut bench, logged_in("ann", "open sesame"));
    bench.get(&word, "arm64").unwrap();
    bench.assert_clean();
}

/// Signs tokens as "Token Authentication Implementation" (distribution) says; returns what the registry is told of it.
struct TokenServer {
    server: Server,
    certificate: std::path::PathBuf,
}

impl TokenServer {
    fn start(dir: &Path) -> TokenServer {
        let (key, certificate, pkcs8) = (dir.join("key.pem"), dir.join("cert.pem"), dir.join("key.der"));
        let openssl =
            |words: &[&str]| drop(Tool::new("openssl").args(words).output().expect("this test needs openssl"));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=tokens",
            "-keyout",
            &text(&key),
            "-out",
            &text(&certificate),
        ]);
        openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", &text(&key), "-out", &text(&pkcs8)]);
        let kind = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = ring::rand::SystemRandom::new();
        let pair = ring::signature::EcdsaKeyPair::from_pkcs8(kind, &std::fs::read(pkcs8).unwrap(), &random).unwrap();
        let pem = std::fs::read_to_string(&certificate).unwrap();
        let chain: String = pem.lines().filter(|l| !l.starts_with("---")).collect();
        let server = Server::start(move |request| {
            let query: HashMap<String, String> = reqwest::Url::parse(&format!("http://x{}", request.path))
                .unwrap()
                .query_pairs()
                .map(|(k, v)| (k.into_owned(), v.into_owned()))
                .collect();
            // Header values come in lower case here, base64 too: only whether there is one can be told, and whose by `account`.
            let shown = request.header("authorization").is_some();
            if shown && query.get("account").map(String::as_str) != Some("ann") {
                return Response::status(401, &[], r#"{"errors":[{"code":"UNAUTHORIZED","message":"who is that?"}]}"#);
            }
            let scope = query.get("scope").cloned().unwrap_or_default();
            let name = scope.split(':').nth(1).unwrap_or_default().to_owned();
            let actions: &[&str] = if name.starts_with("open/") || shown { &["pull"] } else { &[] };
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [chain]});
            let claims = json!({
                "iss": "issuer", "sub": "", "aud": query["service"], "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1",
                "access": [{"type": "repository", "name": name, "actions": actions}],
            });
            let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let body = format!("{}.{}", part(&header), part(&claims));
            let signature = pair.sign(&random, body.as_bytes()).unwrap();
            Response::ok(json!({"access_token": format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))}).to_string())
        });
        TokenServer { server, certificate }
    }
}

#[test]
fn tokens_are_fetched_from_where_the_registry_says() {
    let mut bench = Bench::new();
    let tokens = TokenServer::start(bench.dir.path());
    let realm = tokens.server.url("token");
    let token =
        Token { realm: &realm, service: "Some Container Registry", issuer: "issuer", certificate: &tokens.certificate };
    // Filled while it is open, then closed.
    let filled = Registry::start(bench.dir.path());
    let layout = image(&bench.path("l"), "one");
    filled.push(&layout.dir, "t", "open/x:t");
    filled.push(&layout.dir, "t", "shut/x:t");
    drop(filled);
    let registry = Registry::with(bench.dir.path(), Options { token: Some(token), ..Options::default() });
    let nobody = bench.path("nobody.json");
    with(&mut bench, Access::new(None, Some(nobody.clone()), None));
    bench.get(&format!("{}/open/x:t", registry.host), "arm64").unwrap();
    let asked = tokens.server.requests();
    assert_eq!(asked.len(), 1, "one token serves manifest, config and layers: {asked:?}");
    assert!(asked[0].path.contains("service=Some+Container+Registry"), "{}", asked[0].path);
    assert!(asked[0].path.contains("scope=repository%3Aopen%2Fx%3Apull"), "{}", asked[0].path);
    assert_eq!(asked[0].header("authorization"), None);

    let shut = format!("{}/shut/x:t", registry.host);
    let error = bench.fails(&shut, "arm64");
    assert!(error.contains("needs a login"), "{error}");
    with(&mut bench, logged_in("ann", "x"));
    bench.get(&shut, "arm64").unwrap();
    with(&mut bench, logged_in("bob", "x"));
    let error = bench.fails(&format!("{}/open/y:t", registry.host), "arm64");
    assert!(error.contains("who is that?"), "what was said on the command line is not dropped: {error}");

    // A stored login that has run out does not stand in the way of what everybody may have.
    put(&nobody, json!({"auths": {&registry.host: {"auth": STANDARD.encode("old:x")}}}).to_string().as_bytes());
    let mut other = Bench::new();
    with(&mut other, Access::new(None, Some(nobody), None));
    other.get(&format!("{}/open/x:t", registry.host), "arm64").unwrap();
    assert!(other.lines().contains("refuses the stored login (who is that?): trying without one"), "{}", other.lines());
}

#[test]
fn a_login_goes_to_nobody_else() {
    let mut bench = Bench::new();
    let files = served(&image(&bench.path("l"), "one"));
    let data = files.clone();
    // Storage on another host, as cloud registries have it: a signed URL, which takes no login.
    let storage = Server::start(move |request| {
        if request.header("authorization").is_some() {
            return Response::status(400, &[], "Only one auth mechanism allowed");
        }
        serve(&data, &Request { path: request.path.split('?').next().unwrap().into(), ..request.clone() })
    });
    let to = storage.host();
    let registry = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return Response::status(401, &["WWW-Authenticate: Negotiate, Basic realm=\"here\""], "");
        }
        if request.path.contains("/blobs/") {
            return Response::status(307, &[&format!("Location: http://{to}{}?signature=a%2Fb", request.path)], "");
        }
        serve(&files, request)
    });
    with(&mut bench, logged_in("ann", "x"));
    bench.get(&format!("{}/x:t", registry.host()), "arm64").unwrap();
    let asked = storage.requests();
    assert_eq!(asked.len(), 2, "config and layer");
    assert!(
        asked.iter().all(|r| r.header("authorization").is_none() && r.path.ends_with("?signature=a%2Fb")),
        "{asked:?}"
    );

    // A token server that is not encrypted gets no login from a registry that is.
    let redirects = Server::start(|r| Response::status(302, &[&format!("Location: {}", r.path)], ""));
    let error = bench.fails(&format!("{}/x:t", redirects.host()), "arm64");
    assert!(error.contains("redirects again and again"), "{error}");
}

#[test]
fn busy_registries_are_waited_for_and_limits_told() {
    let bench = Bench::new();
    let files = served(&image(&bench.path("l"), "one"));
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let registry = Server::start(move |request| match seen.fetch_add(1, Ordering::Relaxed) {
        0 => Response::status(503, &[], ""),
        1 => Response::status(429, &["Retry-After: 1"], ""),
        _ => serve(&files, request).with("RateLimit-Limit: 100;w=21600").with("RateLimit-Remaining: 3;w=21600"),
    });
    let begun = Instant::now();
    bench.get(&format!("{}/x:t", registry.host()), "arm64").unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "it asked for a second");
    assert!(bench.lines().contains("few pulls are left (3 of 100 in 6 h)"), "{}", bench.lines());

    let text = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    let over = Server::start(|_| {
        Response::status(429, &["RateLimit-Limit: 100;w=21600", "RateLimit-Remaining: 0;w=21600"], text)
    });
    let error = bench.fails(&format!("{}/x:t", over.host()), "arm64");
    assert!(
        error.contains(
            "too many requests (0 of 100 in 6 h): You have reached your pull rate limit.; a login may have more"
        ),
        "{error}"
    );
    assert_eq!(over.requests().len(), 1, "a limit of hours is not waited for");

    let down = Server::start(|_| Response::status(502, &[], "<html>"));
    let error = bench.fails(&format!("{}/x:t", down.host()), "arm64");
    assert!(error.contains("cannot be reached: it answers 502"), "{error}");
    assert_eq!(down.requests().len(), 4);
    let page = Server::start(|_| Response::ok("<!DOCTYPE html><html>Log in to the hotel's network"));
    let error = bench.fails(&format!("{}/x:t", page.host()), "arm64");
    assert!(error.contains("a web page came in its place"), "{error}");
}

#[test]
fn mirrors_stand_in_and_are_left() {
    let mut bench = Bench::new();
    let layout = image(&bench.path("l"), "one");
    let origin = Registry::start(bench.dir.path());
    origin.push(&layout.dir, "t", "x:t");
    let files = served(&layout);
    let healthy = files.clone();
    let good = Server::start(move |request| serve(&healthy, request));
    // One that breaks off in the middle of every blob and never gets further.
    let broken = Server::start(move |request| match request.path.contains("/blobs/") && request.from.is_some() {
        true => Response::status(500, &[], ""),
        false => Response { cut: request.path.contains("/blobs/").then_some(50_000), ..serve(&files, request) },
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let conf = bench.path("registries.conf");
    let hosts = |mirrors: &[String]| {
        let mut text = format!("[[registry]]\nlocation = \"{}\"\n", origin.host);
        mirrors.iter().for_each(|m| text += &format!("[[registry.mirror]]\nlocation = \"{m}\"\ninsecure = true\n"));
        put(&conf, text.as_bytes());
        Access::default().with_hosts(Hosts::read(&conf, None).unwrap())
    };
    let word = format!("{}/x:t", origin.host);
    with(&mut bench, hosts(&[nobody.to_string(), good.host()]));
    bench.get(&word, "arm64").unwrap();
    assert_eq!(origin.asked("GET", "/v2/x/"), 0, "the mirror had everything");
    assert!(bench.lines().contains(&format!("trying mirror {}", good.host())), "{}", bench.lines());

    let mut other = Bench::new();
    with(&mut other, hosts(&[broken.host()]));
    let layer = other.get(&word, "arm64").unwrap();
    assert_eq!(std::fs::read(other.tree(&layer[0]).join("noise")).unwrap(), noise(200_000));
    assert_eq!(origin.asked("GET", "/v2/x/blobs/"), 1, "the layer, where the mirror had stopped");
    assert!(other.lines().contains(&format!("trying registry {}", origin.host)), "{}", other.lines());
    other.assert_clean();
}

/// A large blob whose server has gone: the next pull asks for the rest only, and does not believe what it finds on the disk.
#[test]
fn a_large_blob_goes_on_in_the_next_pull() {
    let bench = Bench::new();
    let mut layout = Layout::new(&bench.path("l"));
    let tree = Tar::new().file("noise", &noise(70 << 20)).end();
    let image = layout.image("arm64", &[tree], Packed::Plain, |_, _| ());
    layout.tag("t", image);
    let files = served(&layout);
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_healthy = Arc::clone(&healthy);
    let registry = Server::start(move |request| {
        let (large, well) = (request.path.contains("/blobs/"), is_healthy.load(Ordering::Relaxed));
        match request.from {
            Some(_) if !well => Response::status(404, &[], ""),
            _ => Response { cut: (large && !well).then_some(30 << 20), ..serve(&files, request) },
        }
    });
    let word = format!("{}/x:t", registry.host());
    let partial = || std::fs::read_dir(bench.ctx.store.partial()).map(Iterator::count).unwrap_or(0);
    for damaged in [false, true] {
        healthy.store(false, Ordering::Relaxed);
        let error = bench.fails(&word, "arm64");
        assert!(error.contains("was not found"), "{error}");
        assert_eq!(partial(), 2, "what came, and what it is");
        if damaged {
            let path = std::fs::read_dir(bench.ctx.store.partial()).unwrap().map(|e| e.unwrap().path());
            let path = path.into_iter().find(|p| p.extension().unwrap() == "part").unwrap();
            let file = std::fs::File::options().write(true).open(path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"rubbish", 5 << 20).unwrap();
        }
        healthy.store(true, Ordering::Relaxed);
        let before = registry.requests().len();
        let layer = bench.get(&word, "arm64").unwrap();
        let asked: Vec<_> =
            registry.requests()[before..].iter().filter(|r| r.path.contains("/blobs/")).map(|r| r.from).collect();
        let rest = asked.iter().flatten().next().unwrap();
        assert!(*rest > 20 << 20 && *rest <= 30 << 20, "{asked:?}");
        assert_eq!(asked.last().unwrap().is_none(), damaged, "a damaged one is fetched anew, once: {asked:?}");
        assert_eq!(partial(), 0);
        assert_eq!(std::fs::metadata(bench.tree(&layer[0]).join("noise")).unwrap().len(), 70 << 20);
        bench.assert_clean();
        verbs::rmi(&bench.ctx, &word, None).unwrap();
    }
}

#[test]
fn whether_there_is_a_newer_one_is_asked_by_head() {
    let bench = Bench::new();
    let registry = Registry::start(bench.dir.path());
    registry.push(&image(&bench.path("1"), "one").dir, "t", "x:t");
    let word = format!("{}/x:t", registry.host);
    let pull = |force| verbs::pull(&bench.ctx, &word, Some("arm64"), force, None).unwrap();
    let first = pull(false);
    let gets = registry.asked("GET", "/v2/x/");
    let again = pull(false);
    assert_eq!((first.fetched, again.fetched, &again.artifact), (true, false, &first.artifact));
    assert_eq!(registry.asked("GET", "/v2/x/"), gets, "nothing but its digest was asked");
    assert_eq!(registry.asked("HEAD", "/v2/x/manifests/t"), 1);
    assert!(!pull(true).fetched);
    assert!(registry.asked("GET", "/v2/x/manifests/t") > 1, "forced");
    registry.push(&image(&bench.path("2"), "two").dir, "t", "x:t");
    let newer = pull(false);
    assert!(newer.fetched && newer.artifact.digest != first.artifact.digest);
    // What is pinned is what it is: nobody is asked.
    let pinned = format!("{}/x@{}", registry.host, newer.artifact.digest.unwrap());
    verbs::pull(&bench.ctx, &pinned, Some("arm64"), false, None).unwrap();
    let all = registry.asked("GET", "/v2/x/") + registry.asked("HEAD", "/v2/x/");
    assert!(!verbs::pull(&bench.ctx, &pinned, Some("arm64"), false, None).unwrap().fetched);
    assert_eq!(registry.asked("GET", "/v2/x/") + registry.asked("HEAD", "/v2/x/"), all);
    bench.assert_clean();
}

#[test]
fn certificates_are_insisted_on_unless_told_otherwise() {
    let mut bench = Bench::new();
    let (key, certificate) = (bench.path("k.pem"), bench.path("c.pem"));
    let (k, c) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    let words =
        ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=r", "-keyout", k, "-out", c];
    Tool::new("openssl").args(words).output().expect("this test needs openssl");
    let tls = Some((certificate.as_path(), key.as_path()));
    let registry = Registry::with(bench.dir.path(), Options { tls, ..Options::default() });
    registry.push(&image(&bench.path("l"), "one").dir, "t", "x:t");
    // This machine's own address, but not by a loopback name: only that is trusted without encryption.
    let word = format!("{}/x:t", registry.host.replace("127.0.0.1", "0.0.0.0"));
    let error = bench.fails(&word, "arm64");
    assert!(error.contains("cannot be reached") && error.to_lowercase().contains("certificate"), "{error}");
    with(&mut bench, Access::new(None, None, Some(false)));
    bench.get(&word, "arm64").unwrap();
    // A loopback registry may use TLS with whatever certificate it has.
    let mut other = Bench::new();
    with(&mut other, Access::default());
    other.get(&format!("{}/x:t", registry.host), "arm64").unwrap();
}
