//! The catalogue: labels `distro/release` and where each comes from, in a data file. What a newcomer would get wrong: sources
//! are tried in order, and the catalogue says nothing about platforms: the source does.

use std::sync::OnceLock;

use serde::Deserialize;

pub use super::template::Template;

static DATA: &str = include_str!("catalogue.toml");

/// Who manages the packages of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Debian, Ubuntu.
    Apt,
    /// Fedora, RHEL and kin.
    Dnf,
    /// openSUSE, SLES.
    Zypper,
    /// Arch Linux.
    Pacman,
    /// Alpine.
    Apk,
}

/// One way to get an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// An image in a registry.
    Oci(String),
    /// An image of linuxcontainers.org or the server that is configured in its place, `DISTRO/RELEASE`; it has an init.
    Streams(String),
    /// A tarball of the distribution's own, for each architecture.
    Tarball(Template),
    /// A suite that mmdebstrap can build from the host's configured mirror.
    Bootstrap(String),
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// `distro/release`.
    pub label: String,
    /// Other spellings.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Who manages its packages.
    pub family: Family,
    /// Where it comes from, best first; never empty.
    pub sources: Vec<Source>,
    /// When it was last booted for real (`2026-01-31`), or `never`.
    pub booted: String,
    /// What a user should know before using it.
    #[serde(default)]
    pub note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    image: Vec<Row>,
}

/// All rows, in the order of the file.
pub fn rows() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| match toml::from_str::<File>(DATA) {
        Ok(file) => file.image,
        // A test parses the file that is built in, so this cannot be reached by a program that was tested.
        Err(error) => unreachable!("the catalogue that is built in is malformed: {error}"),
    })
}

/// The row of a label or of another spelling of it.
pub fn lookup(word: &str) -> Option<&'static Row> {
    rows().iter().find(|row| row.label == word || row.aliases.iter().any(|a| a == word))
}

/// Whether a word is a label or another spelling of one.
pub fn is_label(word: &str) -> bool {
    lookup(word).is_some()
}

/// The labels in their main spelling.
pub fn labels() -> impl Iterator<Item = &'static str> {
    rows().iter().map(|row| row.label.as_str())
}

/// The label or spelling that is nearest to a word, when one is near enough to be meant.
pub fn nearest(word: &str) -> Option<&'static str> {
    let all = rows().iter().flat_map(|row| std::iter::once(&row.label).chain(&row.aliases));
    let near = all.map(|label| (distance(word, label), label.as_str())).min()?;
    (near.0 <= 1 + word.len() / 5).then_some(near.1)
}

/// Edits (insert, delete, replace) between two words, by bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::reference;
    use std::collections::HashSet;

    #[test]
    fn every_row_is_sound() {
        let mut seen = HashSet::new();
        for row in rows() {
            let (distro, release) = row.label.split_once('/').unwrap();
            assert!(!distro.is_empty() && !release.is_empty() && !release.contains('/'), "{}", row.label);
            for name in std::iter::once(&row.label).chain(&row.aliases) {
                assert!(seen.insert(name.clone()), "{name} stands twice");
            }
            assert!(!row.sources.is_empty(), "{}", row.label);
            for source in &row.sources {
                if let Source::Oci(text) = source {
                    let parsed = reference::parse(text).unwrap();
                    assert_eq!(parsed.to_string(), *text, "{}: spell it in full", row.label);
                    assert!(matches!(parsed, reference::ImageRef::Registry(_)));
                }
                if let Source::Streams(path) = source {
                    let parsed = reference::parse(&format!("images:{path}")).unwrap();
                    assert_eq!(parsed.to_string(), format!("images:{path}/default"), "{}", row.label);
                }
                if let Source::Tarball(at) = source {
                    assert!(at.url.starts_with("http") && at.url.contains("{arch}"), "{}", row.label);
                    assert_eq!(at.platforms().len(), at.arches.len(), "{}: an unknown architecture", row.label);
                }
            }
            let bootstrap = row.sources.iter().any(|s| matches!(s, Source::Bootstrap(_)));
            assert_eq!(bootstrap, matches!(distro, "debian" | "ubuntu"), "{}", row.label);
            let date = row.booted.len() == 10 && row.booted.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            assert!(row.booted == "never" || date, "{}: {}", row.label, row.booted);
        }
        for distro in
            "debian ubuntu fedora opensuse centos rockylinux almalinux amazonlinux oraclelinux archlinux sles ubi \
                       alpine raspbian"
                .split(' ')
        {
            assert!(labels().any(|l| l.starts_with(&format!("{distro}/"))), "{distro}");
        }
    }

    /// The labels of the forerunner, each still known.
    #[test]
    fn the_old_labels_still_work() {
        for old in "debian-stretch debian-9 debian-buster debian-10 debian-bullseye debian-11 debian-bookworm debian-12 \
                    debian-sid debian-unstable ubuntu-focal ubuntu-20 ubuntu-jammy ubuntu-22 fedora-35 fedora-36 fedora-37 \
                    rhel-8 rhel-9 opensuse-leap opensuse-15 opensuse-tumbleweed opensuse-latest sles-15 sles-bci sles-latest \
                    centos-7 centos-8 centos-9 rockylinux-8 amazonlinux-2022 oraclelinux-8 archlinux-20220501"
            .split_whitespace()
        {
            assert!(is_label(old), "{old}");
        }
        assert_eq!(lookup("amazonlinux-2022").unwrap().label, "amazonlinux/2023");
        assert!(!is_label("debian") && !is_label("debian:bookworm"));
    }

    #[test]
    fn the_nearest() {
        assert_eq!(nearest("debian/bookwurm"), Some("debian/bookworm"));
        assert_eq!(nearest("fedora-36"), Some("fedora-36"));
        assert_eq!(nearest("completely-else"), None);
    }
}
