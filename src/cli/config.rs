//! `key=value` words with the names and the quoting of xl.cfg, as `xl create FILE -c name="x"` takes them. What a newcomer would
//! get wrong: a key that we do not obey is refused by name, never ignored. Source: xl.cfg(5); Xen, tools/libs/util/libxlu_cfg_l.l.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{near, words, xlcfg};
use crate::domain::{Accel, Action, Backend, Network, Registry, size};

/// The keys that are obeyed.
pub const KEYS: &[&str] = &[
    "accel",
    "accel_exclude",
    "arch",
    "binfmt",
    "cpus",
    "hostname",
    "maxmem",
    "memory",
    "name",
    "network",
    "on_crash",
    "on_poweroff",
    "on_reboot",
    "userns",
    "vcpus",
];

/// What the words say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `name`.
    pub name: Option<String>,
    /// `memory`, in bytes.
    pub memory: Option<u64>,
    /// `maxmem`, in bytes.
    pub maxmem: Option<u64>,
    /// `vcpus`.
    pub vcpus: Option<u32>,
    /// `cpus`, in cpuset's list form.
    pub cpus: Option<String>,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `arch`.
    pub arch: Option<String>,
    /// `network`.
    pub network: Option<Network>,
    /// `userns`.
    pub userns: Option<bool>,
    /// `binfmt`.
    pub binfmt: Option<Registry>,
    /// `accel`.
    pub accel: Option<Accel>,
    /// `accel_exclude`, names with commas between them.
    pub accel_exclude: Option<Vec<String>>,
    /// `on_poweroff`.
    pub on_poweroff: Option<Action>,
    /// `on_reboot`.
    pub on_reboot: Option<Action>,
    /// `on_crash`.
    pub on_crash: Option<Action>,
}

/// Whether a word is `key=value` or `key += value`: a name, perhaps blanks, an equals sign. `./a=b` is a path.
pub fn is_assignment(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    let name = bytes.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    if name == 0 || bytes[0].is_ascii_digit() {
        return false;
    }
    let rest = bytes[name..].trim_ascii_start();
    rest.starts_with(b"=") || rest.starts_with(b"+=")
}

impl Settings {
    /// Obeys one word for which [`is_assignment`] holds; a later one wins over an earlier one, as in xl. Errors: a text that
    /// names the key and what is wrong with it or its value.
    pub fn obey(&mut self, word: &OsStr) -> Result<(), String> {
        let text = word.to_str().ok_or_else(|| format!("'{}' is not valid UTF-8", word.to_string_lossy()))?;
        let (key, raw) = text.split_once('=').ok_or_else(|| format!("'{text}' is no key=value"))?;
        let (key, appends) = key.trim_end().strip_suffix('+').map_or((key.trim_end(), false), |k| (k.trim_end(), true));
        if !KEYS.contains(&key) {
            return Err(refusal(key));
        }
        if appends {
            return Err(format!("'{key}' holds one value: write {key}=VALUE, not +="));
        }
        let value = unquote(raw.trim()).map_err(|why| format!("{key}: {why}"))?;
        if value.is_empty() {
            return Err(format!("'{key}=' has no value"));
        }
        self.set(key, value).map_err(|why| format!("{key}: {why}"))
    }

    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        match key {
            "name" => self.name = Some(value),
            "arch" => self.arch = Some(value),
            "hostname" => self.hostname = Some(words::hostname(&value)?),
            "memory" => self.memory = Some(memory(&value)?),
            "maxmem" => self.maxmem = Some(memory(&value)?),
            "vcpus" => self.vcpus = Some(vcpus(&value)?),
            "cpus" => self.cpus = words::cpus(&value)?,
            "network" => self.network = Some(network(&value)?),
            "userns" => self.userns = Some(truth(&value)?),
            "binfmt" => self.binfmt = Some(registry(&value)?),
            "accel" => self.accel = Some(accel(&value)?),
            "accel_exclude" => self.accel_exclude = Some(value.split(',').map(str::to_owned).collect()),
            "on_poweroff" => self.on_poweroff = Some(action(&value)?),
            "on_reboot" => self.on_reboot = Some(action(&value)?),
            "on_crash" => self.on_crash = Some(action(&value)?),
            other => return Err(format!("'{other}' is not obeyed")),
        }
        Ok(())
    }
}

