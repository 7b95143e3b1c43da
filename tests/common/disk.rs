//! Disk images by the tools that people make them with: sfdisk, mkfs, mtools. What a newcomer would get wrong: nothing is mounted
//! here, so that a test can tell its own mounts and loop devices from everybody else's.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::run::Run;
use super::{secs, write};

/// A megabyte.
pub const MIB: u64 = 1 << 20;

/// A disk in the making: partitions by sfdisk's words.
#[derive(Debug)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
}

impl Disk {
    /// An image of `size` bytes with this table (sfdisk(8), "Input formats").
    pub fn new(path: &Path, size: u64, table: &str) -> Disk {
        let file = std::fs::File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        file.set_len(size).unwrap();
        if !table.is_empty() {
            let input = path.with_extension("sfdisk");
            write(&input, table);
            Run::new("sh").args(["-c", "sfdisk -q \"$1\" <\"$2\"", "sh"]).arg(path).arg(&input).run().ok();
            std::fs::remove_file(&input).unwrap();
        }
        Disk { path: path.to_owned() }
    }

    /// Puts a file at a place of the image; its holes stay holes.
    pub fn put(&self, part: &Path, at: u64) -> &Disk {
        let words =
            [format!("if={}", part.display()), format!("of={}", self.path.display()), format!("seek={}", at / MIB)];
        Run::new("dd").args(["bs=1M", "conv=notrunc,sparse", "status=none"]).args(words).limit(secs(120)).run().ok();
        self
    }
}

/// An ext4 file system of `size` bytes with what is in `tree`, and then changed by debugfs(8)'s words.
pub fn ext4(path: &Path, size: u64, tree: &Path, changes: &str) {
    std::fs::File::create(path).unwrap().set_len(size).unwrap();
    let _ =
        Run::new("mkfs.ext4").args(["-q", "-F", "-L", "rootfs", "-d"]).arg(tree).arg(path).limit(secs(300)).run().ok();
    if !changes.is_empty() {
        let script = path.with_extension("debugfs");
        write(&script, changes);
        Run::new("debugfs").args(["-w", "-f"]).arg(&script).arg(path).run().ok();
        std::fs::remove_file(&script).unwrap();
    }
}

/// A FAT of `size` bytes with these files in its root.
pub fn fat(path: &Path, size: u64, label: &str, files: &[(&str, &[u8])]) {
    std::fs::File::create(path).unwrap().set_len(size).unwrap();
    Run::new("mkfs.vfat").args(["-n", label]).arg(path).run().ok();
    for (name, data) in files {
        let file = path.with_extension("file");
        write(&file, data);
        Run::new("mcopy").arg("-i").arg(path).arg(&file).arg(format!("::{name}")).run().ok();
        std::fs::remove_file(&file).unwrap();
    }
}

/// How many bytes a file takes on its disk.
pub fn taken(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).blocks() * 512
}

/// The loop devices that show a file below `dir`, by the kernel's own list.
pub fn loops(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy().into_owned();
    let shown = |entry: std::fs::DirEntry| {
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
        file.contains(&dir).then(|| format!("{} on {}", entry.file_name().to_string_lossy(), file.trim()))
    };
    std::fs::read_dir("/sys/block").into_iter().flatten().flatten().filter_map(shown).collect()
}
