//! Downloads of tarballs by URL. What a newcomer would get wrong: "it went on" is proved by what the server was asked for, not by the
//! tree alone.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pronto::domain::Layer;
use pronto::image::fetch::{Patience, Spool, Stream, Web};
use pronto::ops::images::{images, obtain, pull};
use pronto::store::layers;
use pronto::sys::process::Tool;

use super::*;
use crate::bench::{Bench, Mounted, text};

fn partial(bench: &Bench) -> Vec<String> {
    let names = std::fs::read_dir(bench.ctx.store.partial());
    names.map(|dir| dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()).unwrap_or_default()
}

fn stored(data: &[u8]) -> Vec<Layer> {
    vec![Layer::Stored(hex(data))]
}

/// Short waits, for what must be waited for.
const HASTY: Patience = Patience {
    connect: Duration::from_secs(5),
    silence: Duration::from_millis(300),
    pause: Duration::from_millis(10),
    longest: Duration::from_secs(5),
    retries: 2,
};

#[test]
fn a_killed_process_has_a_successor_that_asks_only_for_the_rest() {
    if !nix::unistd::geteuid().is_root() {
        let _ = std::io::stderr().write_all(b"left out: only root has a store\n");
        return;
    }
    let bench = Bench::new();
    let data = xz(&system("killed"));
    let half = data.len() / 2;
    let first = AtomicUsize::new(0);
    let body = data.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        "/root.tar.xz" if first.fetch_add(1, Ordering::Relaxed) == 0 => {
            Response { hang: Some(Duration::from_secs(60)), ..Response::cut(body.clone(), half).with("ETag: \"one\"") }
        }
        "/root.tar.xz" => Response::ok(body.clone()).with("ETag: \"one\""),
        _ => Response::status(404, &[], ""),
    });
    let url = server.url("root.tar.xz");
    let mut tool = Tool::new(env!("CARGO_BIN_EXE_pronto")).args(["pull", &url]);
    tool.command().env("PRONTO_ROOT", bench.ctx.store.root());
    let mut child = tool.spawn().unwrap();
    let spool = || -> u64 {
        let parts = std::fs::read_dir(bench.ctx.store.partial()).into_iter().flatten().flatten();
        parts.filter(|e| e.file_name().to_string_lossy().ends_with(".part")).map(|e| e.metadata().unwrap().len()).sum()
    };
    let end = Instant::now() + Duration::from_secs(30);
    while spool() < half as u64 {
        assert!(Instant::now() < end, "half of it arrives");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(bench.get(&url, "arm64").unwrap(), stored(&data));
    assert_eq!(asked(&server, "root.tar.xz"), [None, Some(half)], "the rest, and nothing else");
    assert_eq!(partial(&bench), [""; 0]);
    bench.assert_clean();
}

/// Wherever it is killed (by SIGKILL, or by a signal that the verb collects), the store is sound, and nothing that had arrived is
/// asked for again.
#[test]
fn killed_again_and_again() {
    if !nix::unistd::geteuid().is_root() {
        let _ = std::io::stderr().write_all(b"left out: only root has a store\n");
        return;
    }
    let bench = Bench::new();
    let data = xz(&system("again"));
    let (body, sum) = (data.clone(), hex(&data));
    let server = Server::start(move |request| match request.path.as_str() {
        "/x.tar.xz" => {
            Response { pace: Some(Duration::from_millis(4)), ..Response::ok(body.clone()).with("ETag: \"1\"") }
        }
        "/x.tar.xz.sha256" => Response::ok(sum.clone()),
        _ => Response::status(404, &[], ""),
    });
    let url = server.url("x.tar.xz");
    let mut killed = 0;
    for round in 0..40_u64 {
        let words: &[&str] = if round % 2 == 0 { &["pull", &url] } else { &["new", "--arch", "arm64", &url] };
        let mut tool = Tool::new(env!("CARGO_BIN_EXE_pronto")).args(words);
        tool.command().env("PRONTO_ROOT", bench.ctx.store.root()).stderr(std::process::Stdio::null());
        let mut child = tool.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(15 + round * 7 % 50));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        if round % 2 == 0 {
            child.kill().unwrap();
        } else {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        }
        child.wait().unwrap();
        if !images(&bench.ctx).unwrap().is_empty() {
            // It was quicker; what is there is looked at below.
            break;
        }
        killed += 1;
        let whole = layers::keys(&bench.ctx.store).unwrap().into_iter().all(|key| key == hex(&data));
        assert!(whole, "no layer has a name before it is whole");
    }
    assert!(killed > 2, "only {killed} were killed in time");
    assert_eq!(bench.get(&url, "arm64").unwrap(), stored(&data));
    let froms: Vec<usize> = asked(&server, "x.tar.xz").into_iter().map(Option::unwrap_or_default).collect();
    assert!(froms.is_sorted() && froms.last() > Some(&0), "each goes on behind the last: {froms:?}");
    assert_eq!(std::fs::read(bench.ctx.store.layer(&hex(&data)).join("etc/name")).unwrap(), b"again");
    // Killed between the record and its end, the last one may have left a lock that nobody holds: whoever comes next takes it over.
    assert!(pull(&bench.ctx, &url, None, true, None).unwrap().fetched);
    assert_eq!(partial(&bench), [""; 0]);
    bench.assert_clean();
}

