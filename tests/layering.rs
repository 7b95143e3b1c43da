//! The map in src/lib.rs is true: rooms use only what lies below them, every file says what it is for, and `unsafe` stays on
//! the ground floor. What a newcomer would get wrong: the table *is* the rule; a new arrow is made there first, with a reason,
//! and modules of tests obey it as all code does.

#![allow(missing_docs, reason = "a test program")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rooms by name with their floors, and the arrows that are allowed on one floor.
struct Map {
    floors: BTreeMap<String, u32>,
    sideways: BTreeSet<(String, String)>,
}

impl Map {
    /// Reads the table: `3  backend  monitor      one subject each`; rooms stand two spaces apart, their description further,
    /// and `a -> b` lets a use b.
    fn read(text: &str) -> Map {
        let table = text.split("```text").nth(1).and_then(|t| t.split("```").next()).expect("a table in src/lib.rs");
        let mut map = Map { floors: BTreeMap::new(), sideways: BTreeSet::new() };
        for line in table.lines().map(|l| l.trim_start_matches("//!").trim()).filter(|l| !l.is_empty()) {
            let (floor, rest) = line.split_once("  ").unwrap_or_else(|| panic!("no floor: {line}"));
            let floor = floor.parse().unwrap_or_else(|_| panic!("no floor: {line}"));
            let rooms = rest.trim().split("   ").next().unwrap_or_default();
            for group in rooms.split("  ") {
                let chain: Vec<&str> = group.split("->").map(str::trim).collect();
                for room in &chain {
                    map.floors.insert((*room).to_owned(), floor);
                }
                for pair in chain.windows(2) {
                    map.sideways.insert((pair[0].to_owned(), pair[1].to_owned()));
                }
            }
        }
        map
    }

    fn allows(&self, from: &str, to: &str) -> bool {
        let (Some(above), Some(below)) = (self.floors.get(from), self.floors.get(to)) else { return false };
        from == to || above > below || self.sideways.contains(&(from.to_owned(), to.to_owned()))
    }
}

/// Source text with comments and the insides of literals replaced by spaces.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let skip = literal_or_comment(bytes, at);
        if skip == 0 {
            out.push(char::from(bytes[at]));
            at += 1;
        } else {
            let newlines = text.as_bytes()[at..at + skip].iter().filter(|b| **b == b'\n').count();
            out.push(' ');
            out.extend(std::iter::repeat_n('\n', newlines));
            at += skip;
        }
    }
    out
}

/// How many bytes from `at` on are a comment, a string or a character; 0 when it is code.
fn literal_or_comment(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let before = at.checked_sub(1).map(|i| bytes[i]);
    let word_before = before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let until = |end: &[u8], from: usize| {
        let found = rest[from..].windows(end.len()).position(|w| w == end);
        found.map_or(rest.len(), |i| from + i + end.len())
    };
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => until(b"*/", 2),
        [b'r', b'"' | b'#', ..] | [b'b', b'r', b'"' | b'#', ..] if !word_before => {
            let hashes = rest.iter().skip_while(|b| **b != b'#' && **b != b'"').take_while(|b| **b == b'#').count();
            let open = rest.iter().position(|b| *b == b'"').unwrap_or(rest.len());
            // r#name is a word, not a string.
            if open > 3 + hashes || rest[..open].iter().any(|b| !b"br#".contains(b)) {
                return 0;
            }
            until(&[b"\"", "#".repeat(hashes).as_bytes()].concat(), open + 1)
        }
        [b'"', ..] => end_of_quoted(rest, b'"'),
        [b'\'', b'\\', ..] => end_of_quoted(rest, b'\''),
        // One character (of up to four bytes) and a quote; otherwise it is a lifetime.
        [b'\'', ..] => (2..=5).find(|i| rest.get(*i) == Some(&b'\'') && one_char(&rest[1..*i])).map_or(0, |i| i + 1),
        _ => 0,
    }
}

fn one_char(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().count() == 1)
}

fn end_of_quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// The rooms that a piece of code names by `crate::`, in braces too.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let word =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = code[at + "crate::".len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(list) => found.extend(first_words(list).iter().map(|item| word(item))),
            None => {
                found.insert(word(rest));
            }
        }
    }
    found.remove("");
    found
}

/// The items of a brace list, at its own depth.
fn first_words(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[start..at]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// The longest chain of `super::` in it.
fn supers(code: &str) -> usize {
    let squeezed: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let mut longest = 0;
    let mut rest = squeezed.as_str();
    while let Some(at) = rest.find("super::") {
        rest = &rest[at..];
        let mut chain = 0;
        while let Some(next) = rest.strip_prefix("super::") {
            (chain, rest) = (chain + 1, next);
        }
        longest = longest.max(chain);
    }
    longest
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty())
}

