//! A file system inside a file, shown as a read-only tree: a loop device and a mount without a mount point. What a newcomer would
//! get wrong: neither needs to be undone. The mount is a descriptor, and the device takes itself down with its last user
//! (`LO_FLAGS_AUTOCLEAR`), so a process that is killed leaves nothing. And the file system is anybody's: it is never written to,
//! its journal is not replayed, and it may not say what the kernel does about an error in it (ext4's may say "panic").
//! Sources: loop(4), fsopen(2), ext4(5), xfs(5), btrfs(5).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::mount::{fsconfig_create, fsconfig_flag, fsconfig_string, fsmount, fsopen, messages};

/// A kind of file system that a guest's root can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext2, ext3 and ext4: one driver reads them all.
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// SquashFS.
    Squashfs,
    /// EROFS.
    Erofs,
}

impl FileSystem {
    /// Its name, as the kernel has it.
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
            FileSystem::Squashfs => "squashfs",
            FileSystem::Erofs => "erofs",
        }
    }

    fn kind(self) -> &'static CStr {
        match self {
            FileSystem::Ext4 => c"ext4",
            FileSystem::Xfs => c"xfs",
            FileSystem::Btrfs => c"btrfs",
            FileSystem::Squashfs => c"squashfs",
            FileSystem::Erofs => c"erofs",
        }
    }

    /// Options beside "read-only"; an empty value is a flag.
    fn options(self) -> &'static [(&'static CStr, &'static str)] {
        match self {
            FileSystem::Ext4 => &[(c"noload", ""), (c"errors", "continue")],
            // Two guests of two copies of one image have the same identifier.
            FileSystem::Xfs => &[(c"norecovery", ""), (c"nouuid", "")],
            FileSystem::Btrfs => &[(c"rescue", "nologreplay")],
            FileSystem::Squashfs | FileSystem::Erofs => &[],
        }
    }
}

/// Where a file system lies in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its first byte; a multiple of 512.
    pub offset: u64,
    /// Its length in bytes; a multiple of 512.
    pub size: u64,
    /// What it is.
    pub kind: FileSystem,
    /// The subvolume of a btrfs that is wanted; its top when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subvolume: Option<String>,
}

/// Mounts a file system of the file at `path`, read-only and without device nodes, attached nowhere. Errors: no loop device to be
/// had, a kernel without this file system, or what the kernel says of the file system, in one sentence.
pub fn mount(path: &Path, volume: &Volume) -> io::Result<OwnedFd> {
    const ATTRIBUTES: u64 = 1 | 4; // MOUNT_ATTR_RDONLY, MOUNT_ATTR_NODEV (linux/mount.h)
    let named = |e: io::Error, what: &str| io::Error::new(e.kind(), format!("{what}: {}", plain(&e)));
    let file = File::open(path).map_err(|e| named(e, &path.display().to_string()))?;
    let device = device_of(&file, volume).map_err(|e| named(e, "cannot get a loop device"))?;
    let name = volume.kind.name();
    let context = fsopen(volume.kind.kind()).map_err(|e| match e.raw_os_error() {
        Some(libc::ENODEV) => io::Error::new(io::ErrorKind::Unsupported, format!("this kernel has no {name}")),
        _ => named(e, &format!("cannot mount {name}")),
    })?;
    let create = || {
        fsconfig_string(&context, c"source", &device.path)?;
        fsconfig_flag(&context, c"ro")?;
        for (key, value) in volume.kind.options() {
            if value.is_empty() { fsconfig_flag(&context, key)? } else { fsconfig_string(&context, key, value)? }
        }
        if let Some(name) = &volume.subvolume {
            fsconfig_string(&context, c"subvol", name)?;
        }
        fsconfig_create(&context)
    };
    if let Err(e) = create() {
        let told = messages(&context);
        let told = if told.is_empty() { plain(&e) } else { told };
        return Err(io::Error::new(e.kind(), format!("the kernel cannot mount its {name} file system ({told})")));
    }
    fsmount(&context, ATTRIBUTES)
}

fn plain(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |n| nix::errno::Errno::from_raw(n).desc().to_owned())
}