/// Killed after the last byte, before the tree had its name: nothing is downloaded again.
#[test]
fn a_spool_that_is_complete_is_asked_about_and_replayed() {
    let bench = Bench::new();
    let data = xz(&system("complete"));
    let files = Files::default();
    files.put("root.tar.xz", data.clone());
    let server = files.serve();
    let url = server.url("root.tar.xz");
    let web = Web::new(HASTY).unwrap();
    let spool = Spool::open(&bench.ctx.store, &url, &url, false);
    let mut stream = Stream::open(web.url(&url), spool, HASTY).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == data);
    // Not closed: as if killed.
    drop(stream);
    assert_eq!(partial(&bench).len(), 2);
    assert_eq!(bench.get(&url, "arm64").unwrap(), stored(&data));
    assert_eq!(asked(&server, "root.tar.xz"), [None, Some(data.len())]);
    assert_eq!(partial(&bench), [""; 0]);
}

#[test]
fn what_changed_since_is_begun_anew() {
    let bench = Bench::new();
    let (old, new) = (xz(&system("old")), xz(&system("new")));
    let files = Files::default();
    files.put("root.tar.xz", old.clone());
    let server = files.serve();
    let url = server.url("root.tar.xz");
    let web = Web::new(HASTY).unwrap();
    let mut stream = Stream::open(web.url(&url), Spool::open(&bench.ctx.store, &url, &url, false), HASTY).unwrap();
    stream.read_exact(&mut vec![0; 1000]).unwrap();
    drop(stream);
    files.put("root.tar.xz", new.clone());
    assert_eq!(bench.get(&url, "arm64").unwrap(), stored(&new));
    assert!(asked(&server, "root.tar.xz")[1].is_some(), "it was asked for the rest, and gave all of the new one");
}

/// The content becomes another one while it is being unpacked.
#[test]
fn what_changes_in_the_middle_is_begun_anew() {
    let bench = Bench::new();
    let (old, new) = (xz(&system("old")), xz(&system("new")));
    let (count, want) = (AtomicUsize::new(0), new.clone());
    let server = Server::start(move |request| match (request.path.as_str(), count.load(Ordering::Relaxed)) {
        ("/root.tar.xz", 0) => {
            count.store(1, Ordering::Relaxed);
            Response::cut(old.clone(), old.len() / 2).with("ETag: \"old\"")
        }
        ("/root.tar.xz", _) => Response::ok(new.clone()).with("ETag: \"new\""),
        _ => Response::status(404, &[], ""),
    });
    assert_eq!(bench.get(&server.url("root.tar.xz"), "arm64").unwrap(), stored(&want));
    assert!(bench.lines().contains("its content changed while it was fetched: beginning anew"), "{}", bench.lines());
    assert_eq!(partial(&bench), [""; 0]);
    bench.assert_clean();
}

