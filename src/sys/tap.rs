//! Network interfaces whose other end is an open file: what a guest's card leads to when it is on a bridge of the host's. What a newcomer would get
//! wrong: such an interface lives as long as somebody has its file open, so nothing has to be undone. Sources:
//! Documentation/networking/tuntap.rst, netdevice(7), include/uapi/linux/if_bridge.h.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// _IOW('T', 202, int): makes an interface, of the kind that these flags say: Ethernet, without a header of tun's own, with one of
/// virtio's, by which checksums may be left to the other end.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;
/// Puts an interface on a bridge.
const SIOCBRADDIF: libc::Ioctl = 0x89a2;

/// `struct ifreq` with the parts that are used here.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: Value,
}

#[repr(C)]
union Value {
    flags: libc::c_short,
    index: libc::c_int,
    room: [u8; 24],
}

impl Request {
    fn new(name: &str) -> io::Result<Request> {
        let mut request = Request { name: [0; libc::IFNAMSIZ], value: Value { room: [0; 24] } };
        if name.len() >= libc::IFNAMSIZ || name.contains('/') {
            let why = format!("'{name}' is no name for a network interface: at most 15 letters");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(request)
    }

    fn ask(&mut self, fd: &OwnedFd, what: libc::Ioctl) -> io::Result<()> {
        // SAFETY: the kernel reads and writes a `struct ifreq`, whose size and layout this has.
        if unsafe { libc::ioctl(fd.as_raw_fd(), what, std::ptr::from_mut(self)) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// A new interface of this name on a bridge, up; its other end. Errors: as open(2) of /dev/net/tun, EBUSY for a name that is in use,
/// ENODEV without such a bridge; nothing is left then.
pub fn on_bridge(name: &str, bridge: &str) -> io::Result<OwnedFd> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let tap = OwnedFd::from(device);
    let mut request = Request::new(name)?;
    request.value.flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    request.ask(&tap, TUNSETIFF)?;
    let socket = socket()?;
    let mut link = Request::new(bridge)?;
    link.value.index = index(&socket, name)?;
    link.ask(&socket, SIOCBRADDIF).map_err(|e| io::Error::new(e.kind(), format!("bridge '{bridge}': {e}")))?;
    let mut up = Request::new(name)?;
    up.ask(&socket, libc::SIOCGIFFLAGS)?;
    // SAFETY: the kernel has just written the flags.
    up.value.flags = unsafe { up.value.flags } | libc::IFF_UP as libc::c_short;
    up.ask(&socket, libc::SIOCSIFFLAGS)?;
    Ok(tap)
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; what comes back is checked.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn index(socket: &OwnedFd, name: &str) -> io::Result<libc::c_int> {
    let mut request = Request::new(name)?;
    request.ask(socket, libc::SIOCGIFINDEX)?;
    // SAFETY: the kernel has just written it.
    Ok(unsafe { request.value.index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fit_the_kernel() {
        assert_eq!(std::mem::size_of::<Request>(), std::mem::size_of::<libc::ifreq>());
        assert!(Request::new("a-name-that-is-too-long").is_err());
        assert_eq!(&Request::new("vif1.0").unwrap().name[..7], b"vif1.0\0");
    }

    #[test]
    fn no_bridge_leaves_nothing() {
        if !nix::unistd::geteuid().is_root() || !std::path::Path::new("/dev/net/tun").exists() {
            // As a user there is nothing to be left.
            assert!(on_bridge("pronto-test", "no-such-br").is_err());
            return;
        }
        let error = on_bridge("pronto-test", "no-such-br").unwrap_err();
        assert!(error.to_string().contains("no-such-br"), "{error}");
        let all = std::fs::read_dir("/sys/class/net").unwrap().flatten();
        assert!(!all.map(|e| e.file_name()).any(|name| name.to_string_lossy().starts_with("pronto")));
    }
}
