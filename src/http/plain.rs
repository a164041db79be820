//! The commonest request head: a GET with fields that change nothing. Pure.
//!
//! [`read`] takes what every server on the way would read alike, and nothing else: whatever is rare, odd or wrong is left to
//! [`super::screen`] and hyper, which know what to say. So it must never take more than they do.

/// A whole head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<'a> {
    /// The path: absolute, without escapes, dot segments or a query.
    pub path: &'a str,
    /// Bytes of the head.
    pub len: usize,
}

/// Reads the head `bytes` begin with, if it is plain: `GET`, HTTP/1.1, one `Host`, and of fields at most `fields`, all of them
/// such that no answer to GET depends on them. `None`: it is not whole, or not plain.
#[must_use]
pub fn read(bytes: &[u8], fields: usize) -> Option<Plain<'_>> {
    let target = bytes.strip_prefix(b"GET /")?;
    // A dot or a slash behind a slash is left to whoever removes dot segments.
    let mut before = b'/';
    let end = target.iter().position(|b| {
        let stop = !PATH[usize::from(*b)] || before == b'/' && matches!(b, b'/' | b'.');
        before = *b;
        stop
    })?;
    let mut rest = target[end..].strip_prefix(b" HTTP/1.1\r\n")?;
    let (mut hosts, mut count) = (0, 0);
    loop {
        let length = rest.iter().position(|b| !FIELD[usize::from(*b)])?;
        let (line, tail) = rest.split_at(length);
        rest = tail.strip_prefix(b"\r\n")?;
        if line.is_empty() {
            break;
        }
        count += 1;
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        match is(name) {
            Field::Host => hosts += 1,
            Field::Connection if value.trim_ascii().eq_ignore_ascii_case(b"keep-alive") => {}
            Field::Harmless => {}
            Field::Connection | Field::Other => return None,
        }
    }
    if hosts != 1 || count > fields {
        return None;
    }
    let path = std::str::from_utf8(&bytes[b"GET ".len()..b"GET /".len() + end]).ok()?;
    Some(Plain {
        path,
        len: bytes.len() - rest.len(),
    })
}

/// What a field means to an answer.
enum Field {
    Host,
    Connection,
    /// Nothing.
    Harmless,
    /// Something, or who knows.
    Other,
}

fn is(name: &[u8]) -> Field {
    let known: &[&str] = match name.len() {
        3 => &["dnt", "via"],
        4 if name.eq_ignore_ascii_case(b"host") => return Field::Host,
        6 => &["accept", "cookie", "pragma"],
        7 => &["referer", "sec-gpc"],
        8 => &["priority"],
        9 => &["forwarded", "x-real-ip"],
        10 if name.eq_ignore_ascii_case(b"connection") => return Field::Connection,
        10 => &["user-agent", "keep-alive", "tracestate"],
        11 => &["traceparent"],
        12 => &["x-request-id"],
        13 => &["cache-control"],
        15 => &["accept-encoding", "accept-language", "x-forwarded-for"],
        16 => &["x-forwarded-host", "x-forwarded-port"],
        17 => &["x-forwarded-proto"],
        25 => &["upgrade-insecure-requests"],
        _ => &[],
    };
    let begins = |with: &str| {
        name.split_at_checked(with.len())
            .is_some_and(|(start, _)| start.eq_ignore_ascii_case(with.as_bytes()))
    };
    let equals = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
    if known.iter().any(equals) || begins("sec-fetch-") || begins("sec-ch-ua") {
        Field::Harmless
    } else {
        Field::Other
    }
}

/// Bytes that stand for themselves in a path (RFC 3986 section 3.3), and the slash.
const PATH: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 128 {
        let byte = b as u8;
        table[b] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
            )
            || matches!(byte, b';' | b'=' | b':' | b'@' | b'/');
        b += 1;
    }
    table
};