/// Deaf to ranges: what is repeated is compared with what was handed on, whether the content has a name or not.
#[test]
fn a_server_that_knows_no_ranges_is_compared() {
    let data = xz(&system("plain"));
    for (tagged, changes) in [(false, false), (true, false), (false, true)] {
        let bench = Bench::new();
        let (count, body) = (AtomicUsize::new(0), data.clone());
        let server = Server::start(move |request| {
            if request.path != "/x.tar.xz" {
                return Response::status(404, &[], "");
            }
            let n = count.fetch_add(1, Ordering::Relaxed);
            let mut body = body.clone();
            if changes && n == 0 {
                // Noise, which only the sum at the end would tell.
                body[19_990] ^= 1;
            }
            let tag = if tagged { "ETag: \"1\"" } else { "X-Nothing: 0" };
            let cut = (n == 0).then_some(20_000);
            Response { cut, ranges: false, ..Response::ok(body).with(tag) }
        });
        assert_eq!(bench.get(&server.url("x.tar.xz"), "arm64").unwrap(), stored(&data));
        let anew = bench.lines().contains("beginning anew");
        assert_eq!(
            (anew, asked(&server, "x.tar.xz").len()),
            (changes, if changes { 3 } else { 2 }),
            "{}",
            bench.lines()
        );
    }
}

#[test]
fn checksums_beside_are_used() {
    let data = xz(&system("sums"));
    let (good, bad) = (hex(&data), hex(b"another"));
    for (name, line, fine) in [
        ("SHA256SUMS", format!("{bad} *other-root.tar.xz\n{good} *x-root.tar.xz\n"), true),
        ("SHA256SUMS", format!("{bad} *x-root.tar.xz\n"), false),
        ("x-root.tar.xz.sha256", format!("{good}  x-root.tar.xz\n"), true),
        ("x-root.tar.xz.sha256", format!("{bad}\n"), false),
        ("x-root.tar.xz.sha512", format!("{}  x-root.tar.xz\n", hex512(&data)), true),
        ("SHA512SUMS", format!("{}  x-root.tar.xz\n", hex512(b"another")), false),
        ("x-root.tar.xz.sha256", format!("SHA256 (x-root.tar.xz) = {bad}\n"), false),
    ] {
        let (bench, files) = (Bench::new(), Files::default());
        files.put("d/x-root.tar.xz", data.clone());
        files.put(&format!("d/{name}"), line.clone());
        let server = files.serve();
        let url = server.url("d/x-root.tar.xz");
        // By URL, and the same by path.
        let path = bench.path("x-root.tar.xz");
        crate::images::put(&path, &data);
        crate::images::put(&bench.path(name), line.as_bytes());
        for word in [url.as_str(), path.to_str().unwrap()] {
            if fine {
                assert_eq!(bench.get(word, "arm64").unwrap(), stored(&data), "{name}");
            } else {
                let error = bench.fails(word, "arm64");
                assert!(error.contains("x-root.tar.xz is damaged: its digest is sha"), "{name}: {error}");
            }
        }
        assert!(!bench.lines().contains("not verified"), "{}", bench.lines());
        assert_eq!(partial(&bench), [""; 0]);
        bench.assert_clean();
    }
}

#[test]
fn a_download_that_nothing_vouches_for_is_told() {
    let bench = Bench::new();
    let data = xz(&system("loose"));
    let files = Files::default();
    files.put("a.tar.xz", data.clone());
    files.put("b.tar.xz", data.clone());
    files.put("b.tar.xz.md5", format!("{}  b.tar.xz\n", "a".repeat(32)));
    // What some servers say for everything that is not there.
    files.put("b.tar.xz.sha256", "<!DOCTYPE html><html>no b.tar.xz.sha256</html>");
    let server = files.serve();
    bench.get(&server.url("a.tar.xz"), "arm64").unwrap();
    assert!(bench.lines().contains("a.tar.xz is not verified: no checksum stands beside it"), "{}", bench.lines());
    bench.get(&server.url("b.tar.xz"), "arm64").unwrap();
    let why = "b.tar.xz is not verified: only an MD5 checksum stands beside it, which proves nothing";
    assert!(bench.lines().contains(why), "{}", bench.lines());
}

