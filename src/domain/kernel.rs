//! Which kernel a tree brings, and what a tree without one needs. Pure: names and texts in, a choice out. What a newcomer would get wrong: the
//! newest kernel is not the last one in the alphabet (6.10 comes after 6.9), `rescue` is none to start, and the words that an installer
//! wrote name the disk of *its* machine (`root=UUID=…`, `resume=`): they are left out, and what the disk really is comes from us.
//! Sources: The Boot Loader Specification, installkernel(8), kernel-install(8).

use std::cmp::Ordering;

/// What there is to choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The names in `/boot`.
    pub boot: Vec<String>,
    /// The entries of `/boot/loader/entries`: name and text.
    pub entries: Vec<(String, String)>,
    /// The names in `/usr/lib/modules` (or `/lib/modules`).
    pub modules: Vec<String>,
    /// Those of them that hold a `vmlinuz` themselves (Fedora).
    pub in_modules: Vec<String>,
}

/// A kernel to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its image, as a path in the tree.
    pub image: String,
    /// Its initial RAM disk, as a path in the tree.
    pub ramdisk: Option<String>,
    /// Its version or, where names have none, its flavour.
    pub version: String,
    /// Words of the distribution's own.
    pub words: Vec<String>,
}

/// The kernel that a tree is meant to start: the newest, of those with a RAM disk and modules if there are any. `None`: it has none.
pub fn find(listing: &Listing) -> Option<Kernel> {
    let mut found: Vec<Kernel> = listing.entries.iter().filter_map(|(name, text)| entry(name, text, listing)).collect();
    if found.is_empty() {
        found.extend(listing.boot.iter().filter_map(|name| named(name, listing)));
    }
    if found.is_empty() {
        let inside = |version: &String| {
            let image = format!("/usr/lib/modules/{version}/vmlinuz");
            Kernel { image, ramdisk: ramdisk(version, listing), version: version.clone(), words: Vec::new() }
        };
        found.extend(listing.in_modules.iter().map(inside));
    }
    let rank = |k: &Kernel| (k.ramdisk.is_some(), listing.modules.contains(&k.version));
    found.into_iter().max_by(|a, b| {
        // Names without a version are links to the one that is in use, or the only ones.
        rank(a).cmp(&rank(b)).then_with(|| by_version(&a.version, &b.version))
    })
}

/// What stands in front of a version, or flavour, in the names of kernels.
const IMAGES: [&str; 4] = ["vmlinuz", "vmlinux", "Image", "kernel"];

fn named(name: &str, listing: &Listing) -> Option<Kernel> {
    let rest = IMAGES.iter().find_map(|image| name.strip_prefix(image))?;
    let version = match rest.strip_prefix('-') {
        Some(version) if !version.is_empty() => version,
        None if rest.is_empty() => "",
        _ => return None,
    };
    if version.contains("rescue") || [".old", ".gz", ".bak", ".hmac"].iter().any(|end| name.ends_with(end)) {
        return None;
    }
    let image = format!("/boot/{name}");
    Some(Kernel { image, ramdisk: ramdisk(version, listing), version: version.to_owned(), words: Vec::new() })
}

fn ramdisk(version: &str, listing: &Listing) -> Option<String> {
    let with = |name: String| listing.boot.contains(&name).then(|| format!("/boot/{name}"));
    if version.is_empty() {
        // Debian's links, and Arch Linux ARM's only one.
        return ["initrd.img", "initrd", "initramfs-linux.img"].iter().find_map(|name| with((*name).to_owned()));
    }
    let names = [
        format!("initrd.img-{version}"),
        format!("initramfs-{version}.img"),
        format!("initrd-{version}"),
        format!("initramfs-{version}"),
        format!("initrd-{version}.img"),
    ];
    names.into_iter().find_map(with)
}

/// A file of the Boot Loader Specification, type 1.
fn entry(name: &str, text: &str, listing: &Listing) -> Option<Kernel> {
    let value =
        |key: &str| text.lines().filter_map(|l| l.trim().split_once(char::is_whitespace)).find(|(k, _)| *k == key);
    let value = |key: &str| value(key).map(|(_, v)| v.trim());
    let image = in_boot(value("linux")?);
    if name.contains("rescue") || image.contains("rescue") {
        return None;
    }
    // A file that is gone makes an entry of the past.
    let there = |path: &str| match path.strip_prefix("/boot/") {
        Some(name) if !name.contains('/') => listing.boot.iter().any(|b| b == name),
        _ => true,
    };
    if !there(&image) {
        return None;
    }
    let ramdisk = value("initrd").map(|v| in_boot(v.split_whitespace().next().unwrap_or(v))).filter(|path| there(path));
    let version = value("version").map_or_else(|| name.trim_end_matches(".conf").to_owned(), str::to_owned);
    let words = value("options").unwrap_or_default().split_whitespace().filter(|w| is_ours(w)).map(str::to_owned);
    Some(Kernel { image, ramdisk, version, words: words.collect() })
}

