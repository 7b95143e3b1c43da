//! Paths that become others of equal length, where they stand. What a newcomer would get wrong: the same letters may be the middle of
//! another path (`/opt/usr/lib/`), or belong to a symbol's name, by which it would no longer be found; and an array of text may stand
//! right behind bytes that only look like text, so that what points at it is asked as well.

use std::collections::BTreeMap;
use std::ops::Range;

use goblin::elf::dynamic::{DT_RPATH, DT_RUNPATH};

use super::references::References;
use super::{Unfit, Work};
use crate::elf::{Load, name_users};

/// A path does not go on for longer than this; what does is no text.
const MOST_TEXT: usize = 64 * 1024;
/// Fewer signs than these before a path may be bytes of something else that stands there.
const CHANCE: usize = 4;

/// How often each rule was applied, and the places in the file where the text of one was left.
pub(super) fn apply(
    work: &mut Work<'_>,
    references: &References,
    rules: &[(&str, &str)],
) -> Result<(Vec<usize>, Vec<usize>), Unfit> {
    let mut counts = vec![0; rules.len()];
    let mut places = BTreeMap::new();
    let paths = if rules.is_empty() { Vec::new() } else { search_paths(work) };
    for load in work.layout.loads() {
        scan(work, references, rules, load, &paths, &mut places);
    }
    let mut left = Vec::new();
    for (place, rule) in places {
        let Some(rule) = rule else {
            left.push(place);
            continue;
        };
        let Some((from, to)) = rules.get(rule) else { continue };
        unshared(work, references, place, from, to)?;
        work.write(place, to.as_bytes());
        if let Some(count) = counts.get_mut(rule) {
            *count += 1;
        }
    }
    Ok((counts, left))
}

/// Notes each place in a segment where the text of a rule stands: with the rule when it may be applied.
fn scan(
    work: &Work<'_>,
    references: &References,
    rules: &[(&str, &str)],
    load: &Load,
    paths: &[Range<usize>],
    places: &mut BTreeMap<usize, Option<usize>>,
) {
    let loader = work.layout.interpreter().unwrap_or_default();
    let names = work.layout.dynamic_strings().unwrap_or_default();
    let bytes = work.old.get(load.file.clone()).unwrap_or_default();
    let first: Vec<u8> = rules.iter().filter_map(|(from, _)| from.bytes().next()).collect();
    let mut at = 0;
    while at < bytes.len() {
        let here = bytes.get(at).filter(|byte| first.contains(byte));
        let rule = here.and_then(|_| rules.iter().position(|(from, _)| bytes[at..].starts_with(from.as_bytes())));
        let Some(rule) = rule else {
            at += 1;
            continue;
        };
        let (place, length) = (load.file.start + at, rules.get(rule).map_or(1, |(from, _)| from.len()));
        let fit = if names.contains(&place) {
            paths.iter().any(|path| path.contains(&place)) && starts(&bytes[..at])
        } else {
            let text = work.layout.is_data(place) && ends(&bytes[at..]);
            text && (starts(&bytes[..at]) || referenced(work, references, place, &bytes[..at]))
        };
        if !loader.contains(&place) {
            places.insert(place, fit.then_some(rule));
        }
        // The text of another rule may stand inside one that is left ("/usr/lib/" in "/opt/usr/lib/").
        at += if fit { length } else { 1 };
    }
}

/// Whether a path may start behind these bytes.
fn starts(before: &[u8]) -> bool {
    let Some((last, rest)) = before.split_last() else { return true };
    let sign = |byte: u8| !(is_path(byte) || byte >= 0x80) || byte == b'-';
    match last {
        // An option's letter: -L/usr/lib
        letter if letter.is_ascii_alphabetic() => match rest.split_last() {
            Some((b'-', rest)) => rest.last().is_none_or(|b| sign(*b) && *b != b'-'),
            _ => false,
        },
        last => sign(*last),
    }
}

/// A byte that a path goes on with, or a variable's name, or what is put in place of `%s`.
fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+~%$*?])}\\".contains(&byte)
}

/// Whether a string goes on from here to its NUL.
fn ends(text: &[u8]) -> bool {
    let text = &text[..text.len().min(MOST_TEXT)];
    let end = text.iter().position(|b| *b < 0x20 && !(7..=13).contains(b) && *b != 0x1b);
    end.is_some_and(|end| text[end] == 0)
}

/// Whether a string starts at a place because something points there; not when it is the end of a longer one.
fn referenced(work: &Work<'_>, references: &References, place: usize, before: &[u8]) -> bool {
    let Some(address) = work.layout.address(place) else { return false };
    let run = before.iter().rev().take_while(|b| **b >= 0x20 && **b < 0x7f).count();
    let pointed = |addresses| !references.to(addresses).is_empty();
    run < CHANCE && pointed(address..address + 1) && !pointed(address.saturating_sub(run as u64)..address)
}

/// Refuses when something points into a text that would read differently from there on: a linker lets strings share their ends.
fn unshared(work: &Work<'_>, references: &References, place: usize, from: &str, to: &str) -> Result<(), Unfit> {
    let same = from.bytes().rev().zip(to.bytes().rev()).take_while(|(a, b)| a == b).count();
    let Some(address) = work.layout.address(place) else { return Ok(()) };
    let changed = address.saturating_add(1)..address.saturating_add((from.len() - same) as u64);
    if references.to(changed).is_empty() { Ok(()) } else { Err(Unfit::Shared(from.to_owned())) }
}

/// The search paths among the dynamic strings that no other name shares a byte with, in the file.
fn search_paths(work: &Work<'_>) -> Vec<Range<usize>> {
    let (Some(strings), Some(users)) = (work.layout.dynamic_strings(), name_users(work.old, work.layout)) else {
        return Vec::new();
    };
    let paths = work.layout.dynamic(DT_RPATH).chain(work.layout.dynamic(DT_RUNPATH));
    let alone = paths.filter_map(|name| {
        let length = work.layout.dynamic_string(name)?.len() as u64;
        let before = name.checked_sub(1).and_then(|n| usize::try_from(n).ok()?.checked_add(strings.start));
        let first = before.is_none_or(|at| work.old.get(at) == Some(&0));
        let shared = users.iter().any(|user| (name..name + length).contains(user));
        let start = strings.start.checked_add(usize::try_from(name).ok()?)?;
        (first && !shared).then_some(start..start.checked_add(usize::try_from(length).ok()?)?)
    });
    alone.collect()
}
