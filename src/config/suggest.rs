//! The nearest known key to one that is not known. Pure.

/// The candidate nearest to `found`, if it is near enough to have been meant.
pub(super) fn nearest<'a>(found: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let limit = (found.chars().count() / 3).max(1) + 1;
    candidates
        .iter()
        .map(|c| (distance(found, c), *c))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, c)| c)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: &str, expected: Option<&str>) {
        let known = ["listen", "workers", "tcp_idle", "udp_payload"];
        assert_eq!(nearest(found, &known), expected, "{found}");
    }

    #[test]
    fn nearest_key_is_suggested_only_when_near() {
        check("lisetn", Some("listen"));
        check("worker", Some("workers"));
        check("tcp_idel", Some("tcp_idle"));
        check("udp-payload", Some("udp_payload"));
        check("colour", None);
    }
}