/// Paths in entries begin where the boot partition does.
fn in_boot(path: &str) -> String {
    let path = path.trim_start_matches('/');
    if path.starts_with("boot/") { format!("/{path}") } else { format!("/boot/{path}") }
}

/// Whether a word says nothing of the machine it was written on.
fn is_ours(word: &str) -> bool {
    const OTHERS: [&str; 9] =
        ["root=", "rootflags=", "rootfstype=", "resume=", "BOOT_IMAGE=", "initrd=", "console=", "rd.", "$"];
    word != "ro" && word != "rw" && !OTHERS.iter().any(|other| word.starts_with(other))
}

/// Numbers in names are compared as numbers, the rest as text.
fn by_version(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        let mut out: Vec<(u64, String)> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (text, behind) = rest.split_at(word);
            let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
            out.push((behind[..digits].parse().unwrap_or_default(), text.to_owned()));
            rest = &behind[digits..];
        }
        out
    };
    let (a, b) = (parts(a), parts(b));
    let pairs = a.iter().zip(&b).map(|((n, s), (m, t))| s.cmp(t).then(n.cmp(m)));
    pairs.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// The words by which a kernel finds a root that is a file system without a partition table, on the first disk. `console` is the
/// profile's. Without a RAM disk only names that the kernel itself knows can be said.
pub fn words(kernel: &Kernel, uuid: &str, console: &str) -> String {
    let root = match kernel.ramdisk {
        Some(_) => format!("root=UUID={uuid}"),
        None => "root=/dev/vda rootfstype=ext4".to_owned(),
    };
    let mut words = vec![root, "rw".to_owned(), format!("console={console}")];
    words.extend(kernel.words.iter().cloned());
    words.join(" ")
}

/// What a tree without a kernel needs, to be installed by its own package manager (`id` and `like` are os-release's ID and ID_LIKE,
/// `arch` the profile's name); `None` where it is not known.
pub fn packages(id: &str, like: &str, arch: &str) -> Option<&'static [&'static str]> {
    let family = std::iter::once(id).chain(like.split_whitespace());
    family.into_iter().find_map(|family| for_family(family, arch))
}

