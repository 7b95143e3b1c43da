//! Whether this is Xen: the host's own domain, which may manage others, or a guest. What a newcomer would get wrong: `/proc/xen` proves
//! little (it is there in guests too, and empty where xenfs is not mounted), and a dom0 whose daemons are not up has an `xl` that waits for ever;
//! so whoever wants to use it asks it first, with a limit.
//! Sources: Documentation/ABI/stable/sysfs-hypervisor-xen, xen/include/public/features.h, drivers/xen/xenfs/super.c.

use std::path::Path;
use std::time::Duration;

use super::deadline;
use super::process::{Tool, ToolError, find_program};

/// What this kernel runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On Xen, as the domain that manages the others.
    Dom0,
    /// On Xen, as a guest.
    DomU,
    /// Not on Xen, as far as can be seen.
    Elsewhere,
}

/// What this kernel runs on.
pub fn place() -> Place {
    place_below(Path::new("/"))
}

/// The bit of `features` that only the managing domain has (XENFEAT_dom0).
const DOM0: u32 = 1 << 11;

fn place_below(root: &Path) -> Place {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let features = u32::from_str_radix(read("sys/hypervisor/properties/features").trim(), 16).unwrap_or_default();
    let capabilities = read("proc/xen/capabilities");
    if capabilities.split_whitespace().any(|word| word == "control_d") || features & DOM0 != 0 {
        Place::Dom0
    } else if read("sys/hypervisor/type").trim() == "xen" || root.join("proc/xen/xenbus").exists() {
        Place::DomU
    } else {
        Place::Elsewhere
    }
}

/// Why a Xen host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// This is a guest, or no Xen at all.
    #[error("{}", match .0 {
        Place::DomU => "this is a guest of a Xen host, which cannot manage others",
        _ => "this host does not run on Xen",
    })]
    NotHere(Place),
    /// There is no `xl`.
    #[error("this is a Xen host, but it has no xl: install its tools (on Debian: the package xen-utils)")]
    NoTools,
    /// `xl info` fails, or waits for ever.
    #[error("this is a Xen host, but xl does not work: {0}; look whether xenstored runs, and whether this is root")]
    Dead(ToolError),
}

/// What `xl info` prints, when this is a Xen host that works. It takes at most `limit`; 10 s are plenty. Errors: [`Trouble`].
pub fn info(limit: Duration) -> Result<Vec<u8>, Trouble> {
    match place() {
        Place::Dom0 => ask(limit),
        other => Err(Trouble::NotHere(other)),
    }
}

fn ask(limit: Duration) -> Result<Vec<u8>, Trouble> {
    let program = find_program("xl").ok_or(Trouble::NoTools)?;
    let output = deadline::answer(Tool::new(program).arg("info"), limit).map_err(Trouble::Dead)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = super::process::end_of(&output.stderr);
    Err(Trouble::Dead(ToolError::Failed { program: "xl info".into(), status: output.status, stderr }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> Place {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            crate::sys::fs::write_volatile(&path, text.as_bytes(), 0o644).unwrap();
        }
        place_below(dir.path())
    }

    #[test]
    fn where_this_is() {
        const TYPE: (&str, &str) = ("sys/hypervisor/type", "xen\n");
        const FEATURES: &str = "sys/hypervisor/properties/features";
        assert_eq!(host(&[]), Place::Elsewhere);
        assert_eq!(host(&[("sys/hypervisor/type", "other\n")]), Place::Elsewhere);
        assert_eq!(host(&[TYPE, ("proc/xen/capabilities", "control_d\n")]), Place::Dom0);
        // xenfs is not mounted.
        assert_eq!(host(&[TYPE, (FEATURES, "00002fd1\n")]), Place::Dom0);
        assert_eq!(host(&[TYPE, (FEATURES, "000007d1\n"), ("proc/xen/capabilities", "")]), Place::DomU);
        assert_eq!(host(&[("proc/xen/xenbus", "")]), Place::DomU);
    }

    #[test]
    fn this_host() {
        match (place(), info(Duration::from_secs(10))) {
            (Place::Dom0, Ok(bytes)) => assert!(String::from_utf8_lossy(&bytes).contains("xen_major")),
            (Place::Dom0, Err(trouble)) => assert!(!matches!(trouble, Trouble::NotHere(_)), "{trouble}"),
            (place, result) => assert!(matches!(result, Err(Trouble::NotHere(p)) if p == place)),
        }
    }
}
