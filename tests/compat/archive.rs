//! An initial RAM disk in the kernel's form, written by hand: cpio's "newc" (initramfs/buffer-format of the kernel's documentation). What a
//! newcomer would get wrong: nothing is unpacked to be packed again, so that no root is needed for owners and no program for the form.

use std::collections::BTreeMap;
use std::path::Path;

/// What will be in it, by path without the first slash. A directory comes before what is in it, as the names are sorted.
#[derive(Debug, Default)]
pub struct Archive(BTreeMap<String, (u32, Vec<u8>)>);

impl Archive {
    /// Directories, with those above.
    pub fn dirs(&mut self, paths: &str) {
        for path in paths.split_whitespace() {
            for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
                self.0.entry(path[..at].to_owned()).or_insert((0o040_755, Vec::new()));
            }
        }
    }

    /// A file, with the directories above.
    pub fn file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) {
        self.above(path);
        self.0.insert(path.to_owned(), (0o100_000 | mode, data.into()));
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.above(path);
        self.0.insert(path.to_owned(), (0o120_777, target.into()));
    }

    /// A whole directory of the host's, of files and links.
    pub fn tree(&mut self, path: &str, from: &Path) {
        self.dirs(path);
        let entries = std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        for entry in entries.flatten() {
            let (name, kind) = (entry.file_name(), entry.file_type().expect("a type"));
            let inside = format!("{path}/{}", name.to_string_lossy());
            if kind.is_dir() {
                self.tree(&inside, &entry.path());
            } else if kind.is_symlink() {
                let target = std::fs::read_link(entry.path()).expect("a link");
                self.link(&inside, &target.to_string_lossy());
            } else {
                self.file(&inside, 0o755, crate::bytes(&entry.path()));
            }
        }
    }

    /// Whether there is such a path already.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    fn above(&mut self, path: &str) {
        if let Some((dir, _)) = path.rsplit_once('/') {
            self.dirs(dir);
        }
    }

    /// The archive.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, (mode, data))) in self.0.iter().enumerate() {
            entry(&mut out, number + 1, path, *mode, data);
        }
        entry(&mut out, 0, "TRAILER!!!", 0, &[]);
        out
    }
}

fn entry(out: &mut Vec<u8>, number: usize, path: &str, mode: u32, data: &[u8]) {
    // inode, mode, uid, gid, links, time, size, four device numbers, length of the name, checksum.
    let fields =
        [number, mode as usize, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, path.len() + 1, 0].map(|n| format!("{n:08x}"));
    out.extend(format!("070701{}{path}\0", fields.concat()).bytes());
    let pad = |out: &mut Vec<u8>| out.resize(out.len().next_multiple_of(4), 0);
    pad(out);
    out.extend(data);
    pad(out);
}
