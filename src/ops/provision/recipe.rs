//! How each family of distributions installs an init: commands and files, as data. Pure. What a newcomer would get wrong: the
//! commands are the guest's own programs and may be emulated, so they must not need a daemon, a terminal or an answer; and
//! what is written for them ([`Recipe::files`]) is taken out again, for none of it belongs in the image.
//! Sources: apt-get(8), apt.conf(5), dpkg(1), invoke-rc.d(8), dnf(8), zypper(8), pacman(8), pacman.conf(5).

use crate::ops::inspect::OsRelease;

/// Counts up when what a recipe leaves in a layer changes.
pub const VERSION: u32 = 1;
/// Where a recipe's own files lie while it is at work: a directory of the guest's root that no system has.
pub const WORKSHOP: &str = ".pronto-provision";

/// One file that is there while the commands run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path in the guest, without the leading slash.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// What it holds.
    pub text: String,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What it does, behind "cannot".
    pub what: &'static str,
    /// Its words.
    pub words: Vec<String>,
}

/// What is to be done in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The package manager's name.
    pub program: &'static str,
    /// What is installed, as people call it.
    pub goods: &'static str,
    /// Files for the commands.
    pub files: Vec<File>,
    /// Variables for them.
    pub env: Vec<(&'static str, &'static str)>,
    /// Run in this order; the first that fails ends it.
    pub commands: Vec<Command>,
    /// Whether packages come from the mirror that was asked for.
    pub mirrored: bool,
}

/// Why an image cannot be given an init.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing in it can install anything.
    #[error("it has no package manager that pronto knows (apt, dnf, yum, zypper, pacman)")]
    NoManager,
    /// Its distribution packages no systemd.
    #[error("{} has no systemd among its packages", .0.escape_debug())]
    NoSystemd(String),
    /// A mirror was asked for, but which release it shall serve is not written anywhere.
    #[error("its os-release names no release (VERSION_CODENAME) for the mirror to serve")]
    NoRelease,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Apt,
    Dnf,
    Zypper,
    Pacman,
}

/// Package managers, the one that is preferred first, and where they may lie.
const PROGRAMS: [(&str, Family); 7] = [
    ("apt-get", Family::Apt),
    ("dnf5", Family::Dnf),
    ("dnf", Family::Dnf),
    ("microdnf", Family::Dnf),
    ("yum", Family::Dnf),
    ("zypper", Family::Zypper),
    ("pacman", Family::Pacman),
];

/// Distributions without systemd, whatever they are made from.
const NEVER: [&str; 6] = ["alpine", "postmarketos", "wolfi", "chimera", "devuan", "artix"];

/// The recipe for a tree. `has` says whether a path (absolute) is in it; `mirror` is where apt shall get packages from; `kernel` names the
/// packages of a kernel, for a machine of its own.
pub fn recipe(
    os: Option<&OsRelease>,
    has: &dyn Fn(&str) -> bool,
    mirror: Option<&str>,
    kernel: Option<&[&str]>,
) -> Result<Recipe, Refusal> {
    let unknown = OsRelease::default();
    let os = os.unwrap_or(&unknown);
    if NEVER.contains(&os.id.as_str()) {
        let name = if os.name.is_empty() { &os.id } else { &os.name };
        return Err(Refusal::NoSystemd(name.clone()));
    }
    let installed = |program: &str| has(&format!("/usr/bin/{program}")) || has(&format!("/bin/{program}"));
    let there: Vec<_> = PROGRAMS.into_iter().filter(|(program, _)| installed(program)).collect();
    // A Debian may have dnf installed, too: the family that it says it is of comes first.
    let own = there.iter().find(|(_, family)| Some(*family) == said(os));
    let Some(&(program, family)) = own.or(there.first()) else { return Err(Refusal::NoManager) };
    match family {
        Family::Apt => apt(os, has, mirror, kernel),
        Family::Dnf => Ok(dnf(program, kernel)),
        Family::Zypper => Ok(zypper(kernel)),
        Family::Pacman => Ok(pacman(kernel)),
    }
}

/// What a machine of its own needs besides a kernel, under the names that Debian has for it, and most others too.
const AGENT: &str = "qemu-guest-agent";

fn goods(kernel: Option<&[&str]>) -> &'static str {
    if kernel.is_some() { "systemd and a kernel" } else { "systemd" }
}

fn install_step(kernel: Option<&[&str]>) -> &'static str {
    if kernel.is_some() { "install a kernel, systemd and a guest agent" } else { INSTALL }
}

