//! Whether a response may be stored, and whom it may answer (RFC 9111 section 3). Pure.

use http::{HeaderMap, Method, StatusCode, header};

use super::control::Directives;
use super::freshness;

/// Whether a shared cache may store the response to this request, for `GET` requests to come.
#[must_use]
pub fn may_store(
    method: &Method,
    request: &HeaderMap,
    asked: &Directives,
    status: StatusCode,
    response: &HeaderMap,
    said: &Directives,
) -> bool {
    if *method != Method::GET || asked.no_store {
        return false;
    }
    let known = is_understood(status);
    // With must-understand the status decides, and no-store is for caches that do not know it (section 5.2.2.3).
    let forbidden = if said.must_understand {
        !known
    } else {
        said.no_store
    };
    if forbidden || said.private || status.is_informational() {
        return false;
    }
    // What these mean depends on the request or on what is stored already.
    if matches!(status.as_u16(), 206 | 304 | 416) {
        return false;
    }
    if request.contains_key(header::AUTHORIZATION)
        && !(said.public || said.must_revalidate || said.s_maxage.is_some())
    {
        return false;
    }
    said.public
        || said.s_maxage.is_some()
        || said.max_age.is_some()
        || said.no_cache
        || response.contains_key(header::EXPIRES)
        || freshness::is_heuristic(status)
}

/// Whether a response can be validated: it has something to ask the upstream with.
#[must_use]
pub fn has_validator(response: &HeaderMap) -> bool {
    response.contains_key(header::ETAG) || response.contains_key(header::LAST_MODIFIED)
}

/// Whether parts of it that come at different times may be put together (RFC 9110 section 13.1.5): a strong tag, or a
/// date a minute older than the response.
#[must_use]
pub fn has_strong_validator(response: &HeaderMap) -> bool {
    if let Some(tag) = response.get(header::ETAG) {
        return tag.as_bytes().starts_with(b"\"");
    }
    let at = |name| super::date::field(response, &name).flatten();
    match (at(header::LAST_MODIFIED), at(header::DATE)) {
        (Some(modified), Some(made)) => made >= modified + 60,
        _ => false,
    }
}

/// Statuses whose meaning for caching is known here (those of RFC 9110 section 15).
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=206 | 300..=305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505
    )
}

#[cfg(test)]
mod tests {
    use super::super::control;
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(
        request: &[(&'static str, &str)],
        status: u16,
        response: &[(&'static str, &str)],
        expected: bool,
    ) {
        let headers = |fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            headers
        };
        let (asked, answered) = (headers(request), headers(response));
        let stored = may_store(
            &Method::GET,
            &asked,
            &control::of_request(&asked),
            StatusCode::from_u16(status).unwrap(),
            &answered,
            &control::of_response(&answered).0,
        );
        assert_eq!(stored, expected, "{request:?} {status} {response:?}");
    }

    const FRESH: (&str, &str) = ("cache-control", "max-age=60");

    #[test]
    fn what_is_forbidden_is_not_stored() {
        check(&[], 200, &[FRESH], true);
        check(
            &[],
            200,
            &[("cache-control", "max-age=60, no-store")],
            false,
        );
        check(&[], 200, &[("cache-control", "max-age=60, private")], false);
        check(&[("cache-control", "no-store")], 200, &[FRESH], false);
        check(&[], 206, &[FRESH], false);
    }

    #[test]
    fn status_unknown_here_needs_permission() {
        check(&[], 599, &[FRESH], true);
        check(&[], 599, &[], false);
        check(&[], 599, &[("cache-control", "public")], true);
        check(&[], 404, &[], true);
        check(&[], 403, &[], false);
        check(
            &[],
            200,
            &[("cache-control", "max-age=1, no-store, must-understand")],
            true,
        );
        check(
            &[],
            599,
            &[("cache-control", "max-age=1, no-store, must-understand")],
            false,
        );
    }

    #[test]
    fn answer_to_credentials_needs_permission() {
        let asked = [("authorization", "x")];
        check(&asked, 200, &[FRESH], false);
        for allowed in ["public", "s-maxage=9", "must-revalidate"] {
            check(&asked, 200, &[("cache-control", allowed)], true);
        }
    }

    #[test]
    fn weak_validators_do_not_join_parts() {
        let strong = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            has_strong_validator(&headers)
        };
        assert!(strong(&[("etag", "\"a\"")]));
        assert!(!strong(&[("etag", "W/\"a\"")]));
        let (before, at) = (
            "Sun, 06 Nov 1994 08:48:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT",
        );
        assert!(strong(&[("last-modified", before), ("date", at)]));
        assert!(!strong(&[("last-modified", at), ("date", at)]));
        assert!(!strong(&[]));
    }

    proptest! {
        #[test]
        fn private_or_no_store_is_never_stored(more in "[a-z=0-9, -]{0,30}", status in 200u16..600) {
            for word in ["private", "no-store"] {
                let text = format!("{word}, {}", more.replace("must-understand", ""));
                let mut response = HeaderMap::new();
                response.insert("cache-control", text.parse().unwrap());
                let stored = may_store(
                    &Method::GET,
                    &HeaderMap::new(),
                    &Directives::default(),
                    StatusCode::from_u16(status).unwrap(),
                    &response,
                    &control::of_response(&response).0,
                );
                prop_assert!(!stored);
            }
        }
    }
}
