//! `create`'s and `new`'s words apart: a configuration file, an image, and `key=value` words, which come after the file as lines of it. What a
//! newcomer would get wrong: a key that nobody knows is passed over in a file, as xl does, and named; among the words it is an error, since there
//! it is a mistyped one. Exit codes are xl's: 3 for a file that cannot be read, 1 for one that is wrong.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::failure::Failure;
use crate::domain::Report;
use crate::domain::xlcfg::{self, Config, Source, Why, keys};
use crate::ops::{self, Kind};

/// No configuration is larger, in bytes.
const MOST: u64 = 1 << 20;

/// What was given besides options.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// The image, as it was written.
    pub image: Option<OsString>,
    /// The configuration file, as messages call it.
    pub file: Option<String>,
    /// What the file and the words after it say.
    pub config: Config,
}

/// Sorts and reads them. `file` is what `-f` names. Errors: two images or files, a file that cannot be read, a wrong or unknown key.
pub fn gather(
    verb: &str,
    mut file: Option<OsString>,
    all: Vec<OsString>,
    report: &dyn Report,
) -> Result<Words, Failure> {
    let (mut image, mut pairs) = (None, Vec::new());
    for word in all {
        if xlcfg::is_assignment(word.as_bytes()) {
            pairs.push(word);
        } else if is_config(&word) {
            only(verb, "configuration file", &mut file, word)?;
        } else {
            only(verb, "image", &mut image, word)?;
        }
    }
    let mut config = file.as_deref().map(|path| read(path, report)).transpose()?.unwrap_or_default();
    for word in &pairs {
        config.add_word(word.as_bytes()).map_err(told)?;
    }
    config.check().map_err(told)?;
    refuse_unknown(&config)?;
    Ok(Words { image, file: file.map(|path| path.to_string_lossy().into_owned()), config })
}

fn only(verb: &str, what: &str, place: &mut Option<OsString>, word: OsString) -> Result<(), Failure> {
    match place {
        Some(first) => Err(Failure::usage(format!(
            "pronto: {verb} takes one {what}: both '{}' and '{}' were given",
            first.to_string_lossy(),
            word.to_string_lossy()
        ))),
        None => {
            *place = Some(word);
            Ok(())
        }
    }
}

/// Whether a word names a configuration file: one that is there, or that by its name can only be one.
fn is_config(word: &OsStr) -> bool {
    word.as_bytes().ends_with(b".cfg") && std::fs::metadata(word).map_or(true, |meta| meta.is_file())
}

fn read(path: &OsStr, report: &dyn Report) -> Result<Config, Failure> {
    let name = path.to_string_lossy().into_owned();
    let cannot = |why: String| {
        Failure::Verb(
            ops::Error::new(Kind::Create, format!("cannot read the configuration file '{name}'")).because(why),
        )
    };
    let mut text = Vec::new();
    let opened = std::fs::File::open(Path::new(path)).map_err(|why| cannot(why.to_string()))?;
    opened.take(MOST + 1).read_to_end(&mut text).map_err(|why| cannot(why.to_string()))?;
    if text.len() as u64 > MOST {
        return Err(cannot("it is larger than 1 MiB, which no xl.cfg file is".to_owned()));
    }
    // xl's own sentence, on stderr as well.
    report.note(&format!("Parsing config from {name}"));
    Config::parse(&name, &text).map_err(told)
}

/// A message of the reader's, with the exit code for where it stands.
#[expect(clippy::needless_pass_by_value, reason = "map_err hands it over")]
pub fn told(error: xlcfg::Error) -> Failure {
    let line = format!("pronto: {error}");
    match &*error.place.source {
        Source::File(_) => Failure::said(line, 1),
        Source::Word(_) | Source::Program => Failure::usage(line),
    }
}

/// Whether a key's value stands in a word of the command line, not in the file.
pub fn in_words(config: &Config, key: &str) -> bool {
    config.get(key).is_some_and(|entry| matches!(&*entry.place.source, Source::Word(_)))
}