/// Who keeps the checksums from us must not make us take anything.
#[test]
fn checksums_that_cannot_be_asked_for_are_no_consent() {
    let bench = Bench::new();
    let data = xz(&system("x"));
    let server = Server::start(move |request| match request.path.as_str() {
        "/x.tar.xz" => Response::ok(data.clone()),
        _ => Response::status(503, &["Retry-After: 0"], "later"),
    });
    let error = bench.fails(&server.url("x.tar.xz"), "arm64");
    assert!(error.contains("cannot be reached: 503"), "{error}");
    assert_eq!(asked(&server, "x.tar.xz").len(), 0);
}

#[test]
fn a_pin_decides() {
    let bench = Bench::new();
    let data = xz(&system("pin"));
    let files = Files::default();
    files.put("x.tar.xz", data.clone());
    files.put("SHA256SUMS", format!("{}  x.tar.xz\n", hex(b"a lie")));
    let server = files.serve();
    let url = server.url("x.tar.xz");
    assert_eq!(bench.get(&format!("{url}#sha256={}", hex(&data)), "arm64").unwrap(), stored(&data));
    assert_eq!(bench.get(&format!("{url}#sha512={}", hex512(&data)), "arm64").unwrap(), stored(&data));
    assert_eq!(asked(&server, "SHA256SUMS").len(), 0, "a pin needs no other's word");
    let error = bench.fails(&format!("{url}#sha256={}", hex(b"x")), "arm64");
    assert!(error.contains("x.tar.xz is damaged") && error.contains(&hex(b"x")), "{error}");
    let error = bench.fails(&format!("{url}#sha512={}", hex512(b"x")), "arm64");
    assert!(error.contains("x.tar.xz is damaged: its digest is sha512:"), "{error}");
    let error = bench.fails(&format!("{url}#sha256=12"), "arm64");
    assert!(error.contains("behind '#' may stand sha256="), "{error}");
}

/// What a digest vouches for is gone on with although the server names no version of it.
#[test]
fn a_pinned_download_goes_on_without_a_validator() {
    let bench = Bench::new();
    let data = xz(&system("pinned"));
    let (half, body) = (data.len() / 2, data.clone());
    let server = Server::start(move |request| match request.from {
        None => Response::cut(body.clone(), half),
        Some(_) => Response::ok(body.clone()),
    });
    let word = format!("{}#sha256={}", server.url("x.tar.xz"), hex(&data));
    assert_eq!(bench.get(&word, "arm64").unwrap(), stored(&data));
    assert_eq!(asked(&server, "x.tar.xz"), [None, Some(half)]);
}

#[test]
fn busy_servers_are_asked_again_when_they_say() {
    let bench = Bench::new();
    let data = xz(&system("busy"));
    let (count, body) = (AtomicUsize::new(0), data.clone());
    let server = Server::start(move |request| match request.path.as_str() {
        "/x.tar.xz" => match count.fetch_add(1, Ordering::Relaxed) {
            0 => Response::status(429, &["Retry-After: 2"], "too many"),
            1 => Response::status(503, &[], "restarting"),
            2 => Response::cut(body.clone(), 100).with("ETag: \"1\""),
            3 => Response::status(502, &[], "bad gateway"),
            _ => Response::ok(body.clone()).with("ETag: \"1\""),
        },
        _ => Response::status(404, &[], ""),
    });
    let begun = Instant::now();
    assert_eq!(bench.get(&server.url("x.tar.xz"), "arm64").unwrap(), stored(&data));
    assert!(begun.elapsed() >= Duration::from_secs(2), "as long as it said");
    assert_eq!(asked(&server, "x.tar.xz"), [None, None, None, Some(100), Some(100)]);
    let late = Server::start(|request| match request.path.as_str() {
        "/x.tar.xz" => Response::status(429, &["Retry-After: 86400"], ""),
        _ => Response::status(404, &[], ""),
    });
    let error = bench.fails(&late.url("x.tar.xz"), "arm64");
    assert!(error.contains("it wants to be asked again in 86400 s"), "{error}");
    assert_eq!(asked(&late, "x.tar.xz").len(), 1);
}