/// A loop device as long as it is held; mounts hold it themselves.
#[derive(Debug)]
struct Device {
    path: String,
    _open: File,
}

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;

/// `struct loop_info64` (linux/loop.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` (linux/loop.h).
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

impl Info {
    fn empty() -> Info {
        // SAFETY: numbers and arrays of numbers: all zeros is a value of it.
        unsafe { std::mem::zeroed() }
    }
}

/// A device that shows this part of the file: one that does already (then its guests share the kernel's cache), or a new one.
fn device_of(file: &File, volume: &Volume) -> io::Result<Device> {
    if let Some(device) = existing(file, volume) {
        return Ok(device);
    }
    let control = File::open("/dev/loop-control")?;
    // Between the answer and the call somebody else may take the same number.
    for _ in 0..64 {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        match configure(number, file, volume) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
            other => return other,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

fn configure(number: i32, file: &File, volume: &Volume) -> io::Result<Device> {
    let path = format!("/dev/loop{number}");
    let open = File::open(&path).map_err(|e| io::Error::new(e.kind(), format!("{path}: {}", plain(&e))))?;
    let info = Info {
        offset: volume.offset,
        size_limit: volume.size,
        flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        ..Info::empty()
    };
    let config = Config { fd: file.as_raw_fd() as u32, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads the structure, which lives across the call; the kernel takes its own hold of the file.
    let done = unsafe { libc::ioctl(open.as_raw_fd(), LOOP_CONFIGURE, std::ptr::from_ref(&config)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(Device { path, _open: open }) }
}

/// Looks for a device of ours that shows the same bytes. Once it is open it stays what it is.
fn existing(file: &File, volume: &Volume) -> Option<Device> {
    let meta = file.metadata().ok()?;
    for entry in std::fs::read_dir("/sys/block").ok()?.flatten() {
        let name = entry.file_name().into_string().ok().filter(|name| name.starts_with("loop"));
        let Some(name) = name else { continue };
        let number = |attribute: &str| -> Option<u64> {
            let path: PathBuf = entry.path().join("loop").join(attribute);
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        if number("offset") != Some(volume.offset) || number("sizelimit") != Some(volume.size) {
            continue;
        }
        let path = format!("/dev/{name}");
        let Ok(open) = File::open(&path) else { continue };
        let mut info = Info::empty();
        // SAFETY: LOOP_GET_STATUS64 fills the structure, which is as large as the kernel's.
        if unsafe { libc::ioctl(open.as_raw_fd(), LOOP_GET_STATUS64, std::ptr::from_mut(&mut info)) } < 0 {
            continue;
        }
        let ours = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
        let same = (info.device, info.inode, info.offset, info.size_limit)
            == (meta.dev(), meta.ino(), volume.offset, volume.size);
        if same && info.flags & ours == ours {
            return Some(Device { path, _open: open });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Tool;
    use crate::sys::root::Root;

    fn say(text: &str) {
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
    }

    /// The names of the loop devices that show the file, by the kernel's own list.
    fn names(file: &Path) -> Vec<String> {
        let inode = std::fs::metadata(file).unwrap().ino();
        let shown = |entry: &std::fs::DirEntry| {
            std::fs::read_to_string(entry.path().join("loop/backing_file"))
                .is_ok_and(|name| std::fs::metadata(name.trim()).is_ok_and(|meta| meta.ino() == inode))
        };
        let entries = std::fs::read_dir("/sys/block").unwrap().flatten().filter(shown);
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    }

    fn devices(file: &Path) -> usize {
        names(file).len()
    }

    /// An image may ask for a panic of the kernel that meets an error in it. It is not obeyed.
    #[test]
    fn an_image_does_not_say_what_an_error_does() {
        if !nix::unistd::geteuid().is_root() {
            say("skipped: mounting needs root\n");
            return;
        }
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        Tool::new("mkfs.ext4").args(["-q", "-e", "panic"]).arg(&image).output().expect("mkfs.ext4 (e2fsprogs)");
        let volume = Volume { offset: 0, size: 8 << 20, kind: FileSystem::Ext4, subvolume: None };
        let _tree = mount(&image, &volume).unwrap();
        let path = format!("/proc/fs/ext4/{}/options", names(&image)[0]);
        let Ok(options) = std::fs::read_to_string(&path) else {
            say(&format!("skipped: this kernel has no {path}\n"));
            return;
        };
        let has = |option: &str| options.lines().any(|line| line == option);
        assert!(has("ro") && has("errors=continue") && has("norecovery"), "{options}");
    }

    /// Every kind, made by its own mkfs at an odd place of a file, shown and gone again; a second mount shares the device.
    #[test]
    fn every_kind_is_shown_and_leaves_nothing() {
        if !nix::unistd::geteuid().is_root() {
            say("skipped: mounting needs root\n");
            return;
        }
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        crate::sys::fs::write_volatile(&tree.join("f"), b"inside", 0o640).unwrap();
        let known = std::fs::read_to_string("/proc/filesystems").unwrap();
        let t = tree.to_str().unwrap();
        let makers: [(FileSystem, &str, &[&str]); 5] = [
            (FileSystem::Ext4, "mkfs.ext4", &["-q", "-d", t, "IMAGE"]),
            (FileSystem::Squashfs, "mksquashfs", &[t, "IMAGE", "-noappend", "-quiet"]),
            (FileSystem::Erofs, "mkfs.erofs", &["IMAGE", t]),
            (FileSystem::Btrfs, "mkfs.btrfs", &["-q", "--rootdir", t, "IMAGE"]),
            (FileSystem::Xfs, "mkfs.xfs", &["-q", "IMAGE"]),
        ];
        for (kind, maker, words) in makers {
            let (part, image) = (dir.path().join("part"), dir.path().join("image"));
            let made = File::create(&part).unwrap();
            made.set_len(320 << 20).unwrap();
            let words = words.iter().map(|w| if *w == "IMAGE" { part.as_path() } else { Path::new(w) });
            if let Err(why) = Tool::new(maker).args(words).output() {
                say(&format!("skipped for {maker}: {why}\n"));
                continue;
            }
            if !known.lines().any(|l| l.trim() == kind.name()) {
                say(&format!("skipped: this kernel has no {} (yet)\n", kind.name()));
                continue;
            }
            let size = made.metadata().unwrap().len().next_multiple_of(512);
            let whole = Tool::new("dd").args(["bs=1536", "seek=1", "conv=sparse", "status=none"]);
            let whole = whole.arg(format!("if={}", part.display())).arg(format!("of={}", image.display()));
            whole.output().unwrap();
            File::options().write(true).open(&image).unwrap().set_len(size + 1536).unwrap();
            let volume = Volume { offset: 1536, size, kind, subvolume: None };
            let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let first = mount(&image, &volume).unwrap_or_else(|e| panic!("{}: {e}", kind.name()));
            let second = mount(&image, &volume).unwrap();
            assert_eq!(devices(&image), 1, "{}", kind.name());
            assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
            let root = Root::from_fd(first, Path::new("image"));
            if kind != FileSystem::Xfs {
                assert_eq!(root.read_text("f").unwrap(), "inside");
            }
            let made = std::fs::create_dir(root.proc_path().join("d"));
            assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EROFS), "{}", kind.name());
            drop((root, second));
            for _ in 0..100 {
                if devices(&image) == 0 {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            assert_eq!(devices(&image), 0, "{}", kind.name());
            std::fs::remove_file(&image).unwrap();
            let _ = std::fs::remove_file(&part);
        }
    }

    #[test]
    fn what_is_no_file_system_leaves_no_device() {
        if !nix::unistd::geteuid().is_root() {
            say("skipped: mounting needs root\n");
            return;
        }
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let volume = Volume { offset: 0, size: 1 << 20, kind: FileSystem::Ext4, subvolume: None };
        let error = mount(&image, &volume).unwrap_err().to_string();
        assert!(error.contains("cannot mount its ext4 file system"), "{error}");
        assert_eq!(devices(&image), 0);
        assert!(mount(&dir.path().join("none"), &volume).unwrap_err().to_string().contains("none"));
    }
}
