//! What an archive may ask of this machine before it is called a bomb. What a newcomer would get wrong: a bomb's digest is right, and
//! each of its entries is too; only the sums tell. They are looked at once for many bytes or entries, so they cost nothing.
//!
//! | what | how much | why |
//! |---|---|---|
//! | bytes that come of the source's bytes | [`RATIO`] times as many, from [`FLOOR`] on | gzip cannot do more (1032), trees of files stay below 20; zstd and xz can do 10000 |
//! | entries | [`ENTRIES`] | the largest images have a million; entries of nothing pack a thousand to one and take an inode each |
//! | bytes and inodes on the disk | what is free, less a reserve | so that a bomb that is none of the above fills a layer and not the host |
//! | size of one file | [`FILE`] | what ext4 can hold; a hole may claim anything |
//! | memory for directories that wait for their times | [`HELD`] | an archive may name directories alone |
//! | names of what a layer leaves to those below it | [`LOOSE`] | they stand in its record, which is read whenever it is looked at |
//! | memory of a decoder | [`DECODER`] | xz may ask for 4 GiB; `xz -9` needs 65 MiB, `zstd --long` 128 MiB |

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::statvfs::fstatvfs;

use crate::domain::size::human;

/// Bytes that may always come of a source, whatever its size.
const FLOOR: u64 = 1 << 30;
/// How many times its own size a source may unpack to.
const RATIO: u64 = 1100;
/// Entries in one archive, directories that it takes for granted among them.
const ENTRIES: u64 = 10_000_000;
/// Bytes of one file, holes among them.
pub(super) const FILE: u64 = 16 << 40;
/// Bytes of names and attributes of an archive's directories.
pub(super) const HELD: usize = 256 << 20;
/// Bytes of names of the directories that a layer makes without naming them (those beyond are root's, 0755, as podman makes all of them),
/// and as many of hard links to what it does not hold.
pub(super) const LOOSE: usize = 16 << 20;
/// Bytes of memory that a decoder may use.
pub(super) const DECODER: u64 = 272 << 20;
/// Bytes left free on the file system, on a small one a part of it.
const RESERVE: u64 = 64 << 20;
const RESERVE_PART: u64 = 20;
/// The file system is asked again after so many bytes or entries.
const BYTES: u64 = 64 << 20;
const LOOK: u64 = 4096;

/// Whether `out` bytes may have come of `packed` bytes. Errors: a sentence.
pub(super) fn expansion(packed: u64, out: u64) -> Result<(), String> {
    if out <= FLOOR || out / RATIO <= packed {
        return Ok(());
    }
    Err(format!(
        "it is a bomb: {} of it unpack to more than {}, and more than {RATIO} times the size is not allowed beyond {}. If it is \
         honest, pack its large files with holes (tar --sparse), or the whole with gzip",
        human(packed),
        human(out),
        human(FLOOR)
    ))
}

/// Why an archive may not go on.
#[derive(Debug)]
pub(super) enum Excess {
    /// It asks for too much anywhere; a sentence.
    Archive(String),
    /// It asks for more than this file system has left; a few words.
    Room(String),
    /// The file system could not be asked.
    Io(std::io::Error),
}

/// Counts what an archive has asked for.
#[derive(Debug)]
pub(super) struct Budget {
    /// Somewhere on the file system.
    place: OwnedFd,
    entries: u64,
    /// Since the file system was asked.
    bytes: u64,
    since: u64,
}

impl Budget {
    pub fn new(place: OwnedFd) -> Budget {
        Budget { place, entries: 0, bytes: 0, since: 0 }
    }

    /// Another `entries` that need `bytes` of the disk.
    pub fn take(&mut self, entries: u64, bytes: u64) -> Result<(), Excess> {
        self.entries += entries;
        if self.entries > ENTRIES {
            return Err(Excess::Archive(format!(
                "it has more than {ENTRIES} entries, which no image has: a tree of so many files must be given as a directory"
            )));
        }
        self.since += entries;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes < BYTES && self.since < LOOK {
            return Ok(());
        }
        self.look(bytes)
    }

    /// What was asked for before is written by now, so only `bytes` are still to come.
    fn look(&mut self, bytes: u64) -> Result<(), Excess> {
        (self.bytes, self.since) = (0, 0);
        let there = fstatvfs(self.place.as_fd()).map_err(|e| Excess::Io(e.into()))?;
        let block = there.fragment_size() as u64;
        let (total, free) = (there.blocks() as u64 * block, there.blocks_available() as u64 * block);
        let reserve = RESERVE.min(total / RESERVE_PART);
        if bytes.saturating_add(reserve) > free {
            let (more, free) = (human(bytes), human(free));
            return Err(Excess::Room(format!("{more} more, {free} are free and the last {} are left", human(reserve))));
        }
        // Some file systems make inodes as they go and count none.
        let (inodes, left) = (there.files() as u64, there.files_available() as u64);
        if inodes > 0 && left < LOOK.min(inodes / RESERVE_PART) {
            return Err(Excess::Room(format!("{left} files can still be made there, and the last ones are left")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gzip_can_do_is_no_bomb() {
        expansion(0, FLOOR).unwrap();
        expansion(10 << 20, 1032 * (10 << 20)).unwrap();
        expansion(u64::MAX, u64::MAX).unwrap();
        let why = expansion(1 << 20, (1 << 30) + (200 << 20)).unwrap_err();
        assert!(why.contains("1.0 MB of it unpack to more than 1.3 GB") && why.contains("tar --sparse"), "{why}");
    }

    #[test]
    fn entries_are_counted_and_room_is_asked_for() {
        let place = || std::fs::File::open("/").unwrap().into();
        let mut budget = Budget::new(place());
        for _ in 0..3 * LOOK {
            budget.take(1, 512).unwrap();
        }
        assert!(matches!(budget.take(ENTRIES, 0), Err(Excess::Archive(why)) if why.contains("10000000 entries")));
        let exabytes = Budget::new(place()).take(1, u64::MAX).unwrap_err();
        assert!(matches!(exabytes, Excess::Room(why) if why.contains("are free")));
    }
}