fn refusal(key: &str) -> String {
    if xlcfg::HEXAGON_KEYS.contains(&key) {
        return format!("xl.cfg key '{key}' comes with the hexagon backend");
    }
    let known = KEYS.iter().chain(xlcfg::HEXAGON_KEYS).copied();
    match near::nearest(key, known).as_slice() {
        [] => format!("unknown key '{key}': the known ones are {}", KEYS.join(", ")),
        near => format!("unknown key '{key}': did you mean {}?", near.join(" or ")),
    }
}

/// Takes a pair of `"` or `'` off; inside, a backslash keeps a quote or a backslash, as in xl.
fn unquote(raw: &str) -> Result<String, String> {
    let quote = match raw.chars().next() {
        Some(q @ ('"' | '\'')) => q,
        Some('[') => return Err(format!("{raw} is a list: write one value; lists come with the hexagon backend")),
        _ => return Ok(raw.to_owned()),
    };
    let mut value = String::new();
    let mut rest = raw[1..].chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some(kept @ ('"' | '\'' | '\\')) => value.push(kept),
                _ => return Err(format!("in {raw} a backslash may only stand before a quote or a backslash")),
            },
            c if c == quote => {
                let after = rest.as_str().trim_matches([' ', '\t', ';', '\n']);
                return if after.is_empty() {
                    Ok(value)
                } else {
                    Err(format!("'{after}' stands after the closing quote: give each key a word of its own"))
                };
            }
            c => value.push(c),
        }
    }
    Err(format!("the closing {quote} of {raw} is missing"))
}

fn memory(text: &str) -> Result<u64, String> {
    match size::parse(text)? {
        0 => Err("a domain needs memory".to_owned()),
        bytes => Ok(bytes),
    }
}

fn vcpus(text: &str) -> Result<u32, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|&n| plain && (1..=4096).contains(&n))
        .ok_or_else(|| format!("'{text}' is no number of CPUs"))
}

/// Reads `host` or `none`. Errors: anything else.
pub fn network(text: &str) -> Result<Network, String> {
    match text {
        "host" => Ok(Network::Host),
        "none" => Ok(Network::None),
        other => Err(format!("'{other}' is no network of this backend: host or none")),
    }
}

/// Reads a backend's name. Errors: there is none of that name.
pub fn backend(text: &str) -> Result<Backend, String> {
    match text {
        "nspawn" | "kaxon" | "kx" => Ok(Backend::Nspawn),
        "qemu" | "hexagon" | "hx" => Ok(Backend::Qemu),
        other => Err(format!("'{other}' is no backend: nspawn (kx) or qemu (hexagon, hx)")),
    }
}

/// Reads `private` or `host`. Errors: anything else.
pub fn registry(text: &str) -> Result<Registry, String> {
    match text {
        "private" => Ok(Registry::Private),
        "host" => Ok(Registry::Host),
        other => Err(format!("'{other}' is no registry of interpreters: private or host")),
    }
}

/// Reads `off`, `tools` or `build`. Errors: anything else.
pub fn accel(text: &str) -> Result<Accel, String> {
    match text {
        "off" => Ok(Accel::Off),
        "tools" => Ok(Accel::Tools),
        "build" => Ok(Accel::Build),
        other => Err(format!("'{other}' says not which programs are native: off, tools or build")),
    }
}

/// xl writes truth as a number.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "yes" | "true" => Ok(true),
        "0" | "no" | "false" => Ok(false),
        other => Err(format!("'{other}' is neither 1 nor 0")),
    }
}