/// The family by ID, then by each of ID_LIKE. Source: os-release(5).
fn said(os: &OsRelease) -> Option<Family> {
    std::iter::once(os.id.as_str()).chain(os.id_like.split_whitespace()).find_map(|id| {
        Some(match id {
            "debian" | "ubuntu" | "raspbian" => Family::Apt,
            "fedora" | "rhel" | "centos" | "rocky" | "almalinux" | "ol" | "amzn" => Family::Dnf,
            "suse" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" | "sles" => Family::Zypper,
            "arch" | "archarm" | "archlinux" => Family::Pacman,
            _ => return None,
        })
    })
}

fn command(what: &'static str, words: &[&str]) -> Command {
    Command { what, words: words.iter().map(|&w| w.to_owned()).collect() }
}

const INSTALL: &str = "install systemd and dbus";
const LISTS: &str = "read the package lists";

/// Debian and what is made from it. `login` is what the console starts and is no longer in every base system;
/// libpam-systemd makes a session of a login.
fn apt(
    os: &OsRelease,
    has: &dyn Fn(&str) -> bool,
    mirror: Option<&str>,
    kernel: Option<&[&str]>,
) -> Result<Recipe, Refusal> {
    // Everything runs as the guest's root: dropping to the user _apt gains nothing in a throw-away jail, and its
    // directories' owners would have to be right. No pty of apt's own, no questions, and no waiting for a disk that the
    // jail does not promise anything about anyway.
    let options = ["APT::Sandbox::User=root", "Acquire::Retries=2", "Acquire::Languages=none", "Dpkg::Use-Pty=0"];
    let mut common: Vec<String> = ["apt-get", "-q", "-y"].map(str::to_owned).into();
    let add = |words: &mut Vec<String>, option: &str| words.extend(["-o".to_owned(), option.to_owned()]);
    options.iter().for_each(|option| add(&mut common, option));
    // What starts services while packages are installed asks this one first.
    let mut files =
        vec![File { path: "usr/sbin/policy-rc.d".into(), mode: 0o755, text: "#!/bin/sh\nexit 101\n".into() }];
    if let Some(url) = mirror {
        let text = sources(os, has, url)?;
        files.push(File { path: format!("{WORKSHOP}/sources.list"), mode: 0o644, text });
        add(&mut common, &format!("Dir::Etc::SourceList=/{WORKSHOP}/sources.list"));
        add(&mut common, "Dir::Etc::SourceParts=-");
        // An archive's lists were valid until long ago.
        add(&mut common, "Acquire::Check-Valid-Until=false");
    }
    let mut install = common.clone();
    ["unsafe-io", "confdef", "confold"].iter().for_each(|o| add(&mut install, &format!("Dpkg::Options::=--force-{o}")));
    install.extend(["--no-install-recommends", "install"].map(str::to_owned));
    install.extend(["systemd", "systemd-sysv", "dbus", "libpam-systemd", "login"].map(str::to_owned));
    let mut commands = Vec::new();
    if let Some(kernel) = kernel {
        install.extend(kernel.iter().chain(&["udev", "kmod", "e2fsprogs", AGENT]).map(|&word| word.to_owned()));
        commands.push(command("prepare for a kernel", &["sh", "-c", BEFORE_INITRAMFS]));
    }
    let mut update = common;
    update.push("update".to_owned());
    commands.push(Command { what: LISTS, words: update });
    commands.push(Command { what: install_step(kernel), words: install });
    if kernel.is_some() {
        commands.push(command("tidy up behind a kernel", &["sh", "-c", AFTER_INITRAMFS]));
    }
    Ok(Recipe {
        program: "apt-get",
        goods: goods(kernel),
        files,
        env: vec![("DEBIAN_FRONTEND", "noninteractive"), ("DEBCONF_NONINTERACTIVE_SEEN", "true"), ("LC_ALL", "C")],
        commands,
        mirrored: mirror.is_some(),
    })
}

/// A RAM disk with all drivers takes minutes to pack under emulation: the first one, which is packed at once, gets those of the machines
/// that it will run on. What the guest makes later is as its distribution has it. Source: initramfs.conf(5).
const BEFORE_INITRAMFS: &str = "mkdir -p /etc/initramfs-tools/conf.d /usr/share/initramfs-tools/modules.d && \
    echo MODULES=list >/etc/initramfs-tools/conf.d/pronto && \
    printf '%s\\n' virtio_pci virtio_mmio virtio_blk virtio_scsi sd_mod xen_blkfront ext4 >/usr/share/initramfs-tools/modules.d/pronto";
