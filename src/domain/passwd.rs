//! Who a user of a guest is: `user[:group]`, by name or number, looked up in the text of the *guest's* /etc/passwd and
//! /etc/group. Pure: the caller reads the files (through `sys::root`), and a missing file is an empty text.
//!
//! What a newcomer would get wrong: a name goes before a number (a user may be called `1000`), a number that nobody has is
//! fine (group 0, home `/`), and a group that is given replaces the user's own groups, as `docker run --user` does it.
//! Fields are bytes, not UTF-8. Source: passwd(5), group(5), docker-run(1).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What a process needs to become somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The login name, where the number has one.
    pub name: Option<OsString>,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, without duplicates.
    pub groups: Vec<u32>,
    /// Where they live; `/` for a number without an entry.
    pub home: PathBuf,
    /// Their login shell; `/bin/sh` where none is named.
    pub shell: PathBuf,
}

/// Why somebody is nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such name in the guest's passwd.
    #[error("the guest has no user '{}'", .0.escape_debug())]
    NoUser(String),
    /// No such name in the guest's group file.
    #[error("the guest has no group '{}'", .0.escape_debug())]
    NoGroup(String),
}

/// Finds `who` (`user`, `user:group`, either by name or number; empty means root). Errors: a name that is not there.
pub fn resolve(who: &str, passwd: &[u8], group: &[u8]) -> Result<Account, Error> {
    let (user, wanted_group) = match who.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (who, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = users(passwd).find(|u| u.name == user.as_bytes());
    let mut account =
        match (entry.or_else(|| users(passwd).find(|u| Some(u.uid) == id(user.as_bytes()))), id(user.as_bytes())) {
            (Some(user), _) => user.account(group),
            (None, Some(uid)) => Account {
                name: None,
                uid,
                gid: 0,
                groups: Vec::new(),
                home: PathBuf::from("/"),
                shell: PathBuf::from("/bin/sh"),
            },
            (None, None) => return Err(Error::NoUser(user.to_owned())),
        };
    if let Some(wanted) = wanted_group {
        let named = groups(group).find(|g| g.name == wanted.as_bytes()).map(|g| g.gid);
        account.gid = named.or_else(|| id(wanted.as_bytes())).ok_or_else(|| Error::NoGroup(wanted.to_owned()))?;
        account.groups.clear();
    }
    Ok(account)
}

struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
    shell: &'a [u8],
}

impl User<'_> {
    fn account(&self, group: &[u8]) -> Account {
        let path = |bytes: &[u8], or: &str| {
            PathBuf::from(if bytes.is_empty() { or.into() } else { OsString::from_vec(bytes.to_vec()) })
        };
        let mut list: Vec<u32> =
            groups(group).filter(|g| g.members.split(|b| *b == b',').any(|m| m == self.name)).map(|g| g.gid).collect();
        list.sort_unstable();
        list.dedup();
        Account {
            name: Some(OsString::from_vec(self.name.to_vec())),
            uid: self.uid,
            gid: self.gid,
            groups: list,
            home: path(self.home, "/"),
            shell: path(self.shell, "/bin/sh"),
        }
    }
}

struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

/// The lines of such a file, in their fields; comments, NIS lines (`+`, `-`) and lines that are damaged are passed over.
fn lines(text: &[u8]) -> impl Iterator<Item = std::slice::Split<'_, u8, impl FnMut(&u8) -> bool>> {
    text.split(|b| *b == b'\n')
        .filter(|l| !matches!(l.first(), None | Some(b'#' | b'+' | b'-')))
        .map(|l| l.split(|b| *b == b':'))
}

fn users(passwd: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(passwd).filter_map(|mut f| {
        let name = f.next()?;
        let (uid, gid) = (id(f.nth(1)?)?, id(f.next()?)?);
        let home = f.nth(1).unwrap_or_default();
        Some(User { name, uid, gid, home, shell: f.next().unwrap_or_default() })
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(group).filter_map(|mut f| {
        let name = f.next()?;
        Some(Group { name, gid: id(f.nth(1)?)?, members: f.next().unwrap_or_default() })
    })
}

/// A decimal id; the largest value means "no id" to the kernel and is none.
fn id(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|&n| n != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
        # a comment\n+nis\nbroken:x:y:1::/:\nann:x:1000:1000:Ann \xe9,,,:/home/ann:/bin/zsh\n4711:x:33:33:::\n";
    const GROUP: &[u8] =
        b"root:x:0:\naudio:x:29:bob,ann\nsudo:x:27:ann\nann:x:1000:\nannex:x:9:annabel\nsudo2:x:27:ann\n";

    fn ids(who: &str) -> Result<(u32, u32, Vec<u32>, String), Error> {
        resolve(who, PASSWD, GROUP).map(|a| (a.uid, a.gid, a.groups, a.home.display().to_string()))
    }

    #[test]
    fn users_and_groups_are_the_guests() {
        for (who, want) in [
            ("", (0, 0, vec![], "/root")),
            ("root", (0, 0, vec![], "/root")),
            ("ann", (1000, 1000, vec![27, 29], "/home/ann")),
            ("1000", (1000, 1000, vec![27, 29], "/home/ann")),
            ("ann:", (1000, 1000, vec![27, 29], "/home/ann")),
            ("ann:audio", (1000, 29, vec![], "/home/ann")),
            ("1000:77", (1000, 77, vec![], "/home/ann")),
            ("65534:65534", (65534, 65534, vec![], "/")),
            ("4242", (4242, 0, vec![], "/")),
            ("4711", (33, 33, vec![], "/")),
            (":sudo", (0, 27, vec![], "/root")),
        ] {
            let (uid, gid, groups, home) = want;
            assert_eq!(ids(who).unwrap(), (uid, gid, groups, home.to_owned()), "{who}");
        }
        let ann = resolve("ann", PASSWD, GROUP).unwrap();
        assert_eq!((ann.name.unwrap(), ann.shell), ("ann".into(), "/bin/zsh".into()));
        assert_eq!(resolve("4711", PASSWD, GROUP).unwrap().shell, PathBuf::from("/bin/sh"));
    }

    #[test]
    fn nobody_is_an_error() {
        assert_eq!(ids("eve"), Err(Error::NoUser("eve".into())));
        assert_eq!(ids("ann:wheel"), Err(Error::NoGroup("wheel".into())));
        assert_eq!(ids("broken"), Err(Error::NoUser("broken".into())));
        assert_eq!(ids("-1"), Err(Error::NoUser("-1".into())));
        assert_eq!(ids("4294967295"), Err(Error::NoUser("4294967295".into())), "the kernel's \"no id\"");
        assert_eq!(ids("\u{1b}[2J").unwrap_err().to_string(), "the guest has no user '\\u{1b}[2J'");
    }

    #[test]
    fn an_image_without_an_os_has_root() {
        let root = resolve("", b"", b"").unwrap();
        assert_eq!((root.uid, root.gid, root.home, root.name), (0, 0, "/".into(), None));
        assert!(resolve("1:2", b"", b"").is_ok());
    }
}
