//! Small real files that gcc and ld made (the seeds of the fuzz ring), and damage of every kind. What a newcomer would get wrong: that a
//! changed file still *runs* is shown in `tests/suite_accel.rs`, with the host's own programs.

use super::*;
use crate::sys::process::Tool;

/// A shared library with packed relocations, a GNU hash table, DT_RUNPATH; read-only data and code in one segment.
const LIBRARY: &[u8] = include_bytes!("../../../fuzz/corpus/accel_patch/library");
/// The same with plain relocations, an old hash table, DT_RPATH.
const OLD: &[u8] = include_bytes!("../../../fuzz/corpus/accel_patch/library-sysv");
/// A program that writes three strings.
const PROGRAM: &[u8] = include_bytes!("../../../fuzz/corpus/accel_patch/program");
/// The same for fixed addresses.
const FIXED: &[u8] = include_bytes!("../../../fuzz/corpus/accel_patch/fixed");

const MULTIARCH: (&str, &str) = ("/usr/lib/x86_64-linux-gnu/", "/run/accel/lib////////////");
const CACHE: (&str, &str) = ("/etc/ld.so.cache", "/run/accel/cache");
const MACHTYPE: (&str, &str) = ("x86_64-pc-linux-gnu", "aarch64-unknown-linux-gnu");

fn count(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).filter(|w| *w == text.as_bytes()).count()
}

/// What a program writes; `None` where it cannot be run.
fn said(program: &[u8]) -> Option<String> {
    if std::env::consts::ARCH != "x86_64" || !std::path::Path::new("/lib64/ld-linux-x86-64.so.2").exists() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    crate::sys::fs::write_volatile(&path, program, 0o755).unwrap();
    Some(String::from_utf8(Tool::new(&path).output().unwrap()).unwrap())
}

#[test]
fn paths_become_others_where_they_are_paths() {
    for library in [LIBRARY, OLD] {
        let rules = Rules { prefixes: &[CACHE, MULTIARCH], ..Rules::default() };
        let done = patch(library, &rules).unwrap();
        // -L…:…, the array, the search path; not /opt/usr/lib.
        assert_eq!(done.changes.prefixes, [1, 4]);
        let left = library.windows(30).position(|w| w == b"/opt/usr/lib/x86_64-linux-gnu/").unwrap() + 4;
        assert_eq!(done.changes.left, [left]);
        assert_eq!(done.bytes.len(), library.len());
        assert!(count(&done.bytes, "-L/run/accel/lib////////////a:/run/accel/lib////////////b\0") == 1);
        assert!(count(&done.bytes, "\0/run/accel/lib////////////x\0") == 1);
        let other = library.iter().zip(&done.bytes).filter(|(a, b)| a != b).count();
        assert!(other <= 4 * MULTIARCH.0.len() + CACHE.0.len());
        let again = patch(&done.bytes, &rules).unwrap();
        assert_eq!((again.changes.prefixes, again.bytes), (vec![0, 0], done.bytes));
    }
}

