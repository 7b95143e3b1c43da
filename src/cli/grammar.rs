//! What the first word means. What a newcomer would get wrong: the order. An exact verb; a verb of xl or xm; an unambiguous
//! prefix of any of these, as in xl's `cmdtable_lookup()`; an image, only when the word looks like nothing else (`/`, `:`,
//! `@`, or a label). A word that is mistyped must never go to a registry.

use super::foreign::{self, Foreign};
use super::verbs;

/// What a first word is.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// A verb of ours.
    Verb(&'static str),
    /// A verb of xl or xm that is not ours.
    Foreign(Foreign),
    /// The beginning of several verbs: ours first.
    Ambiguous(Vec<&'static str>),
    /// An image, in the short form.
    Image,
    /// Nothing; the nearest words, best first.
    Unknown(Vec<String>),
}

/// Whether a word looks like an image wherever it stands.
pub fn looks_like_image(word: &str) -> bool {
    word.contains(['/', ':', '@'])
}

/// Decides. A word that is not UTF-8 can only be a path, hence an image; the caller has seen to that.
///
/// `labels` are the catalogue's, in every spelling; they are asked for only when the word is no verb.
pub fn resolve(word: &str, labels: impl Fn() -> Vec<&'static str>) -> First {
    if let Some(verb) = verbs::names().find(|&v| v == word) {
        return First::Verb(verb);
    }
    if let Some(foreign) = foreign::find(word) {
        return First::Foreign(foreign);
    }
    match with_prefix(word).as_slice() {
        [] => {}
        &[one] => return foreign::find(one).map_or(First::Verb(one), First::Foreign),
        // `ps` is the beginning of eight psr-… commands, but whoever types it means another one.
        several if foreign::habit(word).is_none() => return First::Ambiguous(several.to_vec()),
        _ => {}
    }
    if looks_like_image(word) {
        return First::Image;
    }
    let labels = labels();
    if labels.contains(&word) {
        return First::Image;
    }
    let known: Vec<&str> = verbs::names().collect();
    First::Unknown(foreign::nearest(word, &known, &labels))
}

fn with_prefix(word: &str) -> Vec<&'static str> {
    if word.is_empty() {
        return Vec::new();
    }
    verbs::names().chain(foreign::all().map(|f| f.name)).filter(|name| name.starts_with(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<&'static str> {
        vec!["debian/bookworm", "debian-bullseye", "centos-7"]
    }

    #[test]
    fn first_words() {
        for (word, verb) in [
            ("list", "list"),
            ("li", "list"),
            ("cons", "console"),
            ("cre", "create"),
            ("dest", "destroy"),
            ("shut", "shutdown"),
            ("pau", "pause"),
            ("unp", "unpause"),
            ("reb", "reboot"),
            ("ren", "rename"),
            ("domn", "domname"),
            ("start", "start"),
            ("logs", "logs"),
            ("up", "uptime"),
            ("inf", "info"),
            ("help", "help"),
        ] {
            assert_eq!(resolve(word, labels), First::Verb(verb), "{word}");
        }
        for image in [
            "debian/bookworm",
            "debian-bullseye",
            "centos-7",
            "debian:12",
            "./x",
            "/srv",
            "x@sha256:1",
            "oci:/d:t",
            "docker-archive:x.tar",
        ] {
            assert_eq!(resolve(image, labels), First::Image, "{image}");
        }
        for word in ["", "debian", "frobnicate", "Debian-bullseye", ".", "..", "bookworm"] {
            assert!(matches!(resolve(word, labels), First::Unknown(_)), "{word}");
        }
    }

    #[test]
    fn a_foreign_verb_counts_for_prefixes() {
        assert!(matches!(resolve("log", labels), First::Foreign(f) if f.dialect == "xm"));
        assert!(matches!(resolve("sus", labels), First::Foreign(f) if f.name == "suspend"));
        assert_eq!(resolve("con", labels), First::Ambiguous(vec!["console", "config-update"]));
        assert_eq!(resolve("rm", labels), First::Unknown(vec!["delete".to_owned()]));
        assert_eq!(resolve("ps", labels), First::Unknown(vec!["list".to_owned()]));
        assert_eq!(resolve("s", labels), {
            let mut all = vec!["shutdown", "save", "start"];
            all.extend(foreign::all().map(|f| f.name).filter(|n| n.starts_with('s')));
            First::Ambiguous(all)
        });
    }
}
