//! Which name was probably meant. What a newcomer would get wrong: a nearest name always exists, but is only worth telling
//! when it is near.

/// The value of the name nearest to `wanted`, if it is no more than a third of its letters (and at least one) away.
pub(super) fn nearest<'a, T>(wanted: &str, names: impl Iterator<Item = (&'a str, T)>) -> Option<T> {
    let (name_distance, length, value) = names
        .map(|(name, value)| (distance(wanted, name), name.chars().count().max(wanted.chars().count()), value))
        .min_by_key(|(distance, ..)| *distance)?;
    (name_distance <= 2 * (length / 3).max(1)).then_some(value)
}

/// Two for each letter that must be inserted, removed or replaced, one for each that must be swapped with its neighbour: a swap
/// is the slip of a hand, so `amr64` is nearer to `arm64` than to `amd64` (optimal string alignment, weighted).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).map(|n| 2 * n).collect();
    for i in 0..a.len() {
        let mut next = vec![2 * (i + 1)];
        for j in 0..b.len() {
            let replaced = row[j] + 2 * usize::from(a[i] != b[j]);
            let mut best = replaced.min(row[j + 1] + 2).min(next[j] + 2);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, want) in [
            ("", "", 0),
            ("arm64", "arm64", 0),
            ("amr64", "arm64", 1),
            ("", "abc", 6),
            ("risc64", "riscv64", 2),
            ("amr64", "amd64", 2),
        ] {
            assert_eq!(distance(a, b), want, "{a} {b}");
            assert_eq!(distance(b, a), want, "{b} {a}");
        }
    }
}
