//! Reads what xl says on stderr: whether a verb worked, why not, and the notices of `xl create -F`.
//!
//! What a newcomer would get wrong: the exit code is not enough. `xl block-list nosuch` and `xl pause 0` fail with 0; a missing domain and a bad
//! configuration are both 1. And one fault comes as a stack of lines, of which the first is the cause and the others are what it led to.

use super::output::Reason;

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There is no such domain.
    Missing,
    /// The name is in use.
    NameInUse,
    /// Not enough memory is free.
    NoMemory,
    /// xl did not understand its words.
    Usage,
    /// This xl has no such verb.
    NoVerb,
    /// xl cannot reach Xen: no dom0, not root, or its daemons are not up.
    NoXen,
    /// Anything else.
    Other,
}

/// How a verb of xl's failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Failure {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What kind of failure.
    pub kind: Kind,
    /// The first thing that went wrong, in xl's words, without where in libxl.
    pub cause: String,
}

/// What is known by the words that say it, in any line.
const WORDS: [(&str, Kind); 16] = [
    ("is an invalid domain identifier", Kind::Missing),
    ("maybe this domain does not exist", Kind::Missing),
    ("' does not exist.", Kind::Missing),
    ("Invalid domain id.", Kind::Missing),
    ("\" already exists", Kind::NameInUse),
    ("Out of memory", Kind::NoMemory),
    ("Cannot allocate memory", Kind::NoMemory),
    ("failed to free memory for the domain", Kind::NoMemory),
    ("not enough free memory", Kind::NoMemory),
    ("command not implemented", Kind::NoVerb),
    ("' not supported.", Kind::Usage),
    (" requires at least ", Kind::Usage),
    ("cannot init xl context", Kind::NoXen),
    ("privileged command interface", Kind::NoXen),
    ("xs_open", Kind::NoXen),
    ("could not connect to xenstore", Kind::NoXen),
];

/// Whether a verb worked: its exit code and its stderr. Errors: it did not.
pub fn check(code: Option<i32>, stderr: &[u8]) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(stderr);
    let known = WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, kind)| *kind);
    // Two failures that xl ends with 0: a list of a domain that is not there, and what libxl refused.
    let silent = known == Some(Kind::Missing) || text.lines().any(|line| line.starts_with("libxl: error:"));
    if code == Some(0) && !silent {
        return Ok(());
    }
    let kind = known.unwrap_or(if code == Some(2) { Kind::Usage } else { Kind::Other });
    let ended = || code.map_or_else(|| "a signal ended it".to_owned(), |code| format!("it ended with {code}"));
    Err(Failure { code, kind, cause: cause(&text).unwrap_or_else(|| format!("xl said nothing; {}", ended())) })
}

/// The first line that says what went wrong.
fn cause(stderr: &str) -> Option<String> {
    let told = |line: &&str| {
        let talk = ["Parsing config from ", "WARNING: "].iter().any(|word| line.starts_with(word));
        !line.trim().is_empty() && !talk && Notice::read(line).is_none()
    };
    let line = stderr.lines().find(told)?;
    // `libxl: error: libxl_domain.c:81:libxl__domain_rename: Domain 2:Domain with …`
    let mut text = line;
    for origin in ["libxl: error: ", "xc: error: panic: ", "xc: error: ", "libxl: "] {
        if let Some(rest) = text.strip_prefix(origin) {
            // `file.c:LINE:function: `, of which xc leaves out some.
            text = rest.split_once(": ").filter(|(place, _)| place.contains(".c:")).map_or(rest, |(_, rest)| rest);
            break;
        }
    }
    if let Some((domain, rest)) = text.strip_prefix("Domain ").and_then(|t| t.split_once(':')) {
        if domain.bytes().all(|b| b.is_ascii_digit()) {
            text = rest;
        }
    }
    let text = if text.trim().is_empty() { line } else { text };
    Some(text.trim().to_owned())
}

/// What `xl create -F` tells on its way, one line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The domain is made, and runs unless it was made paused.
    Made(u32),
    /// It has shut down, and why.
    ShutDown(u32, Reason),
    /// It is gone: somebody destroyed or saved it.
    Destroyed(u32),
}

