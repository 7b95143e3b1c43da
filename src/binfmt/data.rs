//! Our entries as they are shipped in `binfmt/`, one binfmt.d file each. What a newcomer would get wrong: bytes 7 to 10 of the
//! mask are zero (OS ABI, and the three bytes where AppImages write their mark), wherever the distributions' are not.

use std::path::Path;

use super::entry::{Entry, Flags, Kind};
use super::kernel::ident;
use crate::arch::{Data, Profile};

/// The files in `binfmt/`.
const SHIPPED: [&str; 9] = [
    include_str!("../../binfmt/pronto-amd64.conf"),
    include_str!("../../binfmt/pronto-arm.conf"),
    include_str!("../../binfmt/pronto-arm64.conf"),
    include_str!("../../binfmt/pronto-i386.conf"),
    include_str!("../../binfmt/pronto-loong64.conf"),
    include_str!("../../binfmt/pronto-mips64el.conf"),
    include_str!("../../binfmt/pronto-ppc64el.conf"),
    include_str!("../../binfmt/pronto-riscv64.conf"),
    include_str!("../../binfmt/pronto-s390x.conf"),
];

/// The shipped entries.
pub fn shipped() -> Vec<Entry> {
    let entries = SHIPPED.iter().flat_map(|text| Entry::parse_file(text).unwrap_or_default());
    entries.collect()
}

/// Our entry for an architecture: the shipped one with this interpreter and these flags, or one made from the ELF rule for an
/// architecture that the administrator added.
pub fn for_profile(profile: &Profile, interpreter: &Path, credentials: bool) -> Entry {
    let shipped = shipped().into_iter().find(|e| e.name == profile.binfmt).map(|e| e.kind);
    let kind = shipped.unwrap_or_else(|| kind_of(profile));
    Entry { name: profile.binfmt.clone(), kind, interpreter: interpreter.to_owned(), flags: Flags::ours(credentials) }
}

/// What an ELF rule makes of an entry: `e_flags` are left out, since not every program of an architecture sets them.
fn kind_of(profile: &Profile) -> Kind {
    let mut mask = vec![0xff; 20];
    mask[7..=10].fill(0);
    // e_type is 2 (fixed address) or 3 (anywhere): the lowest bit does not count.
    mask[if profile.elf.data == Data::Little { 16 } else { 17 }] = 0xfe;
    Kind::Magic { offset: 0, magic: ident(profile), mask }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Profiles;

    #[test]
    fn every_file_agrees_with_its_profile() {
        let shipped = shipped();
        assert_eq!(shipped.len(), SHIPPED.len());
        let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("binfmt")).unwrap();
        let mut names: Vec<_> = files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, shipped.iter().map(|e| format!("{}.conf", e.name)).collect::<Vec<_>>());
        for profile in &Profiles::embedded() {
            let entry = shipped.iter().find(|e| e.name == profile.binfmt).expect(&profile.name);
            assert_eq!(entry.kind, kind_of(profile), "{}", profile.name);
            assert_eq!(entry.flags, Flags::ours(true), "{}", profile.name);
            let program = entry.interpreter.file_name().unwrap().to_str().unwrap();
            assert_eq!(entry.interpreter.parent().unwrap(), Path::new("/usr/bin"));
            assert_eq!(program, profile.qemu_user.programs[0], "{}", profile.name);
            assert!(entry.knows_appimages());
        }
    }

    #[test]
    fn each_matches_its_own_programs_only() {
        let profiles = Profiles::embedded();
        for profile in &profiles {
            let entry = for_profile(profile, Path::new("/q"), false);
            assert_eq!(entry.flags.to_string(), "POF");
            for other in &profiles {
                let mut file = ident(other);
                assert_eq!(entry.matches(&file), other.binfmt == profile.binfmt, "{} {}", profile.name, other.name);
                file[7] = 3;
                file[8..11].copy_from_slice(b"AI\x02");
                assert_eq!(entry.matches(&file), other.binfmt == profile.binfmt, "an AppImage");
            }
        }
    }
}
