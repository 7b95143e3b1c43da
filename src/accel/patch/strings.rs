//! Whole strings that become longer ones: the new text goes to the new segment, and what used the old is told so. What a newcomer
//! would get wrong: a string may be the end of a longer one ("x86_64" of "on x86_64") or stand behind bytes that are no text, so its
//! start is where something points at, not where a NUL stands before it.

use super::references::{Kind, References, operands};
use super::{Unfit, Work, way};

/// How many references were changed, for each rule.
pub(super) fn apply(work: &mut Work<'_>, references: &References, rules: &[(&str, &str)]) -> Result<Vec<usize>, Unfit> {
    rules.iter().map(|(from, to)| replace(work, references, from, to)).collect()
}

fn replace(work: &mut Work<'_>, references: &References, from: &str, to: &str) -> Result<usize, Unfit> {
    if work.layout.is_fixed() {
        return Err(Unfit::Fixed(from.to_owned()));
    }
    let found = occurrences(work, from);
    if found.is_empty() {
        return Err(Unfit::Absent(from.to_owned()));
    }
    let used: Vec<u64> = found.into_iter().filter(|at| !references.to(*at..at + 1).is_empty()).collect();
    if used.is_empty() {
        return Err(Unfit::Unused(from.to_owned()));
    }
    only_known(work, references, &used, from)?;
    let new = work.next_address()?;
    work.segment.extend(to.bytes().chain([0]));
    let mut count = 0;
    for reference in used.iter().flat_map(|at| references.to(*at..at + 1)) {
        match reference.kind {
            Kind::Lea(next) => work.write(reference.place, &way(next, new)?),
            Kind::Pointer => work.write(reference.place, &new.to_le_bytes()),
        }
        count += 1;
    }
    Ok(count)
}

/// The addresses in data where the text stands with a NUL behind it. The loader's name and the dynamic strings are no one's to point at.
fn occurrences(work: &Work<'_>, text: &str) -> Vec<u64> {
    let whole: Vec<u8> = text.bytes().chain([0]).collect();
    let names = [work.layout.interpreter(), work.layout.dynamic_strings()];
    let mut found = Vec::new();
    for load in work.layout.loads() {
        let bytes = work.old.get(load.file.clone()).unwrap_or_default();
        let places = bytes.windows(whole.len()).enumerate().filter(|(_, window)| *window == whole);
        let places = places.map(|(at, _)| load.file.start + at);
        let places = places.filter(|at| work.layout.is_data(*at) && !names.iter().flatten().any(|n| n.contains(at)));
        found.extend(places.filter_map(|at| work.layout.address(at)));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Nothing but the references reads the old text: an instruction that loads its bytes has its length built in.
fn only_known(work: &Work<'_>, references: &References, used: &[u64], text: &str) -> Result<(), Unfit> {
    let length = text.len() as u64 + 1;
    for load in work.layout.loads().iter().filter(|l| l.executable) {
        for operand in operands(work.old, load) {
            let behind = used.partition_point(|at| *at <= operand.target);
            let Some(at) = behind.checked_sub(1).and_then(|n| used.get(n)) else { continue };
            let known = || references.to(operand.target..operand.target + 1).iter().any(|r| r.place == operand.place);
            if operand.target - at < length && !known() {
                return Err(Unfit::Read(text.to_owned(), operand.target));
            }
        }
    }
    Ok(())
}
