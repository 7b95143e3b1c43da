//! A layer's whole way into a directory: nothing beside it is touched, and what is wrong is the archive's fault, never the host's.
#![no_main]

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pronto::domain::Quiet;
use pronto::image::{Error, unpack};
use pronto::sys::fs::{remove_tree, write_volatile};

/// The tree, with a victim beside it.
fn place() -> &'static PathBuf {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let dir = pronto_fuzz::scratch();
        std::fs::create_dir_all(dir.join("outside")).unwrap();
        write_volatile(&dir.join("outside/secret"), b"secret", 0o600).unwrap();
        dir
    })
}

fuzz_target!(|data: &[u8]| {
    let (place, tree) = (place(), place().join("tree"));
    remove_tree(&tree).unwrap();
    std::fs::create_dir(&tree).unwrap();
    let mended = if unpack::packing(data) == unpack::Packing::None { pronto_fuzz::mend(data) } else { data.to_vec() };
    let mut source = mended.as_slice();
    let job = unpack::Job { what: "fuzz", source: &mut source, size: None, digest: None, diff_id: None, below: true, step: &Quiet };
    if let Err(Error::Io { what, source }) = unpack::unpack(job, &tree) {
        // A full disk, a right that this user does not have, more hard links than the file system takes: nothing else is the host's.
        let may = [Some(28), Some(1), Some(31), Some(95)];
        assert!(may.contains(&source.raw_os_error()), "{what}: {source}");
    }
    let secret = std::fs::symlink_metadata(place.join("outside/secret")).unwrap();
    assert_eq!((secret.len(), secret.nlink(), secret.mode() & 0o7777), (6, 1, 0o600));
    assert_eq!(std::fs::read_dir(place).unwrap().count(), 2, "something was made beside the tree");
    assert_eq!(std::fs::read_dir(place.join("outside")).unwrap().count(), 1);
});
