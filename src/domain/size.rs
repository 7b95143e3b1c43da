//! Sizes of memory as xl writes them. What a newcomer would get wrong: without a suffix xl means MiB (`parse_mem_size_kb` in
//! xl_utils.c), whatever its man page says.

/// Parses `512`, `512m`, `2G`, `1t`, `65536k`, `1048576b` into bytes. Errors: a text that says what is wrong.
pub fn parse(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, c)) if c.is_ascii_alphabetic() => (&text[..at], c.to_ascii_lowercase()),
        _ => (text, 'm'),
    };
    let shift = match unit {
        't' => 40,
        'g' => 30,
        'm' => 20,
        'k' => 10,
        'b' => 0,
        other => return Err(format!("'{other}' is no unit of memory: use b, k, m, g or t")),
    };
    let number: u64 =
        digits.parse().map_err(|_| format!("'{text}' is no size of memory: write 512 (MiB), 512m or 2g"))?;
    number.checked_shl(shift).filter(|n| n >> shift == number).ok_or_else(|| format!("'{text}' is too large"))
}

/// Bytes for a person: `245.1 MB` (decimal units, as download sizes are written).
pub fn human(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_suffix_is_mebibytes() {
        for (text, bytes) in
            [("1", 1 << 20), ("512m", 512 << 20), ("2G", 2 << 30), ("8k", 8192), ("9b", 9), ("1T", 1 << 40), ("0", 0)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "1x", "-1", "1.5g", "99999999999t"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn for_people() {
        assert_eq!(human(999), "999 B");
        assert_eq!(human(245_100_000), "245.1 MB");
    }
}
