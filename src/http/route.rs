//! Method and target to route. Pure.
//!
//! A path is decoded once and its dot segments are removed before anything is looked up, so what reaches the
//! library is absolute, normalised and free of `..`.

use std::borrow::Cow;

use http::{Method, Uri};

use crate::content::name;
use crate::peer::message;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// An object or directory: the decoded, normalised absolute path.
    Object(Cow<'a, str>),
    /// Another node asks (beneath [`message::ROOT`]).
    Peer,
    /// What may be asked at all (`OPTIONS`).
    Options,
    /// Nothing can stand there.
    NotFound,
    /// The method is not served (405).
    MethodNotAllowed,
    /// The target is not one this server can mean (400); why.
    Bad(&'static str),
}

/// The methods served, as an `Allow` field says it.
pub const ALLOW: &str = "GET, HEAD, OPTIONS";

/// Routes a request by its method and target (origin, absolute or asterisk form; RFC 9112 section 3.2).
#[must_use]
pub fn route<'a>(method: &Method, target: &'a Uri) -> Route<'a> {
    if method == Method::OPTIONS {
        return Route::Options;
    }
    if method != Method::GET && method != Method::HEAD {
        return Route::MethodNotAllowed;
    }
    let raw = target.path();
    let path = match normalise(raw) {
        Ok(path) => path,
        Err(reason) => return Route::Bad(reason),
    };
    if !path.starts_with(message::ROOT) {
        return Route::Object(path);
    }
    // Only as written: the peer protocol has one spelling, so its handler need not normalise again.
    if path == raw {
        Route::Peer
    } else {
        Route::NotFound
    }
}

/// Decodes `raw` once and removes its dot segments. Borrowed if there was nothing to do. What is no UTF-8 is text as [`name`] has it.
///
/// # Errors
/// Why no path can be meant.
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, &'static str> {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err("the path is not absolute");
    }
    let mut before = 0;
    let plain = bytes.iter().all(|b| {
        let plain = PLAIN[usize::from(*b)] && !(before == b'/' && matches!(b, b'/' | b'.'));
        before = *b;
        plain
    });
    if plain {
        return Ok(Cow::Borrowed(raw));
    }
    let decoded = decode(bytes)?;
    remove_dots(&name::from_bytes(&decoded)).map(Cow::Owned)
}

fn decode(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let byte = if *first == b'%' {
            let [high, low, tail @ ..] = tail else {
                return Err("an escape in the path is cut off");
            };
            rest = tail;
            let (high, low) = (hex(*high), hex(*low));
            let (Some(high), Some(low)) = (high, low) else {
                return Err("an escape in the path is not hexadecimal");
            };
            high << 4 | low
        } else {
            rest = tail;
            *first
        };
        if byte < b' ' || byte == 0x7f || byte == b'\\' {
            return Err("the path has a control character or a backslash");
        }
        out.push(byte);
    }
    Ok(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16)?.try_into().ok()
}

/// RFC 3986 section 5.2.4, but a path that climbs out of the root or has an empty segment is refused.
fn remove_dots(path: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "" if !last => return Err("the path has an empty segment"),
            "." => {}
            ".." => {
                let parent = out.rfind('/').ok_or("the path climbs out of the root")?;
                out.truncate(parent);
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
        if last && matches!(segment, "." | "..") {
            out.push('/');
        }
    }
    Ok(out)
}

