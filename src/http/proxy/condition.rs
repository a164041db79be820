//! A client's own conditions, answered from what is stored (RFC 9111 section 4.3.2). Pure.

use http::{HeaderMap, header};

use super::date;

/// Whether a client that asks so holds what is stored already (304). `received` is when the response came, in seconds
/// since 1970.
#[must_use]
pub fn holds(request: &HeaderMap, stored: &HeaderMap, received: u64) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        let Some(tag) = stored.get(header::ETAG) else {
            return false;
        };
        let tag = opaque(tag.as_bytes());
        return request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .any(|field| lists(field.as_bytes(), tag));
    }
    let Some(Some(since)) = date::field(request, &header::IF_MODIFIED_SINCE) else {
        return false;
    };
    let modified = match date::field(stored, &header::LAST_MODIFIED) {
        Some(Some(modified)) => modified,
        // It cannot have changed after it was made.
        _ => date::field(stored, &header::DATE)
            .flatten()
            .unwrap_or(received),
    };
    modified <= since
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether a list of entity tags has `tag`, or is `*`. What is between quotes may hold commas.
fn lists(list: &[u8], tag: &[u8]) -> bool {
    let (mut start, mut quoted) = (0, false);
    let mut is = |end: usize| {
        let element = list[start..end].trim_ascii();
        start = end + 1;
        element == b"*" || !element.is_empty() && opaque(element) == tag
    };
    for (at, byte) in list.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted && is(at) => return true,
            _ => {}
        }
    }
    is(list.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: &[(&'static str, &str)], stored: &[(&'static str, &str)], expected: bool) {
        let headers = |fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            headers
        };
        let found = holds(&headers(request), &headers(stored), 784_111_777);
        assert_eq!(found, expected, "{request:?} {stored:?}");
    }

    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    #[test]
    fn tag_in_the_list_holds() {
        let stored = [("etag", "W/\"a,b\"")];
        check(
            &[("if-none-match", "\"x\", \"a,b\" , \"y\"")],
            &stored,
            true,
        );
        check(&[("if-none-match", "W/\"a,b\"")], &stored, true);
        check(&[("if-none-match", "*")], &stored, true);
        check(&[("if-none-match", "\"a\"")], &stored, false);
        check(&[("if-none-match", "\"a\"")], &[], false);
    }

    #[test]
    fn tag_wins_over_date() {
        let stored = [("etag", "\"a\""), ("last-modified", AT)];
        check(
            &[("if-none-match", "\"b\""), ("if-modified-since", AT)],
            &stored,
            false,
        );
        check(
            &[("if-none-match", "\"a\""), ("if-modified-since", BEFORE)],
            &stored,
            true,
        );
    }

    #[test]
    fn date_not_before_the_change_holds() {
        check(&[("if-modified-since", AT)], &[("last-modified", AT)], true);
        check(
            &[("if-modified-since", BEFORE)],
            &[("last-modified", AT)],
            false,
        );
        check(&[("if-modified-since", AT)], &[("date", BEFORE)], true);
        check(&[("if-modified-since", BEFORE)], &[], false);
        check(
            &[("if-modified-since", "yesterday")],
            &[("last-modified", AT)],
            false,
        );
    }
}
