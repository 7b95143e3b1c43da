//! Whether guests can ping. What a newcomer would get wrong: with the host's network a guest's CAP_NET_RAW counts for nothing, since the
//! network belongs to the host's user namespace, set-user-ID or not; what is left is the kernel's ping socket, which is for groups in a
//! range that the kernel leaves empty and systemd opens on ordinary hosts. Source: icmp(7), ping_group_range.

use super::{Finding, Level};

const RANGE: &str = "/proc/sys/net/ipv4/ping_group_range";
const CURE: &str =
    "sysctl -w net.ipv4.ping_group_range='0 2147483647', or --network none with a network of its own, or --no-userns";

pub(super) fn findings() -> Vec<Finding> {
    std::fs::read_to_string(RANGE).map(|text| vec![finding(&text)]).unwrap_or_default()
}

/// A guest's groups are far up (its root's is 524288 or more), so a range that ends below is as good as none.
fn finding(range: &str) -> Finding {
    let mut ends = range.split_whitespace().map(|word| word.parse::<u32>().unwrap_or(0));
    let (first, last) = (ends.next().unwrap_or(1), ends.next().unwrap_or(0));
    if first < 1 << 19 && last >= i32::MAX as u32 {
        return Finding::new("network", Level::Ok, "guests with the host's network can ping");
    }
    Finding::new(
        "network",
        Level::Warn,
        "guests with the host's network cannot ping: the kernel has no ping sockets for their groups",
    )
    .cure(CURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_has_to_hold_the_guests_groups() {
        for (range, level) in
            [("0\t2147483647\n", Level::Ok), ("1\t0\n", Level::Warn), ("0 1000", Level::Warn), ("", Level::Warn)]
        {
            assert_eq!(finding(range).level, level, "{range:?}");
        }
    }
}
