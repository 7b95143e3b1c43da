//! What every download needs: a runtime on this thread, TLS, time-outs, and an error that says which host and why. What a
//! newcomer would get wrong: rustls is built without a default provider, so one is installed before the first client; and a
//! verb that undoes what it began has blocked the signals that end it, so whatever waits here must look for them.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::runtime::Runtime;

use super::{Error, Result};
use crate::sys::signal;

/// How often a download goes on after it broke off without a single new byte.
pub const RETRIES: u32 = 5;
/// How long to wait for a connection.
pub const CONNECT: Duration = Duration::from_secs(20);
/// How long a server may stay silent in the middle.
pub const SILENCE: Duration = Duration::from_secs(60);
/// Who we say we are: some servers refuse the names of libraries.
pub const AGENT: &str = concat!("pronto/", env!("CARGO_PKG_VERSION"));

/// A runtime that works on whichever thread waits on it.
pub fn runtime() -> Result<Runtime> {
    install_provider();
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("cannot start a runtime"))
}

/// How often a wait looks for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// Fails when INT, TERM or HUP is blocked and has come; the verb that blocked it finds it still pending.
pub fn check_signal() -> Result<()> {
    signal::pending(&signal::ENDING).map_or(Ok(()), |n| Err(crate::store::Error::Interrupted(n).into()))
}

/// Waits for `work` to be done, or for a signal: a server may be silent for a minute, several times.
pub fn wait_for<T>(runtime: &Runtime, work: impl Future<Output = T>) -> Result<T> {
    runtime.block_on(async {
        let signalled = async {
            loop {
                if let Err(interrupted) = check_signal() {
                    return interrupted;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match select(pin!(work), pin!(signalled)).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right((interrupted, _)) => Err(interrupted),
        }
    })
}

/// Makes ring the cryptography of TLS; the second call changes nothing.
fn install_provider() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // An error means that somebody has installed one already: just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// What every client begins with; proxies are taken from the environment.
pub fn builder() -> reqwest::ClientBuilder {
    install_provider();
    reqwest::Client::builder().user_agent(AGENT).connect_timeout(CONNECT).read_timeout(SILENCE)
}

/// A client for plain downloads.
pub fn client() -> Result<reqwest::Client> {
    builder().build().map_err(|e| Error::Unreachable { place: "the network".into(), why: innermost(&e) })
}

/// The last in a chain of causes: the one that says what happened ("Connection refused (os error 111)").
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    let text = last.to_string();
    match last.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
        Some(code) => text.replace(&format!(" (os error {code})"), ""),
        None => text,
    }
}

/// How long a server asks to wait (RFC 9110, 10.2.3), where it says so in seconds; the other form, a date, is not obeyed.
pub fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let text = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// Where the part begins that came (`bytes 100-199/200`: 100).
pub fn range_start(headers: &reqwest::header::HeaderMap) -> Option<u64> {
    let range = headers.get(reqwest::header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Waits before the try with this number (1 is the first repetition). Errors: a signal has come.
pub fn pause(attempt: u32) -> Result<()> {
    let end = std::time::Instant::now() + Duration::from_millis(200 << attempt.min(5));
    loop {
        check_signal()?;
        match end.saturating_duration_since(std::time::Instant::now()) {
            Duration::ZERO => return Ok(()),
            left => std::thread::sleep(left.min(LOOK)),
        }
    }
}
