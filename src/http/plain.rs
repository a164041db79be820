//! The commonest request head: a GET with fields that change nothing. Pure.
//!
//! [`read`] takes what every server on the way would read alike, and nothing else: whatever is rare, odd or wrong is left to
//! [`super::screen`] and hyper, which know what to say. So it must never take more than they do.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A whole head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<'a> {
    /// The path: absolute, without escapes or dot segments.
    pub path: &'a str,
    /// The path and, behind its question mark, the query.
    pub target: &'a str,
    /// What its one `Host` says.
    pub host: &'a [u8],
    /// What its first `Referer` says.
    pub referer: Option<&'a [u8]>,
    /// What its first `User-Agent` says.
    pub agent: Option<&'a [u8]>,
    /// It has fields that are for a cache between: `Cache-Control`, `Pragma` or `Via`.
    pub caching: bool,
    /// Its field lines, each with its end.
    lines: &'a [u8],
    /// Bytes of the head.
    pub len: usize,
}

impl Plain<'_> {
    /// The host and port, if they are written as nearly all are: letters, digits, dots, hyphens and colons.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':');
        if self.host.is_empty() || !self.host.iter().all(plain) {
            return None;
        }
        std::str::from_utf8(self.host).ok()
    }

    /// All its fields.
    #[must_use]
    pub fn fields(&self) -> HeaderMap {
        let lines = self.lines.split(|b| *b == b'\n').filter_map(|line| {
            let (name, value) = split(line.strip_suffix(b"\r")?)?;
            let name = HeaderName::from_bytes(name).ok()?;
            Some((name, HeaderValue::from_bytes(value).ok()?))
        });
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name, value);
        }
        fields
    }
}

/// Reads the head `bytes` begin with, if it is plain: `GET`, HTTP/1.1, one `Host`, and of fields at most `fields`, all of them
/// such that no answer of ours to GET depends on them (to a cache, some may mean something). `None`: it is not whole, or not plain.
#[must_use]
pub fn read(bytes: &[u8], fields: usize) -> Option<Plain<'_>> {
    let behind = bytes.strip_prefix(b"GET /")?;
    // A dot or a slash behind a slash is left to whoever removes dot segments.
    let mut before = b'/';
    let end = behind.iter().position(|b| {
        let stop = !PATH[usize::from(*b)] || before == b'/' && matches!(b, b'/' | b'.');
        before = *b;
        stop
    })?;
    let mut rest = &behind[end..];
    if let Some(query) = rest.strip_prefix(b"?") {
        let end = query.iter().position(|b| !QUERY[usize::from(*b)])?;
        rest = &query[end..];
    }
    let target = &bytes[b"GET ".len()..bytes.len() - rest.len()];
    rest = rest.strip_prefix(b" HTTP/1.1\r\n")?;
    let first = bytes.len() - rest.len();
    let (mut host, mut referer, mut agent) = (None, None, None);
    let (mut caching, mut count) = (false, 0);
    let lines = loop {
        let length = rest.iter().position(|b| !FIELD[usize::from(*b)])?;
        let (line, tail) = rest.split_at(length);
        let at = bytes.len() - rest.len();
        rest = tail.strip_prefix(b"\r\n")?;
        if line.is_empty() {
            break &bytes[first..at];
        }
        count += 1;
        let (name, value) = split(line)?;
        match is(name) {
            Field::Host if host.is_none() => host = Some(value),
            Field::Connection if value.eq_ignore_ascii_case(b"keep-alive") => {}
            Field::Referer => referer = referer.or(Some(value)),
            Field::Agent => agent = agent.or(Some(value)),
            Field::Caching => caching = true,
            Field::Harmless => {}
            Field::Host | Field::Connection | Field::Other => return None,
        }
    };
    if count > fields {
        return None;
    }
    let target = std::str::from_utf8(target).ok()?;
    Some(Plain {
        path: &target[..=end],
        target,
        host: host?,
        referer,
        agent,
        caching,
        lines,
        len: bytes.len() - rest.len(),
    })
}

/// Name and value of a field line.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|b| *b == b':')?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

/// What a field means to an answer.
enum Field {
    Host,
    Connection,
    /// To the log alone.
    Referer,
    Agent,
    /// To a cache between.
    Caching,
    /// Nothing.
    Harmless,
    /// Something, or who knows.
    Other,
}

