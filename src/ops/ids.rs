//! Ids for guests: each running guest gets a range of the host's ids that nobody else has. What a newcomer would get wrong: the
//! range belongs to a *run*, not to a domain: on disk everything is numbered from 0, so the next start may have another one.
//! A range is claimed by an abstract socket of its number, which any store on this host sees and which ends with the process
//! that holds it. Source: systemd's UIDS-GIDS.md (524288 to 1879048191 is for containers), subuid(5).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::sys::sock;
use crate::sys::userns::Range;

const FIRST: u32 = 0x8_0000;
const LAST: u32 = 0x6fff_0000;
const COUNT: u32 = 0x1_0000;

/// A range that is ours as long as this is held.
#[derive(Debug)]
pub struct Claim {
    /// The ids.
    pub range: Range,
    _socket: UnixDatagram,
}

/// Takes a range for the domain of this identity; the same one as last time when it is free. Errors: as bind(2).
pub fn take(uuid: &str) -> io::Result<Claim> {
    let others = taken();
    for range in candidates(uuid) {
        if others.iter().any(|o| o.overlaps(range)) || nspawn_has(range) {
            continue;
        }
        match sock::abstract_datagrams(&format!("pronto/ids/{}", range.first)) {
            Ok(socket) => return Ok(Claim { range, _socket: socket }),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("every range of ids for containers is in use on this host"))
}

/// A range to try things with that need no range of their own.
pub fn example() -> Range {
    Range { first: FIRST, count: COUNT }
}

/// All ranges, beginning at one that the identity decides.
fn candidates(uuid: &str) -> impl Iterator<Item = Range> {
    const SLOTS: u32 = (LAST - FIRST) / COUNT + 1;
    let digest = ring::digest::digest(&ring::digest::SHA256, uuid.as_bytes());
    let start = digest.as_ref()[..4].iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) % SLOTS;
    (0..SLOTS).map(move |n| Range { first: FIRST + (start + n) % SLOTS * COUNT, count: COUNT })
}

/// What the host's own users have: subordinate ids, and accounts with such high numbers.
fn taken() -> Vec<Range> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut taken = Vec::new();
    for file in ["/etc/subuid", "/etc/subgid"] {
        taken.extend(subordinate(&read(file)));
    }
    for file in ["/etc/passwd", "/etc/group"] {
        taken.extend(accounts(&read(file)));
    }
    taken
}

/// `name:first:count` (subuid(5)).
fn subordinate(text: &str) -> impl Iterator<Item = Range> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        Some(Range { first: fields.next()?.trim().parse().ok()?, count: fields.next()?.trim().parse().ok()? })
    })
}

/// The third field of passwd(5) and group(5).
fn accounts(text: &str) -> impl Iterator<Item = Range> {
    let id = |line: &str| line.split(':').nth(2)?.parse().ok();
    text.lines().filter_map(id).filter(|id| *id >= FIRST).map(|first| Range { first, count: 1 })
}

/// nspawn's own note that a container of its has these.
fn nspawn_has(range: Range) -> bool {
    Path::new("/run/systemd/nspawn-uid").join(range.first.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_whole_and_in_the_place_for_containers() {
        let all: Vec<Range> = candidates("some").collect();
        assert_eq!(all.len(), 28664);
        assert!(all.iter().all(|r| r.first % COUNT == 0 && (FIRST..=LAST).contains(&r.first)));
        assert_ne!(candidates("a").next(), candidates("b").next());
        assert_eq!(candidates("a").next(), candidates("a").next());
    }

    #[test]
    fn two_guests_never_share() {
        let uuid = format!("test {}", std::process::id());
        let first = take(&uuid).unwrap();
        let second = take(&uuid).unwrap();
        assert_ne!(first.range, second.range);
        let freed = first.range;
        drop(first);
        assert_eq!(take(&uuid).unwrap().range, freed);
    }

    #[test]
    fn what_others_have() {
        let ranges: Vec<_> = subordinate("ci:100000:65536\nx\nann:655360:65536\n").collect();
        assert_eq!(ranges[1], Range { first: 655_360, count: 65536 });
        assert_eq!(accounts("root:x:0:0::/:/bin/sh\nfar:x:600000:600000::/:/bin/sh\n").count(), 1);
        assert!(Range { first: 655_360, count: 65536 }.overlaps(Range { first: 720_895, count: 1 }));
        assert!(!Range { first: 655_360, count: 65536 }.overlaps(Range { first: 720_896, count: 1 }));
    }
}
