//! What the kernel writes down of each process that ends: BSD process accounting. Pure: bytes in. What a newcomer would get wrong: a record
//! is written at the *end* of a process, with the name of the last program that it ran, and times are counted in ticks of 10 ms,
//! rounded down: what takes less has taken nothing. Source: acct(5); linux/acct.h, `struct acct_v3` and `comp_t`; kernel/acct.c.

use std::collections::HashSet;

/// The size of a record.
const RECORD: usize = 64;
/// `ac_version`, with the byte order of the machine that wrote it in its highest bit.
const VERSION: u8 = 3;
const BIG_ENDIAN: u8 = 0x80;
/// `ac_flag`: it never executed a program of its own.
const AFORK: u8 = 0x01;
/// A tick (`AHZ` is 100 in this version), in microseconds.
const TICK: u64 = 10_000;

/// A process that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// The name of its program, at most 15 bytes of it; anybody may have chosen it.
    pub name: String,
    /// Its PID in the pid namespace whose account this is.
    pub pid: i32,
    /// Its parent's at its end: 0 when that is outside, the init's when it had gone.
    pub parent: i32,
    /// It went on with its parent's program.
    pub forked: bool,
    /// CPU time in microseconds, in whole ticks.
    pub micros: u64,
    /// Its address space at its end, in KiB.
    pub kib: u64,
}

/// Reads an account; an incomplete last record is left out. Errors: the kernel writes another version, in words.
pub fn parse(bytes: &[u8]) -> Result<Vec<Process>, String> {
    bytes.chunks_exact(RECORD).map(process).collect()
}

fn process(record: &[u8]) -> Result<Process, String> {
    let version = record[1];
    if version & !BIG_ENDIAN != VERSION {
        return Err(format!("it writes version {} of the records, not {VERSION}", version & !BIG_ENDIAN));
    }
    let big = version & BIG_ENDIAN != 0;
    let u32_at = |at: usize| {
        let bytes = [record[at], record[at + 1], record[at + 2], record[at + 3]];
        if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    let comp_at = |at: usize| {
        let bytes = [record[at], record[at + 1]];
        decode(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let name = record[48..].split(|b| *b == 0).next().unwrap_or_default();
    let id = |at: usize| i32::try_from(u32_at(at)).unwrap_or_default();
    Ok(Process {
        name: String::from_utf8_lossy(name).into_owned(),
        pid: id(16),
        parent: id(20),
        forked: record[0] & AFORK != 0,
        micros: (comp_at(32) + comp_at(34)) * TICK,
        kib: comp_at(36),
    })
}

/// `comp_t`: a 13-bit number and a 3-bit exponent of 8.
fn decode(comp: u16) -> u64 {
    u64::from(comp & 0x1fff) << (3 * (comp >> 13))
}

/// Which of them are the process `root` and what it started, in the account's order. What a process left behind when it ended belongs to
/// the init from then on, and is not among them.
pub fn descendants(all: &[Process], root: i32) -> Vec<bool> {
    let mut family = HashSet::from([root]);
    let mut is_one = vec![false; all.len()];
    // Parents end after their children, or the child's parent is another by then.
    for (n, process) in all.iter().enumerate().rev() {
        is_one[n] = process.pid == root || family.contains(&process.parent);
        if is_one[n] {
            family.insert(process.pid);
        }
    }
    is_one
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as a little-endian kernel writes it.
    pub fn record(name: &str, pid: u32, parent: u32, flag: u8, times: [u16; 2], kib: u16) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..2].copy_from_slice(&[flag, VERSION]);
        record[16..20].copy_from_slice(&pid.to_le_bytes());
        record[20..24].copy_from_slice(&parent.to_le_bytes());
        record[32..34].copy_from_slice(&times[0].to_le_bytes());
        record[34..36].copy_from_slice(&times[1].to_le_bytes());
        record[36..38].copy_from_slice(&kib.to_le_bytes());
        record[48..48 + name.len()].copy_from_slice(name.as_bytes());
        record
    }

    #[test]
    fn numbers_are_unpacked() {
        assert_eq!([0, 1, 0x1fff, 0x2001, 0xffff].map(decode), [0, 1, 8191, 8, 8191 << 21]);
    }

    #[test]
    fn records_are_read() {
        let mut bytes =
            [record("sed", 7, 1, 0, [3, 2], 3840), record("a-name-of-15-xx", 8, 7, AFORK, [0x2001, 0], 1)].concat();
        bytes.extend([0; 40]);
        let all = parse(&bytes).unwrap();
        let first = Process { name: "sed".into(), pid: 7, parent: 1, forked: false, micros: 50_000, kib: 3840 };
        assert_eq!(all[0], first);
        assert_eq!(
            (all.len(), all[1].forked, all[1].micros, all[1].name.as_str()),
            (2, true, 80_000, "a-name-of-15-xx")
        );
        let mut big = record("sed", 0, 0, 0, [0, 0], 0);
        big[1] |= BIG_ENDIAN;
        big[16..20].copy_from_slice(&7_u32.to_be_bytes());
        assert_eq!(parse(&big).unwrap()[0].pid, 7);
        let mut old = record("sed", 7, 1, 0, [0, 0], 0);
        old[1] = 2;
        assert!(parse(&old).unwrap_err().contains("version 2"));
    }

    #[test]
    fn who_belongs_to_whom() {
        let of = |name: &str, pid, parent| record(name, pid, parent, 0, [1, 0], 1);
        let bytes = [
            of("cc1", 12, 11),
            of("cron", 30, 1),
            of("gcc", 11, 10),
            of("left", 13, 1),
            of("other", 40, 0),
            of("make", 10, 0),
        ];
        let all = parse(&bytes.concat()).unwrap();
        assert_eq!(descendants(&all, 10), [true, false, true, false, false, true]);
    }
}