fn is(name: &[u8]) -> Field {
    let equals = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let known: &[&str] = match name.len() {
        3 if equals("via") => return Field::Caching,
        3 => &["dnt"],
        4 if equals("host") => return Field::Host,
        6 if equals("pragma") => return Field::Caching,
        6 => &["accept", "cookie"],
        7 if equals("referer") => return Field::Referer,
        7 => &["sec-gpc"],
        8 => &["priority"],
        9 => &["forwarded", "x-real-ip"],
        10 if equals("user-agent") => return Field::Agent,
        10 if equals("connection") => return Field::Connection,
        10 => &["keep-alive", "tracestate"],
        11 => &["traceparent"],
        12 => &["x-request-id"],
        13 if equals("cache-control") => return Field::Caching,
        15 => &["accept-encoding", "accept-language", "x-forwarded-for"],
        16 => &["x-forwarded-host", "x-forwarded-port"],
        17 => &["x-forwarded-proto"],
        25 => &["upgrade-insecure-requests"],
        _ => &[],
    };
    let begins = |with: &str| {
        name.split_at_checked(with.len())
            .is_some_and(|(start, rest)| {
                // What is no name at all is for others to refuse.
                let named = rest.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
                named && start.eq_ignore_ascii_case(with.as_bytes())
            })
    };
    if known.iter().any(|known| equals(known)) || begins("sec-fetch-") || begins("sec-ch-ua") {
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

/// Bytes of a query (RFC 3986 section 3.4), which is not decoded here.
const QUERY: [bool; 256] = {
    let mut table = PATH;
    table[b'?' as usize] = true;
    table[b'%' as usize] = true;
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
        let found = read(more.as_bytes(), 10);
        assert_eq!(found.map(|plain| plain.path), path, "{head:?}");
        assert_eq!(found.map(|plain| plain.len), path.map(|_| head.len()));
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
        check("GET /x?a=%41/?b HTTP/1.1\r\nHost: a\r\n\r\n", Some("/x"));
    }

    #[test]
    fn plain_head_keeps_what_caches_and_logs_ask_for() {
        let head = b"GET /x?q HTTP/1.1\r\nHost: a.test:80 \r\nUser-Agent:\r\nUser-Agent: b\r\nReferer:\thttp://c/\r\nAccept: d\r\naccept:e\r\n\r\n";
        let plain = read(head, 10).unwrap();
        assert_eq!((plain.target, plain.host()), ("/x?q", Some("a.test:80")));
        assert_eq!(plain.agent, Some(&b""[..]));
        assert_eq!(plain.referer, Some(&b"http://c/"[..]));
        assert!(!plain.caching);
        let fields = plain.fields();
        assert_eq!(fields.len(), 6);
        let accept: Vec<_> = fields.get_all("accept").iter().collect();
        assert_eq!(accept, ["d", "e"]);
        for field in ["Cache-Control: max-age=0", "pragma: x", "VIA: 1.1 b"] {
            let head = format!("GET /x HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
            assert!(read(head.as_bytes(), 10).unwrap().caching, "{field}");
        }
    }

    #[test]
    fn odd_host_is_no_host() {
        for host in ["", "a@b", "[::1]", "a b", "\u{e9}", "a/b", "a_b"] {
            let head = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(read(head.as_bytes(), 10).unwrap().host(), None, "{host:?}");
        }
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
            "Sec-Fetch-\u{e9}: a",
            "Sec-Ch-Ua(: a",
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
            "GET /x#f HTTP/1.1",
            "GET /x?q#f HTTP/1.1",
            "GET /x?q q HTTP/1.1",
            "GET /x?\u{e9} HTTP/1.1",
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
                    "Range: bytes=0-0", "Content-Length: 1", "Connection: keep-alive", "Host", "\u{e9}", "X: y", "Via: b", "Referer:",
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
                prop_assert_eq!(request.path, Some(plain.target));
                let normal = normalise(plain.path);
                prop_assert_eq!(normal.as_deref(), Ok(plain.path));
                let own = plain.fields();
                prop_assert_eq!(own.len(), request.headers.len());
                prop_assert_eq!(own.get_all("host").iter().count(), 1);
                prop_assert_eq!(own["host"].as_bytes(), plain.host);
                for field in request.headers.iter() {
                    prop_assert!(own.get_all(field.name).iter().any(|value| value.as_bytes() == field.value));
                }
                let mut screen = crate::http::screen::Screen::default();
                prop_assert_eq!(screen.look(&mut text.clone().into_bytes()[..plain.len]), Ok(()));
                prop_assert!(!screen.leaves_bytes());
            }
        }
    }
}
