//! What people write finds what they mean, and no profile contradicts another. What a newcomer would get wrong: a name added
//! to one file must not mean something else already; loading fails when it does.

use super::*;

#[test]
fn every_name_people_use() {
    let profiles = Profiles::embedded();
    assert_eq!(profiles.iter().count(), EMBEDDED.len());
    let table = [
        (
            "arm64",
            "arm64 aarch64 AARCH64 arm64/v8 linux/arm64 linux/arm64/v8 arm64v8 aarch64/v8 arm64/v8.2 linux/aarch64",
        ),
        ("amd64", "amd64 x86_64 x86-64 x64 linux/amd64 amd64/v1 amd64/v3 X86_64"),
        ("i386", "i386 386 i486 i586 i686 x86 linux/386"),
        (
            "armhf",
            "armhf arm arm/v7 arm/v6 linux/arm/v7 linux/arm linux/arm/v6 armv7l armv7 armv6l armv7hl arm32v7 arm32v6",
        ),
        ("armel", "armel arm/v5 linux/arm/v5 armv5tel arm32v5"),
        ("riscv64", "riscv64 linux/riscv64 rv64gc"),
        ("ppc64el", "ppc64el ppc64le powerpc64le linux/ppc64le ppc64le/power8"),
        ("s390x", "s390x linux/s390x"),
        ("mips64el", "mips64el mips64le linux/mips64le"),
        ("loong64", "loong64 loongarch64 linux/loong64"),
    ];
    for (name, words) in table {
        for word in words.split(' ') {
            assert_eq!(profiles.find(word).map(|p| p.name.as_str()), Ok(name), "{word}");
        }
    }
}

#[test]
fn an_unknown_one_is_told_what_there_is() {
    let profiles = Profiles::embedded();
    let error = profiles.find("amr64").unwrap_err();
    assert_eq!(error.nearest.as_deref(), Some("arm64"));
    assert_eq!(
        error.to_string(),
        "unknown architecture 'amr64', did you mean arm64? (known: amd64, arm64, armel, armhf, i386, loong64, mips64el, \
         ppc64el, riscv64, s390x)"
    );
    for (wrong, nearest) in [("aarch46", Some("arm64")), ("x8664", Some("amd64")), ("pcc64le", Some("ppc64el"))] {
        assert_eq!(profiles.find(wrong).unwrap_err().nearest.as_deref(), nearest, "{wrong}");
    }
    for nonsense in ["", "/", "zilog-z80-speccy", "linux/", "arm/v99", "\u{1b}[2J"] {
        let error = profiles.find(nonsense).unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'), "{error}");
    }
    assert_eq!(profiles.find("zilog-z80-speccy").unwrap_err().nearest, None);
}

#[test]
fn platforms_fall_back_to_lesser_variants_only() {
    let profiles = Profiles::embedded();
    let of = |text: &str| -> String {
        let list = profiles.find(text).unwrap().platforms(Some(text));
        let words: Vec<String> = list.iter().map(|(a, v)| v.map_or(a.to_string(), |v| format!("{a}/{v}"))).collect();
        words.join(" ")
    };
    let table = [
        ("arm64", "arm64/v8 arm64"),
        ("linux/arm64/v8.2", "arm64/v8.2 arm64/v8.1 arm64/v8 arm64"),
        ("amd64", "amd64/v1 amd64"),
        ("amd64/v2", "amd64/v2 amd64/v1 amd64"),
        ("i386", "386"),
        ("armhf", "arm/v7 arm arm/v6"),
        ("armv7l", "arm/v7 arm arm/v6"),
        ("linux/arm/v6", "arm/v6"),
        ("arm32v6", "arm/v6"),
        ("armv6l", "arm/v6"),
        ("arm/v8", "arm/v8 arm/v7 arm arm/v6"),
        ("armel", "arm/v5"),
        ("armv5tel", "arm/v5"),
        ("ppc64el", "ppc64le/power8 ppc64le"),
    ];
    for (asked, want) in table {
        assert_eq!(of(asked), want, "{asked}");
    }
    for profile in &profiles {
        assert!(profile.platforms(None).iter().all(|(a, _)| *a == profile.oci.architecture));
    }
}