fn action(text: &str) -> Result<Action, String> {
    match text {
        "destroy" => Ok(Action::Destroy),
        "restart" => Ok(Action::Restart),
        "rename-restart" | "preserve" | "coredump-destroy" | "coredump-restart" | "soft-reset" => {
            Err(format!("'{text}' comes with the hexagon backend: destroy or restart"))
        }
        other => Err(format!("'{other}' is no action: destroy or restart")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for word in words {
            assert!(is_assignment(OsStr::new(word)), "{word}");
            settings.obey(OsStr::new(word))?;
        }
        Ok(settings)
    }

    #[test]
    fn what_is_an_assignment() {
        for yes in ["name=x", "name =x", "a=", "on_reboot='x'", "memory += 5", "_a=b", "a=b/c"] {
            assert!(is_assignment(OsStr::new(yes)), "{yes}");
        }
        for no in ["", "name", "./a=b", "=x", "a b", "debian/x", "x@sha256:a", "1a=b", "-a=b", "a:b=c"] {
            assert!(!is_assignment(OsStr::new(no)), "{no}");
        }
    }

    #[test]
    fn every_key_is_obeyed() {
        let all = read(&[
            "name=\"web 1\"",
            "memory=512",
            "maxmem = '1g'",
            "vcpus=2",
            "cpus=\"0-3,^1\"",
            "hostname=h.example",
            "arch=arm64",
            "network=none",
            "on_poweroff=restart",
            "on_reboot=\"destroy\";",
            "on_crash='restart'",
            "userns=0",
            "binfmt=host",
            "accel=build",
            "accel_exclude='make,sed'",
        ])
        .unwrap();
        let want = Settings {
            name: Some("web 1".into()),
            memory: Some(512 << 20),
            maxmem: Some(1 << 30),
            vcpus: Some(2),
            cpus: Some("0,2-3".into()),
            hostname: Some("h.example".into()),
            arch: Some("arm64".into()),
            network: Some(Network::None),
            on_poweroff: Some(Action::Restart),
            on_reboot: Some(Action::Destroy),
            on_crash: Some(Action::Restart),
            userns: Some(false),
            binfmt: Some(Registry::Host),
            accel: Some(Accel::Build),
            accel_exclude: Some(vec!["make".into(), "sed".into()]),
        };
        assert_eq!(all, want);
        for key in KEYS {
            assert_ne!(read(&[&format!("{key}=\"\"")]).unwrap_err(), refusal(key), "{key}");
        }
        assert_eq!(read(&["vcpus=2", "vcpus=3"]).unwrap().vcpus, Some(3), "the later one wins");
    }

    #[test]
    fn quoting() {
        for (raw, value) in
            [("x", "x"), ("\"a\\\"b\"", "a\"b"), ("'a\\\\'", "a\\"), ("\"it's\"", "it's"), ("'x' ;", "x")]
        {
            assert_eq!(unquote(raw).as_deref(), Ok(value), "{raw}");
        }
        for bad in ["\"x", "'x\"", "\"x\" y", "\"x\\n\"", "[1]", "\"x\\"] {
            assert!(unquote(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_obeyed_is_refused() {
        for (word, says) in [
            ("disk=['a']", "xl.cfg key 'disk' comes with the hexagon backend"),
            ("vif=1", "xl.cfg key 'vif' comes with the hexagon backend"),
            ("memroy=1", "unknown key 'memroy': did you mean memory?"),
            ("zzzzzzzzz=1", "unknown key 'zzzzzzzzz': the known ones are "),
            ("memory=0", "memory: a domain needs memory"),
            ("memory=lots", "memory: "),
            ("memory += 4", "'memory' holds one value"),
            ("vcpus=0", "vcpus: "),
            ("vcpus=+1", "vcpus: "),
            ("network=bridge", "network: 'bridge' is no network"),
            ("on_crash=preserve", "on_crash: 'preserve' comes with the hexagon backend"),
            ("on_crash=explode", "on_crash: 'explode' is no action"),
            ("hostname=a_b", "hostname: "),
            ("name=", "'name=' has no value"),
            ("cpus=[1,2]", "cpus: "),
        ] {
            let said = read(&[word]).unwrap_err();
            assert!(said.starts_with(says), "{word}: {said}");
        }
    }
}
