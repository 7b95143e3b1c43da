//! Sparse files in tar: GNU's old form (type `S`) and the PAX forms 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files"). What
//! a newcomer would get wrong: the body holds the pieces with data only, one after the other; the map says where they go.

use super::header::{self, decimal};
use super::limits;
use crate::domain::size::human;

/// More pieces than this is no honest file.
const MAX_PIECES: usize = 1 << 20;

/// Where the data of a sparse file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// The file's size in bytes.
    pub size: u64,
    /// Offset and length of each piece, in the order of the body.
    pub pieces: Vec<(u64, u64)>,
}

impl Map {
    pub(super) fn new(size: u64) -> Map {
        Map { size, pieces: Vec::new() }
    }

    /// Checks that the pieces are in order, inside the file, and as long together as the body. Errors: a sentence.
    pub(super) fn check(&self, body: u64) -> Result<(), String> {
        if self.size > limits::FILE {
            return Err(format!("it claims to be {} long, and files end at {}", human(self.size), human(limits::FILE)));
        }
        let mut end = 0_u64;
        let mut total = 0_u64;
        for &(offset, length) in &self.pieces {
            let after = offset.checked_add(length).filter(|&after| offset >= end && after <= self.size);
            end = after.ok_or("its sparse map is wrong")?;
            total += length;
        }
        if total == body { Ok(()) } else { Err("its sparse map does not fit its size".into()) }
    }

    fn push(&mut self, offset: u64, length: u64) -> Result<(), String> {
        if self.pieces.len() >= MAX_PIECES {
            return Err("its sparse map is too long".into());
        }
        if length > 0 {
            self.pieces.push((offset, length));
        }
        Ok(())
    }

    /// Reads pairs of 12-byte octal fields up to the first empty one; returns whether `more` says that another block follows.
    pub(super) fn read_table(&mut self, table: &[u8], more: u8) -> Result<bool, String> {
        for pair in table.chunks_exact(24) {
            if pair[0] == 0 {
                break;
            }
            let number = |field| header::number(field).ok_or("its sparse map is no number");
            self.push(number(&pair[..12])?, number(&pair[12..])?)?;
        }
        Ok(more != 0)
    }

    /// Reads `offset,length,offset,length…` (PAX 0.1).
    pub(super) fn read_list(&mut self, list: &[u8]) -> Result<(), String> {
        let numbers: Option<Vec<u64>> = list.split(|&b| b == b',').map(decimal).collect();
        let numbers = numbers.filter(|n| n.len() % 2 == 0).ok_or("its sparse map is no list of numbers")?;
        numbers.chunks_exact(2).try_for_each(|pair| self.push(pair[0], pair[1]))
    }
}

/// What the PAX records `GNU.sparse.*` say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub major: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    pub map: Option<Vec<u8>>,
    unknown: bool,
}

impl Records {
    pub fn is_sparse(&self) -> bool {
        self.major.is_some() || self.map.is_some() || self.real_size.is_some() || self.unknown
    }

    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let number = || decimal(value).ok_or("a sparse file's PAX record is no number");
        match key {
            b"major" => self.major = Some(number()?),
            b"name" => self.name = Some(value.to_vec()),
            b"realsize" | b"size" => self.real_size = Some(number()?),
            b"map" => self.map = Some(value.to_vec()),
            b"minor" | b"numblocks" => {}
            // Version 0.0 spreads the map over many records of one name; no program has written it since 2006.
            _ => self.unknown = true,
        }
        Ok(())
    }
}

/// The decimal lines of PAX 1.0: how many pieces, then offset and length of each.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pending: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
    seen: u64,
}

impl Lines {
    /// Takes another block; true when the map is complete (what is left of the block is filling).
    pub fn push(&mut self, block: &[u8], map: &mut Map) -> Result<bool, String> {
        for &byte in block {
            if byte != b'\n' {
                self.pending.push(byte);
                if self.pending.len() > 20 {
                    return Err("its sparse map is no list of numbers".into());
                }
                continue;
            }
            let number = decimal(&self.pending).ok_or("its sparse map is no list of numbers")?;
            self.pending.clear();
            match (self.count, self.offset.take()) {
                (None, _) => self.count = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => {
                    map.push(offset, number)?;
                    self.seen += 1;
                }
            }
            if self.count == Some(self.seen) && self.offset.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
