//! What each family is told to do, word by word.

use super::*;

fn os(id: &str, like: &str, codename: &str) -> OsRelease {
    OsRelease { id: id.into(), id_like: like.into(), version_codename: codename.into(), ..OsRelease::default() }
}

fn of(os: &OsRelease, there: &[&str], mirror: Option<&str>) -> Result<Recipe, Refusal> {
    recipe(Some(os), &|path| there.contains(&path), mirror, None)
}

fn script(os: &OsRelease, there: &[&str]) -> String {
    of(os, there, None).unwrap().script()
}

#[test]
fn apt() {
    let debian = of(&os("debian", "", "bookworm"), &["/usr/bin/apt-get"], None).unwrap();
    assert_eq!(
        debian.script(),
        "exec </dev/null\n\
         apt-get -q -y -o APT::Sandbox::User=root -o Acquire::Retries=2 -o Acquire::Languages=none -o Dpkg::Use-Pty=0 \
         update || exit 64\n\
         apt-get -q -y -o APT::Sandbox::User=root -o Acquire::Retries=2 -o Acquire::Languages=none -o Dpkg::Use-Pty=0 \
         -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
         --no-install-recommends install systemd systemd-sysv dbus libpam-systemd login || exit 65\n"
    );
    let policy = File { path: "usr/sbin/policy-rc.d".into(), mode: 0o755, text: "#!/bin/sh\nexit 101\n".into() };
    assert_eq!(debian.files, [policy]);
    assert!(debian.env.contains(&("DEBIAN_FRONTEND", "noninteractive")));
    assert!(!debian.mirrored);
    assert_eq!(debian, of(&os("ubuntu", "debian", "noble"), &["/usr/bin/apt-get"], None).unwrap());
}

#[test]
fn apt_from_a_mirror() {
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let there = ["/usr/bin/apt-get", keys];
    let url = "http://mirror.example/debian";
    let debian = of(&os("debian", "", "buster"), &there, Some(url)).unwrap();
    let list = &debian.files[1];
    assert_eq!(list.path, ".pronto-provision/sources.list");
    assert_eq!(list.text, format!("deb [signed-by={keys}] {url} buster main\n"));
    assert!(debian.mirrored);
    let options = "-o Dir::Etc::SourceList=/.pronto-provision/sources.list -o Dir::Etc::SourceParts=- \
                   -o Acquire::Check-Valid-Until=false";
    assert_eq!(debian.script().matches(options).count(), 2, "{}", debian.script());
    let ubuntu = of(&os("ubuntu", "debian", "noble"), &there, Some(url)).unwrap();
    assert_eq!(ubuntu.files[1].text, format!("deb {url} noble main universe\n"));
    for codename in ["", "a b", "x\ny", "[trusted=yes]"] {
        assert_eq!(of(&os("debian", "", codename), &there, Some(url)), Err(Refusal::NoRelease), "{codename:?}");
    }
}

#[test]
fn dnf_and_its_relatives() {
    let install = |program: &str, options: &str| {
        format!("exec </dev/null\n{program} {options} install systemd dbus util-linux || exit 64\n")
    };
    let full = "-y --setopt=install_weak_deps=False --allowerasing";
    let fedora = os("fedora", "", "");
    assert_eq!(script(&fedora, &["/usr/bin/dnf5", "/usr/bin/dnf", "/usr/bin/yum"]), install("dnf5", full));
    assert_eq!(script(&os("rocky", "rhel centos fedora", ""), &["/usr/bin/dnf", "/usr/bin/yum"]), install("dnf", full));
    let small = "-y --setopt=install_weak_deps=0";
    assert_eq!(script(&os("rhel", "fedora", ""), &["/usr/bin/microdnf"]), install("microdnf", small));
    assert_eq!(script(&os("amzn", "centos rhel fedora", ""), &["/usr/bin/yum"]), install("yum", "-y"));
}

#[test]
fn zypper() {
    let expected = "exec </dev/null\nzypper --non-interactive refresh || exit 64\n\
        zypper --non-interactive install --no-recommends systemd dbus-1 util-linux shadow || exit 65\n";
    assert_eq!(script(&os("opensuse-leap", "suse opensuse", ""), &["/usr/bin/zypper"]), expected);
    assert_eq!(script(&os("sles", "suse", ""), &["/bin/zypper"]), expected);
}

#[test]
fn pacman() {
    let expected = "exec </dev/null\n\
        sh -c 'sed '\\''/^[[:space:]]*DownloadUser/d'\\'' /etc/pacman.conf >/.pronto-provision/pacman.conf' || exit 64\n\
        pacman --config /.pronto-provision/pacman.conf -Syu --noconfirm --needed systemd systemd-sysvcompat dbus \
        || exit 65\n";
    assert_eq!(script(&os("arch", "", ""), &["/usr/bin/pacman"]), expected);
}

#[test]
fn a_mirror_is_only_for_apt() {
    let there = ["/usr/bin/dnf", "/usr/bin/pacman", "/usr/bin/zypper"];
    for id in ["fedora", "arch", "suse"] {
        let with = of(&os(id, "", ""), &there, Some("http://m.example")).unwrap();
        assert_eq!(with, of(&os(id, "", ""), &there, None).unwrap(), "{id}");
        assert!(!with.mirrored);
    }
}

#[test]
fn what_it_says_it_is_decides_between_two() {
    let both = ["/usr/bin/dnf", "/usr/bin/apt-get"];
    assert_eq!(of(&os("debian", "", ""), &both, None).unwrap().program, "apt-get");
    assert_eq!(of(&os("fedora", "", ""), &both, None).unwrap().program, "dnf");
    assert_eq!(of(&os("nobara", "fedora", ""), &both, None).unwrap().program, "dnf");
    assert_eq!(of(&os("unheard-of", "", ""), &both, None).unwrap().program, "apt-get");
    assert_eq!(recipe(None, &|path| path == "/usr/bin/apt-get", None, None).unwrap().program, "apt-get");
}

#[test]
fn what_cannot_says_why() {
    let alpine = OsRelease { name: "Alpine Linux".into(), ..os("alpine", "", "") };
    let refused = of(&alpine, &["/sbin/apk"], None).unwrap_err();
    assert_eq!(refused.to_string(), "Alpine Linux has no systemd among its packages");
    assert!(matches!(of(&os("devuan", "debian", "daedalus"), &["/usr/bin/apt-get"], None), Err(Refusal::NoSystemd(_))));
    assert_eq!(of(&os("debian", "", "bookworm"), &[], None), Err(Refusal::NoManager));
}

#[test]
fn the_exit_status_names_the_command() {
    let debian = of(&os("debian", "", "bookworm"), &["/usr/bin/apt-get"], None).unwrap();
    assert_eq!(debian.failed(status_of(0)).unwrap().what, "read the package lists");
    assert_eq!(debian.failed(status_of(1)).unwrap().what, "install systemd and dbus");
    assert_eq!(debian.failed(status_of(2)), None);
    assert_eq!(debian.failed(1), None);
}
