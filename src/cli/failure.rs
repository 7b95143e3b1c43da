//! How a verb ends badly: the exit code, and the lines on stderr. One line for what failed, one for each cause, one for what to
//! do. What a newcomer would get wrong: xl's own sentences (a missing domain, a wrong option) are printed as they are, without
//! our name before them, since scripts compare them.

use std::io;

use super::text;
use crate::ops::{self, Kind};

/// Why there is no result.
#[derive(Debug)]
pub enum Failure {
    /// A verb failed.
    Verb(ops::Error),
    /// A sentence of xl's, as it is, with its exit code.
    Said {
        /// The sentence; may be of several lines.
        line: String,
        /// xl's exit code for it.
        code: u8,
    },
    /// The words were wrong: as xl, the sentence on stderr and then, where xl does so, the verb's help on stdout.
    Usage {
        /// The sentence.
        line: String,
        /// More about it, each on a line of its own.
        more: Vec<String>,
        /// The help for stdout.
        help: Option<String>,
    },
    /// stdout could not be written.
    Output(io::Error),
}

/// Result of a verb: its exit code.
pub type Outcome = Result<u8, Failure>;

impl From<ops::Error> for Failure {
    fn from(error: ops::Error) -> Failure {
        Failure::Verb(error)
    }
}

impl From<crate::store::Error> for Failure {
    fn from(error: crate::store::Error) -> Failure {
        Failure::Verb(error.into())
    }
}

impl Failure {
    /// Words that make no sense: what is wrong with them.
    pub fn usage(line: impl Into<String>) -> Failure {
        Failure::Usage { line: line.into(), more: Vec::new(), help: None }
    }

    /// A sentence of xl's.
    pub fn said(line: impl Into<String>, code: u8) -> Failure {
        Failure::Said { line: line.into(), code }
    }

    /// The exit code. `around` is true for what runs a command of the user's (`run`, `exec`, the short form): there the
    /// codes are docker's, so that 125 to 127 tell our failures from the command's.
    pub fn code(&self, around: bool) -> u8 {
        match self {
            Failure::Verb(error) => code_of(error.kind(), around),
            Failure::Said { code, .. } => *code,
            Failure::Usage { .. } if around => 125,
            Failure::Usage { .. } => 2,
            // What a shell shows for a program that SIGPIPE ended.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 128 + 13,
            Failure::Output(_) if around => 125,
            Failure::Output(_) => 1,
        }
    }

    /// The lines for stderr.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Failure::Verb(error) => of_verb(error),
            Failure::Said { line, .. } => line.split('\n').map(|l| text::line(l).into_owned()).collect(),
            Failure::Usage { line, more, .. } => {
                std::iter::once(line).chain(more).map(|l| text::line(l).into_owned()).collect()
            }
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Vec::new(),
            Failure::Output(error) => vec![format!("pronto: cannot write to stdout: {error}")],
        }
    }

    /// What belongs on stdout although it failed: xl prints a verb's help there.
    pub fn help(&self) -> Option<&str> {
        match self {
            Failure::Usage { help, .. } => help.as_deref(),
            _ => None,
        }
    }
}

fn code_of(kind: Kind, around: bool) -> u8 {
    match kind {
        Kind::CommandNotFound => 127,
        Kind::CommandNotExecutable => 126,
        Kind::Interrupted(signal) => u8::try_from(signal).map_or(1, |s| s.saturating_add(128)),
        Kind::NoDomain => 1,
        _ if around => 125,
        Kind::Usage => 2,
        Kind::Create => 3,
        _ => 1,
    }
}

fn of_verb(error: &ops::Error) -> Vec<String> {
    let head = if error.kind() == Kind::NoDomain { "" } else { "pronto: " };
    let mut lines = vec![text::block(head, &error.to_string())];
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(why) = cause {
        // A cause whose text the line above holds already is not worth one of its own.
        let text = why.to_string();
        if !text.trim().is_empty() && !said.contains(text.trim()) {
            lines.push(text::block("  because: ", &text));
            said = text;
        }
        cause = why.source();
    }
    lines.extend(error.cure().map(|cure| text::block("  try: ", cure)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DomainRef;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn the_chain_is_shown_once() {
        let root = Link { text: "connection refused", source: None };
        let twice = Link { text: "connection refused", source: Some(Box::new(root)) };
        let top = Link { text: "registry is out of reach: connection refused", source: Some(Box::new(twice)) };
        let error = ops::Error::general("cannot pull 'x\u{1b}'").because(top).hint("start it");
        assert_eq!(
            Failure::from(error).lines(),
            [
                "pronto: cannot pull 'x\\u{1b}'",
                "  because: registry is out of reach: connection refused",
                "  try: start it"
            ]
        );
    }

    #[test]
    fn a_missing_domain_is_said_as_xl_says_it() {
        let failure = Failure::from(ops::Error::no_domain(&DomainRef::from("nosuch")));
        assert_eq!(failure.lines(), ["nosuch is an invalid domain identifier (rc=-6)"]);
        assert_eq!((failure.code(false), failure.code(true)), (1, 1));
    }

    #[test]
    fn exit_codes() {
        for (kind, plain, around) in [
            (Kind::Usage, 2, 125),
            (Kind::NoDomain, 1, 1),
            (Kind::Create, 3, 125),
            (Kind::CommandNotFound, 127, 127),
            (Kind::CommandNotExecutable, 126, 126),
            (Kind::Interrupted(2), 130, 130),
            (Kind::Interrupted(15), 143, 143),
            (Kind::General, 1, 125),
        ] {
            let failure = Failure::from(ops::Error::new(kind, "x"));
            assert_eq!((failure.code(false), failure.code(true)), (plain, around), "{kind:?}");
        }
        assert_eq!((Failure::usage("x").code(false), Failure::usage("x").code(true)), (2, 125));
        assert_eq!(Failure::said("x", 6).code(true), 6);
    }
}