impl Notice {
    /// Reads a line. None: another one.
    pub fn read(line: &str) -> Option<Notice> {
        let line = line.trim_end();
        let first = |text: &str| text.split([' ', ')', ',']).next().and_then(|n| n.parse::<u32>().ok());
        if let Some(rest) = line.strip_prefix("Waiting for domain ") {
            // The name comes before, and may hold anything.
            return Some(Notice::Made(first(&rest[rest.rfind(" (domid ")? + " (domid ".len()..])?));
        }
        let (domid, said) = line.strip_prefix("Domain ")?.split_once(' ')?;
        let domid = domid.parse().ok()?;
        if let Some(code) = said.strip_prefix("has shut down, reason code ") {
            // Its second word is the same number in hexadecimal.
            return Some(Notice::ShutDown(domid, Reason::of_code(first(code)?)));
        }
        said.starts_with("has been destroyed").then_some(Notice::Destroyed(domid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(code: i32, stderr: &str) -> (Kind, String) {
        let failure = check(Some(code), stderr.as_bytes()).unwrap_err();
        (failure.kind, failure.cause)
    }

    /// All of them are what the real one said.
    #[test]
    fn real_failures() {
        let table = [
            (1, "nosuch is an invalid domain identifier (rc=-6)\n", Kind::Missing, ""),
            (0, "nosuch is an invalid domain identifier\n", Kind::Missing, ""),
            (1, "Error: Domain '99' does not exist.\n", Kind::Missing, ""),
            (1, "Can't get domid of domain name 'nosuch', maybe this domain does not exist.\n", Kind::Missing, ""),
            (1, "Invalid domain id.\n\n", Kind::Missing, "Invalid domain id."),
            (
                3,
                "Parsing config from full.cfg\nlibxl: error: libxl_domain.c:81:libxl__domain_rename: Domain 2:Domain with name \"full1\" \
                 already exists.\nlibxl: error: libxl_create.c:1296:initiate_domain_create: Domain 2:cannot make domain: -6\n",
                Kind::NameInUse,
                "Domain with name \"full1\" already exists.",
            ),
            (
                3,
                "Parsing config from /run/bad3.cfg\nxc: error: panic: xg_dom_core.c:205: failed to open file '/nonexistent': No such file \
                 or directory: Internal error\nlibxl: error: libxl_dom.c:646:libxl__build_pv: xc_dom_kernel_file failed: No such file\n",
                Kind::Other,
                "failed to open file '/nonexistent': No such file or directory: Internal error",
            ),
            (
                3,
                "xc: error: panic: xg_dom_boot.c:119: xc_dom_boot_mem_init: can't allocate low memory for domain: Out of memory\n",
                Kind::NoMemory,
                "xc_dom_boot_mem_init: can't allocate low memory for domain: Out of memory",
            ),
            (2, "'xl destroy' requires at least 1 argument.\n", Kind::Usage, ""),
            (2, "option `x' not supported.\n", Kind::Usage, ""),
            (1, "command not implemented\n", Kind::NoVerb, ""),
            (1, "Neither kernel nor bootloader specified\n", Kind::Other, ""),
            (3, "Failed to read config file: /nonexist: No such file or directory\n", Kind::Other, ""),
            (6, "Config file not specified and none in save file\n", Kind::Other, ""),
            (
                0,
                "WARNING: \"button-press\" is deprecated. Please use \"trigger\"\nlibxl: error: libxl_domain.c:2207:libxl_send_trigger: \
                 Domain 1:Send trigger 'power' failed: Invalid argument\n",
                Kind::Other,
                "Send trigger 'power' failed: Invalid argument",
            ),
        ];
        for (code, stderr, kind, cause) in table {
            let want = if cause.is_empty() { stderr.trim_end() } else { cause };
            assert_eq!(fails(code, stderr), (kind, want.to_owned()), "{stderr}");
        }
    }

    #[test]
    fn what_worked_and_what_said_nothing() {
        for fine in ["", "Parsing config from f\n", "Shutting down domain 2\nWaiting for 1 domains\n"] {
            assert_eq!(check(Some(0), fine.as_bytes()), Ok(()), "{fine}");
        }
        assert_eq!(fails(4, "\n").1, "xl said nothing; it ended with 4");
        assert_eq!(check(None, b"").unwrap_err().cause, "xl said nothing; a signal ended it");
        assert_eq!(check(Some(1), b"\xff\xfe").unwrap_err().kind, Kind::Other);
    }

    #[test]
    fn notices() {
        let read = Notice::read;
        assert_eq!(read("Waiting for domain fg (domid 5) to die [pid 812]"), Some(Notice::Made(5)));
        assert_eq!(read("Waiting for domain a (domid 1) b (domid 7) to die [pid 8]\n"), Some(Notice::Made(7)));
        assert_eq!(read("Domain 5 has shut down, reason code 0 0x0"), Some(Notice::ShutDown(5, Reason::Poweroff)));
        assert_eq!(read("Domain 5 has shut down, reason code 3 0x3"), Some(Notice::ShutDown(5, Reason::Crash)));
        assert_eq!(read("Domain 5 has shut down, reason code 99 0x63"), Some(Notice::ShutDown(5, Reason::Other)));
        assert_eq!(read("Domain 5 has been destroyed."), Some(Notice::Destroyed(5)));
        for other in ["", "Domain", "Domain x has been destroyed.", "Done. Exiting now", "Waiting for domain x"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
