//! The choice of one platform out of those that an image has (image-spec, image-index.md). What a newcomer would get wrong:
//! nothing here falls back to another architecture. containerd offers 386 to amd64 and arm to arm64; a guest of another
//! architecture needs another interpreter, so that must be asked for.

use crate::domain::Platform;

/// What is wanted, best first: architectures and variants in OCI's names. No variant stands for the architecture's base.
pub type Wanted<'a> = &'a [(String, Option<String>)];

/// An architecture and variant in their normal form: `aarch64` is `arm64`, arm64's `v8` and amd64's `v1` go without saying,
/// other names of 32-bit arm become a variant. Source: containerd/platforms, database.go.
pub fn normal(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
    let (architecture, implied) = match architecture.as_str() {
        "x86_64" | "x86-64" => ("amd64", None),
        "aarch64" => ("arm64", None),
        "i386" | "i686" => ("386", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        "ppc64el" => ("ppc64le", None),
        "mips64el" => ("mips64le", None),
        "loongarch64" => ("loong64", None),
        other => (other, None),
    };
    let variant = variant.or(implied.map(str::to_owned));
    let variant = match (architecture, variant.as_deref()) {
        ("arm64", Some("8" | "v8" | "v8.0")) | ("amd64", Some("v1")) => None,
        ("arm", Some(number @ ("5" | "6" | "7" | "8"))) => Some(format!("v{number}")),
        _ => variant,
    };
    (architecture.to_owned(), variant)
}

/// Debian's names of architectures beside OCI's: of Ubuntu, linuxcontainers and Raspberry Pi OS, too. Source: dpkg's cputable.
const DEBIAN: &[(&str, &str, Option<&str>)] = &[
    ("amd64", "amd64", None),
    ("arm64", "arm64", None),
    ("armel", "arm", Some("v5")),
    ("armhf", "arm", Some("v7")),
    ("i386", "386", None),
    ("loong64", "loong64", None),
    ("mips64el", "mips64le", None),
    ("ppc64el", "ppc64le", None),
    ("riscv64", "riscv64", None),
    ("s390x", "s390x", None),
];

/// The platform that Debian calls `name`; kernels' names are known, too (`aarch64`).
pub fn of_debian(name: &str) -> Option<Platform> {
    let name = match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i686" => "i386",
        "armv7l" => "armhf",
        "ppc64le" => "ppc64el",
        "loongarch64" => "loong64",
        other => other,
    };
    let (_, architecture, variant) = DEBIAN.iter().find(|(debian, ..)| *debian == name)?;
    Some(Platform { architecture: (*architecture).into(), os: "linux".into(), variant: variant.map(Into::into) })
}

/// What Debian calls an OCI platform. An arm that names no variant is armhf, which is what such images hold.
pub fn debian_name(architecture: &str, variant: Option<&str>) -> Option<&'static str> {
    let (architecture, variant) = normal(architecture, variant);
    let variant = match (architecture.as_str(), variant.as_deref()) {
        ("arm", None | Some("v8")) => Some("v7"),
        ("arm", Some("v6")) => Some("v5"),
        ("amd64" | "arm64" | "arm", variant) => variant,
        // Of the others Debian has one port each.
        _ => None,
    };
    DEBIAN.iter().find(|(_, a, v)| *a == architecture && *v == variant).map(|(debian, ..)| *debian)
}

/// How well `platform` answers `wanted`: the position of the entry it meets; `None` when it meets none.
/// An arm image that names no variant may be any: it comes after those that do (the ELF files tell in the end).
pub fn rank(platform: &Platform, wanted: Wanted<'_>) -> Option<usize> {
    if !platform.os.is_empty() && platform.os != "linux" {
        return None;
    }
    let have = normal(&platform.architecture, platform.variant.as_deref());
    let exact = wanted.iter().position(|(a, v)| normal(a, v.as_deref()) == have);
    exact.or_else(|| {
        let silent = have.1.is_none() && have.0 == "arm";
        let loose = |(a, v): &(String, Option<String>)| {
            let want = normal(a, v.as_deref());
            want.0 == have.0 && (silent || (want.0 == "arm" && want.1.is_none()))
        };
        wanted.iter().position(loose).map(|at| at + wanted.len())
    })
}

/// Whether an entry of an index is an attestation of a build and not an image (BuildKit writes `unknown/unknown`).
pub fn is_attestation(platform: &Platform) -> bool {
    platform.architecture == "unknown" || platform.os == "unknown"
}

/// The index of the best platform; of equals the first, as the specification says.
pub fn best<'a>(platforms: impl IntoIterator<Item = &'a Platform>, wanted: Wanted<'_>) -> Option<usize> {
    let ranked = platforms.into_iter().enumerate().filter_map(|(at, p)| Some((rank(p, wanted)?, at)));
    ranked.min().map(|(_, at)| at)
}

