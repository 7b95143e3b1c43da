//! systemd-machined, where it runs: guests are made known to it, and it is made to forget them. What a newcomer would get wrong: nspawn
//! could register by itself, but only a unit of its own, and then it waits for the bus. Source: org.freedesktop.machine1(5).

use std::ffi::OsString;
use std::path::Path;

use crate::sys::process::Tool;

/// Whether there is a bus to reach it by.
pub fn runs() -> bool {
    Path::new("/run/dbus/system_bus_socket").exists()
}

/// Makes a guest known; that a host without machined has no such list is no error.
pub fn register(machine: &str, uuid: &str, leader: i32) {
    // Not waited for: a slow bus must not hold the guest up. The child is reaped with the monitor.
    let _ = Tool::new("busctl").args(words(machine, uuid, leader)).spawn();
}

/// Makes machined forget the run that has ended: it would keep it as long as its scope lives, which is the next run's too, and
/// would not take that for another machine. Waited for, so that the two calls come in their order.
pub fn forget(machine: &str) {
    let manager = ["org.freedesktop.machine1", "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager"];
    let tool = Tool::new("busctl").args(["call", "--quiet", "--timeout=5"]).args(manager);
    let _ = tool.args(["UnregisterMachine", "s", machine]).output();
}

/// busctl's words for machined's RegisterMachine (org.freedesktop.machine1(5)): name, 128-bit id, service, class, leader, root.
fn words(machine: &str, uuid: &str, leader: i32) -> Vec<OsString> {
    let hex = uuid.replace('-', "");
    let bytes = (0..hex.len() / 2).filter_map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok());
    let mut words: Vec<OsString> = ["call", "--quiet", "org.freedesktop.machine1", "/org/freedesktop/machine1"]
        .into_iter()
        .chain(["org.freedesktop.machine1.Manager", "RegisterMachine", "sayssus", machine, "16"])
        .map(OsString::from)
        .collect();
    words.extend(bytes.map(|b| b.to_string().into()));
    words.extend(["pronto", "container", &leader.to_string(), ""].map(OsString::from));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gets_the_id_byte_by_byte() {
        let words = words("pronto-01234567-3", "00ff0a00-0000-0000-0000-000000000010", 42);
        let text: Vec<&str> = words.iter().map(|w| w.to_str().unwrap()).collect();
        assert_eq!(
            text.join(" "),
            "call --quiet org.freedesktop.machine1 /org/freedesktop/machine1 org.freedesktop.machine1.Manager \
             RegisterMachine sayssus pronto-01234567-3 16 0 255 10 0 0 0 0 0 0 0 0 0 0 0 0 16 pronto container 42 "
        );
    }
}
