//! `Cache-Control` (RFC 9111 section 5.2) and its targeted form `CDN-Cache-Control` (RFC 9213). Pure.
//!
//! Directives that are malformed are read in the way that stores and reuses less.

use http::{HeaderMap, HeaderName, header};

use super::dictionary::{self, Value};

/// The directives of a request or response that a shared cache acts on. Times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// Nothing of it is stored.
    pub no_store: bool,
    /// Not reused without validation.
    pub no_cache: bool,
    /// Not stored by a shared cache.
    pub private: bool,
    /// May be stored whatever else forbids it by default.
    pub public: bool,
    /// Never served stale.
    pub must_revalidate: bool,
    /// Never served stale by a shared cache.
    pub proxy_revalidate: bool,
    /// Stored only if the status code is understood; then `no_store` does not count.
    pub must_understand: bool,
    /// The client wants no request sent on.
    pub only_if_cached: bool,
    /// Freshness lifetime, or the age a client accepts.
    pub max_age: Option<u64>,
    /// Freshness lifetime in shared caches.
    pub s_maxage: Option<u64>,
    /// Served stale for so long while it is validated (RFC 5861).
    pub stale_while_revalidate: Option<u64>,
    /// Served stale for so long when the upstream fails (RFC 5861).
    pub stale_if_error: Option<u64>,
    /// The client accepts a response stale for so long.
    pub max_stale: Option<u64>,
    /// The client wants it fresh for so long yet.
    pub min_fresh: Option<u64>,
    /// Fields that are not stored (`no-cache="…"` and `private="…"`).
    pub fields: Vec<HeaderName>,
}

/// The directives of a response: those of `CDN-Cache-Control` if it is there and well-formed, and whether they are
/// (`Expires` does not count then).
#[must_use]
pub fn of_response(headers: &HeaderMap) -> (Directives, bool) {
    if headers.contains_key(CDN_CACHE_CONTROL)
        && let Some(targeted) = targeted(headers)
    {
        return (targeted, true);
    }
    (parse(headers), false)
}

/// The directives of a request; `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111 section 5.4).
#[must_use]
pub fn of_request(headers: &HeaderMap) -> Directives {
    let mut directives = parse(headers);
    if !headers.contains_key(header::CACHE_CONTROL)
        && let Some(pragma) = headers.get(header::PRAGMA)
    {
        let said = pragma.as_bytes().split(|b| *b == b',');
        directives.no_cache = said
            .map(<[u8]>::trim_ascii)
            .any(|p| p.eq_ignore_ascii_case(b"no-cache"));
    }
    directives
}

/// The directives of all `Cache-Control` fields. Of one that is repeated, the smallest counts.
#[must_use]
pub fn parse(headers: &HeaderMap) -> Directives {
    let mut found = Directives::default();
    for field in headers.get_all(header::CACHE_CONTROL) {
        let mut rest = field.as_bytes();
        while !rest.is_empty() {
            let (element, tail) = element(rest);
            rest = tail;
            if let Some((name, value)) = directive(element) {
                found.take(&name, value.as_deref());
            }
        }
    }
    found
}

impl Directives {
    fn take(&mut self, name: &str, value: Option<&[u8]>) {
        let time = |held: Option<u64>| {
            // What cannot be read is taken for "stale already" (section 4.2.1).
            let seconds = value.and_then(delta).unwrap_or(0);
            Some(held.map_or(seconds, |held| held.min(seconds)))
        };
        match name {
            "no-store" => self.no_store = true,
            "no-cache" => match value {
                Some(list) => self.keep_out(list),
                None => self.no_cache = true,
            },
            "private" => match value {
                Some(list) => self.keep_out(list),
                None => self.private = true,
            },
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => self.max_age = time(self.max_age),
            "s-maxage" => self.s_maxage = time(self.s_maxage),
            "stale-while-revalidate" => {
                self.stale_while_revalidate = time(self.stale_while_revalidate);
            }
            "stale-if-error" => self.stale_if_error = time(self.stale_if_error),
            "min-fresh" => self.min_fresh = time(self.min_fresh),
            "max-stale" => {
                self.max_stale = match value {
                    Some(_) => time(self.max_stale),
                    None => Some(self.max_stale.unwrap_or(u64::MAX)),
                }
            }
            _ => {}
        }
    }

    fn keep_out(&mut self, list: &[u8]) {
        let names = list.split(|b| *b == b',').map(<[u8]>::trim_ascii);
        self.fields
            .extend(names.filter_map(|name| HeaderName::from_bytes(name).ok()));
    }
}

/// The targeted field, or `None` if it is empty or not a dictionary of what is expected.
fn targeted(headers: &HeaderMap) -> Option<Directives> {
    let mut text = Vec::new();
    for field in headers.get_all(CDN_CACHE_CONTROL) {
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(field.as_bytes());
    }
    let members = dictionary::parse(&text)?;
    if members.is_empty() {
        return None;
    }
    let mut found = Directives::default();
    for (name, value) in &members {
        match (name.as_str(), value) {
            // Of a wrong type: as if the member were not there.
            (
                "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error",
                Value::Integer(seconds),
            ) => found.take(name, Some(seconds.to_string().as_bytes())),
            (
                "max-age"
                | "s-maxage"
                | "stale-while-revalidate"
                | "stale-if-error"
                | "min-fresh"
                | "max-stale",
                _,
            ) => {}
            (_, Value::Boolean(true)) => found.take(name, None),
            ("no-cache" | "private", Value::Text(list)) => found.take(name, Some(list.as_bytes())),
            _ => {}
        }
    }
    Some(found)
}