/// Bytes that stand for themselves wherever they are: all a valid path has, but for escapes and what is refused.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut b = 0x21;
    while b < 0x7f {
        plain[b] = b != b'%' as usize && b != b'\\' as usize;
        b += 1;
    }
    plain
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(target: &str, expected: &str) {
        let uri: Uri = target.parse().unwrap();
        match route(&Method::GET, &uri) {
            Route::Object(path) => assert_eq!(path, expected, "{target}"),
            other => panic!("{target}: {other:?}"),
        }
    }

    #[track_caller]
    fn check_bad(target: &str) {
        let bad = target
            .parse::<Uri>()
            .is_err_or(|uri| matches!(route(&Method::GET, uri), Route::Bad(_)));
        assert!(bad, "{target}");
    }

    trait ErrOr<T> {
        fn is_err_or(&self, check: impl Fn(&T) -> bool) -> bool;
    }

    impl<T, E> ErrOr<T> for Result<T, E> {
        fn is_err_or(&self, check: impl Fn(&T) -> bool) -> bool {
            self.as_ref().map_or(true, check)
        }
    }

    #[test]
    fn plain_path_is_itself_and_borrowed() {
        check("/", "/");
        check("/video.bin", "/video.bin");
        check("/a/b.c/?q=/../x", "/a/b.c/");
        assert!(matches!(normalise("/a/b..c/x."), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn absolute_form_is_its_path() {
        check("http://example.test/video.bin", "/video.bin");
        check("http://example.test", "/");
        check("http://example.test:8080/a/../b", "/b");
    }

    #[test]
    fn escapes_are_decoded_once() {
        check("/a%20b", "/a b");
        check("/%c3%a9", "/é");
        check("/%252e%252e/x", "/%2e%2e/x");
        check("/a%2Fb", "/a/b");
        check("/100%25", "/100%");
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_names_and_mean_nothing_else() {
        check("/caf%e9", "/caf\u{10FFE9}");
        check("/%ff/%C3%A9", "/\u{10FFFF}/é");
        // Overlong dots and slashes are neither.
        check(
            "/a/%c0%ae%c0%ae/b",
            "/a/\u{10FFC0}\u{10FFAE}\u{10FFC0}\u{10FFAE}/b",
        );
        check("/a%c0%afb", "/a\u{10FFC0}\u{10FFAF}b");
    }

    #[test]
    fn dot_segments_are_removed() {
        check("/a/./b", "/a/b");
        check("/a/../b", "/b");
        check("/a/b/..", "/a/");
        check("/a/b/.", "/a/b/");
        check("/a/%2e%2e/b", "/b");
        check("/.hidden", "/.hidden");
        check("/...", "/...");
        check("/.", "/");
    }

    #[test]
    fn path_that_cannot_be_meant_is_bad() {
        for target in [
            "/..",
            "/../etc/passwd",
            "/a/../../etc/passwd",
            "/%2e%2e/etc/passwd",
            "/..%2fetc/passwd",
            "/a/..%2f..%2fetc",
            "//etc/passwd",
            "/a//b",
            "/a/%2f",
            "/a%00b",
            "/a%0ab",
            "/a%5cb",
            "/..%5c..%5cx",
            "/a\\b",
            "/%",
            "/%4",
            "/%zz",
        ] {
            check_bad(target);
        }
    }

    #[test]
    fn only_get_and_head_reach_objects() {
        let uri = Uri::from_static("/x");
        for method in [Method::GET, Method::HEAD] {
            assert!(matches!(route(&method, &uri), Route::Object(_)));
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::CONNECT] {
            assert_eq!(route(&method, &uri), Route::MethodNotAllowed);
        }
        assert_eq!(route(&Method::OPTIONS, &uri), Route::Options);
        assert_eq!(
            route(&Method::OPTIONS, &Uri::from_static("*")),
            Route::Options
        );
    }

    #[test]
    fn peer_protocol_has_one_spelling() {
        let index = format!("{}index?prefix=/", message::ROOT);
        assert_eq!(route(&Method::GET, &index.parse().unwrap()), Route::Peer);
        let twisted = format!("/x/..{}index", message::ROOT);
        assert_eq!(
            route(&Method::GET, &twisted.parse().unwrap()),
            Route::NotFound
        );
    }

    /// What a path names, segment by segment, on a model of a stack.
    fn model(raw: &str) -> Option<Vec<String>> {
        let mut bytes = Vec::new();
        let mut rest = raw.as_bytes();
        while let Some((b, tail)) = rest.split_first() {
            rest = tail;
            if *b == b'%' {
                let code = rest.get(..2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
                rest = &rest[2..];
            } else {
                bytes.push(*b);
            }
        }
        let text = name::from_bytes(&bytes).into_owned();
        if text.chars().any(|c| c.is_ascii_control() || c == '\\') || text.contains("//") {
            return None;
        }
        let mut stack = Vec::new();
        for segment in text.split('/').filter(|s| !s.is_empty()) {
            match segment {
                "." => {}
                ".." => {
                    stack.pop()?;
                }
                name => stack.push(name.to_owned()),
            }
        }
        Some(stack)
    }

    proptest! {
        #[test]
        fn normalised_path_never_escapes_and_agrees_with_a_stack(
            raw in "/((%2e|%2F|%5c|%00|\\.|\\.\\.|/|a|%61|b|%ff|%c3|%a9|\\\\){0,12})",
        ) {
            match normalise(&raw) {
                Ok(path) => {
                    prop_assert!(path.starts_with('/'));
                    prop_assert!(path.split('/').all(|s| s != "." && s != ".."));
                    prop_assert!(!path.contains("//") && !path.contains(['\\', '\0']));
                    let names: Vec<_> = path.split('/').filter(|s| !s.is_empty()).map(String::from).collect();
                    prop_assert_eq!(Some(names), model(&raw));
                }
                Err(_) => prop_assert_eq!(model(&raw), None),
            }
        }

        #[test]
        fn any_target_is_routed_without_panic(raw in "[ -~]{0,60}") {
            if let Ok(uri) = raw.parse::<Uri>() {
                let _ = route(&Method::GET, &uri);
            }
            let _ = normalise(&raw);
        }
    }
}
