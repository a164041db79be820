//! Domain names: master-file text to wire form and back (RFC 1035 section 5.1).

use crate::dns::wire::NAME_MAX;

/// Reads master-file text as a name and appends it to `out`; relative to `origin` unless it ends in a dot.
///
/// # Errors
/// What is wrong with it; `out` is then as before.
pub(in crate::dns) fn from_text(
    text: &[u8],
    origin: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let start = out.len();
    let read = append_text(text, origin, out);
    if read.is_err() {
        out.truncate(start);
    }
    read
}

fn append_text(text: &[u8], origin: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let start = out.len();
    match text {
        b"@" => {
            out.extend_from_slice(origin);
            return Ok(());
        }
        b"." => {
            out.push(0);
            return Ok(());
        }
        b"" => return Err("found an empty name, expected a name"),
        _ => {}
    }
    if let Some(absolute) = append_plain(text, out) {
        if !absolute {
            out.extend_from_slice(origin);
        }
        if out.len() - start <= NAME_MAX {
            return Ok(());
        }
    }
    // Escapes, or something wrong: byte by byte.
    out.truncate(start);
    let mut label = out.len();
    out.push(0);
    let mut absolute = false;
    for symbol in Symbols(text) {
        let (byte, escaped) = symbol?;
        absolute = false;
        if byte == b'.' && !escaped {
            if out.len() - label == 1 {
                return Err("found an empty label, expected 1 to 63 bytes between two dots");
            }
            label = out.len();
            out.push(0);
            absolute = true;
        } else {
            out.push(byte);
            if out.len() - label - 1 > 63 {
                return Err("found a label of more than 63 bytes, expected at most 63");
            }
            out[label] += 1;
        }
        if out.len() - start > NAME_MAX {
            return Err(TOO_LONG);
        }
    }
    if !absolute {
        out.extend_from_slice(origin);
    }
    if out.len() - start > NAME_MAX {
        return Err(TOO_LONG);
    }
    Ok(())
}

/// Appends a name without escapes and says whether it ends in a dot. `None`: it has some, or a label is not good.
fn append_plain(text: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let absolute = text.last() == Some(&b'.');
    let labels = if absolute {
        &text[..text.len() - 1]
    } else {
        text
    };
    let start = out.len();
    // A length byte takes the place of each dot before a label, and one comes before the first.
    out.push(0);
    out.extend_from_slice(labels);
    let mut label = start;
    for at in start + 1..out.len() {
        match out[at] {
            b'.' => {
                out[label] = plain_len(at - label - 1)?;
                label = at;
            }
            b'\\' => return None,
            _ => {}
        }
    }
    let end = out.len();
    out[label] = plain_len(end - label - 1)?;
    if absolute {
        out.push(0);
    }
    Some(absolute)
}

fn plain_len(len: usize) -> Option<u8> {
    u8::try_from(len).ok().filter(|len| (1..=63).contains(len))
}

const TOO_LONG: &str = "found a name of more than 255 bytes, expected at most 255";

/// The bytes of a token, escapes resolved (RFC 1035 section 5.1), each with whether it was escaped.
pub(super) struct Symbols<'a>(pub(super) &'a [u8]);

impl Iterator for Symbols<'_> {
    type Item = Result<(u8, bool), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        if first != b'\\' {
            return Some(Ok((first, false)));
        }
        let Some((&second, rest)) = rest.split_first() else {
            return Some(Err(
                "found a backslash at the end, expected a character or three digits behind it",
            ));
        };
        if !second.is_ascii_digit() {
            self.0 = rest;
            return Some(Ok((second, true)));
        }
        let value = self
            .0
            .get(..3)
            .filter(|d| d.iter().all(u8::is_ascii_digit))
            .map(|digits| {
                digits
                    .iter()
                    .fold(0_u16, |value, digit| value * 10 + u16::from(digit - b'0'))
            });
        self.0 = self.0.get(3..).unwrap_or(&[]);
        match value.map(u8::try_from) {
            Some(Ok(byte)) => Some(Ok((byte, true))),
            _ => Some(Err("found a bad escape, expected \\000 to \\255")),
        }
    }
}

/// A wire-form name as master-file text with a final dot.
pub(in crate::dns) fn to_text(name: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let mut at = 0;
    while name[at] != 0 {
        let end = at + 1 + usize::from(name[at]);
        for &byte in &name[at + 1..end] {
            match byte {
                b'.' | b'"' | b'(' | b')' | b';' | b'@' | b'$' | b'\\' => {
                    text.push('\\');
                    text.push(char::from(byte));
                }
                0x21..=0x7E => text.push(char::from(byte)),
                _ => {
                    let _ = write!(text, "\\{byte:03}"); // A String takes everything.
                }
            }
        }
        text.push('.');
        at = end;
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&[u8], &str>) {
        let mut out = vec![9];
        let read = from_text(text.as_bytes(), b"\x04test\0", &mut out);
        match expected {
            Ok(wire) => {
                assert_eq!(read, Ok(()));
                assert_eq!(&out[1..], wire);
            }
            Err(part) => {
                assert!(read.is_err_and(|error| error.contains(part)));
                assert_eq!(out, [9]);
            }
        }
    }

    #[test]
    fn from_text_reads_relative_absolute_and_escaped_names() {
        check("@", Ok(b"\x04test\0"));
        check(".", Ok(b"\0"));
        check("www", Ok(b"\x03www\x04test\0"));
        check("a.B.", Ok(b"\x01a\x01B\0"));
        check("a\\.b", Ok(b"\x03a.b\x04test\0"));
        check("a\\046b.", Ok(b"\x03a.b\0"));
    }

    #[test]
    fn from_text_names_what_is_wrong() {
        check("", Err("empty name"));
        check("a..b", Err("empty label"));
        check(".a", Err("empty label"));
        check("a\\25", Err("bad escape"));
        check("a\\256", Err("bad escape"));
        check("a\\", Err("backslash"));
        check(&"x".repeat(64), Err("63 bytes"));
        check(&"x.".repeat(128), Err("255 bytes"));
        check(
            &"x.".repeat(127),
            Ok(&[&b"\x01x".repeat(127)[..], b"\0"].concat()),
        );
    }

    proptest! {
        #[test]
        fn any_name_survives_text(labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let mut wire = Vec::new();
            for label in &labels {
                wire.push(u8::try_from(label.len()).expect("below 20"));
                wire.extend_from_slice(label);
            }
            wire.push(0);
            let mut back = Vec::new();
            prop_assert_eq!(from_text(to_text(&wire).as_bytes(), b"\0", &mut back), Ok(()));
            prop_assert_eq!(back, wire);
        }
    }
}
