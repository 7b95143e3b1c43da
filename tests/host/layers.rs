//! An image of more layers than anybody ships, small enough to be unpacked on a slow machine: a shell, its two libraries, and one
//! file per layer. What a newcomer would get wrong: kernels before 6.8 know no `lowerdir+`, so that all layers have to be named
//! in the one page that mount(2) takes; this is how that way is walked.

use std::path::{Path, PathBuf};

use crate::common::fixtures::BARE_AMD64;
use crate::common::oci::{Codec, Image, Layout};
use crate::tar::Tar;

/// How many layers lie above the first.
pub const COUNT: usize = 150;

/// Writes the image as the OCI layout `dir`, tag `many`.
pub fn write(dir: &Path) {
    let (tree, tars) = (BARE_AMD64.tree(), dir.with_extension("tars"));
    std::fs::create_dir_all(&tars).expect("a directory");
    let file = |path: &str| std::fs::read(tree.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let base = tars.join("base.tar");
    Tar::new()
        .dir("bin/")
        .dir("lib64/")
        .dir("lib/")
        .file("bin/sh", 0o755, &file("usr/bin/dash"))
        .file("lib64/ld-linux-x86-64.so.2", 0o755, &file("lib64/ld-linux-x86-64.so.2"))
        .file("lib/libc.so.6", 0o755, &file("lib/x86_64-linux-gnu/libc.so.6"))
        .write(&base);
    let mut all: Vec<PathBuf> = vec![base];
    for n in 1..=COUNT {
        let tar = tars.join(format!("{n}.tar"));
        let each = Tar::new().dir("layers/").file(&format!("layers/{n}"), 0o644, b"x");
        each.file("top", 0o644, format!("{n}\n").as_bytes()).write(&tar);
        all.push(tar);
    }
    let paths: Vec<&Path> = all.iter().map(PathBuf::as_path).collect();
    let mut layout = Layout::new(dir);
    layout.index("many", &[Image::new("amd64", &paths, Codec::Plain, &["/bin/sh"])]);
    std::fs::remove_dir_all(&tars).expect("the tars are removed");
}
