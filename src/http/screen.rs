//! A second look at HTTP/1 request heads, stricter than the parser behind it. Pure.
//!
//! hyper takes a bare line feed for a line end, joins repeated `Content-Length` fields that agree and lets
//! `Transfer-Encoding` win over `Content-Length`. Each of these is how one request is smuggled inside another past
//! a proxy that reads differently (RFC 9112 sections 2.2, 6.1 and 6.3), so none may pass. [`Screen::look`] sees
//! the bytes before hyper does and turns the line feed where the fault shows into NUL, which no head may contain:
//! hyper then answers 400 and closes.
//!
//! A request with a body ends the look, since the server closes the connection after answering it.

/// The state of one connection's heads.
#[derive(Debug)]
pub struct Screen {
    state: State,
    /// Bytes seen that equal the HTTP/2 preface.
    preface: usize,
    /// The beginning of the line that is not whole yet.
    line: Vec<u8>,
    /// The byte before the next one.
    last: u8,
    lengths: u8,
    codings: u8,
    body: bool,
    heads: u32,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A line ends with LF alone.
    BareLineFeed,
    /// A field line continues the one before (obs-fold).
    Folded,
    /// A `Content-Length` line longer than any length.
    LongLength,
    /// More than one `Content-Length`.
    RepeatedLength,
    /// Both `Content-Length` and `Transfer-Encoding`, or the latter twice.
    TwoLengths,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between heads.
    Start,
    /// Within a head.
    Fields,
    /// A body or a fault: what follows is no head.
    Ended,
    /// HTTP/2: nothing to look at.
    Off,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            state: State::Start,
            preface: 0,
            line: Vec::new(),
            last: 0,
            lengths: 0,
            codings: 0,
            body: false,
            heads: 0,
        }
    }
}

impl Screen {
    /// Looks at the next bytes of the connection. On a fault one of them is NUL after.
    pub fn look(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        if matches!(self.state, State::Off | State::Ended) {
            return Ok(());
        }
        if self.preface < PREFACE.len() && self.is_preface(bytes) {
            return Ok(());
        }
        let mut start = 0;
        while let Some(step) = bytes[start..].iter().position(|b| *b == b'\n') {
            let end = start + step;
            let before = if step > 0 { bytes[end - 1] } else { self.last };
            let fault = if before == b'\r' {
                self.end_line(&bytes[start..end])
            } else {
                Some(Fault::BareLineFeed)
            };
            if let Some(fault) = fault {
                bytes[end] = 0;
                self.state = State::Ended;
                return Err(fault);
            }
            if self.state == State::Ended {
                return Ok(());
            }
            start = end + 1;
            self.last = b'\n';
        }
        if let Some(last) = bytes[start..].last() {
            self.last = *last;
            let room = LINE_MAX.saturating_sub(self.line.len());
            let rest = &bytes[start..];
            self.line.extend_from_slice(&rest[..rest.len().min(room)]);
        }
        Ok(())
    }

    /// Whether a head has begun and is not whole.
    #[must_use]
    pub fn within_head(&self) -> bool {
        self.state == State::Fields || self.state == State::Start && !self.line.is_empty()
    }

    /// Heads that were whole (modulo 2³²).
    #[must_use]
    pub fn heads(&self) -> u32 {
        self.heads
    }

    /// Whether the next byte begins a head of HTTP/1.
    #[must_use]
    pub fn between_heads(&self) -> bool {
        self.state == State::Start && self.preface > PREFACE.len() && self.line.is_empty()
    }

    /// Whether the client may be sending what no answer waits for: a body, the rest of a refused head.
    #[must_use]
    pub fn leaves_bytes(&self) -> bool {
        self.state == State::Ended || self.within_head()
    }

    /// Whether the connection may still turn out to be HTTP/2.
    #[must_use]
    pub fn within_preface(&self) -> bool {
        self.preface > 0 && self.preface < PREFACE.len()
    }

    /// Whether `bytes` end the HTTP/2 preface.
    fn is_preface(&mut self, bytes: &[u8]) -> bool {
        let rest = &PREFACE[self.preface..];
        let compared = rest.len().min(bytes.len());
        if bytes[..compared] != rest[..compared] {
            self.preface = usize::MAX;
            return false;
        }
        self.preface += compared;
        if self.preface == PREFACE.len() {
            self.state = State::Off;
        }
        self.state == State::Off
    }

    /// Takes a line (`tail` is what of it was not seen before, up to and with its CR).
    fn end_line(&mut self, tail: &[u8]) -> Option<Fault> {
        // The common case: the line is whole in this read, so nothing is copied.
        if self.line.is_empty() {
            return self.take(tail.strip_suffix(b"\r").unwrap_or(tail));
        }
        let room = LINE_MAX.saturating_sub(self.line.len());
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(&tail[..tail.len().min(room)]);
        let fault = self.take(line.strip_suffix(b"\r").unwrap_or(&line));
        line.clear();
        self.line = line;
        fault
    }

    fn take(&mut self, line: &[u8]) -> Option<Fault> {
        if line.is_empty() {
            // Empty lines before a request line are allowed (RFC 9112 section 2.2).
            if self.state == State::Fields {
                self.heads = self.heads.wrapping_add(1);
                self.state = if self.body {
                    State::Ended
                } else {
                    State::Start
                };
                (self.lengths, self.codings) = (0, 0);
            }
            return None;
        }
        if self.state == State::Start {
            self.state = State::Fields;
            return None;
        }
        match line[0] {
            b' ' | b'\t' => return Some(Fault::Folded),
            // The first letter spares most lines the comparison.
            b'C' | b'c' | b'T' | b't' => {}
            _ => return None,
        }
        if let Some(value) = field(line, b"content-length:") {
            self.lengths += 1;
            if line.len() >= LINE_MAX {
                return Some(Fault::LongLength);
            }
            self.body |= value.trim_ascii().iter().any(|b| *b != b'0');
        } else if field(line, b"transfer-encoding:").is_some() {
            self.codings += 1;
            self.body = true;
        }
        match (self.lengths, self.codings) {
            (2.., _) => Some(Fault::RepeatedLength),
            (1, 1..) | (_, 2..) => Some(Fault::TwoLengths),
            _ => None,
        }
    }
}

