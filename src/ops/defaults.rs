//! What holds where neither an option nor a key says otherwise: `/etc/pronto/pronto.toml` (`DIR/pronto.toml` with `--root DIR`). What a
//! newcomer would get wrong: the file need not be there, and what it says of guests that it does not fit is no error: it was
//! written for all of them.
//!
//! ```toml
//! [accel]
//! mode = "build"                 # off, tools, build: as --accel
//! exclude = ["git", "gawk"]      # as --accel-exclude
//! ```

use serde::Deserialize;

use super::{Error, Result};
use crate::domain::Accel;
use crate::store::Store;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Native programs in foreign guests.
    pub accel: Native,
}

/// `[accel]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Native {
    /// How much is native.
    pub mode: Accel,
    /// What stays emulated all the same.
    pub exclude: Vec<String>,
}

impl Defaults {
    /// Reads a store's file. Who may not read it, as no user but root may, gets what holds without one. Errors: it cannot be read, or says
    /// what is not known.
    pub fn load(store: &Store) -> Result<Defaults> {
        use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
        let path = store.defaults();
        let failed = |what: &str| Error::general(format!("{} {what}", path.display()));
        let text = match std::fs::read_to_string(&path) {
            Err(e) if matches!(e.kind(), NotFound | NotADirectory | PermissionDenied) => return Ok(Defaults::default()),
            other => other.map_err(|e| failed("cannot be read").because(e))?,
        };
        toml::from_str(&text).map_err(|e| failed("cannot be used").because(e.message().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(&dir.path().join("s")));
        assert_eq!(Defaults::load(&store).unwrap(), Defaults::default());
        store.open().unwrap();
        assert_eq!(Defaults::load(&store).unwrap(), Defaults::default());
        let read = |text: &str| {
            crate::sys::fs::write_atomic(&store.defaults(), text.as_bytes(), 0o600).unwrap();
            Defaults::load(&store).map(|all| (all.accel.mode, all.accel.exclude)).map_err(|error| error.in_short())
        };
        assert_eq!(
            read("[accel]\nmode = \"tools\"\nexclude = [\"git\"]\n"),
            Ok((Accel::Tools, vec!["git".to_owned()]))
        );
        assert_eq!(read(""), Ok((Accel::Off, vec![])));
        for (text, why) in [
            ("[accel]\nmodes = \"x\"", "unknown field `modes`"),
            ("[acel]\n", "unknown field `acel`"),
            ("[accel]\nmode = \"fast\"", "unknown variant `fast`"),
            ("[accel]\nexclude = \"git\"", "invalid type"),
            ("=", "cannot be used"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why) && error.contains("pronto.toml"), "{error}");
        }
    }
}
