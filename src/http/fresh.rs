//! Conditional requests (RFC 9110 section 13). Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, Method, header};

/// What a version of an object is known by.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// Strong entity tag, with its quotes.
    pub etag: &'a str,
    /// Last modification, Unix seconds.
    pub modified: u64,
}

/// What the preconditions of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Answer as if there were none.
    Proceed,
    /// 304: the client holds this version.
    NotModified,
    /// 412: the client wants another version.
    PreconditionFailed,
}

/// Evaluates the preconditions in the order of RFC 9110 section 13.2.2 (`If-Range` belongs to the range plan).
#[must_use]
pub fn evaluate(method: &Method, headers: &HeaderMap, validators: &Validators<'_>) -> Verdict {
    let safe = method == Method::GET || method == Method::HEAD;
    if headers.contains_key(header::IF_MATCH) {
        if !any_tag(headers, &header::IF_MATCH, validators.etag, Compare::Strong) {
            return Verdict::PreconditionFailed;
        }
    } else if let Some(since) = date(headers, &header::IF_UNMODIFIED_SINCE)
        && validators.modified > since
    {
        return Verdict::PreconditionFailed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if any_tag(
            headers,
            &header::IF_NONE_MATCH,
            validators.etag,
            Compare::Weak,
        ) {
            return if safe {
                Verdict::NotModified
            } else {
                Verdict::PreconditionFailed
            };
        }
    } else if safe
        && let Some(since) = date(headers, &header::IF_MODIFIED_SINCE)
        && validators.modified <= since
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether `If-Range` lets a range pass: absent, or exactly this version (strong comparison; RFC 9110 section 13.1.5).
#[must_use]
pub fn if_range(headers: &HeaderMap, validators: &Validators<'_>) -> bool {
    let Some(field) = headers.get(header::IF_RANGE) else {
        return true;
    };
    let field = field.as_bytes().trim_ascii();
    if field.starts_with(b"\"") || field.starts_with(b"W/") {
        return field == validators.etag.as_bytes();
    }
    date(headers, &header::IF_RANGE) == Some(validators.modified)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    Strong,
    Weak,
}

/// Whether any tag of all `name` fields is `*` or equals `etag` (which is strong).
fn any_tag(headers: &HeaderMap, name: &HeaderName, etag: &str, compare: Compare) -> bool {
    headers
        .get_all(name)
        .iter()
        .any(|field| tag_in(field.as_bytes(), etag.as_bytes(), compare))
}

/// Walks a list of entity tags; a tag may hold commas, so it is not split at them. What follows a fault is not read.
fn tag_in(mut list: &[u8], etag: &[u8], compare: Compare) -> bool {
    if list.trim_ascii() == b"*" {
        return true;
    }
    loop {
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let (weak, tag) = match list {
            [b'W', b'/', rest @ ..] => (true, rest),
            _ => (false, list),
        };
        let [b'"', inner @ ..] = tag else {
            return false;
        };
        let Some(end) = inner.iter().position(|b| *b == b'"') else {
            return false;
        };
        if tag[..end + 2] == *etag && (compare == Compare::Weak || !weak) {
            return true;
        }
        list = &inner[end + 1..];
    }
}

/// The date of the only `name` field, Unix seconds; one that is repeated or no date counts as absent.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let mut fields = headers.get_all(name).iter();
    let field = fields.next()?;
    if fields.next().is_some() {
        return None;
    }
    let at = httpdate::parse_http_date(field.to_str().ok()?.trim()).ok()?;
    Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// `seconds` since 1970 as an HTTP date. Years after 9999 are written as its last second.
#[must_use]
pub fn http_date(seconds: u64) -> String {
    let at: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_SECOND));
    httpdate::fmt_http_date(at)
}

/// `ms` since 1970 as an RFC 3339 date with milliseconds.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    // "Sun, 06 Nov 1994 08:49:37 GMT" has fixed columns.
    let date = http_date(ms / 1000);
    let month = MONTHS.find(&date[8..11]).map_or(0, |at| at / 3 + 1);
    let (year, day, time) = (&date[12..16], &date[5..7], &date[17..25]);
    format!("{year}-{month:02}-{day}T{time}.{:03}Z", ms % 1000)
}

