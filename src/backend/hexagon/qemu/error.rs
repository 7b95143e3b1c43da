//! What can go wrong while one talks to QEMU or to the agent in its guest. What a newcomer would get wrong: the three ways of not
//! getting an answer are different news: gone (it was killed, or crashed), silent (it hangs, or is stopped), and refusing.

use std::fmt;
use std::io;
use std::time::Duration;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The program.
    Qemu,
    /// The guest agent, which is the guest's word: it may say anything.
    Agent,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Peer::Qemu => "QEMU",
            Peer::Agent => "the guest agent",
        })
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It closed its end.
    #[error("{peer} has ended{}", during(.command))]
    Gone {
        /// Who.
        peer: Peer,
        /// What was being asked, if anything.
        command: String,
    },
    /// It did not answer.
    #[error("{peer} did not answer '{command}' within {} s: {}", .waited.as_secs_f32(), hint(*.peer))]
    Silent {
        /// Who.
        peer: Peer,
        /// What was asked.
        command: String,
        /// For how long it was waited.
        waited: Duration,
    },
    /// It answered that it will not.
    #[error("{peer} refuses '{command}': {why}")]
    Refused {
        /// Who.
        peer: Peer,
        /// What was asked.
        command: String,
        /// QMP's class of the error (`GenericError`, `DeviceNotFound`, `CommandNotFound` …).
        class: String,
        /// Its words.
        why: String,
    },
    /// It sent what makes no sense.
    #[error("{peer} sent something that is no answer: {why}")]
    Garbled {
        /// Who.
        peer: Peer,
        /// What is wrong with it.
        why: String,
    },
    /// The guest did not let go of a device.
    #[error("the guest does not let go of '{device}'{}", .waited.map_or(String::new(), |w| format!(" (asked {} s ago)", w.as_secs())))]
    Kept {
        /// The device.
        device: String,
        /// For how long it was waited; none when the guest said no.
        waited: Option<Duration>,
    },
    /// Saving or restoring failed.
    #[error("the guest's state could not be {verb}: {why}")]
    State {
        /// `saved` or `restored`.
        verb: &'static str,
        /// QEMU's words.
        why: String,
    },
    /// The socket itself failed.
    #[error("cannot talk to {peer}")]
    Io {
        /// Who.
        peer: Peer,
        /// As sendmsg(2) and recv(2).
        source: io::Error,
    },
    /// A description that cannot be turned into what QEMU takes.
    #[error(transparent)]
    Unfit(#[from] super::parts::Unfit),
}

impl Error {
    /// Whether QEMU said that it does not know such a thing.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Error::Refused { class, .. } if class == "DeviceNotFound" || class == "CommandNotFound")
    }
}

fn during(command: &str) -> String {
    if command.is_empty() { String::new() } else { format!(" while it was asked '{command}'") }
}

fn hint(peer: Peer) -> &'static str {
    match peer {
        Peer::Qemu => "it hangs or was stopped; destroy ends it",
        Peer::Agent => "is qemu-guest-agent installed and running in the guest?",
    }
}