fn for_family(family: &str, arch: &str) -> Option<&'static [&'static str]> {
    Some(match (family, arch) {
        ("debian", "amd64") => &["linux-image-amd64", "initramfs-tools"],
        ("debian", "arm64") => &["linux-image-arm64", "initramfs-tools"],
        ("debian", "armhf") => &["linux-image-armmp", "initramfs-tools"],
        ("debian", "riscv64") => &["linux-image-riscv64", "initramfs-tools"],
        ("ubuntu", "amd64" | "arm64") => &["linux-image-virtual", "initramfs-tools"],
        ("ubuntu", "armhf" | "riscv64") => &["linux-image-generic", "initramfs-tools"],
        ("alpine", "amd64" | "arm64") => &["linux-virt"],
        ("alpine", _) => &["linux-lts"],
        ("fedora" | "rhel" | "centos", _) => &["kernel-core", "dracut"],
        ("suse" | "opensuse" | "opensuse-tumbleweed" | "opensuse-leap", _) => &["kernel-default-base", "dracut"],
        ("arch", "amd64") => &["linux", "mkinitcpio"],
        ("archarm", "arm64") => &["linux-aarch64"],
        ("archarm", "armhf") => &["linux-armv7"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(boot: &[&str], modules: &[&str]) -> Listing {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Listing { boot: owned(boot), modules: owned(modules), ..Listing::default() }
    }

    fn found(listing: &Listing) -> (String, Option<String>) {
        find(listing).map(|k| (k.image, k.ramdisk)).unwrap()
    }

    #[test]
    fn debian_takes_the_newest_by_number() {
        let tree = listing(
            &[
                "System.map-6.1.0-9-arm64",
                "config-6.1.0-10-arm64",
                "initrd.img-6.1.0-10-arm64",
                "initrd.img-6.1.0-9-arm64",
                "vmlinuz-6.1.0-10-arm64",
                "vmlinuz-6.1.0-9-arm64",
                "vmlinuz-6.1.0-11-arm64.old",
            ],
            &["6.1.0-9-arm64", "6.1.0-10-arm64"],
        );
        let expected = ("/boot/vmlinuz-6.1.0-10-arm64".into(), Some("/boot/initrd.img-6.1.0-10-arm64".into()));
        assert_eq!(found(&tree), expected);
        let kernel = find(&tree).unwrap();
        assert_eq!(words(&kernel, "6ba7b810", "ttyAMA0"), "root=UUID=6ba7b810 rw console=ttyAMA0");
    }

    #[test]
    fn one_without_a_ram_disk_comes_after_one_with() {
        let tree = listing(&["vmlinuz-6.9.0", "vmlinuz-6.8.0", "initrd.img-6.8.0"], &["6.8.0", "6.9.0"]);
        assert_eq!(found(&tree).0, "/boot/vmlinuz-6.8.0");
        let bare = listing(&["Image-6.9.0", "vmlinux-6.10.0"], &[]);
        let kernel = find(&bare).unwrap();
        assert_eq!(kernel.image, "/boot/vmlinux-6.10.0");
        assert_eq!(words(&kernel, "x", "ttyS0"), "root=/dev/vda rootfstype=ext4 rw console=ttyS0");
    }

    #[test]
    fn flavours_and_links() {
        for (boot, image, ramdisk) in [
            (&["vmlinuz-virt", "initramfs-virt", "config-virt"][..], "vmlinuz-virt", "initramfs-virt"),
            (
                &["vmlinuz-linux", "initramfs-linux.img", "initramfs-linux-fallback.img"],
                "vmlinuz-linux",
                "initramfs-linux.img",
            ),
            (&["Image", "initramfs-linux.img", "dtbs"], "Image", "initramfs-linux.img"),
            (&["Image-6.4.0-1-default", "initrd-6.4.0-1-default"], "Image-6.4.0-1-default", "initrd-6.4.0-1-default"),
            (&["vmlinuz", "vmlinuz.old", "initrd.img"], "vmlinuz", "initrd.img"),
        ] {
            let expected = (format!("/boot/{image}"), Some(format!("/boot/{ramdisk}")));
            assert_eq!(found(&listing(boot, &[])), expected);
        }
        assert_eq!(find(&listing(&["grub", "efi", "config-6.1", "vmlinuz-0-rescue-1234"], &["6.1"])), None);
    }

    #[test]
    fn fedora_by_its_entries_or_its_modules() {
        let newest = "title Fedora Linux (6.10.3)\nversion 6.10.3-200.fc40.aarch64\nlinux /vmlinuz-6.10.3-200.fc40.aarch64\n\
                      initrd /initramfs-6.10.3-200.fc40.aarch64.img $tuned_initrd\n\
                      options root=UUID=1234 ro rootflags=subvol=root rd.luks.uuid=5 quiet $tuned_params\n";
        let older = newest.replace("6.10.3", "6.9.12");
        let mut tree = listing(
            &[
                "vmlinuz-6.10.3-200.fc40.aarch64",
                "vmlinuz-6.9.12-200.fc40.aarch64",
                "initramfs-6.10.3-200.fc40.aarch64.img",
                "initramfs-6.9.12-200.fc40.aarch64.img",
                "vmlinuz-0-rescue-77",
            ],
            &[],
        );
        tree.entries = vec![
            ("77-0-rescue.conf".into(), "linux /vmlinuz-0-rescue-77\n".into()),
            ("77-6.10.3-200.fc40.aarch64.conf".into(), newest.into()),
            ("77-6.9.12-200.fc40.aarch64.conf".into(), older),
            ("77-6.11.conf".into(), "version 6.11\nlinux /vmlinuz-6.11\n".into()),
        ];
        let kernel = find(&tree).unwrap();
        assert_eq!(kernel.image, "/boot/vmlinuz-6.10.3-200.fc40.aarch64");
        assert_eq!(kernel.ramdisk.as_deref(), Some("/boot/initramfs-6.10.3-200.fc40.aarch64.img"));
        assert_eq!(kernel.words, ["quiet"]);

        let bare = Listing { in_modules: vec!["6.9.1".into(), "6.10.1".into()], ..Listing::default() };
        assert_eq!(found(&bare), ("/usr/lib/modules/6.10.1/vmlinuz".into(), None));
    }

    #[test]
    fn what_to_install() {
        assert_eq!(packages("raspbian", "debian", "armhf"), Some(&["linux-image-armmp", "initramfs-tools"][..]));
        assert_eq!(packages("ubuntu", "debian", "arm64"), Some(&["linux-image-virtual", "initramfs-tools"][..]));
        assert_eq!(packages("rocky", "rhel centos fedora", "arm64"), Some(&["kernel-core", "dracut"][..]));
        assert_eq!(packages("nixos", "", "arm64"), None);
    }
}
