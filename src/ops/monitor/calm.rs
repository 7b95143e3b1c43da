//! When a guest is up whose init never says so. What a newcomer would get wrong: a moment without a script is no proof, for init may be
//! about to start the next one; so it has to last.

use crate::domain::init;

/// How many looks in a row must find nothing on its way up.
const LOOKS: u32 = 3;
/// How many must find no process but init, until that is believed.
const LONELY: u32 = 50;

/// What was seen so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Calm {
    /// Looks in a row that found nothing on its way up.
    looks: u32,
    /// Whether there was ever a process but init.
    company: bool,
}

impl Calm {
    /// Looks at a guest's processes (PIDs on the host); whether it is up.
    pub fn look(&mut self, pids: &[i32], leader: i32) -> bool {
        let others = pids.iter().filter(|pid| **pid != leader);
        self.add(&others.map(|pid| words(*pid)).collect::<Vec<_>>())
    }

    fn add(&mut self, others: &[Vec<String>]) -> bool {
        let starting = others.iter().any(|w| init::is_starting(&w.iter().map(String::as_str).collect::<Vec<_>>()));
        self.company |= !others.is_empty();
        self.looks = if starting { 0 } else { self.looks + 1 };
        self.looks >= if self.company { LOOKS } else { LONELY }
    }
}

fn words(pid: i32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).split('\0').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn it_has_to_last() {
        let (script, getty) = ([line("/bin/sh /etc/init.d/rc 2")], [line("/sbin/getty tty1")]);
        let mut calm = Calm::default();
        let seen: Vec<bool> = [&getty, &getty, &script, &getty, &getty, &getty].map(|o| calm.add(o)).to_vec();
        assert_eq!(seen, [false, false, false, false, false, true]);
        let mut lonely = Calm::default();
        assert_eq!((0..).position(|_| lonely.add(&[])), Some(LONELY as usize - 1));
    }
}