#[test]
fn refusals_are_the_last_word() {
    let bench = Bench::new();
    for (status, why) in
        [(400, "400"), (401, "401"), (403, "403 Forbidden"), (404, "was not found at"), (410, "was not found at")]
    {
        let server = Server::start(move |_| Response::status(status, &[], "no"));
        let error = bench.fails(&server.url("x.tar.xz"), "arm64");
        assert!(error.contains(why), "{error}");
        assert_eq!(asked(&server, "x.tar.xz").len(), 1, "{status}");
    }
    assert_eq!(partial(&bench), [""; 0]);
}

#[test]
fn a_server_that_hangs_half_way() {
    let bench = Bench::new();
    let data = system("hang");
    let (count, body) = (AtomicUsize::new(0), data.clone());
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Response { hang: Some(Duration::from_secs(20)), ..Response::cut(body.clone(), 5000).with("ETag: \"1\"") },
        _ => Response::ok(body.clone()).with("ETag: \"1\""),
    });
    let (web, url) = (Web::new(HASTY).unwrap(), server.url("x"));
    let begun = Instant::now();
    let mut stream = Stream::open(web.url(&url), Spool::open(&bench.ctx.store, &url, &url, false), HASTY).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    stream.close(None);
    assert!(got == data && begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(asked(&server, "x"), [None, Some(5000)]);
    assert_eq!(partial(&bench), [""; 0]);
    // One that takes the connection and never says a word.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}/x", mute.local_addr().unwrap());
    let spool = Spool::open(&bench.ctx.store, &silent, &silent, false);
    let error = Stream::open(web.url(&silent), spool, HASTY).unwrap_err();
    assert!(error.to_string().starts_with("127.0.0.1 cannot be reached: "), "{error}");
    assert_eq!(partial(&bench), [""; 0]);
    // One that always does: an error that says so, and what came is kept for the next time.
    let body = data.clone();
    let dead = Server::start(move |request| Response {
        hang: Some(Duration::from_secs(20)),
        ..Response::cut(body.clone(), if request.from.is_none() { 5000 } else { 0 }).with("ETag: \"1\"")
    });
    let url = dead.url("x");
    let mut stream = Stream::open(web.url(&url), Spool::open(&bench.ctx.store, &url, &url, false), HASTY).unwrap();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err().downcast::<pronto::image::Error>().unwrap();
    assert!(error.to_string().starts_with("127.0.0.1 cannot be reached: "), "{error}");
    stream.close(Some(&error));
    assert_eq!(partial(&bench).len(), 2);
}

/// A connection that is closed early again and again, without an error of the protocol's: the length tells.
#[test]
fn a_truncated_file_is_an_error() {
    let bench = Bench::new();
    let data = xz(&system("short"));
    let whole = data.len();
    let cut = data[..whole - 100].to_vec();
    let files = Files::default();
    files.put("x.tar.xz", cut.clone());
    files.put("y.tar.xz", cut);
    files.put("y.tar.xz.sha256", hex(&data));
    let server = files.serve();
    let error = bench.fails(&server.url("x.tar.xz"), "arm64");
    assert!(error.contains("its compressed data is truncated"), "{error}");
    let error = bench.fails(&server.url("y.tar.xz"), "arm64");
    assert!(error.contains("is damaged: its digest is"), "{error}");
    assert_eq!(partial(&bench), [""; 0]);
}

/// What a page says in an archive's place.
#[test]
fn html_is_no_archive() {
    let bench = Bench::new();
    let server =
        Server::start(|_| Response::ok("<!DOCTYPE html><html>Log in to the hotel's network</html>".repeat(20)));
    let error = bench.fails(&server.url("x.tar.xz"), "arm64");
    assert!(error.contains("no tar archive"), "{error}");
    assert_eq!(partial(&bench), [""; 0]);
}

