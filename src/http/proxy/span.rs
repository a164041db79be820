//! Ranges on their way to an upstream and back: what a client names, what is asked for in whole chunks. Pure.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, header};

use super::content::CHUNK;

/// The range a request names, as far as the cache deals with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// None.
    Whole,
    /// From the first to the last byte, or to the end.
    Range(u64, Option<u64>),
    /// Several, or of the end: where they lie is not known beforehand.
    Odd,
}

/// The range that `Range` names.
#[must_use]
pub(super) fn wanted_range(headers: &HeaderMap) -> Wanted {
    let mut fields = headers.get_all(header::RANGE).iter();
    let Some(field) = fields.next() else {
        return Wanted::Whole;
    };
    let parse = || {
        let text = field.to_str().ok()?.strip_prefix("bytes=")?;
        let (first, last) = text.split_once('-')?;
        let digits = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| text.parse().ok())
        };
        let first: u64 = digits(first)??;
        if last.is_empty() {
            return Some(Wanted::Range(first, None));
        }
        let last: u64 = digits(last)??;
        (first <= last).then_some(Wanted::Range(first, Some(last)))
    };
    match parse() {
        Some(range) if fields.next().is_none() => range,
        _ => Wanted::Odd,
    }
}

/// A range widened to whole chunks: its first byte, and the field.
pub(super) fn aligned(first: u64, last: Option<u64>) -> (u64, HeaderValue) {
    let first = first / CHUNK * CHUNK;
    let text = match last {
        Some(last) => {
            let end = (last / CHUNK).saturating_add(1).saturating_mul(CHUNK);
            format!("bytes={first}-{}", end - 1)
        }
        None => format!("bytes={first}-"),
    };
    (first, value(text))
}

/// Where a partial answer lies, and in how much (RFC 9110 section 14.4).
pub(super) fn content_range(headers: &HeaderMap) -> Option<(Range<u64>, u64)> {
    let field = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = field.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total: u64 = total.parse().ok()?;
    (first <= last && last < total).then(|| (first..last + 1, total))
}

/// The part of an upstream's partial answer that the client asked for.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) skip: u64,
    pub(super) range: Range<u64>,
    pub(super) total: u64,
}

/// Words and numbers as a field value.
pub(super) fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("words and numbers are a field value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(range: &str, expected: Wanted) {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        assert_eq!(wanted_range(&headers), expected, "{range}");
    }

    #[test]
    fn one_range_from_the_start_is_dealt_with() {
        check("bytes=0-0", Wanted::Range(0, Some(0)));
        check("bytes=5-", Wanted::Range(5, None));
        for odd in [
            "bytes=-5",
            "bytes=1-2,4-5",
            "bytes=5-4",
            "lines=1-2",
            "bytes=+1-2",
        ] {
            check(odd, Wanted::Odd);
        }
        assert_eq!(wanted_range(&HeaderMap::new()), Wanted::Whole);
    }

    #[test]
    fn content_range_that_cannot_be_is_none() {
        for bad in [
            "bytes 5-4/9",
            "bytes 0-9/9",
            "bytes */9",
            "bytes 0-1/*",
            "0-1/9",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, bad.parse().unwrap());
            assert_eq!(content_range(&headers), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn aligned_range_covers_what_is_wanted_and_little_more(
            first in 0u64..1 << 50, more in 0u64..1 << 30,
        ) {
            let last = first + more;
            let (from, text) = aligned(first, Some(last));
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text);
            let Wanted::Range(a, Some(b)) = wanted_range(&headers) else { panic!() };
            prop_assert_eq!(a, from);
            prop_assert!(a <= first && last <= b);
            prop_assert!(first - a < CHUNK && b - last < CHUNK);
        }
    }
}