fn refuse_unknown(config: &Config) -> Result<(), Failure> {
    for unheeded in config.unheeded(keys::Backend::Xen) {
        let (Why::Unknown(near), Source::Word(_)) = (&unheeded.why, &*unheeded.place.source) else { continue };
        let what = match unheeded.key.strip_prefix("vif: ") {
            Some(word) => format!("unknown word {word} of a network interface"),
            None => format!("unknown key {}", unheeded.key),
        };
        let cure = match near.as_slice() {
            [] => "'pronto help create' names the keys".to_owned(),
            near => format!("did you mean {}?", near.join(" or ")),
        };
        return Err(Failure::usage(format!("pronto: {what}: {cure}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Quiet;

    fn sort(words: &[&str]) -> Result<Words, Failure> {
        gather("create", None, words.iter().map(OsString::from).collect(), &Quiet)
    }

    fn says(words: &[&str]) -> (String, u8) {
        let failure = sort(words).unwrap_err();
        (failure.lines().join("\n"), failure.code(false))
    }

    #[test]
    fn words_in_any_order() {
        let words = sort(&["name=a", "./tree", "memory='1g'", "memory=512"]).unwrap();
        assert_eq!((words.image.as_deref(), words.file), (Some(OsStr::new("./tree")), None));
        assert_eq!(words.config.memory().unwrap(), Some(512 << 20), "the later one counts");
        assert!(in_words(&words.config, "memory") && !in_words(&words.config, "vcpus"));
        assert_eq!(sort(&["name=x"]).unwrap().image, None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, want, code) in [
            (&["a/b", "c/d"][..], "pronto: create takes one image: both 'a/b' and 'c/d' were given", 2),
            (&["memroy=1"], "pronto: unknown key 'memroy': did you mean memory?", 2),
            (&["zzzzzzzzz=1"], "pronto: unknown key 'zzzzzzzzz': 'pronto help create' names the keys", 2),
            (&["vif=['brigde=a']"], "pronto: unknown word 'brigde=a' of a network interface: did you mean bridge?", 2),
            (&["memory=0"], "pronto: 'memory=0': ", 2),
            (&["on_crash=explode"], "pronto: 'on_crash=explode': on_crash: expected one of destroy, ", 2),
            (&["name="], "pronto: 'name=': expected a value after =", 2),
            (
                &["/nonexistent/x.cfg"],
                "pronto: cannot read the configuration file '/nonexistent/x.cfg'\n  because: No such",
                3,
            ),
        ] {
            let (said, exit) = says(words);
            assert!(said.starts_with(want) && exit == code, "{words:?}: {said} ({exit})");
        }
    }

    #[test]
    fn a_file_comes_before_the_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.cfg");
        crate::sys::fs::write_volatile(&path, b"name = 'a'\nmemory = 64\nonpoweroff = 'x'\n", 0o644).unwrap();
        let name = path.to_str().unwrap();
        let words = sort(&["memory=128", name]).unwrap();
        assert_eq!(words.file.as_deref(), Some(name));
        assert_eq!(words.config.memory().unwrap(), Some(128 << 20));
        assert!(in_words(&words.config, "memory") && !in_words(&words.config, "name"));
        let (said, code) = says(&[name, name]);
        assert!(said.contains("takes one configuration file") && code == 2, "{said}");

        crate::sys::fs::write_volatile(&path, b"name = web\n", 0o644).unwrap();
        let (said, code) = says(&[name]);
        assert!(said.starts_with(&format!("pronto: {name}:1:8: expected a value of 'name'")) && code == 1, "{said}");
        std::fs::create_dir(dir.path().join("tree.cfg")).unwrap();
        let tree = dir.path().join("tree.cfg");
        assert_eq!(sort(&[tree.to_str().unwrap()]).unwrap().image.as_deref(), Some(tree.as_os_str()));
    }
}
