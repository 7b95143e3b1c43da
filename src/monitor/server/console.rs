//! The guest's console, between its terminal, the log and who looks on. What a newcomer would get wrong: nobody's slowness may stop it: a
//! full disk loses the log, a client that does not read is left behind, and a guest that does not read its input is given no more.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::super::client::Role;
use super::super::guest::Started;
use super::super::protocol::frame;
use super::Server;
use crate::sys::pty;

impl Server<'_> {
    pub(super) fn console(&mut self) {
        let mut buffer = [0; 16 << 10];
        if !self.typed.is_empty() {
            match pty_file(&self.run).write(&self.typed) {
                Ok(n) => drop(self.typed.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.typed.clear(),
            }
        }
        // EIO: nobody has the terminal open any more, which is how a guest's end looks from here.
        let read = pty_file(&self.run).read(&mut buffer);
        if let Some(bytes) = read.ok().filter(|n| *n > 0).map(|n| &buffer[..n]) {
            self.show(bytes);
            if self.guest.saw(bytes) {
                self.up();
            }
        } else {
            // Between the guest's last close and the program's end the terminal is readable without data: do not spin.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn drain_console(&mut self) {
        let mut buffer = [0; 16 << 10];
        while let Ok(n) = pty_file(&self.run).read(&mut buffer) {
            if n == 0 {
                break;
            }
            self.show(&buffer[..n]);
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        // A full disk loses the log, not the guest.
        let _ = self.log.append(bytes);
        for client in self.clients.iter_mut().filter(|c| c.role == Role::Console) {
            client.send(bytes);
        }
    }

    pub(super) fn say_on_console(&mut self, text: &str) {
        self.show(text.as_bytes());
    }

    pub(super) fn serve_console(&mut self, at: usize) {
        while let Some((kind, payload)) = self.clients[at].next_frame() {
            match (kind, payload.as_slice()) {
                (frame::INPUT, bytes) => {
                    // A guest that does not read its console must not grow the monitor.
                    if self.typed.len() < 64 << 10 {
                        self.typed.extend_from_slice(bytes);
                    }
                }
                (frame::SIZE, [a, b, c, d]) => {
                    let (rows, columns) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
                    let _ = pty::set_size(self.run.pty.as_fd(), rows, columns);
                }
                _ => self.clients[at].gone = true,
            }
        }
    }
}

fn pty_file(run: &Started) -> PtyFile<'_> {
    PtyFile(run.pty.as_fd())
}

struct PtyFile<'a>(BorrowedFd<'a>);

impl Read for PtyFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(self.0, buffer)?)
    }
}

impl Write for PtyFile<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(self.0, buffer)?)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}
