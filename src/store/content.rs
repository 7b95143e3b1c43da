//! A hash of what a file holds, taken while it is written or read. What a newcomer would get wrong: a file with holes is the same file as one
//! with zeros in their place (file systems differ in what they keep), so blocks of zeros count as nothing, and what stands after
//! them counts with its place.

use xxhash_rust::xxh3::Xxh3;

/// The unit in which zeros count as nothing.
pub const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// What a file holds, as far as it was told. Pieces come in order; what is left out between them is zeros.
#[derive(Clone)]
pub struct Content {
    hash: Xxh3,
    /// The place at which the hash goes on without saying so.
    next: u64,
    /// The block that is not complete yet: where it begins, and the first `have` of its bytes.
    partial: Box<[u8; BLOCK]>,
    partial_at: u64,
    have: usize,
}

impl Default for Content {
    fn default() -> Content {
        Content { hash: Xxh3::new(), next: 0, partial: Box::new(ZEROS), partial_at: 0, have: 0 }
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Content {
    /// The file holds `data` at byte `at`, which is not before the end of what was told last.
    pub fn write_at(&mut self, mut at: u64, mut data: &[u8]) {
        if self.have > 0 && at >= self.partial_at + BLOCK as u64 {
            self.flush();
        }
        let within = (at % BLOCK as u64) as usize;
        if self.have > 0 || within > 0 {
            let take = data.len().min(BLOCK - within);
            if self.have == 0 {
                self.partial_at = at - within as u64;
            }
            self.partial[self.have..within].fill(0);
            self.partial[within..within + take].copy_from_slice(&data[..take]);
            self.have = within + take;
            if self.have < BLOCK {
                return;
            }
            self.flush();
            (at, data) = (at + take as u64, &data[take..]);
        }
        let whole = data.len() / BLOCK * BLOCK;
        self.blocks(at, &data[..whole]);
        let rest = &data[whole..];
        if !rest.is_empty() {
            self.partial_at = at + whole as u64;
            self.partial[..rest.len()].copy_from_slice(rest);
            self.have = rest.len();
        }
    }

    /// The hash of all that was told.
    pub fn finish(mut self) -> u64 {
        self.flush();
        self.hash.digest()
    }

    fn flush(&mut self) {
        let have = std::mem::take(&mut self.have);
        if have > 0 {
            // A hole may follow, or the file's end: it makes no difference.
            self.partial[have..].fill(0);
            let block = *self.partial;
            self.blocks(self.partial_at, &block);
        }
    }

    /// Whole blocks. Those that follow each other are hashed in one go.
    fn blocks(&mut self, at: u64, data: &[u8]) {
        let mut begin = 0;
        for (number, block) in data.chunks(BLOCK).enumerate() {
            if *block == ZEROS {
                self.run(at + begin as u64, &data[begin..number * BLOCK]);
                begin = (number + 1) * BLOCK;
            }
        }
        self.run(at + begin as u64, &data[begin..]);
    }

    fn run(&mut self, at: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if at != self.next {
            self.hash.update(&at.to_le_bytes());
        }
        self.hash.update(data);
        self.next = at + data.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[(u64, &[u8])]) -> u64 {
        let mut content = Content::default();
        pieces.iter().for_each(|(at, data)| content.write_at(*at, data));
        content.finish()
    }

    #[test]
    fn pieces_of_any_size_make_one_hash() {
        let mut data: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
        data[8192..20_000].fill(0);
        data[20_480..24_576].fill(0);
        let whole = of(&[(0, &data)]);
        for size in [1, 7, 100, 4095, 4096, 4097, 8192, 30_000] {
            let pieces: Vec<(u64, &[u8])> =
                data.chunks(size).enumerate().map(|(n, piece)| ((n * size) as u64, piece)).collect();
            assert_eq!(of(&pieces), whole, "{size}");
            // Zeros that are not told.
            let pieces: Vec<_> = pieces.into_iter().filter(|(_, piece)| piece.iter().any(|&b| b != 0)).collect();
            assert_eq!(of(&pieces), whole, "{size}, with holes");
        }
        let mut moved = data.clone();
        moved[16_384..].rotate_right(4096);
        assert_ne!(of(&[(0, &moved)]), whole, "the place counts");
        data[39_999] ^= 1;
        assert_ne!(of(&[(0, &data)]), whole);
    }
}