#[test]
fn an_elf_header_has_one_profile() {
    let profiles = Profiles::embedded();
    let name = |class, data, machine, flags| profiles.by_elf(class, data, machine, flags).map(|p| p.name.as_str());
    assert_eq!(name(2, 1, 183, 0), Some("arm64"));
    assert_eq!(name(2, 1, 62, 0), Some("amd64"));
    assert_eq!(name(1, 1, 62, 0), None, "x32");
    assert_eq!(name(1, 1, 3, 0), Some("i386"));
    assert_eq!(name(1, 1, 40, 0x0500_0400), Some("armhf"));
    assert_eq!(name(1, 1, 40, 0x0500_0200), Some("armel"));
    assert_eq!(name(1, 1, 40, 0x0500_0000), Some("armel"));
    assert_eq!(name(2, 2, 22, 0), Some("s390x"));
    assert_eq!(name(2, 2, 183, 0), None, "big-endian ARM");
    assert_eq!(name(2, 2, 21, 0), None, "big-endian POWER");
    for profile in &profiles {
        let flags = profile.elf.flags.map_or(0, |f| f.value);
        let found = profiles.by_elf(profile.elf.ei_class(), profile.elf.ei_data(), profile.elf.machine, flags);
        assert_eq!(found, Some(profile));
        assert_eq!(profiles.by_uname(&profile.uname), Some(profile));
        assert_eq!(profiles.by_platform(&profile.oci.architecture, Some(&profile.oci.default)), Some(profile));
    }
    assert_eq!(profiles.by_uname("armv6l").unwrap().name, "armhf");
    assert_eq!(profiles.by_uname("i586").unwrap().name, "i386");
}

#[test]
fn boards_and_models_belong_to_their_architecture() {
    let profiles = Profiles::embedded();
    for (board, arch) in [
        ("rpi0", "armhf"),
        ("rpi1", "armhf"),
        ("rpi2", "armhf"),
        ("rpi3", "arm64"),
        ("rpi4", "arm64"),
        ("rpi5", "arm64"),
    ] {
        assert_eq!(profiles.board(board).unwrap().0.name, arch, "{board}");
    }
    let armhf = profiles.find("armhf").unwrap();
    for (tag, cpu) in [(4, None), (6, Some("arm1176")), (10, Some("cortex-a7")), (14, Some("max"))] {
        assert_eq!(armhf.model(Some(tag)).map(|m| m.cpu.as_str()), cpu, "{tag}");
    }
    assert_eq!(profiles.find("armel").unwrap().model(Some(4)).unwrap().cpu, "arm926");
    assert_eq!(armhf.model(None), None);
}

#[test]
fn an_administrators_file_replaces_or_adds() {
    let text = include_str!("../../arch-profiles/arm64.toml");
    let faster = text.replace("cpu = \"max\"", "cpu = \"neoverse-n1\"");
    let profiles = Profiles::with_overrides(&[("arm64.toml", &faster)]).unwrap();
    assert_eq!(profiles.find("aarch64").unwrap().qemu_user.cpu, "neoverse-n1");
    assert_eq!(profiles.iter().count(), EMBEDDED.len());

    let sparc = "name = \"sparc64\"\naliases = []\ndebian = \"sparc64\"\ntriplet = \"sparc64-linux-gnu\"\n\
        uname = \"sparc64\"\nbinfmt = \"pronto-sparc64\"\n[elf]\nclass = 64\ndata = \"big\"\nmachine = 43\n\
        [oci]\narchitecture = \"sparc64\"\nvariants = [\"\"]\ndefault = \"\"\n[qemu-user]\n\
        programs = [\"qemu-sparc64\"]\ncpu = \"max\"\n[qemu-system]\nprogram = \"qemu-system-sparc64\"\n\
        package = \"qemu-system-sparc\"\nmachine = \"sun4u\"\ncpu = \"max\"\nfirmware = []\nconsole = \"ttyS0\"\n";
    let profiles = Profiles::with_overrides(&[("sparc64.toml", sparc)]).unwrap();
    assert_eq!(profiles.by_elf(2, 2, 43, 0).unwrap().name, "sparc64");

    let refused = |file: &str, text: &str| Profiles::with_overrides(&[(file, text)]).unwrap_err().to_string();
    assert_eq!(
        refused("other.toml", sparc),
        "architecture profile other.toml: it describes 'sparc64', so its name must be sparc64.toml"
    );
    let stolen = sparc.replace("aliases = []", "aliases = [\"aarch64\"]");
    assert_eq!(refused("sparc64.toml", &stolen), "architecture profile sparc64.toml: 'aarch64' means arm64 already");
    let cases = [
        (sparc.replace("class = 64", "class = 48"), "elf.class is 48"),
        (sparc.replace("default = \"\"", "default = \"v9\""), "oci.default 'v9'"),
        (sparc.replace("pronto-sparc64", "qemu-sparc64"), "only entries named pronto-"),
        (sparc.replace("programs = [\"qemu-sparc64\"]", "programs = []"), "programs is empty"),
        (sparc.replace("\"qemu-sparc64\"", "\"../../evil\""), "is no name"),
        (sparc.replace("machine = 43", "machine = 43\nflags = { mask = 1, value = 2 }"), "can never match"),
    ];
    for (text, want) in cases {
        let error = refused("sparc64.toml", &text);
        assert!(error.contains(want), "{error}");
    }
    let unknown_key = sparc.replace("[elf]", "colour = 3\n[elf]");
    let error = Profiles::with_overrides(&[("sparc64.toml", &unknown_key)]).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("colour"), "{error:?}");
}
