//! Real programs, hand-made headers, and damage of every kind. What a newcomer would get wrong: a parser of strangers' bytes is
//! tested with every prefix and many flipped bytes, not only with good files.

use super::*;

/// A 64-bit little-endian program with one PT_INTERP.
fn sample() -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend(3u16.to_le_bytes());
    file.extend(183u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.extend(64u64.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    file.extend(7u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let loader = b"/lib/ld-linux-aarch64.so.1\0";
    file.extend(3u32.to_le_bytes());
    file.extend(4u32.to_le_bytes());
    for word in [120u64, 0, 0, loader.len() as u64, loader.len() as u64, 1] {
        file.extend(word.to_le_bytes());
    }
    file.extend(loader);
    file
}

/// A section as binutils writes it for Raspbian's files.
fn attributes(pairs: &[u8]) -> Vec<u8> {
    let mut body = vec![1];
    body.extend((5 + pairs.len() as u32).to_le_bytes());
    body.extend(pairs);
    let mut section = vec![b'A'];
    section.extend((4 + 6 + body.len() as u32).to_le_bytes());
    section.extend(b"aeabi\0");
    section.extend(body);
    section
}

#[test]
fn a_header_is_read_whole() {
    let header = parse(&sample()).unwrap();
    assert_eq!(header.ident(), (2, 1, 183, 7));
    assert_eq!((header.osabi, header.e_type), (3, 3));
    assert_eq!(header.interpreter.as_deref(), Some("/lib/ld-linux-aarch64.so.1"));
    assert!(header.is_program() && header.is_pie() && !header.is_static() && !header.dynamic);
    assert_eq!(header.to_string(), "64-bit little-endian, machine 183");
    let bytes = serde_json::to_vec(&header).unwrap();
    assert_eq!(serde_json::from_slice::<Header>(&bytes).unwrap(), header);
}

#[test]
fn our_own_program_is_what_it_is() {
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let whole = parse(&file).unwrap();
    assert!(whole.is_program());
    assert_eq!(whole.class as usize * 4, std::mem::size_of::<usize>());
    assert_eq!(parse(&file[..PREFIX as usize]).unwrap(), whole);
}

#[test]
fn what_is_no_elf_says_so() {
    for bytes in [&b""[..], b"\x7f", b"\x7fEL", b"#!/bin/sh\n", b"MZ\x90\0"] {
        assert_eq!(parse(bytes), Err(Error::NotElf));
    }
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let good = sample();
    for length in 4..good.len() {
        assert!(matches!(parse(&good[..length]), Err(Error::Damaged(_))), "{length}");
    }
    let no_end = &mut good.clone();
    *no_end.last_mut().unwrap() = b'x';
    assert!(matches!(parse(no_end), Err(Error::Damaged(_))));
    // Every byte gets the values that break arithmetic; the answer does not matter, only that there is one.
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            let _ = parse(&bad);
            bad[18..20].copy_from_slice(&40u16.to_le_bytes());
            let _ = parse(&bad);
        }
    }
    for offset in [u64::MAX, u64::MAX - 56, 1 << 63, 121] {
        let mut bad = good.clone();
        bad[32..40].copy_from_slice(&offset.to_le_bytes());
        assert!(parse(&bad).is_err(), "{offset}");
    }
}

#[test]
fn arm_attributes_tell_the_cpu_and_the_float_abi() {
    // Tag_CPU_name "6", Tag_CPU_arch v6, Tag_ARM_ISA_use 1, Tag_FP_arch 2, Tag_ABI_VFP_args 1, Tag_compatibility 0 "", 67 "2.09"
    let raspbian = attributes(b"\x056\0\x06\x06\x08\x01\x0a\x02\x1c\x01\x20\0\0\x432.09\0");
    assert_eq!(attributes::parse(&raspbian, true), Some(ArmAttributes { cpu_arch: Some(6), vfp_args: Some(1) }));
    let v5 = attributes(b"\x055TE\0\x06\x04");
    assert_eq!(attributes::parse(&v5, true), Some(ArmAttributes { cpu_arch: Some(4), vfp_args: None }));
    for length in 0..raspbian.len() {
        assert_eq!(attributes::parse(&raspbian[..length], true), None, "{length}");
    }
    for at in 0..raspbian.len() {
        for value in [0, 0x7f, 0x80, 0xff] {
            let mut bad = raspbian.clone();
            bad[at] = value;
            let _ = attributes::parse(&bad, true);
            let _ = attributes::parse(&bad, false);
        }
    }
    let endless = attributes(&[0x80; 64]);
    assert_eq!(attributes::parse(&endless, true), None);
}

#[test]
fn a_silent_arm_file_is_known_by_attributes_or_loader() {
    let arm = |flags, loader: Option<&str>, vfp_args| {
        let interpreter = loader.map(str::to_owned);
        let arm = Some(ArmAttributes { cpu_arch: None, vfp_args });
        let header = parse(&sample()).unwrap();
        Header { class: Class::Elf32, machine: 40, flags, interpreter, arm, ..header }.ident().3
    };
    assert_eq!(arm(0x0500_0000, None, Some(1)), 0x0500_0400);
    assert_eq!(arm(0x0500_0000, Some("/lib/ld-linux-armhf.so.3"), None), 0x0500_0400);
    assert_eq!(arm(0x0500_0000, Some("/lib/ld-linux.so.3"), Some(0)), 0x0500_0000);
    assert_eq!(arm(0x0500_0200, None, Some(1)), 0x0500_0200);
}

#[test]
fn arm_attributes_are_found_by_their_section() {
    let mut file = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let section = attributes(b"\x06\x0a\x1c\x01");
    file.extend(2u16.to_le_bytes());
    file.extend(40u16.to_le_bytes());
    for word in [1u32, 0, 0, 52 + section.len() as u32, 0x0500_0400] {
        file.extend(word.to_le_bytes());
    }
    for half in [52u16, 32, 0, 40, 2, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(&section);
    file.extend([0; 40]);
    for word in [0u32, 0x7000_0003, 0, 0, 52, section.len() as u32, 0, 0, 1, 0] {
        file.extend(word.to_le_bytes());
    }
    let header = parse(&file).unwrap();
    assert_eq!(header.arm, Some(ArmAttributes { cpu_arch: Some(10), vfp_args: Some(1) }));
    assert!(header.is_static() && !header.is_pie());
    // A prefix that ends before the sections still gives the rest.
    assert_eq!(parse(&file[..60]).unwrap(), Header { arm: None, ..header });
}
