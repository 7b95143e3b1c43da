//! Readers of options whose value is one of a few words, or in words of xl's: backend, network, accelerator, disk, interface, port. Keys of a
//! configuration have readers of their own ([`crate::domain::xlcfg`]). What a newcomer would get wrong: `--accel` has two meanings, and which of
//! them is possible depends on whose kernel the guest runs on; that is seen to where both are known ([`super::request`]).

use std::net::IpAddr;

use crate::domain::full::Publish;
use crate::domain::xlcfg::disk::DiskSpec;
use crate::domain::xlcfg::vif::VifSpec;
use crate::domain::xlcfg::{Accelerator, BackendChoice};
use crate::domain::{Accel, Network, Registry};

/// Reads a backend's name. Errors: there is none of that name.
pub fn backend(text: &str) -> Result<BackendChoice, String> {
    match text {
        "auto" => Ok(BackendChoice::Auto),
        "nspawn" | "kaxon" | "kx" => Ok(BackendChoice::Kaxon),
        "hexagon" | "hx" => Ok(BackendChoice::Hexagon),
        "qemu" => Ok(BackendChoice::Qemu),
        "xen" => Ok(BackendChoice::Xen),
        other => Err(format!("'{other}' is no backend: nspawn (kaxon, kx), qemu, xen, hexagon (hx) or auto")),
    }
}

/// Reads `host` or `none`. Errors: anything else.
pub fn network(text: &str) -> Result<Network, String> {
    match text {
        "host" => Ok(Network::Host),
        "none" => Ok(Network::None),
        other => Err(format!("'{other}' is no network: host or none")),
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
pub fn native(text: &str) -> Result<Accel, String> {
    match text {
        "off" => Ok(Accel::Off),
        "tools" => Ok(Accel::Tools),
        "build" => Ok(Accel::Build),
        other => Err(format!("'{other}' says not which programs are native: off, tools or build")),
    }
}

/// Reads `kvm`, `tcg`, or what [`native`] does. Errors: anything else.
pub fn accelerator(text: &str) -> Result<Accelerator, String> {
    match text {
        "kvm" => Ok(Accelerator::Kvm),
        "tcg" => Ok(Accelerator::Tcg),
        _ => native(text).map(Accelerator::Native).map_err(|_| {
            format!("'{text}' is no way to run a guest faster: off, tools or build; kvm or tcg for one with a kernel of its own")
        }),
    }
}

/// `--accel` of one command in a domain that runs: it can only turn native programs off. Errors: anything else than `off`, with what to do.
pub fn no_accel(text: &str) -> Result<Accel, String> {
    match native(text)? {
        Accel::Off => Ok(Accel::Off),
        other => Err(format!(
            "which programs are native is said when a domain is started: pronto shutdown -w NAME, pronto start --accel {other} NAME"
        )),
    }
}

/// Checks a disk in xl's words, and gives them back. Errors: see [`DiskSpec::parse`].
pub fn disk(text: &str) -> Result<String, String> {
    DiskSpec::parse(&[text]).map(|_| text.to_owned())
}

/// Checks a network interface in xl's words, and gives them back. Errors: see [`VifSpec::from_words`], which knows every word.
pub fn vif(text: &str) -> Result<String, String> {
    VifSpec::from_words(&[text]).map(|_| text.to_owned())
}

/// Reads `[ADDR:]HOST:GUEST[/tcp|/udp]`, where an IPv6 address stands in brackets. Errors: anything else.
pub fn publish(text: &str) -> Result<Publish, String> {
    let wrong = || format!("'{text}' is no port that leads into a guest: write [ADDR:]HOST:GUEST[/udp], as 8080:80");
    let (ports, udp) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.split('/').next().unwrap_or(text), false),
        Some((ports, "udp")) => (ports, true),
        Some(_) => return Err(wrong()),
    };
    let (rest, guest) = ports.rsplit_once(':').ok_or_else(wrong)?;
    let (address, host) = rest.rsplit_once(':').map_or((None, rest), |(address, host)| (Some(address), host));
    let port = |digits: &str| {
        let plain = digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|&port| plain && port > 0).ok_or_else(wrong)
    };
    let address = address.map(|text| ip(text).ok_or_else(wrong)).transpose()?;
    Ok(Publish { address, host: port(host)?, guest: port(guest)?, udp })
}

fn ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_lead_into_a_guest() {
        let made = |address: Option<&str>, host, guest, udp| {
            Ok(Publish { address: address.map(|text| text.parse().unwrap()), host, guest, udp })
        };
        for (text, want) in [
            ("8080:80", made(None, 8080, 80, false)),
            ("8080:80/tcp", made(None, 8080, 80, false)),
            ("53:53/udp", made(None, 53, 53, true)),
            ("127.0.0.1:2222:22", made(Some("127.0.0.1"), 2222, 22, false)),
            ("[::1]:2222:22", made(Some("::1"), 2222, 22, false)),
        ] {
            assert_eq!(publish(text), want, "{text}");
        }
        for bad in [
            "",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "+1:2",
            "1:65536",
            "::1:1:2",
            "h:1:2",
            "1:2/sctp",
            "1:2/",
            "1:2/udp/udp",
        ] {
            assert!(publish(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_meanings_of_accel() {
        assert_eq!(accelerator("kvm"), Ok(Accelerator::Kvm));
        assert_eq!(accelerator("build"), Ok(Accelerator::Native(Accel::Build)));
        assert!(accelerator("fast").unwrap_err().contains("kvm or tcg"));
        assert_eq!(no_accel("off"), Ok(Accel::Off));
        assert!(no_accel("build").is_err() && no_accel("kvm").is_err());
    }

    #[test]
    fn devices_in_words() {
        assert_eq!(disk("a.img,raw,xvdb").as_deref(), Ok("a.img,raw,xvdb"));
        assert!(disk("a.img").is_err());
        assert_eq!(vif("mac=0:1:2:3:4:5,bridge=br0").as_deref(), Ok("mac=0:1:2:3:4:5,bridge=br0"));
        assert!(vif("birdge=br0").unwrap_err().contains("bridge"));
    }
}
