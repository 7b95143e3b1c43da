//! What partition tables have in common: the list of partitions, and the checks that no table may fail. What a newcomer would
//! get wrong: a partition that ends beyond the file is most often a download that stopped, so the message says so.

/// What a partition is for, as far as its type tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A root, made for this architecture (its profile's name).
    Root(&'static str),
    /// A `/usr` of its own, made for this architecture.
    Usr(&'static str),
    /// The EFI system partition.
    Esp,
    /// The extended boot loader partition.
    Boot,
    /// Some FAT.
    Fat,
    /// Linux, of no particular kind.
    Linux,
    /// Not of interest.
    Other,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins in the image, in bytes.
    pub start: u64,
    /// How long it is, in bytes; never 0.
    pub size: u64,
    /// What it is for.
    pub role: Role,
    /// What `PARTUUID=` names it by.
    pub uuid: String,
    /// What `PARTLABEL=` names it by; empty when it has none.
    pub label: String,
}

impl Partition {
    /// `partition 2 ('rootfs')`.
    pub fn shown(&self) -> String {
        if self.label.is_empty() {
            return format!("partition {}", self.number);
        }
        format!("partition {} ('{}')", self.number, self.label.escape_debug())
    }
}

/// Checks that every partition lies in an image of `length` bytes and that no two share a byte. Errors: a sentence that names
/// the partition.
pub fn check(partitions: &[Partition], length: u64) -> Result<(), String> {
    for part in partitions {
        let end = part.start.checked_add(part.size);
        if end.is_none_or(|end| end > length) {
            let end = end.map_or("nowhere".to_owned(), |end| format!("at byte {end}"));
            let what = part.shown();
            return Err(format!("{what} ends {end}, but the image has {length} bytes: it is truncated or damaged"));
        }
    }
    let mut sorted: Vec<&Partition> = partitions.iter().collect();
    sorted.sort_by_key(|part| part.start);
    for pair in sorted.windows(2) {
        if pair[0].start + pair[0].size > pair[1].start {
            return Err(format!("{} and {} overlap", pair[0].shown(), pair[1].shown()));
        }
    }
    Ok(())
}
