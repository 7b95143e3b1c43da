//! Which known word a mistyped one is nearest to. What a newcomer would get wrong: two swapped letters are one mistake, not
//! two, since that is how people mistype (optimal string alignment distance).

/// How many letters must be added, removed, changed or swapped with their neighbour to make `a` into `b`.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// The known words that are nearest to `word`, at most three, all of them equally near; none when all are too far: more than
/// a third of the letters are wrong.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // A long word costs length², and nobody mistypes one of 64 letters.
    if word.chars().count() > 64 {
        return Vec::new();
    }
    let limit = word.chars().count().div_ceil(3).max(1);
    let mut best = limit;
    let mut found: Vec<&str> = Vec::new();
    for candidate in known {
        let far = distance(word, candidate);
        if far > best || far >= candidate.chars().count() {
            continue;
        }
        if far < best {
            found.clear();
            best = far;
        }
        if found.len() < 3 && !found.contains(&candidate) {
            found.push(candidate);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, far) in
            [("", "", 0), ("a", "", 1), ("lsit", "list", 1), ("kitten", "sitting", 3), ("ä", "a", 1), ("abc", "abc", 0)]
        {
            assert_eq!(distance(a, b), far, "{a} {b}");
            assert_eq!(distance(b, a), far, "{b} {a}");
        }
    }

    #[test]
    fn only_the_near_ones() {
        let known = ["list", "logs", "create", "pause", "unpause"];
        assert_eq!(nearest("lst", known), ["list"]);
        assert_eq!(nearest("cretae", known), ["create"]);
        assert_eq!(nearest("unpasue", known), ["unpause"]);
        assert!(nearest("xyz", known).is_empty());
        assert!(nearest("q", known).is_empty());
        assert!(nearest(&"l".repeat(1000), known).is_empty());
    }
}
