//! Unix sockets below a directory descriptor. What a newcomer would get wrong: a socket's path may be 108 bytes at most
//! (unix(7)), which a store below a long `--root` exceeds; `/proc/self/fd/N/name` never does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// Opens a directory to name sockets below it.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn short(dir: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Listens at `dir/name`; an old socket there is replaced.
pub fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let fd = directory(dir)?;
    let path = short(&fd, name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Connects to `dir/name`.
pub fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let fd = directory(dir)?;
    UnixStream::connect(short(&fd, name))
}

/// A datagram socket at `dir/name`.
pub fn datagrams(dir: &Path, name: &str) -> io::Result<UnixDatagram> {
    let fd = directory(dir)?;
    let socket = UnixDatagram::bind(short(&fd, name))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Waits until one of `fds` can be read (or written, where the flag says so) for at most `timeout` milliseconds (-1: for
/// ever); returns which are ready. A signal ends the wait early with nothing ready.
pub fn poll(fds: &[(BorrowedFd<'_>, bool)], timeout: i32) -> io::Result<Vec<bool>> {
    use nix::poll::{PollFd, PollFlags, PollTimeout};
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|(fd, write)| {
            let mut flags = PollFlags::POLLIN;
            flags.set(PollFlags::POLLOUT, *write);
            PollFd::new(*fd, flags)
        })
        .collect();
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::NONE);
    match nix::poll::poll(&mut polled, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(polled.iter().map(|p| p.any().unwrap_or(false)).collect())
}

/// Sends one descriptor over a stream, with one byte.
pub fn send_fd(stream: &UnixStream, fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let fds = [fd.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(stream.as_fd().as_raw_fd(), &[io::IoSlice::new(b"f")], &message, MsgFlags::empty(), None)?;
    Ok(())
}

/// Sends what the socket takes of `bytes`, with a descriptor along; how much that was. Nobody at the other end is EPIPE, not a signal.
pub fn send(stream: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let fds = fd.map(|fd| [fd.as_raw_fd()]);
    let message: Vec<ControlMessage<'_>> = fds.iter().map(|fds| ControlMessage::ScmRights(fds)).collect();
    let slices = [io::IoSlice::new(bytes)];
    Ok(sendmsg::<()>(stream.as_raw_fd(), &slices, &message, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Receives one descriptor. Errors: UnexpectedEof when the other side closed, InvalidData when none came.
pub fn receive_fd(stream: &UnixStream) -> io::Result<OwnedFd> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use std::os::fd::FromRawFd;
    let mut byte = [0];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let mut slices = [io::IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    if message.bytes == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            if let Some(&raw) = fds.first() {
                // SAFETY: the kernel has just installed this descriptor for us.
                return Ok(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
    }
    Err(io::Error::from(io::ErrorKind::InvalidData))
}

/// A datagram socket with an abstract name (unix(7)): no file, gone with its last holder. It tells who sent what.
pub fn abstract_datagrams(name: &str) -> io::Result<UnixDatagram> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes())?;
    let socket = UnixDatagram::bind_addr(&address)?;
    socket.set_nonblocking(true)?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::PassCred, &true)?;
    Ok(socket)
}

/// The next datagram with its sender's PID in our pid namespace (0 when the kernel does not say).
pub fn receive_from(socket: &UnixDatagram) -> io::Result<(Vec<u8>, i32)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut buffer = vec![0; 4096];
    let mut space = nix::cmsg_space!(nix::sys::socket::UnixCredentials, [std::os::fd::RawFd; 4]);
    let mut slices = [io::IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let (length, mut sender) = (message.bytes, 0);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmCredentials(who) => sender = who.pid(),
            // Descriptors (nspawn sends none) would pile up: closed at once.
            ControlMessageOwned::ScmRights(fds) => {
                for fd in fds {
                    let _ = nix::unistd::close(fd);
                }
            }
            _ => {}
        }
    }
    buffer.truncate(length);
    Ok((buffer, sender))
}
