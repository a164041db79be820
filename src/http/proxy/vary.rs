//! Which requests a stored response answers (RFC 9111 section 4.1). Pure.
//!
//! Fields are compared in a normal form: several lines are one list, blanks around commas do not count. Of languages and
//! encodings the case and, where the weights are equal, the order do not count either.

use http::{HeaderMap, HeaderName, header};

/// The fields a response was chosen by, in normal form; `None`: the request had none.
pub type Key = Vec<(HeaderName, Option<Vec<u8>>)>;

/// The fields of `request` that `response` was chosen by, or `None` if it answers no other request (`*`).
#[must_use]
pub fn key(request: &HeaderMap, response: &HeaderMap) -> Option<Key> {
    let mut key = Key::new();
    for field in response.get_all(header::VARY) {
        for name in field
            .as_bytes()
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
        {
            if name.is_empty() {
                continue;
            }
            if name == b"*" {
                return None;
            }
            let name = HeaderName::from_bytes(name).ok()?;
            if key.iter().all(|(held, _)| *held != name) {
                let value = normal(request, &name);
                key.push((name, value));
            }
        }
    }
    Some(key)
}

/// Whether a response with `key`, in the language `language` (if it says), answers `request`.
#[must_use]
pub fn matches(key: &Key, language: Option<&[u8]>, request: &HeaderMap) -> bool {
    key.iter().all(|(name, value)| {
        normal(request, name) == *value
            || *name == header::ACCEPT_LANGUAGE
                && language.is_some_and(|language| prefers(request, language))
    })
}

/// Whether the one language the client likes best is `language`: no other choice could suit it better.
fn prefers(request: &HeaderMap, language: &[u8]) -> bool {
    let list = weighted(request, &header::ACCEPT_LANGUAGE);
    match list.as_slice() {
        [(best, tag), rest @ ..] => {
            *best > 0
                && tag.eq_ignore_ascii_case(language)
                && rest.first().is_none_or(|(next, _)| next < best)
        }
        [] => false,
    }
}

/// The field in normal form.
fn normal(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut fields = headers.get_all(name).iter();
    let first = fields.next()?;
    if *name == header::ACCEPT_LANGUAGE || *name == header::ACCEPT_ENCODING {
        let mut out = Vec::new();
        for (weight, tag) in weighted(headers, name) {
            out.extend_from_slice(&tag);
            out.extend_from_slice(format!(";{weight},").as_bytes());
        }
        return Some(out);
    }
    let mut out = Vec::with_capacity(first.len());
    for field in std::iter::once(first).chain(fields) {
        for element in field.as_bytes().split(|b| *b == b',') {
            let element = element.trim_ascii();
            if !element.is_empty() {
                if !out.is_empty() {
                    out.push(b',');
                }
                out.extend_from_slice(element);
            }
        }
    }
    Some(out)
}

/// Tags in lower case with their weights in thousandths, the best first, equals by name (RFC 9110 section 12.4.2).
fn weighted(headers: &HeaderMap, name: &HeaderName) -> Vec<(u16, Vec<u8>)> {
    let mut list = Vec::new();
    for field in headers.get_all(name) {
        for element in field.as_bytes().split(|b| *b == b',') {
            let mut parts = element.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            let tag = parts.next().unwrap_or(&[]).to_ascii_lowercase();
            if tag.is_empty() {
                continue;
            }
            let weight = parts.find_map(|p| match p {
                [b'q' | b'Q', b'=', rest @ ..] => Some(thousandths(rest)),
                _ => None,
            });
            list.push((weight.unwrap_or(1000), tag));
        }
    }
    list.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    list.dedup();
    list
}

fn thousandths(weight: &[u8]) -> u16 {
    let weight = std::str::from_utf8(weight).ok();
    let weight: f32 = weight.and_then(|w| w.parse().ok()).unwrap_or(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=1000"
    )]
    let thousandths = (weight.clamp(0.0, 1.0) * 1000.0).round() as u16;
    thousandths
}

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
    fn check(
        vary: &'static str,
        stored: &[(&'static str, &str)],
        asked: &[(&'static str, &str)],
        expected: bool,
    ) {
        let key = key(&headers(stored), &headers(&[("vary", vary)])).unwrap();
        let found = matches(&key, None, &headers(asked));
        assert_eq!(found, expected, "{vary}: {stored:?} and {asked:?}");
    }

    #[test]
    fn only_named_fields_count() {
        check("Foo", &[("foo", "1")], &[("foo", "1"), ("bar", "2")], true);
        check("Foo", &[("foo", "1")], &[("foo", "2")], false);
        check("Foo", &[("foo", "1")], &[], false);
        check("Foo", &[], &[("foo", "1")], false);
        check("Foo, Bar", &[("foo", "1")], &[("foo", "1")], true);
    }

    #[test]
    fn lines_and_blanks_do_not_count() {
        check(
            "foo",
            &[("foo", "1, 2")],
            &[("foo", "1"), ("foo", "2")],
            true,
        );
        check("foo", &[("foo", "1,2")], &[("foo", " 1, 2 ")], true);
        check("foo", &[("foo", "1,2")], &[("foo", "2,1")], false);
    }

    #[test]
    fn languages_are_compared_by_what_they_mean() {
        let vary = "Accept-Language";
        let stored = [("accept-language", "en, de")];
        check(vary, &stored, &[("accept-language", "de, EN")], true);
        check(vary, &stored, &[("accept-language", "de, en;q=0.5")], false);
    }

    #[test]
    fn language_liked_best_is_taken_whatever_it_was_chosen_for() {
        let stored = headers(&[("accept-language", "en, de")]);
        let key = key(&stored, &headers(&[("vary", "accept-language")])).unwrap();
        let asked = |text| headers(&[("accept-language", text)]);
        assert!(matches(&key, Some(b"de"), &asked("fr;q=0.5, de;q=1.0")));
        assert!(!matches(&key, Some(b"de"), &asked("fr, de")));
        assert!(!matches(&key, Some(b"de"), &asked("fr, de;q=0.9")));
        assert!(!matches(&key, None, &asked("de")));
    }

    #[test]
    fn star_anywhere_answers_nobody_else() {
        for star in ["*", "*, *", ", *", "*, foo", "foo, *"] {
            assert_eq!(key(&HeaderMap::new(), &headers(&[("vary", star)])), None);
        }
        let lines = headers(&[("vary", ""), ("vary", "*")]);
        assert_eq!(key(&HeaderMap::new(), &lines), None);
    }

    proptest! {
        #[test]
        fn response_answers_the_request_it_was_made_for(
            vary in "[a-z,* ]{0,12}", a in "[ -~]{0,20}", lang in "[a-zA-Z0-9;=., *-]{0,30}",
        ) {
            let request = headers(&[("a", &a), ("accept-language", &lang)]);
            let response = headers(&[("vary", &vary), ("vary", "accept-language")]);
            if let Some(key) = key(&request, &response) {
                prop_assert!(matches(&key, None, &request));
            }
        }
    }
}