/// A program at fixed addresses: a page of code, and a page of data behind it.
fn fixed(code: &[u8], data: &[u8]) -> Vec<u8> {
    const CODE: u64 = 0x40_0000;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    [CODE, 64, 0].iter().for_each(|n: &u64| file.extend(n.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    [64u16, 56, 2, 64, 0, 0].iter().for_each(|n| file.extend(n.to_le_bytes()));
    for (kind, offset, size) in [(5u32, 0x1000u64, code.len()), (6, 0x2000, data.len())] {
        file.extend([1, kind].iter().flat_map(|n: &u32| n.to_le_bytes()));
        let address = CODE + offset - 0x1000;
        [offset, address, address, size as u64, size as u64, 0x1000].iter().for_each(|n| file.extend(n.to_le_bytes()));
    }
    file.resize(0x1000, 0);
    file.extend(code);
    file.resize(0x2000, 0);
    file.extend(data);
    file
}

/// Where the data of such a program is.
const DATA: u64 = 0x40_1000;

fn toolchain(program: &[u8], part: Part) -> (usize, Vec<u8>) {
    let toolchain = Some(Toolchain { part, triplet: "a-b", major: 9 });
    let done = patch(program, &Rules { toolchain, ..Rules::default() }).unwrap();
    (done.changes.toolchain, done.bytes)
}

#[test]
fn a_driver_becomes_a_native_one() {
    let mut data = b"1\0/\0text0\0\0/usr/lib/gcc-cross/x\0......../usr/lib/gcc-cro....\0/usr/lib/gcc-cross/\0".to_vec();
    data.resize(data.len().next_multiple_of(8), b'.');
    let table = data.len();
    [DATA, 7, DATA + 2].iter().for_each(|n: &u64| data.extend(n.to_le_bytes()));
    let code = [0x90, 0xc7, 0x43, 0x10, b's', b's', b'/', 0, 0x90];
    let program = fixed(&code, &data);
    let (count, new) = toolchain(&program, Part::Driver);
    assert_eq!(count, 3);
    assert_eq!(count_of(&new, b"\0/usr/lib/gcc/\0\0\0\0\0\0\0"), 1);
    let words = |at: usize| crate::elf::u64_at(&new, 0x2000 + table + at).unwrap();
    assert_eq!((words(0), words(8), words(16)), (DATA + 8, 7, 0), "\"0\", and no root");
    assert_eq!(count_of(&new, b"/usr/lib/gcc////...."), 1);
    assert_eq!(count_of(&new, b"/usr/lib/gcc-cross/x\0"), 1, "that is for another rule");
    assert_eq!(&new[0x1000..0x1009], [0x90, 0xc7, 0x43, 0x10, b'/', b'/', b'/', 0, 0x90]);
    // Twice is not known, so it stays.
    [DATA, 7, DATA + 2].iter().for_each(|n: &u64| data.extend(n.to_le_bytes()));
    let program = fixed(&[code, code].concat(), &data);
    assert_eq!(toolchain(&program, Part::Driver).0, 1, "but for the directory");
    assert_eq!(toolchain(LIBRARY, Part::Driver), (0, LIBRARY.to_vec()));
}

fn count_of(bytes: &[u8], text: &[u8]) -> usize {
    bytes.windows(text.len()).filter(|window| *window == text).count()
}

#[test]
fn a_compiler_searches_where_a_native_one_does() {
    let up = "/usr/lib/gcc-cross/a-b/9/../../../../a-b";
    let names = [
        (format!("{up}/include/c++/9"), [1u8, 1, 0, 0]),
        (format!("{up}/include/c++/9/a-b"), [1, 1, 0, 1]),
        (format!("{up}/libc++_include/c++/9/v1"), [2, 1, 0, 0]),
        ("/usr/lib/gcc-cross/a-b/9/include".into(), [0, 0, 0, 0]),
        ("/usr/local/include".into(), [0, 1, 1, 2]),
        (format!("{up}/include"), [0, 1, 0, 0]),
        ("/usr/include".into(), [0, 0, 1, 0]),
    ];
    let (mut data, mut at) = (vec![0u8; 8], Vec::new());
    for (name, _) in &names {
        at.push(DATA + data.len() as u64);
        data.extend(name.bytes().chain([0]));
    }
    data.resize(data.len().next_multiple_of(8) + 8, 0);
    let table = data.len();
    for (at, (_, flags)) in at.iter().zip(&names) {
        [*at, 0].iter().for_each(|n| data.extend(n.to_le_bytes()));
        data.extend(flags.iter().chain(&[0; 4]));
    }
    data.extend([0; 24]);
    let program = fixed(&[0x90], &data);
    let (count, new) = toolchain(&program, Part::Compiler);
    assert_eq!(count, 7);
    let entry = |n: usize| {
        let place = 0x2000 + table + n * 24;
        let name = (crate::elf::u64_at(&new, place).unwrap() - DATA) as usize + 0x2000;
        let end = new[name..].iter().position(|b| *b == 0).unwrap();
        (String::from_utf8(new[name..name + end].to_vec()).unwrap(), new[place + 16..place + 20].to_vec())
    };
    let want: [(&str, [u8; 4]); 7] = [
        ("/usr/include/c++/9", [1, 1, 0, 0]),
        ("/usr/include/a-b/c++/9", [1, 1, 0, 0]),
        ("/usr/lib/gcc/a-b/9/include", [0, 0, 0, 0]),
        ("/usr/local/include", [0, 1, 1, 2]),
        ("/usr/local/include", [0, 1, 1, 0]),
        ("/usr/lib/gcc/a-b/9/../../../../a-b/include", [0, 1, 0, 0]),
        ("/usr/include", [0, 0, 1, 0]),
    ];
    for (n, (name, flags)) in want.iter().enumerate() {
        assert_eq!(entry(n), ((*name).to_owned(), flags.to_vec()));
    }
    // A table that ends otherwise is none.
    let end = data.len() - 24;
    data[end] = 1;
    let program = fixed(&[0x90], &data);
    assert_eq!(toolchain(&program, Part::Compiler), (0, program));
}

#[test]
fn collect2_looks_for_ld() {
    let data = b"\0a-b\0x-\0-\0.";
    let imm = |op: u8, offset: u64| [&[op][..], &u32::try_from(DATA + offset).unwrap().to_le_bytes()].concat();
    // Nothing is put together where no "-" is near.
    let code = [imm(0xbf, 1), vec![0x90; 40], imm(0xbe, 6), imm(0xbf, 1)].concat();
    let program = fixed(&code, data);
    let (count, new) = toolchain(&program, Part::Linker);
    assert_eq!(count, 1);
    let changed = [imm(0xbf, 1), vec![0x90; 40], imm(0xbe, 4), imm(0xbf, 4)].concat();
    assert_eq!(&new[0x1000..0x1000 + changed.len()], changed);
    assert_eq!(&new[0x2000..], &program[0x2000..], "the name itself stays");
}

#[test]
fn names_of_symbols_and_libraries_stay() {
    let rules = [("libx.so.1", "liby.so.1"), ("uname", "unama"), ("writable", "readable")];
    let done = patch(LIBRARY, &Rules { prefixes: &rules, ..Rules::default() }).unwrap();
    assert_eq!((done.changes.prefixes, done.changes.left.len()), (vec![0; 3], 3));
    assert_eq!(done.bytes, LIBRARY);
    // A search path that ends like a symbol's name, the name being its end: both stay.
    let mut shared = LIBRARY.to_vec();
    let layout = Layout::of(LIBRARY).unwrap();
    let path = layout.dynamic(29).next().unwrap();
    let table = layout.place(layout.dynamic(6).next().unwrap()).unwrap();
    shared[table + 24..table + 28].copy_from_slice(&u32::try_from(path + 5).unwrap().to_le_bytes());
    let done = patch(&shared, &Rules { prefixes: &[MULTIARCH], ..Rules::default() }).unwrap();
    assert_eq!((done.changes.prefixes, done.changes.left.len()), (vec![3], 2));
}

#[test]
fn an_end_that_others_use_is_not_changed() {
    // "/gconv" and the array's end are the same text before and after; what points at "lib/…" would read another.
    let mut shared = OLD.to_vec();
    let layout = Layout::of(OLD).unwrap();
    let text =
        layout.address(OLD.windows(32).position(|w| w == b"/usr/lib/x86_64-linux-gnu/gconv\0").unwrap()).unwrap();
    let pointer = layout.pointers()[0];
    for (more, fits) in [(5, false), (25, true), (26, true)] {
        shared[pointer.place..pointer.place + 8].copy_from_slice(&(text + more).to_le_bytes());
        let done = patch(&shared, &Rules { prefixes: &[MULTIARCH], ..Rules::default() });
        assert_eq!(done.is_ok(), fits, "{more}: {done:?}");
    }
}

#[test]
fn strings_of_any_length_by_instruction_and_by_pointer() {
    let longer =
        [("x86_64", "aarch64"), MACHTYPE, ("-L/usr/lib/x86_64-linux-gnu/a:/usr/lib/x86_64-linux-gnu/b", "short")];
    let done = patch(PROGRAM, &Rules { strings: &longer, ..Rules::default() }).unwrap();
    assert_eq!(done.changes.strings, [1, 1, 1]);
    if let Some(before) = said(PROGRAM) {
        assert!(before.starts_with("x86_64\nx86_64-pc-linux-gnu\n-L"), "{before}");
        assert_eq!(said(&done.bytes).unwrap(), "aarch64\naarch64-unknown-linux-gnu\nshort\n");
    }
    // The old text is still there, and no one's.
    let again = patch(&done.bytes, &Rules { strings: &[MACHTYPE], ..Rules::default() });
    assert_eq!(again.unwrap_err(), Unfit::Unused(MACHTYPE.0.to_owned()));
    for library in [LIBRARY, OLD] {
        let done = patch(library, &Rules { strings: &[MACHTYPE], ..Rules::default() }).unwrap();
        assert_eq!(done.changes.strings, [1]);
        let layout = Layout::of(&done.bytes).unwrap();
        let told = |p: &crate::elf::Pointer| layout.place(p.target).map(|at| done.bytes[at..].to_vec());
        assert!(layout.pointers().iter().filter_map(told).any(|text| text == b"aarch64-unknown-linux-gnu\0"));
    }
}

#[test]
fn strings_that_cannot_be_followed() {
    let fault = |program: &[u8], rule| patch(program, &Rules { strings: &[rule], ..Rules::default() }).unwrap_err();
    assert_eq!(fault(FIXED, MACHTYPE), Unfit::Fixed(MACHTYPE.0.to_owned()));
    assert_eq!(fault(PROGRAM, ("mips", "x")), Unfit::Absent("mips".to_owned()));
    // The end of another, which nobody means by itself.
    assert_eq!(fault(PROGRAM, ("linux-gnu", "x")), Unfit::Unused("linux-gnu".to_owned()));
    // A load of the string's bytes: `lea` becomes `mov`.
    let layout = Layout::of(PROGRAM).unwrap();
    let text = layout.address(PROGRAM.windows(7).position(|w| w == b"x86_64\0").unwrap()).unwrap();
    let lea = (0..PROGRAM.len() - 7)
        .find(|at| {
            let next = layout.address(at + 7);
            PROGRAM[at + 1] == 0x8d
                && elf::u32_at(PROGRAM, at + 3)
                    .zip(next)
                    .is_some_and(|(way, next)| next.wrapping_add_signed((way as i32).into()) == text)
        })
        .unwrap();
    let mut loads = PROGRAM.to_vec();
    loads[lea + 1] = 0x8b;
    assert_eq!(fault(&loads, ("x86_64", "aarch64")), Unfit::Unused("x86_64".to_owned()));
    let pointer = layout.pointers()[0].place;
    loads[pointer..pointer + 8].copy_from_slice(&text.to_le_bytes());
    assert_eq!(fault(&loads, ("x86_64", "aarch64")), Unfit::Read("x86_64".to_owned(), text));
}

#[test]
fn the_loader_is_another() {
    let done = patch(PROGRAM, &Rules { interpreter: Some("/run/accel/ld.so"), ..Rules::default() }).unwrap();
    assert_eq!(elf::parse(&done.bytes).unwrap().interpreter.as_deref(), Some("/run/accel/ld.so"));
    assert_eq!(done.bytes.len(), PROGRAM.len());
    let fault = |program, name| patch(program, &Rules { interpreter: Some(name), ..Rules::default() }).unwrap_err();
    assert_eq!(fault(LIBRARY, "/ld.so"), Unfit::NoInterpreter);
    assert!(matches!(fault(PROGRAM, "/lib64/ld-linux-x86-64.so.2x"), Unfit::Longer { room: 27, .. }));
}

#[test]
fn uname_is_another() {
    for library in [LIBRARY, OLD] {
        let done = patch(library, &Rules { machine: Some("aarch64"), ..Rules::default() }).unwrap();
        assert!(done.changes.machine && count(&done.bytes, "aarch64\0") == 1);
        // The jump is no number of a system call any more.
        let twice = patch(&done.bytes, &Rules { machine: Some("riscv64"), ..Rules::default() });
        assert!(matches!(twice, Err(Unfit::Uname(_))));
        // Its one note is used up.
        let more = patch(&done.bytes, &Rules { strings: &[MACHTYPE], ..Rules::default() });
        assert_eq!(more.unwrap_err(), Unfit::NoRoom);
    }
    let fault = |program, name| patch(program, &Rules { machine: Some(name), ..Rules::default() }).unwrap_err();
    assert_eq!(fault(PROGRAM, "aarch64"), Unfit::Uname("it has none"));
    assert!(patch(LIBRARY, &Rules { machine: Some(&"m".repeat(MOST_MACHINE)), ..Rules::default() }).is_ok());
    assert!(matches!(fault(LIBRARY, &"m".repeat(MOST_MACHINE + 1)), Unfit::Rule(..)));
}

#[test]
fn a_loader_is_made_deaf() {
    let deaf = |program: &[u8]| patch(program, &Rules { deaf: true, ..Rules::default() });
    let code = [&[0x90, 0x48, 0xb8][..], b"LIBRARY_", &[0x90]].concat();
    // As data it is a text like others.
    let done = deaf(&fixed(&code, &code)).unwrap().bytes;
    assert_eq!((count(&done, "LIBRARY_"), count(&done, "library_")), (1, 1));
    assert_eq!(&done[0x1003..0x100b], b"library_");
    assert!(matches!(deaf(&fixed(&[code.clone(), code.clone()].concat(), b"")), Err(Unfit::Loader(_))));
    assert!(matches!(deaf(&fixed(b"LIBRARY_", &code)), Err(Unfit::Loader(_))));
}

#[test]
fn rules_that_cannot_be_right() {
    let fault = |rules: &Rules<'_>| matches!(patch(PROGRAM, rules).unwrap_err(), Unfit::Rule(..));
    assert!(fault(&Rules { prefixes: &[("/usr/", "/run")], ..Rules::default() }));
    assert!(fault(&Rules { prefixes: &[("", "")], ..Rules::default() }));
    assert!(fault(&Rules { strings: &[("a\0b", "c")], ..Rules::default() }));
    assert!(fault(&Rules { strings: &[("", "c")], ..Rules::default() }));
    assert!(fault(&Rules { interpreter: Some(""), ..Rules::default() }));
    assert!(fault(&Rules { machine: Some(""), ..Rules::default() }));
}

#[test]
fn strangers_and_damage_are_refused_and_nothing_panics() {
    let all = Rules {
        interpreter: Some("/ld.so"),
        prefixes: &[CACHE, MULTIARCH],
        strings: &[MACHTYPE],
        machine: Some("aarch64"),
        ..Rules::default()
    };
    let each = [
        Rules { interpreter: None, ..all },
        Rules { machine: None, ..all },
        Rules { interpreter: None, strings: &[], machine: None, ..all },
    ];
    for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x02\x01"] {
        assert_eq!(patch(bytes, &all), Err(Unfit::Foreign));
    }
    let mut arm = PROGRAM.to_vec();
    arm[18] = 183;
    assert_eq!(patch(&arm, &all), Err(Unfit::Foreign));
    for file in [LIBRARY, OLD, PROGRAM] {
        for length in (0..file.len()).step_by(7) {
            let _ = patch(&file[..length], &each[0]);
        }
        // The headers and what the dynamic linker reads.
        let tables = (0..0x300).chain(file.len() - 0x800..file.len()).step_by(3);
        for (n, at) in tables.enumerate() {
            let mut bad = file.to_vec();
            bad[at] = [0, 1, 0x7f, 0x80, 0xff][n % 5];
            each.iter().for_each(|rules| drop(patch(&bad, rules)));
        }
    }
}

#[test]
fn python_finds_its_libraries_elsewhere() {
    // Two constants of Python's start as they lie in it, among the data of a library of ours.
    let constants = b"z\x0c/lib-dynloadz\tLib/os.pyz\x14\\Modules\\Setup.localz\x02nt";
    let rules = |path| Rules { modules: Some(path), ..Rules::default() };
    let at = LIBRARY.windows(4).position(|w| w == b"-L/u").unwrap();
    let mut python = LIBRARY.to_vec();
    python[at..at + constants.len()].copy_from_slice(constants);
    let done = patch(&python, &rules("/run/accel/py")).unwrap().bytes;
    let wanted = b"z\x16/../../../run/accel/pyz\tLib/os.pyz\x0a\\Modules\\Sz\x02nt";
    assert_eq!(&done[at..at + constants.len()], wanted);
    assert_eq!(done.len(), python.len());
    assert!(done.iter().zip(&python).enumerate().all(|(n, (a, b))| a == b || (at..at + constants.len()).contains(&n)));
    let fault = |program: &[u8], path| patch(program, &rules(path)).unwrap_err().to_string();
    assert!(fault(LIBRARY, "/x").contains("not found once"));
    assert!(fault(&python, "/a/directory/with/a/long/name").contains("so much room"));
    python[at + 12] = b'X';
    assert!(fault(&python, "/x").contains("not found once"));
    python[at + 12] = b'a';
    python[at + 40] = b'X';
    assert!(fault(&python, "/x").contains("nothing near"));
}
