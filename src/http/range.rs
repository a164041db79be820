//! What part of an object a request gets (RFC 9110 section 14). Pure.
//!
//! Called once the preconditions of [`super::fresh`] have let the request pass.

use std::ops::Range;

use http::{HeaderMap, Method, header};

use super::fresh::{self, Validators};

/// The bytes a response carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The whole object (200).
    Full,
    /// These parts (206): sorted, not empty, neither touching nor overlapping, within the object.
    Partial(Vec<Range<u64>>),
    /// No range lies within the object (416).
    NotSatisfiable,
}

/// Plans a response of an object of `len` bytes. At most `max_ranges` ranges are honoured: a field with more is
/// ignored, as one that is malformed is (RFC 9110 section 14.2 allows both), and the answer is then the whole object.
#[must_use]
pub fn plan(
    method: &Method,
    headers: &HeaderMap,
    validators: &Validators<'_>,
    len: u64,
    max_ranges: usize,
) -> Plan {
    // Range is defined for GET only; in any other request it means nothing (section 14.2).
    if method != Method::GET {
        return Plan::Full;
    }
    let mut fields = headers.get_all(header::RANGE).iter();
    let Some(field) = fields.next() else {
        return Plan::Full;
    };
    if fields.next().is_some() || !fresh::if_range(headers, validators) {
        return Plan::Full;
    }
    let Some(wanted) = parse(field.as_bytes(), max_ranges) else {
        return Plan::Full;
    };
    let mut ranges = Vec::with_capacity(wanted.len());
    for spec in wanted {
        match spec.within(len) {
            Resolved::Part(range) => ranges.push(range),
            Resolved::Outside => {}
            Resolved::EmptyWhole => return Plan::Full,
        }
    }
    if ranges.is_empty() {
        return Plan::NotSatisfiable;
    }
    merge(&mut ranges);
    Plan::Partial(ranges)
}

/// One element of a `Range` field, positions as written (too large ones held at `u64::MAX`).
#[derive(Clone, Copy, Debug)]
enum Spec {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

enum Resolved {
    Part(Range<u64>),
    Outside,
    /// The last bytes of an empty object: satisfiable, yet no 206 can say "no bytes".
    EmptyWhole,
}

impl Spec {
    fn within(self, len: u64) -> Resolved {
        let range = match self {
            Self::From(first) => first..len,
            Self::Between(first, last) => first..last.saturating_add(1).min(len),
            Self::Last(0) => return Resolved::Outside,
            Self::Last(_) if len == 0 => return Resolved::EmptyWhole,
            Self::Last(count) => len.saturating_sub(count)..len,
        };
        if range.is_empty() {
            Resolved::Outside
        } else {
            Resolved::Part(range)
        }
    }
}

/// The elements of `bytes=…`, or `None` if the field is malformed, of another unit or has more than `max`.
fn parse(field: &[u8], max: usize) -> Option<Vec<Spec>> {
    let (unit, set) = field.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let mut specs = Vec::with_capacity(1);
    for element in set.split(|b| *b == b',') {
        let element = element.trim_ascii();
        // Empty list elements are allowed (section 5.6.1.2).
        if element.is_empty() {
            continue;
        }
        if specs.len() == max {
            return None;
        }
        specs.push(parse_one(element)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn parse_one(element: &[u8]) -> Option<Spec> {
    let dash = element.iter().position(|b| *b == b'-')?;
    let (first, last) = (&element[..dash], &element[dash + 1..]);
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Spec::Last(number(last)?)),
        (false, true) => Some(Spec::From(number(first)?)),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::Between(first, last))
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |sum, b| {
        b.is_ascii_digit()
            .then(|| sum.saturating_mul(10).saturating_add(u64::from(b - b'0')))
    })
}

/// Sorts, and joins what overlaps or touches.
fn merge(ranges: &mut Vec<Range<u64>>) {
    ranges.sort_unstable_by_key(|r| r.start);
    ranges.dedup_by(|next, kept| {
        let joins = next.start <= kept.end;
        if joins {
            kept.end = kept.end.max(next.end);
        }
        joins
    });
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "one range is what is meant"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALIDATORS: Validators<'static> = Validators {
        etag: "\"v1\"",
        modified: 784_111_777, // Sun, 06 Nov 1994 08:49:37 GMT
    };

    fn planned(range: &str, len: u64) -> Plan {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        plan(&Method::GET, &headers, &VALIDATORS, len, 16)
    }

    #[track_caller]
    fn check(range: &str, len: u64, expected: &[Range<u64>]) {
        assert_eq!(
            planned(range, len),
            Plan::Partial(expected.to_vec()),
            "{range}"
        );
    }

    #[test]
    fn range_within_object_is_partial() {
        check("bytes=0-0", 10, &[0..1]);
        check("bytes=2-5", 10, &[2..6]);
        check("bytes=2-", 10, &[2..10]);
        check("bytes=-3", 10, &[7..10]);
        check("BYTES=0-9", 10, &[0..10]);
    }

