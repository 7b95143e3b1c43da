//! Tar archives entry by entry, the ones that no tar(1) would write among them: names that climb, links that lead out, names
//! that are no UTF-8. What a newcomer would get wrong: the checksum counts its own field as blanks. Source: tar(5), ustar.

use std::path::Path;

/// An archive being made.
#[derive(Debug, Default)]
pub struct Tar {
    bytes: Vec<u8>,
    owner: (u32, u32),
}

impl Tar {
    /// An empty one.
    pub fn new() -> Tar {
        Tar::default()
    }

    /// Who owns what follows.
    pub fn owner(mut self, uid: u32, gid: u32) -> Tar {
        self.owner = (uid, gid);
        self
    }

    /// A regular file.
    pub fn file(self, name: &str, mode: u32, data: &[u8]) -> Tar {
        self.raw_file(name.as_bytes(), mode, data)
    }

    /// A regular file whose name is bytes.
    pub fn raw_file(self, name: &[u8], mode: u32, data: &[u8]) -> Tar {
        self.entry(name, b'0', mode, b"", data, (0, 0))
    }

    /// A directory (`name/`).
    pub fn dir(self, name: &str) -> Tar {
        self.entry(name.as_bytes(), b'5', 0o755, b"", b"", (0, 0))
    }

    /// A symbolic link.
    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.entry(name.as_bytes(), b'2', 0o777, target.as_bytes(), b"", (0, 0))
    }

    /// A hard link to an earlier entry.
    pub fn hard_link(self, name: &str, target: &str) -> Tar {
        self.entry(name.as_bytes(), b'1', 0o644, target.as_bytes(), b"", (0, 0))
    }

    /// A character device.
    pub fn device(self, name: &str, major: u32, minor: u32) -> Tar {
        self.entry(name.as_bytes(), b'3', 0o666, b"", b"", (major, minor))
    }

    /// A file with an extended attribute (a PAX header before it).
    pub fn file_with_xattr(self, name: &str, attribute: &str, value: &str) -> Tar {
        let record = format!(" SCHILY.xattr.{attribute}={value}\n");
        let mut length = record.len() + 1;
        while length != length.to_string().len() + record.len() {
            length = length.to_string().len() + record.len();
        }
        let record = format!("{length}{record}");
        self.entry(b"pax", b'x', 0o644, b"", record.as_bytes(), (0, 0)).file(name, 0o644, b"")
    }

    /// Writes it to `path`.
    pub fn write(mut self, path: &Path) {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        crate::common::write(path, &self.bytes);
    }

    fn entry(mut self, name: &[u8], kind: u8, mode: u32, link: &[u8], data: &[u8], device: (u32, u32)) -> Tar {
        let mut header = [0u8; 512];
        let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
        put(0, &name[..name.len().min(100)]);
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, format!("{:07o}\0", self.owner.0).as_bytes());
        put(116, format!("{:07o}\0", self.owner.1).as_bytes());
        put(124, format!("{:011o}\0", data.len()).as_bytes());
        put(136, b"14000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}\0", device.0).as_bytes());
        put(337, format!("{:07o}\0", device.1).as_bytes());
        let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }
}
