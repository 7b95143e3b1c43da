//! ELF headers and `.ARM.attributes`: a program of anybody's is looked at before it is run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pronto::arch::Profiles;
use pronto::elf;

fuzz_target!(|data: &[u8]| {
    let Ok(header) = elf::parse(data) else { return };
    assert!(elf::is_elf(data));
    let (class, order, machine, flags) = header.ident();
    let _ = (header.is_program(), header.is_static(), header.to_string());
    assert!(header.interpreter.as_ref().is_none_or(|loader| loader.len() <= 3 * 4096));
    static PROFILES: std::sync::OnceLock<Profiles> = std::sync::OnceLock::new();
    let profile = PROFILES.get_or_init(Profiles::embedded).by_elf(class, order, machine, flags);
    if let (Some(profile), Some(arm)) = (profile, header.arm) {
        let _ = profile.model(arm.cpu_arch);
    }
});