    #[test]
    fn range_beyond_the_end_is_cut() {
        check("bytes=5-99999999999999999999999", 10, &[5..10]);
        check("bytes=-11", 10, &[0..10]);
        check("bytes=9-10", 10, &[9..10]);
    }

    #[test]
    fn ranges_are_sorted_and_merged() {
        check("bytes=8-9, 0-1", 10, &[0..2, 8..10]);
        check("bytes=0-4,3-6,7-7", 10, &[0..8]);
        check("bytes= 0-0 ,, -1", 10, &[0..1, 9..10]);
        check("bytes=0-0,20-30", 10, std::slice::from_ref(&(0..1)));
    }

    #[test]
    fn range_outside_is_not_satisfiable() {
        for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99-,50-60"] {
            assert_eq!(planned(range, 10), Plan::NotSatisfiable, "{range}");
        }
        assert_eq!(planned("bytes=0-", 0), Plan::NotSatisfiable);
    }

    #[test]
    fn range_malformed_or_unknown_is_ignored() {
        for range in [
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=1-2x",
            "bytes=+1-2",
            "bytes=1 -2",
            "bytes=1-2-3",
            "bytes=0-1,x",
            "bytes 0-1",
            "items=0-1",
            "byte",
            "",
        ] {
            assert_eq!(planned(range, 10), Plan::Full, "{range}");
        }
        assert_eq!(planned("bytes=-5", 0), Plan::Full);
    }

    #[test]
    fn more_ranges_than_allowed_are_ignored() {
        let many = |n: u64| {
            let list: Vec<_> = (0..n).map(|i| format!("{}-{}", 2 * i, 2 * i)).collect();
            format!("bytes={}", list.join(","))
        };
        assert!(matches!(planned(&many(16), 100), Plan::Partial(r) if r.len() == 16));
        assert_eq!(planned(&many(17), 100), Plan::Full);
    }

    #[test]
    fn range_in_other_methods_or_twice_is_ignored() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=0-0".parse().unwrap());
        assert_eq!(
            plan(&Method::HEAD, &headers, &VALIDATORS, 9, 16),
            Plan::Full
        );
        headers.append(header::RANGE, "bytes=1-1".parse().unwrap());
        assert_eq!(plan(&Method::GET, &headers, &VALIDATORS, 9, 16), Plan::Full);
    }

    #[test]
    fn if_range_that_does_not_match_gives_the_whole_object() {
        for (condition, partial) in [
            ("\"v1\"", true),
            ("W/\"v1\"", false),
            ("\"v2\"", false),
            ("Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", false),
            ("nonsense", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, "bytes=0-0".parse().unwrap());
            headers.insert(header::IF_RANGE, condition.parse().unwrap());
            let plan = plan(&Method::GET, &headers, &VALIDATORS, 9, 16);
            assert_eq!(plan != Plan::Full, partial, "{condition}");
        }
    }

    /// One element as text, and the bytes of `0..len` it names.
    fn element() -> impl Strategy<Value = (String, u8, u64, u64)> {
        (0u8..3, 0u64..80, 0u64..80).prop_map(|(kind, a, b)| {
            let (a, b) = (a.min(b), a.max(b));
            let text = match kind {
                0 => format!("{a}-{b}"),
                1 => format!("{a}-"),
                _ => format!("-{b}"),
            };
            (text, kind, a, b)
        })
    }

    proptest! {
        #[test]
        fn plan_agrees_with_a_set_of_bytes(
            elements in proptest::collection::vec(element(), 1..12),
            len in 0u64..64,
        ) {
            let wanted: Vec<bool> = (0..len)
                .map(|i| elements.iter().any(|(_, kind, a, b)| match kind {
                    0 => (*a..=*b).contains(&i),
                    1 => i >= *a,
                    _ => i + b >= len,
                }))
                .collect();
            let texts: Vec<_> = elements.iter().map(|e| e.0.as_str()).collect();
            match planned(&format!("bytes={}", texts.join(",")), len) {
                Plan::Full => prop_assert_eq!(len, 0),
                Plan::NotSatisfiable => prop_assert!(!wanted.contains(&true)),
                Plan::Partial(ranges) => {
                    let mut given = vec![false; usize::try_from(len).unwrap()];
                    let mut end = None;
                    for range in ranges {
                        prop_assert!(range.start < range.end && range.end <= len);
                        prop_assert!(end.is_none_or(|end| range.start > end));
                        end = Some(range.end);
                        for i in range {
                            given[usize::try_from(i).unwrap()] = true;
                        }
                    }
                    prop_assert_eq!(given, wanted);
                }
            }
        }

        #[test]
        fn plan_of_any_text_stays_within_the_object(text in "(bytes=)?[0-9,\\- a-z]{0,60}", len: u64) {
            if let Plan::Partial(ranges) = planned(&text, len) {
                prop_assert!(!ranges.is_empty() && ranges.len() <= 16);
                prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
                prop_assert!(ranges.iter().all(|r| r.start < r.end && r.end <= len));
            }
        }
    }
}
