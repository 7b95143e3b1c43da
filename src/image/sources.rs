//! Which servers the names of images lead to: `/etc/pronto/sources.toml` (`DIR/sources.toml` with `--root DIR`). What a newcomer would
//! get wrong: the file need not be there, and what it does not say stays as it is.
//!
//! ```toml
//! [streams]
//! server = "https://images.linuxcontainers.org"        # images:DISTRO/RELEASE
//! [raspios]
//! index = "https://downloads.raspberrypi.com/os_list_imagingutility_v4.json"
//! ```

use serde::Deserialize;

use super::{Error, Result};
use crate::store::Store;

/// Where images are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The server of `images:`.
    pub streams: String,
    /// The index of Raspberry Pi's imager.
    pub raspios: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    streams: Streams,
    raspios: Raspios,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Streams {
    server: String,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raspios {
    index: String,
}

impl Default for Streams {
    fn default() -> Streams {
        Streams { server: "https://images.linuxcontainers.org".into() }
    }
}

impl Default for Raspios {
    fn default() -> Raspios {
        Raspios { index: "https://downloads.raspberrypi.com/os_list_imagingutility_v4.json".into() }
    }
}

impl Settings {
    /// Reads the store's file of settings. Errors: it cannot be read, or says what is not known.
    pub fn load(store: &Store) -> Result<Settings> {
        let path = store.sources();
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.map_err(Error::io(format!("cannot read {shown}")))?,
        };
        let malformed = |why: String| Error::Malformed { what: shown.clone(), why };
        let file: File = toml::from_str(&text).map_err(|e| malformed(e.message().to_owned()))?;
        let settings = Settings { streams: file.streams.server, raspios: file.raspios.index };
        for url in [&settings.streams, &settings.raspios] {
            let good = reqwest::Url::parse(url).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
            if !good {
                return Err(malformed(format!("'{}' is no URL of http or https", url.escape_debug())));
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(Some(&dir.path().join("s")));
        store.open().unwrap();
        let standard = Settings::load(&store).unwrap();
        assert_eq!(standard.streams, "https://images.linuxcontainers.org");
        let write = |text: &str| crate::sys::fs::write_atomic(&store.sources(), text.as_bytes(), 0o600).unwrap();
        write("[streams]\nserver = \"http://127.0.0.1:1\"\n");
        let changed = Settings::load(&store).unwrap();
        assert_eq!(changed, Settings { streams: "http://127.0.0.1:1".into(), ..standard });
        for (text, why) in [
            ("[streams]\nurl = \"x\"", "unknown field"),
            ("[streams]\nserver = \"x\"", "no URL"),
            ("[streams]\nserver = \"file:///etc\"", "no URL"),
            ("=", "cannot be used"),
        ] {
            write(text);
            let error = Settings::load(&store).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("sources.toml"), "{error}");
        }
    }
}