/// A spool that was damaged between two processes is not the server's fault.
#[test]
fn a_damaged_spool_is_not_believed() {
    let bench = Bench::new();
    let data = xz(&system("spoilt"));
    let files = Files::default();
    files.put("x.tar.xz", data.clone());
    files.put("x.tar.xz.sha256", hex(&data));
    let server = files.serve();
    let word = server.url("x.tar.xz");
    let web = Web::new(HASTY).unwrap();
    let identity = format!("{word} {}", hex(&data));
    let mut stream =
        Stream::open(web.url(&word), Spool::open(&bench.ctx.store, &word, &identity, true), HASTY).unwrap();
    stream.read_exact(&mut vec![0; 3000]).unwrap();
    drop(stream);
    let part = |name: &str| bench.ctx.store.partial().join(name);
    let name = partial(&bench).into_iter().find(|n| n.ends_with(".part")).unwrap();
    let mut bytes = std::fs::read(part(&name)).unwrap();
    bytes[1500] ^= 1;
    crate::images::put(&part(&name), &bytes);
    assert_eq!(bench.get(&word, "arm64").unwrap(), stored(&data));
    assert!(bench.lines().contains("beginning anew"), "{}", bench.lines());
    let froms = asked(&server, "x.tar.xz");
    assert!(froms.len() == 3 && froms[1].is_some() && froms[2].is_none(), "{froms:?}");
}

/// A full cache costs the chance to go on, not the download.
#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let bench = Bench::new();
    let data = xz(&system("full"));
    let files = Files::default();
    files.put("x.tar.xz", data.clone());
    let server = files.serve();
    crate::images::put(&bench.ctx.store.partial(), b"a file where a directory should be");
    assert_eq!(bench.get(&server.url("x.tar.xz"), "arm64").unwrap(), stored(&data));
}

/// A disk that has room for the tree, but not for what arrives beside it, is enough; a smaller one is an error that leaves nothing.
#[test]
fn a_full_disk() {
    if !nix::unistd::geteuid().is_root() {
        let _ = std::io::stderr().write_all(b"left out: only root can mount\n");
        return;
    }
    let noise: Vec<u8> = (0..1_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let tar = Tar::new().file("noise", &noise).end();
    let files = Files::default();
    files.put("x.tar", tar.clone());
    files.put("x.tar.sha256", hex(&tar));
    let server = files.serve();
    for (size, fits) in [("size=6m,mode=0700", true), ("size=2m,mode=0700", false)] {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Mounted::tmpfs(dir.path(), size);
        let (ctx, _) = Bench::another(&dir.path().join("s"));
        let got = obtain(&ctx, &server.url("x.tar"), None, false, None);
        assert_eq!(got.is_ok(), fits, "{got:?}");
        if let Err(error) = got {
            assert!(
                text(&error).contains("No space left on device") && error.cure().unwrap().contains("free some space")
            );
            assert_eq!(std::fs::read_dir(ctx.store.layers()).unwrap().count(), 0);
        }
        assert_eq!(std::fs::read_dir(ctx.store.partial()).unwrap().count(), 0);
        drop(mounted);
    }
}

#[test]
fn a_forced_pull_asks_again() {
    let bench = Bench::new();
    let files = Files::default();
    files.put("x.tar.xz", xz(&system("one")));
    let server = files.serve();
    let url = server.url("x.tar.xz");
    bench.get(&url, "arm64").unwrap();
    let new = xz(&system("two"));
    files.put("x.tar.xz", new.clone());
    assert!(!pull(&bench.ctx, &url, None, false, None).unwrap().fetched);
    let pulled = pull(&bench.ctx, &url, None, true, None).unwrap();
    assert!(pulled.fetched && pulled.artifact.layers == stored(&new));
}

/// One leads to another place; a circle ends.
#[test]
fn redirects() {
    let bench = Bench::new();
    let files = Files::default();
    let data = xz(&system("moved"));
    files.put("there/x.tar.xz", data.clone());
    let to = files.serve();
    let target = to.url("there/x.tar.xz");
    let from = Server::start(move |request| match request.path.as_str() {
        "/x.tar.xz" => Response::status(302, &[&format!("Location: {target}")], ""),
        "/round" => Response::status(302, &["Location: /round"], ""),
        _ => Response::status(404, &[], ""),
    });
    assert_eq!(bench.get(&from.url("x.tar.xz"), "arm64").unwrap(), stored(&data));
    let error = bench.fails(&from.url("round"), "arm64");
    assert!(error.contains("it redirects again and again"), "{error}");
}
