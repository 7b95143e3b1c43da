//! The guest's passwd and group files, which its root may have written: the input is who is wanted, passwd and group, by zero bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::domain::passwd;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |&b| b == 0);
    let who = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (users, groups) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match passwd::resolve(&who, users, groups) {
        Ok(account) => {
            assert!(account.uid != u32::MAX && account.gid != u32::MAX, "nobody to setuid(2)");
            assert!(account.groups.iter().enumerate().all(|(at, group)| !account.groups[..at].contains(group)));
        }
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
});