const AFTER_INITRAMFS: &str = "rm -f /etc/initramfs-tools/conf.d/pronto /usr/share/initramfs-tools/modules.d/pronto";

/// One line of sources.list(5). Newer releases trust a key only where it is named.
fn sources(os: &OsRelease, has: &dyn Fn(&str) -> bool, url: &str) -> Result<String, Refusal> {
    let release = &os.version_codename;
    if release.is_empty() || !release.bytes().all(|b| b.is_ascii_alphanumeric() || b"-./_".contains(&b)) {
        return Err(Refusal::NoRelease);
    }
    let (keys, parts) = match os.id.as_str() {
        "ubuntu" => ("ubuntu-archive-keyring.gpg", "main universe"),
        _ => ("debian-archive-keyring.gpg", "main"),
    };
    let keys = format!("/usr/share/keyrings/{keys}");
    let signed = if has(&keys) { format!("[signed-by={keys}] ") } else { String::new() };
    Ok(format!("deb {signed}{url} {release} {parts}\n"))
}

/// Fedora and the Enterprise Linuxes; agetty and login are in util-linux, which their base images cut down.
fn dnf(program: &'static str, kernel: Option<&[&str]>) -> Recipe {
    let options: &[&str] = match program {
        // The stand-ins for parts of systemd that base images hold must give way to it.
        "dnf" | "dnf5" => &["-y", "--setopt=install_weak_deps=False", "--allowerasing"],
        "microdnf" => &["-y", "--setopt=install_weak_deps=0"],
        _ => &["-y"],
    };
    let mut words = [&[program], options, &["install", "systemd", "dbus", "util-linux"]].concat();
    if let Some(kernel) = kernel {
        words.extend(kernel.iter().chain(&["systemd-udev", "systemd-networkd", AGENT]));
    }
    Recipe {
        program,
        goods: goods(kernel),
        files: Vec::new(),
        env: vec![("LC_ALL", "C")],
        commands: vec![command(install_step(kernel), &words)],
        mirrored: false,
    }
}

/// openSUSE and SLES.
fn zypper(kernel: Option<&[&str]>) -> Recipe {
    let mut install =
        vec!["zypper", "--non-interactive", "install", "--no-recommends", "systemd", "dbus-1", "util-linux", "shadow"];
    if let Some(kernel) = kernel {
        install.extend(kernel.iter().chain(&["udev", "systemd-network", AGENT]));
    }
    Recipe {
        program: "zypper",
        goods: goods(kernel),
        files: Vec::new(),
        env: vec![("LC_ALL", "C")],
        commands: vec![
            command(LISTS, &["zypper", "--non-interactive", "refresh"]),
            command(install_step(kernel), &install),
        ],
        mirrored: false,
    }
}

/// Arch Linux, where installing without bringing everything up to date is not supported. pacman 7 downloads in a sandbox
/// that needs Landlock, which no emulator has: a copy of its configuration goes without.
fn pacman(kernel: Option<&[&str]>) -> Recipe {
    let configuration = format!("/{WORKSHOP}/pacman.conf");
    let copy = format!("sed '/^[[:space:]]*DownloadUser/d' /etc/pacman.conf >{configuration}");
    let install = ["pacman", "--config", &configuration, "-Syu", "--noconfirm", "--needed"];
    let mut install = [&install[..], &["systemd", "systemd-sysvcompat", "dbus"]].concat();
    if let Some(kernel) = kernel {
        install.extend(kernel.iter().chain(&[AGENT]));
    }
    Recipe {
        program: "pacman",
        goods: goods(kernel),
        files: Vec::new(),
        env: vec![("LC_ALL", "C")],
        commands: vec![
            command("read the package manager's configuration", &["sh", "-c", &copy]),
            command(install_step(kernel), &install),
        ],
        mirrored: false,
    }
}

/// The exit status of the script when the command number `n` failed.
pub fn status_of(n: usize) -> i32 {
    64 + n as i32
}

impl Recipe {
    /// The commands as one script for the guest's sh: stdin is empty, and the exit status says which one failed.
    pub fn script(&self) -> String {
        let mut script = "exec </dev/null\n".to_owned();
        for (n, command) in self.commands.iter().enumerate() {
            script += &format!("{} || exit {}\n", crate::sys::process::shell_line(&command.words), status_of(n));
        }
        script
    }

    /// Which command an exit status blames.
    pub fn failed(&self, status: i32) -> Option<&Command> {
        (0..self.commands.len()).find(|&n| status_of(n) == status).map(|n| &self.commands[n])
    }
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