/// `linux/arm64, linux/arm/v7` for a message; text from outside is escaped.
pub fn list<'a>(platforms: impl IntoIterator<Item = &'a Platform>) -> String {
    let mut names: Vec<String> = platforms.into_iter().map(|p| p.to_string().escape_debug().to_string()).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

/// What was wanted, for a message.
pub fn wanted_text(wanted: Wanted<'_>) -> String {
    let names: Vec<String> = wanted
        .iter()
        .map(|(a, v)| match v {
            Some(v) => format!("linux/{a}/{v}"),
            None => format!("linux/{a}"),
        })
        .collect();
    names.join(" or ")
}

/// The platform of the machine that this program was built for: what is wanted when nobody said.
pub fn host() -> Vec<(String, Option<String>)> {
    let name = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "mips64" => "mips64le",
        "loongarch64" => "loong64",
        other => other,
    };
    vec![(name.to_owned(), None)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        let mut parts = text.split('/');
        Platform {
            os: parts.next().unwrap().into(),
            architecture: parts.next().unwrap().into(),
            variant: parts.next().map(Into::into),
        }
    }

    fn want(list: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
        list.iter().map(|(a, v)| ((*a).to_owned(), (!v.is_empty()).then(|| (*v).to_owned()))).collect()
    }

    #[test]
    fn debian_names() {
        for (a, v, name) in [
            ("arm64", Some("v8"), Some("arm64")),
            ("arm", Some("v7"), Some("armhf")),
            ("arm", Some("v5"), Some("armel")),
            ("386", None, Some("i386")),
            ("ppc64le", None, Some("ppc64el")),
            ("amd64", Some("v3"), None),
            ("wasm", None, None),
        ] {
            assert_eq!(debian_name(a, v), name, "{a} {v:?}");
        }
    }

    #[test]
    fn normal_forms() {
        for (a, v, want_a, want_v) in [
            ("aarch64", None, "arm64", None),
            ("arm64", Some("v8"), "arm64", None),
            ("arm64", Some("v9"), "arm64", Some("v9")),
            ("x86_64", Some("v1"), "amd64", None),
            ("armhf", None, "arm", Some("v7")),
            ("arm", Some("7"), "arm", Some("v7")),
            ("i386", Some(""), "386", None),
        ] {
            assert_eq!(normal(a, v), (want_a.to_owned(), want_v.map(str::to_owned)), "{a} {v:?}");
        }
    }

    #[test]
    fn the_order_of_the_wish_decides() {
        let debian =
            ["linux/amd64", "linux/arm/v5", "linux/arm/v7", "linux/arm64/v8", "linux/386", "unknown/unknown"].map(p);
        let at = |list: &[(&str, &str)]| best(&debian, &want(list));
        assert_eq!(at(&[("arm64", "")]), Some(3));
        assert_eq!(at(&[("arm", "v7"), ("arm", "v6"), ("arm", "v5")]), Some(2));
        assert_eq!(at(&[("arm", "v6"), ("arm", "v5")]), Some(1));
        assert_eq!(at(&[("riscv64", "")]), None);
        assert_eq!(at(&[("unknown", "")]), None, "attestations are for os unknown");
        assert_eq!(best(&[p("linux/386")], &want(&[("amd64", "")])), None, "never another architecture");
        assert_eq!(best(&[p("linux/arm/v7")], &want(&[("arm64", "")])), None);
        assert_eq!(best(&[p("windows/amd64")], &want(&[("amd64", "")])), None);
        assert_eq!(best(&[p("linux/arm"), p("linux/arm/v6")], &want(&[("arm", "v7"), ("arm", "v6")])), Some(1));
        assert_eq!(best(&[p("linux/arm")], &want(&[("arm", "v5")])), Some(0), "the ELF files tell");
        assert_eq!(
            best(&[p("linux/arm64"), p("linux/arm64/v8")], &want(&[("arm64", "v8")])),
            Some(0),
            "the first of equals"
        );
        assert_eq!(best(&[p("linux/amd64/v3")], &want(&[("amd64", "")])), None);
    }

    #[test]
    fn texts() {
        assert_eq!(list(&[p("linux/arm/v7"), p("linux/amd64"), p("linux/amd64")]), "linux/amd64, linux/arm/v7");
        assert_eq!(wanted_text(&want(&[("arm", "v7"), ("arm", "v6")])), "linux/arm/v7 or linux/arm/v6");
        assert!(is_attestation(&p("unknown/unknown")) && !is_attestation(&p("linux/arm64")));
    }
}