/// Bytes of a field line (RFC 9110 section 5.5).
const FIELD: [bool; 256] = {
    let mut table = [true; 256];
    let mut b = 0;
    while b < 0x20 {
        table[b] = b == b'\t' as usize;
        b += 1;
    }
    table[0x7f] = false;
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::route::normalise;
    use proptest::prelude::*;

    #[track_caller]
    fn check(head: &str, path: Option<&str>) {
        let more = format!("{head}GET /next HTTP/1.1\r\n");
        let expected = path.map(|path| Plain {
            path,
            len: head.len(),
        });
        assert_eq!(read(more.as_bytes(), 10), expected, "{head:?}");
        for end in 0..head.len() {
            assert_eq!(
                read(&head.as_bytes()[..end], 10),
                None,
                "{:?}",
                &head[..end]
            );
        }
    }

    #[test]
    fn plain_head_is_read() {
        check(
            "GET /small.bin HTTP/1.1\r\nHost: a\r\n\r\n",
            Some("/small.bin"),
        );
        check("GET / HTTP/1.1\r\nhost:a:8080\r\n\r\n", Some("/"));
        check(
            "GET /a/b..c/ HTTP/1.1\r\nUser-Agent: curl\r\nAccept: */*\r\nHOST: \ta \r\nConnection: Keep-Alive\r\n\r\n",
            Some("/a/b..c/"),
        );
        check(
            "GET /x HTTP/1.1\r\nHost: a\r\nSec-Fetch-Mode: cors\r\nsec-ch-ua-mobile: ?0\r\nCookie: \u{e9}\r\n\r\n",
            Some("/x"),
        );
    }

    #[test]
    fn head_that_asks_for_something_is_left_to_others() {
        for field in [
            "Range: bytes=0-1",
            "If-None-Match: \"x\"",
            "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
            "Connection: close",
            "Connection: keep-alive, Upgrade",
            "Upgrade: h2c",
            "Expect: 100-continue",
            "Content-Length: 0",
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
            "TE: trailers",
            "Origin: http://b",
            "Authorization: Basic eA==",
            "Want-Repr-Digest: sha-256=1",
            "Prefer: x",
            "Host: b",
            "X-Forwarded-Fox: a",
            ": a",
            "Accept : a",
            "Accept\t: a",
            " Accept: folded",
            "Accept",
        ] {
            check(
                &format!("GET /x HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"),
                None,
            );
        }
    }

    #[test]
    fn odd_request_line_is_left_to_others() {
        for line in [
            "HEAD /x HTTP/1.1",
            "get /x HTTP/1.1",
            "GET x HTTP/1.1",
            "GET http://a/x HTTP/1.1",
            "GET /x HTTP/1.0",
            "GET /x  HTTP/1.1",
            "GET  /x HTTP/1.1",
            "GET /x?q HTTP/1.1",
            "GET /x#f HTTP/1.1",
            "GET /%41 HTTP/1.1",
            "GET //x HTTP/1.1",
            "GET /a/../x HTTP/1.1",
            "GET /.x HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "GET /x\\y HTTP/1.1",
            "GET /x\tHTTP/1.1",
        ] {
            check(&format!("{line}\r\nHost: a\r\n\r\n"), None);
        }
        check("GET /x HTTP/1.1\r\n\r\n", None);
    }

    #[test]
    fn line_ends_are_carriage_return_and_line_feed_only() {
        check("GET /x HTTP/1.1\nHost: a\r\n\r\n", None);
        check("GET /x HTTP/1.1\r\nHost: a\n\r\n", None);
        check("GET /x HTTP/1.1\r\nHost: a\r\n\n", None);
        check("GET /x HTTP/1.1\r\nHost: a\rb\r\n\r\n", None);
        check("GET /x HTTP/1.1\r\nHost: a\0\r\n\r\n", None);
        check("GET /x HTTP/1.1\r\nHost: a\x7f\r\n\r\n", None);
        check("\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", None);
    }

    #[test]
    fn more_fields_than_may_be_are_left_to_others() {
        let head = format!(
            "GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "Accept: b\r\n".repeat(9)
        );
        assert!(read(head.as_bytes(), 10).is_some());
        assert!(read(head.as_bytes(), 9).is_none());
    }

    proptest! {
        /// What is read is a request to hyper's parser and the screen, and means the same to them.
        #[test]
        fn plain_head_is_read_alike_by_the_parser_behind(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "GET ", "/", "a", ".", "..", "?", "%41", " HTTP/1.1", "\r\n", "\r", "\n", "Host: a", "Accept: b", ":", " ", "\t", "\0",
                    "Range: bytes=0-0", "Content-Length: 1", "Connection: keep-alive", "Host", "\u{e9}", "X: y",
                ]),
                0..14,
            ),
            whole in any::<bool>(),
        ) {
            let mut text: String = pieces.concat();
            if whole {
                text = format!("GET /{text}\r\n\r\n");
            }
            if let Some(plain) = read(text.as_bytes(), 10) {
                let mut fields = [httparse::EMPTY_HEADER; 10];
                let mut request = httparse::Request::new(&mut fields);
                let parsed = request.parse(text.as_bytes());
                prop_assert_eq!(parsed, Ok(httparse::Status::Complete(plain.len)));
                prop_assert_eq!((request.method, request.version), (Some("GET"), Some(1)));
                prop_assert_eq!(request.path, Some(plain.path));
                let normal = normalise(plain.path);
                prop_assert_eq!(normal.as_deref(), Ok(plain.path));
                let hosts = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("host"));
                prop_assert_eq!(hosts.count(), 1);
                let mut screen = crate::http::screen::Screen::default();
                prop_assert_eq!(screen.look(&mut text.clone().into_bytes()[..plain.len]), Ok(()));
                prop_assert!(!screen.leaves_bytes());
            }
        }
    }
}
