//! xl.cfg files, words after them, disks and network interfaces: what is written reads back, and a message is one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::domain::xlcfg::affinity::CpuSet;
use pronto::domain::xlcfg::disk::DiskSpec;
use pronto::domain::xlcfg::vif::VifSpec;
use pronto::domain::xlcfg::{Backend, Config, Rate};

fuzz_target!(|data: &[u8]| {
    match Config::parse("fuzz.cfg", data) {
        Ok(config) => sound(&config),
        Err(error) => one_line(&error.to_string()),
    }
    // The last line as a word of the command line.
    let (file, word) = data.iter().rposition(|b| *b == b'\n').map_or((&data[..0], data), |at| data.split_at(at + 1));
    if let Ok(mut config) = Config::parse("fuzz.cfg", file) {
        let before = config.clone();
        match config.add_word(word) {
            Ok(()) => sound(&config),
            Err(error) => {
                one_line(&error.to_string());
                assert_eq!(config, before, "a word that is refused does nothing");
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        devices(text);
    }
});

/// It reads back as it was written, and whatever is asked of it is answered.
fn sound(config: &Config) {
    let written = config.to_string();
    let again = Config::parse("again.cfg", written.as_bytes());
    assert_eq!(again.as_ref(), Ok(config), "{written}");
    if let Err(error) = config.check() {
        one_line(&error.to_string());
    }
    for entry in config.entries() {
        for error in [config.number(&entry.key).err(), config.truth(&entry.key).err(), config.texts(&entry.key).err()] {
            one_line(&error.map(|error| error.to_string()).unwrap_or_default());
        }
    }
    for backend in [Backend::Kaxon, Backend::Qemu, Backend::Xen] {
        config.unheeded(backend).iter().for_each(|unheeded| one_line(&unheeded.to_string()));
    }
    let again = again.expect("it was read");
    assert_eq!(again.disks().ok(), config.disks().ok());
    assert_eq!(again.vifs().ok(), config.vifs().ok());
}

fn devices(text: &str) {
    match DiskSpec::parse(&[text]) {
        Ok(disk) => assert_eq!(DiskSpec::parse(&[&disk.to_string()]).as_ref(), Ok(&disk), "{disk}"),
        Err(error) => one_line(&error),
    }
    match VifSpec::parse(text) {
        Ok(vif) => assert_eq!(VifSpec::parse(&vif.to_string()).as_ref(), Ok(&vif), "{vif}"),
        Err(error) => one_line(&error),
    }
    if let Err(error) = Rate::parse(text) {
        one_line(&error);
    }
    let host = (0..64).collect();
    match CpuSet::parse(text)
        .and_then(|set| set.resolve(&host, |node| (node < 4).then(|| (node * 16..node * 16 + 16).collect())))
    {
        Ok(cpus) => assert!(!cpus.is_empty() && cpus.is_subset(&host)),
        Err(error) => one_line(&error),
    }
}

fn one_line(said: &str) {
    assert!(!said.chars().any(char::is_control), "{said:?}");
}