/// 9999-12-31T23:59:59Z, the last moment an HTTP date can name.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::*;
    use proptest::prelude::*;

    const MODIFIED: u64 = 784_111_777;
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn verdict(method: &Method, fields: &[(&str, &str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        let validators = Validators {
            etag: "\"v1\"",
            modified: MODIFIED,
        };
        evaluate(method, &headers, &validators)
    }

    #[track_caller]
    fn check(fields: &[(&str, &str)], expected: Verdict) {
        assert_eq!(verdict(&Method::GET, fields), expected, "{fields:?}");
        assert_eq!(verdict(&Method::HEAD, fields), expected, "{fields:?}");
    }

    #[test]
    fn no_condition_proceeds() {
        check(&[], Proceed);
    }

    #[test]
    fn if_none_match_compares_weakly() {
        for same in [
            "\"v1\"",
            "W/\"v1\"",
            "*",
            "\"a\", \"v1\"",
            "\"a,b\",W/\"v1\"",
            ",\"v1\"",
        ] {
            check(&[("if-none-match", same)], NotModified);
        }
        for other in [
            "\"v2\"",
            "v1",
            "\"v1",
            "",
            "w/\"v1\"",
            "\"a, \\\"v1\"",
            "\"*\"",
        ] {
            check(&[("if-none-match", other)], Proceed);
        }
        check(
            &[("if-none-match", "\"a\""), ("if-none-match", "\"v1\"")],
            NotModified,
        );
    }

    #[test]
    fn if_match_compares_strongly() {
        for same in ["\"v1\"", "*", "W/\"v1\", \"v1\""] {
            check(&[("if-match", same)], Proceed);
        }
        for other in ["W/\"v1\"", "\"v2\"", ""] {
            check(&[("if-match", other)], PreconditionFailed);
        }
    }

    #[test]
    fn dates_compare_with_last_modified() {
        check(&[("if-modified-since", AT)], NotModified);
        check(&[("if-modified-since", AFTER)], NotModified);
        check(&[("if-modified-since", BEFORE)], Proceed);
        check(&[("if-unmodified-since", AT)], Proceed);
        check(&[("if-unmodified-since", BEFORE)], PreconditionFailed);
    }

    #[test]
    fn dates_that_are_none_or_repeated_are_ignored() {
        check(&[("if-modified-since", "yesterday")], Proceed);
        check(&[("if-unmodified-since", "0")], Proceed);
        check(
            &[("if-modified-since", AT), ("if-modified-since", AT)],
            Proceed,
        );
    }

    #[test]
    fn tags_go_before_dates() {
        check(
            &[("if-none-match", "\"v2\""), ("if-modified-since", AFTER)],
            Proceed,
        );
        check(
            &[("if-match", "\"v1\""), ("if-unmodified-since", BEFORE)],
            Proceed,
        );
        check(
            &[("if-match", "\"v2\""), ("if-none-match", "\"v1\"")],
            PreconditionFailed,
        );
        check(
            &[("if-match", "\"v1\""), ("if-none-match", "\"v1\"")],
            NotModified,
        );
    }

    #[test]
    fn if_none_match_in_an_unsafe_method_fails() {
        assert_eq!(
            verdict(&Method::PUT, &[("if-none-match", "*")]),
            PreconditionFailed
        );
    }

    #[test]
    fn rfc3339_date_is_that_of_the_http_date() {
        assert_eq!(rfc3339(MODIFIED * 1000 + 5), "1994-11-06T08:49:37.005Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn http_date_beyond_the_last_year_is_held() {
        assert_eq!(http_date(MODIFIED), AT);
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn list_of_tags_agrees_with_membership(
            tags in proptest::collection::vec(("[!#-~]{0,4}", any::<bool>()), 0..6),
            own in "[a-c]{1,2}",
        ) {
            let list: Vec<_> = tags.iter()
                .map(|(tag, weak)| format!("{}\"{tag}\"", if *weak { "W/" } else { "" }))
                .collect();
            let list = list.join(", ");
            let etag = format!("\"{own}\"");
            let weak = tags.iter().any(|(tag, _)| *tag == own);
            let strong = tags.iter().any(|(tag, weak)| *tag == own && !weak);
            prop_assert_eq!(tag_in(list.as_bytes(), etag.as_bytes(), Compare::Weak), weak);
            prop_assert_eq!(tag_in(list.as_bytes(), etag.as_bytes(), Compare::Strong), strong);
        }

        #[test]
        fn any_field_is_read_without_panic(text in "[ -~]{0,40}") {
            check(&[("x", "y")], Proceed);
            let _ = verdict(&Method::GET, &[("if-match", &text), ("if-modified-since", &text)]);
        }
    }
}