/// Whether a connection that begins with `bytes` is HTTP/2 by their preface (RFC 9113 section 3.4), if they say so yet.
#[must_use]
pub fn is_http2(bytes: &[u8]) -> Option<bool> {
    if bytes.len() < PREFACE.len() {
        return (!PREFACE.starts_with(bytes)).then_some(false);
    }
    Some(bytes.starts_with(PREFACE))
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a line kept between reads: enough for both names and for telling whether a length is 0.
const LINE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Looks at `text` in pieces of `step` bytes.
    fn look(text: &[u8], step: usize) -> (Result<(), Fault>, Vec<u8>, Screen) {
        let mut screen = Screen::default();
        let mut bytes = text.to_vec();
        for piece in bytes.chunks_mut(step) {
            if let Err(fault) = screen.look(piece) {
                return (Err(fault), bytes, screen);
            }
        }
        (Ok(()), bytes, screen)
    }

    #[track_caller]
    fn check(text: &str, expected: Result<(), Fault>) {
        for step in [1, 2, 3, 7, 1000] {
            let (found, bytes, _) = look(text.as_bytes(), step);
            assert_eq!(found, expected, "{text:?} by {step}");
            assert_eq!(bytes.contains(&0), expected.is_err(), "{text:?} by {step}");
        }
    }

    #[test]
    fn heads_that_are_right_pass_unchanged() {
        check("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(()));
        check(
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            Ok(()),
        );
        let one = "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        check(&format!("{one}{one}{one}"), Ok(()));
    }

    #[test]
    fn bare_line_feed_is_refused() {
        let fault = Err(Fault::BareLineFeed);
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", fault);
        check("GET / HTTP/1.1\r\nHost: a\n\r\n", fault);
        check("GET / HTTP/1.1\r\nHost: a\r\n\n", fault);
        check("\nGET / HTTP/1.1\r\n\r\n", fault);
        check("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n", fault);
    }

    #[test]
    fn two_lengths_are_refused() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\n";
        check(
            &format!("{head}Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
            Err(Fault::RepeatedLength),
        );
        check(
            &format!("{head}content-length:0\r\nX: y\r\nCONTENT-LENGTH: 0\r\n\r\n"),
            Err(Fault::RepeatedLength),
        );
        check(
            &format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(Fault::TwoLengths),
        );
        check(
            &format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
            Err(Fault::TwoLengths),
        );
    }

    #[test]
    fn length_padded_beyond_reason_is_refused() {
        let pad = " ".repeat(80);
        check(
            &format!("GET / HTTP/1.1\r\nContent-Length:{pad}0\r\n\r\n"),
            Err(Fault::LongLength),
        );
    }

    #[test]
    fn folded_field_is_refused() {
        check(
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            Err(Fault::Folded),
        );
        check(
            "GET / HTTP/1.1\r\nX: a\r\n\tContent-Length: 5\r\n\r\n",
            Err(Fault::Folded),
        );
    }

    #[test]
    fn body_ends_the_look() {
        check("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\na\nb\n", Ok(()));
        check(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\n",
            Ok(()),
        );
    }

    #[test]
    fn http2_preface_ends_the_look() {
        let mut bytes = PREFACE.to_vec();
        bytes.extend_from_slice(b"\0\n\n\n");
        for step in [1, 5, 24, 1000] {
            let (found, seen, screen) = look(&bytes, step);
            assert_eq!((found, seen), (Ok(()), bytes.clone()));
            assert!(!screen.within_head() && !screen.within_preface());
        }
        let (_, _, screen) = look(&PREFACE[..9], 2);
        assert!(screen.within_preface());
        check("PRI * HTTP/2.0\r\n\r\nSM\n", Err(Fault::BareLineFeed));
    }

    #[test]
    fn protocol_is_told_by_the_first_bytes_that_differ() {
        assert_eq!(is_http2(PREFACE), Some(true));
        assert_eq!(is_http2(&[PREFACE, b"\0\0"].concat()), Some(true));
        for length in 0..PREFACE.len() {
            assert_eq!(is_http2(&PREFACE[..length]), None);
            let other = [&PREFACE[..length], b"!"].concat();
            assert_eq!(is_http2(&other), Some(false), "{length}");
        }
    }

    #[test]
    fn head_is_open_from_its_first_byte_to_its_last() {
        let text = b"\r\nGET / HTTP/1.1\r\nA: b\r\n\r\n";
        let mut screen = Screen::default();
        for (i, byte) in text.iter().enumerate() {
            screen.look(&mut [*byte]).unwrap();
            let open = screen.within_head();
            // A lone CR may be the beginning of an empty line; it counts as open, which harms nobody.
            assert_eq!(open, i != 1 && i != text.len() - 1, "after byte {i}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in "(GET / HTTP/1.1|Content-Length: [05]|Transfer-Encoding: x|A: b|\r\n|\n| |\r){0,14}",
            step in 1usize..40,
        ) {
            let (whole, bytes, _) = look(text.as_bytes(), usize::MAX);
            let (parts, seen, _) = look(text.as_bytes(), step);
            prop_assert_eq!(whole, parts);
            prop_assert_eq!(bytes, seen);
        }
    }
}
