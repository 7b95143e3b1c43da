//! What every download needs: a runtime on this thread, TLS, time-outs, and an error that says which host and why. What a
//! newcomer would get wrong: rustls is built without a default provider, so one is installed before the first client.

use std::time::Duration;

use super::{Error, Result};

/// How often a download goes on after it broke off without a single new byte.
pub const RETRIES: u32 = 5;
/// How long to wait for a connection.
pub const CONNECT: Duration = Duration::from_secs(20);
/// How long a server may stay silent in the middle.
pub const SILENCE: Duration = Duration::from_secs(60);
/// Who we say we are: some servers refuse the names of libraries.
pub const AGENT: &str = concat!("pronto/", env!("CARGO_PKG_VERSION"));

/// A runtime that works on whichever thread waits on it.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    install_provider();
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("cannot start a runtime"))
}

/// Makes ring the cryptography of TLS; the second call changes nothing.
fn install_provider() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // An error means that somebody has installed one already: just as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// A client for plain downloads; proxies are taken from the environment.
pub fn client() -> Result<reqwest::Client> {
    install_provider();
    let builder = reqwest::Client::builder().user_agent(AGENT).connect_timeout(CONNECT).read_timeout(SILENCE);
    builder.build().map_err(|e| Error::Unreachable { place: "the network".into(), why: innermost(&e) })
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

/// How long to wait before the try with this number (1 is the first repetition).
pub fn pause(attempt: u32) -> Duration {
    Duration::from_millis(200 << attempt.min(5))
}
