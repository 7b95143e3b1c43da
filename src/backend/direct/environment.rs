//! The variables of a command that is started without an init, and where its program is looked for. Pure. What a newcomer
//! would get wrong: the caller's environment is no part of it, and PATH is the guest's. Source: docker-run(1), execvp(3).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::domain::passwd::Account;

type Variable = (OsString, OsString);

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The whole environment: what was asked for (the last of two wins), and defaults for what everything needs.
pub fn complete(asked: &[Variable], account: &Account, hostname: &str, tty: bool) -> Vec<Variable> {
    let mut all: Vec<Variable> = vec![
        ("PATH".into(), PATH.into()),
        ("HOSTNAME".into(), hostname.into()),
        ("HOME".into(), account.home.clone().into()),
        ("container".into(), "pronto".into()),
    ];
    if tty {
        all.push(("TERM".into(), "xterm".into()));
    }
    for (name, value) in asked {
        match all.iter_mut().find(|(held, _)| held == name) {
            Some((_, held)) => held.clone_from(value),
            None => all.push((name.clone(), value.clone())),
        }
    }
    all
}

/// `NAME=value`.
pub fn line((name, value): Variable) -> OsString {
    let mut line = name;
    line.push("=");
    line.push(value);
    line
}

/// The paths to try for a command. A relative part of PATH is looked up from the working directory, as execvp(3) does.
pub fn programs(word: &OsStr, env: &[Variable]) -> Vec<OsString> {
    if word.is_empty() || word.as_bytes().contains(&b'/') {
        return vec![word.to_owned()];
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map_or(OsStr::new(PATH), |(_, value)| value);
    path.as_bytes()
        .split(|b| *b == b':')
        .map(|dir| if dir.is_empty() { b".".as_slice() } else { dir })
        .map(|dir| Path::new(OsStr::from_bytes(dir)).join(word).into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        crate::domain::passwd::resolve("ann", b"ann:x:1000:1000::/home/ann:/bin/sh\n", b"").unwrap()
    }

    fn lines(asked: &[(&str, &str)], tty: bool) -> Vec<String> {
        let asked: Vec<Variable> = asked.iter().map(|(n, v)| (n.into(), v.into())).collect();
        complete(&asked, &account(), "box", tty).into_iter().map(|v| line(v).into_string().unwrap()).collect()
    }

    #[test]
    fn what_is_asked_for_wins() {
        let path = format!("PATH={PATH}");
        assert_eq!(lines(&[], false), [&*path, "HOSTNAME=box", "HOME=/home/ann", "container=pronto"]);
        assert_eq!(
            lines(&[("A", "1"), ("HOME", "/x"), ("A", "2=3"), ("TERM", "vt100")], true),
            [&*path, "HOSTNAME=box", "HOME=/x", "container=pronto", "TERM=vt100", "A=2=3"]
        );
        assert_eq!(lines(&[], true).last().unwrap(), "TERM=xterm");
    }

    #[test]
    fn a_program_is_looked_for_as_execvp_does() {
        let env = [("PATH".into(), "/bin::rel:/usr/bin".into())];
        assert_eq!(programs(OsStr::new("ls"), &env), ["/bin/ls", "./ls", "rel/ls", "/usr/bin/ls"]);
        assert_eq!(programs(OsStr::new("./ls"), &env), ["./ls"]);
        assert_eq!(programs(OsStr::new(""), &env), [""]);
        assert_eq!(programs(OsStr::new("ls"), &[]).len(), 6);
    }
}
