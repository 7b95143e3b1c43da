//! The host's clock, in its time zone. What a newcomer would get wrong: the standard library knows UTC only; the C library reads
//! `TZ` and /etc/localtime.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment as the host's wall clock shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// 2026.
    pub year: i32,
    /// 1 to 12.
    pub month: i32,
    /// 1 to 31.
    pub day: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 60.
    pub second: i32,
}

/// Seconds since 1970; 0 on a clock that stands before.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Seconds since 1970 in local time; none for a year that does not fit. Source: localtime_r(3).
pub fn local(seconds: u64) -> Option<Local> {
    let time = libc::time_t::try_from(seconds).ok()?;
    let mut out = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; localtime_r fills `out` or returns null.
    let tm = unsafe {
        if libc::localtime_r(&raw const time, out.as_mut_ptr()).is_null() {
            return None;
        }
        out.assume_init()
    };
    Some(Local {
        year: tm.tm_year + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_moment() {
        // 2001-09-09 01:46:40 UTC; any zone is within a day of it, and whole minutes away.
        let t = local(1_000_000_000).unwrap();
        assert_eq!((t.year, t.month, t.second), (2001, 9, 40));
        assert!((8..=9).contains(&t.day));
        assert!(now() > 1_700_000_000);
    }
}
