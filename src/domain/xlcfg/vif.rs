//! A network interface in words: `mac=00:16:3e:00:00:01,bridge=br0`. What a newcomer would get wrong: in a file the words stand in one text
//! with commas between them, and a word that is not known is passed over; after `network-attach` each is a word of its own, and is refused.
//! Source: xl-network-configuration(5); Xen, `parse_nic_config` in tools/xl/xl_parse.c.

use std::fmt;

use super::error::shown;
use super::rate::Rate;
use crate::domain::near;

/// A network interface as it was asked for. What is none was not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VifSpec {
    /// Its address.
    pub mac: Option<[u8; 6]>,
    /// The host's bridge that it is on.
    pub bridge: Option<String>,
    /// The host's interface that traffic is routed by.
    pub gatewaydev: Option<String>,
    /// Whether an emulated card stands beside the paravirtual one (HVM).
    pub kind: Option<VifType>,
    /// The emulated card.
    pub model: Option<String>,
    /// The name of the host's end.
    pub vifname: Option<String>,
    /// The script that connects it.
    pub script: Option<String>,
    /// The guest's addresses, for that script.
    pub ip: Option<String>,
    /// The domain that drives it.
    pub backend: Option<String>,
    /// How much it may send, as it was written.
    pub rate: Option<String>,
    /// Its number, instead of its place in the list.
    pub devid: Option<u32>,
    /// The most bytes of a packet.
    pub mtu: Option<u32>,
    /// VLANs, as they were written.
    pub vlan: Option<String>,
    /// Whether the guest trusts the backend.
    pub trusted: Option<bool>,
    /// xl's words for COLO, which only Xen has a use for.
    pub colo: Vec<String>,
    /// Words that mean nothing to xl, which says so and goes on.
    pub unknown: Vec<String>,
}

/// What a guest sees of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VifType {
    /// Only the paravirtual one.
    Vif,
    /// An emulated one, too.
    Ioemu,
}

const KEYS: &[&str] = &[
    "backend",
    "bridge",
    "devid",
    "gatewaydev",
    "ip",
    "mac",
    "model",
    "mtu",
    "netdev",
    "rate",
    "script",
    "trusted",
    "type",
    "untrusted",
    "vifname",
    "vlan",
];

impl VifSpec {
    /// Reads one text of a file's `vif` list; an empty one is an interface with nothing special. Errors: a value that cannot be; a word that is
    /// not known goes to `unknown`.
    pub fn parse(text: &str) -> Result<VifSpec, String> {
        let mut vif = VifSpec::default();
        for word in text.split(',').map(|word| word.trim_start_matches(' ')).filter(|word| !word.is_empty()) {
            if !vif.obey(word)? {
                vif.unknown.push(word.to_owned());
            }
        }
        Ok(vif)
    }

    /// Reads the words of `network-attach`. Errors: a value that cannot be, a word that is not known.
    pub fn from_words(words: &[&str]) -> Result<VifSpec, String> {
        let mut vif = VifSpec::default();
        // xl takes one setting in each word; several with commas are understood as well.
        for word in words.iter().flat_map(|word| word.split(',')).map(str::trim_start).filter(|word| !word.is_empty()) {
            if !vif.obey(word)? {
                return Err(not_known(word));
            }
        }
        Ok(vif)
    }

    /// The limit of what it sends. Errors: none, since it has been read before.
    pub fn limit(&self) -> Option<Rate> {
        self.rate.as_deref().and_then(|rate| Rate::parse(rate).ok())
    }

    fn obey(&mut self, word: &str) -> Result<bool, String> {
        let (key, value) = match word {
            "trusted" | "untrusted" => {
                self.trusted = Some(word == "trusted");
                return Ok(true);
            }
            _ => match word.split_once('=') {
                Some(pair) => pair,
                None => return Ok(false),
            },
        };
        let text = || Some(value.to_owned());
        match key {
            "mac" => self.mac = Some(mac(value)?),
            "bridge" => self.bridge = text(),
            "gatewaydev" | "netdev" => self.gatewaydev = text(),
            "type" => self.kind = Some(kind(value)?),
            "model" => self.model = text(),
            "vifname" => self.vifname = text(),
            "script" => self.script = text(),
            "ip" => self.ip = text(),
            "backend" => self.backend = text(),
            "rate" => {
                Rate::parse(value).map_err(|why| format!("rate: {why}"))?;
                self.rate = text();
            }
            "devid" => self.devid = Some(count("devid", value)?),
            "mtu" => self.mtu = Some(count("mtu", value)?),
            "vlan" => self.vlan = text(),
            "forwarddev" => self.colo.push(word.to_owned()),
            _ if key.starts_with("colo_") => self.colo.push(word.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The words in one text, as [`VifSpec::parse`] reads them.
impl fmt::Display for VifSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if let Some([a, b, c, d, e, g]) = self.mac {
            words.push(format!("mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"));
        }
        let kind = self.kind.map(|kind| if kind == VifType::Vif { "vif".to_owned() } else { "ioemu".to_owned() });
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        for (key, value) in [
            ("bridge", self.bridge.clone()),
            ("gatewaydev", self.gatewaydev.clone()),
            ("type", kind),
            ("model", self.model.clone()),
            ("vifname", self.vifname.clone()),
            ("script", self.script.clone()),
            ("ip", self.ip.clone()),
            ("backend", self.backend.clone()),
            ("rate", self.rate.clone()),
            ("devid", number(self.devid)),
            ("mtu", number(self.mtu)),
            ("vlan", self.vlan.clone()),
        ] {
            words.extend(value.map(|value| format!("{key}={value}")));
        }
        words.extend(self.trusted.map(|trusted| if trusted { "trusted".to_owned() } else { "untrusted".to_owned() }));
        words.extend(self.colo.iter().chain(&self.unknown).cloned());
        f.write_str(&words.join(","))
    }
}

/// The known words that are near to one that is not.
pub(super) fn near(word: &str) -> Vec<&'static str> {
    near::nearest(word.split('=').next().unwrap_or(word), KEYS.iter().copied())
}

fn not_known(word: &str) -> String {
    let what = format!("{} is no word of a network interface", shown(word));
    match near(word).as_slice() {
        [] => format!("{what}: the known ones are {}", KEYS.join(", ")),
        near => format!("{what}: did you mean {}?", near.join(" or ")),
    }
}

/// Six numbers with colons or hyphens between them; each may have one digit, as xl has it.
fn mac(text: &str) -> Result<[u8; 6], String> {
    let wrong = || format!("mac: expected an address, as 00:16:3e:12:34:56, found {}", shown(text));
    let digits = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
    let parts =
        text.split([':', '-']).map(|part| u8::from_str_radix(part, 16).ok().filter(|_| digits(part)).ok_or_else(wrong));
    parts.collect::<Result<Vec<u8>, String>>()?.try_into().map_err(|_| wrong())
}

fn kind(text: &str) -> Result<VifType, String> {
    match text {
        "vif" => Ok(VifType::Vif),
        "ioemu" => Ok(VifType::Ioemu),
        other => Err(format!("type: expected vif or ioemu, found {}", shown(other))),
    }
}

fn count(key: &str, text: &str) -> Result<u32, String> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain).ok_or_else(|| format!("{key}: expected a number, found {}", shown(text)))
}