/// What is wrong with one file; `path` is below src/.
fn faults(map: &Map, path: &Path, text: &str) -> Vec<String> {
    let shown = path.display();
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!("{shown} does not say what it is for: it must begin with //!"));
    }
    let code = code_of(text);
    let parts: Vec<String> = path.iter().map(|p| p.to_string_lossy().trim_end_matches(".rs").to_owned()).collect();
    let room = &parts[0];
    if room != "sys" && words(&code).any(|w| w == "unsafe" || w == "unsafe_code") {
        faults.push(format!("{shown} uses unsafe, which only sys may"));
    }
    if room == "main" || room == "lib" {
        return faults;
    }
    if !map.floors.contains_key(room) {
        faults.push(format!("{shown} is in no room of the table in src/lib.rs"));
    }
    for used in rooms_used(&code).iter().filter(|used| !map.allows(room, used)) {
        faults.push(format!("{shown}: {room} may not import {used}"));
    }
    // src/ROOM/mod.rs is the room itself; a module written inside a file is one deeper.
    let depth = parts.len() - if parts.last().is_some_and(|p| p == "mod") { 2 } else { 1 };
    let deepest = depth + usize::from(words(&code).any(|w| w == "mod"));
    if supers(&code) > deepest || code.contains("crate as ") {
        faults.push(format!("{shown} leaves its room by super:: or by another name of the crate"));
    }
    faults
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_house_is_as_its_map_says() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = Map::read(&std::fs::read_to_string(src.join("lib.rs")).unwrap());
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 30, "the sources were not found");
    files.sort();
    let check =
        |file: &PathBuf| faults(&map, file.strip_prefix(&src).unwrap(), &std::fs::read_to_string(file).unwrap());
    let all: Vec<String> = files.iter().flat_map(check).collect();
    assert!(all.is_empty(), "{}", all.join("\n"));
    for room in map.floors.keys() {
        let there = src.join(room).is_dir() || src.join(format!("{room}.rs")).is_file();
        assert!(there, "the table names a room that is not there: {room}");
    }
}

const TABLE: &str = "//! ```text\n//! 2  up  there      what it does, with words\n//! 1  left -> right  far      crate::up\n\
    //! 0  sys      ground\n//! ```\n";

#[test]
fn arrows_that_the_table_allows_and_others() {
    let map = Map::read(TABLE);
    assert_eq!(map.floors.keys().collect::<Vec<_>>(), ["far", "left", "right", "sys", "there", "up"]);
    for (from, to, want) in [
        ("up", "left", true),
        ("up", "sys", true),
        ("up", "up", true),
        ("left", "right", true),
        ("right", "left", false),
        ("left", "far", false),
        ("up", "there", false),
        ("sys", "far", false),
        ("up", "nowhere", false),
    ] {
        assert_eq!(map.allows(from, to), want, "{from} {to}");
    }
}

#[test]
fn what_breaks_the_rules_is_found() {
    let map = Map::read(TABLE);
    let told = |path: &str, text: &str| faults(&map, Path::new(path), text);
    assert!(
        told(
            "left/mod.rs",
            "//! x\nuse crate::{right::{Far, up}, sys};\n// crate::up\nconst S: &str = \"crate::up\";\n"
        )
        .is_empty()
    );
    assert_eq!(told("left/a.rs", "//! x\nfn f() { crate::up::go() }\n"), ["left/a.rs: left may not import up"]);
    assert_eq!(told("right/a.rs", "//! x\nuse crate::{sys, left::X, far};\n").len(), 2);
    assert_eq!(told("left/a.rs", "//! x\nmod tests { use crate :: up; use crate::far::Y; }\n").len(), 1);
    assert_eq!(told("left/a.rs", "use super::b;\n").len(), 1, "no //!");
    assert_eq!(told("left/a.rs", "//! x\nfn f() { unsafe { g() } }\n").len(), 1);
    assert!(told("sys/a.rs", "//! x\nfn f() { unsafe { g() } }\n").is_empty());
    assert!(
        told("left/a.rs", "//! x\n// unsafe\nconst U: &str = r#\"unsafe\"#; const C: char = '\"'; // unsafe\n")
            .is_empty()
    );
    assert_eq!(told("left/a.rs", "//! x\nconst C: char = '\\''; fn f<'a>() { unsafe {} }\n").len(), 1);
    assert_eq!(told("left/a.rs", "//! x\nuse super::super::up::X;\n").len(), 1);
    assert!(told("left/b/c.rs", "//! x\nuse super::super::X;\n").is_empty());
    assert_eq!(told("left/mod.rs", "//! x\nuse super::up;\n").len(), 1);
    assert!(told("left/mod.rs", "//! x\nmod tests { use super::*; }\n").is_empty());
    assert_eq!(told("nowhere/mod.rs", "//! x\n").len(), 1);
    assert_eq!(told("left/a.rs", "//! x\nuse crate as house;\n").len(), 1);
}
