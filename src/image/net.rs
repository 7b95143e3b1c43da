//! What every download needs: a runtime on this thread, TLS, time-outs, and an error that says which host and why. What a
//! newcomer would get wrong: rustls is built without a default provider, so one is installed before the first client; and a
//! verb that undoes what it began has blocked the signals that end it, so whatever waits here must look for them.

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{Either, select};
use reqwest::header::HeaderMap;
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

/// [`SILENCE`], or what a test wants in its place.
pub fn silence() -> Duration {
    crate::sys::fail::silence().unwrap_or(SILENCE)
}

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
    reqwest::Client::builder().user_agent(AGENT).connect_timeout(CONNECT).read_timeout(silence())
}

/// How many redirects are followed.
const REDIRECTS: usize = 10;

/// Where redirects may lead: not from an encrypted place to an open one, unless `open` is fine. reqwest drops `Authorization` where the
/// host changes.
pub fn redirects(open: bool) -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(move |attempt| {
        let encrypted = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
        if encrypted && attempt.url().scheme() != "https" && !open {
            attempt.error("it redirects to a place without encryption")
        } else if attempt.previous().len() > REDIRECTS {
            attempt.error("it redirects again and again")
        } else {
            attempt.follow()
        }
    })
}

/// A client for plain downloads. What began encrypted is not led away from that.
pub fn client(connect: Duration, silence: Duration) -> Result<reqwest::Client> {
    let builder = builder().connect_timeout(connect).read_timeout(silence).redirect(redirects(false));
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

/// How long a server asks to wait (RFC 9110, 10.2.3), in seconds or until a date.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    wait_said(text, SystemTime::now())
}

/// How long to wait: a number of seconds, or a date (RFC 9110, 10.2.3).
fn wait_said(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = UNIX_EPOCH + Duration::from_secs(http_date(text)?);
    Some(then.duration_since(now).unwrap_or_default())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in seconds since 1970 (RFC 9110, 5.6.7: the one form that may be sent).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<&str> = text.split_once(", ")?.1.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second, "GMT"] = words.as_slice() else { return None };
    let number = |text: &str| text.parse::<u64>().ok();
    let month = MONTHS.find(month).filter(|at| at % 3 == 0)? as u64 / 3;
    let (year, day) =
        (number(year).filter(|y| (1970..10_000).contains(y))?, number(day).filter(|d| (1..=31).contains(d))?);
    // Days before the month, in a year that begins in March so that a leap day comes last.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + number(hour)?) * 60 + number(minute)?) * 60 + number(second)?)
}

/// Where the part begins that came, and how long the whole is: `bytes 100-199/200` is 100 and 200, `bytes */200` is 200 (RFC 9110, 14.4).
pub fn content_range(headers: &HeaderMap) -> (Option<u64>, Option<u64>) {
    let range = headers.get(reqwest::header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let parts = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
    parts
        .map_or((None, None), |(part, total)| (part.split('-').next().and_then(|n| n.parse().ok()), total.parse().ok()))
}

/// Waits. Errors: a signal has come.
pub fn sleep(time: Duration) -> Result<()> {
    let end = std::time::Instant::now() + time;
    loop {
        check_signal()?;
        match end.saturating_duration_since(std::time::Instant::now()) {
            Duration::ZERO => return Ok(()),
            left => std::thread::sleep(left.min(LOOK)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_seconds() {
        // Source: date -u -d @N '+%a, %d %b %Y %H:%M:%S GMT'.
        for (text, want) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
            ("Wed, 01 Mar 2023 00:00:00 GMT", Some(1_677_628_800)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 ovD 1994 08:49:37 GMT", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), want, "{text}");
        }
        let now = UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(wait_said("7", now), Some(Duration::from_secs(7)));
        assert_eq!(wait_said("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(7)));
        assert_eq!(wait_said("Sun, 06 Nov 1993 08:49:37 GMT", now), Some(Duration::ZERO));
        assert_eq!(wait_said("soon", now), None);
    }

    #[test]
    fn ranges() {
        let range = |text: &str| {
            content_range(&[(reqwest::header::CONTENT_RANGE, text.parse().unwrap())].into_iter().collect())
        };
        assert_eq!(range("bytes 100-199/200"), (Some(100), Some(200)));
        assert_eq!(range("bytes 100-199/*"), (Some(100), None));
        assert_eq!(range("bytes */200"), (None, Some(200)));
        assert_eq!(range("lines 1-2/3"), (None, None));
    }
}
