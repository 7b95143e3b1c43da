//! Scripts whose interpreter may be native. What a newcomer would get wrong: an interpreter is not a tool that is native or not. What somebody
//! else's script asks it (`perl -MConfig`, `python3 -c 'import sysconfig'`, a `setup.py`) only the guest's own can answer, and modules
//! with machine code in them are the guest's. So these are the scripts of which it is known that they ask nothing such, by the paths that
//! their packages give them; a script that is not there, or one that a newer release has besides, does no harm: it is emulated.
//! Sources: the packages' lists of files, and the modules that their scripts use, of Debian 12, 13 and unstable.

/// Scripts of one package: its name, their directory, their names and those of links to them.
pub type Scripts = (&'static str, &'static str, &'static [&'static str]);

/// Perl's.
pub const PERL: &[Scripts] = &[
    ("autoconf", "/usr/bin", &["autoheader", "autom4te", "autoreconf", "autoscan", "autoupdate", "ifnames"]),
    (
        "automake",
        "/usr/bin",
        &[
            "aclocal",
            "aclocal-1.16",
            "aclocal-1.17",
            "aclocal-1.18",
            "aclocal-1.19",
            "automake",
            "automake-1.16",
            "automake-1.17",
            "automake-1.18",
            "automake-1.19",
        ],
    ),
    ("debhelper", "/usr/bin", DEBHELPER),
    ("dh-autoreconf", "/usr/bin", &["dh_autoreconf", "dh_autoreconf_clean"]),
    ("dh-golang", "/usr/bin", &["dh_golang"]),
    ("dh-strip-nondeterminism", "/usr/bin", &["dh_strip_nondeterminism"]),
    (
        "dpkg-dev",
        "/usr/bin",
        &[
            "dpkg-architecture",
            "dpkg-buildapi",
            "dpkg-buildflags",
            "dpkg-buildpackage",
            "dpkg-buildtree",
            "dpkg-checkbuilddeps",
            "dpkg-distaddfile",
            "dpkg-genbuildinfo",
            "dpkg-genchanges",
            "dpkg-gencontrol",
            "dpkg-gensymbols",
            "dpkg-mergechangelogs",
            "dpkg-name",
            "dpkg-parsechangelog",
            "dpkg-scanpackages",
            "dpkg-scansources",
            "dpkg-shlibdeps",
            "dpkg-source",
            "dpkg-vendor",
        ],
    ),
    ("gobject-introspection", "/usr/bin", &["dh_girepository"]),
    ("help2man", "/usr/bin", &["help2man"]),
    ("intltool-debian", "/usr/share/intltool-debian", &["intltool-extract", "intltool-merge", "intltool-update"]),
    ("perl", "/usr/bin", &["pod2html", "pod2man", "pod2text", "pod2usage", "podchecker"]),
    ("pkg-kde-tools", "/usr/bin", &["pkgkde-gensymbols", "pkgkde-symbolshelper"]),
    ("po-debconf", "/usr/bin", &["debconf-gettextize", "podebconf-display-po", "podebconf-report-po"]),
    ("strip-nondeterminism", "/usr/bin", &["strip-nondeterminism"]),
    ("texinfo", "/usr/bin", &["makeinfo", "pod2texi", "texi2any"]),
];

/// Python's.
pub const PYTHON: &[Scripts] = &[
    ("dh-python", "/usr/bin", &["dh_python3", "pybuild"]),
    ("dh-python", "/usr/share/dh-python", &["dh_python3", "pybuild"]),
    ("libglib2.0-dev-bin", "/usr/bin", &["gdbus-codegen", "glib-genmarshal", "glib-mkenums"]),
    ("meson", "/usr/bin", &["meson"]),
    ("python3", "/usr/bin", &["py3clean", "py3compile", "py3versions"]),
    ("python3", "/usr/share/python3", &["py3versions.py"]),
];

const DEBHELPER: &[&str] = &[
    "dh",
    "dh_assistant",
    "dh_auto_build",
    "dh_auto_clean",
    "dh_auto_configure",
    "dh_auto_install",
    "dh_auto_test",
    "dh_bugfiles",
    "dh_builddeb",
    "dh_clean",
    "dh_compress",
    "dh_computeautosubstvars",
    "dh_dwz",
    "dh_fixperms",
    "dh_gencontrol",
    "dh_icons",
    "dh_install",
    "dh_installalternatives",
    "dh_installcatalogs",
    "dh_installchangelogs",
    "dh_installcron",
    "dh_installdeb",
    "dh_installdebconf",
    "dh_installdirs",
    "dh_installdocs",
    "dh_installemacsen",
    "dh_installexamples",
    "dh_installgsettings",
    "dh_installifupdown",
    "dh_installinfo",
    "dh_installinit",
    "dh_installinitramfs",
    "dh_installlogcheck",
    "dh_installlogrotate",
    "dh_installman",
    "dh_installmanpages",
    "dh_installmenu",
    "dh_installmime",
    "dh_installmodules",
    "dh_installpam",
    "dh_installppp",
    "dh_installsystemd",
    "dh_installsystemduser",
    "dh_installsysusers",
    "dh_installtmpfiles",
    "dh_installudev",
    "dh_installwm",
    "dh_installxfonts",
    "dh_link",
    "dh_lintian",
    "dh_listpackages",
    "dh_makeshlibs",
    "dh_md5sums",
    "dh_missing",
    "dh_movefiles",
    "dh_movetousr",
    "dh_perl",
    "dh_prep",
    "dh_shlibdeps",
    "dh_strip",
    "dh_systemd_enable",
    "dh_systemd_start",
    "dh_testdir",
    "dh_testroot",
    "dh_ucf",
    "dh_update_autotools_config",
    "dh_usrlocal",
];

/// The scripts' absolute paths.
pub fn paths(scripts: &[Scripts]) -> Vec<String> {
    let all = scripts.iter().flat_map(|(_, dir, names)| names.iter().map(move |name| format!("{dir}/{name}")));
    all.collect()
}

/// Why an interpreter is not as native as other programs, as the end of a sentence.
pub fn only_for(scripts: &[Scripts]) -> String {
    let mut packages: Vec<&str> = scripts.iter().map(|(package, ..)| *package).collect();
    packages.dedup();
    format!("it is native for the scripts of {} alone", packages.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_such_as_are_looked_up() {
        for list in [PERL, PYTHON] {
            assert!(list.is_sorted(), "{list:?}");
            let paths = paths(list);
            for path in &paths {
                // The interpreter's code neither follows a dot nor takes a long word.
                assert!(path.starts_with("/usr/") && !path.contains("/.") && path.len() < 200, "{path}");
                assert_eq!(paths.iter().filter(|other| *other == path).count(), 1, "{path}");
            }
        }
        assert!(paths(PERL).contains(&"/usr/bin/dh_strip".to_owned()));
        assert!(paths(PYTHON).contains(&"/usr/bin/meson".to_owned()));
        assert!(only_for(PYTHON).contains("of dh-python, libglib2.0-dev-bin, meson, python3 alone"));
    }
}
