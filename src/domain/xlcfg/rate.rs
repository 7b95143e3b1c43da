//! How much a network interface may send: `10Mb/s@20ms`. What a newcomer would get wrong: B is bytes, b is bits, and both count in thousands.
//! Source: xl-network-configuration(5), "rate"; Xen, tools/libs/util/libxlu_vif.c.

use super::error::shown;

/// A limit: so many bytes in so long a time, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Bytes in each interval.
    pub bytes: u64,
    /// The interval in microseconds.
    pub interval: u32,
}

impl Rate {
    /// Reads `N[G|M|K](B|b)/s[@N[m|u]s]`; without an interval it is 50 ms. Errors: anything else, nothing, too much.
    pub fn parse(text: &str) -> Result<Rate, String> {
        let wrong = || format!("expected a rate, as 250KB/s or 10Mb/s@20ms, found {}", shown(text));
        let (speed, interval) = text.split_once('@').map_or((text, None), |(speed, interval)| (speed, Some(interval)));
        let per_second = per_second(speed).ok_or_else(wrong)?;
        let interval = interval.map_or(Some(50_000), microseconds).ok_or_else(wrong)?;
        let bytes = per_second.checked_mul(u64::from(interval)).ok_or_else(wrong)? / 1_000_000;
        Ok(Rate { bytes, interval })
    }
}

/// A number of C's (`0` before it is octal) that is neither zero nor beyond 32 bits, and what stands behind it.
fn leading(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = u64::try_from(super::get::number(&text[..digits])?).ok()?;
    (1..=u64::from(u32::MAX)).contains(&number).then_some((number, &text[digits..]))
}

fn per_second(text: &str) -> Option<u64> {
    let (number, unit) = leading(text.strip_suffix("/s")?)?;
    let (unit, factor) = match unit.as_bytes().first()? {
        b'G' => (&unit[1..], 1_000_000_000),
        b'M' => (&unit[1..], 1_000_000),
        b'K' => (&unit[1..], 1000),
        _ => (unit, 1),
    };
    match unit {
        "B" => Some(number * factor),
        "b" => Some(number * factor / 8),
        _ => None,
    }
}

fn microseconds(text: &str) -> Option<u32> {
    let (number, unit) = leading(text)?;
    let factor = match unit {
        "" | "s" => 1_000_000,
        "m" | "ms" => 1000,
        "u" | "us" => 1,
        _ => return None,
    };
    u32::try_from(number.checked_mul(factor)?).ok()
}
