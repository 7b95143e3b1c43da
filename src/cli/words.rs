//! Readers of single words: durations, binds, variables, hostnames; and CPU sets as cpuset has them. Pure: a word in, a value or a text that says what
//! is wrong with it. What a newcomer would get wrong: paths and variables are bytes, so their readers take an `OsStr`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::Bind;

/// Reads `90`, `90s`, `2m`, `1h` or `1h30m`; a number alone is seconds. Errors: anything else, nothing, zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no length of time: write 90, 90s, 2m, 1h or 500ms");
    let mut millis: u64 = 0;
    let mut rest = text;
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = &rest[digits..];
        let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
        let (name, unit) = match units.into_iter().find(|(name, _)| after.starts_with(name)) {
            None if digits == text.len() => ("", 1000),
            Some(unit) => unit,
            None => return Err(wrong()),
        };
        if unit >= last_unit {
            return Err(wrong());
        }
        last_unit = unit;
        millis = number.checked_mul(unit).and_then(|n| n.checked_add(millis)).ok_or_else(wrong)?;
        rest = &after[name.len()..];
    }
    match millis {
        0 if text.is_empty() => Err(wrong()),
        0 => Err("a time-out of nothing would always be over".to_owned()),
        1..=31_536_000_000 => Ok(Duration::from_millis(millis)),
        _ => Err(format!("'{text}' is more than a year")),
    }
}

/// Reads `SRC:DST[:ro|:rw]`; `\:` is a colon of a path and `\\` a backslash. SRC may be relative: the caller makes it absolute.
/// Errors: a part that is missing or empty, DST not absolute, another option.
pub fn bind(word: &OsStr) -> Result<Bind, String> {
    let shown = word.to_string_lossy().into_owned();
    let parts = split_at_colons(word.as_bytes());
    let (source, target, option) = match parts.as_slice() {
        [source, target] => (source, target, None),
        [source, target, option] => (source, target, Some(option.as_slice())),
        [_] => return Err(format!("'{shown}' says nothing of where it goes: write SRC:DST or SRC:DST:ro")),
        _ => return Err(format!("'{shown}' has too many colons: write SRC:DST[:ro], with \\: for a colon in a path")),
    };
    if source.is_empty() {
        return Err(format!("'{shown}' has nothing before the first colon: write SRC:DST[:ro]"));
    }
    if target.first() != Some(&b'/') {
        return Err(format!("the path in the guest must be absolute, '{}' is not", String::from_utf8_lossy(target)));
    }
    let read_only = match option {
        None | Some(b"rw") => false,
        Some(b"ro") => true,
        Some(other) => {
            return Err(format!("'{}' is no option of a bind: only ro and rw are", String::from_utf8_lossy(other)));
        }
    };
    let path = |bytes: &Vec<u8>| PathBuf::from(OsString::from_vec(bytes.clone()));
    Ok(Bind { source: path(source), target: path(target), read_only })
}

fn split_at_colons(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = bytes.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let part = parts.last_mut().expect("there is always one");
        match byte {
            b':' => parts.push(Vec::new()),
            b'\\' if matches!(bytes.peek(), Some(b':' | b'\\')) => part.extend(bytes.next()),
            other => part.push(other),
        }
    }
    parts
}

/// A variable as it is written: with a value, or to be taken from the caller's environment.
pub type Variable = (OsString, Option<OsString>);

/// Reads `K=V` or `K`. Errors: no name.
pub fn variable(word: OsString) -> Result<Variable, String> {
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|&b| b == b'=');
    if bytes.is_empty() || at == Some(0) {
        return Err(format!("'{}' names no variable: write NAME=VALUE or NAME", word.to_string_lossy()));
    }
    Ok(match at {
        Some(at) => (OsString::from_vec(bytes[..at].to_vec()), Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
        None => (word, None),
    })
}

/// Checks a hostname. Errors: longer than the kernel's 64 bytes, or other characters than letters, digits, `-` and `.`.
pub fn hostname(word: &str) -> Result<String, String> {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let labels = || word.split('.').all(|l| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-'));
    if word.is_empty() || word.len() > 64 || !word.bytes().all(inside) || !labels() {
        return Err(format!(
            "'{word}' is no hostname: at most 64 letters, digits, '-' and '.', no part empty or with '-' at an end"
        ));
    }
    Ok(word.to_owned())
}

/// A CPU model's name for QEMU, with properties (`max,pauth=off`). Errors: it holds what no name does, or is an option.
pub fn cpu(word: &str) -> Result<String, String> {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"-_.,=+".contains(&b);
    if word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.bytes().all(inside) && word.len() <= 200 {
        return Ok(word.to_owned());
    }
    Err(format!("'{word}' is no CPU model: cortex-a53, or max,pauth=off"))
}

/// A set of CPUs in cpuset's list form, `0,2-3`. Source: cpuset(7).
pub fn ranges(cpus: &std::collections::BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let texts: Vec<String> =
        ranges.iter().map(|&(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn durations() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("2m", 120), ("1h", 3600), ("1h30m", 5400), ("1m5s", 65), ("0h1s", 1)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("1s500ms"), Ok(Duration::from_millis(1500)));
        for bad in [
            "",
            "0",
            "0s",
            "s",
            "-1",
            "1.5h",
            "1x",
            "1h30",
            "5s1m",
            "1m1m",
            " 1",
            "ä",
            "1ä",
            "99999999999999999999",
            "999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn binds() {
        let read = |text: &str| bind(OsStr::new(text));
        let made = |s: &str, t: &str, read_only| Bind { source: s.into(), target: t.into(), read_only };
        assert_eq!(read("/a:/b"), Ok(made("/a", "/b", false)));
        assert_eq!(read("/a:/b:ro"), Ok(made("/a", "/b", true)));
        assert_eq!(read("a b:/b:rw"), Ok(made("a b", "/b", false)));
        assert_eq!(read(r"/a\:b:/c\\d\:e:ro"), Ok(made("/a:b", r"/c\d:e", true)));
        assert_eq!(read(r"/a\b:/c"), Ok(made(r"/a\b", "/c", false)));
        for bad in ["", "/a", "/a:", "/a:b", ":/b", "/a:/b:", "/a:/b:rx", "/a:/b:ro:ro", "/a:b:/c"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let raw = bind(OsStr::from_bytes(b"/\xff:/\xfe")).unwrap();
        assert_eq!(raw.source.as_os_str().as_bytes(), b"/\xff");
        assert_eq!(raw.target.as_os_str().as_bytes(), b"/\xfe");
        assert_ne!(raw.source, Path::new("/"));
    }

    #[test]
    fn variables() {
        let read = |text: &str| variable(OsString::from(text));
        assert_eq!(read("A=b=c"), Ok(("A".into(), Some("b=c".into()))));
        assert_eq!(read("A="), Ok(("A".into(), Some("".into()))));
        assert_eq!(read("A"), Ok(("A".into(), None)));
        assert!(read("=x").is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn hostnames() {
        for good in ["a", "web-1.example.org", &"a".repeat(64)] {
            assert_eq!(hostname(good).as_deref(), Ok(good));
        }
        for bad in ["", "a_b", "-a", "a-", "a..b", ".a", "a b", "ä", &"a".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sets_of_cpus() {
        for (cpus, list) in [(&[2][..], "2"), (&[0, 2, 3, 5], "0,2-3,5"), (&[1, 2, 3], "1-3"), (&[], "")] {
            assert_eq!(ranges(&cpus.iter().copied().collect()), list);
        }
    }
}
