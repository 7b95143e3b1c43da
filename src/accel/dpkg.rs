//! What dpkg knows of a tree: installed packages and their files. What a newcomer would get wrong: the tree may be one that dpkg never ran in
//! (packages that were unpacked only), so versions come from whatever file has stanzas: `status`, or apt's lists.
//! Sources: deb-control(5), deb-version(7).

use std::collections::BTreeMap;

/// A package's file, as `dpkg-deb` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    /// `sed`.
    pub name: String,
    /// `4.9-1`.
    pub version: String,
    /// Its files and links, without a slash before them: `usr/bin/sed`.
    pub files: Vec<String>,
}

impl Package {
    /// Reads the output of `dpkg-deb --field FILE Package Version` and of `dpkg-deb --contents FILE`.
    pub fn parse(fields: &str, contents: &str) -> Option<Package> {
        let field = |name: &str| {
            Some(fields.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?.trim().to_owned())
        };
        // Mode, owner, size, date, time, path; ` -> target` behind a link, ` link to target` behind a hard one.
        let file = |line: &str| {
            let kind = line.chars().next().filter(|kind| matches!(kind, '-' | 'l' | 'h'))?;
            let path = &line[line.find(" ./")? + 3..];
            let end = path.find(if kind == 'l' { " -> " } else { " link to " }).unwrap_or(path.len());
            Some(path[..end].to_owned())
        };
        Some(Package {
            name: field("Package")?,
            version: field("Version")?,
            files: contents.lines().filter_map(file).collect(),
        })
    }
}

/// The version of each package in a file of stanzas; of several versions the last one.
pub fn versions(text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut package = None;
    for line in text.lines() {
        if line.is_empty() {
            package = None;
        } else if let Some(name) = line.strip_prefix("Package: ") {
            package = Some(name.trim().to_owned());
        } else if let Some(version) = line.strip_prefix("Version: ") {
            if let Some(name) = package.take() {
                out.insert(name, version.trim().to_owned());
            }
        }
    }
    out
}

/// A version without its epoch and the distribution's revision: `1:12.2.0-14+deb12u1` is `12.2.0`.
pub fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas() {
        let text = "Package: sed\nStatus: install ok installed\nVersion: 4.9-1\n\nPackage: make\nVersion: 4.3-4.1\nDepends: x\n\nVersion: 7\n";
        let found = versions(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found["sed"].as_str(), found["make"].as_str()), ("4.9-1", "4.3-4.1"));
    }

    #[test]
    fn files_of_a_package() {
        let contents = "drwxr-xr-x root/root         0 2023-01-05 00:00 ./usr/bin/\n\
            -rwxr-xr-x root/root    133640 2023-01-05 00:00 ./usr/bin/dash\n\
            lrwxrwxrwx root/root         0 2023-01-05 00:00 ./usr/bin/sh -> dash\n\
            hrwxr-xr-x root/root         0 2023-01-05 00:00 ./usr/bin/perl5.36 link to ./usr/bin/perl\n";
        let found = Package::parse("Package: dash\nVersion: 0.5.12-2\n", contents).unwrap();
        assert_eq!((found.name.as_str(), found.version.as_str()), ("dash", "0.5.12-2"));
        assert_eq!(found.files, ["usr/bin/dash", "usr/bin/sh", "usr/bin/perl5.36"]);
        assert_eq!(Package::parse("", contents), None);
    }

    #[test]
    fn upstream_versions() {
        let pairs = [
            ("1:12.2.0-14+deb12u1", "12.2.0"),
            ("4.9-1", "4.9"),
            ("5.2.15-2+b8", "5.2.15"),
            ("1.0", "1.0"),
            ("2:a-b-3", "a-b"),
        ];
        for (version, wanted) in pairs {
            assert_eq!(upstream(version), wanted);
        }
    }
}