/// Cuts off the first list element; commas within quotes do not count.
fn element(list: &[u8]) -> (&[u8], &[u8]) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in list.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return (&list[..at], &list[at + 1..]),
            _ => {}
        }
    }
    (list, &[])
}

/// Name, in lower case, and value of one element; `None` if it is no directive.
fn directive(element: &[u8]) -> Option<(String, Option<Vec<u8>>)> {
    let element = element.trim_ascii();
    let (name, value) = match element.iter().position(|b| *b == b'=') {
        Some(at) => (&element[..at], Some(&element[at + 1..])),
        None => (element, None),
    };
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return None;
    }
    let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
    let value = value.map(|value| match value {
        [b'"', inner @ .., b'"'] => unescape(inner),
        plain => plain.to_vec(),
    });
    Some((name, value))
}

fn unescape(inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inner.len());
    let mut escaped = false;
    for byte in inner {
        if *byte == b'\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            out.push(*byte);
        }
    }
    out
}

/// Non-negative seconds (section 1.2.2); those too large are taken for the largest.
fn delta(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, b| {
        b.is_ascii_digit()
            .then(|| (sum * 10 + u64::from(b - b'0')).min(DELTA_MAX))
    })
}

pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The largest number of seconds that is told apart (RFC 9111 section 1.2.2).
pub const DELTA_MAX: u64 = 1 << 31;

/// Directives for caches like this one (RFC 9213).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[track_caller]
    fn check_age(value: &str, expected: Option<u64>) {
        let found = parse(&headers(&[("cache-control", value)]));
        assert_eq!(found.max_age, expected, "{value}");
    }

    #[test]
    fn max_age_is_read_in_any_case_and_quoted_or_not() {
        check_age("max-age=3600", Some(3600));
        check_age("foobar, MaX-aGe=3600", Some(3600));
        check_age("max-age=\"3600\"", Some(3600));
        check_age("max-age=003600", Some(3600));
        check_age("public", None);
    }

    #[test]
    fn max_age_that_is_no_number_is_stale() {
        for bad in [
            "-1", "'3600'", "3600.0", "3600a", "a3600", "", "\"\"", " 3600",
        ] {
            check_age(&format!("max-age={bad}"), Some(0));
        }
    }

    #[test]
    fn max_age_too_large_is_the_largest() {
        check_age("max-age=2147483649", Some(DELTA_MAX));
        check_age("max-age=99999999999999999999999999", Some(DELTA_MAX));
    }

    #[test]
    fn max_age_said_twice_is_the_smaller() {
        check_age("max-age=1800, max-age=1", Some(1));
        check_age("max-age=1, max-age=1800", Some(1));
    }

    #[test]
    fn max_age_within_quotes_or_before_a_space_is_none() {
        check_age("extension=\"max-age=3600\"", None);
        check_age("extension=\"a\\\", max-age=3600\"", None);
        check_age("max-age =3600", None);
    }

    #[test]
    fn qualified_no_cache_names_fields() {
        let found = parse(&headers(&[("cache-control", "no-cache=\"a, B\", private")]));
        assert!(!found.no_cache && found.private);
        assert_eq!(found.fields, ["a", "b"]);
    }

    #[test]
    fn max_stale_without_value_is_any_age() {
        let found = parse(&headers(&[("cache-control", "max-stale")]));
        assert_eq!(found.max_stale, Some(u64::MAX));
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        assert!(of_request(&headers(&[("pragma", "x, No-Cache")])).no_cache);
        let both = headers(&[("pragma", "no-cache"), ("cache-control", "max-age=1")]);
        assert!(!of_request(&both).no_cache);
    }

    #[test]
    fn targeted_field_wins_if_it_is_well_formed() {
        let with = |cdn: &str| {
            of_response(&headers(&[
                ("cache-control", "no-store"),
                ("cdn-cache-control", cdn),
            ]))
        };
        let (found, targeted) = with("max-age=60, foo;a=1");
        assert!(targeted && !found.no_store && found.max_age == Some(60));
        for bad in ["max-age=60, &&&", "", "Max-Age=60", "max-age =60"] {
            let (found, targeted) = with(bad);
            assert!(!targeted && found.no_store, "{bad:?}");
        }
        let (found, targeted) = with("max-age=\"60\"");
        assert!(targeted && found.max_age.is_none());
    }

    proptest! {
        #[test]
        fn any_field_is_read_without_panic_and_more_fields_never_free(
            a in "[ -~]{0,40}", b in "[ -~]{0,40}",
        ) {
            let one = parse(&headers(&[("cache-control", &a)]));
            let two = parse(&headers(&[("cache-control", &a), ("cache-control", &b)]));
            prop_assert!(two.no_store || !one.no_store);
            prop_assert!(two.private || !one.private);
            if let Some(age) = one.max_age {
                prop_assert!(two.max_age.unwrap() <= age);
            }
            let _ = of_response(&headers(&[("cdn-cache-control", &a)]));
        }
    }
}
